"""Curves of behaviour against cost, and what stands on a cost: counted by hand on the toy model."""

from pathlib import Path
from typing import Any

import pytest

import toy
from bench import GOOD, bench
from command import call, place, write_rows
from test_resume import SETTINGS as RESUMED
from test_resume import cut_off
from unteach.baselines import load_baseline
from unteach.data.encoded import encode_all
from unteach.models.adapter import lora_config
from unteach.results.cost import Meter, flops_in, flops_of
from unteach.results.report import Cost, Report
from unteach.training.behaviour import Behaviour
from unteach.training.curve import Curve, ValidationCurve, waypoints
from unteach.training.data import halves
from unteach.training.original import validation_rows

RULES = {"stopping": True, "validation_steps": 2, "patience": 99, "kl_budget": 99.0, "forget_bound": 99.0}
SETTINGS = RULES | {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "validation_new_tokens": 3}


class State:
    global_step = 0
    max_steps = 7


def test_validations_are_evenly_spaced_and_the_last_is_at_the_end() -> None:
    meter, asked = Meter(waiting=True), list[int]()
    watching = ValidationCurve(3, lambda model: Behaviour("bbgu"), meter, lambda step: {"backward": 10 * step})
    for step in range(1, 8):
        state: Any = State()
        state.global_step = step
        watching.on_step_end(None, state, None)  # type: ignore[arg-type]
        asked += [step] if len(watching.curve.points) > len(asked) else []
    assert asked == [3, 5, 7]
    last = watching.curve.points[-1]
    assert (last.tokens, last.judged, last.unknown, last.bad) == ({"backward": 70}, 3, 1, 2)


def test_a_point_includes_the_cost_of_what_went_before() -> None:
    model, curve = toy.model(), Curve()
    curve.saw(5, Behaviour("bggg"), Meter(waiting=True), {"backward": 100, "generated": 7})
    before = [
        Cost(arm="original", stage="inducing mistakes", wall_seconds=3, flops=1e6),
        Cost(arm="original", stage="evaluation", wall_seconds=9, flops=9e9),
    ]
    (point,) = waypoints(curve, model, "a", "tuning", 4, before)
    assert point.flops == 1e6 + flops_of(model, backward=100, generated=7) and 3 <= point.wall_seconds < 4
    assert (point.step, point.seed, point.value, point.n) == (5, 4, 0.25, 4)
    assert point.low is not None and point.high is not None and point.low < 0.25 < point.high
    again = Curve()
    again.restore(curve.state())
    assert again.points == curve.points


@pytest.mark.parametrize("adapter", [False, True], ids=["cached states", "adapter off"])
def test_unlearning_counts_its_validations_and_its_reference(tmp_path: Path, adapter: bool) -> None:
    extra = {"peft_config": lora_config(4, 8.0)} if adapter else {}
    run = toy.trainer(tmp_path, toy.learned_model(), extra=extra, **SETTINGS)
    both = run.data.validation_negatives
    held = sum(tree.tokens for tree in validation_rows(run.data))
    drawn = {i for n in range(len(run.train_dataset)) for i in run.train_dataset.normal_indices(n)}
    rows = sum(len(run.data.normals[i].prompt_ids) + len(run.data.normals[i].reply_ids) - 1 for i in drawn)
    read = rows + sum(tree.places for tree in validation_rows(run.data))
    assert run.meter.tokens["forward"] == 0, "nothing is asked before training begins"
    run.read_original()
    at_first = run.meter.tokens["forward"]
    assert at_first == (0 if adapter else read)
    run.train()
    assert [point.step for point in run.curve.points] == [2, 4, 6]
    asked, of_a = (sum(len(row.prompt_ids) for row in rows) for rows in (both, halves(both, 0)[0]))
    if not adapter:
        assert run.meter.tokens["forward"] == at_first + 3 * held + 2 * asked + 2 * of_a
    else:  # the adapter is switched off for every batch of normals, and for the held-out ones
        assert run.meter.tokens["forward"] > 3 * 2 * held + 2 * asked + 2 * of_a
    assert 0 < run.meter.tokens["generated"] <= 4 * (3 * len(halves(both, 0)[0]) + 2 * len(both))
    cost = run.meter.cost(run.model, "unlearned", "training")
    points = waypoints(run.curve, run.model, "unlearned", "training", 0)
    assert cost.tokens_backward == run.meter.tokens["backward"] > 0
    assert [point.flops for point in points] == sorted(point.flops for point in points)
    assert points[-1].flops < cost.flops and points[0].value == 1.0


def test_a_resumed_run_has_the_whole_cost(tmp_path: Path) -> None:
    whole = toy.trainer(tmp_path / "whole", toy.model(), **RESUMED)
    whole.train()
    cut_off(tmp_path / "cut", 5)
    again = toy.trainer(tmp_path / "cut", toy.model(), **RESUMED)
    again.train(resume_from_checkpoint=True)
    assert again.meter.tokens == whole.meter.tokens
    known = [(p.step, p.tokens, p.bad) for p in whole.curve.points]
    assert [(p.step, p.tokens, p.bad) for p in again.curve.points] == known


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stages"),
    [("sft", ["tuning"]), ("dpo", ["sft", "dpo"]), ("kto", ["kto"]), ("coh", ["tuning"]), ("rlhf", ["sft", "rl"])],
)
def test_every_stage_of_a_baseline_is_validated(tmp_path: Path, name: str, stages: list[str]) -> None:
    work = bench(tmp_path, name, validations=2, rl_steps=2, batch_size=4)
    work.validation = encode_all(work.rows.validation, work.original.form, 64, "validation")[0]
    assert work.validation
    baseline = load_baseline(name)
    baseline.train(work, baseline.prepare(work))
    assert list(dict.fromkeys(point.stage for point in work.curve)) == stages
    assert [point.flops for point in work.curve] == sorted(point.flops for point in work.curve)
    assert work.curve[-1].flops == pytest.approx(flops_in(work.cost)) and len(work.curve) == 2 * len(stages)
    assert {point.n + point.unknown for point in work.curve} == {len(work.validation)}


def test_validating_changes_nothing_that_is_learnt(tmp_path: Path) -> None:
    found = []
    for count in (0, 3):
        work = bench(tmp_path, validations=count)
        work.validation = encode_all(work.rows.validation, work.original.form, 64, "validation")[0]
        baseline = load_baseline("sft")
        found.append(toy.weights(baseline.train(work, baseline.prepare(work)).model))
    assert all((found[0][name] == value).all() for name, value in found[1].items())


@pytest.mark.slow
def test_own_answers_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    there = place(tmp_path)
    rows = [{"prompt": r["prompt"], "chosen": GOOD, "rejected": r["completion"]} for r in toy.FORGET]
    write_rows(there.forget, rows)
    outcome = call(capsys, *there.quick(tmp_path / "out", retain=None))
    assert outcome.code == 0, outcome.err
    report = Report.read(tmp_path / "out")
    (line,) = [cost for cost in report.cost if cost.stage == "answering benign prompts"]
    assert line.arm == "original" and line.tokens_generated and line.tokens_forward and not line.tokens_backward
    first = report.curve[0]
    assert line.flops and first.flops > line.flops and first.arm == "unlearned"
