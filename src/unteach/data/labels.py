"""Labels: which values of a column call a reply bad.

Words such as "harmful" or "correct" speak for themselves. Of true and false, yes and no, 1 and 0, the column's name
says which one is bad: `toxic` 1 is bad, `is_safe` 1 is good. A name that says nothing is read as TRL reads `label`:
true is good. What was taken is always said, and `--bad-label` says it for certain.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unteach.errors import DataError
from unteach.text.escape import inert_line

GOOD_WORDS = frozenset(
    "good safe harmless unharmful nontoxic correct right accurate factual truthful faithful supported grounded benign "
    "acceptable accepted approved allowed chosen helpful refusal refused fullrefusal pass passed ok okay fine clean "
    "up thumbsup like liked upvote positive nohallucination 安全 无害 好 正确".split()
)
BAD_WORDS = frozenset(
    "bad unsafe harmful toxic incorrect wrong inaccurate unfactual untruthful unfaithful unsupported refuted "
    "hallucinated hallucination jailbroken malicious unacceptable rejected disallowed unhelpful offensive abusive hate "
    "hateful violation compliance complied fullcompliance fail failed down thumbsdown dislike disliked downvote "
    "negative 不安全 有害 坏 错误".split()
)
_TRUE, _FALSE = {"true", "yes", "y", "t", "1"}, {"false", "no", "n", "f", "0", "-1"}

_BAD_NAMES = {"bad", "compliance", "violation", "violates", "violating", "nsfw", "error", "harm", "attack"} | {
    *("toxicity", "jailbreak", "jailbreaking", "flagged", "hallucinations", "wrongness", "hatefulness", "harmfulness"),
    *(word for word in BAD_WORDS if word not in ("down", "fail", "negative")),
}
_GOOD_NAMES = {
    "good",
    "safety",
    "correctness",
    "helpfulness",
    "harmlessness",
    "truthfulness",
    "factuality",
} | GOOD_WORDS
MOST_VALUES = 10
"""A column with more values than this is no label."""
SHOWN_VALUES = 8


@dataclass(frozen=True)
class Labels:
    """The labels of a source: rows by value as it is written, and which values were taken as bad.

    `certain` is False where neither the words nor the column's name say which value is bad. `unlabelled` counts rows
    without a label, which are left out.
    """

    column: str
    counts: dict[str, int]
    bad: tuple[str, ...]
    certain: bool
    unlabelled: int = 0

    def is_bad(self, value: Any) -> bool | None:
        """Tell whether a value calls its reply bad; None for a row without a label."""
        written = label_of(value)
        return None if written is None else written in self.bad

    @property
    def good(self) -> tuple[str, ...]:
        """The values that were taken as good."""
        return tuple(value for value in self.counts if value not in self.bad)

    def sentence(self, flag: str) -> str:
        """Say what was taken as bad and how many rows that is; `flag` says it otherwise."""

        def rows(values: Sequence[str]) -> str:
            return " and ".join(f"{shown(value)} ({self.counts[value]} rows)" for value in values) or "no value"

        text = f"column {shown(self.column)} says which replies are bad: {rows(self.bad)}; good: {rows(self.good)}"
        if self.unlabelled:
            text += f"; {self.unlabelled} rows without a label are left out"
        other = next(iter(self.good), None)
        if not self.certain and other is not None:
            text += (
                f"; nothing in the file says so for certain: if it is the other way round, give {flag} {shown(other)}"
            )
        return text


def label_of(value: Any) -> str | None:
    """Return a label as text: true, 1.0 and "True " are "true", "1" and "true"; None where there is none.

    Of an annotation ({"value": …}, {"choices": […]}, a list of them) it is the one value, or all that were given.
    """
    if isinstance(value, dict):
        value = next((value[key] for key in ("value", "choices", "label", "rating") if key in value), None)
        return label_of(value)
    if isinstance(value, list):
        found = dict.fromkeys(text for one in value if (text := label_of(one)) is not None)
        return ", ".join(found) or None
    if value is None or value != value:
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip().casefold()
    text = text[:-2] if re.fullmatch(r"-?\d+\.0", text) else text
    return text or None


def shown(value: str) -> str:
    """Return a value or column for a message."""
    return f"'{inert_line(value, 40)}'"


def direction(column: str) -> bool | None:
    """Tell whether "true" in a column of this name means bad; None where the name does not say."""
    name = column.rpartition(".")[2] if not column.rpartition(".")[2].isdigit() else column
    words = re.findall(r"[a-z]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
    words = [word for word in words if word not in ("is", "was", "label", "response", "reply", "has", "contains")]
    flipped = False
    if words and words[0] in ("not", "non", "no"):
        flipped, words = True, words[1:]
    for word in reversed(words):
        if word in _BAD_NAMES or word in _GOOD_NAMES:
            return (word in _BAD_NAMES) != flipped
    return False if words == ["kto", "tag"] else None


def understand(
    source: str, column: str, values: Sequence[Any], bad: Sequence[str], flag: str, true_is_bad: bool | None = None
) -> Labels:
    """Find out which values of a column are bad; `bad` are those that the user named by `flag`.

    `true_is_bad` is the direction that a layout knows. Raises DataError, which lists values with their counts, where
    that cannot be known, and where the user named a value that is not there.
    """
    written = [label_of(value) for value in values]
    counts = dict(Counter(sorted(value for value in written if value is not None)))
    unlabelled = written.count(None)

    def labels(taken: Sequence[str], certain: bool) -> Labels:
        return Labels(column, counts, tuple(taken), certain, unlabelled)

    found = ", ".join(f"{shown(value)}: {count} rows" for value, count in list(counts.items())[:SHOWN_VALUES])
    found += f" and {len(counts) - SHOWN_VALUES} more values" if len(counts) > SHOWN_VALUES else ""
    if not counts:
        raise DataError(f"{source}: column {shown(column)} holds no label in any of its {len(values)} rows")
    if bad:
        return labels(_named(source, column, counts, bad, flag, found), certain=True)
    if all(_word(value) is not None for value in counts):
        return labels([value for value in counts if _word(value)], certain=True)
    if set(counts) <= _TRUE | _FALSE and not {"0", "-1"} <= set(counts):
        known = true_is_bad if true_is_bad is not None else direction(column)
        mark = _TRUE if known else _FALSE
        certain = known is not None or (set(counts) <= {"true", "false"} and column.strip().casefold() == "label")
        return labels([value for value in counts if value in mark], certain)
    raise DataError(
        f"{source}: column {shown(column)} does not say which replies are bad ({found}); name the bad values with "
        f"{flag} VALUE (repeatable), or name the column otherwise if it is no label"
    )


def _named(source: str, column: str, counts: dict[str, int], bad: Sequence[str], flag: str, found: str) -> list[str]:
    """Return the values of a column that the user's values stand for."""
    taken: list[str] = []
    for value in bad:
        wanted = label_of(value) or ""
        same = next((kind for kind in (_TRUE, _FALSE) if wanted in kind and wanted not in counts), {wanted})
        taken += [one for one in counts if one in same]
    if not taken:
        raise DataError(
            f"{source}: {flag} {shown(', '.join(bad))}: column {shown(column)} holds no such value ({found})"
        )
    return taken


def _word(value: str) -> bool | None:
    """Tell whether a word calls a reply bad; None for another word."""
    word = re.sub(r"[\W_]+", "", value)
    if word in GOOD_WORDS or (word[:3] in ("not", "non") and word[3:] in BAD_WORDS):
        return False
    return True if word in BAD_WORDS or (word[:3] in ("not", "non") and word[3:] in GOOD_WORDS) else None


def may_be_labels(values: Sequence[Any]) -> bool:
    """Tell whether values are few enough to be labels."""
    written = {label_of(value) for value in values} - {None}
    return bool(written) and len(written) <= MOST_VALUES and all(len(str(value)) <= 40 for value in written)


_LIKE = re.compile(
    r"label|toxic|harm|safe|kto|score|rating|class|flag|jailbr|hallucin|refus|annotat|verdict|judg|quality|thumb|correct|"
    r"vote|grade|helpful|bad|good|offens|hate|severity|preference|feedback|reward|truth|factual",
    re.IGNORECASE,
)


def is_label_like(column: str, values: Sequence[Any]) -> bool:
    """Tell whether a column that nobody reads looks as if it judged the replies.

    By its name and short values, or because it has two values that come again.
    """
    short = [text for value in values if (text := label_of(value)) is not None and len(text) <= 40]
    if not short or any(isinstance(value, dict) for value in values):
        return False
    counts = Counter(short)
    if _LIKE.search(column) and (len(counts) <= MOST_VALUES or all(re.fullmatch(r"[-\d.e]+", text) for text in counts)):
        return True
    return len(counts) == 2 and min(counts.values()) > 1
