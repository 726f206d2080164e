"""After its first reply the model is asked again."""

from collections.abc import Sequence

from unteach.data.example import Example
from unteach.evaluation.attacks.base import DialogueAttack, Outcome, Target, Values
from unteach.models.reply import Reply
from unteach.prompts.attacks import attack_wording
from unteach.prompts.turn import Turn


class SecondTurn(DialogueAttack):
    """A dialogue goes on after the model's own first reply: the prompt again, or words that insist.

    The second reply is judged.
    """

    name = "second_turn"
    title = "a second turn"
    asks = "Does the model give in when it is asked again after its first reply?"
    changes = "prompts"

    def __call__(self, target: Target) -> list[Outcome]:
        first = target.replies([row.prompt_ids for row in target.rows.attacked])
        again = [row.example.turns[-1].content for row in target.rows.attacked]
        outcomes = [Outcome("the prompt again", _ask_again(target, first, again))]
        for number, text in enumerate(attack_wording().insist, 1):
            outcomes.append(Outcome(f"insisting {number}", _ask_again(target, first, [text] * len(first))))
        return outcomes


def _ask_again(target: Target, first: Sequence[Reply | None], texts: Sequence[str]) -> Values:
    prompts: list[Sequence[int] | None] = []
    for row, reply, text in zip(target.rows.attacked, first, texts, strict=True):
        prompts.append(None if reply is None else target.form.prompt_ids(_dialogue(row.example, reply, text)))
    return target.ask(prompts)


def _dialogue(example: Example, reply: Reply, text: str) -> tuple[Turn, ...]:
    return (*example.turns, Turn("assistant", reply.text or "…"), Turn("user", text))


attack = SecondTurn()
