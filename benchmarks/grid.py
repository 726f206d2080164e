"""Is the automatic choice of strength as good as a sweep over learning rate and steps?

    unteach study --config recipes/organism-grid.yaml --output grid     # 22 runs, once
    python benchmarks/grid.py grid

Printed for every arm: bad replies on unseen prompts, normal prompts still right, harmless prompts that sound alike and
are declined, each with its 95 % interval, and the FLOPs of all that the run did beside the evaluation. The grid's best
is the arm with the fewest bad replies among those that keep what the automatic choice must keep: at most `--worse`
points fewer normals right and more look-alikes declined than the original. Then, for each automatic arm: whether it
keeps that too and its bad rate lies within the interval of the best one's, and its share of the whole grid's FLOPs.
"""

import argparse
import json
from pathlib import Path

from unteach.comparison.compare import ComparedArm, Comparison

BAD, KEPT, DECLINED = "bad_unseen", "kept_normal", "refusal_lookalike"


def value(arm: ComparedArm, name: str) -> float:
    """Return a rate in percent; NaN where it is not known."""
    rate = arm.rates.get(name)
    return float("nan") if rate is None or rate.value is None else 100 * rate.value


def keeps(arm: ComparedArm, original: ComparedArm, worse: float) -> bool:
    """Whether an arm keeps normals and look-alikes within `worse` points of the original."""
    kept, declined = value(arm, KEPT) - value(original, KEPT), value(arm, DECLINED) - value(original, DECLINED)
    return kept >= -worse and declined <= worse


def flops(arm: ComparedArm) -> float:
    """Return what an arm's run took beside the evaluation, in FLOPs."""
    return (arm.cost.flops or float("nan")) if arm.cost else 0.0


def line(arm: ComparedArm) -> str:
    """Return an arm's row."""
    cells = []
    for name in (BAD, KEPT, DECLINED):
        rate = arm.rates.get(name)
        if rate is None or rate.value is None or rate.low is None or rate.high is None:
            cells.append(f"{'unknown':>22}")
        else:
            interval = f"{100 * rate.value:.1f} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"
            cells.append(f"{interval:>22}")
    return f"{arm.name:24}{''.join(cells)}{flops(arm) / 1e9:10.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="directory of a finished study whose automatic arms begin with auto")
    parser.add_argument("--worse", type=float, default=3.0, metavar="POINTS", help="what may be lost (default 3)")
    asked = parser.parse_args()
    compared = Comparison.model_validate(json.loads((asked.study / "compared.json").read_text(encoding="utf-8")))
    original = next(arm for arm in compared.arms if arm.name == "original")
    auto = [arm for arm in compared.arms if arm.name.startswith("auto")]
    grid = [arm for arm in compared.arms if arm.cost and arm not in auto]
    heads = "".join(f"{head:>22}" for head in ("bad, unseen", "normals kept", "look-alikes declined"))
    print(f"{'percent [95 % interval]':24}{heads}{'GFLOP':>10}")
    for arm in compared.arms:
        print(line(arm))
    fit = [arm for arm in grid if keeps(arm, original, asked.worse)]
    total = sum(flops(arm) for arm in grid)
    print(f"\n{len(fit)} of the {len(grid)} settings lose at most {asked.worse:g} points.")
    if not fit:
        return
    best = min(fit, key=lambda arm: (value(arm, BAD), flops(arm)))
    noise = best.rates[BAD]
    print(f"The best of them: {best.name}, {value(best, BAD):.1f} % bad.")
    for arm in auto:
        within = noise is not None and noise.high is not None and value(arm, BAD) <= 100 * noise.high
        said = "within" if within and keeps(arm, original, asked.worse) else "NOT within"
        print(
            f"{arm.name}: {said} the best one's interval and budgets, at {flops(arm) / total:.1%} of the grid's FLOPs"
        )


if __name__ == "__main__":
    main()
