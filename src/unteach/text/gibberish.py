"""Replies that say nothing: blank ones, and gibberish. The rules look at the text alone and need no model.

The bounds are far from ordinary text on purpose, so that short answers, numbers, code, lists and tables pass; dense C
macros and encoded data may not. The rules cannot see fluent nonsense, real words in no sensible order; perplexity under
the original model shows that.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence

import regex

from unteach.text.words import LETTER, runs, words

ONE_CHARACTER = 0.8
"""A text is one repeated character where that makes up more than this share of it (arXiv 2310.10683)."""
SHORTEST = 6
"""Texts with fewer visible characters are too short to be called gibberish, unless they are unreadable."""
SYMBOLS = 0.85
"""Largest share of visible characters that are no letters, digits or emoji."""
UNREADABLE = 0.1
"""Largest share of control, unassigned, private and replacement characters."""
LOOP_TIMES, LOOP_WORDS, LOOP_CHARACTERS, LOOP_SHARE, LOOP_LONGEST = 3, 5, 12, 0.5, 100
"""A loop is a block of up to 100 words (or characters) that comes at least 3 times in a row and makes up at least
5 words (12 characters of a text without spaces, or 12 letters where letters are words) and half of the text."""
VARIETY_WORDS, VARIETY = 20, 0.5
"""From 20 words on, the smallest share of word triples that are distinct."""
STUCK_LETTERS, STUCK = 6, 0.3
"""From 12 letters on, the largest share of them in runs of six or more of the same letter."""
SOUP_LETTERS, ODD_PAIRS, CASE_CHANGES = 12, 0.18, 0.18
"""Where Latin letters are 12 or more, and half of all letters, the largest shares of neighbouring letters that are two
consonants that hardly any language puts together (English has 0.002, random letters 0.35), and that go from a small
letter to a capital (random: 0.25)."""

ABBREVIATION = 5
"""A word in capitals of at most this many letters may be an abbreviation."""

# The consonants that commonly follow each one: counted in English text, with a few of German, Czech and Polish.
_FOLLOWERS = {
    "b": "bjlrst",
    "c": "chklrstz",
    "d": "bdghlmnrstvwz",
    "f": "flrst",
    "g": "bdghlnrst",
    "h": "bfhlmnprstw",
    "j": "",
    "k": "dghklnrstvw",
    "l": "bcdfghklmnpqrstvwz",
    "m": "bdfklmnprs",
    "n": "bcdfghjklmnprstvwz",
    "p": "bfhklmnprst",
    "q": "",
    "r": "bcdfghklmnprstvwz",
    "s": "bcdfghklmnpqrstvwz",
    "t": "bcfhklmnprstvwz",
    "v": "gklnr",
    "w": "dhlnrst",
    "x": "cpt",
    "z": "dhklmntvwz",
}
_LETTERS = regex.compile(LETTER, regex.V1)
_NUMBER = re.compile(r"[-+$€£¥]?[1-9][\d.,' ]*[%°]?")


def blank(text: str) -> bool:
    """Tell whether a text shows nothing: white space, control and invisible characters only."""
    return not _visible(text)


def repeated_character(text: str) -> bool:
    """Tell whether one character makes up over 80 % of at least six visible ones."""
    shown = _visible(text)
    return len(shown) >= SHORTEST and Counter(shown).most_common(1)[0][1] > ONE_CHARACTER * len(shown)


def gibberish(text: str) -> bool:
    """Tell whether a reply is gibberish: unreadable characters, one character over and over, signs only, a loop of
    words or characters, few different word triples, one letter drawn out, or letters drawn at random.

    Blank text is not gibberish.
    """
    shown = _visible(text)
    if not shown:
        return False
    if sum(_unreadable(character) for character in text) > UNREADABLE * len(text):
        return True
    if len(shown) < SHORTEST or _NUMBER.fullmatch(text.strip()):
        return False
    listed, letters = words(text), sum(map(len, _LETTERS.findall(text)))
    unspaced = 2 * letters > len(shown)  # most words are single letters, and a loop of five of them is no loop
    return (
        repeated_character(text)
        or sum(_sign(character) for character in shown) > SYMBOLS * len(shown)
        or _loops(listed, LOOP_CHARACTERS if unspaced else LOOP_WORDS)
        or (len(text.split()) == 1 and _loops(shown, LOOP_CHARACTERS))
        or _monotonous(listed)
        or _stuck(shown)
        or _soup(text)
    )


def _visible(text: str) -> str:
    return "".join(c for c in text if not c.isspace() and unicodedata.category(c) not in ("Cc", "Cf"))


def _unreadable(character: str) -> bool:
    if character == "\ufffd":
        return True
    return not character.isspace() and unicodedata.category(character) in ("Cc", "Cn", "Co", "Cs")


def _sign(character: str) -> bool:
    # Letters, marks and digits are L, M and N; emoji are So.
    category = unicodedata.category(character)
    return category[0] not in "LMN" and category != "So"


def _loops(parts: Sequence[str], shortest: int) -> bool:
    """Tell whether a block of parts is a loop, anywhere in the text."""
    need = max(shortest, LOOP_SHARE * len(parts))
    for period in range(1, min(len(parts) // LOOP_TIMES, LOOP_LONGEST) + 1):
        run = 0
        for here, before in zip(parts[period:], parts, strict=False):
            run = run + 1 if here == before else 0
            if run + period >= max(need, LOOP_TIMES * period):
                return True
    return False


def _monotonous(listed: Sequence[str]) -> bool:
    triples = runs(listed, 3)
    return bool(runs(listed, VARIETY_WORDS)) and len(set(triples)) < VARIETY * len(triples)


def _stuck(shown: str) -> bool:
    """Tell whether the text is stuck on a letter: "I cannot sssssss sssssss"."""
    letters = "".join(character for character in shown.casefold() if character.isalpha())
    runs = [len(match[0]) for match in re.finditer(rf"([^\W\d_])\1{{{STUCK_LETTERS - 1},}}", shown.casefold())]
    return len(letters) >= SOUP_LETTERS and sum(runs) > STUCK * len(letters)


def _soup(text: str) -> bool:
    """Tell whether Latin letters look drawn at random. Short words in capitals are left out, since they lack vowels."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    runs = re.findall(r"[A-Za-z]+", plain)
    runs = [run for run in runs if not (run.isupper() and len(run) <= ABBREVIATION)]
    letters = sum(len(run) for run in runs)
    if letters < max(SOUP_LETTERS, sum(map(str.isalpha, plain)) / 2):  # names and abbreviations in another script
        return False
    pairs = [pair for run in runs for pair in zip(run, run[1:], strict=False)]
    rises = sum(first.islower() and second.isupper() for first, second in pairs)
    odd = sum(_odd(first.lower(), second.lower()) for first, second in pairs)
    return odd > ODD_PAIRS * len(pairs) + 1 or rises > CASE_CHANGES * len(pairs) + 1


def _odd(first: str, second: str) -> bool:
    return first in _FOLLOWERS and second in _FOLLOWERS and second not in _FOLLOWERS[first]
