"""A row as its source has it, and the readers of its fields."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from unteach.data.dialogues import UnknownRole, is_message, kind, last_reply, turns_of
from unteach.data.rendered import bare_reply, parse_pair, parse_rendered
from unteach.errors import DataError
from unteach.prompts.turn import Turn

Answer = tuple[tuple[Turn, ...], str]
"""The turns of a prompt, and the reply to it."""

CUT_END = "what follows the assistant's last reply is left out"
CALLS_READ = "calls of tools and their results are part of the prompt, as text"
NO_PROMPT = "the prompt is empty, so the reply is read as running text"
TEMPLATE_READ = "text carries a chat template, which was read as turns"


class UnusableRow(DataError):
    """A row without what every row needs. A few of them in a source are skipped."""


@dataclass(frozen=True)
class RawRow:
    """The named fields of a row; `label` says where it stands, e.g. "hh.jsonl line 12".

    `names` says which column plays a role; a role that it does not hold is the name of a column itself. Every reader of
    a field takes a role, and raises UnusableRow that names the row and the column. What a reader did that the user
    should know goes into `remarks`.
    """

    values: Mapping[str, Any]
    label: str
    names: Mapping[str, str] = field(default_factory=dict)
    remarks: set[str] = field(default_factory=set, compare=False, repr=False)

    def fail(self, problem: str) -> UnusableRow:
        """Make the error for this row, with the columns that it has."""
        return UnusableRow(f"{self.label}: {problem}; columns found: {listed(self.values)}")

    def column(self, role: str) -> str:
        """Return the name of the column that plays the role."""
        return self.names.get(role, role)

    def get(self, role: str) -> Any:
        """Return a field as it is; None where it is missing, null or not a number (NaN, a gap in a table)."""
        value = at_path(self.values, self.column(role))
        return None if isinstance(value, float) and value != value else value

    def has(self, role: str) -> bool:
        """Tell whether the field is there and not null."""
        return self.get(role) is not None

    def value(self, role: str) -> Any:
        """Return a field that must be there."""
        value = self.get(role)
        if value is None:
            name = self.column(role)
            raise self.fail(f"field '{name}' is {'null' if name in self.values else 'missing'}")
        return value

    def text(self, role: str, numbers: bool = False) -> str:
        """Return a field that must be text of whole Unicode characters, or with `numbers` a number as text."""
        return self.check_text(self.value(role), self.column(role), numbers)

    def check_text(self, value: Any, column: str, numbers: bool = False) -> str:
        """Return `value` of a column if it is text of whole Unicode characters, or with `numbers` a number."""
        if numbers and isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str):
            raise self.fail(f"field '{column}' must be text, not {kind(value)}")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise self.fail(f"field '{column}' holds half a Unicode character at {error.start}") from None
        return value

    def optional_text(self, role: str) -> str:
        """Return a field that may be missing; a list of texts becomes lines."""
        value = self.get(role)
        parts = value if isinstance(value, list) else [] if value is None else [value]
        return "\n".join(self.check_text(part, self.column(role), numbers=True) for part in parts).strip()

    def texts(self, role: str) -> list[str]:
        """Return a field that must be a list of texts."""
        value = self.value(role)
        if not isinstance(value, list):
            raise self.fail(f"field '{self.column(role)}' must be a list, not {kind(value)}")
        return [self.check_text(text, self.column(role), numbers=True) for text in value]

    def flag(self, role: str) -> bool:
        """Return a field that must be true or false (or 1 or 0, or these words)."""
        value = self.value(role)
        known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
        folded = str(value).strip().lower()
        if folded not in known:
            raise self.fail(f"field '{self.column(role)}' must be true or false, not {folded[:40]!r}")
        return known[folded]

    def is_dialogue(self, role: str) -> bool:
        """Tell whether a field holds messages."""
        value = self.get(role)
        return isinstance(value, list) or is_message(value)

    def turns(self, role: str) -> tuple[Turn, ...]:
        """Return a prompt: text is one user turn (empty text: none), a list is a dialogue.

        A dialogue of messages is kept whole; text that carries a template is read as turns only with its reply.
        """
        value = self.value(role)
        if self.is_dialogue(role):
            return self._messages(role)[0]
        if not isinstance(value, str):
            raise self.fail(f"field '{self.column(role)}' must be text or a list of messages, not {kind(value)}")
        text = self.text(role)
        return (Turn("user", text),) if text.strip() else ()

    def conversation(self, role: str) -> Answer:
        """Return a field's dialogue as the turns before the assistant's last reply, and that reply."""
        value = self.value(role)
        column = self.column(role)
        if isinstance(value, str) and (rendered := self.rendered(role)) is not None:
            return rendered
        if not self.is_dialogue(role):
            raise self.fail(f"field '{column}' must be a list of messages, not {kind(value)}")
        turns, tools = self._messages(role)
        last = self._checked(lambda: last_reply(turns, tools, column))
        if last + 1 < len(turns):
            self.remarks.add(CUT_END)
        if any(tools[:last]):
            self.remarks.add(CALLS_READ)
        return turns[:last], turns[last].content

    def rendered(self, role: str) -> Answer | None:
        """Return the dialogue of a text that carries a chat template; None where it carries none."""
        text = self.text(role)
        parsed = _parsed(text)
        if parsed is None:
            return None
        turns, reply = parsed
        opened = _parsed(f"{text} x") if reply is None else None
        if opened is not None and opened[1] is not None:
            raise self.fail(f"field '{self.column(role)}': the reply is empty; remove the row or give it a reply")
        self.remarks.add(TEMPLATE_READ)
        if reply is not None:
            return turns, reply
        last = self._checked(lambda: last_reply(turns, [False] * len(turns), self.column(role)))
        self.remarks.add(CUT_END)
        return turns[:last], turns[last].content

    def answer(self, turns: tuple[Turn, ...], role: str) -> Answer:
        """Return prompt and reply; the reply is text, or messages: those that continue `turns`, or all of them.

        Where prompt or reply carry the marks of a chat template, they are read as turns.
        """
        if self.is_dialogue(role):
            more, reply = self.conversation(role)
            return _joined(turns, more), reply
        reply = self.text(role, numbers=True)
        before, asked = (turns[:-1], turns[-1].content) if turns and turns[-1].role == "user" else (turns, "")
        pair = parse_pair(asked, reply) if asked or not turns else None
        if pair is not None and pair[1] is not None:
            self.remarks.add(TEMPLATE_READ)
            return _joined(before, pair[0]) if before else pair[0], pair[1]
        return turns, bare_reply(reply)

    def other(self, role: str, turns: tuple[Turn, ...] = ()) -> str | None:
        """Return a second reply that stands beside the first; None where it is missing or blank."""
        if not self.has(role) or (not self.is_dialogue(role) and not self.text(role, numbers=True).strip()):
            return None
        return self.answer(turns, role)[1].strip() or None

    def _messages(self, role: str) -> tuple[tuple[Turn, ...], tuple[bool, ...]]:
        column = self.column(role)
        turns, tools = self._checked(lambda: turns_of(self.value(role), column))
        for number, turn in enumerate(turns, start=1):
            self.check_text(turn.content, f"{column}, message {number}")
        return turns, tools

    def _checked(self, read: Any) -> Any:
        try:
            return read()
        except UnknownRole as error:
            raise DataError(str(self.fail(str(error)))) from None
        except ValueError as error:
            raise self.fail(str(error)) from None


_parsed = lru_cache(maxsize=8)(parse_rendered)
"""A row's text is asked for more than once."""


def _joined(turns: tuple[Turn, ...], more: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Join a prompt and the turns of a dialogue, which may continue the prompt or hold it already."""
    said, again = (tuple((t.role, t.content.strip()) for t in part if t.role != "system") for part in (turns, more))
    holds = again[: len(said)] == said or again[-len(said) :] == said
    reworded = len(said) == 1 and again[:1] and again[0][0] == "user"
    if not again or (said and not holds and not reworded):
        return turns + more
    return _with_system(turns, more)


def _with_system(turns: tuple[Turn, ...], more: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """Return the dialogue `more`, with the system turn of the prompt where it has none."""
    if any(turn.role == "system" for turn in more):
        return more
    return tuple(turn for turn in turns if turn.role == "system") + more


def at_path(values: Mapping[str, Any], path: str) -> Any:
    """Return the value of a column, or what a dotted path like "data.turns[0].text" leads to; None if nothing does."""
    if path in values:
        return values[path]
    value: Any = values
    for part in re.sub(r"\[(-?\d+)\]", r".\1", path).split("."):
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and re.fullmatch(r"-?\d{1,9}", part):
            value = value[int(part)] if -len(value) <= int(part) < len(value) else None
        else:
            return None
    return value


def listed(columns: Iterable[str]) -> str:
    """List column names on one line for messages; long names, which a table without a header has, are cut."""
    short = (name if len(name) <= 40 else name[:39] + "…" for name in columns)
    return ", ".join(name if name.isprintable() else ascii(name) for name in short) or "none"
