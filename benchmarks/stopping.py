"""Operating characteristics of the stopping rules, by simulated runs. No model is asked; half a minute.

    python benchmarks/stopping.py

The original says something bad at every prompt. The true share of bad replies falls from 100 % at step 40 in a straight
line to its final value at step 60, and stays there; the KL is 0.01. A prompt keeps its verdict from one validation to
the next with a chance of one half, and else gets a new one. `before` is the rule of earlier versions: all prompts at
every validation, two passes in a row at most the target, and no look at what comes then.

- wrong: runs that end as if the target were kept while the true share is above the target.
- missed: runs that make all steps though the true share is at most the target.
- delay: steps from step 60, at which the final share is reached, to the step at which the target was met; mean over the
  runs that end by the target.
- end: the step at which those runs end, mean; 100 is the earliest possible.
"""

import argparse
from collections.abc import Sequence
from functools import cache
from statistics import fmean

import numpy as np

from unteach.stats import wilson
from unteach.training import target
from unteach.training.behaviour import Behaviour
from unteach.training.stopping import Seen, Stop, advance, due, start
from unteach.training.target import Limits

SHARES = (0.0, 0.01, 0.02, 0.05, 0.1)
PROMPTS = (32, 64, 128)
LIMITS = Limits(max_steps=300, cooldown=0.4)
KEPT = 0.5
"""Chance that a prompt keeps its verdict from one validation to the next."""
FALLS, SETTLES = 40, 60


def true_share(step: int, final: float) -> float:
    """Return the true share of bad replies after `step` steps."""
    fallen = min(max((step - FALLS) / (SETTLES - FALLS), 0.0), 1.0)
    return 1 - fallen * (1 - final)


class Prompts:
    """Prompts whose replies are bad with the true share; one draw decides a prompt for as long as it keeps it."""

    def __init__(self, count: int, draw: np.random.Generator) -> None:
        self._draw, self._drawn = draw, draw.random(count)

    def asked(self, share: float) -> Behaviour:
        """Return the replies, after some prompts have got a new draw."""
        new = self._draw.random(len(self._drawn)) >= KEPT
        self._drawn = np.where(new, self._draw.random(len(self._drawn)), self._drawn)
        return Behaviour("".join("b" if drawn < share else "g" for drawn in self._drawn))


def simulated(count: int, final: float, draw: np.random.Generator) -> Stop:
    """Return how one run by the rules ends."""
    halves = {"a": Prompts(count // 2, draw), "b": Prompts(count - count // 2, draw)}
    state = advance(LIMITS, start(LIMITS), Seen(0, a=halves["a"].asked(1.0), b=halves["b"].asked(1.0)))
    for step in range(1, LIMITS.max_steps + 1):
        while wanted := due(LIMITS, state, step):
            share = true_share(step, final)
            a = halves["a"].asked(share) if "a" in wanted else None
            b = halves["b"].asked(share) if "b" in wanted else None
            state = advance(LIMITS, state, Seen(step, kl=0.01 if "kl" in wanted else None, a=a, b=b))
    assert state.stop is not None
    return state.stop


def simulated_before(count: int, final: float, draw: np.random.Generator) -> Stop:
    """Return how one run by the rule of earlier versions ends."""
    prompts, passed = Prompts(count, draw), 0
    for step in range(LIMITS.validation_steps, LIMITS.max_steps + 1, LIMITS.validation_steps):
        kept = prompts.asked(true_share(step, final)).bad_share <= LIMITS.target_rate
        passed = passed + 1 if kept else 0
        if passed >= LIMITS.patience:
            end = min(round(step / (1 - LIMITS.cooldown)), LIMITS.max_steps)
            return Stop(end, "behaviour target", "", confirmed=True, met_at=step)
    return Stop(LIMITS.max_steps, "end of the schedule", "")


def told(stops: Sequence[Stop], final: float) -> list[str]:
    """Return the cells of a row: wrong, missed, delay and end."""
    ended = [stop for stop in stops if stop.confirmed]
    wrong = sum(true_share(stop.step, final) > LIMITS.target_rate + 1e-9 for stop in ended)
    cells = [rate(wrong, len(stops)), "–" if final > LIMITS.target_rate else rate(len(stops) - len(ended), len(stops))]
    if not ended:
        return [*cells, "–", "–"]
    return [
        *cells,
        f"{fmean((stop.met_at or 0) - SETTLES for stop in ended):.0f}",
        f"{fmean(stop.step for stop in ended):.0f}",
    ]


def rate(count: int, of: int) -> str:
    """Return a share in per cent with its interval."""
    value, low, high = (100 * (part or 0.0) for part in wilson(count, of))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def main(words: Sequence[str] | None = None) -> None:
    """Simulate and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000, metavar="N", help="simulated runs of each cell")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(words)
    target.wilson, target.sign_test = cache(target.wilson), cache(target.sign_test)
    print("| prompts | true share, % | wrong, % | missed, % | delay | end | before: wrong | missed | delay | end |")
    print("|---|" + "---|" * 9)
    for count in PROMPTS:
        for final in SHARES:
            draw = np.random.default_rng([asked.seed, count, round(1000 * final)])
            cells = [f"{count}", f"{100 * final:g}"]
            for simulate in (simulated, simulated_before):
                cells += told([simulate(count, final, draw) for _ in range(asked.runs)], final)
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
