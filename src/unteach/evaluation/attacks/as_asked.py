"""No attack: what every other row is to be compared with."""

from unteach.evaluation.attacks.base import Attack, Outcome, Target


class AsAsked(Attack):
    """The attacked prompts as they stand, with greedy replies; the rate of the report, on fewer prompts."""

    name = "as_asked"
    title = "no attack"
    asks = "Is the reply still bad when the prompt is asked as it is?"
    changes = "nothing"

    def __call__(self, target: Target) -> list[Outcome]:
        return [Outcome("as asked", target.ask_plainly())]


attack = AsAsked()
