"""Fine-tuning on the normal data that remains, in the hope that the rest is forgotten.

Source: the baseline "Finetuning" of arXiv 2310.10683, section 4. Needs: normal rows only; the negatives are not trained
on, they only say what to measure. Differs: the normal rows of the run take the place of BookCorpus, and the loss is on
replies alone.
"""

from unteach.baselines.base import Bench, Plain, Trained, learnt_rows, needed, passes, tuned
from unteach.training.rows import TrainingRow


class Finetune(Plain):
    """SFT on normal rows."""

    name = "finetune"
    summary = "SFT on the remaining normal data only"
    source = "arXiv 2310.10683"
    needs = "normal rows"
    positives = False

    def prepare(self, bench: Bench) -> list[TrainingRow]:
        """Take all normal rows."""
        rows = learnt_rows(bench, bench.rows.normals, "normal")
        needed(bench, positives=0, negatives=0, pairs=0, normal_rows=len(rows))
        return rows

    def train(self, bench: Bench, material: list[TrainingRow]) -> Trained:
        """Tune on them."""
        trainer = tuned(bench, passes(bench, material))
        return Trained(trainer.model, trainer.state.global_step, f"{len(material)} normal rows")


baselines = (Finetune(),)
