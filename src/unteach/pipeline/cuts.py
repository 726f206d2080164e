"""What a budget may cut of a run, in which order, and how far; docs/budget.md gives the reasons."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from unteach.objectives.methods import load_method
from unteach.pipeline.config import RunConfig
from unteach.pipeline.prepare import Prepared

FEW_PROMPTS, FEWEST_PROMPTS = 50, 16
"""Prompts of a split to which the evaluation is cut first, and at last."""
VALIDATIONS, VALIDATED = 3, 64
"""Validations that a plan leaves, and their prompts: two in a row decide, and 32 in each half can show the target."""
FEWEST_ANSWERS, FEWEST_ROWS, FEWEST_STEPS = 64, 64, 20
"""Half of so few steps are warm-up."""

Settings = dict[str, int]


@dataclass(frozen=True)
class Cut:
    """A setting that may go from a value `before` to `least`, which takes less."""

    name: str
    before: int
    least: int


def cuts_of(config: RunConfig, given: set[str], prepared: Prepared, asked: int) -> list[Cut]:
    """Return what may be cut, in this order, without what the user gave or what the run does not do.

    `asked` is the largest number of shipped prompts of a kind that the model would answer.
    """
    method, data = load_method(config.method), prepared.data
    steps, prompts = config.max_steps or prepared.arguments.max_steps, config.evaluation_prompts
    rows = max(len({row.example.key for row in rows}) for rows in (data.negatives, data.normals))
    wanted = [
        Cut("evaluation_prompts", prompts, FEW_PROMPTS),
        Cut("validation_steps", config.validation_steps, math.ceil(steps / VALIDATIONS)),
        Cut("validation_prompts", config.validation_prompts, VALIDATED),
        Cut("own_answers", asked, FEWEST_ANSWERS),
        Cut("evaluation_prompts", min(prompts, FEW_PROMPTS), FEWEST_PROMPTS),
        Cut("training_rows", rows, FEWEST_ROWS),
        Cut("max_steps", steps, FEWEST_STEPS),
    ]
    undone = {"max_steps"} if method.direction == "alone" else set()
    if not method.draws_by_likelihood and not method.direction:
        undone.add("training_rows")  # only rows that are drawn are read
    shipped = bool(config.harmful_share or config.lookalike_share) and method.reads_bad_replies
    if config.retain and not shipped:
        undone.add("own_answers")
    if not config.stopping:
        undone |= {"validation_steps", "validation_prompts"}
    if config.skip_evaluation:
        undone.add("evaluation_prompts")

    def cheaper(cut: Cut) -> bool:
        return cut.least > cut.before if cut.name == "validation_steps" else cut.least < cut.before

    return [cut for cut in wanted if cut.name not in given | undone and cheaper(cut)]


def settings_at(cuts: Sequence[Cut], place: int, value: int | None = None) -> Settings:
    """Return the settings with all cuts before `place` made, and that one at a value between; None leaves it out.

    Fewer steps are validated as often.
    """
    chosen = {cut.name: cut.least for cut in cuts[:place]}
    if value is not None:
        chosen[cuts[place].name] = value
    if "max_steps" in chosen and "validation_steps" in chosen:
        chosen["validation_steps"] = math.ceil(chosen["max_steps"] / VALIDATIONS)
    return chosen
