"""`unteach baseline`: train one baseline on the rows of a run, and measure it as a run is measured."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from unteach.baselines import load_baseline
from unteach.baselines.base import Baseline, Bench
from unteach.baselines.config import BaselineConfig, as_run
from unteach.baselines.rows import Rows, read_rows, seen_rows
from unteach.data.encoded import Encoded, encode_all
from unteach.data.prompt_format import PromptFormat
from unteach.errors import ConfigError, Interrupted
from unteach.evaluation.evaluation import Evaluation, evaluate_arm
from unteach.judges.base import Judge
from unteach.mistakes.guide import export_guidance, guided_format
from unteach.models.loading import check_four_bit
from unteach.models.saving import save_model
from unteach.models.unwrap import unwrapped
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.directory import check_inputs, check_output, clear_output, nothing_left_after_errors
from unteach.pipeline.measure import make_report, measure_fluency, measure_original, measure_retrained, write_report
from unteach.pipeline.original import check_comparable, load_original
from unteach.pipeline.prepare import complete_rows, judges_of, new_evaluation, trusted_judges, with_judges
from unteach.pipeline.rows import encode_splits
from unteach.pipeline.settings import inputs_of, write_config
from unteach.prompts.turn import Turn
from unteach.results.report import Ending, Report
from unteach.training.data import longest_row
from unteach.training.supervised import OWN
from unteach.training.values import trainer_values


def run_baseline(config: BaselineConfig, *, overwrite: bool = False) -> Report:
    """Train `config.baseline`, check it and report; returns the report, which is also in the output directory.

    Rows are parted as `unteach run` parts them with the same files and seed, and the same prompts are measured. What
    can be wrong is found before anything is written. Raises UnteachError; `Interrupted` after Ctrl-C.
    """
    baseline = load_baseline(config.baseline)
    directory = check_output(config.output, overwrite=overwrite, resume=False)
    shared = with_defaults(as_run(config)).model_copy(update={"method": ""})
    if not config.model or not config.forget:
        raise ConfigError(f"{'--forget' if config.model else '--model'} is missing; see unteach baseline --help")
    check_four_bit(config)
    config = config.model_copy(update={"trainer": trainer_values(config.trainer, baseline.trl_config, OWN)})
    check_inputs(directory, inputs_of(config), overwrite=overwrite)
    with nothing_left_after_errors(directory):
        try:
            judges = judges_of(shared)
            rows = read_rows(config, shared)
            baseline.check(rows, config)
            bench, evaluation, shared = _set_up(baseline, config, shared, rows, judges, directory)
            material = baseline.prepare(bench)
        except KeyboardInterrupt:
            raise Interrupted("stopped before anything was written") from None
    clear_output(directory, overwrite=overwrite)
    write_config(config, directory, _command(baseline))
    try:
        return _train_and_evaluate(baseline, bench, material, evaluation, shared)
    except KeyboardInterrupt:
        raise Interrupted("stopped; a baseline does not go on: run it again with --overwrite") from None


def _command(baseline: Baseline) -> str:
    return f"unteach baseline {baseline.name} --config run.yaml --output another-directory"


def _set_up(
    baseline: Baseline,
    config: BaselineConfig,
    shared: RunConfig,
    rows: Rows,
    judges: list[Judge],
    directory: Path,
) -> tuple[Bench, Evaluation, RunConfig]:
    """Load the model, make the rows that it makes itself, and encode what is measured."""
    sets = rows.sets
    original = load_original(shared, trained=True)
    model, form = original.model, original.form
    limit = longest_row(shared.max_length, model)
    if shared.retrained:
        check_comparable(shared, shared.retrained, original.tokenizer)
    complete_rows(sets, original, shared)
    splits: dict[str, list[Encoded]] = {}
    if not shared.skip_evaluation:
        if not sets.evaluation["unseen"]:
            sets.notes.append("too few negatives to hold some out: nothing was measured on unseen ones; see --unseen")
        length = (shared.max_steps or 1) * 8  # the items of a run with its default settings
        room = limit - _phrase_tokens(baseline.phrase(config), form, model)
        seen = {"seen": seen_rows(rows, shared, length)}
        splits = encode_splits(seen | sets.evaluation, form, shared, room, sets.notes)
    trusted = trusted_judges(judges, sets.uncut["negatives"], sets.uncut.get("normals", []), sets.notes)
    shared = with_judges(shared, judges, trusted)
    about = [_about(baseline, config)]
    bench = Bench(baseline.name, config, rows, original, limit, trusted[0], directory, notes=about)
    bench.cost += sets.cost
    bench.validation = _validation(baseline, bench)
    return bench, new_evaluation(shared, splits, original, trusted), shared


def _validation(baseline: Baseline, bench: Bench) -> list[Encoded]:
    """Encode the validation negatives as the arm will be asked: with its phrase, where it has one."""
    phrase, form = baseline.phrase(bench.config), bench.original.form
    if not bench.rows.validation:
        return []
    if phrase:
        form = guided_format(form.tokenizer, phrase, form.name, bench.original.model.generation_config.eos_token_id)
    return encode_all(bench.rows.validation, form, bench.max_length, "validation negatives")[0]


def _phrase_tokens(phrase: str | None, form: PromptFormat, model: Any) -> int:
    """How many tokens a phrase adds to a prompt, for which the rows that are checked must leave room."""
    if not phrase:
        return 0
    asked = (Turn("user", "?"),)
    phrased = guided_format(form.tokenizer, phrase, form.name, model.generation_config.eos_token_id)
    return len(phrased.prompt_ids(asked)) - len(form.prompt_ids(asked))


def _about(baseline: Baseline, config: BaselineConfig) -> str:
    phrase = baseline.phrase(config)
    said = f"; it is measured with the line “{phrase}” before every prompt, the original without" if phrase else ""
    return f"{baseline.name}: {baseline.summary} ({baseline.source}){said}"


def _train_and_evaluate(
    baseline: Baseline, bench: Bench, material: Any, evaluation: Evaluation, shared: RunConfig
) -> Report:
    """Measure the original, train, save, measure the result, write all of it."""
    reference = measure_original(evaluation, bench.original) if evaluation.splits else None
    trained = baseline.train(bench, material)
    model = trained.model.eval()
    phrase = baseline.phrase(bench.config)
    save_model(unwrapped(model).save_pretrained, bench.original.tokenizer, bench.directory / "model")
    if phrase:
        bench.notes.append(export_guidance(bench.directory / "model", bench.original.tokenizer, phrase))
    if reference:
        if phrase:
            evaluate_arm(_with_phrase(evaluation, model, phrase), baseline.name, model)
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
        sources=bench.rows.sets.sources,
        cost=bench.cost,
        notes=[*bench.rows.sets.notes, *bench.notes],
    )
    report.command, report.curve = _command(baseline), bench.curve
    report.stop = Ending(step=trained.steps, rule="end of the schedule", message=trained.message)
    write_report(report, bench.directory)
    return report


def _with_phrase(evaluation: Evaluation, model: Any, phrase: str) -> Evaluation:
    """Put a phrase before every prompt, on the same rows, with the same results; KL is not taken, for prompts differ."""
    eos = unwrapped(model).generation_config.eos_token_id
    form = guided_format(evaluation.form.tokenizer, phrase, evaluation.form.name, eos)
    splits = {
        name: encode_all([row.example for row in rows], form, 10**9, name)[0]
        for name, rows in evaluation.splits.items()
    }
    return replace(evaluation, splits=splits, form=form)
