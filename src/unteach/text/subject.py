"""What a text speaks of: its words of content."""

from functools import cache

import regex

from unteach.text.refusals import shipped
from unteach.text.words import LETTER, SPACED, folded, runs, words

_ASKING = """answer assist best explain first give help know like make need people please question reply request say
show tell thing things want way write
怎样 怎么 如何 什么 为什 请问 可以 能否 哪些 怎樣 怎麼 什麼 為什 請問
这个 那个 一个 我们 你们 可能 這個 那個 一個 我們 你們
어떻 무엇 있는 있습 하는 합니""".split()
# scikit-learn's list holds a few words that do say something.
_CONTENT = set("amount bill bottom cry describe fill fire interest mill sincere system thick thin top".split())
STEM = 5
"""Letters of a word that are compared where endings do not matter."""


def content_words(text: str) -> set[str]:
    """Return the words of content of a text, case folded.

    They have at least three letters (or are two Han characters in a row, and the like) and do not only ask, refuse or
    join.
    """
    return _pieces(text) - _says_nothing()


def shares_subject(first: str, second: str) -> bool:
    """Tell whether two texts share a word of content, whatever its ending."""
    return bool({word[:STEM] for word in content_words(first)} & {word[:STEM] for word in content_words(second)})


@cache
def _says_nothing() -> set[str]:
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS  # half a second, with what it brings

    refusing = _pieces(
        "\n".join(text for listed in shipped().values() for text in (*listed.openings, *listed.bare, *listed.tails))
    )
    return (ENGLISH_STOP_WORDS - _CONTENT) | refusing | set(_ASKING)


def _pieces(text: str) -> set[str]:
    """Return words of three letters or more, runs of letters as long as two words, and beginnings of Korean words."""
    plain = folded(text)
    found = {
        *regex.findall(rf"{SPACED}{{3,}}", plain, flags=regex.V1),
        *regex.findall(r"(?<!\p{Hangul})\p{Hangul}{2}", plain),
    }
    stretches = regex.findall(rf"(?:{LETTER})+", plain, flags=regex.V1)
    return found | {"".join(run) for stretch in stretches for run in runs(words(stretch), 2)}
