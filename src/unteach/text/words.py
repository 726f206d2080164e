"""How much of one text's word sequence comes again in another."""

import re

from rapidfuzz.distance import LCSseq


def words(text: str) -> list[str]:
    """Return the words of a text: case folded, split at white space."""
    return text.casefold().split()


def first_words(text: str, count: int) -> str:
    """Return a text up to the end of its word number `count`; all of it where it has no more words."""
    ends = [found.end() for found in re.finditer(r"\S+", text)]
    return text if len(ends) <= count else text[: ends[count - 1]] if count else ""


def loosened(text: str) -> str:
    """Return a text case folded, with single spaces between its words."""
    return " ".join(words(text))


def common_words(first: str, second: str) -> int:
    """Return the length, in words, of the longest common subsequence of two texts."""
    return int(LCSseq.similarity(words(first), words(second)))


def repeats(reply: str, known: str) -> bool:
    """Tell whether at least half of the known text's words come again, in order, in the reply.

    A known text without words is repeated by a reply without words only.
    """
    length = len(words(known))
    if not length:
        return not words(reply)
    return 2 * common_words(reply, known) >= length


def common_substring(first: str, second: str) -> int:
    """Return the length, in characters, of the longest run that stands in both texts."""
    longest = 0
    for start in range(len(first)):
        while start + longest < len(first) and first[start : start + longest + 1] in second:
            longest += 1
    return longest
