"""Plan a run into a budget of time, tokens or FLOPs.

The plan counts what the run would take on its own rows, as `--dry-run` does, and cuts settings that the user left open
until it fits: first what only measures, then what the model is taught from, and last the steps.
"""

import gc
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from unteach.errors import ConfigError
from unteach.models.ranks import world
from unteach.pipeline.config import RunConfig
from unteach.pipeline.cuts import Cut, Settings, cuts_of, settings_at
from unteach.pipeline.prepare import READING, Prepared, prepare
from unteach.pipeline.settings import flag
from unteach.pipeline.stages import (
    EVALUATION,
    IN_TOKENS,
    OWN,
    STRENGTH,
    Rates,
    Stage,
    Unasked,
    in_flops,
    in_seconds,
    short_trainer,
    stages_of,
)
from unteach.progress import say, track
from unteach.report.wording import seconds, size
from unteach.results.budget import Budget, Plan, read_budget
from unteach.results.report import Report

RESERVE = 0.05
"""Share of a budget that is left for what cannot be counted before: which negatives are drawn, saving, the page."""
LOADING = "loading, planning and the rest"
TRAINING = "training"
ROUNDS = 3
"""Times that a value between two is tried; where it is near enough, fewer."""


def planned(config: RunConfig, asked: RunConfig) -> RunConfig:
    """Return the config with the settings that its budget allows, and with the plan; as it is, without a budget.

    `asked` is the config before its defaults were filled in: what it sets is never changed. A config that holds the
    plan for its budget already, such as that of a run that goes on, is left alone. Raises ConfigError where a budget
    cannot be kept, or planned in these circumstances.
    """
    if not config.budget or _follows(config):
        return config
    if world() > 1:
        raise ConfigError(
            f"--budget {config.budget}: is planned by one process; ask it with --dry-run, then start the ranks with "
            "the settings that it lists (see docs/budget.md)"
        )
    if config.lm_eval:
        raise ConfigError("--lm-eval: what its tasks take cannot be planned; leave out it or --budget")
    if config.generate_with:
        raise ConfigError("--generate-with: what a server takes cannot be planned; leave out it or --budget")
    given = {name for name in asked.model_fields_set if getattr(asked, name) not in (None, "", [])}
    if plan := config.plan:  # for another budget, or from before settings were changed by hand
        free = {n: value for n, value in plan.default.items() if getattr(config, n) == plan.chosen.get(n, value)}
        given -= set(free)
        config = config.model_copy(update={"plan": None} | free)
    with tempfile.TemporaryDirectory() as place, track("planning into the budget"):
        plan = _Planner(config, given, Path(place)).plan()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    say(f"note: {plan.note}")
    return config.model_copy(update={**plan.chosen, "plan": plan})


def _follows(config: RunConfig) -> bool:
    """Whether a config holds the plan for its budget and follows it."""
    plan = config.plan
    if plan is None or plan.budget != config.budget:
        return False
    return all(getattr(config, name) == value for name, value in plan.chosen.items())


class _Planner:
    """Counts what a run would take with other settings, and chooses them; the model is loaded once."""

    def __init__(self, config: RunConfig, given: set[str], place: Path) -> None:
        self.budget, self.began = read_budget(config.budget), time.monotonic()
        self._config, self._given, self._place = config, given, place
        self._counted: dict[tuple[tuple[str, int], ...], dict[str, float]] = {}
        self._original = None
        unasked, self._prepared = self._prepare({})
        self._cuts = cuts_of(config, given, self._prepared, max(unasked.asked, default=0))
        self._original, loaded = self._prepared.original, time.monotonic() - self.began
        self._trainer = short_trainer(self._prepared, place)
        stages = [*unasked.stages, *stages_of(self._prepared, self._trainer.model, self._trainer.method)]
        self._rates, self._fixed = self._rate(), 0.0
        if self.budget.unit == "seconds":
            self._fixed = self._beside(loaded)
        self._counted[()] = self._amounts(stages)

    def plan(self) -> Plan:
        """Return the plan. Raises ConfigError where even the least exceeds the budget."""
        cuts, usable = self._cuts, self.budget.amount * (1 - RESERVE)
        if self._whole({}) <= usable:
            return self._told({})
        if self._whole(settings_at(cuts, len(cuts))) > usable:
            raise ConfigError(self._too_little(settings_at(cuts, len(cuts))))
        place = _first(lambda place: self._whole(settings_at(cuts, place)) <= usable, len(cuts))
        return self._told(self._between(cuts, place - 1, usable))

    def _between(self, cuts: Sequence[Cut], place: int, usable: float) -> Settings:
        """Return the settings with the largest value of one cut that fits; with its least value, it does."""
        cut = cuts[place]
        over, fits = cut.before, cut.least
        for _ in range(ROUNDS):
            most, least = self._whole(settings_at(cuts, place, over)), self._whole(settings_at(cuts, place, fits))
            if least > 0.97 * usable or abs(over - fits) <= 1 or most <= least:
                break
            tried = fits + int((over - fits) * min(0.98, (usable - least) / (most - least)))
            if tried == fits:
                break
            if self._whole(settings_at(cuts, place, tried)) <= usable:
                fits = tried
            else:
                over = tried
        return settings_at(cuts, place, fits)

    def _prepare(self, settings: Settings) -> tuple[Unasked, Prepared]:
        unasked, config = Unasked(), self._config.model_copy(update=settings)
        return unasked, prepare(config, self._place, unasked, self._original, counting=True)

    def _whole(self, settings: Settings) -> float:
        return sum(self._counts(settings).values())

    def _counts(self, settings: Settings) -> dict[str, float]:
        """Return what the parts of a run with these settings take at most."""
        key = tuple(sorted(settings.items()))
        if key not in self._counted:
            unasked, prepared = self._prepare(settings)
            self._counted[key] = self._amounts(
                [*unasked.stages, *stages_of(prepared, self._trainer.model, self._trainer.method)]
            )
        return self._counted[key]

    def _amounts(self, stages: Sequence[Stage]) -> dict[str, float]:
        amounts = {LOADING: self._fixed} if self._fixed else {}
        for stage in stages:
            part = part_of(stage.name)
            amounts[part] = amounts.get(part, 0.0) + self._rates.of(stage)
        return amounts

    def _rate(self) -> Rates:
        if self.budget.unit == "tokens":
            return IN_TOKENS
        return (
            in_flops(self._trainer.model) if self.budget.unit == "flops" else in_seconds(self._prepared, self._trainer)
        )

    def _beside(self, loaded: float) -> float:
        """Return how many seconds the run takes beside its stages: this plan, and loading models and rows again.

        Counting once more is timed, and what a whole plan counts at most is taken for it.
        """
        began = time.monotonic()
        self._prepare({})
        counting, config = 8 * (time.monotonic() - began), self._config
        again = 1 + (not config.lora and not config.skip_evaluation) + (config.retrained is not None)
        return time.monotonic() - self.began + counting + again * loaded

    def _told(self, chosen: Settings) -> Plan:
        default, counts = {cut.name: getattr(self._config, cut.name) for cut in self._cuts}, self._counts(chosen)
        left_out = ", ".join(f"{flag(name)} {chosen[name]} instead of {default[name] or 'all'}" for name in chosen)
        note = (
            f"budget {self.budget.text}: planned to take at most {_said(sum(counts.values()), self.budget)} "
            f"({_parts(counts, self.budget)}); "
            + (f"left out against the defaults: {left_out}" if left_out else "nothing had to be left out")
        )
        return Plan(
            budget=self.budget.text, unit=self.budget.unit, chosen=chosen, default=default, at_most=counts, note=note
        )

    def _too_little(self, least: Settings) -> str:
        """Return the error of a budget that cannot be kept."""
        counts, budget = self._counts(least), self.budget
        known = {"max_steps", "evaluation_prompts", "validation_steps", "validation_prompts", "batch_size"}
        known |= {"own_answers", "training_rows", "samples", "max_new_tokens", "normals_per_negative", "strength"}
        kept = " ".join(f"{flag(name)} {getattr(self._config, name)}" for name in sorted(known & self._given))
        lowest = ", ".join(f"{flag(name)} {value}" for name, value in least.items())
        needed = sum(counts.values()) / (1 - RESERVE)
        return (
            f"--budget {budget.text}: too little: the run takes up to {_said(sum(counts.values()), budget)} "
            f"({_parts(counts, budget)}) even with {lowest or 'nothing left to cut'}"
            + (f"; what you gave is kept: {kept}" if kept else "")
            + f"; give --budget {_rounded_up(needed, budget)}"
            + (", or lower what you gave" if kept else "")
        )


def part_of(stage: str) -> str:
    """Return the part of a run to which a stage belongs, planned or in a report."""
    if stage.startswith(("answering ", OWN)):
        return OWN
    if stage.startswith((EVALUATION, "fluency")):
        return EVALUATION
    return stage if stage in (READING, STRENGTH) else TRAINING


def _first(holds: Callable[[int], bool], last: int) -> int:
    """Return the first number from 1 to `last` of which something holds, as it does of all after it."""
    low, high = 0, last
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


# ---- what is said ----------------------------------------------------------------------------------------------------


def with_taken(report: Report, plan: Plan | None, elapsed: float | None) -> Report:
    """Return a report with what a run took of its budget, and a note of that; `elapsed` is None for a resumed run."""
    if plan is None:
        return report
    budget, taken = read_budget(plan.budget), dict[str, float]()
    for cost in report.cost:
        value = {"seconds": cost.wall_seconds, "tokens": cost.tokens, "flops": cost.flops}[plan.unit]
        part = part_of(cost.stage)
        taken[part] = taken.get(part, 0.0) + float(value or 0.0)
    if plan.unit == "seconds" and elapsed is not None:
        taken[LOADING] = max(0.0, elapsed - sum(taken.values()))
    told = (
        f"budget {plan.budget}: planned at most {_said(sum(plan.at_most.values()), budget)}, taken "
        f"{_said(sum(taken.values()), budget)} ({_parts(taken, budget)})"
    )
    if plan.unit == "seconds" and elapsed is None:
        told += "; the run was resumed, so loading and planning are left out"
    if sum(taken.values()) > budget.amount:
        told += "; that is more than the budget"
    notes = [plan.note, told, *report.notes]
    return report.model_copy(update={"budget": plan.model_copy(update={"taken": taken}), "notes": notes})


def _parts(amounts: Mapping[str, float], budget: Budget) -> str:
    return ", ".join(f"{part} {_said(amount, budget)}" for part, amount in amounts.items())


def _said(amount: float, budget: Budget) -> str:
    return seconds(amount) if budget.unit == "seconds" else size(amount, _unit(budget))


def _unit(budget: Budget) -> str:
    return "FLOP" if budget.unit == "flops" else "tok"


def _rounded_up(amount: float, budget: Budget) -> str:
    """Return a budget that is as large, as one writes it."""
    if budget.unit == "seconds":
        return f"{math.ceil(amount)}s" if amount < 120 else f"{math.ceil(amount / 60)}m"
    power = max(0, min(6, math.floor(math.log10(max(amount, 1.0)) / 3)))
    return f"{math.ceil(10 * amount / 1000**power) / 10:g}{('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}{_unit(budget)}"
