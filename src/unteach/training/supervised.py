"""Supervised fine-tuning by TRL on rows whose loss masks are checked in every batch, and settings of TRL trainers."""

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from unteach.errors import ConfigError, TrainingError
from unteach.models.dropout import without_dropout
from unteach.models.ranks import by_first_rank, share_of
from unteach.text.escape import inert_line
from unteach.training.checkpoints import last_complete, read_state, refuse_other_ranks, writing_checkpoint
from unteach.training.config import default_learning_rate
from unteach.training.rows import TrainingRow
from unteach.training.values import trainer_values

OWN = {
    "output_dir": "output",
    "per_device_train_batch_size": "batch_size",
    "num_train_epochs": "epochs",
    "use_cpu": "device",
} | {
    name: name
    for name in (
        "gradient_accumulation_steps",
        "learning_rate",
        "save_steps",
        "seed",
        "max_length",
        "trust_remote_code",
    )
}
"""Fields of SFTConfig that have a flag of their own, and that flag's setting."""


@dataclass(frozen=True)
class TuneSettings:
    """How to tune; `trainer` are other fields of SFTConfig.

    `batch_size` is that of all ranks together. `learning_rate` None is chosen from the model's width; `save_steps` None
    keeps no checkpoints.
    """

    output_dir: Path
    batch_size: int = 8
    gradient_accumulation_steps: int = 1
    learning_rate: float | None = None
    save_steps: int | None = 200
    seed: int = 0
    cpu: bool = False
    trainer: dict[str, Any] = field(default_factory=dict)


class MaskedCollator:
    """TRL's collator, which also checks every batch: loss on the tokens that the rows name, and on no others.

    Raises TrainingError for a batch with other labels.
    """

    def __init__(self, pad_token_id: int) -> None:
        self._pad = DataCollatorForLanguageModeling(pad_token_id=pad_token_id)

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        learnt = [feature.pop("learnt") for feature in features]
        batch: dict[str, torch.Tensor] = self._pad(features)
        for labels, mask in zip(batch["labels"], learnt, strict=True):
            found = labels != -100
            if found[: len(mask)].tolist() != mask or bool(found[len(mask) :].any()):
                raise TrainingError("a batch has loss where its rows have none; this is a fault of unteach: report it")
        return batch


class RowsTrainer(SFTTrainer):
    """TRL's SFTTrainer on rows in the given order, without dropout, so that nothing is drawn but by row and seed.

    A checkpoint is marked complete once all of it is written. Several ranks make the steps of one: each has its part of
    every batch, and the loss is the mean over the learnt tokens of all.
    """

    def __init__(self, rows: Sequence[TrainingRow], args: SFTConfig, **settings: Any) -> None:
        features = [
            {"input_ids": list(row.input_ids), "labels": row.labels, "learnt": list(row.learnt)} for row in rows
        ]
        self.tokens_in_all = sum(len(row.input_ids) for row in rows)
        self.digest = digest_of(rows)
        if args.world_size > 1:
            features += _without_loss(features, args.per_device_train_batch_size * args.world_size)
        super().__init__(train_dataset=Dataset.from_list(features), args=args, **settings)
        self.remove_callback(PrinterCallback)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; see the Trainer."""
        with without_dropout(self.model):
            return super().train(*args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        with writing_checkpoint(self, lambda: {"stage": "tune", "rows": self.digest}):
            super()._save_checkpoint(model, trial)


def _without_loss(features: Sequence[dict[str, Any]], batch: int) -> list[dict[str, Any]]:
    """Return rows that fill up the last batch and teach nothing; else ranks would learn the first rows once more."""
    shortest = min(features, key=lambda row: len(row["input_ids"]))
    ignored = {"labels": [-100] * len(shortest["labels"]), "learnt": [False] * len(shortest["learnt"])}
    return [shortest | ignored for _ in range(-len(features) % batch)]


def fields_of(settings: TuneSettings, model: Any, *, lora: bool) -> dict[str, Any]:
    """Return the fields that every TRL trainer gets, since our defaults differ from TRL's.

    The learning rate rises over a tenth of the steps and then falls to zero on a straight line. Sixteen-bit arithmetic
    is TRL's default even on a CPU, where it is off here. Raises ConfigError for a batch that the ranks cannot part.
    """
    on_gpu = torch.cuda.is_available() and not settings.cpu
    return {
        "output_dir": str(settings.output_dir),
        "per_device_train_batch_size": share_of(settings.batch_size, "--batch-size"),
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "learning_rate": settings.learning_rate or default_learning_rate(model, lora),
        "num_train_epochs": 1,
        "warmup_steps": 0.1,
        "lr_scheduler_type": "linear",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps" if settings.save_steps else "no",
        "save_steps": settings.save_steps or 1,
        "save_total_limit": 2,
        "remove_unused_columns": False,
        "bf16": on_gpu and model.dtype == torch.float32 and torch.cuda.is_bf16_supported(),
        "activation_checkpointing": on_gpu,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "report_to": "none",
        "seed": settings.seed,
        "use_cpu": settings.cpu,
    }


class StepsShown(TrainerCallback):
    """Show on a progress bar how many steps are done."""

    def __init__(self, progress: Any) -> None:
        self._progress = progress

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Show one more step."""
        self._progress(state.global_step, state.max_steps)


def tuner(
    model: Any,
    tokenizer: Any,
    pad_token_id: int,
    rows: Sequence[TrainingRow],
    settings: TuneSettings,
    *,
    peft_config: Any = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> RowsTrainer:
    """Make the trainer: one pass over `rows` in their order, full tuning or LoRA (`peft_config`).

    Raises ConfigError for a field of `trainer` that does not exist or does not fit.
    """
    arguments = arguments_of(model, settings, lora=peft_config is not None)
    with _errors_naming(settings.trainer), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        return RowsTrainer(
            rows,
            model=model,
            args=arguments,
            data_collator=MaskedCollator(pad_token_id),
            processing_class=tokenizer,
            peft_config=peft_config,
            callbacks=list(callbacks),
        )


def arguments_of(model: Any, settings: TuneSettings, *, lora: bool) -> SFTConfig:
    """Return the arguments of the trainer. Raises ConfigError for a field of `trainer` that is none or does not fit."""
    given = trainer_values(settings.trainer, SFTConfig, OWN)
    refuse_sharded_weights(given)
    fields = fields_of(settings, model, lora=lora) | {
        "max_length": None,
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "train_sampling_strategy": "sequential",
    }
    with _errors_naming(given):
        return SFTConfig(**(fields | given))


def refuse_sharded_weights(given: dict[str, Any]) -> None:
    """Raise ConfigError where `--set`, or accelerate, asks for weights that are spread over the ranks."""
    asked = [os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() == "true" for kind in ("FSDP", "DEEPSPEED")]
    if any(asked) or given.get("fsdp") or given.get("deepspeed"):
        raise ConfigError(
            "FSDP and DeepSpeed: each rank of `unteach mistakes` and `unteach baseline` must hold the whole model; "
            "start without them, or with --lora --load-in-4bit or a smaller model (docs/many-gpus.md)"
        )


@contextmanager
def _errors_naming(given: dict[str, Any]) -> Iterator[None]:
    """Turn what the block raises into a ConfigError that names the `--set` fields, where there are any."""
    try:
        yield
    except (TypeError, ValueError, ImportError) as error:
        if not given:
            raise
        raise ConfigError(f"--set {', '.join(given)}: {inert_line(str(error), 200)}") from error


def digest_of(rows: Sequence[TrainingRow]) -> str:
    """Identify rows and their order by their tokens and loss masks."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row.input_ids, row.learnt]).encode() + b"\n")
    return digest.hexdigest()[:16]


@by_first_rank
def checkpoint_to_resume(directory: Path, digest: str, ranks: int = 1) -> str | None:
    """Return the last complete checkpoint under a directory, or None to begin at the start.

    Checkpoints of other rows are removed and training begins anew, since somebody has edited the analyses. Raises
    OutputError for those of another number of ranks.
    """
    found = last_complete(directory, ranks)
    if found is None:
        refuse_other_ranks(directory, ranks)
    if found and read_state(found).get("rows") != digest:
        for path in directory.glob("checkpoint-*"):
            shutil.rmtree(path)
        return None
    return str(found) if found else None
