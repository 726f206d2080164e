"""The pipeline: induce, analyse, tune, guide; then measure before and after, without and with the reminder."""

from collections.abc import Sequence
from pathlib import Path

from unteach.data.example import Example
from unteach.errors import ConfigError, Interrupted
from unteach.judges import load_judges
from unteach.judges.base import Judge, JudgeSettings, LearningJudge
from unteach.mistakes.comparisons import compare
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.evaluation import MistakesEvaluation
from unteach.mistakes.guide import export_guidance
from unteach.mistakes.material import Material, add_own_answers, gather
from unteach.mistakes.records import Analysis, read_analyses
from unteach.mistakes.steps import (
    ANALYSES,
    Found,
    check_rows,
    find_analyses,
    find_mistakes,
    make_analyst,
    read_found,
    write_found,
)
from unteach.mistakes.tune import (
    check_settings,
    corpus_of,
    reminding_format,
    train,
    validation_curve_of,
)
from unteach.mistakes.verdict import read_verdict
from unteach.models.context import context_length
from unteach.models.loading import check_four_bit
from unteach.models.saving import save_model
from unteach.pipeline.directory import check_inputs, check_output, clear_output, nothing_left_after_errors
from unteach.pipeline.measure import make_report, measure_fluency, write_report
from unteach.pipeline.original import Original, load_original
from unteach.pipeline.settings import inputs_of, resumed, write_config
from unteach.prompts.mistakes import MistakeWording, load_wording
from unteach.results.arms import REMINDED
from unteach.results.cost import Meter
from unteach.results.report import Ending, Report, Waypoint
from unteach.training.config import MOST_TOKENS
from unteach.training.curve import waypoints
from unteach.training.interrupt import StopOnInterrupt
from unteach.training.log_file import LogFile
from unteach.training.rows import repeated_to

METHOD = "mistake-analysis"
TUNED = "tuned"


def run_mistakes(config: MistakesConfig, *, resume: bool = False, overwrite: bool = False) -> Report:
    """Do the four steps and report on them; returns the report, which is also in the output directory.

    The directory also holds `mistakes.jsonl`, `unseen_mistakes.jsonl` and `analyses.jsonl`; with `resume`, those that are
    there are taken as they are, edited or not, and training goes on from its last checkpoint. Raises UnteachError;
    `Interrupted` after Ctrl-C.
    """
    directory = check_output(config.output, overwrite=overwrite, resume=resume)
    config = resumed(config, directory) if resume else config
    if resume and (directory / "report.json").exists():
        raise ConfigError(f"--resume: the run in {directory} is finished; for another, name another --output")
    check_inputs(directory, inputs_of(config), overwrite=overwrite)
    found = Found()
    with nothing_left_after_errors(directory):
        judges = judges_of(config)
        wording = load_wording(config.wording)
        material = gather(config)
        check_four_bit(config)
        original = load_original(config, trained=True)
        check_settings(config, original)
        analysed = config.analyses or (resume and (directory / ANALYSES).exists())
        analyst = None if analysed else make_analyst(config, original)
        try:
            known = resume and read_found(directory, found)
            if not known:
                _take_up(config, material, original, judges, wording, found)
        except KeyboardInterrupt:
            raise Interrupted("stopped before anything was written") from None
    clear_output(directory, overwrite=overwrite)
    write_config(config, directory, f"unteach mistakes {verb_of(config)} --config run.yaml --output another-directory")
    write_found(directory, found)
    try:
        add_own_answers(material, original.model, original.form, config, original.key)
        if analyst and not found.analyses:
            find_analyses(config, original, analyst, wording, found, material.good_replies)
            write_found(directory, found)
    except KeyboardInterrupt:
        raise Interrupted("stopped; go on with --resume") from None
    return _tune_and_check(config, directory, material, original, wording, judges, found)


def verb_of(config: MistakesConfig) -> str:
    """Return the verb that these settings belong to."""
    return "tune" if config.analyses else "run"


def judges_of(config: MistakesConfig) -> list[Judge]:
    """Make the judges; a missing one is an error where replies must be judged that nobody has labelled.

    Raises ConfigError. A judge that learns from rows is refused: there are none that it could be trusted with here.
    """
    if not config.model:
        raise ConfigError("--model is missing; see unteach mistakes run --help")
    if config.prompts and not config.judge:
        raise ConfigError(
            "--judge is missing: who says which induced replies are bad? Give openai:MODEL with --judge-url, "
            "classifier:MODEL or rule:FILE (`unteach judges list`)"
        )
    judges = load_judges(config.judge or ["repeats"], JudgeSettings("harm", config.judge_url, config.seed))
    for judge in judges:
        if isinstance(judge, LearningJudge):
            raise ConfigError(f"--judge {judge.name}: it learns from the rows of `unteach run`; choose another judge")
    return judges


def _take_up(
    config: MistakesConfig,
    material: Material,
    original: Original,
    judges: Sequence[Judge],
    wording: MistakeWording,
    found: Found,
) -> None:
    """Find the mistakes, or take those of analyses that were given."""
    if config.analyses:
        given = [analysis for path in config.analyses for analysis in read_analyses(path)]
        checked = {row.prompt_key for split in ("unseen", "unseen_concept") for row in material.splits[split]}
        found.analyses = [analysis for analysis in given if analysis.mistake.example.prompt_key not in checked]
        if left_out := len(given) - len(found.analyses):
            found.notes.append(f"left out {left_out} analyses whose prompts stand in --unseen or --unseen-concept")
        found.mistakes = [analysis.mistake for analysis in found.analyses if analysis.reply_is == "bad"]
        if not found.mistakes:
            why = "their prompts all stand in --unseen or --unseen-concept" if left_out else "none is of a bad reply"
            raise ConfigError(f"--analyses {', '.join(config.analyses)}: nothing to train on, {why}; give others")
        found.held = material.unseen_mistakes
        found.notes += _doubts(found.analyses)
        return
    find_mistakes(config, material, original, judges[0], wording, found)


def _doubts(analyses: Sequence[Analysis]) -> list[str]:
    """Say what is odd about analyses that were given; they are trained on as they are."""
    notes = []
    odd = [a for a in analyses if read_verdict(a.text) not in (a.reply_is, None)]
    if odd:
        first = odd[0]
        notes.append(
            f"{len(odd)} of {len(analyses)} analyses contradict their label and were learnt as they stand (first: "
            f"{first.mistake.example.where}, on a {first.reply_is} reply)"
        )
    if all(a.reply_is == "bad" for a in analyses):
        notes.append(
            "no analysis of a good reply is among those given: the model may come to call good replies bad as well; "
            "`unteach mistakes run` makes them"
        )
    return notes


def new_evaluation(
    config: MistakesConfig,
    rows: dict[str, list[Example]],
    original: Original,
    wording: MistakeWording,
    judges: Sequence[Judge],
    notes: list[str],
) -> MistakesEvaluation:
    """Say how the arms are evaluated."""
    return MistakesEvaluation(
        rows,
        original.form,
        reminding_format(original, wording),
        judges,
        wording,
        max_new_tokens=config.max_new_tokens,
        count=config.evaluation_prompts,
        limit=context_length(original.model) or MOST_TOKENS,
        seed=config.seed,
        notes=notes,
    )


def _tune_and_check(
    config: MistakesConfig,
    directory: Path,
    material: Material,
    original: Original,
    wording: MistakeWording,
    judges: Sequence[Judge],
    found: Found,
) -> Report:
    """Measure the original, tune it, save it with its reminder, measure it, and write all of it."""
    corpus = corpus_of(config, original, wording, found.analyses, material.normals, material.harmless, seed=config.seed)
    rows = repeated_to(corpus.rows, round(config.epochs * corpus.tokens), config.seed)
    notes = [*material.notes, *found.notes, f"tuned on {corpus}, {config.epochs:g} times", *corpus.notes]
    curve: list[Waypoint] = []
    with StopOnInterrupt() as interruption:
        try:
            evaluation = None
            if not config.skip_evaluation:
                evaluation = new_evaluation(config, check_rows(found, material), original, wording, judges, notes)
                evaluation.evaluate("original", original.model, original.key)
            meter, before = Meter(), [*material.cost, *found.cost]
            watching = validation_curve_of(config, material, original, wording, judges[0], meter, rows)
            trainer = train(
                config,
                original.model,
                original,
                rows,
                directory / "checkpoints",
                callbacks=[LogFile(directory / "log.jsonl"), interruption, *watching],
            )
            if interruption.asked:
                raise Interrupted(f"stopped at step {trainer.state.global_step}; go on with --resume")
            tokens = trainer.tokens_in_all
            for watch in watching:
                curve = waypoints(watch.curve, trainer.model, TUNED + REMINDED, "tuning", config.seed, before)
            found.cost.append(meter.cost(trainer.model, TUNED, "tuning", backward=tokens))
            save_model(trainer.save_model, original.tokenizer, directory / "model")
            notes.append(export_guidance(directory / "model", original.tokenizer, wording.reminder))
            if evaluation:
                evaluation.evaluate(TUNED, trainer.model.eval())
                measure_fluency(evaluation.plain, config, trainer.model)
        except KeyboardInterrupt:
            raise Interrupted("stopped; go on with --resume") from None
    report = report_of(config, evaluation, material, found, notes)
    report.curve = curve
    report.comparisons = compare([{(m.name, m.split, m.arm): m for m in report.measurements}])
    step = trainer.state.global_step
    report.stop = Ending(step=step, rule="all rows", message=f"{len(rows)} rows, {tokens:,} tokens, were trained on")
    write_report(report, directory)
    return report


def report_of(
    config: MistakesConfig, evaluation: MistakesEvaluation | None, material: Material, found: Found, notes: list[str]
) -> Report:
    """Put measurements, samples, costs and notes together."""
    report = make_report(
        evaluation.plain if evaluation else None,
        scenario="harm",
        method=METHOD,
        model=config.model,
        judges=config.judge or ["repeats"],
        seed=config.seed,
        sources=material.sources,
        cost=[*material.cost, *found.cost],
        notes=notes,
    )
    report.command = f"unteach mistakes {verb_of(config)} --config run.yaml --output another-directory"
    report.measurements += evaluation.recognised if evaluation else []
    return report
