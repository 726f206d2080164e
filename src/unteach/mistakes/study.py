"""The study: every arm tuned on as many tokens, each measured without and with the reminder, and compared in pairs."""

import gc
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unteach.data.example import Example
from unteach.errors import ConfigError, DataError, Interrupted
from unteach.judges.base import Judge
from unteach.mistakes.arms import ARMS, Arm
from unteach.mistakes.comparisons import compare
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.corpus import Corpus, shuffled_analyses
from unteach.mistakes.evaluation import MistakesEvaluation
from unteach.mistakes.material import Material, add_own_answers, gather
from unteach.mistakes.run import judges_of, new_evaluation, report_of
from unteach.mistakes.steps import Found, check_rows, find_analyses, find_mistakes, make_analyst, write_found
from unteach.mistakes.tune import check_settings, corpus_of, train
from unteach.models.loading import check_four_bit
from unteach.models.unwrap import unwrapped
from unteach.pipeline.directory import check_inputs, check_output, clear_output, nothing_left_after_errors
from unteach.pipeline.measure import write_report
from unteach.pipeline.original import Original, load_original, load_weights
from unteach.pipeline.seeds import pooled
from unteach.pipeline.settings import inputs_of, write_config
from unteach.prompts.mistakes import MistakeWording, load_wording
from unteach.results.cost import Meter
from unteach.results.report import Report
from unteach.training.config import UnlearnConfig
from unteach.training.data import longest_row
from unteach.training.rows import repeated_to
from unteach.training.trainer import UnlearnTrainer

METHOD = "mistakes-study"
COMMAND = "unteach mistakes study --config run.yaml --output another-directory"


@dataclass
class Bench:
    """All that the arms of a study share."""

    config: MistakesConfig
    material: Material
    found: Found
    original: Original
    wording: MistakeWording
    judges: Sequence[Judge]
    rows: dict[str, list[Example]]
    budget: int
    notes: list[str]


def study(config: MistakesConfig, *, overwrite: bool = False) -> Report:
    """Make mistakes and analyses once, tune every arm with every seed at an equal number of tokens, and compare.

    Writes run.yaml, the mistakes, the analyses and the report; the arms' models are not kept. Raises UnteachError.
    """
    directory = check_output(config.output, overwrite=overwrite, resume=False)
    check_inputs(directory, inputs_of(config), overwrite=overwrite)
    if config.skip_evaluation:
        raise ConfigError("--skip-evaluation: a study is its evaluation; leave it out")
    with nothing_left_after_errors(directory):
        judges = judges_of(config)
        wording = load_wording(config.wording)
        material = gather(config)
        check_four_bit(config)
        original = load_original(config, trained=True)
        check_settings(config, original)
        analyst = make_analyst(config, original)
        found = Found()
        find_mistakes(config, material, original, judges[0], wording, found)
        add_own_answers(material, original.model, original.form, config, original.key)
        find_analyses(config, original, analyst, wording, found, material.good_replies)
        bench = set_up(config, material, found, original, wording, judges)
    clear_output(directory, overwrite=overwrite)
    write_config(config, directory, COMMAND)
    write_found(directory, found)
    try:
        report = run_arms(bench)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped; mistakes and analyses are in {directory}, the arms must be run again") from None
    write_report(report, directory)
    return report


def set_up(
    config: MistakesConfig,
    material: Material,
    found: Found,
    original: Original,
    wording: MistakeWording,
    judges: Sequence[Judge],
) -> Bench:
    """Settle the rows to check with and the tokens that every arm is tuned on: those of the analyses, `epochs` times.

    Raises DataError where no arm has its rows.
    """
    bench = Bench(config, material, found, original, wording, judges, check_rows(found, material), 0, [])
    corpora = (arm_corpus(bench, ARMS[name], 0) for name in ("analysis", "analysis-labelled"))
    corpus = next((found for found in corpora if found), None)
    if corpus is None:
        raise DataError("no analysis of induced or labelled mistakes is there to study")
    bench.budget = round(config.epochs * corpus.tokens)
    bench.notes.append(f"every arm was trained on {bench.budget:,} tokens: those of {corpus}, {config.epochs:g} times")
    return bench


def run_arms(bench: Bench) -> Report:
    """Run every arm with every seed; with several seeds, metrics are means over them."""
    config = bench.config
    evaluation = new_evaluation(config, bench.rows, bench.original, bench.wording, bench.judges, bench.notes)
    evaluation.evaluate("original", bench.original.model, bench.original.key)
    original, recognised = dict(evaluation.plain.results), list(evaluation.recognised)
    once = [*bench.material.cost, *bench.found.cost, *evaluation.plain.cost]  # done once, whatever the number of seeds
    reports, metrics = [], []
    for seed in range(config.seed, config.seed + config.seeds):
        evaluation.plain.results.clear()
        evaluation.plain.results.update(original)
        evaluation.recognised = list(recognised)
        evaluation.plain.cost.clear()
        for name in config.arms or ARMS:
            _run_arm(bench, name, seed, evaluation)
        report = report_of(config, evaluation, bench.material, bench.found, [])
        report.environment["seed"] = seed
        report.cost = list(evaluation.plain.cost)
        metrics.append({(m.name, m.split, m.arm): m for m in report.measurements})
        reports.append(report)
    report = pooled(reports) if len(reports) > 1 else reports[0]
    report.method, report.command, report.weights = METHOD, COMMAND, ""
    report.notes = list(dict.fromkeys([*report.notes, *bench.material.notes, *bench.found.notes, *bench.notes]))
    report.cost = [*once, *report.cost]
    report.comparisons = compare(metrics)
    return report


def _run_arm(bench: Bench, name: str, seed: int, evaluation: MistakesEvaluation) -> None:
    """Train one arm from the original and look at it; an arm without rows of its kind is left out with a note."""
    arm = ARMS[name]
    corpus = None if arm.unlearn == "only" else arm_corpus(bench, arm, seed)
    if corpus is None and arm.unlearn != "only":
        what = f"{arm.analyses} mistakes" if arm.analyses else "good answers (--harmless)"
        bench.notes.append(f"arm {name} was left out: there are no {what}")
        return
    meter = Meter()
    model = load_weights(bench.config, bench.config.model, trained=True)
    stages = {"only": ("unlearn",), "before": ("unlearn", "tune"), "after": ("tune", "unlearn"), None: ("tune",)}
    tokens = 0
    for stage in stages[arm.unlearn]:
        budget = bench.budget // len(stages[arm.unlearn])
        if stage == "tune" and corpus:
            model, seen = _tuned(bench, corpus, model, budget, seed, f"{name}, seed {seed}: {stage}")
        else:
            model, seen = _unlearned(bench, model, budget, seed)
        tokens += seen
    evaluation.plain.cost.append(meter.cost(model, name, "training", backward=tokens))
    evaluation.evaluate(name, model.eval())
    del model
    gc.collect()


def arm_corpus(bench: Bench, arm: Arm, seed: int) -> Corpus | None:
    """Mix the rows of an arm; None where it has none of the rows that make it what it is."""
    analyses = [
        analysis
        for analysis in bench.found.analyses
        if (analysis.mistake.origin.source == "induced") == (arm.analyses == "induced") and analysis.reply_is == "bad"
    ]
    analyses = analyses if arm.analyses else []
    harmless = bench.material.harmless if arm.harmless and bench.config.harmless_per_analysis else []
    if (arm.analyses and not analyses) or (arm.harmless and not harmless):
        return None
    if arm.good:
        analyses += [analysis for analysis in bench.found.analyses if analysis.reply_is == "good"][: len(analyses)]
    if arm.shuffled:
        analyses = shuffled_analyses(analyses, seed)
    return corpus_of(
        bench.config,
        bench.original,
        bench.wording,
        analyses,
        bench.material.normals,
        harmless,
        seed=seed,
        learn_replies=arm.learn_replies,
    )


def _tuned(bench: Bench, corpus: Corpus, model: Any, budget: int, seed: int, title: str) -> tuple[Any, int]:
    """Tune on an arm's rows; returns the model, an adapter merged into it, and the tokens seen."""
    rows = repeated_to(corpus.rows, budget, seed)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = train(bench.config, model, bench.original, rows, Path(scratch), title=title, seed=seed, keep=False)
    return _merged(trainer.model), trainer.tokens_in_all


def _unlearned(bench: Bench, model: Any, budget: int, seed: int) -> tuple[Any, int]:
    """Unlearn the mistakes with `npo-template`; returns the model and the tokens seen."""
    negatives = list({m.example.prompt_key: m.example for m in bench.found.mistakes}.values())
    config = bench.config
    with tempfile.TemporaryDirectory() as scratch:
        fields: dict[str, Any] = {
            "method": "npo-template",
            "template": config.template,
            "per_device_train_batch_size": config.batch_size,
            "max_length": longest_row(config.max_length, bench.original.model),
            "prompt_format": bench.original.form.name,
            "output_dir": scratch,
            "seed": seed,
            "use_cpu": (config.device or "").startswith("cpu"),
        }
        sets = (negatives, bench.material.normals)
        tokenizer = bench.original.tokenizer
        # A short trainer tells how many tokens a step has: with that, the real one can plan its cool-down.
        short = UnlearnTrainer(
            model,
            UnlearnConfig(**fields, max_steps=4, stopping=False, progress=False),
            *sets,
            processing_class=tokenizer,
        )
        items = [short.train_dataset[number] for number in range(len(short.train_dataset))]
        batch = short.data_collator(items)
        per_step = sum(part.token_count for part in batch.values()) / 4
        steps = max(20, round(budget / per_step))
        trainer = UnlearnTrainer(
            model, UnlearnConfig(**fields, max_steps=steps), *sets, processing_class=tokenizer, judge=bench.judges[0]
        )
        trainer.train()
    return unwrapped(trainer.model), trainer.meter.tokens["backward"]


def _merged(model: Any) -> Any:
    plain = unwrapped(model)
    return plain.merge_and_unload() if hasattr(plain, "merge_and_unload") else plain
