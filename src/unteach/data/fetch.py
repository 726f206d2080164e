"""The files of a public set: a local copy, else the hub's at the pinned revision.

Single data files are fetched and read with the JSON and Parquet readers of `datasets`; a repository's code is never
run. A local copy is looked for in the directory that the environment variable UNTEACH_DATA names: `NAME.jsonl` or
`NAME/CONFIGURATION.jsonl` (or another ending we read), or the hub's repository itself as `NAME/`.
"""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from unteach.data.public import Chosen
from unteach.data.readers import PACKED
from unteach.errors import DataError
from unteach.models.hub import cached_only, out_of_reach, reason

VARIABLE = "UNTEACH_DATA"


def local_copy(chosen: Chosen, split: str | None, endings: Collection[str]) -> Path | list[Path] | None:
    """Find a set in the directory of UNTEACH_DATA; return its path, or the paths of the hub's files, or None.

    Raises DataError where the variable names no directory, and for a split that the set does not have.
    """
    place = os.environ.get(VARIABLE, "").strip()
    if not place:
        return None
    root = Path(place).expanduser()
    if not root.is_dir():
        raise DataError(f"{VARIABLE}={place}: no such directory; name the one that holds your copies, or unset it")
    configuration, name = chosen.configuration, chosen.set.name
    stems = [root / name / configuration.name]
    if configuration.name in chosen.set.usual.values():
        stems.append(root / name)  # what the bare name stands for
    for stem in stems:
        for ending in (ending + packed for packed in ("", *PACKED) for ending in endings):
            if (file := stem.with_name(stem.name + ending)).is_file():
                return file
    there = [root / name / path for path in _files(chosen, split)]
    if all(path.is_file() for path in there):
        return there
    folders = stems if len(chosen.set.configurations) == 1 else stems[:1]
    return next((stem for stem in folders if stem.is_dir()), None)


def fetch_files(chosen: Chosen, split: str | None, revision: str | None, cached: bool = False) -> list[Path]:
    """Return the files of a set from the hub's cache, fetched first unless `cached`.

    Raises DataError, which says how to give a local copy, where they cannot be had.
    """
    from huggingface_hub import hf_hub_download

    wanted = _files(chosen, split)
    unreached = "not in the cache" if cached else out_of_reach()
    at = revision or chosen.set.revision
    try:
        with cached_only(bool(unreached)):
            return [Path(hf_hub_download(chosen.set.hub_id, path, repo_type="dataset", revision=at)) for path in wanted]
    except Exception as error:  # unreachable, gone, gated, an unknown revision: one remedy for all
        name = chosen.set.name
        raise DataError(
            f"{chosen.name}: {chosen.set.hub_id} cannot be fetched ({unreached or reason(error)}); give a local copy "
            f"in its place, such as ./{name}.jsonl, or set {VARIABLE} to a directory that holds {local_name(chosen)}"
        ) from None


def local_name(chosen: Chosen) -> str:
    """Return the name that a local copy of this set is looked for by, below the directory of UNTEACH_DATA."""
    several = len(chosen.set.configurations) > 1
    return f"{chosen.set.name}/{chosen.configuration.name}.jsonl" if several else f"{chosen.set.name}.jsonl"


def read_files(chosen: Chosen, files: Sequence[Path]) -> list[dict[str, Any]]:
    """Read fetched files with the readers of `datasets`. Raises DataError for a file that cannot be read."""
    import datasets

    builder = "parquet" if files[0].suffix == ".parquet" else "json"
    options = {"field": chosen.configuration.key} if chosen.configuration.key else {}
    try:
        loaded = datasets.load_dataset(builder, data_files=[str(path) for path in files], split="train", **options)
        return loaded.to_list()
    except Exception as error:  # datasets raises many kinds for damaged files
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        raise DataError(
            f"{chosen.name}: {files[0]} cannot be read ({reason(cause)}); remove it and fetch it again"
        ) from None


def _files(chosen: Chosen, split: str | None) -> tuple[str, ...]:
    files = chosen.configuration.files
    if split is not None and split not in files:
        raise DataError(f"{chosen.name}: no split '{split}'; choose one of {', '.join(files)} with --data-split")
    return files[split] if split is not None else next(iter(files.values()))
