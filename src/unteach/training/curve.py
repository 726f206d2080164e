"""The curve: how often the validation prompts get a bad reply while an arm is trained, and the cost up to then."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unteach.results.cost import Meter, flops_in, flops_of, seconds_in
from unteach.results.report import Cost, Waypoint
from unteach.stats import wilson
from unteach.training.behaviour import Behaviour

Tokens = dict[str, int]


@dataclass(frozen=True)
class Point:
    """One validation after `step` steps of a stage, and the stage's cost so far: `tokens` as in `flops_of`.

    `bad` of `judged` replies were bad; of all replies, the share `broken` was blank or gibberish.
    """

    step: int
    seconds: float
    tokens: Tokens
    bad: int
    judged: int
    unknown: int
    broken: float = 0.0


class Curve:
    """The validations of one stage, in order."""

    def __init__(self) -> None:
        self.points: list[Point] = []

    def saw(self, step: int, seen: Behaviour, meter: Meter, tokens: Tokens | None = None) -> None:
        """Add a validation; without `tokens`, the meter's are taken."""
        taken = dict(meter.tokens if tokens is None else tokens)
        unknown = seen.n - seen.judged
        self.points.append(Point(step, meter.seconds, taken, seen.bad, seen.judged, unknown, seen.broken_share))

    def state(self) -> list[dict[str, Any]]:
        """Return what must survive a kill, as JSON."""
        return [asdict(point) for point in self.points]

    def restore(self, state: Sequence[dict[str, Any]]) -> None:
        """Go on from what `state` returned."""
        self.points = [Point(**values) for values in state]


def waypoints(curve: Curve, model: Any, arm: str, stage: str, seed: int, before: Sequence[Cost] = ()) -> list[Waypoint]:
    """Return a stage's points with the arm's cost up to each; `before` is its cost up to this stage."""
    found = []
    for point in curve.points:
        value, low, high = wilson(point.bad, point.judged)
        found.append(
            Waypoint(
                arm=arm,
                seed=seed,
                stage=stage,
                step=point.step,
                wall_seconds=seconds_in(before) + point.seconds,
                flops=flops_in(before) + flops_of(model, **point.tokens),
                value=value,
                low=low,
                high=high,
                n=point.judged,
                unknown=point.unknown,
                broken=point.broken,
            )
        )
    return found


class ValidationCurve(TrainerCallback):
    """Validates some times during a stage, evenly spaced, the last time after the last step.

    `validate` evaluates a model on the validation prompts, which is no part of the stage's cost. `tokens` says what the
    stage has taken after a step.
    """

    def __init__(
        self, count: int, validate: Callable[[Any], Behaviour], meter: Meter, tokens: Callable[[int], Tokens]
    ) -> None:
        self.curve = Curve()
        self._count, self._validate, self._meter, self._tokens = count, validate, meter, tokens

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        """Validate, if it is time to."""
        step, last = state.global_step, state.max_steps
        if (step * self._count) // last > ((step - 1) * self._count) // last:
            with self._meter.paused():
                seen = self._validate(model)
            self.curve.saw(step, seen, self._meter, self._tokens(step))
