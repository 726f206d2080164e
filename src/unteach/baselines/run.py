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
from unteach.evaluation import evaluation as check
from unteach.judges.base import Judge
from unteach.mistakes.guide import export_guidance, guided_format
from unteach.models.loading import context_length, model_fingerprint
from unteach.models.unwrap import unwrapped
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.directory import check_inputs, check_output, nothing_left_after_errors, prepare
from unteach.pipeline.preflight import check_comparable, check_length
from unteach.pipeline.rows import add_lookalikes, add_own_answers, encode_splits
from unteach.pipeline.run import (
    judges_of,
    load,
    look_at_original,
    look_at_others,
    make_report,
    model_format,
    new_check,
    taught,
    write_report,
)
from unteach.pipeline.settings import inputs_of, write_config
from unteach.prompts.turn import Turn
from unteach.results.report import Ending, Report
from unteach.training.config import MOST_TOKENS
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
    if config.load_in_4bit and not config.lora:
        raise ConfigError("--load-in-4bit trains an adapter over frozen weights; add --lora")
    config = config.model_copy(update={"trainer": trainer_values(config.trainer, baseline.trl_config, OWN)})
    check_inputs(directory, [*inputs_of(shared), *config.good, config.wording], overwrite=overwrite)
    with nothing_left_after_errors(directory):
        try:
            judges = judges_of(shared)
            rows = read_rows(config, shared)
            baseline.check(rows, config)
            bench, checked, shared = _set_up(baseline, config, shared, rows, judges, directory)
            material = baseline.prepare(bench)
        except KeyboardInterrupt:
            raise Interrupted("stopped before anything was written") from None
    prepare(directory, overwrite=overwrite)
    write_config(config, directory, _command(baseline))
    try:
        return _train_and_check(baseline, bench, material, checked, shared)
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
) -> tuple[Bench, check.Checked, RunConfig]:
    """Load the model, make the rows that it makes itself, and encode what is measured."""
    sets = rows.sets
    tokenizer, model = load(shared, shared.model, trained=True)
    check_length(shared, model)
    if shared.retrained:
        check_comparable(shared, shared.retrained, tokenizer)
    form, key = model_format(shared, tokenizer, model), model_fingerprint(model)
    if not sets.normals:
        add_own_answers(sets, model, form, shared, key)
    if shared.scenario == "harm" and not sets.evaluation["lookalike"] and not shared.skip_evaluation:
        add_lookalikes(sets, model, form, shared, key)
    limit = shared.max_length or min(context_length(model) or MOST_TOKENS, MOST_TOKENS)
    splits: dict[str, list[Encoded]] = {}
    if not shared.skip_evaluation:
        if not sets.evaluation["unseen"]:
            sets.notes.append("too few negatives to hold some out: nothing was measured on unseen ones; see --unseen")
        length = (shared.max_steps or 1) * 8  # the items of a run with its default settings
        room = limit - _phrase_tokens(baseline.phrase(config), form, model)
        seen = {"seen": seen_rows(rows, shared, length)}
        splits = encode_splits(seen | sets.evaluation, form, shared, room, sets.notes)
    trusted = taught(judges, sets.uncut["negatives"], sets.uncut.get("normals", []), sets.notes)
    kept = [spec for spec, judge in zip(shared.judge, judges, strict=True) if judge in trusted]
    shared = shared.model_copy(update={"judge": kept})
    bench = Bench(
        baseline.name, config, rows, model, form, key, limit, trusted[0], directory, notes=[_about(baseline, config)]
    )
    bench.cost += sets.cost
    bench.validation = _validation(baseline, bench)
    return bench, new_check(shared, splits, form, trusted), shared


def _validation(baseline: Baseline, bench: Bench) -> list[Encoded]:
    """Encode the validation negatives as the arm will be asked: with its phrase, where it has one."""
    phrase, form = baseline.phrase(bench.config), bench.form
    if not bench.rows.validation:
        return []
    if phrase:
        form = guided_format(form.tokenizer, phrase, form.name, bench.model.generation_config.eos_token_id)
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


def _train_and_check(
    baseline: Baseline, bench: Bench, material: Any, checked: check.Checked, shared: RunConfig
) -> Report:
    """Measure the original, train, save, measure the result, write all of it."""
    reference = look_at_original(checked, bench.model, bench.key) if checked.splits else None
    trained = baseline.train(bench, material)
    model = trained.model.eval()
    phrase = baseline.phrase(bench.config)
    _save(model, bench.form, bench.directory / "model")
    if phrase:
        bench.notes.append(export_guidance(bench.directory / "model", bench.form.tokenizer, phrase))
    checked.cost += bench.cost
    checked.curve = bench.curve
    if reference:
        if phrase:
            _look_with_phrase(checked, baseline.name, model, phrase)
        else:
            check.look_at(checked, baseline.name, model, reference)
        look_at_others(checked, model, shared, reference)
    report = make_report(shared, checked, bench.rows.sets, bench.notes)
    report.method, report.command = baseline.name, _command(baseline)
    report.stop = Ending(step=trained.steps, rule="end of the schedule", message=trained.message)
    write_report(report, bench.directory)
    return report


def _look_with_phrase(checked: check.Checked, arm: str, model: Any, phrase: str) -> None:
    """Measure an arm with a phrase before every prompt, on the same rows; KL is not taken, for prompts differ."""
    eos = unwrapped(model).generation_config.eos_token_id
    form = guided_format(checked.form.tokenizer, phrase, checked.form.name, eos)
    splits = {
        name: encode_all([row.example for row in rows], form, 10**9, name)[0] for name, rows in checked.splits.items()
    }
    phrased = replace(checked, splits=splits, form=form, looks={}, cost=checked.cost)
    check.look_at(phrased, arm, model)
    checked.looks[arm] = phrased.looks[arm]


def _save(model: Any, form: PromptFormat, directory: Path) -> None:
    """Save the result as safetensors, adapter or full weights, with its tokenizer."""
    unwrapped(model).save_pretrained(directory)
    form.tokenizer.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)  # PEFT's card says nothing; the run's is beside this directory
