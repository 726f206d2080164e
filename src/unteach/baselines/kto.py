"""KTO without pairs: replies that are not wanted, and normal replies that are.

Source: the unpaired form of APO-zero (arXiv 2408.06266) in TRL's KTOTrainer (`loss_type="apo_zero_unpaired"`); KTO
itself is arXiv 2402.01306. Needs: negatives; normal rows as desirable ones are optional (`--normals-per-row 0`).
Differs: the reference is the original in memory; rows are shuffled by us, since TRL takes them in the order given and
a batch of one kind teaches one thing; rows that are too long are left out whole. APO-zero has no KL term, so a batch
may be of one row and of one kind.
"""

import random

from trl import KTOConfig, KTOTrainer

from unteach.baselines.base import Baseline
from unteach.baselines.baseline_run import BaselineRun
from unteach.baselines.material import add_normals, encode_rows
from unteach.baselines.stages import REPEATS_ROWS, TakesIds, make_trainer, train_stage
from unteach.pipeline.original import adapter_settings
from unteach.pipeline.train import Trained
from unteach.training.rows import TrainingRow

RATE = 0.5
"""Peak learning rate, times that of fine-tuning."""


class UnpairedTrainer(TakesIds, KTOTrainer):
    """TRL's KTOTrainer on rows of token ids, taken as they are."""


class Kto(Baseline):
    """APO-zero on unpaired rows."""

    name = "kto"
    summary = "unpaired preference optimisation (APO-zero): negatives, and normal rows as desirable ones"
    source = "arXiv 2402.01306, 2408.06266"
    trl_config = KTOConfig
    needs = "negatives; normal rows beside them, optional"
    positives = False
    alone = REPEATS_ROWS

    def prepare(self, run: BaselineRun) -> list[TrainingRow]:
        """Encode negatives and normal rows, and shuffle them."""
        negatives = encode_rows(run, run.rows.negatives, "negative")
        rows = add_normals(run, negatives)
        random.Random(f"kto:{run.config.seed}").shuffle(rows)
        run.note_data(positives=0, negatives=len(negatives), pairs=0, normal_rows=len(rows) - len(negatives))
        return rows

    def train(self, run: BaselineRun, material: list[TrainingRow]) -> Trained:
        """Train on them."""
        tokens = sum(len(row.input_ids) for row in material)
        trainer = train_stage(
            run,
            "kto",
            lambda: unpaired_trainer(run, material),
            lambda trainer: {"forward": tokens, "backward": round(tokens * trainer.state.epoch)},
        )
        return run.trained(trainer, f"{len(material)} rows, negatives and normal rows")


def unpaired_trainer(run: BaselineRun, rows: list[TrainingRow]) -> UnpairedTrainer:
    """Make the trainer."""
    data = [
        {
            "prompt_ids": row.encoded.prompt_ids,
            "completion_ids": row.encoded.reply_ids,
            "label": row.kind != "negative",
        }
        for row in rows
    ]
    trainer: UnpairedTrainer = make_trainer(
        run,
        "kto",
        UnpairedTrainer,
        KTOConfig,
        data,
        model=run.original.model,
        peft=adapter_settings(run.config, run.original.model),
        rate=RATE,
        loss_type="apo_zero_unpaired",
        beta=run.config.beta or 0.1,
        num_train_epochs=run.config.epochs or 3.0,
        max_length=None,
        train_sampling_strategy="sequential",
        precompute_ref_log_probs=True,
    )
    return trainer


baselines = (Kto(),)
