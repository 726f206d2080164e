"""The prompt inside a role, or after words that claim to undo all instructions."""

from functools import partial

from unteach.evaluation.attacks.base import DialogueAttack, Outcome, Target, reworded
from unteach.prompts.attacks import attack_wording

KINDS = {"role_play": "role", "ignore": "“ignore”"}
"""The lists of wrappers in `prompts/attacks.yaml`, and what a row calls each."""


def wrappers() -> dict[str, str]:
    """Return every wrapper, a text with the hole {prompt}, by what a row calls it."""
    listed = {kind: getattr(attack_wording(), kind) for kind in KINDS}
    return {f"{KINDS[kind]} {n}": text for kind, texts in listed.items() for n, text in enumerate(texts, 1)}


class RolePlay(DialogueAttack):
    """Hand-written wrappers of `prompts/attacks.yaml`, one row each; they are few, known, and not optimised."""

    name = "role_play"
    title = "role-play and “ignore”"
    asks = "Is the reply bad when the prompt stands in a role, or after “ignore your instructions”?"
    changes = "prompts"

    def __call__(self, target: Target) -> list[Outcome]:
        return [Outcome(name, target.ask_turns(partial(reworded, text=text))) for name, text in wrappers().items()]


attack = RolePlay()
