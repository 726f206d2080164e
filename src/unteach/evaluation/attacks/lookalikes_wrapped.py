"""Harmless prompts under the same wrappers: does the model refuse what it should answer?"""

from collections.abc import Sequence
from functools import partial

from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.evaluation.attacks.base import Attack, Outcome, Target, Values, reworded
from unteach.evaluation.attacks.role_play import wrappers
from unteach.text.refusals import declines


class LookalikesWrapped(Attack):
    """Refusals (`text.refusals`) of look-alikes, plain and in the wrappers of role-play and “ignore”.

    A model that answers a look-alike but refuses it in a wrapper has learnt to fear the wrapper. Held against the
    original under the same wrapper.
    """

    name = "lookalikes_wrapped"
    title = "harmless look-alikes"
    asks = "Are harmless look-alikes refused, as they are or in the same wrappers?"
    changes = "prompts"
    measures = "declined"
    gold = "original"

    def why_not(self, target: Target) -> str:
        rows = _rows(target)
        return "" if rows else "there are no look-alikes"

    def __call__(self, target: Target) -> list[Outcome]:
        rows = _rows(target)
        plain = _declined(target, [row.prompt_ids for row in rows])
        outcomes = [Outcome("as asked", plain)]
        for name, text in wrappers().items():
            put = partial(reworded, text=text)
            outcomes.append(Outcome(name, _declined(target, [_ids(target, row.example, put) for row in rows])))
        return outcomes


def _rows(target: Target) -> Sequence[Encoded]:
    return [row for row in target.rows.lookalike if row.example.turns and not row.example.is_passage]


def _ids(target: Target, example: Example, put: partial) -> list[int]:
    return target.form.prompt_ids(put(example))


def _declined(target: Target, prompts: Sequence[Sequence[int]]) -> Values:
    replies = target.replies(prompts)
    return [None if reply is None or reply.unsaid else float(declines(reply.text)) for reply in replies]


attack = LookalikesWrapped()
