"""Step 3: tune the model on rows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from unteach.data.encoded import encode_all
from unteach.data.example import Example
from unteach.mistakes.corpus import Corpus, make_corpus
from unteach.mistakes.prepare import PreparedMistakes, tune_settings
from unteach.mistakes.records import Analysis
from unteach.pipeline.original import adapter_settings
from unteach.progress import track
from unteach.results.cost import Meter
from unteach.training.behaviour import Behaviour
from unteach.training.curve import ValidationCurve
from unteach.training.rows import TrainingRow
from unteach.training.supervised import RowsTrainer, StepsShown, checkpoint_to_resume, tuner
from unteach.training.validation import behaviour_of


def mix_rows(
    prepared: PreparedMistakes,
    analyses: Sequence[Analysis],
    harmless: Sequence[Example],
    *,
    seed: int,
    learn_replies: bool = False,
) -> Corpus:
    """Mix analyses with normal and harmless rows as the settings say."""
    config = prepared.config
    return make_corpus(
        analyses,
        prepared.rows.normals,
        harmless,
        wording=prepared.wording,
        form=prepared.original.form,
        max_length=prepared.max_length,
        normals_per_analysis=config.normals_per_analysis,
        harmless_per_analysis=config.harmless_per_analysis,
        seed=seed,
        learn_replies=learn_replies,
    )


def tune(
    prepared: PreparedMistakes,
    model: Any,
    rows: Sequence[TrainingRow],
    directory: Path,
    *,
    title: str = "tuning",
    seed: int | None = None,
    callbacks: Sequence[TrainerCallback] = (),
    checkpoints: bool = True,
) -> RowsTrainer:
    """Tune a model on rows in their order, with a progress bar; returns the trainer, whose `model` is the result.

    With `checkpoints`, training goes on from the last complete checkpoint in `directory`.
    """
    with track(title) as progress:
        trainer = tuner(
            model,
            prepared.original.tokenizer,
            prepared.original.form.ids.pad_id,
            rows,
            tune_settings(prepared.config, directory, seed, checkpoints),
            peft_config=adapter_settings(prepared.config, model),
            callbacks=[*callbacks, *([StepsShown(progress)] if progress else [])],
        )
        checkpoint = checkpoint_to_resume(directory, trainer.digest, trainer.args.world_size) if checkpoints else None
        trainer.train(resume_from_checkpoint=checkpoint)
    return trainer


def validation_curve(prepared: PreparedMistakes, meter: Meter, rows: Sequence[TrainingRow]) -> ValidationCurve | None:
    """Return the callback that judges replies to the validation prompts while `rows` are learnt; None without prompts.

    The prompts are asked with the reminder.
    """
    config = prepared.config
    if not (prepared.rows.validation and config.validations):
        return None
    form = prepared.reminding
    prompts = encode_all(prepared.rows.validation, form, prepared.max_length, "--validation")[0]
    per_step = config.batch_size * config.gradient_accumulation_steps

    def validate(model: Any) -> Behaviour:
        return behaviour_of(model, form, prompts, prepared.judges[0], config.max_new_tokens)

    def tokens(step: int) -> dict[str, int]:
        return {"backward": sum(len(row.input_ids) for row in rows[: step * per_step])}

    return ValidationCurve(config.validations, validate, meter, tokens)
