"""unteach run --budget: the run is planned into it; what the user gave is never changed."""

from pathlib import Path

import pytest
import yaml

from command import Place, call, place
from unteach.pipeline import budget as planning
from unteach.pipeline.budget import Cut, settings_at
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
    budget = read_budget(text)
    assert (budget.amount, budget.unit) == (pytest.approx(amount), unit)


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
    """A run whose steps and evaluation are open, and whose lengths are small."""
    open_ = {"max_steps": None, "evaluation_prompts": None, "validation_steps": None, "validation_prompts": None}
    return here.quick(output, **(open_ | {"lora": True, "scenario": "harm"} | changed), budget=budget)


def test_a_run_is_planned_into_its_tokens(here: Place, tmp_path: Path, capsys: Capture) -> None:
    """The plan is written down, goes on when resumed, is the same again, and is kept; training is cut last."""
    asked = words(here, tmp_path / "out", "20ktok", method="template")
    outcome = call(capsys, *asked)
    assert outcome.code == 0, outcome.err
    settings, report = yaml.safe_load((tmp_path / "out" / "run.yaml").read_text()), Report.read(tmp_path / "out")
    plan = report.budget
    assert plan is not None and settings["plan"]["chosen"] == plan.chosen
    assert plan.chosen["max_steps"] == settings["max_steps"] < plan.default["max_steps"] == 800
    assert plan.chosen["evaluation_prompts"] == settings["evaluation_prompts"] == planning.FEWEST_PROMPTS
    assert 0.8 * 20e3 < sum(plan.at_most.values()) <= 20e3 and set(plan.taken) <= set(plan.at_most)
    assert sum(plan.taken.values()) == sum(cost.tokens or 0 for cost in report.cost) <= 20e3
    told = [note for note in report.notes if note.startswith("budget 20ktok: ")]
    assert len(told) == 2 and f"--max-steps {settings['max_steps']} instead of 800" in told[0] and "taken" in told[1]
    assert f"note: {told[0]}" in "\n".join(outcome.progress)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "instead of 800" in page

    again = call(capsys, "run", "--config", tmp_path / "out" / "run.yaml", "--output", tmp_path / "again")
    assert again.code == 0 and not any("note: budget" in line for line in again.progress)
    second = Report.read(tmp_path / "again")
    assert second.budget and second.budget.chosen == plan.chosen and second.measurements == report.measurements


def test_dry_run_shows_the_plan_and_is_the_same_each_time(here: Place, tmp_path: Path, capsys: Capture) -> None:
    asked = words(here, tmp_path / "out", "1.5GFLOP", method="template")
    first, second = (call(capsys, *asked, "--dry-run") for _ in range(2))
    assert first.code == second.code == 0, first.err
    notes = [[line for line in one.progress if "note: budget" in line] for one in (first, second)]
    assert len(notes[0]) == 1 and notes[0] == notes[1] and "FLOP" in notes[0][0]
    chosen = notes[0][0].split("--max-steps ")[1].split()[0]
    assert f"training, {chosen} steps" in first.out and not (tmp_path / "out").exists()


def test_what_the_user_gave_is_kept_or_refused(here: Place, tmp_path: Path, capsys: Capture) -> None:
    outcome = call(capsys, *words(here, tmp_path / "out", "2ktok", max_steps=400, method="template"))
    assert outcome.code == 2 and not (tmp_path / "out").exists()
    assert "--budget 2ktok: too little" in outcome.err and "what you gave is kept" in outcome.err
    assert "--max-steps 400" in outcome.err and "give --budget" in outcome.err
    needed = outcome.err.split("give --budget ")[1].split(",")[0].strip()
    dry = call(capsys, *words(here, tmp_path / "out", needed, max_steps=400, method="template"), "--dry-run")
    assert dry.code == 0 and "training, 400 steps" in dry.out


def test_a_budget_that_is_large_enough_changes_nothing(here: Place, tmp_path: Path, capsys: Capture) -> None:
    outcome = call(capsys, *words(here, tmp_path / "out", "5h", max_steps=2, method="template"), "--dry-run")
    assert outcome.code == 0, outcome.err
    assert any("nothing had to be left out" in line for line in outcome.progress)
    assert any("loading, planning and the rest" in line for line in outcome.progress)


def test_time_is_planned_from_measured_steps(
    here: Place, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = planning.Rates(1e-4, 1e-3, 1e-3)
    monkeypatch.setattr(planning, "in_seconds", lambda prepared, trainer: rates)
    outcome = call(capsys, *words(here, tmp_path / "out", "60s", method="template"), "--dry-run")
    assert outcome.code == 0, outcome.err
    (note,) = [line for line in outcome.progress if "note: budget" in line]
    assert "--max-steps" in note and "instead of 800" in note


@pytest.mark.parametrize("more", [("--seeds", "2"), ("--stress", "quick"), ("--lm-eval", "arc_easy")])
def test_what_cannot_be_planned_is_refused(
    more: tuple[str, str], here: Place, tmp_path: Path, capsys: Capture
) -> None:
    outcome = call(capsys, *words(here, tmp_path / "out", "10m"), *more)
    assert outcome.code == 2 and "budget" in outcome.err and more[0] in outcome.err
