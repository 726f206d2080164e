"""Files of rows: JSON lines, JSON, CSV, TSV, Parquet and plain text, one reader for each ending.

Files are untrusted: nothing in them is executed.
"""

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from unteach.data.raw_row import RawRow, kind, listed
from unteach.errors import DataError


def read_file(path: Path) -> list[RawRow]:
    """Read the rows of a file, of which there may be none. Raises DataError for a file that cannot be read."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(READERS)
        raise DataError(f"{path}: files ending in '{path.suffix}' cannot be read; use one of {known}")
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        return reader(path)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} ({error.object[error.start]:#04x}) is not UTF-8; save it as UTF-8"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


def _text_of(path: Path) -> str:
    return path.read_bytes().decode("utf-8-sig")


def _row(path: Path, place: str, values: Any) -> RawRow:
    """Make a row of what stands at `place` in a JSON file, which must be an object."""
    if not isinstance(values, dict):
        raise DataError(f"{path} {place}: expected an object of named fields, found {kind(values)}")
    return RawRow(values, f"{path.name} {place}")


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}" if "\n" in text else f"column {error.colno}"
        raise DataError(f"{where}: not valid JSON at {place}: {error.msg}; mend or remove it") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not usable JSON: {error}") from None


def _json_lines(path: Path) -> list[RawRow]:
    rows = []
    # Not splitlines(): U+2028 and the like may stand inside a JSON string.
    for number, line in enumerate(_text_of(path).split("\n"), start=1):
        if line.strip():
            place = f"line {number}"
            rows.append(_row(path, place, _json(line, f"{path} {place}")))
    return rows


def _json_file(path: Path) -> list[RawRow]:
    """Read a list of objects, {"data": [...]}, lists by type, or JSON lines that were saved under this ending."""
    text = _text_of(path)
    first, _, rest = text.strip().partition("\n")
    if rest.strip() and first.lstrip().startswith("{") and first.rstrip().endswith("}"):
        return _json_lines(path)
    value = _json(text, str(path))
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        value = value["data"]
    elif isinstance(value, dict) and _is_by_type(value):
        return [
            _row(path, f"{name} row {number}", {"type": name} | row)
            for name, rows in value.items()
            for number, row in enumerate(rows, start=1)
        ]
    elif isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        raise DataError(f'{path}: expected a list of objects or {{"data": [...]}}, found {kind(value)}')
    return [_row(path, f"row {number}", row) for number, row in enumerate(value, start=1)]


def _is_by_type(value: dict[str, Any]) -> bool:
    """Tell lists of rows by their type (Safety-Prompts) from one row that holds a dialogue."""
    if not all(isinstance(rows, list) for rows in value.values()):
        return False
    rows = [row for rows in value.values() for row in rows]
    return bool(rows) and all(isinstance(row, dict) and "prompt" in row for row in rows)


def _text(path: Path) -> list[RawRow]:
    """Read a text file as one row, which is about the file's name."""
    text = _text_of(path)
    return [RawRow({"text": text, "concept": path.stem}, path.name)] if text.strip() else []


def _table(path: Path, delimiter: str) -> list[RawRow]:
    """Read a table with a header; rows count from 1 after it. Every value is text."""
    rows: list[RawRow] = []
    with _long_fields():
        reader = csv.reader(io.StringIO(_text_of(path), newline=""), delimiter=delimiter, strict=True)
        try:
            header = next(reader, [])
            if len(set(header)) != len(header):
                raise DataError(f"{path}: two columns have the same name: {listed(header)}")
            for fields in filter(None, reader):
                place = f"row {len(rows) + 1}"
                if len(fields) != len(header):
                    raise DataError(
                        f"{path} {place}: {len(fields)} fields, but the header names {len(header)}; put "
                        "texts that hold the separator in quotes"
                    )
                rows.append(RawRow(dict(zip(header, fields, strict=True)), f"{path.name} {place}"))
        except csv.Error as error:
            raise DataError(f"{path} row {len(rows) + 1}: malformed table: {error}") from None
    return rows


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters for a field: a chapter may be longer."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _parquet(path: Path) -> list[RawRow]:
    import pyarrow
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.ParquetFile(path).read().to_pylist()
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a readable Parquet file: {str(error).splitlines()[0]}") from None
    return [RawRow(row, f"{path.name} row {number}") for number, row in enumerate(rows, start=1)]


READERS: dict[str, Callable[[Path], list[RawRow]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_file,
    ".csv": partial(_table, delimiter=","),
    ".tsv": partial(_table, delimiter="\t"),
    ".parquet": _parquet,
    ".txt": _text,
}
