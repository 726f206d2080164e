"""Which places of a row of prompt trees may attend to which: one rule, for dense masks and for flex attention."""

from collections.abc import Callable

from torch import Tensor

PROMPT, PADDING, SHARED = 0, -1, -2
"""Numbers that stand for a part or a tree (see `TreeBatch`)."""

Rule = Callable[[Tensor, Tensor | None, Tensor, Tensor], Tensor]
"""Of indices of a row, a head, a query and a key: whether that query may attend to that key; for all heads alike."""


def tree_rule(members: Tensor, segments: Tensor) -> Rule:
    """Return the rule of the trees that `TreeBatch` lays out with these `members` and `segments`.

    A place sees itself, and before it the prompt and the branch that it belongs to. Padding sees itself too, so that no
    row of the softmax is empty.
    """

    def rule(row: Tensor, head: Tensor | None, query: Tensor, key: Tensor) -> Tensor:
        own, part, member = segments[row, query], segments[row, key], members[row, key]
        together = (member == members[row, query]) | (member == SHARED)
        visible = together & ((part == PROMPT) | (part == own)) & (own != PADDING)
        return ((query >= key) & visible) | (query == key)

    return rule
