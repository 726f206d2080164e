"""Direct preference optimisation on pairs of a good and a bad reply.

Source: arXiv 2305.18290, eq. 7, by TRL's DPOTrainer. As there, SFT on the good answers comes first (`--sft-epochs`):
where the original would never give them, the loss is satisfied long before the model gives them. Needs: pairs, a good
answer beside each bad one; normal rows for the SFT. Differs: the reference is the SFT model in memory, whose
log-probabilities are taken once before the first step (TRL would load the model's directory again); pairs are tokenised
by us, as they are when the model is asked, and those that are too long are left out whole (TRL would cut their ends
off). DPO itself sees no normal rows: nothing but β holds them.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trl import DPOConfig, DPOTrainer

from unteach.baselines.base import Baseline
from unteach.baselines.baseline_run import BaselineRun
from unteach.baselines.material import ReplyPair, add_normals, encode_good_answers, encode_pairs
from unteach.baselines.stages import REPEATS_ROWS, TakesIds, make_trainer, train_stage, tune_first
from unteach.pipeline.train import Trained
from unteach.training.rows import TrainingRow

RATE = 0.05
"""Peak learning rate, times that of fine-tuning."""
EPOCHS = 1.0
"""Passes over the pairs: on the organism three of them cost normal replies."""


@dataclass(frozen=True)
class DpoMaterial:
    """What the two stages are trained on."""

    sft: list[TrainingRow]
    pairs: list[ReplyPair]


class PairsTrainer(TakesIds, DPOTrainer):
    """TRL's DPOTrainer on pairs of token ids, taken as they are."""


class Dpo(Baseline):
    """DPO."""

    name = "dpo"
    summary = "direct preference optimisation on pairs of replies"
    source = "arXiv 2305.18290"
    trl_config = DPOConfig
    needs = "pairs: a good answer beside each bad one"
    pairs = True
    alone = REPEATS_ROWS

    def prepare(self, run: BaselineRun) -> DpoMaterial:
        """Encode the pairs, and the rows of the SFT before them."""
        pairs = encode_pairs(run, run.rows.with_good, run.notes)
        good = encode_good_answers(run) if run.config.sft_epochs else []
        rows = add_normals(run, good)
        normals = len(rows) - len(good)
        run.note_data(positives=len(good), negatives=len(pairs), pairs=len(pairs), normal_rows=normals)
        return DpoMaterial(rows, pairs)

    def train(self, run: BaselineRun, material: DpoMaterial) -> Trained:
        """Tune on the good answers, then train on the pairs."""
        model, peft = tune_first(run, material.sft)
        tokens = sum(pair.tokens for pair in material.pairs)
        trainer = train_stage(
            run,
            "dpo",
            lambda: pairs_trainer(run, material.pairs, model, peft),
            lambda trainer: {"forward": tokens, "backward": round(tokens * trainer.state.epoch)},
        )
        return run.trained(trainer, f"{len(material.pairs)} pairs")


def pairs_trainer(run: BaselineRun, pairs: Sequence[ReplyPair], model: Any, peft: Any) -> PairsTrainer:
    """Make the trainer; the reference is `model` as it is now."""
    trainer: PairsTrainer = make_trainer(
        run,
        "dpo",
        PairsTrainer,
        DPOConfig,
        [asdict(pair) for pair in pairs],
        model=model,
        peft=peft,
        rate=RATE,
        beta=run.config.beta or 0.1,
        num_train_epochs=run.config.epochs or EPOCHS,
        max_length=None,
        precompute_ref_log_probs=True,
    )
    return trainer


baselines = (Dpo(),)
