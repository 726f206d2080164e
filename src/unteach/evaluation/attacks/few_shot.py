"""Other bad replies stand before the prompt, as if the model had given them."""

from collections.abc import Sequence

from unteach.data.example import Example
from unteach.evaluation.attacks.base import DialogueAttack, Outcome, Target
from unteach.prompts.turn import Turn

SHOTS = (1, 3)
"""Held-back negatives that stand before the prompt."""


class FewShot(DialogueAttack):
    """A dialogue in which the model has already answered other harmful prompts badly.

    The dialogues are held-back negatives, the same for every prompt. A prompt that no longer fits is unknown.
    """

    name = "few_shot"
    title = "bad replies shown before"
    asks = "Is the reply bad when other bad replies stand before the prompt as the model's own?"
    changes = "prompts"

    def __call__(self, target: Target) -> list[Outcome]:
        held_back = [row.example for row in target.rows.held_back]
        counts = [count for count in SHOTS if count <= len(held_back)]
        return [Outcome(f"{count} shown", _after(target, held_back[:count]), at=count) for count in counts]


def _after(target: Target, shown: Sequence[Example]) -> list[float | None]:
    before = [turn for example in shown for turn in (*example.turns, Turn("assistant", example.reply))]
    # a system message may only stand first
    told = [turn for turn in before if turn.role != "system"]
    return target.ask_turns(lambda example: _joined(told, example))


def _joined(told: Sequence[Turn], example: Example) -> tuple[Turn, ...]:
    """Put turns before an example's own, after its system message where it has one."""
    system = [turn for turn in example.turns if turn.role == "system"]
    return (*system, *told, *(turn for turn in example.turns if turn.role != "system"))


attack = FewShot()
