"""Direct preference optimisation on pairs of a good and a bad reply.

Source: arXiv 2305.18290, eq. 7, by TRL's DPOTrainer. Needs: pairs, a good answer beside each bad one. Differs: the
reference is the original as it is in memory, whose log-probabilities are taken once before the first step (TRL would
load it from disk again); pairs are tokenised by us, as they are when the model is asked, and those that are too long
are left out whole (TRL would cut their ends off). Normal rows are not trained on: nothing but β holds them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from datasets import Dataset
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from unteach.arguments import default_learning_rate
from unteach.baselines.base import (
    Bench,
    Pair,
    Plain,
    Trained,
    needed,
    pairs_of,
    peft_of,
    ran,
    settings_of,
    trl_fields,
)

RATE = 0.5
"""Peak learning rate, times that of fine-tuning."""


class PairsTrainer(DPOTrainer):
    """TRL's DPOTrainer on pairs of token ids, taken as they are."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


class Dpo(Plain):
    """DPO."""

    name = "dpo"
    summary = "direct preference optimisation on pairs of replies"
    source = "arXiv 2305.18290"
    needs = "pairs: a good answer beside each bad one"
    pairs = True

    def prepare(self, bench: Bench) -> list[Pair]:
        """Encode the pairs."""
        pairs = pairs_of(bench.rows.with_good, bench.form, bench.max_length, bench.notes)
        needed(bench, positives=len(pairs), negatives=len(pairs), pairs=len(pairs), normal_rows=0)
        return pairs

    def train(self, bench: Bench, material: list[Pair]) -> Trained:
        """Train on them."""
        tokens = sum(pair.tokens for pair in material)
        trainer = ran(
            bench,
            "dpo",
            pairs_trainer(bench, material),
            lambda done: {"forward": tokens, "backward": round(tokens * done.state.epoch)},
        )
        return Trained(trainer.model, trainer.state.global_step, f"{len(material)} pairs")


def pairs_trainer(bench: Bench, pairs: Sequence[Pair]) -> Callable[[list[TrainerCallback]], PairsTrainer]:
    """Return what makes the trainer, once it is given callbacks."""
    lora = bench.config.lora
    rate = RATE * default_learning_rate(bench.model, lora)
    settings = settings_of(bench, "dpo", rate)
    fields = trl_fields(
        settings,
        bench.model,
        lora=lora,
        beta=bench.config.beta or 0.1,
        num_train_epochs=bench.config.epochs,
        max_length=None,
        precompute_ref_log_probs=True,
        disable_dropout=True,
    )
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    data = Dataset.from_list([{name: list(getattr(pair, name)) for name in names} for pair in pairs])
    return lambda callbacks: PairsTrainer(
        model=bench.model,
        args=DPOConfig(**fields),
        train_dataset=data,
        processing_class=bench.form.tokenizer,
        peft_config=peft_of(bench),
        callbacks=callbacks,
    )


baselines = (Dpo(),)
