"""unteach run --budget: the run is planned into it; what the user gave is never changed."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from command import Place, call, place
from unteach.pipeline import budget
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.cuts import FEWEST_PROMPTS, Cut, settings_at
from unteach.pipeline.settings import make_config
from unteach.pipeline.stages import Rates
from unteach.results.budget import read_budget
from unteach.results.report import Report

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("place"))


@pytest.mark.parametrize(
    ("text", "amount", "unit"),
    [
        ("90s", 90, "seconds"),
        ("10m", 600, "seconds"),
        ("1h30m", 5400, "seconds"),
        ("0.5d", 43200, "seconds"),
        ("3Mtok", 3e6, "tokens"),
        ("3M tokens", 3e6, "tokens"),
        ("500ktok", 5e5, "tokens"),
        ("50TFLOP", 5e13, "flops"),
        ("1.5PFLOPs", 1.5e15, "flops"),
    ],
)
def test_a_budget_is_read(text: str, amount: float, unit: str) -> None:
    found = read_budget(text)
    assert (found.amount, found.unit) == (pytest.approx(amount), unit)


@pytest.mark.parametrize("text", ["10", "3M", "3mtok", "0s", "-5m", "10 minutes", "m", "5Xtok", "50TFLOPS/s"])
def test_what_is_no_budget_is_refused(text: str, here: Place, tmp_path: Path, capsys: Capture) -> None:
    outcome = call(capsys, *here.quick(tmp_path / "out"), f"--budget={text}")
    assert outcome.code == 2 and "--budget" in outcome.err and "Traceback" not in outcome.err
    assert not (tmp_path / "out").exists()


def test_cuts_are_made_one_after_the_other() -> None:
    cuts = [Cut("evaluation_prompts", 200, 50), Cut("validation_steps", 20, 40), Cut("evaluation_prompts", 50, 16)]
    cuts.append(Cut("max_steps", 120, 20))
    assert settings_at(cuts, 0) == {}
    assert settings_at(cuts, 0, 90) == {"evaluation_prompts": 90}
    assert settings_at(cuts, 2, 30) == {"evaluation_prompts": 30, "validation_steps": 40}
    assert settings_at(cuts, 3, 61) == {"evaluation_prompts": 16, "validation_steps": 21, "max_steps": 61}
    assert settings_at(cuts, 4) == {"evaluation_prompts": 16, "validation_steps": 7, "max_steps": 20}


def words(here: Place, output: Path, budget: str, **changed: object) -> list[str]:
    """A run whose steps, validations and evaluation are open."""
    open_: dict[str, object] = {
        "max_steps": None,
        "evaluation_prompts": None,
        "validation_steps": None,
        "validation_prompts": None,
    }
    return here.quick(output, **(open_ | {"method": "template"} | changed), budget=budget)


def plan_lines(progress: Iterable[str]) -> list[str]:
    return [line.removeprefix("note: ") for line in progress if line.startswith("note: budget")]


def test_a_run_is_planned_into_its_tokens(here: Place, tmp_path: Path, capsys: Capture) -> None:
    """A dry run tells the plan that the run follows, which is kept to, written down and replayed."""
    asked = words(here, tmp_path / "out", "14ktok")
    dry = call(capsys, *asked, "--dry-run")
    assert dry.code == 0 and not (tmp_path / "out").exists(), dry.err
    outcome = call(capsys, *asked)
    assert outcome.code == 0, outcome.err
    assert plan_lines(outcome.progress) == plan_lines(dry.progress)

    settings, report = yaml.safe_load((tmp_path / "out" / "run.yaml").read_text()), Report.read(tmp_path / "out")
    plan = report.budget
    assert plan is not None and settings["plan"]["chosen"] == plan.chosen
    assert 20 <= plan.chosen["max_steps"] == settings["max_steps"] < plan.default["max_steps"] == 120
    assert plan.chosen["evaluation_prompts"] == settings["evaluation_prompts"] == FEWEST_PROMPTS
    assert f"training, {settings['max_steps']} steps" in dry.out
    assert 0.8 * 14e3 < sum(plan.at_most.values()) <= 14e3 and set(plan.taken) <= set(plan.at_most)
    assert sum(plan.taken.values()) == sum(cost.tokens or 0 for cost in report.cost) <= 14e3
    told = [note for note in report.notes if note.startswith("budget 14ktok: ")]
    assert told[:1] == plan_lines(outcome.progress) and f"--max-steps {settings['max_steps']} instead of 120" in told[0]
    assert len(told) == 2 and "planned at most" in told[1] and "taken" in told[1]
    assert "instead of 120" in (tmp_path / "out" / "report.html").read_text()

    stored = make_config(settings, RunConfig)  # as --resume and --config run.yaml read it
    assert budget.planned(with_defaults(stored), stored).plan == plan.model_copy(update={"taken": {}})


def test_what_the_user_gave_is_kept_or_refused(here: Place, tmp_path: Path, capsys: Capture) -> None:
    outcome = call(capsys, *words(here, tmp_path / "out", "20MFLOP", max_steps=30))
    assert outcome.code == 2 and not (tmp_path / "out").exists()
    assert "--budget 20MFLOP: too little" in outcome.err and "what you gave is kept" in outcome.err
    needed = outcome.err.partition("give --budget ")[2].partition(",")[0].strip()
    config = config_of(here, needed, max_steps=30)
    found = budget.planned(with_defaults(config), config)
    assert found.max_steps == 30 and found.plan is not None and "max_steps" not in found.plan.chosen
    assert sum(found.plan.at_most.values()) == pytest.approx(0.95 * read_budget(needed).amount, rel=0.05)


def config_of(here: Place, text: str, **changed: object) -> RunConfig:
    rows = {"model": str(here.model), "forget": [str(here.forget)], "retain": [str(here.retain)]}
    small = {"device": "cpu", "batch_size": 2, "max_new_tokens": 6, "lookalike_share": 0.0, "harmful_share": 0.0}
    return make_config(rows | small | {"method": "template", "budget": text} | changed, RunConfig)


def test_time_is_planned_from_measured_rates(here: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow steps leave fewer of them; another budget plans anew from what the first plan had left open."""
    monkeypatch.setattr(budget, "in_seconds", lambda prepared, trainer: Rates(1e-3, 1.0, 1e-2))
    config = config_of(here, "50m", strength="auto")
    half = budget.planned(with_defaults(config), config)
    assert half.plan is not None and {budget.LOADING, "searching the strength"} <= set(half.plan.at_most)
    assert 0.85 * 3000 < sum(half.plan.at_most.values()) <= 3000
    assert half.max_steps is not None and 20 <= half.max_steps < 120
    assert budget.planned(half, half) is half  # as when it is resumed or replayed
    longer = half.model_copy(update={"budget": "5h"})
    whole = budget.planned(longer, longer)
    assert whole.plan is not None and whole.max_steps == 120 and whole.evaluation_prompts == 200
    assert "nothing had to be left out" in whole.plan.note


@pytest.mark.parametrize("more", [("--seeds", "2"), ("--stress", "quick"), ("--lm-eval", "arc_easy")])
def test_what_cannot_be_planned_is_refused(more: tuple[str, str], here: Place, tmp_path: Path, capsys: Capture) -> None:
    outcome = call(capsys, *words(here, tmp_path / "out", "10m"), *more)
    assert outcome.code == 2 and "budget" in outcome.err and more[0] in outcome.err
