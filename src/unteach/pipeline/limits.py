"""LimitSettings: a budget for the whole run, and the limits on rows that a plan may set."""

from pydantic import field_validator

from unteach.pipeline.settings import Settings, setting
from unteach.results.budget import Plan, read_budget


class LimitSettings(Settings):
    """The settings of `unteach run` that bound what it takes.

    `plan` has no flag: a run with a budget writes it into run.yaml, and whoever replays that file follows it.
    """

    budget: str = setting("Budget", "", "Plan the run into it: 90s, 10m, 2h; 3Mtok; 50TFLOP.", metavar="AMOUNT")
    training_rows: int | None = setting("Budget", None, "Most rows of --forget, and of --retain, to train on.", ge=1)
    own_answers: int | None = setting(
        "Budget", None, "Most shipped prompts of a kind that the model answers first.", ge=1
    )
    plan: Plan | None = setting("Budget", None, "What --budget has planned; written by the run.")

    @field_validator("budget")
    @classmethod
    def _read_budget(cls, value: str) -> str:
        return read_budget(value).text if value else value
