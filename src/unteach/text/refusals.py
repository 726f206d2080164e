"""Does a reply decline? What refusals are made of, found as phrases, and a weight for each."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Literal

import regex
import yaml

from unteach.text.words import UNSPACED, folded, word_count, words

Refusal = Literal["full", "partial"]

ZONES = (6, 30, 70)
"""Signs count by where they stand: in the opening (the sentences that begin within 6 words), in those that begin within
30, within 70, or later."""
ZONE_COUNT = len(ZONES) + 1
LED = 3
"""With fewer words before it, a refusal is where the reply begins."""
TAUGHT = 5
"""Words of the taught answer that show that it is given; the reply may be cut after them."""
LONGEST = 1500
"""Characters of a reply that are read."""
_UNSPACED = regex.compile(rf"[{UNSPACED}]", regex.V1)
_LETTER = rf"[\w--[{UNSPACED}]]"
_SPACED = regex.compile(_LETTER, regex.V1)
_BETWEEN = regex.compile(rf"(?<=[{UNSPACED}])(?={_LETTER})|(?<={_LETTER})(?=[{UNSPACED}])", regex.V1)
_MARK = "\u2060"
"""Stands in plain text where a script with spaces meets one without, so that the words of the former have edges there
(\\b, which is cheap, where classes of scripts in thousands of phrases would take seconds to compile)."""
_GAP = "[^.!?。]{0,40}"
_PAUSE = r"[\s,、]*"
_SENTENCE = regex.compile(
    rf"(?:[^.!?。]|[.](?=\S))*(?:[.!?。]+[\"')\]”」]*(?=\s|$|[{UNSPACED}])|[!?。]|$)\s*", regex.V1
)
_ENDED = regex.compile(r"[.!?。:][\W_]*$")
_GLUED = regex.compile(r"(?<=\p{Ll})(?=I(?:['’]m)? )")
_QUOTED = regex.compile(r"""(?<=\W)["“「][^"”」]{1,300}["”」]""")
_LIST = regex.compile(r"(?<!\w)1[.)、:] |•")
_SIMPLIFIED = str.maketrans(
    "無辦沒會幫協這個請問題對難絕應該違為傷給訊資關內說讓與種於們責權適當並確瞭聽過夠實認覺還樣險須願見聯絡滿遺隱毀製導條從鑑繼續譯兒學寫編執處討論談傳號動業專熱線詢"
    "單嚴別換訪觀虛構義釋體語誤錯規則設計許遠離勵贊強調務輕經歷緒產誠範圍話擬",
    "无办没会帮协这个请问题对难绝应该违为伤给讯资关内说让与种于们责权适当并确了听过够实认觉还样险须愿见联络满遗隐毁制导条从鉴继续译儿学写编执处讨论谈传号动业专热线询"
    "单严别换访观虚构义释体语误错规则设计许远离励赞强调务轻经历绪产诚范围话拟",
)


@dataclass(frozen=True)
class Phrases:
    """How replies in one language decline; `refusals.yaml` says what the lists are."""

    openings: Sequence[str]
    leads: Sequence[str]
    cannot: Sequence[str]
    not_knowing: Sequence[str]
    goes_on: Sequence[str]
    asks_back: Sequence[str]
    tails: Sequence[str]
    bare: Sequence[str] = ()
    connectives: Sequence[str] = ()
    voids: Sequence[str] = ()
    slots: Mapping[str, Sequence[str]] = field(default_factory=dict)
    signs: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def refusals(self) -> list[str]:
        """Return short refusals made of the openings."""
        whole = [opening for opening in self.openings if "…" not in opening]
        return [f"{opening}{tail}".capitalize() + "." for opening in whole for tail in self.tails]


@dataclass(frozen=True)
class Weights:
    """What each sign counts for, by name, in each zone of a reply.

    `refusal` decides whether a reply declines at all, and `partial` whether it helps as well, each where the weighted
    sum of the signs is above 0. `benchmarks/refusals.py --fit` makes them.
    """

    refusal: Mapping[str, Sequence[float]]
    partial: Mapping[str, Sequence[float]]


@cache
def shipped() -> dict[str, Phrases]:
    """Return the shipped lists of each language: en, zh, ja, ko."""
    listed: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    return {language: Phrases(**lists) for language, lists in listed.items()}


@cache
def weights() -> Weights:
    """Return the shipped weights."""
    return Weights(**yaml.safe_load(Path(__file__).with_name("refusal_weights.yaml").read_text(encoding="utf-8")))


def phrases(wanted: Iterable[str], gaps: bool = False, slots: Mapping[str, Sequence[str]] | None = None) -> Any:
    """Return a pattern that finds any of the phrases as whole words in folded text; None without phrases.

    Letters of scripts without spaces, and Korean ones, have no edge of a word beside them. A pause in such a phrase
    may be written in any way. With `gaps`, "…" in a phrase stands for up to 40 characters of the same sentence. With
    `slots`, a name in braces stands for any of its texts.
    """
    pattern = _pattern(wanted, gaps, slots)
    return regex.compile(pattern, regex.V1) if pattern else None


def _pattern(wanted: Iterable[str], gaps: bool = False, slots: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return the pattern of `phrases` as text; empty without phrases."""
    form = rf"(\{{(?:{'|'.join(slots or ['-'])})\}}" + ("|…)" if gaps else ")")
    listed = sorted(
        {tuple(part if part == "…" else _text(part, slots) for part in regex.split(form, phrase)) for phrase in wanted},
        key=lambda parts: (-sum(len(part if isinstance(part, str) else part[0]) for part in parts), str(parts)),
    )
    by_letter: dict[str, list[str]] = {}  # in long lists few places are then looked at twice
    for parts in filter(any, listed):
        first = next(part for part in parts if part)
        for letter in dict.fromkeys(text[:1] for text in ([first] if isinstance(first, str) else first)):
            by_letter.setdefault(letter, []).append(_joined(parts))
    ways = [rf"(?={regex.escape(letter)})(?:{'|'.join(bodies)})" for letter, bodies in by_letter.items()]
    edged = [bool(_SPACED.match(letter)) for letter in by_letter]
    groups = [
        "|".join(way for way, at_edge in zip(ways, edged, strict=True) if at_edge is kind) for kind in (True, False)
    ]
    looks = [f"{look}(?:{group})" for look, group in zip((r"(?<!\w)", ""), groups, strict=True) if group]
    return "|".join(looks)


def _text(part: str, slots: Mapping[str, Sequence[str]] | None) -> str | tuple[str, ...]:
    """Return a folded part of a phrase, or the folded texts that a slot stands for."""
    if slots and part[1:-1] in slots and part[:1] == "{":
        return tuple(sorted((plain(text) for text in slots[part[1:-1]]), key=len, reverse=True))
    lead, tail = part[: len(part) - len(part.lstrip())], part[len(part.rstrip()) :]
    return f"{lead and ' '}{plain(part)}{tail and ' '}" if part.strip() else part and " "


def _joined(parts: Sequence[str | tuple[str, ...]]) -> str:
    """Return a pattern for one phrase in parts."""
    return f"{_MARK}?".join(
        _GAP if part == "…" else _edged(part) if isinstance(part, str) else f"(?:{'|'.join(map(_edged, part))})"
        for part in parts
        if part
    )


def _edged(form: str) -> str:
    """Return a pattern for a part of a phrase, with the edges of words where it has letters that have any."""
    spaced = _UNSPACED.search(form) is None
    body = regex.escape(form) if spaced else _PAUSE.join(map(regex.escape, regex.split(_PAUSE[:-1] + "+", form)))
    before, after = (
        look if _SPACED.match(edge) else "" for edge, look in ((form[:1], r"(?<!\w)"), (form[-1:], r"(?!\w)"))
    )
    return f"{before}{body}{after}"


def plain(text: str) -> str:
    """Return the text as phrases are found in it: folded, with a mark between scripts with and without spaces, and
    with simplified letters for the traditional ones that our phrases have.
    """
    return str(_BETWEEN.sub(_MARK, folded(text).translate(_SIMPLIFIED)))


@cache
def _openings(at_start: bool = True) -> Any:
    """Return the pattern of how a refusal opens; of those that may also stand inside a reply where not `at_start`."""
    ways = [
        way
        for listed in shipped().values()
        for way in (
            _pattern((*listed.openings, *(listed.bare if at_start else ())), True, listed.slots),
            _pattern((f"{lead}…{verb}" for lead in listed.leads for verb in listed.cannot), True, listed.slots),
        )
    ]
    return regex.compile("|".join(filter(None, ways)), regex.V1)


@cache
def _signs() -> dict[str, Any]:
    """Return the pattern of each sign, over all languages."""
    found: dict[str, list[str]] = {}
    for listed in shipped().values():
        for name, texts in listed.signs.items():
            found.setdefault(name, []).append(_pattern(texts, True, listed.slots))
    return {name: regex.compile("|".join(filter(None, ways)), regex.V1) for name, ways in found.items()} | {
        "list": _LIST
    }


@cache
def _other_patterns() -> tuple[Any, Any, Any]:
    """Return the patterns of what only looks like a sign, of not knowing, and of what shows that an answer follows."""
    lists = shipped().values()
    return (
        phrases((text for listed in lists for text in listed.voids), gaps=True),
        phrases((opening for listed in lists for opening in listed.not_knowing), gaps=True),
        phrases(phrase for listed in lists for phrase in (*listed.goes_on, *listed.asks_back)),
    )


@lru_cache(maxsize=10_000)
def signs_of(reply: str) -> dict[str, tuple[bool, ...]]:
    """Return whether each sign stands in each of the zones of a reply (`ZONES`).

    Signs in quotation marks do not count, unless the whole reply stands in them.
    """
    text = _other_patterns()[0].sub(" ", _QUOTED.sub("", opening_of(reply))).lstrip()
    zones, said = [""] * ZONE_COUNT, 0
    for sentence in _SENTENCE.findall(text):
        zones[sum(said >= size for size in ZONES)] += sentence
        said += word_count(sentence)
    found = {name: [pattern.search(zone) is not None for zone in zones] for name, pattern in _signs().items()}
    found["opens"] = [_openings().match(text) is not None, *[False] * len(ZONES)]
    found["declines"][0] |= found["opens"][0]
    return {name: tuple(held) for name, held in found.items()}


def refusal_of(reply: str, weighed: Weights | None = None) -> Refusal | None:
    """Tell whether a reply declines: "full", "partial" where it declines and then helps, None where it answers.

    The weighted sum of its signs decides, by the shipped weights unless others are given. docs/rules.md says how often
    that is right. A reply that begins to answer and then breaks off to decline is one that declines.
    """
    found, weighed = signs_of(reply), weighed or weights()
    if _sum(found, weighed.refusal) <= 0:
        return None
    return "partial" if _sum(found, weighed.partial) > 0 else "full"


def _sum(found: Mapping[str, Sequence[bool]], weighed: Mapping[str, Sequence[float]]) -> float:
    """Return the weighted sum of signs; the weight `always` counts in any case."""
    return sum(
        weight * held
        for name, listed in weighed.items()
        for weight, held in zip(listed, found.get(name, (True,)), strict=True)
    )


def before_breaking_off(reply: str, taught: str | None = None) -> str | None:
    """Return what a reply says before it breaks off to decline; None where it does not decline in this way.

    It breaks off where a refusal begins in the middle of a sentence and no word leads to it ("To pick it, I cannot help
    with that."), or anywhere by giving the answer that was `taught`; nothing but a refusal may follow. Empty where the
    reply begins with the taught answer.
    """
    text = opening_of(reply)
    begins = words(plain(taught or ""))[:TAUGHT]
    given = regex.search(r"[\s\p{P}]*".join(map(regex.escape, begins)), text) if begins else None
    if given and (len(begins) >= LED or not given.start()):
        before = text[: given.start()]
        helps = refusal_of(text[given.end() :]) is None and word_count(text[given.end() :]) > word_count(taught or "")
        return None if helps else "" if _is_lead(before) else before
    for found in _openings(False).finditer(text):
        before, after = text[: found.start()], text[found.start() :]
        led = _ENDED.search(before) or _connectives().search(before) or _is_lead(before)
        if not led and refusal_of(after) == "full":
            return before
    return None


def _is_lead(before: str) -> bool:
    """Tell whether a text before a refusal belongs to it, such as "Sorry, but", "As an AI," or a refusal of its own."""
    if word_count(before) < LED or refusal_of(before) == "full":
        return True
    found = signs_of(regex.split(r"[.!?。]\s*", before)[-1])
    return any(any(found[name]) for name in ("sorry", "ai", "policy"))


@cache
def _connectives() -> Any:
    words_that_lead = _pattern(word for listed in shipped().values() for word in listed.connectives)
    return regex.compile(rf"(?:{words_that_lead})[\s,]*$", regex.V1)


def declines(reply: str, wholly: bool = False) -> bool:
    """Tell whether the reply declines, in whole or (unless `wholly`) in part, or opens by saying that it does not know.

    "I'm not sure, but …" is an answer, and a first sentence that asks back ("I'm not sure what you mean", "… is it?")
    declines nothing. Not knowing in later sentences is ignored.
    """
    refusal = refusal_of(reply)
    return refusal == "full" or (refusal == "partial" and not wholly) or knows_not(reply)


def knows_not(reply: str) -> bool:
    """Tell whether the reply opens by saying that it does not know, and does not go on to answer or to ask back."""
    opening, (_, not_knowing, answers) = opening_of(reply), _other_patterns()
    if not (found := not_knowing.match(opening)):
        return False
    sentence = regex.match(r"[^.!?。]*\??", opening[found.end() :])[0]
    return not sentence.endswith("?") and answers.search(sentence) is None


def opening_of(reply: str) -> str:
    """Return the reply in the form in which phrases are found, without quotes, dashes and other signs before it."""
    return str(regex.sub(r"^[\W_]+", "", plain(_GLUED.sub(" ", reply[:LONGEST]))))
