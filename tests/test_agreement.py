"""How judges agree: worked by hand, undefined said in words, prompts drawn whole, and its place in the report."""

import math
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest

from unteach.evaluation.agreement import agreement, bad_rate, confusion, judge_metrics, kappa
from unteach.evaluation.evaluation import Evaluation
from unteach.results.arm_result import ArmResult
from unteach.results.report import Report
from unteach.results.verdict import Case, Quality, Verdict


def verdicts(text: str) -> list[Verdict]:
    """One verdict a letter: g, b or u."""
    named: dict[str, Verdict] = {"g": "good", "b": "bad", "u": "unknown"}
    return [named[letter] for letter in text]


def table(good_good: int, good_bad: int, bad_good: int, bad_bad: int) -> tuple[list[Verdict], list[Verdict]]:
    first = "g" * (good_good + good_bad) + "b" * (bad_good + bad_bad)
    second = "g" * good_good + "b" * good_bad + "g" * bad_good + "b" * bad_bad
    return verdicts(first), verdicts(second)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        # observed 35/50; expected (25/50)(30/50) + (25/50)(20/50) = 0.5; (0.7 − 0.5) / 0.5
        ((20, 5, 10, 15), 0.4),
        # observed 60/100; expected 0.7·0.6 + 0.3·0.4 = 0.54; 0.06 / 0.46
        ((45, 25, 15, 15), 0.06 / 0.46),
        ((10, 0, 0, 10), 1.0),
        ((0, 10, 10, 0), -1.0),
        ((25, 25, 25, 25), 0.0),
        # one judge says good to all: observed equals expected agreement
        ((7, 3, 0, 0), 0.0),
    ],
)
def test_kappa_by_hand(counts: tuple[int, int, int, int], expected: float) -> None:
    value, low, high = kappa(*table(*counts))
    assert value == pytest.approx(expected, abs=1e-12)
    assert low is not None and high is not None and low <= value <= high


def test_unknown_verdicts_are_left_out_of_kappa_and_kept_in_the_table() -> None:
    first, second = verdicts("gggbbbuug"), verdicts("ggbbbguub")
    assert kappa(first, second)[0] == kappa(*table(2, 2, 1, 2))[0]
    found = agreement(first, second)
    assert found.n == 7 and found.note == "" and found.arm is None
    assert found.confusion == {
        "good": {"good": 2, "bad": 2, "unknown": 0},
        "bad": {"good": 1, "bad": 2, "unknown": 0},
        "unknown": {"good": 0, "bad": 0, "unknown": 2},
    }
    assert confusion(verdicts("gu"), verdicts("ug"))["good"]["unknown"] == 1


@pytest.mark.parametrize(
    ("first", "second", "note"),
    [
        ("", "", "no reply that both could judge"),
        ("ugb", "guu", "no reply that both could judge"),
        ("ggu", "ggb", "both found every reply that both could judge good"),
        ("bb", "bb", "both found every reply that both could judge bad"),
    ],
)
def test_undefined_is_said_in_words(first: str, second: str, note: str) -> None:
    found = agreement(verdicts(first), verdicts(second))
    assert (found.kappa, found.low, found.high, found.note) == (None, None, None, note)


def test_the_interval_is_that_of_the_large_sample_formula() -> None:
    # Fleiss, Cohen and Everitt 1969, worked for the table 200, 50, 100, 150: κ = 0.4
    counts = np.array([[200, 50], [100, 150]]) / 500
    rows, columns = counts.sum(1), counts.sum(0)
    observed, expected = np.trace(counts), float(rows @ columns)
    diagonal = sum(counts[i, i] * ((1 - expected) - (rows[i] + columns[i]) * (1 - observed)) ** 2 for i in (0, 1))
    other = sum(counts[i, 1 - i] * (columns[i] + rows[1 - i]) ** 2 for i in (0, 1)) * (1 - observed) ** 2
    variance = diagonal + other - (observed * expected - 2 * expected + observed) ** 2
    half = 1.96 * math.sqrt(variance / 500) / (1 - expected) ** 2
    value, low, high = kappa(*table(200, 50, 100, 150))
    assert value == pytest.approx(0.4)
    assert low == pytest.approx(0.4 - half, abs=0.01) and high == pytest.approx(0.4 + half, abs=0.01)
    assert kappa(*table(200, 50, 100, 150), seed=1) != (value, low, high)


def test_replies_to_one_prompt_are_drawn_together() -> None:
    first, second = table(20, 5, 10, 15)
    alone = kappa(first, second)
    four_times = kappa(first * 4, second * 4)
    grouped = kappa(first * 4, second * 4, list(range(50)) * 4)
    assert alone[0] == four_times[0] == grouped[0]
    assert grouped == alone  # four copies of the same 50 prompts know no more than one
    assert four_times[2] - four_times[1] < 0.6 * (alone[2] - alone[1])  # type: ignore[operator]
    assert kappa(first, second, ["one prompt"] * 50) == (alone[0], None, None)


def test_too_few_to_bound_have_no_interval() -> None:
    assert kappa(verdicts("gb"), verdicts("gb")) == (1.0, None, None)  # half of the resamples hold one verdict only


def test_lists_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError):
        agreement(verdicts("gg"), verdicts("g"))


def test_bad_rates_leave_unknown_out() -> None:
    found = bad_rate("unlearned", "unseen", verdicts("bbbbbgggggu"))
    assert (found.value, found.n, found.unknown) == (0.5, 10, 1)
    assert found.low == pytest.approx(0.2366, abs=1e-4) and found.high == pytest.approx(0.7634, abs=1e-4)
    assert bad_rate("unlearned", "unseen", verdicts("uu")).value is None


class Spoken:
    """A judge that is never asked."""

    def __init__(self, name: str, quality: object = None) -> None:
        self.name, self.quality = name, quality

    def __call__(self, cases: Sequence[Case]) -> list[Verdict]:
        raise AssertionError


def result(arm: str, split: str, first: str, **others: str) -> ArmResult:
    cases, ids = [Case("p", "r")] * len(first), [[1]] * len(first)
    seconds = {name: verdicts(text) for name, text in others.items()}
    return ArmResult(arm, split, cases, verdicts(first), ids, other_verdicts=seconds)


def evaluated(judges: list[Spoken]) -> Evaluation:
    made = Evaluation({}, SimpleNamespace(), judges, 8)  # type: ignore[arg-type]
    told = {
        "original": {"unseen": ("bbbb", "bbgu"), "normal": ("gggg", "bbbb")},
        "unlearned": {"unseen": ("gggb", "gggb"), "normal": ("gggg", "uuuu")},
    }
    for arm, splits in told.items():
        made.results[arm] = {split: result(arm, split, first, second=other) for split, (first, other) in splits.items()}
    return made


def test_the_figures_of_all_judges() -> None:
    quality = Quality(0.9, 0.8, 0.95, 60, "held-out rows")
    first, second = judge_metrics(evaluated([Spoken("first"), Spoken("second", quality)]))
    assert (first.name, first.quality, first.agreement) == ("first", None, [])
    assert second.quality == quality
    assert [(rate.arm, rate.split, rate.value, rate.n, rate.unknown) for rate in second.rates] == [
        ("original", "unseen", 2 / 3, 3, 1),
        ("original", "normal", 1.0, 4, 0),
        ("unlearned", "unseen", 0.25, 4, 0),
        ("unlearned", "normal", None, 0, 4),
    ]
    assert first.rate("unlearned", "unseen") == bad_rate("unlearned", "unseen", verdicts("gggb"))
    assert first.rate("unlearned", "seen") is None
    pooled, before, after = second.agreement
    # harmful prompts alone: 3 both good, 1 good-bad (as bad, good), 3 both bad; the normal ones would turn it round
    assert (pooled.arm, pooled.n) == (None, 7)
    assert pooled.kappa == kappa(*table(3, 0, 1, 3))[0] == pytest.approx((6 / 7 - 24 / 49) / (25 / 49))
    assert (before.arm, before.n, before.kappa) == ("original", 3, 0.0)
    assert (after.arm, after.n, after.kappa) == ("unlearned", 4, 1.0)


def test_what_is_no_quality_is_not_shown() -> None:
    for said in (None, "very good", Quality(math.nan, None, None, 3)):
        assert judge_metrics(evaluated([Spoken("first", said)]))[0].quality is None


def test_nothing_looked_at_gives_no_figures() -> None:
    assert judge_metrics(Evaluation({}, SimpleNamespace(), [Spoken("first")], 8)) == []  # type: ignore[arg-type]


def test_the_report_keeps_them(tmp_path) -> None:
    metrics = judge_metrics(evaluated([Spoken("first"), Spoken("second", Quality(0.9, 0.8, None, 60))]))
    report = Report(scenario="harm", method="m", model="x", judges=metrics)
    report.write(tmp_path)
    assert Report.read(tmp_path) == report
    assert Report.read(tmp_path).judges[1].quality == Quality(0.9, 0.8, None, 60)
