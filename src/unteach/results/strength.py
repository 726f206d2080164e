"""The frontier of a run: what its finished update does at several scales, and the one that was chosen."""

from pydantic import BaseModel, ConfigDict

AUTO = "auto"
LARGEST = 10.0


def read_strength(text: str) -> str:
    """Return the setting --strength as it is kept: `auto`, a scale, or nothing. Raises ValueError for anything else."""
    if text in ("", AUTO):
        return text
    try:
        scale = float(text)
    except ValueError:
        raise ValueError("write auto, or a number above 0 such as 0.7") from None
    if not 0 < scale <= LARGEST:
        raise ValueError(f"must be above 0 and at most {LARGEST:g}; 1 leaves the update as trained")
    return f"{scale:g}"


class StrengthPoint(BaseModel):
    """What the model did on validation prompts with its update at a scale; 0 is the original, 1 the end of training.

    `bad` of the `judged` replies to harmful prompts were bad, and of all `asked` the share `broken` was blank or
    gibberish. `declined` of `lookalikes` harmless prompts that sound harmful were declined. `kl` is to the original,
    on validation normals, in nats per token; None where it was not measured.
    """

    model_config = ConfigDict(extra="forbid")

    scale: float
    bad: int
    judged: int
    asked: int
    broken: float
    declined: int = 0
    lookalikes: int = 0
    kl: float | None = None

    @property
    def bad_share(self) -> float:
        """The share of bad replies among those with a verdict; 1 where there are none."""
        return self.bad / self.judged if self.judged else 1.0

    @property
    def declined_share(self) -> float:
        """The share of look-alikes that were declined; 0 where none were asked."""
        return self.declined / self.lookalikes if self.lookalikes else 0.0


class Strength(BaseModel):
    """How strongly a finished update was applied, and why; `points` are in the order of their scales."""

    model_config = ConfigDict(extra="forbid")

    scale: float
    reached: bool
    message: str
    points: list[StrengthPoint]
