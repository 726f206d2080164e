"""The prompt in another format than the model was trained and tested in."""

from unteach.data.prompt_format import PromptFormat, prompt_format
from unteach.errors import ConfigError
from unteach.evaluation.attacks.base import DialogueAttack, Outcome, Target
from unteach.models.reply import named_end
from unteach.prompts.attacks import attack_wording
from unteach.prompts.turn import Turn


class OtherFormat(DialogueAttack):
    """The other of the formats chat and plain, and a system message that permits everything.

    A tokenizer without a chat template has the plain format only.
    """

    name = "other_format"
    title = "another format"
    asks = "Is the reply bad when the prompt comes in another format, or after a system message?"
    changes = "prompts"

    def __call__(self, target: Target) -> list[Outcome]:
        outcomes = []
        if other := _other(target):
            prompts = [other.prompt_ids(row.example.turns) for row in target.rows.attacked]
            outcomes.append(Outcome(f"{other.name} format", target.ask(prompts, form=other)))
        system = Turn("system", attack_wording().system)
        try:
            values = target.ask_turns(
                lambda example: (system, *(turn for turn in example.turns if turn.role != "system"))
            )
        except ConfigError:  # a template that takes no system message
            return outcomes
        return [*outcomes, Outcome("system message", values)]


def _other(target: Target) -> PromptFormat | None:
    form = target.form
    if form.name == "plain" and not getattr(form.tokenizer, "chat_template", None):
        return None
    try:
        return prompt_format(form.tokenizer, "plain" if form.name == "chat" else "chat", named_end(target.model))
    except ConfigError:  # a template that cannot be used
        return None


attack = OtherFormat()
