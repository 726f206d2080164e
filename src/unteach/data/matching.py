"""Which layout the columns of a source have."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from unteach.data.columns import Names, folded
from unteach.data.layouts import LAYOUTS, Layout
from unteach.data.raw_row import RawRow, listed
from unteach.errors import ConfigError, DataError


@dataclass(frozen=True)
class Match:
    """A layout with the columns of a source by their roles; further columns of context are "context 2" and so on."""

    layout: Layout
    names: Mapping[str, str]


def match(source: str, rows: Sequence[RawRow], columns: Sequence[str], named: Mapping[str, str]) -> Match:
    """Find the layout of rows with these columns; `named` says which columns play a role by the user's word.

    Of all layouts that fit, that with most roles named by the user is taken, the first of these. Raises DataError where
    none fits, and where the layout has no use for a column that the user named.
    """
    known = _by_name(column for column in columns if column not in named.values())
    found: list[Match] = []
    for layout in LAYOUTS:
        names = {role: _player(layout, role, named, known) for role in layout.needs}
        taken = [name for name in names.values() if name]
        if all(names.values()) and len(set(taken)) == len(taken) and (layout.fits is None or layout.fits(rows)):
            found.append(Match(layout, {role: name for role, name in names.items() if name}))
    if not found:
        raise DataError(_nothing_fits(source, columns, named))
    best = max(found, key=lambda one: sum(role in named for role in one.layout.needs))
    return _with_optional(source, best, known, named)


def _player(layout: Layout, role: str, named: Mapping[str, str], known: Mapping[str, str]) -> str | None:
    """Return the column that plays a role: the one that the user named, else the first of the role's names.

    A layout of one public set is recognised by its own names alone.
    """
    names = layout.needs[role]
    if role in named:
        return named[role] if layout.open or folded(named[role]) in map(folded, names) else None
    return _first(names, known)


def _with_optional(source: str, best: Match, known: Mapping[str, str], named: Mapping[str, str]) -> Match:
    names = dict(best.names)
    free = {name: column for name, column in known.items() if column not in names.values()}
    for role, candidates in best.layout.optional.items():
        there = (
            [named[role]]
            if role in named
            else list(dict.fromkeys(free[name] for name in map(folded, candidates) if name in free))
        )
        for number, column in enumerate(there if role == "context" else there[:1], start=1):
            names[role if number == 1 else f"{role} {number}"] = column
    for role in named.keys() - names.keys():
        if role != "context" or "prompt" not in best.layout.needs:  # a layout without context takes it if it is named
            raise ConfigError(
                f"{source}: --column {role}={named[role]}: the layout of its columns ({best.layout.name}) has no use "
                f"for a {role}; leave it out, or name the columns of another layout"
            )
        names[role] = named[role]
    return Match(best.layout, names)


def _by_name(columns: Iterable[str]) -> dict[str, str]:
    """Return columns by their name without case and space; the last part of a dotted name counts too."""
    known: dict[str, str] = {}
    for column in columns:
        known.setdefault(folded(column), column)
    for column in list(known.values()):
        if "." in column:
            known.setdefault(folded(column.rpartition(".")[2]), column)
    return known


def _first(names: Names, known: Mapping[str, str]) -> str | None:
    return next((known[folded(name)] for name in names if folded(name) in known), None)


def _nothing_fits(source: str, columns: Sequence[str], named: Mapping[str, str]) -> str:
    known = _by_name(columns)

    def missing(layout: Layout) -> list[str]:
        return [role for role, names in layout.needs.items() if role not in named and not _first(names, known)]

    general = [layout for layout in LAYOUTS if layout.open]
    close = min(general, key=lambda layout: len(missing(layout)) / len(layout.needs))
    needed = {"good": "a good reply", "bad": "a bad reply", "messages": "messages", "outputs": "an output"}
    also = " and ".join(needed.get(role, f"a {role}") for role in missing(close)) or "other columns"
    return (
        f"{source}: no known layout has the columns {listed(columns)}; the closest ({close.name}) also needs {also}; "
        "name yours with --column prompt=… --column reply=… (or text=…, messages=…; data.text names a nested one)"
    )
