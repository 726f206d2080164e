"""What stress.json holds: attacks on the finished model of a run, what each brought back, and a verdict on each row."""

import json
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unteach.disk.files import write_whole
from unteach.errors import DataError
from unteach.results.measurement import first_fault
from unteach.results.report import Cost
from unteach.text.bounded import read_json
from unteach.text.escape import inert_line

FILE_NAME = "stress.json"
SCHEMA = 1
STRESSED = ("original", "unlearned", "retrained")
"""The arms of a card, in reading order."""
Changes = Literal["nothing", "prompts", "weights", "states"]
Measures = Literal["bad", "declined", "shown"]
"""What a row counts: bad replies to harmful prompts, refusals of harmless ones, or bad tokens that can be read out."""
StressVerdict = Literal["holds", "comes back", "unclear", "says nothing", "not measured"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True, serialize_by_alias=True)


class AttackRate(_Strict):
    """How much of an arm's replies a row counts: a fraction with its 95 % interval.

    `n` counts the prompts that got a verdict, `unknown` the others. `facts` are further numbers by name.
    """

    unit: ClassVar[str] = "fraction"

    value: float | None
    low: float | None
    high: float | None
    n: int
    unknown: int = 0
    facts: dict[str, float] = {}


class StressRow(_Strict):
    """One attack at one strength. `at` is the strength as a number, and `series` names the curve that it lies on."""

    level: str
    series: str = ""
    at: float | None = None
    rates: dict[str, AttackRate] = {}
    verdict: StressVerdict = "not measured"
    why: str = ""


class AttackResult(_Strict):
    """All rows of one attack, and what it cost by arm; `left_out` says why an arm was not attacked."""

    name: str
    title: str
    asks: str
    changes: Changes
    measures: Measures
    rows: list[StressRow] = []
    cost: list[Cost] = []
    left_out: dict[str, str] = {}

    def done(self, arm: str) -> bool:
        """Whether an arm has been attacked, or cannot be."""
        return arm in self.left_out or any(arm in row.rates for row in self.rows)

    @property
    def worst(self) -> StressRow | None:
        """The row that speaks most against the model."""
        order: list[StressVerdict] = ["comes back", "unclear", "holds", "says nothing", "not measured"]
        return min(self.rows, key=lambda row: (order.index(row.verdict), -_value(row)), default=None)


class StressCard(_Strict):
    """The stress card of one run. `made_of` are digests of models, rows and settings; a card of others begins anew."""

    schema_: int = Field(default=SCHEMA, alias="schema")
    preset: str
    scenario: str
    judge: str
    seed: int
    split: Literal["seen", "unseen"] = "unseen"
    prompts: int
    command: str
    made_of: dict[str, str] = {}
    attacks: list[AttackResult] = []
    notes: list[str] = []
    environment: dict[str, str | int] = {}

    def arms(self) -> list[str]:
        """Return the arms that have a rate."""
        there = {arm for attack in self.attacks for row in attack.rows for arm in row.rates}
        return [arm for arm in STRESSED if arm in there]

    def attack(self, name: str) -> AttackResult | None:
        """Return the results of an attack; None where there are none."""
        return next((attack for attack in self.attacks if attack.name == name), None)

    @classmethod
    def read(cls, directory: str | Path) -> "StressCard | None":
        """Read stress.json of a run directory; None where there is none. Raises DataError for one that is broken."""
        path = Path(directory) / FILE_NAME
        fix = "remove it, and run `unteach stress` again"
        try:
            raw = read_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read as JSON ({inert_line(str(error), 200)}); {fix}") from None
        if not isinstance(raw, dict) or raw.get("schema") != SCHEMA:
            raise DataError(f"{path}: no stress card of schema {SCHEMA}; {fix}")
        try:
            return cls.model_validate(raw)
        except ValidationError as error:
            raise DataError(f"{path}: {first_fault(error)}; {fix}") from None

    def write(self, directory: str | Path) -> Path:
        """Write stress.json, whole or not at all. Raises OutputError."""
        text = json.dumps(self.model_dump(), indent=1, allow_nan=False)
        return write_whole(Path(directory) / FILE_NAME, text + "\n")


def _value(row: StressRow) -> float:
    found = row.rates.get("unlearned")
    return found.value if found is not None and found.value is not None else -1.0
