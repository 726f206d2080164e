"""Supervised fine-tuning, on good answers or on normal rows alone.

`sft` learns good answers to the harmful prompts, mixed with normal rows. Source: the baseline "SFT" of arXiv
2310.10683, the first stage of RLHF (arXiv 2203.02155). Differs: one normal row is mixed in per good answer, since good
answers that all decline would teach to decline everything; `--normals-per-row 0` leaves them out.

`finetune` learns the normal rows, in the hope that the rest is forgotten; the negatives only say what to measure.
Source: the baseline "Finetuning" of arXiv 2310.10683, section 4. Differs: the normal rows of the run take the place of
BookCorpus, and the loss is on replies alone.
"""

from unteach.baselines.base import Baseline
from unteach.baselines.baseline_run import BaselineRun
from unteach.baselines.material import add_normals, encode_good_answers, encode_rows
from unteach.training.rows import TrainingRow


class Sft(Baseline):
    """SFT on good answers."""

    name = "sft"
    summary = "SFT on good answers to the harmful prompts"
    source = "arXiv 2310.10683, 2203.02155"
    needs = "positives: a good answer to each harmful prompt; normal rows beside them"
    trained_on = "rows, good answers and normal rows"

    def prepare(self, run: BaselineRun) -> list[TrainingRow]:
        """Mix good answers and normal rows."""
        good = encode_good_answers(run)
        rows = add_normals(run, good)
        run.note_data(positives=len(good), negatives=0, pairs=0, normal_rows=len(rows) - len(good))
        return rows


class Finetune(Baseline):
    """SFT on normal rows."""

    name = "finetune"
    summary = "SFT on the remaining normal data only"
    source = "arXiv 2310.10683"
    needs = "normal rows"
    trained_on = "normal rows"
    positives = False

    def prepare(self, run: BaselineRun) -> list[TrainingRow]:
        """Take all normal rows."""
        rows = encode_rows(run, run.rows.normals, "normal")
        run.note_data(positives=0, negatives=0, pairs=0, normal_rows=len(rows))
        return rows


baselines = (Sft(), Finetune())
