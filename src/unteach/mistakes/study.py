"""The study: every arm tuned on as many tokens, each evaluated without and with the reminder, and compared in pairs."""

import gc
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from unteach.errors import ConfigError, DataError, Interrupted
from unteach.mistakes.arms import ARMS, Arm
from unteach.mistakes.comparisons import compare
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.corpus import Corpus, shuffled_analyses
from unteach.mistakes.evaluation import RemindedEvaluation, make_evaluation
from unteach.mistakes.prepare import PreparedMistakes, prepare
from unteach.mistakes.records import write_records
from unteach.mistakes.rows import add_own_answers
from unteach.mistakes.run import report_of
from unteach.mistakes.steps import find_analyses, find_mistakes, make_analyst
from unteach.mistakes.tune import mix_rows, tune
from unteach.models.unwrap import unwrapped
from unteach.pipeline.directory import check_inputs, output_directory
from unteach.pipeline.measure import write_report
from unteach.pipeline.original import load_weights
from unteach.pipeline.seeds import pooled
from unteach.pipeline.settings import inputs_of, write_config
from unteach.results.cost import Meter
from unteach.results.report import Report
from unteach.training.config import UnlearnConfig
from unteach.training.rows import repeated_to
from unteach.training.trainer import UnlearnTrainer

METHOD = "mistakes-study"
COMMAND = "unteach mistakes study --config run.yaml --output another-directory"


def study(config: MistakesConfig, *, overwrite: bool = False) -> Report:
    """Make mistakes and analyses once, tune every arm with every seed on an equal number of tokens, and compare.

    Writes run.yaml, the mistakes, the analyses and the report; the arms' models are not kept. Raises UnteachError.
    """
    with output_directory(config.output, overwrite=overwrite) as directory:
        check_inputs(directory, inputs_of(config), overwrite=overwrite)
        if config.skip_evaluation:
            raise ConfigError("--skip-evaluation: a study is its evaluation; leave it out")
        prepared = prepare(config)
        analyst = make_analyst(prepared)
        prepared = replace(prepared, records=find_mistakes(prepared))
        prepared = replace(prepared, rows=add_own_answers(prepared.rows, prepared.original, config))
        prepared = replace(prepared, records=find_analyses(prepared, analyst))
        corpus = _measuring_corpus(prepared)
        write_config(config, directory, COMMAND, overwrite=overwrite)
        write_records(directory, prepared.records)
        try:
            report = _run_arms(prepared, corpus)
        except KeyboardInterrupt:
            fix = f"mistakes and analyses are in {directory}, the arms must be run again"
            raise Interrupted(f"stopped; {fix}") from None
        write_report(report, directory)
    return report


def _measuring_corpus(prepared: PreparedMistakes) -> Corpus:
    """Return the corpus whose tokens, `epochs` times, every arm is trained on. Raises DataError where there is none."""
    for name in ("analysis", "analysis-labelled"):
        if corpus := arm_corpus(prepared, ARMS[name], 0):
            return corpus
    raise DataError("no analysis of induced or labelled mistakes is there to study")


def _run_arms(prepared: PreparedMistakes, corpus: Corpus) -> Report:
    """Train and evaluate every arm with every seed; with several seeds, metrics are means over them."""
    config, original = prepared.config, prepared.original
    budget = round(config.epochs * corpus.tokens)
    notes = [f"every arm was trained on {budget:,} tokens: those of {corpus}, {config.epochs:g} times"]
    evaluation = make_evaluation(prepared, notes)
    evaluation.evaluate("original", original.model, original.key)
    reports, metrics = [], []
    for seed in range(config.seed, config.seed + config.seeds):
        of_seed = evaluation.copy()
        for name in config.arms or ARMS:
            _run_arm(prepared, name, seed, budget, of_seed, notes)
        report = report_of(prepared, of_seed, (), ())
        report.environment["seed"] = seed
        metrics.append({(m.name, m.split, m.arm): m for m in report.measurements})
        reports.append(report)
    report = pooled(reports) if len(reports) > 1 else reports[0]
    report.method, report.command, report.weights = METHOD, COMMAND, ""
    report.notes = list(dict.fromkeys([*report.notes, *prepared.rows.notes, *prepared.records.notes, *notes]))
    report.cost = [*prepared.rows.cost, *prepared.records.cost, *evaluation.plain.cost, *report.cost]
    report.comparisons = compare(metrics)
    return report


def _run_arm(
    prepared: PreparedMistakes, name: str, seed: int, budget: int, evaluation: RemindedEvaluation, notes: list[str]
) -> None:
    """Train one arm from the original and evaluate it; an arm without rows of its kind is left out with a note."""
    arm = ARMS[name]
    corpus = None if arm.unlearn == "only" else arm_corpus(prepared, arm, seed)
    if corpus is None and arm.unlearn != "only":
        what = f"{arm.analyses} mistakes" if arm.analyses else "good answers (--harmless)"
        notes.append(f"arm {name} was left out: there are no {what}")
        return
    meter, tokens = Meter(), 0
    model = load_weights(prepared.config, prepared.config.model, trained=True)
    stages = {"only": ("unlearn",), "before": ("unlearn", "tune"), "after": ("tune", "unlearn"), None: ("tune",)}
    for stage in stages[arm.unlearn]:
        part = budget // len(stages[arm.unlearn])
        if stage == "tune" and corpus:
            model, seen = _tune(prepared, corpus, model, part, seed, f"{name}, seed {seed}: {stage}")
        else:
            model, seen = _unlearn(prepared, model, part, seed)
        tokens += seen
    evaluation.plain.cost.append(meter.cost(model, name, "training", backward=tokens))
    evaluation.evaluate(name, model.eval())
    del model
    gc.collect()


def arm_corpus(prepared: PreparedMistakes, arm: Arm, seed: int) -> Corpus | None:
    """Mix the rows of an arm; None where it has none of the rows that make it what it is."""
    given = prepared.records.analyses if arm.analyses else ()
    analyses = [
        analysis
        for analysis in given
        if (analysis.mistake.origin.source == "induced") == (arm.analyses == "induced") and analysis.reply_is == "bad"
    ]
    harmless = prepared.rows.harmless if arm.harmless and prepared.config.harmless_per_analysis else []
    if (arm.analyses and not analyses) or (arm.harmless and not harmless):
        return None
    if arm.good:
        analyses += [analysis for analysis in given if analysis.reply_is == "good"][: len(analyses)]
    if arm.shuffled:
        analyses = shuffled_analyses(analyses, seed)
    return mix_rows(prepared, analyses, harmless, seed=seed, learn_replies=arm.learn_replies)


def _tune(
    prepared: PreparedMistakes, corpus: Corpus, model: Any, budget: int, seed: int, title: str
) -> tuple[Any, int]:
    """Tune on an arm's rows; returns the model, an adapter merged into it, and the tokens seen."""
    rows = repeated_to(corpus.rows, budget, seed)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = tune(prepared, model, rows, Path(scratch), title=title, seed=seed, checkpoints=False)
    plain: Any = unwrapped(trainer.model)
    return plain.merge_and_unload() if hasattr(plain, "merge_and_unload") else plain, trainer.tokens_in_all


def _unlearn(prepared: PreparedMistakes, model: Any, budget: int, seed: int) -> tuple[Any, int]:
    """Unlearn the mistakes with `npo-template`; returns the model and the tokens seen."""
    config, original = prepared.config, prepared.original
    negatives = list({m.example.prompt_key: m.example for m in prepared.records.mistakes}.values())
    with tempfile.TemporaryDirectory() as scratch:
        fields: dict[str, Any] = {
            "method": "npo-template",
            "template": config.template,
            "per_device_train_batch_size": config.batch_size,
            "max_length": prepared.max_length,
            "prompt_format": original.form.name,
            "output_dir": scratch,
            "seed": seed,
            "use_cpu": (config.device or "").startswith("cpu"),
        }
        sets = (negatives, list(prepared.rows.normals))
        # A short trainer tells how many tokens a step has, from which the real one can plan its cool-down.
        short = UnlearnTrainer(
            model,
            UnlearnConfig(**fields, max_steps=4, stopping=False, progress=False),
            *sets,
            processing_class=original.tokenizer,
        )
        batch = short.data_collator([short.train_dataset[number] for number in range(len(short.train_dataset))])
        per_step = sum(part.token_count for part in batch.values()) / 4
        trainer = UnlearnTrainer(
            model,
            UnlearnConfig(**fields, max_steps=max(20, round(budget / per_step))),
            *sets,
            processing_class=original.tokenizer,
            judge=prepared.judges[0],
        )
        trainer.train()
    return unwrapped(trainer.model), trainer.meter.tokens["backward"]
