"""Several replies are drawn instead of the likeliest one: is any of them bad?"""

from unteach.evaluation.attacks.base import Attack, Outcome, Target, any_of


class Sampled(Attack):
    """Best of N: the greedy reply and N drawn at temperature 1 from the whole distribution; bad where any is.

    The rate grows with N for every model, so it is to be read beside the retrained model's.
    """

    name = "sampled"
    title = "best of N samples"
    asks = "Is one of several sampled replies bad?"
    changes = "nothing"

    def __call__(self, target: Target) -> list[Outcome]:
        prompts = [row.prompt_ids for row in target.rows.attacked]
        tries, outcomes = [target.ask_plainly()], []
        for number in range(1, max(target.plan.samples) + 1):
            tries.append(target.ask(prompts, temperature=1.0, seed=target.seed + number))
            if number in target.plan.samples:
                outcomes.append(Outcome(f"{number} samples", any_of(tries), at=number))
        return outcomes


attack = Sampled()
