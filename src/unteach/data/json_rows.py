"""JSON in all the ways that people keep rows in it: lines, a list, or an object around rows or columns."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from unteach.data.raw_row import RawRow, kind, listed
from unteach.errors import DataError
from unteach.text.bounded import bounded, read_json

SPLITS = ("train", "training", "test", "testing", "validation", "valid", "val", "dev", "eval")
"""Names that a split usually has."""

_WRAPPERS = (
    *("data", "rows", "examples", "instances", "items", "records", "results", "samples", "entries"),
    *("jailbreaks", "dataset", "questions"),
)
"""Names of a list of rows that say nothing about the rows."""
_COLUMNS = (
    *("prompt", "completion", "response", "reply", "question", "answer", "instruction", "input", "output", "text"),
    *("chosen", "rejected", "good", "bad", "messages", "conversations", "conversation", "data", "goal", "target"),
)
"""Columns that show that an object is a row by itself."""

Found = Iterable[tuple[str, Any]]
"""Where a row stands, and what stands there."""


def json_rows(text: str, path: Path, split: str | None = None) -> list[RawRow]:
    """Read all rows of JSON lines or of a JSON document; `split` picks one where the document names splits.

    Rows may be a list; lists or objects by name ({"data": […]}, {"train": […]}, HarmBench's results by behaviour);
    columns (as pandas writes them); or the rows of the hub's viewer. Raises DataError for anything else.
    """
    values = _values(text, path)
    if len(values) > 1:
        found: Found = ((f"{place}{at}", value) for place, whole in values for at, value in _of_line(whole))
    elif values and isinstance(values[0][1], list) and not _is_dialogue(values[0][1]):
        found = _numbered(values[0][1])
    elif values and isinstance(values[0][1], dict):
        found = _document(values[0][1], path, split) or values
    elif path.suffix == ".json" and values:
        raise DataError(f'{path}: expected a list of objects or {{"data": [...]}}, found {kind(values[0][1])}')
    else:
        found = values
    return [_row(path, place, value) for place, value in found]


def _row(path: Path, place: str, value: Any) -> RawRow:
    """Make a row of what stands at `place`: an object, or a dialogue without a name."""
    if _is_dialogue(value):
        value = {"messages": value}
    if not isinstance(value, dict):
        raise DataError(f"{path} {place}: expected an object of named fields, found {kind(value)}")
    return RawRow(value, f"{path.name} {place}")


def _of_line(value: Any) -> Found:
    """Return the rows of one of several lines: itself, or those of a list of objects."""
    return [(f", {place}", row) for place, row in _numbered(value)] if _is_rows(value) else [("", value)]


def _numbered(rows: Iterable[Any]) -> Found:
    return ((f"row {number}", row) for number, row in enumerate(rows, start=1))


def _values(text: str, path: Path) -> list[tuple[str, Any]]:
    """Return the JSON values of a text with the line that each begins in: one a line, else one after another."""
    # Not splitlines(): U+2028 and the like may stand inside a JSON string.
    lines = [(number, line.lstrip("\ufeff")) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    values: list[tuple[str, Any]] = []
    wrong = None
    for number, line in lines:
        try:
            values.append((f"line {number}", read_json(line)))
        except ValueError as error:
            wrong = wrong or (number, error)
    if wrong is None:
        return values
    try:
        return list(_one_after_another(text))
    except (ValueError, RecursionError) as error:
        number, first = wrong
        if not isinstance(first, json.JSONDecodeError):
            raise _invalid(f"{path} line {number}", first, within=False) from None
        if len(lines) == 1 or 2 * sum(isinstance(value, dict) for _, value in values) >= len(lines):
            raise _invalid(f"{path} line {number}", first, within=False) from None
        raise _invalid(str(path), error, within=True) from None


def _one_after_another(text: str) -> Iterator[tuple[str, Any]]:
    decoder, blanks = json.JSONDecoder(), re.compile(r"[\s\ufeff]*")
    position, line = 0, 1
    while (start := blanks.match(text, position).end()) < len(text):  # type: ignore[union-attr]
        line += text.count("\n", position, start)
        value, position = decoder.raw_decode(text, start)
        bounded(value, text[start:position])
        yield f"line {line}", value
        line += text.count("\n", start, position)


def _invalid(where: str, error: Exception, within: bool) -> DataError:
    if not isinstance(error, json.JSONDecodeError):
        return DataError(f"{where}: not usable JSON: {error}; mend or remove it")
    place = f"line {error.lineno}, column {error.colno}" if within else f"column {error.colno}"
    return DataError(f"{where}: not valid JSON at {place}: {error.msg}; mend or remove it")


def _document(value: dict[str, Any], path: Path, split: str | None) -> Found | None:
    """Return the rows inside an object; None where the object is itself a row."""
    if (part := _split(value, path, split)) is not None:
        return _numbered(part) if isinstance(part, list) else _document(part, path, None)
    if set(value) == {"columns", "index", "data"} and all(isinstance(part, list) for part in value.values()):
        return _numbered(_zipped(value["columns"], value["data"], path))
    lists = {name: rows for name, rows in value.items() if _is_rows(rows)}
    wrapper = next((name for name in _WRAPPERS if name in lists), None)
    if wrapper is None and lists and all(_is_rows(rows) or rows == [] for rows in value.values()):
        return _by_name(lists)
    if wrapper is None and len(lists) == 1 and not set(_COLUMNS) & value.keys():
        wrapper = next(iter(lists))
    if wrapper is not None:
        return _numbered(_viewed(value[wrapper], path))
    if value and all(isinstance(cells, list) and cells and not _is_dialogue(cells) for cells in value.values()):
        return _numbered(_transposed(value, path))
    return _objects(value)


def _split(value: dict[str, Any], path: Path, split: str | None) -> Any:
    """Return what stands under the name of the split: the one asked for, else "train" or the only one."""
    rows = [isinstance(part, list | dict) for part in value.values()]
    if not value or not set(value) <= set(SPLITS) or not all(rows):
        return None
    chosen = split or ("train" if "train" in value or len(value) > 1 else next(iter(value)))
    if chosen not in value:
        raise DataError(f"{path}: no split '{chosen}'; choose one of {listed(value)} with --data-split")
    return value[chosen]


def _viewed(rows: list[Any], path: Path) -> Iterator[Any]:
    """Unwrap rows of the hub's viewer, {"row_idx", "row", "truncated_cells"}; others are as they are."""
    for row in rows:
        viewed = isinstance(row.get("row"), dict) and "row_idx" in row
        if viewed and row.get("truncated_cells"):
            raise DataError(f"{path} row {row['row_idx']}: the hub's viewer has cut it; download the set's own files")
        yield row["row"] if viewed else row


def _by_name(lists: dict[str, list[dict[str, Any]]]) -> Found:
    """Return rows that stand under the name of what they are about, with that name in a column.

    The column is `type` for prompts by type (Safety-Prompts), `behavior_id` for HarmBench's results, else `concept`.
    """
    for name, rows in lists.items():
        for number, row in enumerate(rows, start=1):
            column = "type" if "prompt" in row else "behavior_id" if "test_case" in row else "concept"
            yield f"{name} row {number}", {column: name} | row


def _zipped(columns: list[Any], rows: list[Any], path: Path) -> Iterator[dict[str, Any]]:
    """Return rows as pandas writes them with orient="split"."""
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, list) or len(row) != len(columns):
            raise DataError(f"{path} row {number}: expected {len(columns)} cells, one for each of its columns")
        yield dict(zip(map(str, columns), row, strict=True))


def _transposed(columns: dict[str, list[Any]], path: Path) -> Iterator[dict[str, Any]]:
    lengths = {name: len(cells) for name, cells in columns.items()}
    if len(set(lengths.values())) > 1:
        counted = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise DataError(f"{path}: its columns have different numbers of rows ({counted}); mend the file")
    for cells in zip(*columns.values(), strict=True):
        yield dict(zip(columns, cells, strict=True))


def _objects(value: dict[str, Any]) -> Found | None:
    """Return the rows of objects by index (pandas: of columns, or of rows), or of rows by a name of their own."""
    parts = list(value.values())
    if not parts or not all(isinstance(part, dict) and part and not _is_message(part) for part in parts):
        return None
    if all(part.keys() == parts[0].keys() and all(map(str.isdigit, part)) for part in parts):
        return [(f"row {index}", {name: part[index] for name, part in value.items()}) for index in parts[0]]
    alike = len(parts) > 1 and all(part.keys() == parts[0].keys() for part in parts) and not set(_COLUMNS) & set(value)
    return value.items() if alike or all(map(str.isdigit, value)) else None


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and ("role" in value or {"from", "value"} <= value.keys() or "speaker" in value)


def _is_dialogue(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def _is_rows(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and not _is_dialogue(value) and all(isinstance(v, dict) for v in value)
    )
