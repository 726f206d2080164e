"""The stopping rules: the state machine over any history of measurements, then in short real trainings."""

import json
import math
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import TrainerCallback

import toy
from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.pipeline.train import _ending_of
from unteach.stats import sign_test, wilson
from unteach.training.behaviour import Behaviour
from unteach.training.data import halves as halves_of
from unteach.training.data import validation_share
from unteach.training.settings import UnlearnSettings
from unteach.training.stopping import Seen, advance, due, rate, restored, start, state_of
from unteach.training.target import Limits, failure, fewest_verdicts, hindrance, level, told


def replies(bad, n=32, unknown=0, broken=0):
    return Behaviour("b" * bad + "u" * unknown + "g" * (n - bad - unknown), broken)


def play(limits, measure, before=None, loss=lambda step: 1.0, resume=False):
    """Run the machine as `Watch` does; `measure(name, step)` gives what is due. Returns the states after each step."""
    state, trace = start(limits), []
    first = before or {"a": replies(32), "b": replies(32)}
    state = advance(limits, state, Seen(0, **(first if due(limits, state, 0) else {})))
    for step in range(1, limits.max_steps + 1):
        state = advance(limits, state, Seen(step, loss=loss(step)))
        while wanted := due(limits, state, step):
            state = advance(limits, state, Seen(step, **{name: measure(name, step) for name in wanted}))
        if resume:
            state = restored(json.loads(json.dumps(state_of(state))))
        trace.append(state)
        if state.stop:
            break
    return trace


def scripted(a=lambda step: replies(0), b=lambda step: replies(0), kl=lambda step: 0.01):
    return lambda name, step: {"a": a, "b": b, "kl": kl}[name](step)


LIMITS = Limits(max_steps=120, cooldown=0.4, validation_steps=20)

# ---- over any history ------------------------------------------------------------------------------------------------

verdicts = st.sampled_from(["b" * 32, "g" * 32, "g" * 31 + "b", "g" * 16 + "u" * 16, "g" * 12 + "u" * 20, "u" * 32])
halves = st.builds(Behaviour, verdicts | st.text("bgu", min_size=32, max_size=32), st.sampled_from([0, 0, 0, 1, 9]))
kls = st.sampled_from([0.0, 0.01, 0.1, 0.11, 0.5, 9.0, math.nan, math.inf])
calm = st.sampled_from([replies(0)] * 6 + [replies(1), replies(0, broken=1), replies(0, unknown=9), replies(5)])


def history(before, later, kl):
    later, kl = (st.lists(values, min_size=1, max_size=9) for values in (later, kl))
    loss = st.lists(st.sampled_from([0.1, 0.1, 3.0, 6.0, 20.0]), min_size=1, max_size=40)
    both = st.fixed_dictionaries({"a": before, "b": before})
    return st.fixed_dictionaries({"before": both, "a": later, "b": later, "kl": kl, "loss": loss})


histories = history(halves, halves, kls) | history(st.just(replies(32)), calm, st.sampled_from([0.01] * 9 + [0.2]))
any_limits = st.builds(
    Limits,
    max_steps=st.integers(1, 60),
    cooldown=st.sampled_from([0.0, 0.2, 0.4, 0.9]),
    validation_steps=st.integers(1, 25),
    patience=st.integers(1, 3),
    target_rate=st.sampled_from([0.0, 0.01, 0.1]),
    target_margin=st.sampled_from([0.05, 0.1, 0.9]),
    forget_bound=st.sampled_from([5.0, math.inf]),
    forget_hold=st.integers(1, 3),
    forget_tail=st.sampled_from([0.0, 1.0, 4.0]),
)


def played(limits, history, resume=False):
    """Play a history, and note every step at which something was measured and every look at half B."""
    found = {name: iter(history[name] * 400) for name in ("a", "b", "kl")}
    losses, asked = history["loss"] * 61, []

    def measure(name, step):
        asked.append((name, step))
        return next(found[name])

    trace = play(limits, measure, history["before"], lambda step: losses[step], resume)
    return trace, asked


@settings(max_examples=400, deadline=None)
@given(any_limits, histories)
def test_what_holds_of_every_run(limits, history):
    trace, asked = played(limits, history)
    final, stop = trace[-1], trace[-1].stop
    assert stop is not None and stop.step == len(trace) <= limits.max_steps, "always ends by max_steps"
    within = {s.seen.step for s in trace if s.seen.kl is not None and s.seen.kl <= limits.kl_budget}
    if stop.went_back_to is None:  # the kept weights have been looked at
        assert {("a", stop.step), ("b", stop.step), ("kl", stop.step)} <= set(asked) and stop.step in within
    else:
        assert stop.rule == "utility budget" and (stop.went_back_to in within or stop.went_back_to == 0)
        assert stop.went_back_to == max(within, default=0)
    assert len([name for name, _ in asked if name == "b"]) == len(final.looks)
    assert all(name != "b" or step == limits.max_steps or trace[step - 1].looks for name, step in asked)
    if stop.confirmed:
        before, look = history["before"], final.looks[-1]
        assert look.step == stop.step and look.level == level(len(final.looks))
        for old, now, at in ((before["a"], final.seen.a, 0.95), (before["b"], look.behaviour, look.level)):
            assert now.judged >= max(fewest_verdicts(limits, at), now.n / 2), "enough verdicts"
            assert wilson(now.bad, now.judged, at)[2] <= limits.target_rate + limits.target_margin
            assert now != old and sign_test(*now.changed_from(old)) < 1 - at
            assert now.broken_share <= old.broken_share + limits.broken_limit
        passed = [s for s in trace[stop.met_at - 1 :] if s.seen.a is not None]
        assert all(not failure(limits, before["a"], s.seen.a) for s in passed), "no failed validation since"


@settings(max_examples=150, deadline=None)
@given(any_limits, histories)
def test_a_run_resumed_at_every_step_decides_the_same(limits, history):
    whole, asked = played(limits, history)
    again, asked_again = played(limits, history, resume=True)
    assert [json.dumps(state_of(s)) for s in whole] == [json.dumps(state_of(s)) for s in again]
    assert asked == asked_again


@settings(max_examples=150, deadline=None)
@given(any_limits, histories)
def test_a_model_that_equals_its_baseline_never_passes(limits, history):
    history = history | {"a": [history["before"]["a"]], "b": [history["before"]["b"]]}
    assert not played(limits, history)[0][-1].stop.confirmed


@settings(max_examples=100, deadline=None)
@given(any_limits, histories)
def test_the_learning_rate_is_a_share_and_falls_to_the_end(limits, history):
    for state in played(limits, history)[0]:
        rates = [rate(state, step, warmup=0) for step in range(limits.max_steps + 1)]
        assert all(0 <= share <= 1 for share in rates) and rates == sorted(rates, reverse=True)
        assert limits.cooldown == 0 or rates[state.ends_at] == 0


# ---- one history at a time -------------------------------------------------------------------------------------------


def test_met_on_half_a_and_confirmed_on_half_b():
    trace = play(LIMITS, scripted(a=lambda step: replies(0 if step > 20 else 32)))
    stop = trace[-1].stop
    assert (stop.step, stop.rule, stop.met_at, stop.confirmed) == (100, "behaviour target", 60, True)
    assert "met at step 60 on half A" in stop.message and "0 of 32 bad (0.0% [0.0%, 10.7%])" in stop.message
    assert "before training 32 of 32" in stop.message
    assert [rate(trace[59], step, 0) for step in (60, 80, 100)] == [1, 0.5, 0]


def test_the_constructed_run_of_the_audit_does_not_say_it_is_done():
    """100 % bad and a KL of 9 from step 60 on: once it ended at step 67 and said "0.0 %, budget kept"."""
    worse = scripted(a=lambda step: replies(32 if step >= 60 else 0), kl=lambda step: 9.0 if step >= 60 else 0.01)
    trace = play(LIMITS, worse)
    stop = trace[-1].stop
    assert trace[39].phase == "cooling" and trace[39].ends_at == 67
    assert trace[59].phase == "training" and trace[59].ends_at == 120, "cancelled"
    assert (stop.rule, stop.went_back_to, stop.confirmed) == ("utility budget", 40, False)
    assert "9.000 nats" in stop.message and "0.0%" not in stop.message


@pytest.mark.parametrize(
    "failing", [{"a": lambda step: replies(1 if step == 60 else 0)}, {"kl": lambda s: 0.2 * (s == 60)}]
)
def test_a_failed_validation_cancels_the_end_and_the_rate_rises_again(failing):
    trace = play(LIMITS, scripted(**failing))
    assert trace[39].phase == "cooling" and rate(trace[39], 60, 0) < 0.3
    assert trace[59].phase == "training" and rate(trace[59], 60, 0) == 1
    assert trace[-1].stop.confirmed and trace[-1].stop.met_at == 100 and trace[-1].stop.step == 120


def test_half_b_has_the_last_word_and_is_harder_to_convince_the_second_time():
    n = 64
    before = {"a": replies(n, n), "b": replies(n, n)}
    half = {"a": lambda step: replies(0, n), "b": lambda step: replies(2 if step < 100 else 0, n)}
    trace = play(LIMITS, scripted(**half), before)
    assert [(look.step, look.level) for look in trace[-1].looks] == [(67, 0.95), (120, 0.975)]
    assert trace[66].phase == "training" and "on half B 2 of 64 bad" in trace[66].why
    assert trace[-1].stop.confirmed and "confirmed at look 2" in trace[-1].stop.message
    assert "97.50% interval" in trace[-1].stop.message
    few = play(LIMITS, scripted(b=lambda step: replies(2 if step < 100 else 0)))[-1].stop
    assert not few.confirmed, "32 prompts cannot show it at 97.5 %"
    assert "each half must have 41 to show at look 2" in few.message and "cancelled at step 67" in few.message


@pytest.mark.parametrize(
    ("before", "part"),
    [
        ({"a": replies(0), "b": replies(0)}, "there is nothing to stop: the original's replies"),
        (
            {"a": replies(1, unknown=31), "b": replies(1, unknown=31)},
            "a verdict on 2 of the original's 64 replies only",
        ),
        ({"a": replies(4), "b": replies(32)}, "bad too seldom, 4 of half A and 32 of half B"),
        ({"a": replies(10, 10), "b": replies(10, 10)}, "the 20 validation prompts are too few: each half must have 32"),
    ],
)
def test_what_the_target_cannot_decide_is_said_and_all_steps_are_made(before, part):
    n = before["a"].n
    half = {"a": lambda step: replies(0, n), "b": lambda step: replies(0, n)}
    stop = play(LIMITS, scripted(**half), before)[-1].stop
    assert part in hindrance(LIMITS, before["a"], before["b"])
    assert stop.step == 120 and not stop.confirmed and part in stop.message
    assert f"half A 0 of {n} bad" in stop.message and f"half B 0 of {n} bad" in stop.message


@pytest.mark.parametrize(
    ("now", "part"),
    [
        (replies(0, unknown=17), "a verdict on 15 of 32 replies only"),
        (replies(0, unknown=8), "the interval reaches beyond 11.0%"),
        (replies(1), "more than the target of 1.0%"),
        (replies(0, broken=3), "3 of 32 replies were blank or gibberish, and 2 of the original's"),
        (replies(0, broken=2), ""),
    ],
)
def test_what_a_half_must_show(now, part):
    assert failure(LIMITS, replies(32, broken=2), now) == part or (
        part and part in failure(LIMITS, replies(32, broken=2), now)
    )


def test_fewer_bad_replies_must_be_clearly_fewer_on_the_same_prompts():
    assert "not clearly fewer than the original's 4 of 32" in failure(LIMITS, replies(4), replies(0))
    assert not failure(LIMITS, replies(5), replies(0)), "five falls and no rise: p = 1/32"
    moved = Behaviour("g" * 12 + "b" * 2 + "g" * 86)
    lenient = replace(LIMITS, target_rate=0.5)
    assert failure(lenient, Behaviour("b" * 6 + "g" * 94), moved), "6 falls and 2 rises: p = 0.14"


def test_the_fewest_verdicts_are_those_at_which_the_interval_ends_low_enough():
    for margin in (0.02, 0.05, 0.1, 0.3):
        for at in (0.95, 0.975):
            limits = replace(LIMITS, target_margin=margin)
            n = int(fewest_verdicts(limits, at))
            assert wilson(0, n, at)[2] <= 0.01 + margin < wilson(0, n - 1, at)[2]
    assert told(Behaviour("uu")) == "0 of 0 bad, 2 without a verdict"


def test_defaults_are_those_of_the_settings():
    theirs = {field.name: field.default for field in fields(UnlearnSettings)}
    shared = [field for field in fields(Limits) if field.name in theirs]
    differ = {"max_steps", "cooldown", "forget_bound"}  # known, or chosen, when a run begins
    assert {field.name for field in shared if field.default != theirs[field.name]} == differ


def test_halves_are_drawn_by_seed_and_keep_a_prompt_together():
    rows = [Encoded(Example((), "x"), (n // 2,), (n,), False) for n in range(42)]
    a, b = halves_of(rows, 0)
    assert len(a) == 22 and len(b) == 20 and sorted([*a, *b], key=rows.index) == rows
    assert not {row.prompt_ids for row in a} & {row.prompt_ids for row in b}
    assert halves_of(rows, 0) == (a, b) != halves_of(rows, 1)
    shares = [validation_share(n, 128, 64) * n for n in (100, 320, 530, 1000, 5000)]
    assert shares == pytest.approx([20, 64, 64, 100, 128])


# ---- the KL ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("last", "back"), [(0.1, None), (0.11, 100), (math.nan, 100)])
def test_the_budget_binds_at_the_last_step(last, back):
    trace = play(LIMITS, scripted(a=lambda step: replies(9), kl=lambda step: last if step == 120 else 0.05))
    assert trace[-1].stop.step == 120 and trace[-1].stop.went_back_to == back


def test_a_disturbance_that_may_settle_ends_no_run_and_a_ruin_does():
    def ends(*values):
        kl = scripted(a=lambda step: replies(9), kl=lambda step: values[min(step // 20, len(values)) - 1])
        stop = play(LIMITS, kl)[-1].stop
        return stop.step, stop.went_back_to

    assert ends(0.2, 0.2, 0.2, 0.2, 0.05) == (120, None)
    assert ends(0.05, 0.4, 0.05) == (120, None)
    assert ends(0.05, 0.4, 0.4) == (60, 20)
    assert ends(0.4, 0.4) == (40, 0)


# ---- the forget bound ------------------------------------------------------------------------------------------------

JUMPS = Limits(max_steps=100, validation_steps=10, forget_bound=5.0, reads_kl=False, reads_replies=False)


def jump(values, **changed):
    state = play(replace(JUMPS, **changed), scripted(), loss=lambda step: values[min(step, len(values)) - 1])[-1]
    return state.stop.step, state.stop.rule


def test_a_jump_of_the_loss_ends_the_run_later():
    assert jump([1, 6, 6, 4, 6, 6, 6]) == (35, "forget bound"), "7 steps and 4 times 7"
    assert jump([1, 6, 6, 6, 1]) == (20, "forget bound"), "though the loss falls again"
    assert jump([1, 5.0, 5.0, 5.0]) == (100, "end of the schedule"), "a loss equal to the bound is not over it"
    assert jump([1, 6], forget_hold=1, forget_tail=0.0) == (10, "forget bound"), "not before the first validation"
    assert jump([1, 6], forget_hold=1, forget_tail=0.0, validation_steps=1) == (2, "forget bound")


def test_a_text_that_the_original_never_knew_has_made_no_jump():
    assert jump([5.2]) == jump([5.2] + [7.6] * 9) == (100, "end of the schedule"), (
        "its loss is high from the first step"
    )
    assert jump([5.2] + [7.8] * 9)[1] == "forget bound"


def test_the_rate_warms_up_stays_and_falls():
    state = start(Limits(max_steps=10, cooldown=0.4))
    assert [rate(state, step, warmup=2) for step in range(11)] == pytest.approx(
        [1 / 3, 2 / 3, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0]
    )


def test_the_original_is_asked_once():
    state = advance(LIMITS, start(LIMITS), Seen(0, a=replies(32), b=replies(32)))
    assert due(LIMITS, start(LIMITS), 0) == ("a", "b") and due(LIMITS, state, 0) == due(LIMITS, state, 19) == ()


def test_an_end_from_outside_is_looked_at_too():
    state = advance(LIMITS, start(LIMITS), Seen(0, a=replies(32), b=replies(32)))
    state = advance(LIMITS, state, Seen(7, loss=1.0, last=True))
    assert due(LIMITS, state, 7, last=True) == ("kl", "a")
    state = advance(LIMITS, state, Seen(7, kl=0.01, a=replies(3), last=True))
    state = advance(LIMITS, state, Seen(7, b=replies(4), last=True))
    assert state.stop.rule == "ended from outside" and "half B 4 of 32 bad" in state.stop.message


# ---- in training -----------------------------------------------------------------------------------------------------

VALIDATION = {"forget_validation": toy.FORGET * 2, "retain_validation": toy.RETAIN[:4]}
RULES = {"stopping": True, "validation_steps": 2, "max_steps": 40, "validation_new_tokens": 6, "save_strategy": "steps"}
RULES |= {"target_margin": 0.4, "kl_budget": 9.0, "forget_bound": 99.0}


def run_of(directory, *callbacks, **changed):
    extra = {**VALIDATION, "callbacks": callbacks}
    return toy.trainer(directory, toy.learned_model(), extra=extra, **(RULES | changed))


def test_a_real_run_is_confirmed_on_prompts_that_were_kept_apart(tmp_path):
    run = run_of(tmp_path, cooldown=0.25)
    run.train()
    stop, state = run.stop, run.watch.state
    assert stop.confirmed and stop.rule == "behaviour target" and stop.met_at < stop.step < 40
    assert (state.before_a.n, state.before_b.n, state.before_a.bad, state.before_b.bad) == (24, 24, 24, 24)
    assert [look.step for look in state.looks] == [stop.step] and state.looks[0].behaviour.bad == 0
    assert toy.logged(run, "confirmation_bad_rate") == [0]
    ending = _ending_of(run)
    assert (ending.step, ending.met_at, ending.confirmed) == (stop.step, stop.met_at, True)
    shown = [(half.half, half.step, half.value, half.n, half.look) for half in ending.halves]
    first, last = [("A", 0, 1.0, 24, None), ("B", 0, 1.0, 24, None)], stop.step
    assert shown == [*first, ("A", last, 0.0, 24, None), ("B", last, 0.0, 24, 1)]
    assert run.evaluate()["eval_bad_rate"] == 0 and run.watch.notes() == []


def test_a_real_run_with_few_validation_prompts_says_so_at_its_start(tmp_path, capsys):
    run = run_of(tmp_path, max_steps=2, target_margin=0.1, progress=True)
    run.train()
    note = "the behaviour target cannot end this run: the 48 validation prompts are too few"
    assert note in capsys.readouterr().err and note in run.watch.notes()[0]
    assert run.stop.step == 2 and "too few" in run.stop.message


def test_the_forget_bound_ends_a_real_run(tmp_path):
    run = run_of(tmp_path, forget_bound=1.0, forget_hold=2, forget_tail=1.0, patience=99)
    run.train()
    over = [value > 1.0 for value in toy.logged(run, "forget_ce")]
    held = next(step for step in range(2, 40) if over[step - 2] and over[step - 1])
    assert run.stop.rule == "forget bound" and run.stop.step == run.state.global_step == 2 * held < 40


def test_the_utility_budget_goes_back_in_a_real_run(tmp_path):
    kept = {}

    class Keep(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            kept[state.global_step] = toy.weights(kwargs["model"])

    settings = {"method": "ga", "retain_weight": 0.0, "learning_rate": 3e-3, "kl_budget": 0.1, "patience": 1}
    settings |= {"target_margin": 0.1}  # which 24 prompts a half cannot show
    run = run_of(tmp_path, Keep(), **settings)
    run.train()
    assert run.stop.rule == "utility budget" and 0 < run.stop.went_back_to < run.stop.step
    good = kept[run.stop.went_back_to]
    assert all(value.equal(good[name]) for name, value in run.model.named_parameters())
    assert run._validation_kl() <= 0.1 < 0.3 < max(toy.logged(run, "validation_kl"))
