"""The words that Chain of Hindsight and Critique-Revise put to the model."""

from dataclasses import dataclass
from pathlib import Path

from unteach.prompts.wording import read_wording

SHIPPED = Path(__file__).with_name("baselines.yaml")


@dataclass(frozen=True)
class BaselineWording:
    """What goes before a good and before a bad answer, and the requests to criticise and to revise."""

    version: str
    good: str
    bad: str
    critique: str
    revision: str


def load_wording(path: str | None) -> BaselineWording:
    """Return the user's wording, or the shipped one where no file is named. Raises ConfigError naming the field."""
    return read_wording(BaselineWording, Path(path) if path else SHIPPED, f"copy {SHIPPED}")
