"""`unteach baseline`: prepare, train, measure and report, on the rows of `unteach run`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unteach.baselines import load_baseline
from unteach.baselines.base import Baseline
from unteach.baselines.baseline_run import BaselineRun
from unteach.baselines.config import BaselineConfig, as_run
from unteach.baselines.rows import read_rows, rows_as_met
from unteach.data.encoded import Encoded, encode_all
from unteach.data.prompt_format import PromptFormat
from unteach.errors import ConfigError, Interrupted
from unteach.evaluation.evaluation import Evaluation, evaluate_arm
from unteach.mistakes.guide import export_guidance
from unteach.models.ranks import by_first_rank, share_of, world
from unteach.models.saving import save_model
from unteach.models.unwrap import unwrapped
from unteach.pipeline.as_trained import as_trained
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.directory import check_inputs, output_directory
from unteach.pipeline.judging import judges_of, trusted_judges, with_judges
from unteach.pipeline.measure import make_report, measure_fluency, measure_original, measure_retrained, write_report
from unteach.pipeline.original import check_adapter_settings
from unteach.pipeline.prepare import encode_evaluation_rows, load_and_complete, new_evaluation
from unteach.pipeline.settings import inputs_of, write_config
from unteach.prompts.turn import Turn
from unteach.results.report import Report
from unteach.training.data import halves
from unteach.training.supervised import OWN, refuse_sharded_weights
from unteach.training.values import trainer_values


@dataclass(frozen=True)
class PreparedBaseline:
    """What a baseline has before it trains.

    `shared` are its settings as those of a run, `form` is how the trained model is asked, and `material` is what the
    baseline trains on.
    """

    baseline: Baseline
    run: BaselineRun
    shared: RunConfig
    evaluation: Evaluation
    form: PromptFormat
    material: Any


def run_baseline(config: BaselineConfig, *, overwrite: bool = False) -> Report:
    """Train `config.baseline`, evaluate it and report; returns the report, which is also in the output directory.

    Rows are split as `unteach run` splits them with the same files and seed, and the same prompts are measured. What
    can be wrong is found before anything is written. Raises UnteachError; `Interrupted` after Ctrl-C.
    """
    baseline = load_baseline(config.baseline)
    check_ranks(baseline, config)
    with output_directory(config.output, overwrite=overwrite) as directory:
        config, told = as_trained(config, config.model)
        own_rows = {"method": "", "lookalike_share": 0.0, "harmful_share": 0.0}  # a baseline trains on the user's rows
        shared = with_defaults(as_run(config)).model_copy(update=own_rows)
        if not config.model or not config.forget:
            raise ConfigError(f"{'--forget' if config.model else '--model'} is missing; see unteach baseline --help")
        check_adapter_settings(config)
        config = config.model_copy(update={"trainer": trainer_values(config.trainer, baseline.trl_config, OWN)})
        check_inputs(directory, inputs_of(config), overwrite=overwrite)
        try:
            prepared = _prepare(baseline, config, shared, directory)
        except KeyboardInterrupt:
            raise Interrupted("stopped before anything was written") from None
        command = f"unteach baseline {baseline.name} --config run.yaml --output another-directory"
        day = prepared.run.original.form.settings.date
        write_config(config.model_copy(update={"template_date": day}), directory, command, overwrite=overwrite)
        try:
            report = _train_and_measure(prepared)
        except KeyboardInterrupt:
            raise Interrupted("stopped; a baseline does not go on: run it again with --overwrite") from None
        report.command, report.notes = command, [*told, *report.notes]
        write_report(report, directory)
    return report


def check_ranks(baseline: Baseline, config: BaselineConfig) -> None:
    """Raise ConfigError for what several ranks cannot train: some baselines, uneven batches, sharded weights."""
    if baseline.alone and world() > 1:
        fix = "start it without torchrun (see docs/many-gpus.md)"
        raise ConfigError(f"baseline {baseline.name}: is trained by one process: {baseline.alone}; {fix}")
    share_of(config.batch_size, "--batch-size")
    refuse_sharded_weights(config.trainer)


def _prepare(baseline: Baseline, config: BaselineConfig, shared: RunConfig, directory: Path) -> PreparedBaseline:
    """Read the rows, load the model, make the rows that it makes itself, and encode what is trained on and measured."""
    judges = judges_of(shared)
    rows = read_rows(config, shared)
    baseline.check(rows, config)
    sets = rows.sets
    original, longest = load_and_complete(shared, sets)
    phrase = baseline.phrase(config)
    about = f"{baseline.name}: {baseline.summary} ({baseline.source})"
    if phrase:
        about += f"; it is measured with the line “{phrase}” before every prompt, the original without"
    run = BaselineRun(config, rows, original, longest, judges[0], directory, [about], [*sets.cost])
    form = run.form_with(phrase) if phrase else original.form
    splits: dict[str, list[Encoded]] = {}
    if not shared.skip_evaluation:
        asked = (Turn("user", "?"),)
        room = longest - len(form.prompt_ids(asked)) + len(original.form.prompt_ids(asked))  # for the phrase
        met = rows_as_met(rows, shared, 8 * (shared.max_steps or 1))  # the items of a run with its default settings
        splits = encode_evaluation_rows(shared, sets, met, original, room)
    trusted = trusted_judges(judges, sets.uncut["negatives"], sets.uncut.get("normals", []), sets.notes)
    shared = with_judges(shared, judges, trusted)
    if rows.validation:
        run.validation = halves(encode_all(rows.validation, form, longest, "validation negatives")[0], shared.seed)[0]
    evaluation = new_evaluation(shared, splits, original, trusted)
    return PreparedBaseline(baseline, run, shared, evaluation, form, baseline.prepare(run))


def _train_and_measure(prepared: PreparedBaseline) -> Report:
    """Evaluate the original, train, save, and evaluate what came out."""
    baseline, run, shared, evaluation = prepared.baseline, prepared.run, prepared.shared, prepared.evaluation
    reference = measure_original(evaluation, run.original) if evaluation.splits else None
    trained = baseline.train(run, prepared.material)
    model = trained.model.eval()
    phrase = baseline.phrase(run.config)
    write = by_first_rank(unwrapped(model).save_pretrained)
    run.notes += save_model(write, model, run.original.tokenizer, run.directory / "model")
    if phrase:
        run.notes.append(export_guidance(run.directory / "model", run.original.tokenizer, phrase))
    if reference:
        if phrase:
            evaluate_arm(_asked_with(evaluation, prepared.form), baseline.name, model)
        else:
            evaluate_arm(evaluation, baseline.name, model, reference)
        measure_retrained(evaluation, shared, reference)
        measure_fluency(evaluation, shared, model)
    report = make_report(
        evaluation,
        scenario=shared.scenario,
        method=baseline.name,
        model=shared.model,
        judges=shared.judge,
        seed=shared.seed,
        sources=run.rows.sets.sources,
        cost=trained.cost,
        notes=[*run.rows.sets.notes, *run.notes],
    )
    report.curve, report.stop = list(trained.curve), trained.stop
    return report


def _asked_with(evaluation: Evaluation, form: PromptFormat) -> Evaluation:
    """Return the evaluation, with the same results, that asks in another format; no KL is taken: prompts differ."""
    splits = {
        name: encode_all([row.example for row in rows], form, 10**9, name)[0]
        for name, rows in evaluation.splits.items()
    }
    return replace(evaluation, splits=splits, form=form)
