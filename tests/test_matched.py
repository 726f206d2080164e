"""Cost at a matched outcome, and how a share of RLHF's cost depends on its length: worked out by hand."""

from typing import Any

import pytest

from test_compare import BAD, GOOD, cost, rate, report, saved, terminal
from unteach.comparison.compare import compare
from unteach.comparison.matched import cost_of_steps, length_notes, matched
from unteach.pipeline.seeds import pooled
from unteach.report.comparison_table import comparison_text
from unteach.results.report import Report, Waypoint


def point(flops: float, value: float | None, seed: int = 0, **fields: Any) -> Waypoint:
    about: dict[str, Any] = {
        "arm": "a",
        "stage": "tuning",
        "step": 1,
        "wall_seconds": flops / 10,
        "low": None,
        "high": None,
        "n": 20,
    }
    return Waypoint(**{**about, "seed": seed, "flops": flops, "value": value, **fields})


def test_the_first_validation_at_or_below_the_target_counts_in_each_run() -> None:
    curve = [
        point(10, 1.0),
        point(20, 0.05),
        point(30, 0.4),
        point(40, 0.0),
        point(10, None, 1),
        point(50, 0.04, 1),
        point(10, 0.9, 2),
        point(60, 0.06, 2),
    ]
    found = matched(curve, 0.05)
    assert found is not None
    assert (found.reached, found.runs, found.flops, found.flops_low, found.flops_high) == (2, 3, 35, 20, 50)
    assert found.wall_seconds == 3.5 and found.message == "at most 5% bad and broken each in 2 of 3 runs"


def test_gibberish_is_no_success() -> None:
    curve = [point(10, 0.0, broken=0.9), point(20, 0.0, broken=0.06), point(30, 0.0, broken=0.05), point(40, 0.0)]
    found = matched(curve, 0.05)
    assert found is not None and (found.flops, found.first_validation) == (30, 0)
    early = matched([point(10, 0.0), point(20, 0.0), point(10, 0.5, 1), point(20, 0.0, 1)], 0.05)
    assert early is not None and early.first_validation == 1


def test_an_arm_that_never_gets_there_says_how_far_it_came() -> None:
    found = matched([point(10, 1.0), point(20, 0.4)], 0.05)
    assert found is not None and (found.reached, found.flops, found.flops_low) == (0, None, None)
    assert found.message == "never at most 5% bad; the least was 40%"
    assert matched([], 0.05) is None


def steps(seed: int, start: float, each: float) -> list[Waypoint]:
    return [
        point(start, 0.9, seed, stage="sft", step=5),
        *(point(start + each * n, 0.5, seed, stage="rl", step=n) for n in (5, 10, 20)),
    ]


def test_the_length_of_rlhf_decides_the_share() -> None:
    curve = [*steps(0, 100.0, 10.0), *steps(1, 300.0, 30.0)]
    assert cost_of_steps(curve) == (200.0, 20.0, 20)
    # 60 of 200 + 20·20 is 10 %; of 200 + 20·200 1.4 %; of 200 + 20·2000 0.15 %; 2 % of 3000 = 200 + 20·140
    assert length_notes([("ours", 60.0), ("cheap", 1.0)], "rlhf", curve) == [
        "compute as a share of rlhf with 20 / 200 / 2,000 steps of reinforcement learning (it had 20); and the steps "
        "with which it would be 2%:",
        "ours 10% / 1.4% / 0.1%; 140",
        "cheap 0.2% / 0.024% / 0.0025%; none at all",
    ]
    assert length_notes([("ours", 60.0)], "rlhf", curve[:1]) == length_notes([], "rlhf", curve) == []
    assert cost_of_steps([]) is None


@pytest.fixture
def two(tmp_path: Any) -> list[str]:
    ours = [point(flops, value, arm="unlearned") for flops, value in ((1e12, 0.8), (2e12, 0.0))]
    rlhf = [
        p.model_copy(update={"arm": "rlhf", "value": 0.0 if p.step == 20 else p.value}) for p in steps(0, 10e12, 1e12)
    ]
    return saved(
        tmp_path,
        ours=report({"unlearned": GOOD}, (cost("unlearned", "training", 3e12, 10),), curve=ours),
        rlhf=report({"rlhf": GOOD}, (cost("rlhf", "rl", 30e12, 90),), method="rlhf", curve=rlhf),
        sft=report({"sft": BAD}, (cost("sft", "tuning", 1e12, 9),), method="sft"),
    )


def test_compare_gives_both_costs(two: list[str]) -> None:
    compared = compare(two, labels={two[0]: "ga"})
    ga = next(row for row in compared.arms if row.name == "ga")
    assert ga.cost and ga.cost.relative_flops == 0.1
    assert ga.matched and (ga.matched.flops, ga.matched.relative_flops) == (2e12, pytest.approx(2 / 30))
    assert [p.flops for p in ga.curve] == [1e12, 2e12]
    assert next(row for row in compared.arms if row.name == "sft").matched is None
    assert len(compared.length_notes) == 2 and compared.length_notes[1].startswith("ga 10% / ")
    said = terminal(compared, 160)
    for part in ("compute to", "≤ 5% bad", "2 TFLOP", "6.7 %", compared.length_notes[0][:20]):
        assert part in said, part
    text = comparison_text(compared)
    assert "| ga | " in text and compared.length_notes[0] in text and "bad" in text


def test_another_target_is_another_cost(two: list[str]) -> None:
    ours = compare(two, target=0.9).arms[1]
    assert ours.matched and ours.matched.flops == 1e12


def test_markdown_reads_no_markup_of_a_report(tmp_path: Any) -> None:
    runs = saved(tmp_path, a=report({"a|b<img src=x>`*": GOOD}), b=report({"sft": BAD}))
    text = comparison_text(compare(runs))
    assert "a\\|b\\<img src=x\\>\\`\\*" in text


def test_a_label_names_the_arm_with_the_reminder(tmp_path: Any) -> None:
    both = report({"tuned": BAD, "original+reminder": BAD, "tuned+reminder": GOOD})
    runs = saved(tmp_path, study=both, sft=report({"sft": GOOD}))
    names = [row.name for row in compare(runs, labels={runs[0]: "mistakes", runs[1]: "sft"}).arms]
    assert names == ["original", "original+reminder", "mistakes, no reminder", "mistakes", "sft"]


def test_other_seen_prompts_are_a_note_and_no_refusal(tmp_path: Any) -> None:
    def with_seen(arm: str, prompt: str) -> Report:
        made = report({arm: GOOD})
        made.samples += [made.samples[0].model_copy(update={"split": "seen", "prompt": prompt})]
        made.measurements += [rate("harmful_rate", "seen", arm, "g")]
        return made

    compared = compare(saved(tmp_path, a=with_seen("x", "one"), b=with_seen("y", "two")))
    assert any("prompts on the split seen: 1 of 1 are in the first run only" in note for note in compared.notes)


def test_the_share_of_cost_has_the_spread_of_its_seeds(tmp_path: Any) -> None:
    """Ours takes 1 and 4, RLHF 10 and 20: shares of 10 % and 20 % of the same seed's, 1/6 of the means."""
    ours = [report({"unlearned": GOOD}, (cost("unlearned", "training", flops, 1),)) for flops in (1e12, 4e12)]
    rlhf = [report({"rlhf": GOOD}, (cost("rlhf", "rl", flops, 1),), method="rlhf") for flops in (10e12, 20e12)]
    compared = compare(saved(tmp_path, ours=pooled(ours), rlhf=pooled(rlhf)))
    shared = next(arm.cost for arm in compared.arms if arm.arm == "unlearned")
    assert shared and shared.seed_flops == [1e12, 4e12] and shared.relative_flops == pytest.approx(1 / 6)
    assert (shared.relative_low, shared.relative_high) == (0.1, 0.2)
    assert "[10.0 %, 20.0 %]" in terminal(compared, 200)
