"""Raw rows of a data source: JSONL, JSON, CSV, Parquet, text, a `datasets` directory, a public set or a hub id.

Rows are untrusted: nothing is executed, and every row carries a label ("hh.jsonl line 12") for messages.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unteach.data import fetch, public
from unteach.data.example import Polarity
from unteach.errors import DataError, nearest
from unteach.models.hub import cached_only, is_hub_id, out_of_reach, reason

Numbered = list[tuple[str, dict[str, Any]]]  # ("line 12", row)

_ELSE = " (`unteach data list` has the public sets; a hub id is written owner/name)"


@dataclass(frozen=True)
class Rows:
    """The rows of one source; `labels[i]` says where `rows[i]` stands, e.g. "hh.jsonl line 12"."""

    name: str
    rows: list[dict[str, Any]]
    labels: list[str]


def read_rows(
    source: str, split: str | None = None, revision: str | None = None, polarity: Polarity | None = None
) -> Rows:
    """Read all rows of a local file, a local directory or, where no such path exists, a public set or a hub id.

    `split` picks a split of a directory, public set or hub id ("train" where several exist and none is named);
    `revision` is for the hub only; `polarity` says which configuration of a public set is meant where none is named.
    Raises DataError for a source that is missing, empty or malformed.
    """
    path = _local(source)
    if path is not None:
        return _filled(source, _path_rows(path, split))
    if (chosen := named_set(source, polarity)) is not None:
        return _filled(source, public_rows(chosen, split, revision))
    return _hub_rows(source, split, revision)


def named_set(source: str, polarity: Polarity | None = None) -> public.Chosen | None:
    """Return the public set that a source names; None where it is a local path, which wins, or a hub id."""
    return public.find(source, polarity) if _local(source) is None and public.is_public(source) else None


def public_rows(
    chosen: public.Chosen, split: str | None = None, revision: str | None = None, cached: bool = False
) -> Rows:
    """Read a public set: a copy below UNTEACH_DATA if there is one, else the hub's (if `cached`, without fetching).

    Raises DataError where it cannot be had or read.
    """
    copy = fetch.local_copy(chosen, split, READERS)
    if isinstance(copy, Path):
        return _path_rows(copy, split)
    rows = fetch.read_files(chosen, copy or fetch.from_hub(chosen, split, revision, cached))
    return Rows(chosen.name, rows, [f"{chosen.name} row {number}" for number in range(1, len(rows) + 1)])


def _path_rows(path: Path, split: str | None) -> Rows:
    if not path.is_dir():
        return _file_rows(path)
    return _saved_rows(path, split) if _is_saved(path) else _folder_rows(path, split)


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
    # Endings that data files have are never part of a hub id here.
    file = path.suffix.lower() in {*READERS, ".arrow", ".gz", ".zip", ".xlsx", ".yaml"}
    if public.is_public(source) or (is_hub_id(source) and not file):
        return None
    name = source.partition(":")[0]
    if not file and re.fullmatch(r"[\w-]+", name) and (near := nearest(name, public.SETS)):
        raise DataError(f"{source}: no such file, directory or public set{near}")
    beside = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError(f"{source}: no such file or directory{nearest(path.name, beside)}{'' if file else _ELSE}")


def _filled(source: str, rows: Rows) -> Rows:
    if not rows.rows:
        raise DataError(f"{source}: no rows in it; every source needs at least one")
    return rows


def _file_rows(path: Path) -> Rows:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(READERS)
        raise DataError(f"{path}: files ending in '{path.suffix}' cannot be read; use one of {known}")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        numbered = reader(path)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} ({error.object[error.start]:#04x}) is not UTF-8; save it as UTF-8"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None
    return Rows(path.name, [row for _, row in numbered], [f"{path.name} {place}".strip() for place, _ in numbered])


def _text_of(path: Path) -> str:
    raw = path.read_bytes()
    return raw.decode("utf-8-sig")


def _jsonl(path: Path) -> Numbered:
    return _json_lines(path, _text_of(path))


def _json_lines(path: Path, text: str) -> Numbered:
    numbered: Numbered = []
    # Not splitlines(): U+2028 and the like may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        numbered.append((place, _object(_json(line, f"{path} {place}"), f"{path} {place}")))
    return numbered


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise DataError(f"{where}: not valid JSON at {place}: {error.msg}; mend or remove it") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not usable JSON: {error}") from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{where}: expected an object of named fields, found {kind(value)}")
    return value


def kind(value: Any) -> str:
    """Name the type of a JSON value in plain words, for messages."""
    names = {bool: "true or false", str: "text", list: "a list", dict: "an object", type(None): "nothing"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def listed(columns: Iterable[str]) -> str:
    """List column names for messages: in one line, long ones cut (a table without a header has such)."""
    short = (name if len(name) <= 40 else name[:39] + "…" for name in columns)
    return ", ".join(name if name.isprintable() else ascii(name) for name in short) or "none"


def _json_file(path: Path) -> Numbered:
    """Read a list of objects, {"data": [...]}, lists by type, or JSON lines that were saved under this ending."""
    text = _text_of(path)
    first, _, rest = text.strip().partition("\n")
    if rest.strip() and first.lstrip().startswith("{") and first.rstrip().endswith("}"):
        return _json_lines(path, text)
    value = _json(text, str(path))
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    elif isinstance(value, dict) and _by_type(value):
        return [
            (f"{name} row {n}", {"type": name} | row) for name, rows in value.items() for n, row in enumerate(rows, 1)
        ]
    elif isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise DataError(f'{path}: expected a list of objects or {{"data": [...]}}, found {kind(value)}')
    return [(f"row {n}", _object(row, f"{path} row {n}")) for n, row in enumerate(value, start=1)]


def _by_type(value: dict[str, Any]) -> bool:
    """Tell lists of rows by their type (Safety-Prompts) from one row that holds a dialogue."""
    if not all(isinstance(rows, list) for rows in value.values()):
        return False
    rows = [row for rows in value.values() for row in rows]
    return bool(rows) and all(isinstance(row, dict) and "prompt" in row for row in rows)


def _text(path: Path) -> Numbered:
    """Read a text file as one row: what it says, and its name as what it is about."""
    text = _text_of(path)
    return [("", {"text": text, "concept": path.stem})] if text.strip() else []


def _csv(path: Path) -> Numbered:
    return _separated(path, ",")


def _tsv(path: Path) -> Numbered:
    return _separated(path, "\t")


def _separated(path: Path, delimiter: str) -> Numbered:
    """Read a table with a header; rows count from 1 after it. Every value is text."""
    numbered: Numbered = []
    with _long_fields():
        reader = csv.reader(io.StringIO(_text_of(path), newline=""), delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            if len(set(header)) != len(header):
                raise DataError(f"{path}: two columns have the same name: {listed(header)}")
            for fields in filter(None, reader):
                place = f"row {len(numbered) + 1}"
                if len(fields) != len(header):
                    raise DataError(
                        f"{path} {place}: {len(fields)} fields, but the header names {len(header)}; put "
                        "texts that hold the separator in quotes"
                    )
                numbered.append((place, dict(zip(header, fields, strict=True))))
        except csv.Error as error:
            raise DataError(f"{path} row {len(numbered) + 1}: malformed table: {error}") from None
    return numbered


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the csv module's bound of 131,072 characters a field: a chapter may be longer."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path) -> Numbered:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.ParquetFile(path).read().to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
    return [(f"row {number}", row) for number, row in enumerate(rows, start=1)]


READERS: dict[str, Callable[[Path], Numbered]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".json": _json_file,
    ".csv": _csv,
    ".tsv": _tsv,
    ".parquet": _parquet,
    ".txt": _text,
}


def _is_saved(path: Path) -> bool:
    return (path / "dataset_dict.json").is_file() or (path / "state.json").is_file()


def _saved_rows(path: Path, split: str | None) -> Rows:
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
    return _dataset_rows(path.name, saved)


def _folder_rows(path: Path, split: str | None) -> Rows:
    """Read all data files of a folder, sorted by name; a split is a file's or subfolder's name.

    Text files count only where there are no others: beside rows they are licences and notes.
    """
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in READERS)
    files = [file for file in files if file.suffix.lower() != ".txt"] or files
    if not files:
        raise DataError(f"{path}: no data files in this directory; known endings: {', '.join(READERS)}")
    if split is not None:
        named = {file: re.split(r"[-.]", file.relative_to(path).parts[0])[0] for file in files}
        files = [file for file in files if named[file] == split]
        if not files:
            raise DataError(f"{path}: no split '{split}'; found {', '.join(sorted(set(named.values())))}")
    parts = [_file_rows(file) for file in files]
    rows = [row for part in parts for row in part.rows]
    return Rows(path.name, rows, [label for part in parts for label in part.labels])


def _hub_rows(source: str, split: str | None, revision: str | None) -> Rows:
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
        return _filled(source, _one_split(source, source, loaded, None))
    return _filled(source, _dataset_rows(source, loaded))


def _one_split(source: str, name: str, splits: Any, split: str | None) -> Rows:
    """Take the rows of the named split; unnamed, of "train" or of the only one there is."""
    chosen = split or ("train" if "train" in splits or len(splits) != 1 else next(iter(splits)))
    if chosen not in splits:
        raise DataError(f"{source}: no split '{chosen}'; choose one of {', '.join(splits)} with --data-split")
    return _dataset_rows(f"{name} {chosen}", splits[chosen])


def _dataset_rows(name: str, dataset: Any) -> Rows:
    rows = dataset.to_list()
    return Rows(name, rows, [f"{name} row {number}" for number in range(1, len(rows) + 1)])
