"""Step 3: tune the model on rows, and what all tuning of this route needs to know of model and settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from unteach.data.encoded import encode_all
from unteach.data.example import Example
from unteach.data.prompt_format import PromptFormat
from unteach.errors import ConfigError
from unteach.judges.base import Judge
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.corpus import Corpus, make_corpus
from unteach.mistakes.guide import guided_format
from unteach.mistakes.material import Material
from unteach.mistakes.records import Analysis
from unteach.mistakes.steps import Subject
from unteach.models.adapter import lora_config
from unteach.models.context import context_length
from unteach.models.loading import load_configured
from unteach.progress import track
from unteach.prompts.mistakes import MistakeWording
from unteach.results.cost import Meter
from unteach.training.config import MOST_TOKENS
from unteach.training.curve import ValidationCurve
from unteach.training.rows import TrainingRow
from unteach.training.stopping import Behaviour
from unteach.training.supervised import RowsTrainer, StepsShown, TuneSettings, arguments_of, checkpoint_to_resume, tuner
from unteach.training.validation import behaviour_of


def fresh_model(config: MistakesConfig) -> Any:
    """Load the original once more, as it is before training."""
    return load_configured(config, config.model, trained=True)[1]


def longest_row(config: MistakesConfig, model: Any) -> int:
    """Return how many tokens a row may have. Raises ConfigError for more than the model can take."""
    context = context_length(model)
    if context and config.max_length and config.max_length > context:
        raise ConfigError(f"--max-length {config.max_length}: the model's context is {context} tokens; lower it")
    return config.max_length or min(context or MOST_TOKENS, MOST_TOKENS)


def check_settings(config: MistakesConfig, subject: Subject) -> None:
    """Try the settings that only the tuning reads, before hours of induction. Raises ConfigError."""
    longest_row(config, subject.model)
    arguments_of(subject.model, tune_settings(config, Path(config.output) / "checkpoints"), lora=config.lora)
    if config.lora:
        lora_config(config.lora_rank, config.lora_alpha, 0.0, config.lora_targets, subject.model)


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
    settings = tune_settings(config, directory)
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


def tune_settings(config: MistakesConfig, directory: Path) -> TuneSettings:
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


def corpus_of(
    config: MistakesConfig,
    subject: Subject,
    wording: MistakeWording,
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
        wording=wording,
        form=subject.form,
        max_length=longest_row(config, subject.model),
        normals_per_analysis=config.normals_per_analysis,
        harmless_per_analysis=config.harmless_per_analysis,
        seed=seed,
        learn_replies=learn_replies,
    )


def reminding_format(subject: Subject, wording: MistakeWording) -> PromptFormat:
    """Return the format that puts the reminder before every prompt."""
    eos = subject.model.generation_config.eos_token_id
    return guided_format(subject.form.tokenizer, wording.reminder, subject.form.name, eos)


def validation_curve_of(
    config: MistakesConfig,
    material: Material,
    subject: Subject,
    wording: MistakeWording,
    judge: Judge,
    meter: Meter,
    rows: Sequence[TrainingRow],
) -> list[ValidationCurve]:
    """Judge replies to the validation prompts, asked with the reminder, while the rows are learnt; none where none are."""
    if not (material.validation and config.validations):
        return []
    form = reminding_format(subject, wording)
    validation = encode_all(material.validation, form, longest_row(config, subject.model), "--validation")[0]
    per_step = config.batch_size * config.gradient_accumulation_steps

    def look(model: Any) -> Behaviour:
        return behaviour_of(model, form.tokenizer, validation, judge, config.max_new_tokens)

    def tokens(step: int) -> dict[str, int]:
        return {"backward": sum(len(row.input_ids) for row in rows[: step * per_step])}

    return [ValidationCurve(config.validations, look, meter, tokens)]
