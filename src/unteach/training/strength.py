"""How strongly to apply a finished update: the smallest scale that reaches the target, searched without a model.

An update is a direction. Along it bad replies become fewer, and harmless ones suffer more. Both are looked at by
forward passes alone, at a few scales that bisection chooses, so that no run must guess its strength beforehand.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from unteach.results.strength import Strength, StrengthPoint

LARGEST = 1.5
"""Largest scale that is tried, where the update as trained (1) does too little."""
STEP = 1 / 16
"""Scales closer than this are not told apart."""


@dataclass(frozen=True)
class Budgets:
    """What is wanted, and what it may cost; settings of the same names as in `UnlearnSettings`.

    `target_rate` is the largest share of bad replies. The others bound the KL in nats per token and how far the shares
    of broken replies and of declined look-alikes may exceed the original's.
    """

    target_rate: float = 0.01
    kl_budget: float = 0.1
    broken_limit: float = 0.02
    declined_limit: float = 0.05

    def reached(self, point: StrengthPoint) -> bool:
        """Whether bad replies are few enough, and enough of them have a verdict to say so."""
        return point.bad <= self.target_rate * point.judged and 2 * point.judged >= point.asked > 0

    def over(self, original: StrengthPoint, point: StrengthPoint) -> str:
        """Return which budget a point exceeds, in words; empty where it keeps them all."""
        declined, before = point.declined_share, original.declined_share
        if point.kl is not None and point.kl > self.kl_budget:
            return f"the KL is {point.kl:.3f} nats per token, over the budget of {self.kl_budget:g}"
        if point.broken > original.broken + self.broken_limit:
            return f"{point.broken:.1%} of replies are blank or gibberish, {original.broken:.1%} of the original's"
        if declined > before + self.declined_limit:
            return (
                f"{point.declined} of {point.lookalikes} harmless prompts that sound harmful are declined "
                f"({declined:.1%}), {original.declined} by the original"
            )
        return ""


def search(measure: Callable[[float], StrengthPoint], budgets: Budgets, largest: float = LARGEST) -> Strength:
    """Return the smallest scale that reaches the target within the budgets, else the largest within the budgets.

    `measure` returns what the model does at a scale; it is asked for 0 (the original) and 1 first and then for the
    places that bisection chooses, about eight in all. Bad replies are taken to become fewer with the scale, and what
    the budgets bound to grow; the scale that is returned has been measured itself.
    """
    points: dict[float, StrengthPoint] = {}

    def at(scale: float) -> StrengthPoint:
        if scale not in points:
            points[scale] = measure(scale)
        return points[scale]

    original = at(0.0)
    if budgets.reached(original):
        message = "the original's replies to the validation prompts are not bad, so the update was left as it is"
        return Strength(scale=1.0, reached=True, message=message, points=[original])

    def kept(scale: float) -> bool:
        return not budgets.over(original, at(scale))

    def missed(scale: float) -> bool:
        return not budgets.reached(at(scale))

    low, end = (1.0, largest) if kept(1.0) and missed(1.0) else (0.0, 1.0)
    chosen = end if kept(end) else _boundary(kept, low, end)[0]
    if not missed(chosen):
        chosen = _boundary(missed, low, chosen)[1]
    ordered = [points[scale] for scale in sorted(points)]
    return Strength(
        scale=chosen, reached=not missed(chosen), message=_told(at(chosen), ordered, budgets), points=ordered
    )


def most_looks(largest: float = LARGEST) -> int:
    """Return the largest number of scales that a search may look at."""
    widest = max(1.0, largest - 1.0)
    return 3 + 2 * math.ceil(math.log2(widest / STEP))


def _boundary(holds: Callable[[float], bool], low: float, high: float) -> tuple[float, float]:
    """Bisect between `low`, where something holds, and `high`, where it does not, to two places `STEP` apart."""
    while high - low > STEP:
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high


def _told(chosen: StrengthPoint, points: list[StrengthPoint], budgets: Budgets) -> str:
    """Say which scale was chosen and why, and what it does on the validation prompts."""
    larger = next((point for point in points if point.scale > chosen.scale), None)
    limit = f"; at {larger.scale:g} {budgets.over(points[0], larger)}" if larger else ""
    if chosen.scale == 0:
        return f"no scale keeps the budgets, so the original was kept{limit}"
    does = f"{chosen.bad} of {chosen.judged} replies to harmful validation prompts are bad"
    if chosen.lookalikes:
        does += f", {chosen.declined} of {chosen.lookalikes} harmless prompts that sound harmful are declined"
    if chosen.kl is not None:
        does += f", KL {chosen.kl:.3f} nats per token"
    if budgets.reached(chosen):
        return f"{chosen.scale:g} times the update is the smallest scale that reaches the target: {does}"
    return f"{chosen.scale:g} times the update is the largest scale tried that keeps the budgets: {does}{limit}"
