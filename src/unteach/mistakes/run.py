"""The pipeline: induce, analyse, tune, guide; then measure before and after, without and with the reminder."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from unteach import check
from unteach.agreement import judge_figures
from unteach.config import resumed, write_config
from unteach.data.example import Example
from unteach.data.prompt_format import prompt_format
from unteach.directory import LogFile, check_inputs, check_output, nothing_left_after_errors, prepare
from unteach.errors import ConfigError, Interrupted
from unteach.interrupt import StopOnInterrupt
from unteach.judges import load_judges
from unteach.judges.base import Judge, Learner, Setting
from unteach.mistakes.checking import MistakesCheck
from unteach.mistakes.comparisons import compare
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.corpus import Corpus, make_corpus
from unteach.mistakes.guide import export_guidance, guided_format
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
from unteach.mistakes.templates import Templates, load_templates
from unteach.mistakes.verdict import read_verdict
from unteach.models import context_length, load_model, load_tokenizer, lora_config, model_fingerprint
from unteach.progress import track
from unteach.report.schema import Report, Stop, environment
from unteach.run import write_report
from unteach.scoring import unwrapped
from unteach.trainer import MOST_TOKENS
from unteach.training_rows import TrainingRow, repeated_to
from unteach.tuning import RowsTrainer, StepsShown, TuneSettings, arguments_of, checkpoint_to_resume, tuner

METHOD = "mistake-analysis"
TUNED = "tuned"


def run_mistakes(config: MistakesConfig, *, resume: bool = False, overwrite: bool = False) -> Report:
    """Do the four steps and report on them; returns the report, which is also in the output directory.

    The directory also holds `mistakes.jsonl`, `held_mistakes.jsonl` and `analyses.jsonl`; with `resume`, those that are
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
        templates = load_templates(config.templates)
        material = gather(config)
        subject = load_subject(config)
        check_settings(config, subject)
        analysed = config.analyses or (resume and (directory / ANALYSES).exists())
        analyst = None if analysed else make_analyst(config, subject)
        try:
            known = resume and read_found(directory, found)
            if not known:
                _take_up(config, material, subject, judges, templates, found)
        except KeyboardInterrupt:
            raise Interrupted("stopped before anything was written") from None
    prepare(directory, overwrite=overwrite)
    write_config(config, directory, f"unteach mistakes {verb_of(config)} --config run.yaml --output another-directory")
    write_found(directory, found)
    try:
        add_own_answers(material, subject.model, subject.form, config, subject.key)
        if analyst and not found.analyses:
            find_analyses(config, subject, analyst, templates, found, material.good_replies)
            write_found(directory, found)
    except KeyboardInterrupt:
        raise Interrupted("stopped; go on with --resume") from None
    return _tune_and_check(config, directory, material, subject, templates, judges, found)


def verb_of(config: MistakesConfig) -> str:
    """Return the verb that these settings belong to."""
    return "tune" if config.analyses else "run"


def inputs_of(config: MistakesConfig) -> list[str | None]:
    """Return all that a run reads: models, templates and rows."""
    rows = [*config.prompts, *config.mistakes, *config.reports, *config.analyses, *config.normal, *config.harmless]
    rows += [*config.unseen, *config.unseen_concept, *config.lookalike, *config.normal_check]
    return [config.model, config.templates, config.analyst, *rows]


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
    tokenizer = load_tokenizer(
        config.model, revision=config.revision, trust_remote_code=config.trust_remote_code
    )
    model = fresh_model(config)
    form = prompt_format(tokenizer, config.prompt_format, None, model.generation_config.eos_token_id)
    return Subject(config.model, model, form, model_fingerprint(model))


def check_settings(config: MistakesConfig, subject: Subject) -> None:
    """Try the settings that only the tuning reads, before hours of induction. Raises ConfigError."""
    longest_row(config, subject.model)
    arguments_of(subject.model, _tune_settings(config, Path(config.output) / "checkpoints"), lora=config.lora)
    if config.lora:
        lora_config(config.lora_rank, config.lora_alpha, 0.0, config.lora_targets, subject.model)


def fresh_model(config: MistakesConfig) -> Any:
    """Load the original once more, as it is before training."""
    full = not config.lora and config.dtype == "auto"
    return load_model(
        config.model,
        dtype="float32" if full else config.dtype,
        device=config.device,
        revision=config.revision,
        load_in_4bit=config.load_in_4bit,
        trust_remote_code=config.trust_remote_code,
    )


def longest_row(config: MistakesConfig, model: Any) -> int:
    """Return how many tokens a row may have. Raises ConfigError for more than the model can take."""
    context = context_length(model)
    if context and config.max_length and config.max_length > context:
        raise ConfigError(f"--max-length {config.max_length}: the model's context is {context} tokens; lower it")
    return config.max_length or min(context or MOST_TOKENS, MOST_TOKENS)


def train(
    config: MistakesConfig,
    model: Any,
    subject: Subject,
    rows: Sequence[TrainingRow],
    directory: Path,
    *,
    title: str = "tuning",
    seed: int | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    keep: bool = True,
) -> RowsTrainer:
    """Tune a model on rows in their order, with a progress bar; returns the trainer, whose `model` is the result.

    With `keep`, checkpoints are kept in `directory`, and training goes on from the last complete one there.
    """
    peft = lora_config(config.lora_rank, config.lora_alpha, 0.0, config.lora_targets, model) if config.lora else None
    settings = _tune_settings(config, directory)
    settings.save_steps = config.save_steps if keep else None
    settings.seed = config.seed if seed is None else seed
    with track(title) as progress:
        trainer = tuner(
            model,
            subject.form.tokenizer,
            subject.form.ids.pad_id,
            rows,
            settings,
            peft_config=peft,
            callbacks=[*callbacks, *([StepsShown(progress)] if progress else [])],
        )
        trainer.train(resume_from_checkpoint=checkpoint_to_resume(directory, trainer.digest) if keep else None)
    return trainer


def _tune_settings(config: MistakesConfig, directory: Path) -> TuneSettings:
    return TuneSettings(
        directory,
        config.batch_size,
        config.gradient_accumulation_steps,
        config.learning_rate,
        config.save_steps,
        config.seed,
        cpu=(config.device or "").startswith("cpu"),
        trainer=config.trainer,
    )


def _take_up(
    config: MistakesConfig,
    material: Material,
    subject: Subject,
    judges: Sequence[Judge],
    templates: Templates,
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
        found.held = material.held_mistakes
        found.notes += _doubts(found.analyses)
        return
    find_mistakes(config, material, subject, judges[0], templates, found)


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


def corpus_of(
    config: MistakesConfig,
    subject: Subject,
    templates: Templates,
    analyses: Sequence[Analysis],
    normals: Sequence[Example],
    harmless: Sequence[Example],
    *,
    seed: int,
    learn_replies: bool = False,
) -> Corpus:
    """Mix rows as the settings say."""
    return make_corpus(
        analyses,
        normals,
        harmless,
        templates=templates,
        form=subject.form,
        max_length=longest_row(config, subject.model),
        normals_per_analysis=config.normals_per_analysis,
        harmless_per_analysis=config.harmless_per_analysis,
        seed=seed,
        learn_replies=learn_replies,
    )


def new_check(
    config: MistakesConfig,
    rows: dict[str, list[Example]],
    subject: Subject,
    templates: Templates,
    judges: Sequence[Judge],
    notes: list[str],
) -> MistakesCheck:
    """Say how the arms are looked at."""
    eos = subject.model.generation_config.eos_token_id
    reminding = guided_format(subject.form.tokenizer, templates.reminder, subject.form.name, eos)
    return MistakesCheck(
        rows,
        subject.form,
        reminding,
        judges,
        templates,
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
    templates: Templates,
    judges: Sequence[Judge],
    found: Found,
) -> Report:
    """Measure the original, tune it, save it with its reminder, measure it, and write all of it."""
    corpus = corpus_of(
        config, subject, templates, found.analyses, material.normals, material.harmless, seed=config.seed
    )
    rows = repeated_to(corpus.rows, round(config.epochs * corpus.tokens), config.seed)
    notes = [*material.notes, *found.notes, f"tuned on {corpus}, {config.epochs:g} times", *corpus.notes]
    with StopOnInterrupt() as interruption:
        try:
            looked = None
            if not config.skip_evaluation:
                looked = new_check(config, check_rows(found, material), subject, templates, judges, notes)
                looked.look_at("original", subject.model, subject.key)
            began = time.monotonic()
            trainer = train(
                config,
                subject.model,
                subject,
                rows,
                directory / "checkpoints",
                callbacks=[LogFile(directory / "log.jsonl"), interruption],
            )
            if interruption.asked:
                raise Interrupted(f"stopped at step {trainer.state.global_step}; go on with --resume")
            tokens = trainer.tokens_in_all
            cost = check.bill(trainer.model, TUNED, "tuning", time.monotonic() - began, backward=tokens)
            found.cost.append(cost)
            save(trainer, directory / "model")
            notes.append(export_guidance(directory / "model", subject.form.tokenizer, templates.reminder))
            if looked:
                looked.look_at(TUNED, trainer.model.eval())
                _add_fluency(config, looked, trainer)
        except KeyboardInterrupt:
            raise Interrupted("stopped; go on with --resume") from None
    report = report_of(config, looked, material, found, notes)
    report.comparisons = compare([{(m.name, m.split, m.arm): m for m in report.measurements}])
    step = trainer.state.global_step
    report.stop = Stop(step=step, rule="all rows", message=f"{len(rows)} rows, {tokens:,} tokens, were trained on")
    write_report(report, directory)
    return report


def save(trainer: RowsTrainer, directory: Path) -> None:
    """Save the result as safetensors, adapter or full weights, with its tokenizer."""
    trainer.save_model(str(directory))
    trainer.processing_class.save_pretrained(directory)
    for name in ("README.md", "training_args.bin"):
        (directory / name).unlink(missing_ok=True)  # TRL's card knows less than the run's; the arguments are a pickle


def _add_fluency(config: MistakesConfig, looked: MistakesCheck, trainer: RowsTrainer) -> None:
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
    config: MistakesConfig, looked: MistakesCheck | None, material: Material, found: Found, notes: list[str]
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
        judges=judge_figures(checked) if checked else [],
        samples=check.samples(checked) if checked else [],
        cost=[*found.cost, *(checked.cost if checked else [])],
        data=material.sources,
        notes=notes,
        environment=environment() | {"seed": config.seed},
    )
