"""One measured metric: what every probe returns and every report holds."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unteach.text.escape import inert_line

Better = Literal["higher", "lower"]
HARM_SPLITS = ("seen", "unseen", "unseen_concept")
"""The splits whose prompts ask for the unwanted behaviour."""


class Measurement(BaseModel):
    """A metric of an arm on a split, with its 95 % interval.

    `value`, `low` and `high` are in `unit` ("fraction" for rates, 0 to 1) and None where nothing could be measured.
    `n` counts the cases that entered the metric, `unknown` those that were left out because they got no verdict.
    `difference` is the paired difference to the original on the same cases, in the same unit, with its interval; None
    for the original itself. `values` holds the value of each case, None where unknown; it is not stored. `seeds` holds
    the value of each run where the metric is a mean over seeds.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    split: str
    arm: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    unknown: int = 0
    unit: str
    better: Better
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    seeds: list[float | None] | None = None
    values: tuple[float | None, ...] = Field(default=(), exclude=True, repr=False)


def first_fault(error: ValidationError) -> str:
    """Return what is wrong with the first field of a results file that cannot be, safe to show."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    return f'field "{inert_line(field, 100)}": {inert_line(first["msg"], 200)}'
