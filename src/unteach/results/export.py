"""What export.json holds: each artefact of a run, and how it was compared with the run's own model."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from unteach.disk.files import write_whole
from unteach.results.report import BadRate, Words

FILE_NAME = "export.json"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Likeness(_Strict):
    """How far two models agree on the same prompts.

    `agreement` is the share of the `n` prompts to which both give the same greedy reply, with its Wilson interval.
    `mean_difference` and `largest_difference` are of the log-probabilities of `tokens` reply tokens, in nats a token,
    without sign.
    """

    n: int
    agreement: float
    low: float
    high: float
    tokens: int
    mean_difference: float
    largest_difference: float


class Artefact(_Strict):
    """One exported form: where it lies, its precision, and how it was compared.

    `trained` is its likeness to the run's own model and `original` that to the model that the run started from; `moved`
    is the likeness of these two to each other. `bad_rates` are those of the judge; arms are named as elsewhere, and the
    artefact is "exported". `bad_difference` is exported minus unlearned on the same prompts, with its interval.
    """

    form: Literal["merged", "adapter", "gguf", "ollama"]
    place: Words
    dtype: str
    bytes: int
    trained: Likeness
    original: Likeness
    moved: Likeness
    bad_rates: list[BadRate] = []
    bad_difference: tuple[float | None, float | None, float | None] | None = None
    notes: list[Words] = []


class Export(_Strict):
    """All artefacts of one run, and the prompts, settings and versions that they were compared with."""

    run: Words
    model: Words
    method: str
    prompts: dict[str, int]
    max_new_tokens: int
    judge: Words = ""
    artefacts: list[Artefact] = []
    notes: list[Words] = []
    environment: dict[str, Any] = {}

    def write(self, directory: Path) -> Path:
        """Write export.json, whole or not at all. Raises OutputError."""
        return write_whole(directory / FILE_NAME, self.model_dump_json(indent=1) + "\n")
