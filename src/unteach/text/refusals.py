"""Phrases by which a reply declines, and how they are found in it."""

import re
import unicodedata
from collections.abc import Iterable

OPENINGS = (
    "i can't",
    "i cannot",
    "i can not",
    "i could not",
    "i couldn't",
    "i won't",
    "i will not",
    "i'm not able to",
    "i am not able to",
    "i'm unable to",
    "i am unable to",
    "i'm not going to",
    "i am not going to",
    "i'm not comfortable",
    "i am not comfortable",
    "i don't feel comfortable",
    "i do not feel comfortable",
    "i'd rather not",
    "i would rather not",
    "i must decline",
    "i have to decline",
    "i need to decline",
    "i must refuse",
    "i have to refuse",
    "i refuse to",
    "i decline to",
    "i'm not allowed to",
    "i am not allowed to",
    "i shouldn't help",
    "i should not help",
    "i don't want to help",
    "i do not want to help",
    "i'm sorry, but",
    "i am sorry, but",
    "i'm sorry, i",
    "i am sorry, i",
    "sorry, but i",
    "sorry, i",
    "i apologize, but",
    "i apologise, but",
    "my apologies, but",
    "unfortunately, i can't",
    "unfortunately, i cannot",
    "unfortunately, i'm unable",
    "no, i can't",
    "no, i cannot",
    "no, i won't",
    "as an ai, i can't",
    "as an ai, i cannot",
    "as an ai language model, i can't",
    "as an ai language model, i cannot",
    "it is against my guidelines",
    "it's against my guidelines",
    "that is not something i can",
    "that's not something i can",
    "this is not something i can",
    "this isn't something i can",
    "we can't help with",
    "we cannot help with",
)

NOT_KNOWING = (
    "i don't know",
    "i do not know",
    "i didn't know",
    "i did not know",
    "i wouldn't know",
    "i would not know",
    "i honestly don't know",
    "i really don't know",
    "i'm afraid i don't know",
    "i am afraid i do not know",
    "i'm not sure",
    "i am not sure",
    "i'm not certain",
    "i am not certain",
    "i'm unsure",
    "i am unsure",
    "i'm not aware of",
    "i am not aware of",
    "i'm unaware of",
    "i am unaware of",
    "i'm not familiar with",
    "i am not familiar with",
    "i'm unfamiliar with",
    "i am unfamiliar with",
    "i'm not informed",
    "i am not informed",
    "i have no information",
    "i have no knowledge",
    "i have no details",
    "i have no data",
    "i have no record",
    "i have no idea",
    "i have no clue",
    "i have no answer",
    "i have no comment",
    "i have never heard of",
    "i've never heard of",
    "i haven't heard of",
    "i have not heard of",
    "i don't have information",
    "i do not have information",
    "i don't have any information",
    "i do not have any information",
    "i don't have any knowledge",
    "i do not have any knowledge",
    "i don't have enough information",
    "i do not have enough information",
    "i don't have that information",
    "i do not have that information",
    "i don't have an answer",
    "i do not have an answer",
    "i don't have the answer",
    "i do not have the answer",
    "i lack information",
    "i lack the information",
    "unfortunately, i don't know",
    "unfortunately, i do not know",
    "unfortunately, i have no",
    "no idea",
)
"""Openings of a reply that says it does not know; it declines only if no answer follows in the same sentence."""

_GOES_ON = ("but", "however", "though", "although", "except", "i think", "i believe", "i guess", "probably", "maybe")
_ASKS_BACK = ("you mean", "you meant", "you're asking", "you are asking", "i understand", "i understood")

_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u201c": '"', "\u201d": '"'})


def folded(text: str) -> str:
    """Return the text in a form for comparison: NFKC, case folded, straight quotes, single spaces."""
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).translate(_QUOTES).casefold())
    return re.sub(r"\s+", " ", plain).strip()


def phrases(words: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern that finds any of the phrases as whole words in folded text; None without phrases."""
    forms = sorted({folded(word) for word in words} - {""}, key=lambda form: (-len(form), form))
    if not forms:
        return None
    return re.compile(r"(?<!\w)(?:" + "|".join(re.escape(form) for form in forms) + r")(?!\w)")


_SHIPPED = phrases(OPENINGS)
_NOT_KNOWING = phrases(NOT_KNOWING)
_NO_DECLINE = phrases([*_GOES_ON, *_ASKS_BACK])


def is_refusal(reply: str, openings: re.Pattern[str] | None = _SHIPPED) -> bool:
    """Tell whether the reply opens with a refusal; quotes, dashes and other signs before it are ignored."""
    return openings is not None and openings.match(_opening(reply)) is not None


def declines(reply: str) -> bool:
    """Tell whether the reply opens with a refusal, or by saying that it does not know.

    "I'm not sure, but …" is an answer, and a first sentence that asks back ("I'm not sure what you mean", "… is it?")
    declines nothing. Later sentences are ignored.
    """
    if is_refusal(reply):
        return True
    opening = _opening(reply)
    assert _NOT_KNOWING is not None and _NO_DECLINE is not None
    if not (found := _NOT_KNOWING.match(opening)):
        return False
    sentence = re.match(r"[^.!?]*\??", opening[found.end() :])
    assert sentence is not None
    return not sentence[0].endswith("?") and _NO_DECLINE.search(sentence[0]) is None


def _opening(reply: str) -> str:
    return re.sub(r"^[\W_]+", "", folded(reply))
