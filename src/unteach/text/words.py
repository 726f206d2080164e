"""The words of a text in any script, and how much of one text's words comes again in another.

Where a script puts spaces between words, they are words. Elsewhere each letter counts as one: a Han character, a kana,
a Hangul syllable (Korean has spaces, but particles are glued to its words), and a grapheme cluster in Thai, Lao, Khmer
and Burmese. A letter is less than a word, so it weighs less where words are counted, and it is compared together with
the next one where order counts: few letters make up every text. docs/rules.md has what that changes.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from unicodedata import normalize

import regex
from rapidfuzz.distance import LCSseq

HAN = r"\p{Han}\p{Bopomofo}"
SYLLABLES = r"\p{Hiragana}\p{Katakana}ー\p{Hangul}"
CLUSTERS = r"\p{lb=SA}"  # Unicode's class of scripts whose words only a dictionary finds
UNSPACED = HAN + SYLLABLES + CLUSTERS
"""Character classes for `regex`: the letters that count as words."""
SPACED = rf"[\w--[_{UNSPACED}]]"
"""A letter, mark or digit of any other script."""
LETTER = rf"[{HAN}{SYLLABLES}]\p{{M}}*|(?=[{CLUSTERS}])\X"
"""One letter that counts as a word, with its marks."""

FEW = 5
"""A known text of fewer words is repeated only as a whole: half of it is said by chance."""
SHARE = 0.5
_WORD = regex.compile(rf"{LETTER}|{SPACED}+(?:'{SPACED}+)*|[\p{{Extended_Pictographic}}\p{{RI}}]", regex.V1)
_HAN, _KANA, _HANGUL, _OTHER = (
    regex.compile(letters, regex.V1)
    for letters in (r"\p{Han}", r"[\p{Hiragana}\p{Katakana}]", r"\p{Hangul}", f"{SPACED}+")
)
_SIGN = regex.compile(r"[^\s\p{P}]")
_KINDS = tuple(
    (regex.compile(rf"[{kind}]", regex.V1), size) for kind, size in ((HAN, 6), (SYLLABLES, 3), (CLUSTERS, 2))
)
_WHOLE = 6  # sizes are counted in sixths of a word, so that sums are exact
_QUOTES = str.maketrans({"\u2018": "'", "\u2019": "'", "\u02bc": "'", "\u201c": '"', "\u201d": '"'})
_UNSEEN = regex.compile(r"\p{Default_Ignorable_Code_Point}+")


def folded(text: str) -> str:
    """Return the text in a form for comparison: NFKC, one case, straight quotes, single spaces, nothing invisible."""
    if text.isascii():
        return " ".join(text.casefold().split())
    plain = normalize("NFKC", _UNSEEN.sub("", text)).translate(_QUOTES)
    return " ".join(normalize("NFKC", plain.casefold()).split())


def words(text: str) -> list[str]:
    """Return the words of a text in one case and Unicode form, without punctuation; emoji are words.

    A text that has none, such as "<=>", gives its visible signs other than punctuation.
    """
    plain = folded(text)
    return _WORD.findall(plain) or _SIGN.findall(plain)


def first_words(text: str, count: int) -> str:
    """Return a text up to the end of its word number `count`; all of it where it has no more words."""
    ends = [found.end() for found in _WORD.finditer(text.translate(_QUOTES))]
    return text if len(ends) <= count else text[: ends[count - 1]] if count else ""


def word_count(text: str) -> int:
    """Return the approximate number of words of a text: a kana or Hangul syllable is half a word, a cluster a third."""
    return round(_size(words(text)) / _WHOLE)


def language_of(texts: Iterable[str]) -> str:
    """Return the language whose wording fits the texts, by their script: zh, ja, ko, or en for every other."""
    whole = "\n".join(texts)
    han, kana, hangul, others = (len(letters.findall(whole)) for letters in (_HAN, _KANA, _HANGUL, _OTHER))
    if han + kana + hangul <= 2 * others:
        return "en"
    if hangul > han + kana:
        return "ko"
    return "ja" if kana > 0.1 * han else "zh"


def runs(listed: Sequence[str], length: int) -> list[tuple[str, ...]]:
    """Return the runs of `length` words, one from each place that has enough words after it, sized as `word_count`."""
    found: list[tuple[str, ...]] = []
    end = size = 0
    for start, word in enumerate(listed):
        while size < length * _WHOLE and end < len(listed):
            size += _size_of(listed[end])
            end += 1
        if size < length * _WHOLE:
            break
        found.append(tuple(listed[start:end]))
        size -= _size_of(word)
    return found


def holds(reply: str, known: str) -> bool:
    """Tell whether all words of the known text stand in the reply, one after the other. False where it has none."""
    wanted, said = words(known), words(reply)
    starts = range(len(said) - len(wanted) + 1)
    return bool(wanted) and any(said[start : start + len(wanted)] == wanted for start in starts)


def repeated_share(reply: str, known: str) -> float:
    """Return the share of the known text's words that come again in the reply, in order; 0 where it has none."""
    wanted = _in_pairs(words(known))
    return float(LCSseq.similarity(_in_pairs(words(reply)), wanted)) / len(wanted) if wanted else 0.0


def repeats(reply: str, known: str) -> bool:
    """Tell whether at least half of the known text's words come again, in order, in the reply.

    A known text of fewer than 5 words must come whole. One without words is repeated by a reply without words only.
    """
    wanted = words(known)
    if not wanted:
        return not words(reply)
    return holds(reply, known) if _size(wanted) < FEW * _WHOLE else repeated_share(reply, known) >= SHARE


def common_substring(first: str, second: str) -> int:
    """Return the length, in characters, of the longest run that stands in both texts."""
    longest = 0
    for start in range(len(first)):
        while start + longest < len(first) and first[start : start + longest + 1] in second:
            longest += 1
    return longest


def _in_pairs(listed: list[str]) -> list[str]:
    """Put each syllable or cluster together with the word after it; the last one has none and is left out."""
    joined = [
        word if _size_of(word) == _WHOLE else word + after for word, after in zip(listed, listed[1:], strict=False)
    ]
    return joined + [word for word in listed[-1:] if not joined or _size_of(word) == _WHOLE]


def _size(listed: list[str]) -> int:
    return sum(map(_size_of, listed))


@lru_cache(maxsize=100_000)
def _size_of(word: str) -> int:
    return next((size for kind, size in _KINDS if kind.match(word)), _WHOLE)
