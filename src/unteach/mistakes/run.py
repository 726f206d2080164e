"""unteach mistakes run and tune: prepare, make mistakes and analyses, train, measure, report."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unteach.errors import Interrupted
from unteach.mistakes.comparisons import compare
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.corpus import Corpus
from unteach.mistakes.evaluation import RemindedEvaluation, make_evaluation
from unteach.mistakes.guide import export_guidance
from unteach.mistakes.prepare import PreparedMistakes, named_judges, prepare
from unteach.mistakes.records import Records, read_records, write_records
from unteach.mistakes.rows import add_own_answers
from unteach.mistakes.steps import find_analyses, find_mistakes, make_analyst, take_given_analyses
from unteach.mistakes.tune import mix_rows, tune, validation_curve
from unteach.models.saving import save_model
from unteach.pipeline.directory import check_inputs, output_directory
from unteach.pipeline.measure import finish_report, make_report, measure_fluency, write_report
from unteach.pipeline.settings import inputs_of, resumed, write_config
from unteach.pipeline.train import Trained
from unteach.results.arms import REMINDED
from unteach.results.cost import Meter
from unteach.results.report import Cost, Ending, Report
from unteach.training.curve import waypoints
from unteach.training.interrupt import StopOnInterrupt
from unteach.training.log_file import LogFile
from unteach.training.rows import repeated_to

METHOD = "mistake-analysis"
TUNED = "tuned"


def run_mistakes(config: MistakesConfig, *, resume: bool = False, overwrite: bool = False) -> Report:
    """Do the four steps and report on them; returns the report, which is also in the output directory.

    The directory also holds `mistakes.jsonl`, `unseen_mistakes.jsonl` and `analyses.jsonl`. With `resume`, those that
    are there are taken as they are, edited or not, and training goes on from its last checkpoint. Raises UnteachError;
    `Interrupted` after Ctrl-C.
    """
    with output_directory(config.output, overwrite=overwrite, resume=resume) as directory:
        config = resumed(config, directory) if resume else config
        if resume and (report := finish_report(directory)):
            return report
        check_inputs(directory, inputs_of(config), overwrite=overwrite)
        prepared = prepare(config)
        there = read_records(directory) if resume else None
        analysed = config.analyses or (there is not None and there.analyses)
        analyst = None if analysed else make_analyst(prepared)
        try:
            prepared = replace(prepared, records=there or _make_records(prepared))
        except KeyboardInterrupt:
            raise Interrupted("stopped before anything was written") from None
        write_config(config, directory, _command(config), overwrite=overwrite)
        write_records(directory, prepared.records)
        try:
            prepared = replace(prepared, rows=add_own_answers(prepared.rows, prepared.original, config))
            if analyst:
                prepared = replace(prepared, records=find_analyses(prepared, analyst))
                write_records(directory, prepared.records)
            report = _train_and_measure(prepared, directory)
        except KeyboardInterrupt:
            raise Interrupted("stopped; go on with --resume") from None
        write_report(report, directory)
    return report


def _command(config: MistakesConfig) -> str:
    verb = "tune" if config.analyses else "run"
    return f"unteach mistakes {verb} --config run.yaml --output another-directory"


def _make_records(prepared: PreparedMistakes) -> Records:
    return take_given_analyses(prepared) if prepared.config.analyses else find_mistakes(prepared)


def _train_and_measure(prepared: PreparedMistakes, directory: Path) -> Report:
    """Evaluate the original, tune it, and evaluate what came out."""
    config, rows, records, original = prepared.config, prepared.rows, prepared.records, prepared.original
    corpus = mix_rows(prepared, records.analyses, rows.harmless, seed=config.seed)
    notes = [*rows.notes, *records.notes, f"tuned on {corpus}, {config.epochs:g} times", *corpus.notes]
    with StopOnInterrupt() as interruption:
        evaluation = None if config.skip_evaluation else make_evaluation(prepared, notes)
        if evaluation:
            evaluation.evaluate("original", original.model, original.key)
        trained = _train(prepared, corpus, directory, interruption)
        if evaluation:
            evaluation.evaluate(TUNED, trained.model.eval())
            measure_fluency(evaluation.plain, config, trained.model)
    report = report_of(prepared, evaluation, trained.cost, [*notes, *trained.notes])
    report.curve, report.stop = list(trained.curve), trained.stop
    report.comparisons = compare([{(m.name, m.split, m.arm): m for m in report.measurements}])
    return report


def _train(prepared: PreparedMistakes, corpus: Corpus, directory: Path, interruption: StopOnInterrupt) -> Trained:
    """Tune on the corpus, `epochs` times, and save the model with its reminder in `directory`."""
    config, original = prepared.config, prepared.original
    rows = repeated_to(corpus.rows, round(config.epochs * corpus.tokens), config.seed)
    before, meter = [*prepared.rows.cost, *prepared.records.cost], Meter()
    validation = validation_curve(prepared, meter, rows)
    callbacks = [LogFile(directory / "log.jsonl"), interruption, *([validation] if validation else [])]
    trainer = tune(prepared, original.model, rows, directory / "checkpoints", callbacks=callbacks)
    step, tokens = trainer.state.global_step, trainer.tokens_in_all
    if interruption.asked:
        raise Interrupted(f"stopped at step {step}; go on with --resume")
    curve = (
        waypoints(validation.curve, trainer.model, TUNED + REMINDED, "tuning", config.seed, before)
        if validation
        else []
    )
    cost = meter.cost(trainer.model, TUNED, "tuning", backward=tokens)
    saved = save_model(trainer.save_model, trainer.model, original.tokenizer, directory / "model")
    note = export_guidance(directory / "model", original.tokenizer, prepared.wording.reminder)
    stop = Ending(step=step, rule="all rows", message=f"{len(rows)} rows, {tokens:,} tokens, were trained on")
    return Trained(trainer.model, stop, [*before, cost], curve, [*saved, note])


def report_of(
    prepared: PreparedMistakes, evaluation: RemindedEvaluation | None, cost: Sequence[Cost], notes: Sequence[str]
) -> Report:
    """Put measurements, samples, costs and notes together."""
    config = prepared.config
    report = make_report(
        evaluation.plain if evaluation else None,
        scenario="harm",
        method=METHOD,
        model=config.model,
        judges=named_judges(config),
        seed=config.seed,
        sources=prepared.rows.sources,
        cost=cost,
        notes=notes,
    )
    report.command = _command(config)
    report.measurements += evaluation.recognised if evaluation else []
    return report
