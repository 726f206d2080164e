"""What report.json holds: every metric, sample, cost and data set of one run."""

import importlib.metadata
import json
import math
import os
import platform
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from unteach.disk.files import without_surrogates, write_whole
from unteach.errors import DataError
from unteach.results.arms import ARMS, in_order
from unteach.results.budget import Plan
from unteach.results.measurement import Measurement, first_fault
from unteach.results.strength import Strength
from unteach.results.verdict import Quality, Verdict
from unteach.text.bounded import read_json
from unteach.text.escape import inert_line

FILE_NAME = "report.json"
SCHEMA = 2
"""Version of report.json; version 1 had other names for arms, stages and metrics."""
EVALUATION_STAGES = ("evaluation", "evaluating ", "fluency", "inducing on ")
"""How the names of stages begin that measure an arm."""

Words = Annotated[str, BeforeValidator(without_surrogates)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, serialize_by_alias=True)


class Sample(_Strict):
    """One prompt with every arm's reply and the verdict on it; `cut` names the arms that had not ended their reply."""

    split: str
    prompt: Words
    replies: dict[str, Words]
    verdicts: dict[str, Verdict] = {}
    cut: list[str] = []


class Cost(_Strict):
    """What one stage of one arm took; None where it was not counted.

    `tokens` is the sum of the three counts below it: tokens that went through the model forward only, forward and
    backward, and tokens that were generated one by one. In a report on several seeds all of these are sums over the
    seeds, and `seed_flops` holds the FLOPs of each seed.
    """

    arm: str
    stage: str
    wall_seconds: float | None
    tokens: int | None = None
    tokens_forward: int | None = None
    tokens_backward: int | None = None
    tokens_generated: int | None = None
    flops: float | None = None
    peak_bytes: int | None = None
    energy_joules: float | None = None
    seed_flops: list[float | None] = []

    @property
    def is_evaluation(self) -> bool:
        """Whether the stage measured the arm, rather than made it."""
        return self.stage.startswith(EVALUATION_STAGES)


class Waypoint(_Strict):
    """How an arm behaved on the validation prompts at one point of its training, and what it had cost by then.

    `value` is the share of bad replies among the `n` that were judged, with its 95 % interval; `broken` is the share of
    all replies that are blank or gibberish. `step` counts optimizer steps of the `stage`. The cost covers everything
    since the arm was begun, preparation included and validation left out.
    """

    arm: str
    seed: int
    stage: str
    step: int
    wall_seconds: float
    flops: float
    value: float | None
    low: float | None
    high: float | None
    n: int
    unknown: int = 0
    broken: float | None = None


OWN_ANSWERS = "the model's own answers"
"""How the `source` of normal rows begins where the user gave none and the model answered prompts itself."""


class Source(_Strict):
    """One set of rows that the run used; equal fingerprints mean equal rows."""

    name: Words
    source: Words
    rows: int
    fingerprint: str


class HalfBehaviour(_Strict):
    """How a model behaved on one half of the validation prompts after `step` steps; step 0 is the original.

    `value` is the share of bad replies among the `n` that were judged, with its Wilson interval of confidence `level`;
    `broken` is the share of all replies that are blank or gibberish. Half A is asked at every validation, half B only
    at the beginning and at the end, and `look` counts the times since the beginning that it was.
    """

    unit: ClassVar[str] = "fraction"

    half: Literal["A", "B"]
    step: int
    value: float | None
    low: float | None
    high: float | None
    n: int
    unknown: int
    broken: float
    level: float = 0.95
    look: int | None = None


class Ending(_Strict):
    """When training ended, as a number of optimizer steps, and which rule ended it.

    `met_at` is the step at which the behaviour target was met, where it was `confirmed` at the end. `halves` are the
    original's behaviour, every look at half B, and half A at the end; empty without stopping rules.
    """

    step: int
    rule: str
    message: Words
    met_at: int | None = None
    confirmed: bool = False
    halves: list[HalfBehaviour] = []


class BadRate(_Strict):
    """How often one judge finds an arm's replies on a split bad: a fraction with its 95 % interval.

    `n` counts good and bad verdicts, `unknown` the replies that got neither.
    """

    unit: ClassVar[str] = "fraction"

    arm: str
    split: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    unknown: int = 0


class Agreement(_Strict):
    """How a judge agrees with the first one on replies to harmful prompts; `arm` is None for all arms together.

    `kappa` is Cohen's, over the `n` replies that both judges could judge, with its 95 % interval; where it is None,
    `note` says why. `confusion` counts replies by the first judge's verdict, then by this judge's.
    """

    arm: str | None
    kappa: float | None
    low: float | None
    high: float | None
    n: int
    note: str = ""
    confusion: dict[Verdict, dict[Verdict, int]]


class JudgeMetrics(_Strict):
    """One judge: how far it can be trusted, what it says of every arm, and how it agrees with the first judge."""

    name: Words
    quality: Quality | None = None
    rates: list[BadRate] = []
    agreement: list[Agreement] = []

    def rate(self, arm: str, split: str) -> BadRate | None:
        """Return the rate of an arm on a split, or None where there is none."""
        return next((rate for rate in self.rates if (rate.arm, rate.split) == (arm, split)), None)


class PairedDifference(_Strict):
    """The paired difference of one metric between two arms on the same cases: `arm` minus `against`.

    With several seeds it is the mean over seeds, case by case, and `seeds` holds the difference of each seed. `claim`
    is the question that it answers.
    """

    claim: str
    name: str
    split: str
    arm: str
    against: str
    value: float | None
    low: float | None
    high: float | None
    n: int
    seeds: list[float | None] = []


class Report(_Strict):
    """The results of one run, as report.json holds them.

    `command` repeats the run when called in its directory. `weights` is the place of the new weights in that directory,
    empty where no weights were changed.
    """

    schema_version: Literal[2] = Field(default=2, alias="schema")
    scenario: str
    method: str
    model: Words
    judge: Words = ""
    command: Words = "unteach run --config run.yaml --output another-directory"
    weights: Words = "model"
    measurements: list[Measurement] = []
    comparisons: list[PairedDifference] = []
    judges: list[JudgeMetrics] = []
    samples: list[Sample] = []
    cost: list[Cost] = []
    curve: list[Waypoint] = []
    data: list[Source] = []
    stop: Ending | None = None
    strength: Strength | None = None
    budget: Plan | None = None
    notes: list[Words] = []
    environment: dict[str, Any] = {}

    def arms(self) -> list[str]:
        """Return the name of every arm that has a metric or a reply: original, unlearned, retrained, then others."""
        named = [metric.arm for metric in self.measurements]
        named += [arm for sample in self.samples for arm in sample.replies]
        return in_order(named, ARMS)

    def measured_arms(self) -> list[str]:
        """Return the name of every arm that has a metric, in the same order."""
        return in_order((metric.arm for metric in self.measurements), ARMS)

    @property
    def is_study(self) -> bool:
        """Whether the report is on a study of learning from mistakes, with many arms."""
        return self.method == "mistakes-study"

    @property
    def is_baseline(self) -> bool:
        """Whether the run trained a baseline, to compare unlearning with."""
        return self.command.startswith("unteach baseline ")

    def measured(self, name: str, split: str, arm: str) -> Measurement | None:
        """Return the metric of that name, split and arm, or None where there is none."""
        for metric in self.measurements:
            if (metric.name, metric.split, metric.arm) == (name, split, arm):
                return metric
        return None

    @classmethod
    def read(cls, directory: str | Path) -> "Report":
        """Read report.json of a run directory.

        Raises DataError, naming the file and the field, where it is missing, broken or of another version.
        """
        path = Path(directory) / FILE_NAME
        try:
            raw = read_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; name a run directory that holds a {FILE_NAME}") from None
        except NotADirectoryError:
            raise DataError(f"{directory}: is a file; name the run directory that holds {FILE_NAME}") from None
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
        except ValueError as error:  # malformed JSON, or bytes that are not UTF-8
            raise DataError(f"{path}: not valid JSON ({error}); run `unteach evaluate` again") from None
        if not isinstance(raw, dict) or "schema" not in raw:
            raise DataError(f"{path}: not a report of unteach; name the directory of a run")
        version = raw["schema"]
        if version != SCHEMA:
            fix = "measure the model again with `unteach evaluate`, or use the unteach that wrote it"
            raise DataError(f"{path}: schema is {inert_line(repr(version), 40)}, not {SCHEMA}; {fix}")
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise DataError(f"{path}: {first_fault(error)}; run `unteach evaluate` again") from None

    def write(self, directory: str | Path) -> Path:
        """Write report.json into the directory, whole or not at all; numbers that are not finite become null.

        Raises OutputError where the directory cannot be written.
        """
        plain = _finite(self.model_dump())
        text = json.dumps(plain, indent=1, allow_nan=False)
        return write_whole(Path(directory) / FILE_NAME, text + "\n")


def environment() -> dict[str, str | int]:
    """Return what the run used: versions of libraries, platform, device and processor cores."""
    import torch

    versions = {name: _version(name) for name in ("torch", "transformers", "peft", "unteach")}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "python": platform.python_version(),
        **versions,
        "platform": platform.platform(),
        "device": device,
        "cores": cores,
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value
