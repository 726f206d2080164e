"""The words put to the model in each step of learning from mistakes: shipped, versioned, and the user's to replace."""

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

from unteach.prompts.turn import Turn
from unteach.prompts.wording import fill, read_wording, text_with

SHIPPED = Path(__file__).with_name("mistakes.yaml")
HINTS = ("guided", "unguided", "misleading")


@dataclass(frozen=True)
class MistakeWording:
    """The words of all four steps; `version` is recorded with every mistake and analysis that they led to.

    Source: the steps of arXiv 2310.10477, section 4. Differs: the wording is ours, the paper's is not published.
    """

    version: str
    inducements: tuple[str, ...] = text_with("prompt", several=True)
    guided: str = text_with("prompt", "reply")
    unguided: str = text_with("prompt", "reply")
    misleading: str = text_with("prompt", "reply")
    reminder: str = text_with()
    bad_openings: tuple[str, ...] = text_with(several=True, default=())
    good_openings: tuple[str, ...] = text_with(several=True, default=())

    def induce(self, number: int, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
        """Return the dialogue with its last turn put as inducement `number` asks for it."""
        last = turns[-1]
        return (*turns[:-1], Turn(last.role, fill(self.inducements[number], prompt=last.content)))

    def assess(self, hint: str, prompt: str, reply: str) -> str:
        """Write the request to assess a reply; `hint` is one of HINTS."""
        return fill(getattr(self, hint), prompt=prompt, reply=reply)

    def openings(self, reply_is: Literal["bad", "good"]) -> tuple[str, ...]:
        """Return what an analyst's answer may begin with, tried one after the other."""
        return tuple(fill(opening) for opening in (self.bad_openings if reply_is == "bad" else self.good_openings))


def as_asked() -> MistakeWording:
    """Return a wording that puts every prompt as it stands."""
    return replace(shipped_wording(), version="as asked", inducements=("{prompt}",))


def load_wording(path: str | Path | None) -> MistakeWording:
    """Return the user's wording, or the shipped one where no file is named. Raises ConfigError naming the field."""
    return _read(Path(path)) if path else shipped_wording()


@cache
def shipped_wording() -> MistakeWording:
    """Return the wording of this package."""
    return _read(SHIPPED)


def _read(path: Path) -> MistakeWording:
    return read_wording(MistakeWording, path, "`unteach mistakes wording` prints a complete one")
