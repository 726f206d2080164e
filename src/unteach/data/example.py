"""One example: a prompt and a reply to it. Negatives, normals and evaluation rows are all examples."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from unteach.prompts.turn import TEXT, Turn
from unteach.text.words import folded

Polarity = Literal["negative", "normal"]


@dataclass(frozen=True)
class Example:
    """A prompt (`turns`, oldest first; empty for running text) and one reply to it.

    `where` names the file and row for messages. `good` is a right reply to the same prompt and `bad` a wrong one, where
    the row had them. `concept` is what the row is about, where the set says so. `cut` says that a model had not ended
    the reply when it was cut; it is then learned without an end. `prompt_only` says that no reply to the prompt is
    known: the reply stands in for one, and training looks only at how a reply begins.
    """

    turns: tuple[Turn, ...]
    reply: str
    where: str = ""
    good: str | None = None
    bad: str | None = None
    concept: str | None = None
    cut: bool = False
    prompt_only: bool = False

    @classmethod
    def of(cls, prompt: str | Sequence[Turn], reply: str, **fields: str | None) -> "Example":
        """Make an example from a plain prompt (one user turn; empty text means no prompt) or from turns."""
        turns = ((Turn("user", prompt),) if prompt else ()) if isinstance(prompt, str) else tuple(prompt)
        return cls(turns, reply, **fields)  # type: ignore[arg-type]

    @property
    def prompt(self) -> str:
        """The prompt as text for people and judges: a lone user turn as it is, dialogues with their roles."""
        if len(self.turns) == 1 and self.turns[0].role in ("user", TEXT):
            return self.turns[0].content
        return "\n".join(f"{turn.role}: {turn.content}" for turn in self.turns)

    @property
    def is_passage(self) -> bool:
        """Whether prompt and reply are a passage of running text, which does not end in EOS."""
        return len(self.turns) == 1 and self.turns[0].role == TEXT

    @property
    def prompt_key(self) -> str:
        """Identifies the prompt: equal for prompts that differ only in case and white space."""
        return _digest(f"{turn.role}\x1f{folded(turn.content)}" for turn in self.turns)

    @property
    def key(self) -> str:
        """Identifies prompt and reply together, case and white space likewise."""
        return _digest([self.prompt_key, folded(self.reply)])


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\x1e".join(parts).encode()).hexdigest()[:16]
