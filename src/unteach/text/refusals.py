"""Phrases by which a reply declines, and how they are found in it."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import regex
import yaml

from unteach.text.words import UNSPACED, folded

_LETTER = rf"[\w--[{UNSPACED}]]"  # of a word that ends where the next one begins
_GAP = "[^.!?。]{0,40}"
_PAUSE = r"[\s,、]*"


@dataclass(frozen=True)
class Phrases:
    """How replies in one language decline; `refusals.yaml` says what the lists are."""

    openings: tuple[str, ...]
    leads: tuple[str, ...]
    cannot: tuple[str, ...]
    not_knowing: tuple[str, ...]
    goes_on: tuple[str, ...]
    asks_back: tuple[str, ...]
    tails: tuple[str, ...]

    def refusals(self) -> list[str]:
        """Return short refusals made of the openings."""
        whole = [opening for opening in self.openings if "…" not in opening]
        return [f"{opening}{tail}".capitalize() + "." for opening in whole for tail in self.tails]


@cache
def shipped() -> dict[str, Phrases]:
    """Return the shipped lists of each language: en, zh, ja, ko."""
    listed: dict[str, Any] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return {
        language: Phrases(**{name: tuple(texts) for name, texts in lists.items()}) for language, lists in listed.items()
    }


def openings() -> list[str]:
    """Return the openings of a refusal in all languages; "…" stands for up to 40 characters of the same sentence."""
    return [opening for listed in shipped().values() for opening in listed.openings]


def phrases(wanted: Iterable[str], gaps: bool = False) -> Any:
    """Return a pattern that finds any of the phrases as whole words in folded text; None without phrases.

    Letters of scripts without spaces, and Korean ones, have no edge of a word beside them. A pause in such a phrase
    may be written in any way. With `gaps`, "…" in a phrase stands for up to 40 characters of the same sentence.
    """
    forms = {tuple(map(folded, phrase.split("…") if gaps else [phrase])) for phrase in wanted} - {("",)}
    if not forms:
        return None
    listed = sorted(forms, key=lambda form: (-len("".join(form)), form))
    return regex.compile("|".join(_GAP.join(map(_within_words, form)) for form in listed), regex.V1)


def _within_words(form: str) -> str:
    """Return a pattern for one folded phrase, or for a part of it."""
    spaced = regex.compile(rf"[{UNSPACED}]", regex.V1).search(form) is None
    body = regex.escape(form) if spaced else _PAUSE.join(map(regex.escape, regex.split(_PAUSE[:-1] + "+", form)))
    before, after = (
        "" if regex.match(rf"[{UNSPACED}]", edge, regex.V1) else look
        for edge, look in ((form[:1], f"(?<!{_LETTER})"), (form[-1:], f"(?!{_LETTER})"))
    )
    return f"{before}{body}{after}"


@cache
def _patterns() -> tuple[list[Any], Any, Any]:
    """Return the patterns of refusals, of not knowing, and of what shows that an answer follows."""
    lists = shipped().values()
    apologies = [
        regex.compile(f"(?:{phrases(listed.leads).pattern}){_GAP}(?:{phrases(listed.cannot).pattern})", regex.V1)
        for listed in lists
        if listed.leads
    ]
    not_knowing = phrases((opening for listed in lists for opening in listed.not_knowing), gaps=True)
    answers = phrases(phrase for listed in lists for phrase in (*listed.goes_on, *listed.asks_back))
    return [phrases(openings(), gaps=True), *apologies], not_knowing, answers


def is_refusal(reply: str, more: Any = None) -> bool:
    """Tell whether the reply opens with a refusal of a shipped list, or with one that `more` (`phrases`) finds.

    Quotes, dashes and other signs before it are ignored.
    """
    opening = _opening(reply)
    patterns = [*_patterns()[0], *([more] if more is not None else [])]
    return any(pattern.match(opening) is not None for pattern in patterns)


def declines(reply: str) -> bool:
    """Tell whether the reply opens with a refusal, or by saying that it does not know.

    "I'm not sure, but …" is an answer, and a first sentence that asks back ("I'm not sure what you mean", "… is it?")
    declines nothing. Later sentences are ignored.
    """
    if is_refusal(reply):
        return True
    opening, (_, not_knowing, answers) = _opening(reply), _patterns()
    if not (found := not_knowing.match(opening)):
        return False
    sentence = regex.match(r"[^.!?。]*\??", opening[found.end() :])[0]
    return not sentence.endswith("?") and answers.search(sentence) is None


def _opening(reply: str) -> str:
    return str(regex.sub(r"^[\W_]+", "", folded(reply)))
