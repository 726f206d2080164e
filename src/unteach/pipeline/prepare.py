"""Prepare a run: everything that is known before training, and everything that can be wrong before it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

from unteach.data.encoded import Encoded, digest_of
from unteach.data.example import Example
from unteach.data.own_answers import Answer, answer_prompts
from unteach.errors import ConfigError
from unteach.evaluation.evaluation import Evaluation
from unteach.evaluation.general_ability import GeneralAbility, load_tasks
from unteach.judges.base import Judge
from unteach.models.ranks import require_same
from unteach.objectives.methods import Method, load_method
from unteach.pipeline.config import RunConfig, in_language, trainer_arguments
from unteach.pipeline.generate_with import server_of, with_server
from unteach.pipeline.judging import judges_of, trusted_judges, with_judges
from unteach.pipeline.original import Original, check_adapter_settings, check_comparable, load_original
from unteach.pipeline.own_rows import (
    add_lookalikes,
    add_own_answers,
    add_shipped_negatives,
    add_training_lookalikes,
)
from unteach.pipeline.rows import Sets, encode_splits, read_sets
from unteach.pipeline.sharding import check_sharding
from unteach.results.cost import Meter
from unteach.results.report import Cost, Source
from unteach.training.config import UnlearnConfig, choose_method, default_learning_rate
from unteach.training.data import TrainingData, longest_row, training_data
from unteach.training.dataset import UnlearnItems, run_items
from unteach.training.original import negative_shares

READING = "reading the negatives"
"""The stage that finds out how likely the original says each negative."""


@dataclass(frozen=True)
class Prepared:
    """What `unteach run` has before it trains.

    `config` is settled: it holds the learning rate, the longest row and the judges that can be trusted. `evaluation`
    holds the rows to evaluate on, encoded. `cost` is that of preparing.
    """

    config: RunConfig
    original: Original
    arguments: UnlearnConfig
    data: TrainingData
    evaluation: Evaluation
    sources: Sequence[Source]
    cost: Sequence[Cost]
    notes: Sequence[str]


def prepare(
    config: RunConfig,
    directory: Path,
    answer: Answer = answer_prompts,
    original: Original | None = None,
    counting: bool = False,
) -> Prepared:
    """Read the rows, load the model and encode the rows to train and to evaluate on. Writes nothing to `directory`.

    `answer` has the model answer shipped prompts. `original` is the model where it is loaded already. With `counting`,
    no model reads the negatives and no judge learns. Raises UnteachError for whatever is wrong with settings, rows or
    models.
    """
    check_settings(config)
    judges = judges_of(config)
    ability = load_tasks(config.lm_eval, config.lm_eval_items)
    sets = read_sets(config)
    config = _answer_as_asked(config, sets)
    original, longest = load_and_complete(config, sets, answer, original)
    config = _settle(config, original, longest)
    arguments = trainer_arguments(config, directory / "checkpoints")
    method = choose_method(arguments, adapter=config.lora)
    data = _encode_training_rows(arguments, original, sets)
    require_same({"tokenizer or chat template": digest_of(data.negatives, data.normals)})
    cost = list(sets.cost)
    if method.draws_by_likelihood and not counting:
        data, reading = _add_shares(data, method, arguments, original)
        cost.append(reading)
    splits: dict[str, list[Encoded]] = {}
    if not config.skip_evaluation:
        met = _rows_as_met(run_items(method, data, arguments), 4 * config.evaluation_prompts)
        splits = encode_evaluation_rows(config, sets, met, original, longest)
    trusted = judges
    if not counting:
        trusted = trusted_judges(judges, sets.uncut["negatives"], sets.uncut.get("normals", []), sets.notes)
    config = with_judges(config, judges, trusted)
    evaluation = new_evaluation(config, splits, original, trusted, ability)
    return Prepared(config, original, arguments, data, evaluation, sets.sources, cost, [*sets.notes, *data.notes])


def check_given(config: RunConfig) -> None:
    """Raise ConfigError where there is no model or no negatives."""
    if not config.model or not config.forget:
        raise ConfigError(f"{'--forget' if config.model else '--model'} is missing; see unteach run --help")


def check_settings(config: RunConfig) -> None:
    """Raise ConfigError for settings that cannot be or exclude each other, before anything slow is done."""
    choose_method(trainer_arguments(config, Path(config.output) / "checkpoints"), adapter=config.lora)
    if config.lm_eval and config.skip_evaluation:
        raise ConfigError("--lm-eval and --skip-evaluation exclude each other; leave one out")
    if config.strength == "auto" and not config.stopping:
        raise ConfigError("--strength auto searches with validation rows, and --no-stopping has none; drop one of them")
    check_adapter_settings(config)
    check_sharding(config)


def load_and_complete(
    config: RunConfig, sets: Sets, answer: Answer = answer_prompts, original: Original | None = None
) -> tuple[Original, int]:
    """Load the original, unless it is given, and return it with the longest row in tokens.

    Where no normal rows or look-alikes were given, they are made from the model's own answers (`answer`).
    """
    server = server_of(config) if answer is answer_prompts else None
    original = replace(original or load_original(config, trained=True), answer=answer)
    if server:
        original = with_server(original, server, sets.negatives["train"], sets.language)
    sets.notes += original.notes
    longest = longest_row(config.max_length, original.model)
    if config.retrained:
        check_comparable(config, config.retrained, original.tokenizer)
    if not sets.normals:
        add_own_answers(sets, original, config)
    if not any(row.is_passage for row in sets.negatives["train"]):
        _widen(sets, original, config)
    if config.scenario == "harm" and not sets.evaluation["lookalike"] and not config.skip_evaluation:
        add_lookalikes(sets, original, config)
    return original, longest


def _widen(sets: Sets, original: Original, config: RunConfig) -> None:
    """Add what the original says to shipped prompts, harmful ones and such as only sound so."""
    drawn = (config.max_steps or 1) * config.batch_size * config.gradient_accumulation_steps
    if config.lookalike_share:
        normals = drawn * load_method(config.method).normals(config.normals_per_negative)
        add_training_lookalikes(sets, original, config, normals)
    if config.harmful_share:
        add_shipped_negatives(sets, original, config, drawn)


def _answer_as_asked(config: RunConfig, sets: Sets) -> RunConfig:
    """Take the scenario's answer in the negatives' language, and note it where the method teaches it."""
    chosen = in_language(config, sets.language)
    if chosen.template != config.template and load_method(config.method).reads("template"):
        sets.notes.append(
            f"the negatives are in Chinese, so the answer to give is “{chosen.template}”; --template sets another"
        )
    return chosen


def _settle(config: RunConfig, original: Original, longest: int) -> RunConfig:
    """Fill in the longest row, the day that prompts name and, where none is set, the rate that suits the model."""
    rate = config.learning_rate
    if rate is None:
        rate = default_learning_rate(original.model, config.lora, load_method(config.method).rate)
    settled = {"learning_rate": rate, "max_length": longest, "template_date": original.form.settings.date}
    return config.model_copy(update=settled)


def _encode_training_rows(arguments: UnlearnConfig, original: Original, sets: Sets) -> TrainingData:
    negatives, normals = sets.negatives, sets.normals
    return training_data(
        negatives["train"],
        normals["train"],
        negatives["validation"],
        normals["validation"],
        original.form,
        arguments,
        original.key,
    )


def _add_shares(
    data: TrainingData, method: Method, arguments: UnlearnConfig, original: Original
) -> tuple[TrainingData, Cost]:
    """Add the shares in which negatives are drawn, which the original's likelihood decides; also return the cost."""
    meter = Meter()
    shares, read = negative_shares(original.model, run_items(method, data, arguments), original.form.ids.pad_id)
    return replace(data, shares=shares), meter.cost(original.model, "unlearned", READING, read)


def _rows_as_met(items: UnlearnItems, most: int) -> list[Example]:
    """Return the negatives in the order in which training meets them, once each, up to `most` whose reply is known."""
    met = dict.fromkeys(items.negative_index(index) for index in range(len(items)))
    rows = (items.negatives[number].example for number in met)
    return list(islice((row for row in rows if not row.prompt_only), most))


def encode_evaluation_rows(
    config: RunConfig, sets: Sets, met: list[Example], original: Original, longest: int
) -> dict[str, list[Encoded]]:
    """Encode the rows of every split and the non-members; `seen` are the negatives that training has `met`."""
    if not sets.evaluation["unseen"]:
        sets.notes.append("too few negatives to hold some out: nothing was measured on unseen ones; see --unseen")
    seen = sets.evaluation.get("seen") or met
    splits = {"seen": seen} | sets.evaluation | {"non_members": sets.non_members}
    return encode_splits(splits, original.form, config, longest, sets.notes)


def new_evaluation(
    config: RunConfig,
    splits: Mapping[str, list[Encoded]],
    original: Original,
    judges: Sequence[Judge],
    ability: GeneralAbility | None = None,
) -> Evaluation:
    """Return how the arms of a run are evaluated; `splits` may hold `non_members`, which are no split."""
    template = config.template if config.method and load_method(config.method).reads("template") else None
    return Evaluation(
        {name: rows for name, rows in splits.items() if name != "non_members"},
        original.form,
        judges,
        config.max_new_tokens,
        config.scenario,
        config.samples,
        config.seed,
        splits.get("non_members", []),
        template,
        ability,
        servers={"original": original.server} if original.server else {},
    )
