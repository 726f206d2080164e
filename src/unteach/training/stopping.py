"""When to stop: rules that watch the run, each a Trainer callback.

ForgetBound      the bad replies have become unlikely: go on for a tail, then stop (the paper's lesson)
UtilityBudget    the KL on validation normals is too high: stop and go back to the last good checkpoint
BehaviourTarget  the bad behaviour on validation prompts is gone: cool down, then stop

A run cools down before it ends: the learning rate falls to 0 over its last part, and normal replies that unlearning
changed recover. A rule that sets an earlier end moves the cool-down with it.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unteach.errors import ConfigError


class Behaviour(NamedTuple):
    """What a model does on `n` validation prompts: shares of bad and of broken (blank or gibberish) replies.

    `unknown` replies have no verdict. `read` and `said` are the tokens read and generated.
    """

    bad: float
    broken: float
    n: int
    unknown: int = 0
    read: int = 0
    said: int = 0


@dataclass(frozen=True)
class Stop:
    """Why and when a rule ended a run. `went_back_to` is the step whose weights were restored, if any."""

    step: int
    rule: str
    message: str
    went_back_to: int | None = None


@dataclass
class Watch:
    """What the rules share: the metrics of the last step and of the last validation, and the decision to stop."""

    metrics: dict[str, float] = field(default_factory=dict)
    validated: dict[str, float] = field(default_factory=dict)
    within_budget: bool = True
    last_good_step: int = 0
    stop: Stop | None = None
    cooling_from: int = 0
    ends_at: int = 0

    def plan(self, steps: int, cooldown: float) -> None:
        """Plan a run of `steps`, whose last share `cooldown` is the cool-down. Raises ConfigError for a share of 1."""
        if not 0 <= cooldown < 1:
            raise ConfigError(f"--cooldown {cooldown:g}: must be at least 0 and below 1, a share of the run")
        self.ends_at, self.cooling_from = steps, steps - round(cooldown * steps)

    def end_by(self, step: int, now: int, cooldown: float) -> None:
        """Move the end to an earlier step, and the cool-down with it, which starts at `now` at the earliest."""
        if step < self.ends_at:
            self.ends_at = step
            self.cooling_from = min(self.cooling_from, max(now, step - round(cooldown * step)))

    def rate(self, step: int, warmup: int) -> float:
        """Return the learning rate after `step` steps as a share of its peak: warm-up, plateau, fall to 0."""
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if step < self.cooling_from:
            return 1.0
        return max(0.0, (self.ends_at - step) / max(1, self.ends_at - self.cooling_from))

    def decide(self, control: TrainerControl, step: int, rule: str, message: str, back_to: int | None = None) -> None:
        """End training after this step; the first decision stands, unless a later one goes back."""
        control.should_training_stop = True
        if self.stop is None or (self.stop.went_back_to is None and back_to is not None):
            self.stop = Stop(step, rule, message, back_to)


class StoppingRule(TrainerCallback):
    """A callback with a memory that goes into checkpoints, so that a resumed run decides as the whole run would."""

    name: str
    memory: dict[str, Any]

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.memory = {}


class ForgetBound(StoppingRule):
    """End the run some time after the forget cross-entropy jumps.

    Once it has exceeded `bound` nats per token for `hold` steps in a row, at step s, the run ends at step (1 + tail)·s
    at the latest. The loss jumps long before the behaviour changes: to stop at once would be too early, and never to
    stop would ruin the model. Source: arXiv 2310.10683, §4 (3 to 5 times more batches after the jump).
    """

    name = "forget bound"

    def __init__(self, watch: Watch, bound: float, hold: int = 3, tail: float = 4.0, cooldown: float = 0.0) -> None:
        super().__init__(watch)
        self.bound, self.hold, self.tail, self.cooldown = bound, hold, tail, cooldown
        self.memory = {"held": 0, "limit": None}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count steps over the bound; set the limit; stop at it."""
        over = self.watch.metrics.get("forget_ce", 0.0) > self.bound
        self.memory["held"] = self.memory["held"] + 1 if over else 0
        if self.memory["limit"] is None and self.memory["held"] >= self.hold:
            end = round(state.global_step * (1 + self.tail))
            self.memory["limit"] = end
            self.watch.end_by(end, state.global_step, self.cooldown)
            control.should_save = True
        limit = self.memory["limit"]
        if limit is not None and state.global_step >= limit:
            message = f"forget cross-entropy passed {self.bound:.1f} nats, and the tail of {self.tail:g} times ended"
            self.watch.decide(control, state.global_step, self.name, message)


class UtilityBudget(StoppingRule):
    """Every `every` steps, and at the last, measure the KL to the original on validation normals, in nats per token.

    Put it after the rules that end runs at any step, so that no run ends with weights that it has not measured. Within
    `budget`, the step is saved as good. Over it, the run ends and goes back to the last good checkpoint.
    """

    name = "utility budget"

    def __init__(self, watch: Watch, measure: Callable[[], float], budget: float, every: int) -> None:
        super().__init__(watch)
        self.measure, self.budget, self.every = measure, budget, every

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure, then save or stop."""
        if state.global_step % self.every and not control.should_training_stop:
            return
        kl = self.measure()
        self.watch.validated = {"validation_kl": kl}
        self.watch.within_budget = kl <= self.budget
        if self.watch.within_budget:
            self.watch.last_good_step = state.global_step
            control.should_save = True
            return
        back = self.watch.last_good_step
        message = (
            f"KL on held-out normal rows reached {kl:.3f} nats per token, over the budget of {self.budget:g}; "
            + (f"went back to step {back}" if back else "no step was within it, so the original weights were kept")
        )
        self.watch.decide(control, state.global_step, self.name, message, back)


class BehaviourTarget(StoppingRule):
    """Every `every` steps, let the model reply to validation prompts and judge the replies.

    A validation is passed if the share of bad replies is at most `target`, that of broken ones at most `broken_limit`,
    and the utility budget is kept. After `patience` passes in a row the run cools down, for the share `cooldown` of the
    whole run, and ends. Put it after `UtilityBudget`.
    """

    name = "behaviour target"

    def __init__(
        self,
        watch: Watch,
        measure: Callable[[], Behaviour],
        target: float,
        every: int,
        patience: int = 2,
        broken_limit: float = 0.02,
        cooldown: float = 0.0,
    ) -> None:
        super().__init__(watch)
        self.measure, self.target, self.every = measure, target, every
        self.patience, self.broken_limit, self.cooldown = patience, broken_limit, cooldown
        self.memory = {"passed": 0, "end": None, "message": ""}

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Validate, and stop at the end that was set."""
        step, memory = state.global_step, self.memory
        if step % self.every == 0 and not control.should_training_stop:
            self._validate(step)
        if memory["end"] is not None and step >= memory["end"]:
            self.watch.decide(control, step, self.name, memory["message"])

    def _validate(self, step: int) -> None:
        seen = self.measure()
        self.watch.validated |= {"validation_bad_rate": seen.bad, "validation_broken_rate": seen.broken}
        passed = seen.bad <= self.target and seen.broken <= self.broken_limit and self.watch.within_budget
        self.memory["passed"] = self.memory["passed"] + 1 if passed else 0
        if self.memory["end"] is None and self.memory["passed"] >= self.patience:
            end = round(step / (1 - self.cooldown))
            self.watch.end_by(end, step, self.cooldown)
            self.memory["end"] = min(end, self.watch.ends_at)
            self.memory["message"] = (
                f"at step {step}, bad replies at {seen.bad:.1%} and broken ones at {seen.broken:.1%} of {seen.n} "
                f"held-out prompts, {self.patience} validations in a row, with the utility budget kept"
            )


def make_rules(
    watch: Watch, args: Any, bound: float, kl: Callable[[], float] | None, behaviour: Callable[[], Behaviour] | None
) -> list[StoppingRule]:
    """Return the rules of a run with settings `args` (an `UnlearnConfig`), in the order in which they must be called.

    `bound` is in nats per token. Without `kl` or `behaviour`, the rule that measures it is left out.
    """
    rules: list[StoppingRule] = [ForgetBound(watch, bound, args.forget_hold, args.forget_tail, args.cooldown)]
    if kl is not None:
        rules.append(UtilityBudget(watch, kl, args.kl_budget, args.validation_steps))
    if behaviour is not None:
        target = BehaviourTarget(watch, behaviour, args.target_rate, args.validation_steps, args.patience)
        target.broken_limit, target.cooldown = args.broken_limit, args.cooldown
        rules.append(target)
    return rules


def state_of(watch: Watch, rules: list[StoppingRule]) -> dict[str, Any]:
    """Return all that must survive a kill, as JSON."""
    return {"watch": asdict(watch), "rules": {rule.name: rule.memory for rule in rules}}


def restore(state: dict[str, Any], watch: Watch, rules: list[StoppingRule]) -> None:
    """Put back what `state_of` returned."""
    for name, value in state["watch"].items():
        setattr(watch, name, Stop(**value) if name == "stop" and value else value)
    for rule in rules:
        rule.memory = dict(state["rules"].get(rule.name, rule.memory))
