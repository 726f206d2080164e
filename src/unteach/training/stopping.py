"""When a run ends: a state machine without a model, fed with what was measured. `training/watch.py` measures for it.

    measuring ──► training ──► cooling ──► ended: confirmed          rule "behaviour target"
                    │   ▲         │
                    │   └─────────┘ cancelled
                    └─────────────────────► ended: not confirmed     the other rules

| state | what happens | goes to |
|---|---|---|
| measuring | the original replies to all validation prompts, half A and half B | training |
| training | each validation looks at half A and the KL; the target is met at `patience` in a row | cooling, ended |
| cooling | the learning rate falls to 0, validations go on; the first that fails cancels the end | training, ended |
| ended | `stop` says why, and which weights are kept | |

**The target is kept** on a half where, of the replies with a verdict, at most `target_rate` are bad; where the upper
end of Wilson's interval of that share is at most `target_rate + target_margin`; where bad replies are clearly fewer
than the original's on the same prompts (exact sign test, one-sided); where at least half of the replies have a verdict;
and where broken replies are at most `broken_limit` more than the original's. It is met if the KL is within `kl_budget`
as well.

**Half B is fresh.** It is asked at the beginning, and then only at a last step: of a cool-down, if half A and the KL
passed there, and of the run. Look k at it is taken with an error of 5 % / 2ᵏ⁻¹, in the interval and in the sign test,
so that all looks together err in less than 10 % of runs, however many there are. (The first has the usual interval.)

**After a cancelled end** the learning rate is again that of the run's own schedule: its plateau or, late in the run,
the fall that ends at the last step.

**Not confirmed** a run ends at its last step, or earlier in two cases. "forget bound": the loss on the negatives has
jumped, in comparison with the original's, long ago (arXiv 2310.10683, §4: go on for 3 to 5 times more batches after
the jump, since behaviour changes later than the loss). "utility budget": the KL is far over its budget. Wherever the
KL of the last step is over its budget, the weights of the last step within it are put back.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from pydantic import TypeAdapter

from unteach.errors import ConfigError
from unteach.training.behaviour import Behaviour
from unteach.training.target import Limits, failure, hindrance, level, told

RUINED = 3.0
"""A KL of more budgets than these does not come back as the rate falls. (In runs that ended well it reached 2.2.)"""

Measured = Literal["kl", "a", "b"]


@dataclass(frozen=True)
class Seen:
    """An observation after `step` steps; None is what was not measured.

    `loss`: of the negatives in that step, nats per token. `kl`: to the original on validation normals, nats per token.
    `a` and `b`: replies to each half of the validation prompts. `last`: whether something else ends the run here.
    """

    step: int
    loss: float | None = None
    kl: float | None = None
    a: Behaviour | None = None
    b: Behaviour | None = None
    last: bool = False


@dataclass(frozen=True)
class Confirmation:
    """One look at half B after training began; `level` is that of its interval."""

    step: int
    behaviour: Behaviour
    level: float


@dataclass(frozen=True)
class Stop:
    """Why and when a run ended. `went_back_to` is the step whose weights were put back, if any."""

    step: int
    rule: str
    message: str
    went_back_to: int | None = None
    confirmed: bool = False
    met_at: int | None = None


@dataclass(frozen=True)
class State:
    """All that the next decision depends on; `state_of` and `restored` carry it through JSON.

    The learning rate falls from `cools_at` to 0 at `ends_at`; `plan_cools` and `plan_ends` are the run's own schedule.
    `before_a` and `before_b` are the original's replies, `first_loss` its loss on the first batch. `held` counts steps
    over the forget bound, `passed` validations passed in a row, `ruined` those in a row with a ruinous KL. `why` says
    what the last validation failed at, and `cancelled` when and why the last end was cancelled.
    """

    ends_at: int
    cools_at: int
    plan_ends: int
    plan_cools: int
    phase: Literal["measuring", "training", "cooling", "ended"] = "measuring"
    before_a: Behaviour | None = None
    before_b: Behaviour | None = None
    first_loss: float | None = None
    held: int = 0
    jumped_at: int | None = None
    passed: int = 0
    ruined: int = 0
    good_step: int = 0
    met_at: int | None = None
    looks: tuple[Confirmation, ...] = ()
    seen: Seen = Seen(0)
    why: str = ""
    cancelled: str = ""
    stop: Stop | None = None


def start(limits: Limits) -> State:
    """Return the first state of a run. Raises ConfigError for a cool-down of 1 or more."""
    if not 0 <= limits.cooldown < 1:
        raise ConfigError(f"--cooldown {limits.cooldown:g}: must be at least 0 and below 1, a share of the run")
    ends = limits.max_steps
    cools = ends - round(limits.cooldown * ends)
    return State(ends, cools, ends, cools)


def state_of(state: State) -> dict[str, Any]:
    """Return a state as JSON."""
    return asdict(state)


def restored(values: dict[str, Any]) -> State:
    """Return the state that `state_of` wrote."""
    return TypeAdapter(State).validate_python(values)


def rate(state: State, step: int, warmup: int) -> float:
    """Return the learning rate after `step` steps as a share of its peak: warm-up, plateau, fall to 0."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if step < state.cools_at:
        return 1.0
    return max(0.0, (state.ends_at - step) / max(1, state.ends_at - state.cools_at))


def due(limits: Limits, state: State, step: int, last: bool = False) -> tuple[Measured, ...]:
    """Return what to measure after `step`, given what the state has seen of that step; empty if nothing more."""
    if state.phase == "measuring":
        return ("a", "b") if limits.reads_replies else ()
    ends = last or step >= state.ends_at
    if state.stop or step < 1 or not (ends or step % limits.validation_steps == 0):
        return ()
    seen = state.seen if state.seen.step == step else Seen(step)
    kl: tuple[Measured, ...] = ("kl",) if limits.reads_kl and seen.kl is None else ()
    a: tuple[Measured, ...] = ("a",) if limits.reads_replies and seen.a is None else ()
    b: tuple[Measured, ...] = ("b",) if limits.reads_replies and seen.b is None and ends else ()
    return kl + a or b


def advance(limits: Limits, state: State, seen: Seen) -> State:
    """Return the state that follows when something was seen; an ended run stays ended.

    After a step, call it with the step's loss and then, as long as `due` asks for something, with that.
    """
    if state.stop:
        return state
    if state.phase == "measuring":
        return replace(state, phase="training", before_a=seen.a, before_b=seen.b, seen=Seen(seen.step))
    new = {name: value for name, value in vars(seen).items() if value is not None}
    state = replace(state, seen=replace(state.seen if state.seen.step == seen.step else Seen(seen.step), **new))
    if seen.loss is not None:
        state = _after_loss(limits, state, seen.loss)
    if seen.kl is not None or seen.a is not None:
        state = _after_validation(limits, state)
    if seen.b is not None:
        look = Confirmation(seen.step, seen.b, level(len(state.looks) + 1))
        state = replace(state, looks=(*state.looks, look))
    ends = seen.last or seen.step >= state.ends_at
    if ends and not state.stop and not due(limits, state, seen.step, seen.last):
        state = _at_the_end(limits, state)
    return state


# ---- transitions -----------------------------------------------------------------------------------------------------


def _after_loss(limits: Limits, state: State, loss: float) -> State:
    """Count steps over the forget bound; where they are enough, move the end of the schedule forward.

    The loss must also be half a bound above the original's: a text that the original never knew begins near the bound.
    """
    step = state.seen.step
    first = loss if state.first_loss is None else state.first_loss
    over = loss > max(limits.forget_bound, first + limits.forget_bound / 2)
    state = replace(state, first_loss=first, held=state.held + 1 if over else 0)
    if state.jumped_at is not None or state.held < limits.forget_hold:
        return state
    end = max(round(step * (1 + limits.forget_tail)), limits.validation_steps)
    state = replace(state, jumped_at=step)
    if end >= state.plan_ends:
        return state
    cools = min(state.plan_cools, max(step, end - round(limits.cooldown * end)))
    state = replace(state, plan_ends=end, plan_cools=cools)
    if state.phase == "cooling":
        return replace(state, ends_at=min(state.ends_at, end))
    return replace(state, ends_at=end, cools_at=cools)


def _after_validation(limits: Limits, state: State) -> State:
    """Judge half A and the KL: end, cool down or cancel."""
    seen, kl = state.seen, state.seen.kl
    within = kl is None or kl <= limits.kl_budget
    ruined = not within and not (kl is not None and kl <= RUINED * limits.kl_budget)
    why = f"the KL was {kl:.3f} nats per token, over the budget of {limits.kl_budget:g}" if kl and not within else ""
    if within and seen.a is not None and state.before_a is not None:
        why = failure(limits, state.before_a, seen.a)
        why = why and f"on half A {why}"
    state = replace(
        state,
        why=why,
        passed=0 if why or not within else state.passed + 1,
        ruined=state.ruined + 1 if ruined else 0,
        good_step=seen.step if within else state.good_step,
    )
    if state.ruined >= limits.patience or (not within and (seen.last or seen.step >= state.plan_ends)):
        return _go_back(limits, state)
    if state.phase == "cooling":
        return _cancel(state) if why else state
    met = seen.a is not None and state.passed >= limits.patience
    return _cool(limits, state) if met and not _hindrance(limits, state) else state


def _cool(limits: Limits, state: State) -> State:
    """Begin the cool-down: a share `cooldown` of the run, or what is left of the run's own."""
    step = state.seen.step
    if step >= state.plan_cools:
        return replace(state, phase="cooling", met_at=step)
    end = min(round(step / (1 - limits.cooldown)), state.plan_ends)
    return replace(state, phase="cooling", met_at=step, ends_at=end, cools_at=step)


def _cancel(state: State) -> State:
    """Go back to training, and to the run's own schedule."""
    told = f"an end at step {state.ends_at} was cancelled at step {state.seen.step} ({state.why})"
    ends, cools = state.plan_ends, state.plan_cools
    return replace(state, phase="training", passed=0, met_at=None, ends_at=ends, cools_at=cools, cancelled=told)


def _at_the_end(limits: Limits, state: State) -> State:
    """Confirm the end on half B or cancel it; at the last step of the run, end it either way."""
    seen = state.seen
    if state.phase == "cooling" and seen.step >= state.ends_at and state.before_b is not None:
        look = state.looks[-1]
        why = failure(limits, state.before_b, look.behaviour, look.level)
        if not why:
            return _ended(state, "behaviour target", _confirmed(limits, state), confirmed=True)
        state = replace(state, why=f"on half B {why}")
        if seen.step < state.plan_ends and not seen.last:
            return _cancel(state)
    if seen.step < state.plan_ends:
        return _ended(state, "ended from outside", f"training was ended at step {seen.step} {_final(limits, state)}")
    if state.jumped_at is not None and state.plan_ends < limits.max_steps:
        return _ended(state, "forget bound", f"{_jump(limits, state)} {_final(limits, state)}")
    return _ended(state, "end of the schedule", f"all {seen.step} steps were made {_final(limits, state)}")


def _go_back(limits: Limits, state: State) -> State:
    back = state.good_step
    kept = f"the weights of step {back} were put back" if back else "no step was within it: those before it were kept"
    kept += "; give more normal rows, or raise --kl-budget to accept more drift"
    times = f" at {state.ruined} validations in a row" if state.ruined > 1 else ""
    message = (
        f"the KL on validation normals was {state.seen.kl:.3f} nats per token, over the budget of "
        f"{limits.kl_budget:g}{times}; {kept}"
    )
    return _ended(state, "utility budget", message, back)


def _hindrance(limits: Limits, state: State) -> str:
    return hindrance(limits, state.before_a, state.before_b, len(state.looks))


def _ended(state: State, rule: str, message: str, back: int | None = None, confirmed: bool = False) -> State:
    met = state.met_at if confirmed else None
    return replace(state, phase="ended", stop=Stop(state.seen.step, rule, message, back, confirmed, met))


# ---- messages --------------------------------------------------------------------------------------------------------


def _kl(limits: Limits, state: State) -> str:
    return "" if state.seen.kl is None else f"; KL {state.seen.kl:.3f} nats per token, budget {limits.kl_budget:g}"


def _confirmed(limits: Limits, state: State) -> str:
    look, before = state.looks[-1], state.before_b
    assert before is not None
    which = "" if len(state.looks) == 1 else f" at look {len(state.looks)}"
    return (
        f"the target was met at step {state.met_at} on half A of the validation prompts and confirmed{which} by half B "
        f"at the last step: {told(look.behaviour, look.level)}, before training {before.bad} of {before.judged}; "
        f"{look.behaviour.broken} of {look.behaviour.n} broken{_kl(limits, state)}"
    )


def _final(limits: Limits, state: State) -> str:
    """Say that the target was not confirmed, why, and what the final weights do."""
    seen = state.seen
    if seen.a is None or seen.b is None:
        return f"without a behaviour target, since {_hindrance(limits, state)}{_kl(limits, state)}"
    why = hindrance(limits, state.before_a, state.before_b, len(state.looks) - 1) or state.why
    why = why or f"it was kept at {state.passed} of the {limits.patience} validations in a row that it takes"
    why = f"{why}; {state.cancelled}" if state.cancelled else why
    again = f", at look {len(state.looks)}," if len(state.looks) > 1 else ""
    return (
        f"and the behaviour target was not confirmed: {why}. The final weights: half A {told(seen.a)}, half B{again} "
        f"{told(seen.b, state.looks[-1].level)}, broken {seen.a.broken + seen.b.broken} of {seen.a.n + seen.b.n}"
        f"{_kl(limits, state)}"
    )


def _jump(limits: Limits, state: State) -> str:
    return (
        f"the loss on the negatives rose from the original's {state.first_loss:.1f} above {limits.forget_bound:.1f} "
        f"nats per token at step {state.jumped_at}, training went on for {limits.forget_tail:g} times as many steps,"
    )
