"""KTO without pairs: replies that are not wanted, and normal ones that are.

Source: the unpaired form of APO-zero (arXiv 2408.06266) in TRL's KTOTrainer (`loss_type="apo_zero_unpaired"`); KTO
itself is arXiv 2402.01306. Needs: negatives; normal rows as desirable ones are optional (`--normals-per-row 0`).
Differs: the reference is the original in memory; rows are shuffled by us, since TRL takes them in the order given and
a batch of one kind teaches one thing; rows that are too long are left out whole. APO-zero has no KL term, so a batch
may be of one row and of one kind.
"""

import random
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import KTOConfig, KTOTrainer

from unteach.baselines.base import (
    Bench,
    Plain,
    Trained,
    learnt_rows,
    needed,
    ran,
    settings_of,
    trl_fields,
    with_normals,
)
from unteach.pipeline.original import adapter_settings
from unteach.training.config import default_learning_rate
from unteach.training.rows import TrainingRow

RATE = 0.5
"""Peak learning rate, times that of fine-tuning."""


class UnpairedTrainer(KTOTrainer):
    """TRL's KTOTrainer on rows of token ids, taken as they are."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


class Kto(Plain):
    """APO-zero on unpaired rows."""

    name = "kto"
    summary = "unpaired preference optimisation (APO-zero): negatives, and normal rows as desirable ones"
    source = "arXiv 2402.01306, 2408.06266"
    trl_config = KTOConfig
    needs = "negatives; normal rows beside them, optional"
    positives = False

    def prepare(self, bench: Bench) -> list[TrainingRow]:
        """Encode negatives and normal rows, and shuffle them."""
        negatives = learnt_rows(bench, bench.rows.negatives, "negative")
        rows = with_normals(bench, negatives, bench.normals_per_row(1.0))
        random.Random(f"kto:{bench.config.seed}").shuffle(rows)
        needed(bench, positives=0, negatives=len(negatives), pairs=0, normal_rows=len(rows) - len(negatives))
        return rows

    def train(self, bench: Bench, material: list[TrainingRow]) -> Trained:
        """Train on them."""
        tokens = sum(len(row.input_ids) for row in material)
        trainer = ran(
            bench,
            "kto",
            lambda callbacks: unpaired_trainer(bench, material, callbacks),
            lambda done: {"forward": tokens, "backward": round(tokens * done.state.epoch)},
        )
        return Trained(trainer.model, trainer.state.global_step, f"{len(material)} rows, negatives and normal rows")


def unpaired_trainer(bench: Bench, rows: list[TrainingRow], callbacks: list[TrainerCallback]) -> UnpairedTrainer:
    """Make the trainer."""
    lora = bench.config.lora
    settings = settings_of(bench, "kto", RATE * default_learning_rate(bench.original.model, lora))
    fields = trl_fields(
        settings,
        bench.original.model,
        lora=lora,
        loss_type="apo_zero_unpaired",
        beta=bench.config.beta or 0.1,
        num_train_epochs=bench.epochs(),
        max_length=None,
        train_sampling_strategy="sequential",
        precompute_ref_log_probs=True,
        disable_dropout=True,
    )
    data = [
        {
            "prompt_ids": list(row.encoded.prompt_ids),
            "completion_ids": list(row.encoded.reply_ids),
            "label": row.kind != "negative",
        }
        for row in rows
    ]
    return UnpairedTrainer(
        model=bench.original.model,
        args=KTOConfig(**fields),
        train_dataset=Dataset.from_list(data),
        processing_class=bench.original.form.tokenizer,
        peft_config=adapter_settings(bench.config, bench.original.model),
        callbacks=callbacks,
    )


baselines = (Kto(),)
