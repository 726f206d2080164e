"""Exports of annotation tools, whose rows lie inside rows: Label Studio's and Argilla's.

What lies inside becomes columns with dotted names ("data.prompt", "responses.quality"), so the layouts find it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from unteach.data.raw_row import RawRow

_CONTAINERS = {"data": ("annotations", "completions", "predictions"), "fields": ("responses", "suggestions")}
"""Columns that hold the fields of a row, and those beside them that hold what annotators said."""


def unfolded(rows: Sequence[RawRow]) -> list[RawRow]:
    """Give rows of an export the columns that lie inside them; other rows stay as they are."""
    return [replace(row, values={**row.values, **_inner(row.values)}) for row in rows]


def columns_of(rows: Sequence[RawRow]) -> list[str]:
    """Return the columns of rows in order; what was unfolded stands in place of what held it."""
    columns = dict.fromkeys(column for row in rows for column in row.values)
    holders = {*_CONTAINERS, *(name for names in _CONTAINERS.values() for name in names)}
    opened = {holder for holder in holders if any(column.startswith(f"{holder}.") for column in columns)}
    return [column for column in columns if column not in opened]


def _inner(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for container, sides in _CONTAINERS.items():
        inside, beside = values.get(container), next((name for name in sides if values.get(name)), None)
        if not isinstance(inside, dict) or (container == "data" and not any(name in values for name in sides)):
            continue
        found |= {f"{container}.{name}": value for name, value in inside.items()}
        if beside and container == "data":
            found[f"{beside}.choices"] = _choices(values[beside])
        elif beside and isinstance(values[beside], dict):
            found |= {f"{beside}.{name}": value for name, value in values[beside].items()}
    return found


def _choices(annotations: Any) -> list[Any]:
    """Return what the annotators of a row in Label Studio chose; annotations that were cancelled do not count."""
    chosen: list[Any] = []
    for annotation in annotations if isinstance(annotations, list) else []:
        if isinstance(annotation, dict) and not annotation.get("was_cancelled"):
            for result in annotation.get("result") or []:
                value = result.get("value") if isinstance(result, dict) else None
                chosen += value["choices"] if isinstance(value, dict) and isinstance(value.get("choices"), list) else []
    return chosen
