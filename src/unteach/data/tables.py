"""Tables with a header: CSV and TSV, whatever separates their fields."""

import csv
import io
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unteach.data.raw_row import RawRow, listed
from unteach.errors import DataError

SEPARATORS = (",", ";", "\t", "|")


def table_rows(text: str, path: Path, usual: str = ",") -> list[RawRow]:
    """Read a table with a header; rows count from 1 after it. Every value is text; names lose the spaces around them.

    The header tells the separator: `usual`, unless it separates no names and another one does. Fields between tabs may
    hold single quotes ("He said "go""), which is allowed there alone. Raises DataError for a malformed table.
    """
    if named := re.match(r"sep=([,;\t|])\n", text):  # as Excel writes
        text, usual = text[named.end() :], named[1]
    separators = [usual, *sorted(set(SEPARATORS) - {usual}, key=lambda mark: -names_of(text, mark))]
    separators = [mark for mark in separators if names_of(text, mark) > 1][:1] or [usual]
    try:
        return list(_rows(text, path, separators[0], csv.QUOTE_MINIMAL))
    except DataError:
        if separators == ["\t"]:
            try:
                return list(_rows(text, path, "\t", csv.QUOTE_NONE))
            except DataError:
                pass
        raise


def names_of(text: str, separator: str) -> int:
    """Count the names in a table's first line."""
    line = text.lstrip().partition("\n")[0]
    with _long_fields():
        return len(next(csv.reader([line], delimiter=separator), []))


def _rows(text: str, path: Path, separator: str, quoting: int) -> Iterator[RawRow]:
    number = 1
    with _long_fields():
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True, quoting=quoting)  # type: ignore[arg-type]
        try:
            header = _names(next(filter(_filled, reader), []), path)
            for fields in filter(_filled, reader):
                place = f"row {number}"
                if len(fields) != len(header):
                    raise DataError(
                        f"{path} {place}: {len(fields)} fields, but the header names {len(header)}; put "
                        "texts that hold the separator in quotes"
                    )
                yield RawRow(dict(zip(header, fields, strict=True)), f"{path.name} {place}")
                number += 1
        except csv.Error as error:
            raise DataError(
                f"{path} row {number}: malformed table: {error}; put fields that hold quotes in quotes, and double "
                "the quotes inside"
            ) from None


def _filled(fields: list[str]) -> bool:
    return any(field.strip() for field in fields)


def _names(header: list[str], path: Path) -> list[str]:
    """Return the columns' names. The first without one stays so; further ones are named as pandas does."""
    names = [name.strip() for name in header]
    names = [name or ("" if "" not in names[:i] else f"Unnamed: {i}") for i, name in enumerate(names)]
    if len(set(names)) != len(names):
        raise DataError(f"{path}: two columns have the same name: {listed(names)}; rename one")
    return names


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters for a field: a chapter may be longer."""
    before = csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    try:
        yield
    finally:
        csv.field_size_limit(before)
