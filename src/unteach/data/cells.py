"""Cells of tables that hold a list or an object as text: JSON, or what Python, pandas and numpy print."""

import ast
import io
import re
import tokenize
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from unteach.data.raw_row import RawRow
from unteach.text.bounded import read_json

_TEXTS = frozenset(
    "prompt completion response reply question answer instruction input output text chosen rejected good bad".split()
)
"""Columns that hold text: a list of words or an object there may be the reply itself."""
_BEGINS = re.compile(r"\s*(?:array\(|\[|\{)")
_MESSAGES = re.compile(r"\s*(?:array\()?\[?\s*\{\s*(['\"])(?:role|from|content|value)\1\s*:")
_BESIDE = re.compile(r"['\"\]}]\s+['\"\[{]")
"""Where numpy leaves out the comma between two values; Python would make one text of two."""


def parse_cells(rows: Sequence[RawRow], everywhere: bool = True) -> list[RawRow]:
    """Parse the columns whose cells hold messages and, with `everywhere`, those that hold other lists or objects.

    A column is parsed where more than half of its cells begin as messages do; other lists of text and objects only
    where all cells are such, and not in a column of text. Raises DataError for messages that cannot be parsed.
    """
    new: list[dict[str, Any]] = [{} for _ in rows]
    for column in dict.fromkeys(name for row in rows for name in row.values):
        cells = [(i, row.values[column]) for i, row in enumerate(rows) if row.values.get(column) not in (None, "")]
        texts = [cell for _, cell in cells if isinstance(cell, str) and _BEGINS.match(cell)]
        if 2 * sum(map(bool, map(_MESSAGES.match, texts))) > len(cells):
            for i, cell in cells:
                new[i][column] = _messages(rows[i], column, cell)
        elif everywhere and column.lower() not in _TEXTS and len(texts) == len(cells):
            found = [(i, _value(cell)) for i, cell in cells]
            if all(isinstance(value, dict) or _is_list_of(value, (dict, str)) for _, value in found):
                for i, value in found:
                    new[i][column] = value
    return [replace(row, values={**row.values, **more}) if more else row for row, more in zip(rows, new, strict=True)]


def _messages(row: RawRow, column: str, cell: Any) -> Any:
    """Return the messages of a cell; a cell of another kind stays as it is."""
    if not isinstance(cell, str) or not _BEGINS.match(cell):
        return cell
    value = _value(cell)
    if isinstance(value, dict):
        value = [value]
    if not _is_list_of(value, dict):
        raise row.fail(
            f"field '{column}' holds messages that cannot be parsed; write the file anew as JSON lines "
            "(pandas: to_json(orient='records', lines=True))"
        )
    return value


def _is_list_of(value: Any, types: type | tuple[type, ...]) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, types) for part in value)


def _value(cell: str) -> Any:
    """Return what a cell holds, or None. Nothing is executed: only literals are read."""
    try:
        return read_json(cell)
    except ValueError:
        pass
    try:
        text = _with_commas(cell) if _BESIDE.search(cell) else cell
        return ast.literal_eval(_Literals().visit(ast.parse(text.strip(), mode="eval")))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError, tokenize.TokenError):
        return None


def _with_commas(cell: str) -> str:
    """Put commas between values that stand beside each other, as numpy prints them."""
    tokens = list(tokenize.generate_tokens(io.StringIO(cell).readline))
    tokens = [token for token in tokens if token.type not in (tokenize.NL, tokenize.NEWLINE, tokenize.INDENT)]
    parts = [""]
    for before, token in zip([None, *tokens], tokens, strict=False):
        ends = before is not None and (before.type == tokenize.STRING or before.string in ("}", "]"))
        if ends and (token.type == tokenize.STRING or token.string in ("{", "[")):
            parts.append(",")
        parts.append(token.string)
    return " ".join(parts)


class _Literals(ast.NodeTransformer):
    """Take the list out of `array([…], dtype=object)`, and nothing for `nan`."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "array" and node.args:
            return self.generic_visit(node.args[0])
        return node

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(None) if node.id in ("nan", "null") else node
