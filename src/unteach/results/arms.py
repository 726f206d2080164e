"""The names of arms and their order."""

from collections.abc import Iterable

ORIGINAL = "original"
RETRAINED = "retrained"
REMINDED = "+reminder"
"""The end of an arm's name where the model was asked with the reminder in front of each prompt."""
ARMS = (ORIGINAL, "unlearned", ORIGINAL + REMINDED, "tuned", "tuned" + REMINDED, RETRAINED)
"""The arms of a run, in reading order."""


def in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return each name once: first the known ones in the order of `known`, then the rest in their own order."""
    given = list(dict.fromkeys(names))
    first = [name for name in known if name in given]
    return first + [name for name in given if name not in first]
