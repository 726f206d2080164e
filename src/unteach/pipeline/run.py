"""The pipeline: read, split, train, check, report."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from unteach.cache import cache_directory
from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.data.prompt_format import PromptFormat, prompt_format
from unteach.errors import ConfigError, Interrupted
from unteach.evaluation import evaluation as check
from unteach.evaluation.agreement import judge_metrics
from unteach.evaluation.general_ability import GeneralAbility, load_tasks
from unteach.judges import load_judges
from unteach.judges.base import Judge, Learner, Setting
from unteach.models.loading import load_model, load_tokenizer, lora_config, model_fingerprint
from unteach.models.unwrap import unwrapped
from unteach.objectives.methods import load_method
from unteach.pipeline.config import RunConfig, trainer_arguments, with_defaults
from unteach.pipeline.directory import check_inputs, check_output, nothing_left_after_errors, prepare
from unteach.pipeline.preflight import check_comparable, check_length, check_method
from unteach.pipeline.rows import Sets, add_lookalikes, add_own_answers, encode_non_members, encode_splits, read_sets
from unteach.pipeline.settings import inputs_of, resumed, write_config
from unteach.progress import track
from unteach.report.card import write_card
from unteach.report.page import write_page
from unteach.results.report import Ending, Report, environment
from unteach.scenarios import load_scenario
from unteach.scoring.reference import CachedStates
from unteach.text.escape import inert_line
from unteach.training.config import UnlearnConfig
from unteach.training.curve import waypoints
from unteach.training.interrupt import StopOnInterrupt
from unteach.training.log_file import LogFile
from unteach.training.trainer import UnlearnTrainer


def run(config: RunConfig, *, resume: bool = False, overwrite: bool = False) -> Report:
    """Unlearn, check and report; returns the report, which is also in the output directory.

    Everything that can be wrong with settings, data and model is found before anything is written. Raises
    UnteachError; `Interrupted` after Ctrl-C, with a checkpoint to go on from.
    """
    directory = check_output(config.output, overwrite=overwrite, resume=resume)
    asked = resumed(config, directory) if resume else config
    config = with_defaults(asked)
    if resume and (directory / "report.json").exists():
        raise ConfigError(
            f"--resume: the run in {directory} is finished, see its report.html; for another, name another --output"
        )
    if not config.model or not config.forget:
        missing = "--model" if not config.model else "--forget"
        raise ConfigError(f"{missing} is missing; see unteach run --help")
    check_inputs(directory, inputs_of(config), overwrite=overwrite)
    with nothing_left_after_errors(directory):
        judges = judges_of(config)
        arguments = trainer_arguments(config, directory / "checkpoints")
        check_method(config)
        ability = load_tasks(config.lm_eval, config.lm_eval_items)
        sets = read_sets(config)
        if not asked.method and config.method != load_scenario(config.scenario).defaults["method"]:
            sets.notes.append(f"--template asks for a method that teaches it: {config.method} was chosen")
        tokenizer, model = load(config, config.model, trained=True)
        check_length(config, model)
        if config.retrained:
            check_comparable(config, config.retrained, tokenizer)
        trainer = _trainer(config, arguments, model, tokenizer, sets, judges[0])
        update = {"learning_rate": arguments.learning_rate, "max_length": arguments.max_length}
        config = config.model_copy(update=update)
        splits = {} if config.skip_evaluation else _evaluation_rows(config, trainer, sets)
        trusted = taught(judges, sets.uncut["negatives"], sets.uncut.get("normals", []), sets.notes)
        kept = [spec for spec, judge in zip(config.judge, judges, strict=True) if judge in trusted]
        config, judges = config.model_copy(update={"judge": kept}), trusted
        checked = new_check(config, splits, trainer.format, judges, ability)
        limit = trainer.args.max_length
        checked.non_members = encode_non_members(sets.non_members, trainer.format, config, limit, sets.notes)
    prepare(directory, overwrite=overwrite)
    write_config(config, directory)
    return _train_and_check(config, directory, trainer, checked, sets, resume)


def _trainer(
    config: RunConfig, arguments: UnlearnConfig, model: Any, tokenizer: Any, sets: Sets, judge: Judge
) -> UnlearnTrainer:
    """Make the trainer, and before it the normal rows and look-alikes where there are none."""
    peft = lora_config(config.lora_rank, config.lora_alpha, 0.0, config.lora_targets, model) if config.lora else None
    lookalikes = config.scenario == "harm" and not sets.evaluation["lookalike"] and not config.skip_evaluation
    if not sets.normals or lookalikes:
        form, key = model_format(config, tokenizer, model), model_fingerprint(model)
        if not sets.normals:
            add_own_answers(sets, model, form, config, key)
        if lookalikes:
            add_lookalikes(sets, model, form, config, key)
    try:
        return UnlearnTrainer(
            model,
            arguments,
            sets.negatives["train"],
            sets.normals["train"],
            processing_class=tokenizer,
            peft_config=peft,
            forget_validation=sets.negatives["validation"],
            retain_validation=sets.normals["validation"],
            judge=judge,
        )
    except (ValueError, RuntimeError, ImportError) as error:
        if not config.trainer:
            raise
        raise ConfigError(f"--set {', '.join(config.trainer)}: {inert_line(str(error), 200)}") from error


def _train_and_check(
    config: RunConfig,
    directory: Path,
    trainer: UnlearnTrainer,
    checked: check.Checked,
    sets: Sets,
    resume: bool,
) -> Report:
    """Measure the original, train, measure the result, compare, write all of it."""
    with StopOnInterrupt() as interruption:
        try:
            reference = look_at_original(checked, trainer.model, trainer.original_key) if checked.splits else None
            trainer.add_callback(LogFile(directory / "log.jsonl"))
            trainer.add_callback(interruption)
            trainer.train(resume_from_checkpoint=resume)
            if interruption.asked:
                step = trainer.state.global_step
                raise Interrupted(f"stopped at step {step}, checkpoint written; go on with --resume")
            before = [*sets.cost]
            checked.cost += [*before, trainer.meter.cost(trainer.model, "unlearned", "training")]
            checked.curve = waypoints(trainer.curve, trainer.model, "unlearned", "training", config.seed, before)
            save_model(trainer, directory / "model")
            if reference:
                check.look_at(checked, "unlearned", trainer.model, reference)
                look_at_others(checked, trainer.model, config, reference)
        except KeyboardInterrupt:
            raise Interrupted("stopped; go on with --resume") from None
    report = make_report(config, checked, sets, trainer.notes)
    report.stop = _end_of(trainer)
    write_report(report, directory)
    return report


def _end_of(trainer: UnlearnTrainer) -> Ending:
    """Say why training ended: a rule ended it, or its steps were over."""
    if trainer.stop:
        return Ending(step=trainer.stop.step, rule=trainer.stop.rule, message=trainer.stop.message)
    step, points = trainer.state.global_step, trainer.curve.points
    message = f"all {step} steps were made"
    if trainer.rules and points:
        seen = points[-1]
        message += (
            f"; the behaviour target had not passed: at step {seen.step}, {seen.bad} of {seen.judged} replies to "
            f"validation prompts were bad and {seen.broken:.1%} broken"
        )
    return Ending(step=step, rule="end of the schedule", message=message)


def _evaluation_rows(config: RunConfig, trainer: UnlearnTrainer, sets: Sets) -> dict[str, list[Encoded]]:
    """Encode the rows of every split; `seen` are the forget rows in the order in which training meets them."""
    seen = sets.evaluation.get("seen")
    if not seen:
        items = trainer.train_dataset
        met = dict.fromkeys(items.negative_index(n) for n in range(min(len(items), 4 * config.evaluation_prompts)))
        seen = [trainer.sets.negatives[n].example for n in met]
    if not sets.evaluation["unseen"]:
        sets.notes.append("too few negatives to hold some out: nothing was measured on unseen ones; see --unseen")
    return encode_splits({"seen": seen} | sets.evaluation, trainer.format, config, trainer.args.max_length, sets.notes)


# ---- models ----------------------------------------------------------------------------------------------------------


def load(config: RunConfig, name: str, trained: bool = False) -> tuple[Any, Any]:
    """Load tokenizer and model; weights that are trained in full are held in float32, since small updates to bfloat16
    weights are lost in rounding."""
    remote = config.trust_remote_code
    revision = config.revision if name == config.model else None
    tokenizer = load_tokenizer(name, revision=revision, trust_remote_code=remote)
    full = trained and not config.lora
    model = load_model(
        name,
        dtype="float32" if full and config.dtype == "auto" else config.dtype,
        device=config.device,
        revision=revision,
        load_in_4bit=config.load_in_4bit,
        trust_remote_code=remote,
    )
    return tokenizer, model


def model_format(config: RunConfig, tokenizer: Any, model: Any) -> PromptFormat:
    return prompt_format(tokenizer, config.prompt_format, None, model.generation_config.eos_token_id)


def save_model(trainer: UnlearnTrainer, directory: Path) -> None:
    """Save the result as safetensors, adapter or full weights, with its tokenizer."""
    trainer.save_model(str(directory))
    trainer.processing_class.save_pretrained(directory)
    (directory / "README.md").unlink(missing_ok=True)  # PEFT's card says nothing; the run's is beside this directory


# ---- checking --------------------------------------------------------------------------------------------------------


def judges_of(config: RunConfig) -> list[Judge]:
    """Make the judges of a run; the first decides."""
    return load_judges(config.judge, Setting(config.scenario, config.judge_url, config.seed))


def taught(
    judges: list[Judge], negatives: list[Example], normals: list[Example], notes: list[str], judged: bool = False
) -> list[Judge]:
    """Let judges that learn see these rows; return those that can be trusted.

    They are the training rows, or, with `judged`, the very rows that will be judged, from which a judge with
    `own_rows` may not learn. Raises ConfigError where the first judge, which decides, cannot be trusted; another that
    cannot is left out with a note.
    """
    trusted = []
    for judge in judges:
        try:
            if isinstance(judge, Learner):
                if judged and judge.own_rows:
                    raise ConfigError(
                        f"--judge {judge.name}: it learns from the training rows of `unteach run`, and here all rows "
                        "are judged; choose another judge"
                    )
                judge.learn(negatives, normals)
            trusted.append(judge)
        except ConfigError as error:
            if judge is judges[0]:
                raise
            notes.append(f"no second opinion: {error}")
    return trusted


def new_check(
    config: RunConfig,
    splits: dict[str, list[Encoded]],
    form: PromptFormat,
    judges: list[Judge],
    ability: GeneralAbility | None = None,
) -> check.Checked:
    """Say how the arms of a run are looked at."""
    template = config.template if config.method and load_method(config.method).reads("template") else None
    return check.Checked(
        splits,
        form,
        judges,
        config.max_new_tokens,
        config.scenario,
        config.samples,
        config.seed,
        template=template,
        ability=ability,
    )


def look_at_original(checked: check.Checked, model: Any, fingerprint: str) -> CachedStates:
    """Measure the original before training moves it, and keep its final states for the KL of the other arms."""
    trees = check.reply_trees(checked.splits)
    content = hashlib.sha256(repr([(tree.key, tree.prompt_ids, tree.branches) for tree in trees]).encode()).hexdigest()
    key = f"check-{fingerprint}-{content[:16]}"
    with track("original on the check rows") as progress:
        reference = CachedStates.build(model, trees, cache_directory() / "reference", key, progress=progress)
    check.look_at(checked, "original", model, reference, fingerprint)
    return reference


def look_at_others(checked: check.Checked, trained: Any, config: RunConfig, reference: CachedStates) -> None:
    """Measure the retrained model where there is one, and everybody's fluency under the original."""
    if config.retrained:
        _, retrained = load(config, config.retrained)
        check.look_at(checked, "retrained", retrained, reference, model_fingerprint(retrained))
        del retrained
    model = unwrapped(trained)
    if config.lora:
        with model.disable_adapter():
            check.add_fluency(checked, model)
        return
    model.to("cpu")
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    check.add_fluency(checked, load(config, config.model)[1])


def make_report(config: RunConfig, checked: check.Checked, sets: Sets, notes: list[str]) -> Report:
    """Put measurements, samples, costs and notes together."""
    return Report(
        scenario=config.scenario,
        method=config.method,
        model=config.model,
        judge=", ".join(config.judge),
        measurements=check.measure(checked) if checked.looks else [],
        judges=judge_metrics(checked),
        samples=check.samples(checked) if checked.looks else [],
        cost=checked.cost,
        curve=checked.curve,
        data=sets.sources,
        notes=[*sets.notes, *check.notes_of(checked), *notes],
        environment=environment() | {"seed": config.seed},
    )


def write_report(report: Report, directory: Path) -> None:
    """Write report.json, report.html and the model card."""
    report.write(directory)
    write_page(report, directory)
    write_card(report, directory)
