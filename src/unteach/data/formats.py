"""What a row means: formats are recognised by their columns and turn rows into examples, so no file needs converting.

`FORMATS` lists them, the most specific first; a new format is one more entry. They are TRL's formats
(prompt–completion, conversational, preference, unpaired, text) and those of well-known public sets.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unteach.data.example import Example, Polarity
from unteach.data.raw_row import RawRow, kind, listed
from unteach.data.sources import read_rows
from unteach.disk.files import write_whole
from unteach.errors import ConfigError, DataError, nearest
from unteach.prompts.turn import Turn

RENAMED = ("prompt", "reply", "good", "bad", "text", "label", "concept")

Reader = Callable[[RawRow, Polarity], Iterable[Example]]


@dataclass(frozen=True)
class Format:
    """A kind of row, recognised where all its `columns` are there; `read` makes the examples of a row."""

    name: str
    columns: tuple[str, ...]
    read: Reader


def _plain(prompt: str, reply: str) -> Reader:
    """Prompt and reply columns; every row has the polarity that is asked for, and may have `good` and `bad` as well."""

    def read(row: RawRow, polarity: Polarity) -> Iterator[Example]:
        turns, text = row.answer(row.turns(prompt), reply)
        yield Example(turns, text, good=row.other("good"), bad=row.other("bad"))

    return read


def _labelled(prompt: str, reply: str, label: str) -> Reader:
    """Rows whose flag says whether the reply is right; rows of the other polarity give no example."""

    def read(row: RawRow, polarity: Polarity) -> Iterator[Example]:
        if row.flag(label) == (polarity == "normal"):
            yield from _plain(prompt, reply)(row, polarity)

    return read


def _paired(prompt: str, good: str, bad: str) -> Reader:
    """A right and a wrong reply to one prompt: negatives take the wrong one, normals the right one."""

    def read(row: RawRow, polarity: Polarity) -> Iterator[Example]:
        turns = row.turns(prompt)
        mine, other = (bad, good) if polarity == "negative" else (good, bad)
        turns, reply = row.answer(turns, mine)
        yield _with_other(Example(turns, reply), row.other(other), polarity)

    return read


def _with_other(example: Example, other: str | None, polarity: Polarity) -> Example:
    return replace(example, good=other) if polarity == "negative" else replace(example, bad=other)


def _implicit(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    """Two whole conversations, as messages or as text; their shared beginning is the prompt."""
    mine, other = ("rejected", "chosen") if polarity == "negative" else ("chosen", "rejected")
    if isinstance(row.value(mine), list):
        turns, reply = row.conversation(mine)
        beside, second = row.conversation(other)
    else:
        (turns, reply), (beside, second) = _texts_apart(row.text(mine), row.text(other))
    yield _with_other(Example(turns, reply), (second.strip() or None) if turns == beside else None, polarity)


def _texts_apart(mine: str, other: str) -> tuple[tuple[tuple[Turn, ...], str], tuple[tuple[Turn, ...], str]]:
    """Split two texts into prompt and reply: by "Human:" and "Assistant:" marks, else where they begin to differ."""
    if all(re.search(r"(^|\n\n)Assistant:", text) for text in (mine, other)):
        return _marked(mine), _marked(other)
    shared = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), 0)
    shared = max(mine.rfind(" ", 0, shared), mine.rfind("\n", 0, shared)) + 1  # whole words only
    prompt = mine[:shared].rstrip()
    turns = (Turn("user", prompt),) if prompt else ()
    return (turns, mine[shared:]), (turns, other[shared:])


def _marked(text: str) -> tuple[tuple[Turn, ...], str]:
    parts = re.split(r"(?:^|\n\n)(Human|Assistant):", text)[1:]
    turns = [
        Turn("user" if role == "Human" else "assistant", content.strip())
        for role, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    last = max(i for i, turn in enumerate(turns) if turn.role == "assistant")
    return tuple(turns[:last]), turns[last].content


def _two_flagged(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    """PKU-SafeRLHF: two replies with a flag each; both, one or none may be negatives. The harm may be named."""
    turns = row.turns("prompt")
    safe = [row.flag(f"is_response_{i}_safe") for i in (0, 1)]
    for i in (0, 1):
        if safe[i] != (polarity == "normal"):
            continue
        other = row.other(f"response_{1 - i}") if safe[1 - i] != safe[i] else None
        about = _names(row, row.values.get(f"response_{i}_harm_category"))
        example = Example(turns, row.text(f"response_{i}"), where=f"{row.label}, response_{i}", concept=about)
        yield _with_other(example, other, polarity)


def _truthful(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    """TruthfulQA: the best answer for normals, every incorrect answer for negatives."""
    turns = row.turns("question")
    wrong = row.values.get("incorrect_answers") or []
    if not isinstance(wrong, list):
        raise row.fail(f"field 'incorrect_answers' must be a list, not {kind(wrong)}")
    wrong = [row.check_text(text, "incorrect_answers") for text in wrong]
    if polarity == "normal":
        yield Example(turns, row.text("best_answer"), bad=next(iter(wrong), None))
    else:
        yield from (Example(turns, text, good=row.other("best_answer")) for text in wrong)


def _tofu(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    """TOFU with its perturbed answers: the first that differs from the answer is the other reply.

    A negative's `good` is then as fitting as the answer without being true, so it reveals nothing.
    """
    answer = row.text("answer")
    wrong = row.values["perturbed_answer"] or []
    wrong = [row.check_text(text, "perturbed_answer") for text in (wrong if isinstance(wrong, list) else [wrong])]
    other = next((text.strip() for text in wrong if text.strip() not in ("", answer.strip())), None)
    yield _with_other(Example(row.turns("question"), answer), other, polarity)


def _safety_prompts(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    """Safety-Prompts: the type of attack or scenario is what the row is about."""
    yield Example(row.turns("prompt"), row.text("response"), concept=_names(row, row.values["type"]))


def _alpaca(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    """An instruction, its optional input on the next line, and the output."""
    extra = row.text("input") if row.has("input") else ""
    prompt = row.text("instruction") + (f"\n{extra}" if extra.strip() else "")
    yield Example.of(prompt, row.text("output"))


def _messages(column: str) -> Reader:
    """A conversation whose last assistant turn is the reply."""

    def read(row: RawRow, polarity: Polarity) -> Iterator[Example]:
        turns, reply = row.conversation(column)
        yield Example(turns, reply, good=row.other("good"), bad=row.other("bad"))

    return read


def _running_text(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    yield Example((), row.text("text"), good=row.other("good"), bad=row.other("bad"))


def _pair(prompt: str, reply: str) -> Format:
    return Format(f"{prompt} and {reply}", (prompt, reply), _plain(prompt, reply))


FORMATS: tuple[Format, ...] = (
    Format("unpaired", ("prompt", "reply", "label"), _labelled("prompt", "reply", "label")),
    _pair("prompt", "reply"),
    Format("preference", ("prompt", "chosen", "rejected"), _paired("prompt", "chosen", "rejected")),
    Format(
        "PKU-SafeRLHF",
        ("prompt", "response_0", "response_1", "is_response_0_safe", "is_response_1_safe"),
        _two_flagged,
    ),
    Format("BeaverTails", ("prompt", "response", "is_safe"), _labelled("prompt", "response", "is_safe")),
    Format(
        "HaluEval",
        ("question", "right_answer", "hallucinated_answer"),
        _paired("question", "right_answer", "hallucinated_answer"),
    ),
    Format("TruthfulQA", ("question", "best_answer"), _truthful),
    Format("TOFU", ("question", "answer", "perturbed_answer"), _tofu),
    Format("unpaired", ("prompt", "completion", "label"), _labelled("prompt", "completion", "label")),
    Format("prompt–completion", ("prompt", "completion"), _plain("prompt", "completion")),
    Format("Safety-Prompts", ("prompt", "response", "type"), _safety_prompts),
    _pair("prompt", "response"),
    _pair("question", "answer"),
    _pair("question", "response"),
    Format("alpaca", ("instruction", "output"), _alpaca),
    _pair("instruction", "response"),
    Format("preference", ("prompt", "good", "bad"), _paired("prompt", "good", "bad")),
    Format("preference without prompt", ("chosen", "rejected"), _implicit),
    Format("conversational", ("messages",), _messages("messages")),
    Format("conversational", ("conversations",), _messages("conversations")),
    Format("text", ("text",), _running_text),
)


def read_examples(
    source: str,
    polarity: Polarity,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    revision: str | None = None,
) -> list[Example]:
    """Read the negatives or the normals of a source, whatever known format it has.

    `columns` maps our names (prompt, reply, good, bad, text, label, concept) to the user's columns, e.g.
    {"prompt": "question"}. Of rows with a right and a wrong reply, negatives take the wrong one. Raises
    DataError, naming row and field, for a row that cannot be used, and where no row has the wanted polarity.
    """
    return examples_of(source, read_rows(source, split, revision, polarity), polarity, columns)


def examples_of(
    source: str, rows: Sequence[RawRow], polarity: Polarity, columns: Mapping[str, str] | None = None
) -> list[Example]:
    """Turn rows that are read already into examples, like `read_examples`; messages name the `source`."""
    _, by_row = examples_by_row(source, rename_columns(source, rows, columns or {}), polarity)
    return [example for examples in by_row for example in examples]


def rename_columns(source: str, rows: Sequence[RawRow], columns: Mapping[str, str]) -> list[RawRow]:
    """Give the columns of rows the names that `columns` says. Raises ConfigError or DataError for unknown ones."""
    names = _renaming(source, columns, _columns(rows))
    return [replace(row, values=_renamed(row.values, names)) for row in rows]


def _columns(rows: Iterable[RawRow]) -> list[str]:
    return list(dict.fromkeys(column for row in rows for column in row.values))


def examples_by_row(
    source: str, rows: Sequence[RawRow], polarity: Polarity, needed: bool = True
) -> tuple[Format, list[list[Example]]]:
    """Find the format of rows, and turn each row into its examples of the polarity; a row may have none.

    Raises DataError where no row has one, if one is `needed`.
    """
    chosen = _format_of(source, _columns(rows))
    by_row = [[_finished(example, row) for example in chosen.read(row, polarity)] for row in rows]
    if needed and not any(by_row):
        raise DataError(
            f"{source}: none of its {len(rows)} rows (format: {chosen.name}) gives a {polarity}; check the "
            "file, its labels and --column"
        )
    return chosen, by_row


def _renaming(source: str, columns: Mapping[str, str], found: list[str]) -> dict[str, str]:
    """Turn {ours: theirs} into {theirs: ours}; refuse names that do not exist."""
    for ours, theirs in columns.items():
        if ours not in RENAMED:
            raise ConfigError(
                f"--column {ours}={theirs}: unknown name '{ours}'{nearest(ours, RENAMED)} (known: {', '.join(RENAMED)})"
            )
        if theirs not in found:
            raise DataError(
                f"{source}: --column {ours}={theirs}: there is no column '{theirs}'{nearest(theirs, found)} "
                f"(columns found: {listed(found)})"
            )
    if len(set(columns.values())) != len(columns):
        raise ConfigError("--column: one column cannot be two things; name each column once")
    return {theirs: ours for ours, theirs in columns.items()}


def _renamed(row: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename columns; one that already had a name now given to another is dropped."""
    taken = set(names.values()) - set(names)
    return {names.get(column, column): value for column, value in row.items() if column not in taken}


def _format_of(source: str, found: list[str]) -> Format:
    for form in FORMATS:
        if set(form.columns) <= set(found):
            return form
    close = max(FORMATS, key=lambda form: len(set(form.columns) & set(found)) / len(form.columns))
    missing = [column for column in close.columns if column not in found]
    raise DataError(
        f"{source}: no known format has the columns {listed(found)}; the closest ({close.name}) "
        f"also needs {' and '.join(missing)}; name yours with --column prompt=… --column reply=… (or text=…)"
    )


def _finished(example: Example, row: RawRow) -> Example:
    """Strip the reply, refuse an empty one, and add the row's label and concept."""
    reply = example.reply.strip()
    if not reply:
        raise row.fail("the reply is empty; remove the row or give it a reply")
    about = concept_of(row) or example.concept
    return replace(example, reply=reply, where=example.where or row.label, concept=about)


def concept_of(row: RawRow) -> str | None:
    """Return the concept that a row names in `concept` or `category`."""
    return _names(row, row.values.get("concept", row.values.get("category")))


def _names(row: RawRow, value: Any) -> str | None:
    """Return a concept as text, from text, a number, a list of names, or names with flags (BeaverTails)."""
    if isinstance(value, dict):
        value = [name for name, on in value.items() if on]
    if isinstance(value, list):
        value = ", ".join(str(name) for name in value)
    return None if value is None else row.check_text(str(value), "concept").strip() or None


def write_examples(path: Path | str, examples: Iterable[Example]) -> None:
    """Write prompt–completion JSONL that `read_examples` reads back as the same examples, except for `where`.

    A dialogue is written as messages, and examples none of which has a prompt as `text`. Raises OutputError.
    """
    examples = list(examples)
    texts = not any(example.turns for example in examples)
    rows = (json.dumps(written_row(example, texts), ensure_ascii=False) + "\n" for example in examples)
    write_whole(Path(path), "".join(rows))


def written_row(example: Example, texts: bool = False) -> dict[str, Any]:
    """Return an example as `write_examples` writes it; with `texts`, one without a prompt becomes `text`."""
    row: dict[str, Any]
    turns = example.turns
    if not turns:
        row = {"text": example.reply} if texts else {"prompt": "", "completion": example.reply}
    elif len(turns) == 1 and turns[0].role == "user" and turns[0].content.strip():
        row = {"prompt": turns[0].content, "completion": example.reply}
    else:
        row = {
            "prompt": [{"role": turn.role, "content": turn.content} for turn in turns],
            "completion": [{"role": "assistant", "content": example.reply}],
        }
    extras = {"good": example.good, "bad": example.bad, "concept": example.concept}
    return row | {name: value for name, value in extras.items() if value is not None}
