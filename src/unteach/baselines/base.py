"""What a baseline is: rows that it checks, material that it prepares, and training; by SFT unless it says otherwise."""

from abc import ABC, abstractmethod
from typing import Any

from trl import SFTConfig

from unteach.baselines.baseline_run import BaselineRun
from unteach.baselines.config import BaselineConfig
from unteach.baselines.material import lay_out_passes
from unteach.baselines.rows import BaselineRows
from unteach.baselines.stages import tune
from unteach.errors import DataError
from unteach.pipeline.train import Trained


class Baseline(ABC):
    """One way to make a model behave, to compare with; this one checks for good answers and tunes on rows by SFT.

    `needs` says in a few words what data it asks for, `trained_on` what its rows are. `trl_config` has the fields that
    `--set` may name. All methods raise DataError and ConfigError.
    """

    name = summary = source = needs = trained_on = ""
    trl_config: type = SFTConfig
    positives = True
    """Whether the negatives must have a good answer."""
    pairs = False
    """Whether a good answer is of use only beside the bad one."""
    alone = ""
    """Why one process must train it; empty where several ranks get what one gets."""

    def check(self, rows: BaselineRows, config: BaselineConfig) -> None:
        """Refuse rows that it cannot use, before any model is loaded."""
        if self.positives and not rows.with_good and not (rows.answered and not self.pairs):
            first = rows.negatives[0].where or "row 1"
            raise DataError(
                f"baseline {self.name}: none of the {len(rows.negatives)} negatives has a good answer (first: {first})"
                "; give rows with `chosen` beside `rejected`, a column `good`, or --good with answers to these prompts"
            )

    def phrase(self, config: BaselineConfig) -> str | None:
        """Return what goes before every prompt of the trained model, if anything."""
        return None

    @abstractmethod
    def prepare(self, run: BaselineRun) -> Any:
        """Make what it trains on, before anything is written; may ask the model."""

    def train(self, run: BaselineRun, material: Any) -> Trained:
        """Train the original in place, or an adapter on it."""
        trainer = tune(run, lay_out_passes(run, material), "tuning")
        return run.trained(trainer, f"{len(material)} {self.trained_on}")
