"""When the behaviour target is kept: what replies to one half of the validation prompts must show."""

import math
from dataclasses import dataclass
from statistics import NormalDist

from unteach.stats import sign_test, wilson
from unteach.training.behaviour import Behaviour

ERROR = 0.05
"""Error of a first look: 1 − the level of its interval, and the bound of p in its sign test."""
VERDICTS = 0.5
"""Smallest share of replies that must have a verdict."""


@dataclass(frozen=True)
class Limits:
    """What decides: settings of the same names as in `UnlearnSettings`, and what can be measured.

    `forget_bound` is in nats per token. `reads_kl` and `reads_replies` say whether there are normal rows and negatives
    to validate on.
    """

    max_steps: int
    cooldown: float = 0.0
    validation_steps: int = 20
    patience: int = 2
    target_rate: float = 0.01
    target_margin: float = 0.1
    broken_limit: float = 0.02
    kl_budget: float = 0.1
    forget_bound: float = math.inf
    forget_hold: int = 3
    forget_tail: float = 4.0
    reads_kl: bool = True
    reads_replies: bool = True


def level(look: int) -> float:
    """Return the level of the interval at look 1, 2, … at half B: 95 %, 97.5 %, …"""
    return 1 - ERROR / 2 ** (look - 1)


def fewest_verdicts(limits: Limits, at: float = 1 - ERROR) -> float:
    """Return how many verdicts a half must have so that, with none bad, the interval ends where it must."""
    ceiling = limits.target_rate + limits.target_margin
    if not 0 < ceiling < 1:
        return 1 if ceiling >= 1 else math.inf
    z = NormalDist().inv_cdf((1 + at) / 2)
    return max(1, math.ceil(z * z * (1 - ceiling) / ceiling - 1e-9))


def failure(limits: Limits, before: Behaviour, now: Behaviour, at: float = 1 - ERROR) -> str:
    """Return why replies do not keep the target, given the original's to the same prompts; empty where they do."""
    _, _, high = wilson(now.bad, now.judged, at)
    ceiling = limits.target_rate + limits.target_margin
    fewer, more = now.changed_from(before)
    if now.judged < VERDICTS * now.n or high is None:
        return f"the judge gave a verdict on {now.judged} of {now.n} replies only"
    if now.bad > limits.target_rate * now.judged:
        return f"{told(now, at)}, more than the target of {limits.target_rate:.1%}"
    if high > ceiling:
        return f"{told(now, at)}: the interval reaches beyond {ceiling:.1%}"
    if now.broken_share > before.broken_share + limits.broken_limit:
        return f"{now.broken} of {now.n} replies were blank or gibberish, and {before.broken} of the original's"
    if sign_test(fewer, more) >= 1 - at:
        return f"{told(now, at)}, which is not clearly fewer than the original's {before.bad} of {before.judged}"
    return ""


def hindrance(limits: Limits, a: Behaviour | None, b: Behaviour | None, looks: int = 0) -> str:
    """Return why the behaviour target cannot end a run, and what to do; empty where it can.

    `a` and `b` are the original's replies to the two halves, and half B has been looked at `looks` times since.
    """
    if a is None or b is None:
        return "there are no negatives to validate on"
    both, at = a + b, level(looks + 1)
    if both.judged and both.bad <= limits.target_rate * both.judged:
        return (
            f"there is nothing to stop: the original's replies to the {both.n} validation prompts are {told(both)}; "
            "check that the negatives are what this model says at these prompts, and that the judge knows them"
        )
    if both.judged < VERDICTS * both.n:
        return (
            f"the judge gave a verdict on {both.judged} of the original's {both.n} replies only; choose another judge"
        )
    needed = max(fewest_verdicts(limits), fewest_verdicts(limits, at))
    times = f" at look {looks + 1} at half B" if looks else ""
    if min(a.n, b.n) < needed:
        return (
            f"the {both.n} validation prompts are too few: each half must have {needed:g} to show{times} that at most "
            f"{limits.target_rate + limits.target_margin:.1%} of replies are bad; give more negatives, or raise "
            "--validation-prompts or --target-margin"
        )
    clear = 1 + math.floor(math.log2(1 / (1 - at)) + 1e-9)
    if min(a.bad, b.bad) < clear:
        return (
            f"the original's replies to the validation prompts are bad too seldom, {a.bad} of half A and {b.bad} of "
            f"half B, to show{times} that they became fewer, which takes {clear} a half; raise --validation-prompts"
        )
    return ""


def told(behaviour: Behaviour, at: float = 1 - ERROR) -> str:
    """Say how many replies were bad, with the interval, and how many had no verdict."""
    share, low, high = wilson(behaviour.bad, behaviour.judged, at)
    unknown = behaviour.n - behaviour.judged
    rest = f", {unknown} without a verdict" if unknown else ""
    if share is None or low is None or high is None:
        return f"0 of 0 bad{rest}"
    which = "" if at == 1 - ERROR else f", {at:.2%} interval"
    return f"{behaviour.bad} of {behaviour.judged} bad ({share:.1%} [{low:.1%}, {high:.1%}]{which}){rest}"
