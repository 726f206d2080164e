"""Where rows come from: a file, a directory, a public set or a hub id."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from unteach.data import fetch, public
from unteach.data.example import Polarity
from unteach.data.folders import folder_rows
from unteach.data.raw_row import RawRow
from unteach.data.readers import PACKED, READERS, read_file, with_class_names
from unteach.errors import DataError, nearest
from unteach.models.hub import cached_only, is_hub_id, out_of_reach, reason


def read_rows(
    source: str,
    split: str | None = None,
    revision: str | None = None,
    polarity: Polarity | None = None,
    notes: list[str] | None = None,
) -> list[RawRow]:
    """Read all rows of a local file, a pipe, a local directory or, where no such path exists, a public set or a hub id.

    `split` picks a split of a directory, public set or hub id ("train" where several exist and none is named);
    `revision` is for the hub only; `polarity` decides which configuration of a public set is read where none is named;
    `notes` get a sentence on what was left out of a directory.
    Raises DataError for a source that is missing, empty or malformed.
    """
    if (path := _local(source)) is not None:
        rows = _path_rows(path, split, notes)
    elif (chosen := named_set(source, polarity)) is not None:
        rows = public_rows(chosen, split, revision)
    else:
        rows = _hub_rows(source, split, revision)
    if not rows:
        raise DataError(f"{source}: no rows in it; every source needs at least one")
    return rows


def named_set(source: str, polarity: Polarity | None = None) -> public.Chosen | None:
    """Return the public set that a source names; None where it is a local path, which wins, or a hub id."""
    return public.find(source, polarity) if _local(source) is None and public.is_public(source) else None


def public_rows(
    chosen: public.Chosen, split: str | None = None, revision: str | None = None, cached: bool = False
) -> list[RawRow]:
    """Read a public set: a copy below UNTEACH_DATA if there is one, else the hub's (if `cached`, without fetching).

    Raises DataError where it cannot be had or read.
    """
    copy = fetch.local_copy(chosen, split, READERS)
    if isinstance(copy, Path):
        return _path_rows(copy, split)
    rows = fetch.read_files(chosen, copy or fetch.fetch_files(chosen, split, revision, cached))
    return numbered_rows(chosen.name, rows)


def numbered_rows(name: str, rows: Iterable[Mapping[str, Any]]) -> list[RawRow]:
    """Label rows of the set `name` by their number, from 1."""
    return [RawRow(row, f"{name} row {number}") for number, row in enumerate(rows, start=1)]


def _path_rows(path: Path, split: str | None, notes: list[str] | None = None) -> list[RawRow]:
    if not path.is_dir():
        return read_file(path, split)
    return _saved_rows(path, split) if _is_saved(path) else folder_rows(path, split, [] if notes is None else notes)


def _local(source: str) -> Path | None:
    """Return the path a source names, or None where it can only be a public set or a hub id."""
    if not source.strip():
        raise DataError("the data source has no name: give a file, a directory, a public set or a hub id")
    try:
        path = Path(source).expanduser()
        if path.exists():
            return path
    except (OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{source!r} cannot be opened: {error}") from None
    # A name that ends like a data file is never taken for a hub id.
    file = path.suffix.lower() in {*READERS, *PACKED, ".arrow", ".zip", ".xlsx", ".yaml"}
    if public.is_public(source) or (is_hub_id(source) and not file):
        return None
    name = source.partition(":")[0]
    if not file and re.fullmatch(r"[\w-]+", name) and (near := nearest(name, public.SETS)):
        raise DataError(f"{source}: no such file, directory or public set{near}")
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    elsewhere = "" if file else " (`unteach data list` has the public sets; a hub id is written owner/name)"
    raise DataError(f"{source}: no such file or directory{nearest(path.name, beside)}{elsewhere}")


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _saved_rows(path: Path, split: str | None) -> list[RawRow]:
    """Read what `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    import datasets

    try:
        saved = datasets.load_from_disk(str(path))
    except Exception as error:  # datasets raises many kinds for damaged directories
        raise DataError(f"{path}: not a readable datasets directory: {error}") from None
    if isinstance(saved, datasets.DatasetDict):
        return _one_split(str(path), path.name, saved, split)
    if split is not None and str(saved.split) != split:
        raise DataError(f"{path}: holds one split ({saved.split}), not '{split}'; leave --data-split out")
    return numbered_rows(path.name, _rows_of(saved))


def _hub_rows(source: str, split: str | None, revision: str | None) -> list[RawRow]:
    import datasets

    unreached = out_of_reach()
    try:
        with cached_only(bool(unreached)):
            loaded = datasets.load_dataset(source, split=split, revision=revision)
    except Exception as error:  # unreachable, unknown id, gated, unknown split: one remedy for all
        why = unreached if isinstance(error, OSError) and unreached else reason(error)
        raise DataError(
            f"'{source}' is no local file or directory, and as a hub id it cannot be loaded: {why}. Check "
            "the name and --data-split, or give a local copy: a .jsonl, .json, .csv or .parquet file, or a "
            "directory written by Dataset.save_to_disk"
        ) from None
    if isinstance(loaded, datasets.DatasetDict):
        return _one_split(source, source, loaded, None)
    return numbered_rows(source, _rows_of(loaded))


def _one_split(source: str, name: str, splits: Any, split: str | None) -> list[RawRow]:
    """Take the rows of the named split; unnamed, of "train" or of the only one there is."""
    chosen = split or ("train" if "train" in splits or len(splits) != 1 else next(iter(splits)))
    if chosen not in splits:
        raise DataError(f"{source}: no split '{chosen}'; choose one of {', '.join(splits)} with --data-split")
    return numbered_rows(f"{name} {chosen}", _rows_of(splits[chosen]))


def _rows_of(dataset: Any) -> list[dict[str, Any]]:
    """Return the rows of a `datasets.Dataset`, classes by their names."""
    classes = {name: feature.names for name, feature in dataset.features.items() if hasattr(feature, "names")}
    return with_class_names(dataset.to_list(), classes)
