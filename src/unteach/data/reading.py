"""A source in, examples out, with an account of every column, every label and every row that was left out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from unteach.data.cells import parse_cells
from unteach.data.columns import IGNORED, check_named, folded
from unteach.data.example import Example, Polarity
from unteach.data.exports import columns_of, unfolded
from unteach.data.labels import Labels, is_label_like, may_be_labels, shown, understand
from unteach.data.matching import Match, match
from unteach.data.raw_row import NO_PROMPT, RawRow, UnusableRow, at_path, listed
from unteach.data.rendered import marks_seen
from unteach.data.roles import NO_COMMON_BEGINNING
from unteach.data.sources import read_rows
from unteach.data.special_sets import concept_text
from unteach.errors import DataError

SKIPPED_SHARE = 0.05
"""Largest share of a source's rows that may be skipped because they cannot be used."""
_WARNED = {NO_PROMPT, NO_COMMON_BEGINNING}
_DOUBTFUL_LABELS = {"correct", "safe", "quality", "thumbs", "feedback", "annotations.choices", "choices"} | {
    "quality.responses"
}
"""Columns that may be labels or something else: they are read as labels only where their values are understood."""


@dataclass(frozen=True)
class Column:
    """What became of a column: `becomes` is its role where it is used, the reason where it is ignored."""

    name: str
    fate: Literal["used", "ignored", "unread"]
    becomes: str = ""


@dataclass(frozen=True)
class Skipped:
    """A row that cannot be used, and why."""

    label: str
    problem: str


@dataclass(frozen=True)
class Reading:
    """What was made of a source.

    `by_row` has each row with its examples, of which there may be none. `labels` is None where no column says which
    reply is bad. `notes` say what the user should know, `warnings` what is likely to be wrong.
    """

    source: str
    layout: str
    columns: tuple[Column, ...] = ()
    by_row: tuple[tuple[RawRow, tuple[Example, ...]], ...] = ()
    labels: Labels | None = None
    skipped: tuple[Skipped, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def examples(self) -> list[Example]:
        """All examples, in order."""
        return [example for _, examples in self.by_row for example in examples]


@dataclass(frozen=True)
class HowToRead:
    """What a user may say about a source: names of columns, which values of a label are bad, and where it comes from.

    `columns` maps our names (`columns.ROLES`) to the user's columns, e.g. {"prompt": "question"}; a dotted name such as
    "data.turns[0].text" leads to a nested one. `split` and `revision` are as in `read_rows`. If `lenient`, a source may
    lack the values of `bad_labels`.
    """

    columns: Mapping[str, str] = field(default_factory=dict)
    bad_labels: Sequence[str] = ()
    split: str | None = None
    revision: str | None = None
    lenient: bool = False


def read_examples(
    source: str,
    polarity: Polarity,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    revision: str | None = None,
) -> list[Example]:
    """Read the negatives or the normals of a source, whatever known layout it has; see `read`."""
    return read(source, polarity, HowToRead(columns or {}, (), split, revision)).examples


def read(source: str, polarity: Polarity, how: HowToRead = HowToRead()) -> Reading:  # noqa: B008  (it is frozen)
    """Read the negatives or the normals of a source, with an account of what was made of it.

    Of rows with a right and a wrong reply, negatives take the wrong one. Raises DataError, naming row and field, for a
    row that cannot be used where these are more than 5 % of all, and where no row has the wanted polarity.
    """
    notes: list[str] = []
    rows = read_rows(source, how.split, how.revision, polarity, notes)
    reading = reading_of(source, rows, polarity, how)
    return replace(reading, notes=(*notes, *reading.notes))


def reading_of(
    source: str,
    rows: Sequence[RawRow],
    polarity: Polarity,
    how: HowToRead = HowToRead(),  # noqa: B008
    needed: bool = True,
) -> Reading:
    """Turn rows that are read already into examples, like `read`; without `needed` there may be no example."""
    rows, found, labels = recognise(source, rows, how, polarity)
    true_is_bad = polarity == "negative"
    by_row: list[tuple[RawRow, tuple[Example, ...]]] = []
    skipped: list[Skipped] = []
    for row in rows:
        try:
            wanted = labels is None or labels.is_bad(row.get("label")) == true_is_bad
            examples = tuple(_finished(one, row) for one in found.layout.read(row, polarity)) if wanted else ()
        except UnusableRow as error:
            skipped.append(Skipped(row.label, str(error)))
            examples = ()
        by_row.append((row, examples))
    _check_skipped(skipped, len(rows))
    columns = _fates(columns_of(rows), found, rows)
    notes, warnings = _notes(found, labels, polarity, columns, rows, by_row, skipped)
    reading = Reading(
        source, found.layout.name, columns, tuple(by_row), labels, tuple(skipped), tuple(notes), tuple(warnings)
    )
    if needed and not reading.examples:
        raise DataError(_nothing_of(reading, polarity, len(rows)))
    return reading


def recognise(
    source: str, rows: Sequence[RawRow], how: HowToRead, polarity: Polarity = "negative"
) -> tuple[list[RawRow], Match, Labels | None]:
    """Find the layout of rows and what their labels mean; return the rows with the names of their roles."""
    rows = parse_cells(unfolded(rows), everywhere=False)
    columns = columns_of(rows)
    check_named(source, how.columns, columns, rows)
    found = match(source, rows, columns, how.columns)
    labels, names = None, dict(found.names)
    if "label" in names:
        labels = _labels(source, rows, found, how, polarity)
        if labels is None:
            del names["label"]
            found = replace(found, names=names)
    return [replace(row, names=names, remarks=set()) for row in rows], found, labels


def _labels(source: str, rows: Sequence[RawRow], found: Match, how: HowToRead, polarity: Polarity) -> Labels | None:
    """Understand the label column; None where it holds no labels after all, and the user did not say it does."""
    column = found.names["label"]
    values = [at_path(row.values, column) for row in rows]
    sure = "label" in how.columns or "label" in found.layout.needs or folded(column) in ("label", "labels", "ktotag")
    sure = sure or (bool(how.bad_labels) and not how.lenient)
    if not sure and not may_be_labels(values):
        return None
    direction = found.layout.true_is_bad
    if how.lenient and how.bad_labels:
        with suppress(DataError):
            return understand(source, column, values, how.bad_labels, _flag(polarity), direction)
    bad = () if how.lenient else how.bad_labels
    try:
        return understand(source, column, values, bad, _flag(polarity), direction)
    except DataError:
        if sure or folded(column.rpartition(".")[2]) not in map(folded, _DOUBTFUL_LABELS):
            raise
        return None


def _flag(polarity: Polarity) -> str:
    return "--bad-label" if polarity == "negative" else "--retain-bad-label"


def _fates(columns: Sequence[str], found: Match, rows: Sequence[RawRow]) -> tuple[Column, ...]:
    """Say of every column what became of it; a nested column that the user named stands beside what holds it."""
    used = {column: role.partition(" ")[0] for role, column in found.names.items()}
    ignored = {folded(name): why for name, why in {**IGNORED, **found.layout.ignores}.items()}
    fates = []
    for name in [*columns, *(column for column in used if column not in columns)]:
        inside = [column for column in used if column != name and column.startswith((f"{name}.", f"{name}["))]
        last = folded(name.rpartition(".")[2])
        if name in used:
            fates.append(Column(name, "used", used[name]))
        elif inside:
            fates.append(Column(name, "used", "holds " + " and ".join(inside)))
        elif folded(name) in ignored or last in ignored:
            fates.append(Column(name, "ignored", ignored.get(folded(name), ignored.get(last, ""))))
        else:
            fates.append(Column(name, "unread"))
    return tuple(fates)


def _finished(example: Example, row: RawRow) -> Example:
    """Strip the reply, refuse an empty one, and add the row's label and concept, and whether the reply was cut."""
    reply = example.reply.strip()
    if not reply:
        raise row.fail("the reply is empty; remove the row or give it a reply")
    about = concept_of(row) or example.concept
    cut = example.cut or ("cut" in row.names and str(row.get("cut")).lower() in ("true", "1"))
    return replace(example, reply=reply, where=example.where or row.label, concept=about, cut=cut)


def concept_of(row: RawRow) -> str | None:
    """Return what a row is about, from the column that plays `concept`."""
    return concept_text(row, row.get("concept")) if "concept" in row.names else None


def _check_skipped(skipped: Sequence[Skipped], rows: int) -> None:
    if len(skipped) > SKIPPED_SHARE * rows:
        share = f"{len(skipped)} of {rows} rows cannot be used, and at most {SKIPPED_SHARE:.0%} are skipped"
        raise DataError(skipped[0].problem + ("" if rows == 1 else f" ({share.replace('%', ' %')})"))


def _nothing_of(reading: Reading, polarity: Polarity, rows: int) -> str:
    told = "; ".join(note for note in reading.notes if "says which replies" in note)
    return (
        f"{reading.source}: none of its {rows} rows (layout: {reading.layout}) gives a {polarity}"
        f"; check the file, its labels and --column{f' ({told})' if told else ''}"
    )


def _notes(
    found: Match,
    labels: Labels | None,
    polarity: Polarity,
    columns: Sequence[Column],
    rows: Sequence[RawRow],
    by_row: Sequence[tuple[RawRow, tuple[Example, ...]]],
    skipped: Sequence[Skipped],
) -> tuple[list[str], list[str]]:
    """Return what the user should know of a reading, and what is likely to be wrong."""
    notes = [labels.sentence(_flag(polarity))] if labels is not None else []
    notes += [found.layout.note] if found.layout.note else []
    if skipped:
        also = ", ".join(one.label for one in skipped[1:3])
        problem = skipped[0].problem.partition("; columns found")[0] + (f"; also {also}" if also else "")
        notes.append(f"skipped {len(skipped)} of {len(rows)} rows that cannot be used ({problem})")
    warnings: list[str] = []
    remarks = Counter(remark for row, examples in by_row if examples for remark in row.remarks)
    for remark, count in remarks.items():
        (warnings if remark in _WARNED else notes).append(f"{remark} ({count} of {len(rows)} rows)")
    warnings += _marks(by_row)
    unread = [column.name for column in columns if column.fate == "unread"]
    if unread:
        notes.append(f"columns that were not read: {listed(unread)}")
    for name in unread:
        if is_label_like(name, [at_path(row.values, name) for row in rows]):
            also = "" if labels is None else f" in place of {shown(labels.column)}"
            warnings.append(
                f"column {shown(name)} looks as if it says which replies are bad, and was not read; if it does{also}, "
                f"give {_column_flag(polarity)} label={name} and {_flag(polarity)} VALUE"
            )
    return notes, warnings


def _column_flag(polarity: Polarity) -> str:
    return "--column" if polarity == "negative" else "--retain-column"


def _marks(by_row: Sequence[tuple[RawRow, tuple[Example, ...]]]) -> list[str]:
    """Warn of examples that still carry the marks of a chat template."""
    seen: dict[str, list[str]] = {}
    for row, examples in by_row:
        texts = [text for one in examples for text in (*(turn.content for turn in one.turns), one.reply)]
        mark = next((mark for text in texts if (mark := marks_seen(text))), None)
        if mark:
            seen.setdefault(mark, []).append(row.label)
    return [
        f"{len(labels)} rows carry marks of a chat template ({mark}; first: {labels[0]}) that could not be read as "
        "turns; the model's own template is put around them"
        for mark, labels in seen.items()
    ]


def named_roles(rows: Sequence[RawRow], columns: Mapping[str, str], roles: Mapping[str, Sequence[str]]) -> list[Any]:
    """Return rows in which these roles are played by the user's `columns`, else by the first of their names."""
    by_name = {folded(column): column for column in reversed(columns_of(rows))}
    names = {
        role: columns.get(role) or next((by_name[name] for name in map(folded, known) if name in by_name), role)
        for role, known in roles.items()
    }
    return [replace(row, names=names) for row in rows]
