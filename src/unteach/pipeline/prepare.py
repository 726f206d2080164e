"""Prepare a run: everything that is known before training, and everything that can be wrong before it."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.errors import ConfigError
from unteach.evaluation.evaluation import Evaluation
from unteach.evaluation.general_ability import GeneralAbility, load_tasks
from unteach.judges import load_judges
from unteach.judges.base import Judge, JudgeSettings, LearningJudge
from unteach.objectives.methods import load_method
from unteach.pipeline.config import RunConfig, trainer_arguments
from unteach.pipeline.original import Original, load_original
from unteach.pipeline.preflight import check_comparable, check_settings
from unteach.pipeline.rows import (
    Sets,
    add_lookalikes,
    add_own_answers,
    encode_non_members,
    encode_splits,
    read_sets,
)
from unteach.results.cost import Meter
from unteach.results.report import Cost, Source
from unteach.scenarios import load_scenario
from unteach.training.config import UnlearnConfig, checked_method, default_learning_rate
from unteach.training.data import TrainingData, longest_row, training_data
from unteach.training.items import negative_shares, run_items


@dataclass(frozen=True)
class Prepared:
    """What `unteach run` has before it trains.

    `config` is settled: it holds the learning rate, the longest row and the judges that decide. `evaluation` holds the
    rows to evaluate on, encoded. `cost` is what preparing took.
    """

    config: RunConfig
    original: Original
    arguments: UnlearnConfig
    data: TrainingData
    evaluation: Evaluation
    sources: Sequence[Source]
    cost: Sequence[Cost]
    notes: Sequence[str]


def prepare(config: RunConfig, directory: Path) -> Prepared:
    """Read the rows, load the model and encode both for training and evaluation. Nothing is written to `directory`.

    Raises UnteachError for whatever is wrong with settings, rows or models.
    """
    judges = judges_of(config)
    arguments = trainer_arguments(config, directory / "checkpoints")
    check_settings(config)
    ability = load_tasks(config.lm_eval, config.lm_eval_items)
    sets = read_sets(config)
    original = load_original(config, trained=True)
    longest = longest_row(config.max_length, original.model)
    if config.retrained:
        check_comparable(config, config.retrained, original.tokenizer)
    complete_rows(sets, original, config)
    if arguments.learning_rate is None:
        arguments = copy(arguments)
        arguments.learning_rate = default_learning_rate(original.model, lora=config.lora)
    data = _training_data(arguments, original, sets, longest)
    data, reading = _with_shares(data, arguments, original, longest)
    config = config.model_copy(update={"learning_rate": arguments.learning_rate, "max_length": longest})
    splits: dict[str, list[Encoded]] = {}
    if not config.skip_evaluation:
        splits = _evaluation_rows(config, arguments, data, sets, original, longest)
    trusted = trusted_judges(judges, sets.uncut["negatives"], sets.uncut.get("normals", []), sets.notes)
    config = with_judges(config, judges, trusted)
    evaluation = new_evaluation(config, splits, original, trusted, ability)
    evaluation.non_members = encode_non_members(sets.non_members, original.form, config, longest, sets.notes)
    cost = [*sets.cost, *reading]
    return Prepared(config, original, arguments, data, evaluation, sets.sources, cost, [*sets.notes, *data.notes])


def complete_rows(sets: Sets, original: Original, config: RunConfig) -> None:
    """Make normal rows and look-alikes from the model's own answers, where none were given."""
    if not sets.normals:
        add_own_answers(sets, original, config)
    if config.scenario == "harm" and not sets.evaluation["lookalike"] and not config.skip_evaluation:
        add_lookalikes(sets, original, config)


def _training_data(arguments: UnlearnConfig, original: Original, sets: Sets, longest: int) -> TrainingData:
    return training_data(
        sets.negatives["train"],
        sets.normals["train"],
        sets.negatives["validation"],
        sets.normals["validation"],
        form=original.form,
        max_length=longest,
        hold_out=arguments.validation_prompts if arguments.stopping else 0,
        seed=arguments.seed,
        key=original.key,
    )


def _with_shares(
    data: TrainingData, arguments: UnlearnConfig, original: Original, longest: int
) -> tuple[TrainingData, list[Cost]]:
    """Ask the original how likely it says each negative, where the method draws them by that; and what it cost."""
    method = checked_method(arguments, adapter=True)
    if not method.draws_by_likelihood:
        return data, []
    meter = Meter()
    items = run_items(method, data, arguments, longest)
    shares, read = negative_shares(original.model, items, original.form.ids.pad_id)
    return replace(data, shares=shares), [meter.cost(original.model, "unlearned", "reading the negatives", read)]


def _evaluation_rows(
    config: RunConfig, arguments: UnlearnConfig, data: TrainingData, sets: Sets, original: Original, longest: int
) -> dict[str, list[Encoded]]:
    """Encode the rows of every split; `seen` are the negatives in the order in which training meets them."""
    if not sets.evaluation["unseen"]:
        sets.notes.append("too few negatives to hold some out: nothing was measured on unseen ones; see --unseen")
    seen = sets.evaluation.get("seen")
    if not seen:
        items = run_items(checked_method(arguments, adapter=True), data, arguments, longest)
        most = min(len(items), 4 * config.evaluation_prompts)
        seen = [data.negatives[n].example for n in dict.fromkeys(items.negative_index(index) for index in range(most))]
    return encode_splits({"seen": seen} | sets.evaluation, original.form, config, longest, sets.notes)


# ---- judges ----------------------------------------------------------------------------------------------------------


def judges_of(config: RunConfig) -> list[Judge]:
    """Make the judges of a run; the first decides."""
    return load_judges(config.judge, JudgeSettings(config.scenario, config.judge_url, config.seed))


def trusted_judges(
    judges: list[Judge], negatives: list[Example], normals: list[Example], notes: list[str], judged: bool = False
) -> list[Judge]:
    """Let judges that learn see these rows; return those that can be trusted.

    They are the training rows, or, with `judged`, the very rows that will be judged, from which a judge with
    `own_rows` may not learn. Raises ConfigError where the first judge, which decides, cannot be trusted; another that
    cannot is left out with a note.
    """
    trusted = []
    for judge in judges:
        try:
            if isinstance(judge, LearningJudge):
                if judged and judge.own_rows:
                    raise ConfigError(
                        f"--judge {judge.name}: it learns from the training rows of `unteach run`, and here all rows "
                        "are judged; choose another judge"
                    )
                judge.learn(negatives, normals)
            trusted.append(judge)
        except ConfigError as error:
            if judge is judges[0]:
                raise
            notes.append(f"no second opinion: {error}")
    return trusted


def with_judges(config: RunConfig, judges: Sequence[Judge], trusted: Sequence[Judge]) -> RunConfig:
    """Return the config without the judges that cannot be trusted."""
    kept = [spec for spec, judge in zip(config.judge, judges, strict=True) if judge in trusted]
    return config.model_copy(update={"judge": kept})


def new_evaluation(
    config: RunConfig,
    splits: dict[str, list[Encoded]],
    original: Original,
    judges: Sequence[Judge],
    ability: GeneralAbility | None = None,
) -> Evaluation:
    """Say how the arms of a run are evaluated."""
    template = config.template if config.method and load_method(config.method).reads("template") else None
    return Evaluation(
        splits,
        original.form,
        judges,
        config.max_new_tokens,
        config.scenario,
        config.samples,
        config.seed,
        template=template,
        ability=ability,
    )


def method_note(config: RunConfig, asked: RunConfig) -> list[str]:
    """Say so where an answer of the user's own, and not the scenario, has chosen the method."""
    if asked.method or config.method == load_scenario(config.scenario).defaults["method"]:
        return []
    return [f"--template asks for a method that teaches it: {config.method} was chosen"]
