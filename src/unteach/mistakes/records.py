"""Mistakes and analyses with their provenance, in files that a person can read, edit and feed back."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from unteach.data.example import Example
from unteach.data.formats import Polarity, read_examples
from unteach.data.row import Row
from unteach.data.rows import read_rows
from unteach.errors import DataError, nearest
from unteach.report.schema import write_whole

Source = Literal["induced", "labelled", "reported"]
SOURCES: tuple[str, ...] = get_args(Source)
Record = TypeVar("Record", "Mistake", "Analysis")


@dataclass(frozen=True)
class Origin:
    """Where a mistake or an analysis comes from.

    `model` wrote it, with `seed`, asked in the words of `templates` (a version), of which an induced mistake used
    inducement number `inducement`. `judge` called it bad; `verdict` is "unknown" where it could not tell.
    """

    source: Source = "labelled"
    model: str | None = None
    seed: int | None = None
    templates: str | None = None
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
    """Why a reply is bad, as `analyst` wrote it when asked with the hint of `templates`."""

    mistake: Mistake
    text: str
    analyst: str = ""
    templates: str = ""


def write_mistakes(path: Path, mistakes: Iterable[Mistake]) -> Path:
    """Write mistakes as JSON lines: TRL's unpaired format (`label` false) with the origin beside it.

    `unteach run --forget` reads the same file. Raises OutputError.
    """
    return _write(path, (_mistake_row(mistake) for mistake in mistakes))


def write_analyses(path: Path, analyses: Iterable[Analysis]) -> Path:
    """Write analyses as JSON lines: prompt, reply, analysis, and where each comes from. Raises OutputError."""
    rows = []
    for analysis in analyses:
        row = _mistake_row(analysis.mistake)
        row = {"prompt": row.pop("prompt"), "reply": row.pop("completion"), "analysis": analysis.text} | row
        row.pop("label")
        rows.append(row | {"analyst": analysis.analyst, "analysis_templates": analysis.templates})
    return _write(path, rows)


def read_mistakes(source: str, default: Source = "labelled", **reading: Any) -> list[Mistake]:
    """Read mistakes: a file that `write_mistakes` wrote, or negatives in any known format.

    Rows without a `source` count as `default`. `reading` is passed to `read_examples` (columns, split, revision).
    Raises DataError naming row and field.
    """
    examples = read_examples(source, "negative", **reading)
    raw = read_rows(source, reading.get("split"), reading.get("revision"), "negative")
    origins = {label: Row(row, label) for row, label in zip(raw.rows, raw.labels, strict=True)}
    return [Mistake(example, _origin(origins.get(example.where), default)) for example in examples]


def read_analyses(source: str) -> list[Analysis]:
    """Read analyses that `write_analyses` wrote, or a person. Raises DataError naming row and field."""
    raw = read_rows(source)
    found = []
    for values, label in zip(raw.rows, raw.labels, strict=True):
        row = Row(values, label)
        turns, reply = row.answer(row.turns("prompt"), "reply")
        text = row.text("analysis").strip()
        for name, value in (("prompt", turns), ("reply", reply.strip()), ("analysis", text)):
            if not value:
                raise row.fail(f"field '{name}' is empty; fill it in or remove the row")
        example = Example(turns, reply.strip(), where=label, good=row.other("good"), concept=_word(row, "concept"))
        mistake = Mistake(example, _origin(row, "labelled"))
        analyst, templates = _word(row, "analyst") or "", _word(row, "analysis_templates") or ""
        found.append(Analysis(mistake, text, analyst, templates))
    return found


def read_prompts(
    source: str,
    columns: dict[str, str] | None = None,
    split: str | None = None,
    revision: str | None = None,
    polarity: Polarity = "negative",
) -> list[Example]:
    """Read prompts; a known bad reply, where the rows have one, comes along in `bad`, a right one in `good`.

    Rows may be in any known format, or hold a `prompt` alone (text or messages); a text file has a prompt per line.
    The reply of the examples is empty. Raises DataError naming row and field.
    """
    if source.lower().endswith(".txt"):
        return [Example.of(line, "", where=where) for where, line in _lines(source)]
    raw = read_rows(source, split, revision, polarity)
    column = (columns or {}).get("prompt", "prompt")
    alone = all(set(row) & {column} and not _has_reply(row) for row in raw.rows)
    if not alone:
        examples = read_examples(source, polarity, columns, split, revision)
        return [replace(example, reply="", bad=example.reply) for example in examples]
    found = []
    for values, label in zip(raw.rows, raw.labels, strict=True):
        row = Row(values, label)
        turns = row.turns(column)
        if not turns:
            raise row.fail(f"field '{column}' is empty; remove the row")
        found.append(Example(turns, "", where=label, good=row.other("good"), concept=_word(row, "concept")))
    return found


_REPLIES = ("completion", "reply", "response", "rejected", "answer", "output", "response_0", "bad", "messages")


def _has_reply(row: dict[str, Any]) -> bool:
    return any(row.get(name) is not None for name in _REPLIES)


def _lines(source: str) -> list[tuple[str, str]]:
    path = Path(source).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{source}: no such file; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source}: cannot be read as UTF-8 text ({error}); fix it") from None
    lines = [(f"{path.name} line {number}", line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    lines = [(where, line) for where, line in lines if line]
    if not lines:
        raise DataError(f"{source}: holds no prompt; write one per line")
    return lines


def _mistake_row(mistake: Mistake) -> dict[str, Any]:
    example = mistake.example
    turns = example.turns
    alone = len(turns) == 1 and turns[0].role == "user"
    row: dict[str, Any] = {
        "prompt": turns[0].content if alone else [{"role": t.role, "content": t.content} for t in turns],
        "completion": example.reply if alone else [{"role": "assistant", "content": example.reply}],
        "label": False,
    }
    extras = {"good": example.good, "concept": example.concept} | vars(mistake.origin)
    return row | {name: value for name, value in extras.items() if value is not None}


def _origin(row: Row | None, default: Source) -> Origin:
    if row is None:
        return Origin(default)
    given = row.values.get("source")
    if given is not None and given not in SOURCES:
        near = nearest(str(given), SOURCES)
        raise row.fail(f"field 'source' is {str(given)[:40]!r}{near} and must be one of {', '.join(SOURCES)}")
    seed, number = (_number(row, name) for name in ("seed", "inducement"))
    known: Source = given or default
    return Origin(
        known, _word(row, "model"), seed, _word(row, "templates"), number, _word(row, "judge"), _word(row, "verdict")
    )


def _word(row: Row, name: str) -> str | None:
    return row.text(name) if row.has(name) else None


def _number(row: Row, name: str) -> int | None:
    value = row.values.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise row.fail(f"field '{name}' must be a whole number")
    return value


def _write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    return write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def said_by(records: Iterable[Record], name: Callable[[Record], str]) -> dict[str, int]:
    """Count records by what `name` says of each, most frequent first."""
    counts: dict[str, int] = {}
    for record in records:
        counts[name(record)] = counts.get(name(record), 0) + 1
    return dict(sorted(counts.items(), key=lambda item: -item[1]))
