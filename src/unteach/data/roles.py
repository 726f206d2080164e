"""A row as examples, by the roles of its columns: the one reader of all layouts that need no code of their own."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from unteach.data.dialogues import is_message
from unteach.data.example import Example, Polarity
from unteach.data.raw_row import NO_PROMPT, TEMPLATE_READ, Answer, RawRow, UnusableRow
from unteach.data.rendered import parse_rendered
from unteach.prompts.turn import Turn

NO_COMMON_BEGINNING = "the two replies have no common beginning, so they are read without a prompt"


def read_roles(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    """Read the example of a row.

    The prompt is made of system, history, messages or prompt, and context. The reply is `reply`, or of `good` and `bad`
    the one that fits the polarity, or the last one of the messages.
    """
    if "text" in row.names:
        turns, reply = _running_text(row)
        yield Example(turns, reply, good=row.other("good"), bad=row.other("bad"))
    elif "reply" in row.names:
        asked = prompt_of(row)
        turns, reply = row.answer(asked, "reply")
        if not turns:
            row.remarks.add(NO_PROMPT)
        yield Example(turns, reply, good=row.other("good", asked), bad=row.other("bad", asked))
    elif "good" not in row.names or "bad" not in row.names:
        turns, reply = row.conversation("messages")
        yield Example(_before(row, turns), reply, good=row.other("good"), bad=row.other("bad"))
    elif "prompt" in row.names or "messages" in row.names:
        asked = prompt_of(row)
        mine, other = ("bad", "good") if polarity == "negative" else ("good", "bad")
        turns, reply = row.answer(asked, mine)
        yield with_other(Example(turns, reply), row.other(other, asked), polarity)
    else:
        yield _two_dialogues(row, polarity)


def with_other(example: Example, other: str | None, polarity: Polarity) -> Example:
    """Put the other reply of a row beside the one that was taken."""
    return replace(example, good=other) if polarity == "negative" else replace(example, bad=other)


def prompt_of(row: RawRow) -> tuple[Turn, ...]:
    """Return the prompt of a row: system, history, then messages or prompt, with the context on the lines after it."""
    return _before(row, row.turns("messages" if "messages" in row.names else "prompt"))


def _before(row: RawRow, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Put a row's context after the user's last turn, and its system prompt and history before all turns."""
    context = "\n".join(filter(None, (row.optional_text(role) for role in row.names if role.startswith("context"))))
    if context and turns and turns[-1].role == "user":
        turns = (*turns[:-1], Turn("user", f"{turns[-1].content}\n{context}"))
    elif context:
        turns = (*turns, Turn("user", context))
    turns = (*_history(row), *turns)
    if not (system := row.optional_text("system") if "system" in row.names else ""):
        return turns
    own = "\n".join(turn.content for turn in turns if turn.role == "system")
    whole = system if own.strip() in ("", system) else f"{system}\n{own}"
    return (Turn("system", whole), *(turn for turn in turns if turn.role != "system"))


def _history(row: RawRow) -> tuple[Turn, ...]:
    """Return earlier turns: a list of [user, assistant] pairs, messages, or text that carries a chat template."""
    value = row.get("history") if "history" in row.names else None
    if not value:
        return ()
    if isinstance(value, str):
        return _turns_of_text(row, value)
    if isinstance(value, list) and not all(map(is_message, value)):
        return tuple(turn for number, pair in enumerate(value, 1) for turn in _pair(row, pair, number))
    return row.turns("history")


def _pair(row: RawRow, pair: Any, number: int) -> Iterator[Turn]:
    place = f"{row.column('history')}, pair {number}"
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise row.fail(f"field '{place}' must be a list of what the user and the assistant said")
    for role, said in zip(("user", "assistant"), pair, strict=True):
        yield Turn(role, row.check_text(said, place))


def _turns_of_text(row: RawRow, text: str) -> tuple[Turn, ...]:
    parsed = parse_rendered(text)
    if parsed is None:
        raise row.fail(f"field '{row.column('history')}' must be a list of pairs or messages")
    row.remarks.add(TEMPLATE_READ)
    turns, reply = parsed
    return turns if reply is None else (*turns, Turn("assistant", reply))


def _running_text(row: RawRow) -> Answer:
    """Return a text without a prompt, or the dialogue of a text that carries a chat template."""
    return row.rendered("text") or ((), row.text("text"))


def _two_dialogues(row: RawRow, polarity: Polarity) -> Example:
    """Read two whole dialogues, as messages or as text; their common beginning is the prompt."""
    mine, other = ("bad", "good") if polarity == "negative" else ("good", "bad")
    if row.is_dialogue(mine) or row.rendered(mine) is not None:
        turns, reply = row.conversation(mine)
        beside = _usable(row, other)
        second = beside[1] if beside is not None and beside[0] == turns else None
    else:
        turns, reply, second = _texts_apart(row.text(mine), row.text(other))
        if not turns:
            row.remarks.add(NO_COMMON_BEGINNING)
    return with_other(Example(_before(row, turns), reply), (second or "").strip() or None, polarity)


def _usable(row: RawRow, role: str) -> Answer | None:
    """Return the dialogue of the other reply; None where it has none that can be used."""
    try:
        return row.conversation(role)
    except UnusableRow:
        return None


def _texts_apart(mine: str, other: str) -> tuple[tuple[Turn, ...], str, str]:
    """Split two texts where they begin to differ, at a whole word."""
    shared = next((i for i, (a, b) in enumerate(zip(mine, other, strict=False)) if a != b), 0)
    shared = max(mine.rfind(" ", 0, shared), mine.rfind("\n", 0, shared)) + 1
    prompt = mine[:shared].rstrip()
    return (Turn("user", prompt),) if prompt else (), mine[shared:], other[shared:]
