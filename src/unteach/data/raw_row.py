"""A row as its source has it, and the readers of its fields."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from unteach.errors import DataError
from unteach.prompts.turn import Turn

_ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot"), "assistant"),
}


@dataclass(frozen=True)
class RawRow:
    """The named fields of a row; `label` says where it stands, e.g. "hh.jsonl line 12".

    Every reader of a field raises DataError that names the row and the field.
    """

    values: Mapping[str, Any]
    label: str

    def fail(self, problem: str) -> DataError:
        """Make the error for this row, with the columns that it has."""
        return DataError(f"{self.label}: {problem}; columns found: {listed(self.values)}")

    def has(self, field: str) -> bool:
        """Tell whether the field is there and not null."""
        return self.values.get(field) is not None

    def value(self, field: str) -> Any:
        """Return a field that must be there."""
        if not self.has(field):
            raise self.fail(f"field '{field}' is {'null' if field in self.values else 'missing'}")
        return self.values[field]

    def text(self, field: str) -> str:
        """Return a field that must be text of whole Unicode characters."""
        return self.check_text(self.value(field), field)

    def check_text(self, value: Any, field: str) -> str:
        """Return `value` of a field if it is text of whole Unicode characters."""
        if not isinstance(value, str):
            raise self.fail(f"field '{field}' must be text, not {kind(value)}")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise self.fail(f"field '{field}' holds half a Unicode character at {error.start}") from None
        return value

    def flag(self, field: str) -> bool:
        """Return a field that must be true or false (or 1 or 0, or these words)."""
        value = self.value(field)
        known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
        folded = str(value).strip().lower()
        if folded not in known:
            raise self.fail(f"field '{field}' must be true or false, not {folded[:40]!r}")
        return known[folded]

    def turns(self, field: str) -> tuple[Turn, ...]:
        """Return a prompt: text is one user turn (empty text: none), a list is a dialogue."""
        value = self.value(field)
        if isinstance(value, list):
            return self.messages(field)
        if not isinstance(value, str):
            raise self.fail(f"field '{field}' must be text or a list of messages, not {kind(value)}")
        return (Turn("user", self.text(field)),) if value.strip() else ()

    def messages(self, field: str) -> tuple[Turn, ...]:
        """Return a field that must be a list of messages, {"role", "content"} or {"from", "value"}."""
        value = self.value(field)
        if not isinstance(value, list):
            raise self.fail(f"field '{field}' must be a list of messages, not {kind(value)}")
        turns = []
        for number, message in enumerate(value, start=1):
            place = f"{field}, message {number}"
            if not isinstance(message, dict):
                raise self.fail(f"field '{place}' must have role and content, not be {kind(message)}")
            role = _ROLES.get(str(message.get("role", message.get("from"))).lower())
            if role is None:
                raise self.fail(f"field '{place}' needs a role: system, user or assistant")
            turns.append(Turn(role, self.check_text(message.get("content", message.get("value")), place)))
        return tuple(turns)

    def conversation(self, field: str) -> tuple[tuple[Turn, ...], str]:
        """Return a field's dialogue as the turns before its last assistant turn, and that turn's text."""
        turns = self.messages(field)
        last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=None)
        if last is None:
            raise self.fail(f"field '{field}' has no message of the assistant to take as the reply")
        return turns[:last], turns[last].content

    def answer(self, turns: tuple[Turn, ...], field: str) -> tuple[tuple[Turn, ...], str]:
        """Return prompt and reply; the reply is text, or a list of messages that continue `turns`."""
        if isinstance(self.value(field), list):
            more, reply = self.conversation(field)
            return turns + more, reply
        return turns, self.text(field)

    def other(self, field: str) -> str | None:
        """Return a second reply that stands beside the first; None where it is missing or blank."""
        if not self.has(field):
            return None
        return self.answer((), field)[1].strip() or None


def kind(value: Any) -> str:
    """Name the type of a JSON value in plain words, for messages."""
    names = {bool: "true or false", str: "text", list: "a list", dict: "an object", type(None): "nothing"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)


def listed(columns: Iterable[str]) -> str:
    """List column names on one line for messages; long names, which a table without a header has, are cut."""
    short = (name if len(name) <= 40 else name[:39] + "…" for name in columns)
    return ", ".join(name if name.isprintable() else ascii(name) for name in short) or "none"
