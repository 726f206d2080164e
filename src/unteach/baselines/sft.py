"""Supervised fine-tuning on good answers to the harmful prompts, mixed with normal rows.

Source: the baseline "SFT" of arXiv 2310.10683, the first stage of RLHF (arXiv 2203.02155). Needs: positives, a good
answer to each harmful prompt. Differs: normal rows are mixed in, one per good answer, since good answers that all
decline would teach to decline everything; `--normals-per-row 0` leaves them out.
"""

from unteach.baselines.base import Bench, Plain, Trained, good_rows, needed, passes, tuned, with_normals
from unteach.training.rows import TrainingRow


class Sft(Plain):
    """SFT on good answers."""

    name = "sft"
    summary = "SFT on good answers to the harmful prompts"
    source = "arXiv 2310.10683, 2203.02155"
    needs = "positives: a good answer to each harmful prompt; normal rows beside them"

    def prepare(self, bench: Bench) -> list[TrainingRow]:
        """Mix good answers and normal rows."""
        good = good_rows(bench)
        rows = with_normals(bench, good, bench.normals_per_row(1.0))
        needed(bench, positives=len(good), negatives=0, pairs=0, normal_rows=len(rows) - len(good))
        return rows

    def train(self, bench: Bench, material: list[TrainingRow]) -> Trained:
        """Tune on them."""
        trainer = tuned(bench, passes(bench, material))
        return Trained(trainer.model, trainer.state.global_step, f"{len(material)} rows, good answers and normal rows")


baselines = (Sft(),)
