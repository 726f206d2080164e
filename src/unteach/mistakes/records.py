"""Mistakes and analyses with their provenance, in files that a person can read, edit and give back."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from unteach.data.columns import EVERYWHERE, check_named
from unteach.data.example import Example
from unteach.data.exports import columns_of, unfolded
from unteach.data.raw_row import RawRow
from unteach.data.reading import HowToRead, Reading, concept_of, named_roles, reading_of
from unteach.data.sources import read_rows
from unteach.data.written import written_row
from unteach.disk.files import without_surrogates, write_whole
from unteach.errors import nearest
from unteach.models.ranks import by_first_rank
from unteach.pipeline.settings import LARGEST
from unteach.prompts.turn import Turn
from unteach.results.report import Cost
from unteach.text.escape import inert_line

MISTAKES, UNSEEN, ANALYSES = "mistakes.jsonl", "unseen_mistakes.jsonl", "analyses.jsonl"

MistakeSource = Literal["induced", "collected", "labelled", "reported"]
MISTAKE_SOURCES: tuple[MistakeSource, ...] = get_args(MistakeSource)


@dataclass(frozen=True)
class Origin:
    """Where a mistake or an analysis comes from.

    `model` wrote it, with `seed`, asked in the words of `wording` (a version); an induced mistake used its inducement
    number `inducement`, and a collected one was asked for as the prompt stands. `judge` called it bad; `verdict` is
    "unknown" where the judge could not tell.
    """

    source: MistakeSource = "labelled"
    model: str | None = None
    seed: int | None = None
    wording: str | None = None
    inducement: int | None = None
    judge: str | None = None
    verdict: str | None = None


@dataclass(frozen=True)
class Mistake:
    """A bad reply to a prompt; `example.reply` is the bad reply."""

    example: Example
    origin: Origin = field(default_factory=Origin)


@dataclass(frozen=True)
class Analysis:
    """Why a reply is bad, or good, as `analyst` wrote it when asked in the words of `wording` (a version).

    `reply_is` "good" marks the analysis of a good reply; `mistake` then holds that reply, though it is no mistake.
    """

    mistake: Mistake
    text: str
    analyst: str = ""
    wording: str = ""
    reply_is: Literal["bad", "good"] = "bad"


@dataclass(frozen=True)
class Records:
    """The mistakes and analyses that a run trains on, and the `unseen` mistakes that it is evaluated on.

    `notes` say how they were made, and `cost` what that took.
    """

    mistakes: Sequence[Mistake] = ()
    unseen: Sequence[Mistake] = ()
    analyses: Sequence[Analysis] = ()
    notes: Sequence[str] = ()
    cost: Sequence[Cost] = ()


def write_records(directory: Path, records: Records) -> None:
    """Write mistakes and analyses to be read, edited and taken up again. Raises OutputError."""
    if records.analyses:
        write_analyses(directory / ANALYSES, records.analyses)
    write_mistakes(directory / UNSEEN, records.unseen)
    write_mistakes(directory / MISTAKES, records.mistakes)


@by_first_rank
def read_records(directory: Path) -> Records | None:
    """Read what an interrupted run has written, perhaps edited since; None where its mistakes are not there."""
    mistakes, unseen, analyses = directory / MISTAKES, directory / UNSEEN, directory / ANALYSES
    if not (mistakes.exists() and unseen.exists()):
        return None
    found = Records(
        read_mistakes(str(mistakes)),
        read_mistakes(str(unseen)) if unseen.stat().st_size else [],
        read_analyses(str(analyses)) if analyses.exists() else [],
        [f"the mistakes were taken from {MISTAKES}, which was there"],
    )
    if not found.analyses:
        return found
    return replace(found, notes=[*found.notes, f"the analyses were taken from {ANALYSES}, which was there"])


def write_mistakes(path: Path, mistakes: Iterable[Mistake]) -> Path:
    """Write mistakes as JSON lines: TRL's unpaired format (`label` false) with the origin beside it.

    `unteach run --forget` reads the same file. Raises OutputError.
    """
    return _write(path, map(_mistake_row, mistakes))


def write_analyses(path: Path, analyses: Iterable[Analysis]) -> Path:
    """Write analyses as JSON lines: prompt, reply, analysis, and where each comes from. Raises OutputError.

    `label` is false where the reply is bad, so that these rows cannot be taken for normal ones.
    """
    rows = []
    for analysis in analyses:
        row = _mistake_row(analysis.mistake)
        row = {"prompt": row.pop("prompt"), "reply": row.pop("completion"), "analysis": analysis.text} | row
        row["label"] = analysis.reply_is == "good"
        rows.append(row | {"analyst": analysis.analyst, "analysis_wording": analysis.wording})
    return _write(path, rows)


def read_mistakes(
    source: str,
    default: MistakeSource = "labelled",
    how: HowToRead = HowToRead(),  # noqa: B008  (it is frozen)
    notes: list[str] | None = None,
) -> list[Mistake]:
    """Read mistakes: a file that `write_mistakes` wrote, or negatives in any known layout.

    Rows without a `source` count as `default`. `notes` are added to. The rest is as for `read`. Raises DataError naming
    row and field.
    """
    reading = reading_of(source, read_rows(source, how.split, how.revision, "negative"), "negative", how)
    _tell(reading, notes)
    found = []
    for row, examples in reading.by_row:
        for example in examples:
            _check_prompt(row, example.turns)
            origin = Origin(default) if reading.layout in _OWN_SOURCE else _origin(row, default)
            found.append(Mistake(example, origin))
    return found


@by_first_rank
def read_analyses(source: str) -> list[Analysis]:
    """Read analyses that `write_analyses` wrote, or a person. Raises DataError naming row and field."""
    found = []
    for row in named_roles(read_rows(source), {}, {"concept": EVERYWHERE["concept"][:2]}):
        turns, reply = row.answer(row.turns("prompt"), "reply")
        text = row.text("analysis").strip()
        for name, value in (("prompt", turns), ("reply", reply.strip()), ("analysis", text)):
            if not value:
                raise row.fail(f"field '{name}' is empty; fill it in or remove the row")
        example = Example(turns, reply.strip(), where=row.label, good=row.other("good"), concept=concept_of(row))
        mistake = Mistake(example, _origin(row, "labelled"))
        analyst, wording = _word(row, "analyst") or "", _word(row, "analysis_wording") or ""
        good = row.has("label") and row.flag("label")
        found.append(Analysis(mistake, text, analyst, wording, "good" if good else "bad"))
    return found


def read_prompts(
    source: str,
    how: HowToRead = HowToRead(),  # noqa: B008
    notes: list[str] | None = None,
) -> list[Example]:
    """Read prompts as examples without a reply; a known bad reply goes into `bad`, a right one into `good`.

    Rows may be in any known layout or hold a `prompt` alone (text or messages), both in one file too: a row whose reply
    is missing or blank counts as a prompt alone. Of a row with replies, the first bad one is read. A text file has one
    prompt per line. Raises DataError naming row and field.
    """
    if source.lower().endswith(".txt"):
        return [line for row in read_rows(source) for line in _prompt_lines(row)]
    rows = unfolded(read_rows(source, how.split, how.revision, "negative"))
    check_named(source, how.columns, columns_of(rows), rows)
    rows = named_roles(rows, how.columns, _ROLES)
    replied = [row for row in rows if not _alone(row)]
    answered = iter(_answered(source, replied, how, notes, needed=len(replied) == len(rows)) if replied else [])
    found = []
    for row in rows:
        examples = [_prompt_alone(row)] if _alone(row) else next(answered)[:1]
        for example in examples:
            _check_prompt(row, example.turns)
            if example.turns[-1].role != "user":
                raise row.fail(f"the prompt ends with a message of the {example.turns[-1].role}; end it with a user's")
        found += examples
    return found


_OWN_SOURCE = ("TruthfulQA", "UltraFeedback with scores", "openings of replies (AdvBench, JailbreakBench)")
"""Layouts whose column "source" is a web page or another set."""
_UNLABELLED = "Safety-Prompts"  # nobody called its replies good or bad
_ROLES = {
    "prompt": ("prompt",),
    "concept": EVERYWHERE["concept"][:2],
    **{name: (name,) for name in ("good", "bad", "reply")},
}
_REPLIES = ("completion", "reply", "response", "rejected", "answer", "output", "response_0", "messages")


def _alone(row: RawRow) -> bool:
    """Whether a row holds a prompt without a reply."""
    there = row.column("prompt") in row.values or row.has("prompt")
    return there and all(_filled(row.get(name)) in (None, []) for name in _REPLIES)


def _prompt_alone(row: RawRow) -> Example:
    good, bad = row.other("good"), row.other("bad")
    return Example(row.turns("prompt"), "", where=row.label, good=good, bad=bad, concept=concept_of(row))


def _answered(
    name: str, rows: list[RawRow], how: HowToRead, notes: list[str] | None, needed: bool
) -> list[list[Example]]:
    """Return the prompts of rows with replies; a reply that is known to be bad goes into `bad`."""
    reading = reading_of(name, rows, "negative", how, needed)
    _tell(reading, notes)
    known = reading.layout != _UNLABELLED
    return [[replace(row, reply="", bad=row.reply if known else row.bad) for row in rows] for _, rows in reading.by_row]


def _tell(reading: Reading, notes: list[str] | None) -> None:
    if notes is not None:
        notes += [f"{inert_line(reading.source, 80)}: {note}" for note in (*reading.warnings, *reading.notes)]


def _check_prompt(row: RawRow, turns: tuple[Turn, ...]) -> None:
    if not any(turn.content.strip() for turn in turns):
        raise row.fail("there is no prompt in it; remove the row, or name its column with --column prompt=…")


def _prompt_lines(row: RawRow) -> list[Example]:
    """Return the prompts of a text file, which is a row of its own: one per line."""
    lines = [
        (f"{row.label} line {number}", line.strip()) for number, line in enumerate(row.text("text").split("\n"), 1)
    ]
    return [Example.of(line, "", where=where) for where, line in lines if line]


def _mistake_row(mistake: Mistake) -> dict[str, Any]:
    origin = {name: value for name, value in vars(mistake.origin).items() if value is not None}
    return written_row(replace(mistake.example, bad=None)) | {"label": False} | origin


def _origin(row: RawRow, default: MistakeSource) -> Origin:
    """Read where a row comes from; blank fields, as in a table, count as missing."""
    given = _given(row, "source")
    if given is not None and given not in MISTAKE_SOURCES:
        near = nearest(str(given), MISTAKE_SOURCES)
        raise row.fail(f"field 'source' must be one of {', '.join(MISTAKE_SOURCES)}, not {str(given)[:40]!r}{near}")
    seed, inducement = _number(row, "seed"), _number(row, "inducement")
    model, wording, judge, verdict = (_word(row, name) for name in ("model", "wording", "judge", "verdict"))
    return Origin(given or default, model, seed, wording, inducement, judge, verdict)


def _given(row: RawRow, name: str) -> Any:
    """Return a field; None where it is missing, or blank as an empty cell of a table is."""
    taken = name in row.names.values() and row.names.get(name) != name  # for another role, by the user's word
    return None if taken else _filled(row.values.get(name))


def _filled(value: Any) -> Any:
    return None if value != value or (isinstance(value, str) and not value.strip()) else value  # NaN is not itself


def _word(row: RawRow, name: str) -> str | None:
    return None if _given(row, name) is None else row.text(name)


def _number(row: RawRow, name: str) -> int | None:
    """Return a whole number, which tables may give as text or, with a gap in the column, as 3.0."""
    value = _given(row, name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.strip().isdecimal() and len(value) <= len(str(LARGEST)):
        value = int(value)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or abs(value) > LARGEST):
        raise row.fail(f"field '{name}' must be a whole number, at most {LARGEST}")
    return value


@by_first_rank
def _write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write rows as JSON lines; half a Unicode character, which no file can hold, becomes U+FFFD."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return write_whole(path, without_surrogates(text))
