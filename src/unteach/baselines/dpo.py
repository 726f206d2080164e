"""Direct preference optimisation on pairs of a good and a bad reply.

Source: arXiv 2305.18290, eq. 7, by TRL's DPOTrainer; as there, SFT on the good answers comes first (`--sft-epochs`),
for where the original would never give them, the loss is satisfied long before they are given. Needs: pairs, a good
answer beside each bad one; normal rows for the SFT. Differs: the reference is the SFT model in memory, whose
log-probabilities are taken once before the first step (TRL would load the model's directory again); pairs are tokenised
by us, as they are when the model is asked, and those that are too long are left out whole (TRL would cut their ends
off). DPO itself sees no normal rows: nothing but β holds them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from unteach.baselines.base import (
    Bench,
    Pair,
    Plain,
    Trained,
    good_rows,
    needed,
    pairs_of,
    ran,
    settings_of,
    sft_first,
    trl_fields,
    with_normals,
    without_copy,
)
from unteach.training.config import default_learning_rate
from unteach.training.rows import TrainingRow

RATE = 0.05
"""Peak learning rate, times that of fine-tuning."""
EPOCHS = 1.0
"""Passes over the pairs: on the organism three of them cost normal replies."""


@dataclass(frozen=True)
class Material:
    """What the two stages are trained on."""

    sft: list[TrainingRow]
    pairs: list[Pair]


class PairsTrainer(DPOTrainer):
    """TRL's DPOTrainer on pairs of token ids, taken as they are."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


class Dpo(Plain):
    """DPO."""

    name = "dpo"
    summary = "direct preference optimisation on pairs of replies"
    source = "arXiv 2305.18290"
    trl_config = DPOConfig
    needs = "pairs: a good answer beside each bad one"
    pairs = True

    def prepare(self, bench: Bench) -> Material:
        """Encode the pairs, and the rows of the SFT before them."""
        pairs = pairs_of(bench.rows.with_good, bench.original.form, bench.max_length, bench.notes)
        good = good_rows(bench) if bench.config.sft_epochs else []
        rows = with_normals(bench, good, bench.normals_per_row(1.0))
        normals = len(rows) - len(good)
        needed(bench, positives=len(good), negatives=len(pairs), pairs=len(pairs), normal_rows=normals)
        return Material(rows, pairs)

    def train(self, bench: Bench, material: Material) -> Trained:
        """Tune on the good answers, then train on the pairs."""
        model, peft = sft_first(bench, material.sft)
        tokens = sum(pair.tokens for pair in material.pairs)
        trainer = ran(
            bench,
            "dpo",
            lambda callbacks: pairs_trainer(bench, material.pairs, model, peft, callbacks),
            lambda done: {"forward": tokens, "backward": round(tokens * done.state.epoch)},
        )
        return Trained(without_copy(trainer), trainer.state.global_step, f"{len(material.pairs)} pairs")


def pairs_trainer(
    bench: Bench, pairs: Sequence[Pair], model: Any, peft: Any, callbacks: list[TrainerCallback]
) -> PairsTrainer:
    """Make the trainer; the reference is `model` as it is now."""
    lora = bench.config.lora
    rate = RATE * default_learning_rate(bench.original.model, lora)
    settings = settings_of(bench, "dpo", rate)
    fields = trl_fields(
        settings,
        bench.original.model,
        lora=lora,
        beta=bench.config.beta or 0.1,
        num_train_epochs=bench.epochs(EPOCHS),
        max_length=None,
        precompute_ref_log_probs=True,
        disable_dropout=True,
    )
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    data = Dataset.from_list([{name: list(getattr(pair, name)) for name in names} for pair in pairs])
    return PairsTrainer(
        model=model,
        args=DPOConfig(**fields),
        train_dataset=data,
        processing_class=bench.original.form.tokenizer,
        peft_config=peft,
        callbacks=callbacks,
    )


baselines = (Dpo(),)
