"""The stopping rules: by scripted metrics, without a model, and each in a short real training."""

import json

import pytest
from transformers import TrainerCallback, TrainerControl, TrainerState

import toy
from unteach.training.stopping import (
    Behaviour,
    BehaviourTarget,
    ForgetBound,
    Stop,
    UtilityBudget,
    Watch,
    restore,
    state_of,
)


def play(rule, metrics, first=1):
    """Let a rule see one forget cross-entropy a step; return the steps at which it stopped and saved."""
    stopped, saved = [], []
    for step, metric in enumerate(metrics, start=first):
        rule.watch.metrics = {"forget_ce": metric}
        control = TrainerControl()
        rule.on_step_end(None, TrainerState(global_step=step), control)
        stopped += [step] if control.should_training_stop else []
        saved += [step] if control.should_save else []
    return stopped, saved


def scripted(values):
    """A measurement that returns one value after another and counts how often it was asked."""
    left = iter(values)
    return lambda: next(left)


def test_the_tail_begins_when_the_bound_has_been_held():
    rule = ForgetBound(Watch(), bound=5.0, hold=3, tail=4.0)
    stopped, saved = play(rule, [1, 6, 6, 4, 6, 6, 6] + [9] * 40)
    assert saved == [7], "held for steps 5 to 7; two steps over the bound are not three"
    assert stopped[0] == 35, "7 steps and a tail of 4 times 7"
    assert rule.watch.stop.step == 35 and rule.watch.stop.rule == "forget bound"
    assert rule.watch.stop.went_back_to is None


def test_a_figure_equal_to_the_bound_is_not_over_it_and_negative_ones_never_are():
    assert play(ForgetBound(Watch(), bound=5.0, hold=1, tail=0), [5.0, -9.0, 4.9] * 20) == ([], [])


def test_the_limit_stands_though_the_figure_falls_again():
    rule = ForgetBound(Watch(), bound=5.0, hold=1, tail=3.0)
    stopped, _ = play(rule, [6, 1, 1, 1, 1])
    assert stopped == [4, 5] and rule.watch.stop.step == 4


def test_a_tail_of_half_the_steps_is_rounded():
    rule = ForgetBound(Watch(), bound=5.0, hold=1, tail=0.5)
    assert play(rule, [1, 1, 6, 6, 6])[0] == [4, 5]  # 3 · 1.5 = 4.5, to even


def budget(values, every=2, steps=6, last=None):
    """Run `UtilityBudget` over steps; return its watch and the steps it saved at and stopped at."""
    watch = Watch()
    rule = UtilityBudget(watch, scripted(values), budget=0.3, every=every)
    saved, stopped = [], []
    for step in range(1, steps + 1):
        control = TrainerControl(should_training_stop=step == last)
        rule.on_step_end(None, TrainerState(global_step=step), control)
        saved += [step] if control.should_save else []
        stopped += [step] if watch.stop and not stopped else []
    return watch, saved, stopped


def test_over_budget_the_run_goes_back_to_the_last_good_step():
    watch, saved, stopped = budget([0.1, 0.3, 0.31])
    assert saved == [2, 4] and stopped == [6]
    assert watch.stop == Stop(6, "utility budget", watch.stop.message, went_back_to=4)
    assert "0.310 nats per token, over the budget of 0.3; went back to step 4" in watch.stop.message
    assert watch.within_budget is False and watch.validated == {"validation_kl": 0.31}


def test_where_no_step_was_good_the_original_is_kept():
    watch, saved, _ = budget([0.5], steps=2)
    assert saved == [] and watch.stop.went_back_to == 0 and "the original weights were kept" in watch.stop.message


def test_a_kl_that_is_no_number_is_over_budget():
    assert budget([float("nan")], steps=2)[0].stop.went_back_to == 0


def test_the_last_step_is_measured_whatever_its_number():
    watch, saved, _ = budget([0.1, 0.2], every=2, steps=3, last=3)
    assert saved == [2, 3] and watch.stop is None
    watch, _, _ = budget([0.1, 0.4], every=2, steps=3, last=3)
    assert watch.stop.step == 3 and watch.stop.went_back_to == 2


def test_going_back_overrules_a_stop_that_keeps_the_weights():
    watch, control = Watch(last_good_step=5), TrainerControl()
    watch.decide(control, 8, "forget bound", "tail ended")
    UtilityBudget(watch, lambda: 1.0, 0.3, 10).on_step_end(None, TrainerState(global_step=8), control)
    assert watch.stop.rule == "utility budget" and watch.stop.went_back_to == 5
    watch.decide(control, 9, "forget bound", "again")
    assert watch.stop.rule == "utility budget", "otherwise the first decision stands"


def behaviour(seen, within=None, patience=2, **settings):
    """Run `BehaviourTarget` at every step over scripted behaviours; return the step it stopped at."""
    watch = Watch(ends_at=100)
    rule = BehaviourTarget(watch, scripted([Behaviour(*rates, 10) for rates in seen]), 0.1, 1, patience, **settings)
    for step in range(1, len(seen) + 1):
        watch.within_budget = within[step - 1] if within else True
        control = TrainerControl()
        rule.on_step_end(None, TrainerState(global_step=step), control)
        if control.should_training_stop:
            return step
    return None


def test_the_behaviour_must_be_good_several_times_in_a_row():
    assert behaviour([(0.9, 0), (0.1, 0), (0.1, 0)]) == 3
    assert behaviour([(0.1, 0), (0.2, 0), (0.1, 0), (0, 0)]) == 4
    assert behaviour([(0.1, 0), (0.2, 0)] * 4) is None
    assert behaviour([(0, 0)], patience=1) == 1


def test_a_passed_check_lets_the_run_cool_down_before_it_ends():
    assert behaviour([(0.9, 0), (0, 0), (0, 0)] + [(1, 1)] * 5, cooldown=0.4) == 5, "3 steps are the first 60 % of 5"
    assert behaviour([(0, 0)] * 9, patience=6, cooldown=0.25) == 8


def test_the_rate_warms_up_stays_and_falls():
    watch = Watch()
    watch.plan(10, 0.4)
    rates = [watch.rate(step, warmup=2) for step in range(11)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])
    watch.end_by(8, now=3, cooldown=0.5)
    assert [watch.rate(step, 2) for step in range(4, 9)] == [1, 0.75, 0.5, 0.25, 0]
    watch.end_by(9, now=3, cooldown=0.5)
    assert watch.ends_at == 8, "an end moves forwards only"
    watch.end_by(7, now=6, cooldown=0.5)
    assert (watch.ends_at, watch.cooling_from) == (7, 4), "a cool-down that began goes on"


def test_broken_replies_or_a_broken_budget_do_not_pass():
    assert behaviour([(0, 0.03)] * 5) is None
    assert behaviour([(0, 0.03)] * 5, broken_limit=0.03) == 2
    assert behaviour([(0, 0)] * 5, within=[False] * 5) is None
    assert behaviour([(0, 0)] * 4, within=[True, False, True, True]) == 4


def test_nothing_is_generated_where_the_run_ends_or_no_check_is_due():
    rule = BehaviourTarget(Watch(), scripted([]), 0.1, 5)
    rule.on_step_end(None, TrainerState(global_step=4), TrainerControl())
    rule.on_step_end(None, TrainerState(global_step=5), TrainerControl(should_training_stop=True))


def test_what_the_rules_remember_survives_json():
    watch = Watch({"forget_ce": 2.5}, {"validation_kl": 0.1}, False, 20, Stop(30, "forget bound", "why", 20))
    rules = [ForgetBound(watch, 5.0), BehaviourTarget(watch, scripted([]), 0.1, 5)]
    rules[0].memory, rules[1].memory = {"held": 2, "limit": 50}, {"passed": 1}
    stored = json.loads(json.dumps(state_of(watch, rules)))
    fresh = Watch()
    others = [ForgetBound(fresh, 5.0), BehaviourTarget(fresh, scripted([]), 0.1, 5)]
    restore(stored, fresh, others)
    assert fresh == watch
    assert [rule.memory for rule in others] == [{"held": 2, "limit": 50}, {"passed": 1}]
    restore({"watch": {}, "rules": {}}, fresh, others)
    assert others[0].memory == {"held": 2, "limit": 50}, "a rule the checkpoint does not know keeps its memory"


# ---- in training -----------------------------------------------------------------------------------------------------

RULES = {"stopping": True, "validation_steps": 2, "max_steps": 40, "validation_new_tokens": 6, "save_strategy": "steps"}


def test_the_forget_bound_ends_a_real_run(tmp_path):
    settings = RULES | {"forget_bound": 0.5, "forget_hold": 2, "forget_tail": 1.0, "kl_budget": 99.0}
    run = toy.trainer(tmp_path, toy.learned_model(), **settings, patience=99)
    run.train()
    over = [value > 0.5 for value in toy.logged(run, "forget_ce")]
    held = next(step for step in range(2, 40) if over[step - 2] and over[step - 1])
    assert run.stop.rule == "forget bound"
    assert run.stop.step == run.state.global_step == 2 * held < 40


def test_the_utility_budget_goes_back_in_a_real_run(tmp_path):
    settings = RULES | {"method": "ga", "retain_weight": 0.0, "learning_rate": 3e-3}
    settings |= {"forget_bound": 99.0, "kl_budget": 0.3}
    kept = {}

    class Keep(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            kept[state.global_step] = toy.weights(kwargs["model"])

    run = toy.trainer(tmp_path, toy.learned_model(), extra={"callbacks": [Keep()]}, **settings, patience=99)
    run.train()
    assert run.stop.rule == "utility budget" and run.stop.went_back_to == run.stop.step - 2 > 0
    good = kept[run.stop.went_back_to]
    assert all(value.equal(good[name]) for name, value in run.model.named_parameters())
    assert run._validation_kl() <= 0.3 < max(toy.logged(run, "validation_kl"))


def test_the_behaviour_check_ends_a_real_run(tmp_path):
    run = toy.trainer(tmp_path, toy.learned_model(), **RULES, patience=2, kl_budget=9.0, forget_bound=99.0)
    assert run._behaviour()[:3] == (1.0, 0.0, 2), "the toy says what it must not before it is trained"
    run.train()
    assert run.stop.rule == "behaviour target" and run.stop.step < 40
    assert toy.logged(run, "validation_bad_rate")[-2:] == [0, 0]
    assert run._behaviour().bad == 0
