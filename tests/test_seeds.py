"""One run with several seeds: the report of means, and what is kept where."""

import math
from pathlib import Path
from typing import Any

import pytest

from command import call, place
from unteach.errors import ConfigError
from unteach.pipeline.config import RunConfig
from unteach.pipeline.seeds import over_seeds, pooled, run_seeds
from unteach.report.wording import counted
from unteach.results.measurement import Measurement
from unteach.results.report import Cost, Report


def metric(value: float | None, **fields: Any) -> Measurement:
    given = {"name": "harmful_rate", "split": "seen", "arm": "unlearned", "low": 0.0, "high": 1.0, "n": 10}
    return Measurement(**(given | {"value": value, "unit": "fraction", "better": "lower"} | fields))


def report(seed: int, value: float | None) -> Report:
    return Report(
        scenario="harm",
        method="npo",
        model="m",
        measurements=[metric(value, difference=-0.5, unknown=1)],
        cost=[Cost(arm="unlearned", stage="training", wall_seconds=2.0, tokens=5, flops=None, peak_bytes=seed)],
        notes=["common", f"own {seed}"],
        environment={"seed": seed},
    )


def test_mean_and_students_interval_by_hand() -> None:
    found = over_seeds([metric(0.2), metric(0.3), metric(0.4)])
    reach = 4.302653 * 0.1 / math.sqrt(3)  # t at 2 degrees of freedom; standard deviation 0.1
    assert found.value == pytest.approx(0.3) and found.n == 30 and found.seeds == [0.2, 0.3, 0.4]
    assert (found.low, found.high) == (pytest.approx(0.3 - reach), pytest.approx(0.3 + reach))
    assert found.difference is None


@pytest.mark.parametrize("unit", ["fraction", "AUC", "KS distance"])
def test_units_that_end_at_0_and_1_stay_there_and_others_do_not(unit: str) -> None:
    low, high = (over_seeds([metric(first, unit=unit), metric(first + 0.02, unit=unit)]) for first in (0.0, 0.98))
    assert (low.low, high.high) == (0.0, 1.0)
    nats = over_seeds([metric(0.0, unit="nats"), metric(9.0, unit="nats")])
    assert nats.low == 0 and nats.high > 9  # type: ignore[operator]
    assert over_seeds([metric(-1.0, unit="nats"), metric(9.0, unit="nats")]).low < -1  # type: ignore[operator]
    equal = over_seeds([metric(0.5, low=0.2, high=0.7), metric(0.5, low=0.1, high=0.9)])
    assert (equal.low, equal.high) == (0.2, 0.7)  # seeds that agree say nothing: the interval is about prompts


def test_unknown_values_are_left_out_and_one_value_keeps_its_own_interval() -> None:
    one = over_seeds([metric(None), metric(0.5)])
    assert (one.value, one.low, one.high, one.seeds) == (0.5, 0.0, 1.0, [None, 0.5])
    assert over_seeds([metric(None), metric(None)]).value is None


def test_costs_add_up_and_notes_are_said_once() -> None:
    both = pooled([report(3, 0.0), report(4, 0.1)])
    (cost,) = both.cost
    assert (cost.wall_seconds, cost.tokens, cost.flops, cost.peak_bytes) == (4.0, 10, None, 4)
    assert both.notes[1:] == ["common", "own 3", "own 4"] and "seeds 3, 4" in both.notes[0]
    (rate,) = both.measurements
    assert rate.difference == -0.5 and rate.unknown == 2


def test_the_report_shows_the_spread() -> None:
    assert counted(over_seeds([metric(0.0), metric(0.25, unknown=2)])) == "n=20, 2 unknown, 2 seeds 0.0–25.0"
    assert counted(over_seeds([metric(0.5), metric(0.5)])) == "n=20, 2 seeds 50.0" and counted(metric(0.5)) == "n=10"


@pytest.mark.parametrize("count", [1, 0, -2])
def test_a_count_that_is_no_count(count: int, tmp_path: Any) -> None:
    with pytest.raises(ConfigError, match="--seeds"):
        run_seeds(RunConfig(output=str(tmp_path / "out")), count)
    assert not (tmp_path / "out").exists()


def test_runs_with_several_seeds_leave_one_report_and_go_on_where_one_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here, out = place(tmp_path / "toy"), tmp_path / "out"
    words = [*here.quick(out), "--seeds", "2"]
    assert call(capsys, *words).code == 0
    both, first = Report.read(out), Report.read(out / "seed-0")
    rate = both.measured("harmful_rate", "unseen", "original")
    own = first.measured("harmful_rate", "unseen", "original")
    assert rate and own and rate.seeds and len(rate.seeds) == 2 and rate.n == 2 * own.n
    assert {path.name for path in out.iterdir()} == {
        "seed-0",
        "seed-1",
        "run.yaml",
        "report.json",
        "report.html",
        "README.md",
    }
    again = call(capsys, *words)
    assert again.code == 2 and "not empty" in again.err
    (out / "seed-1" / "report.json").unlink()
    kept = (out / "seed-0" / "report.json").stat().st_mtime_ns
    resumed = call(capsys, *words, "--resume")
    assert resumed.code == 0, resumed.err
    assert (out / "seed-0" / "report.json").stat().st_mtime_ns == kept
    assert (out / "seed-1" / "report.json").exists()
    replaced = call(capsys, *words, "--overwrite")
    assert replaced.code == 0, replaced.err
    assert (out / "seed-0" / "report.json").stat().st_mtime_ns > kept


def test_a_run_that_cannot_start_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, out = place(tmp_path / "toy"), tmp_path / "out"
    outcome = call(capsys, *here.quick(out, forget=tmp_path / "none.jsonl"), "--seeds", "2")
    assert outcome.code == 2 and "none.jsonl" in outcome.err and not out.exists()
