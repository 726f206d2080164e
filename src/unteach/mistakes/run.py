"""The pipeline: induce, analyse, tune, guide; then measure before and after, without and with the reminder."""

from collections.abc import Sequence
from pathlib import Path

import torch

from unteach.data.example import Example
from unteach.data.prompt_format import prompt_format
from unteach.errors import ConfigError, Interrupted
from unteach.evaluation import evaluation as check
from unteach.evaluation.agreement import judge_metrics
from unteach.judges import load_judges
from unteach.judges.base import Judge, Learner, Setting
from unteach.mistakes.comparisons import compare
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.evaluation import MistakesEvaluation
from unteach.mistakes.guide import export_guidance
from unteach.mistakes.material import Material, add_own_answers, gather
from unteach.mistakes.records import Analysis, read_analyses
from unteach.mistakes.steps import (
    ANALYSES,
    Found,
    Subject,
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
    fresh_model,
    reminding_format,
    save,
    train,
    validation_curve_of,
)
from unteach.mistakes.verdict import read_verdict
from unteach.models.loading import context_length, load_tokenizer, model_fingerprint
from unteach.models.unwrap import unwrapped
from unteach.pipeline.directory import check_inputs, check_output, nothing_left_after_errors, prepare
from unteach.pipeline.run import write_report
from unteach.pipeline.settings import resumed, write_config
from unteach.prompts.mistakes import MistakeWording, load_wording
from unteach.results.arms import REMINDED
from unteach.results.cost import Meter
from unteach.results.report import Ending, Report, Waypoint, environment
from unteach.training.config import MOST_TOKENS
from unteach.training.curve import waypoints
from unteach.training.interrupt import StopOnInterrupt
from unteach.training.log_file import LogFile
from unteach.training.rows import repeated_to
from unteach.training.supervised import RowsTrainer

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
        subject = load_subject(config)
        check_settings(config, subject)
        analysed = config.analyses or (resume and (directory / ANALYSES).exists())
        analyst = None if analysed else make_analyst(config, subject)
        try:
            known = resume and read_found(directory, found)
            if not known:
                _take_up(config, material, subject, judges, wording, found)
        except KeyboardInterrupt:
            raise Interrupted("stopped before anything was written") from None
    prepare(directory, overwrite=overwrite)
    write_config(config, directory, f"unteach mistakes {verb_of(config)} --config run.yaml --output another-directory")
    write_found(directory, found)
    try:
        add_own_answers(material, subject.model, subject.form, config, subject.key)
        if analyst and not found.analyses:
            find_analyses(config, subject, analyst, wording, found, material.good_replies)
            write_found(directory, found)
    except KeyboardInterrupt:
        raise Interrupted("stopped; go on with --resume") from None
    return _tune_and_check(config, directory, material, subject, wording, judges, found)


def verb_of(config: MistakesConfig) -> str:
    """Return the verb that these settings belong to."""
    return "tune" if config.analyses else "run"


def inputs_of(config: MistakesConfig) -> list[str | None]:
    """Return all that a run reads: models, wording and rows."""
    rows = [*config.prompts, *config.mistakes, *config.reports, *config.analyses, *config.retain, *config.harmless]
    rows += [
        *config.unseen,
        *config.unseen_concept,
        *config.lookalike,
        *config.normal,
        *config.validation,
    ]
    return [config.model, config.wording, config.analyst, *rows]


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
    judges = load_judges(config.judge or ["repeats"], Setting("harm", config.judge_url, config.seed))
    for judge in judges:
        if isinstance(judge, Learner):
            raise ConfigError(f"--judge {judge.name}: it learns from the rows of `unteach run`; choose another judge")
    return judges


def load_subject(config: MistakesConfig) -> Subject:
    """Load the model under alignment; weights that are trained in full are held in float32. Raises ModelError."""
    if config.load_in_4bit and not config.lora:
        raise ConfigError("--load-in-4bit trains an adapter over frozen weights; add --lora")
    tokenizer = load_tokenizer(config.model, revision=config.revision, trust_remote_code=config.trust_remote_code)
    model = fresh_model(config)
    form = prompt_format(tokenizer, config.prompt_format, None, model.generation_config.eos_token_id)
    return Subject(config.model, model, form, model_fingerprint(model))


def _take_up(
    config: MistakesConfig,
    material: Material,
    subject: Subject,
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
    find_mistakes(config, material, subject, judges[0], wording, found)


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


def new_check(
    config: MistakesConfig,
    rows: dict[str, list[Example]],
    subject: Subject,
    wording: MistakeWording,
    judges: Sequence[Judge],
    notes: list[str],
) -> MistakesEvaluation:
    """Say how the arms are looked at."""
    return MistakesEvaluation(
        rows,
        subject.form,
        reminding_format(subject, wording),
        judges,
        wording,
        max_new_tokens=config.max_new_tokens,
        count=config.evaluation_prompts,
        limit=context_length(subject.model) or MOST_TOKENS,
        seed=config.seed,
        notes=notes,
    )


def _tune_and_check(
    config: MistakesConfig,
    directory: Path,
    material: Material,
    subject: Subject,
    wording: MistakeWording,
    judges: Sequence[Judge],
    found: Found,
) -> Report:
    """Measure the original, tune it, save it with its reminder, measure it, and write all of it."""
    corpus = corpus_of(config, subject, wording, found.analyses, material.normals, material.harmless, seed=config.seed)
    rows = repeated_to(corpus.rows, round(config.epochs * corpus.tokens), config.seed)
    notes = [*material.notes, *found.notes, f"tuned on {corpus}, {config.epochs:g} times", *corpus.notes]
    curve: list[Waypoint] = []
    with StopOnInterrupt() as interruption:
        try:
            looked = None
            if not config.skip_evaluation:
                looked = new_check(config, check_rows(found, material), subject, wording, judges, notes)
                looked.look_at("original", subject.model, subject.key)
            meter, before = Meter(), [*material.cost, *found.cost]
            watching = validation_curve_of(config, material, subject, wording, judges[0], meter, rows)
            trainer = train(
                config,
                subject.model,
                subject,
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
            save(trainer, directory / "model")
            notes.append(export_guidance(directory / "model", subject.form.tokenizer, wording.reminder))
            if looked:
                looked.look_at(TUNED, trainer.model.eval())
                _add_fluency(config, looked, trainer)
        except KeyboardInterrupt:
            raise Interrupted("stopped; go on with --resume") from None
    report = report_of(config, looked, material, found, notes)
    report.curve = curve
    report.comparisons = compare([{(m.name, m.split, m.arm): m for m in report.measurements}])
    step = trainer.state.global_step
    report.stop = Ending(step=step, rule="all rows", message=f"{len(rows)} rows, {tokens:,} tokens, were trained on")
    write_report(report, directory)
    return report


def _add_fluency(config: MistakesConfig, looked: MistakesEvaluation, trainer: RowsTrainer) -> None:
    """Score every arm's replies under the original."""
    model = unwrapped(trainer.model)
    if config.lora:
        with model.disable_adapter():
            check.add_fluency(looked.plain, model)
        return
    model.to("cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    check.add_fluency(looked.plain, fresh_model(config))


def report_of(
    config: MistakesConfig, looked: MistakesEvaluation | None, material: Material, found: Found, notes: list[str]
) -> Report:
    """Put measurements, samples, costs and notes together."""
    checked = looked.plain if looked else None
    return Report(
        scenario="harm",
        method=METHOD,
        model=config.model,
        judge=", ".join(config.judge or ["repeats"]),
        command=f"unteach mistakes {verb_of(config)} --config run.yaml --output another-directory",
        measurements=[*check.measure(checked), *(looked.recognised if looked else [])] if checked else [],
        judges=judge_metrics(checked) if checked else [],
        samples=check.samples(checked) if checked else [],
        cost=[*material.cost, *found.cost, *(checked.cost if checked else [])],
        data=material.sources,
        notes=notes,
        environment=environment() | {"seed": config.seed},
    )
