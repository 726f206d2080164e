"""Reports of several ranks, beside those of one: what may differ, and by how much."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fault_commands import Command, Ended
from ranked import Ranks

TIMES = ("wall_seconds", "peak_bytes", "energy_joules", "ranks")
"""What no two runs have in common, and what is to differ."""
OF_BATCHES = ("tokens", "tokens_forward", "tokens_backward", "flops", "seed_flops")
"""What depends on which rows of a step share a batch."""
WITHIN = 1e-3
"""How far numbers of a trained model may lie apart, relative and absolute: gradients are added up in another order."""


@dataclass
class Asked:
    """What was asked for on the command line."""

    ranks: list[int]
    kills: int
    signals: int
    stopped: float
    seed: int
    tuned: list[str]
    small: bool


def plain(value: Any, without: Sequence[str] = TIMES) -> Any:
    """Return a report without what differs from run to run."""
    if isinstance(value, dict):
        return {name: plain(part, without) for name, part in value.items() if name not in without}
    return [plain(part, without) for part in value] if isinstance(value, list) else value


def apart(left: Any, right: Any, where: str = "") -> list[tuple[str, Any, Any]]:
    """Return every place at which two reports differ."""
    if isinstance(left, dict) and isinstance(right, dict) and left.keys() == right.keys():
        return [found for name in left for found in apart(left[name], right[name], f"{where}.{name}")]
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        pairs = enumerate(zip(left, right, strict=True))
        return [found for n, pair in pairs for found in apart(*pair, f"{where}[{n}]")]
    return [] if left == right and type(left) is type(right) else [(where, left, right)]


FEW = 1e-2
"""The same for the ends of intervals: those of a handful of values come from bootstrap, which jumps."""
ENDS = ("low", "high", "difference_low", "difference_high")


def far(differing: Sequence[tuple[str, Any, Any]]) -> tuple[float, list[tuple[str, Any, Any]]]:
    """Return the largest difference between numbers, and the places that are no numbers or lie too far apart."""
    largest, wrong = 0.0, []
    for place, left, right in differing:
        if not (isinstance(left, float) and isinstance(right, float)):
            wrong.append((place, left, right))
            continue
        largest = max(largest, abs(left - right))
        if abs(left - right) > (FEW if place.endswith(ENDS) else WITHIN) * (1 + abs(left)):
            wrong.append((place, left, right))
    return largest, wrong


def report_of(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "report.json").read_text())


def told(ended: Sequence[Ended]) -> list[tuple[int, str]]:
    """Return the codes of ranks and the end of what they said."""
    return [(end.code, end.said[-1500:]) for end in ended]


def on_each(
    counts: Sequence[int], words: Callable[[Path], Sequence[object]], place: Path, several: Sequence[object] = ()
) -> dict[int, Path]:
    """Give a command to so many ranks each, with a cache of its own; return what it wrote to, by number of ranks.

    `words` says the command for the output that it gets; more than one rank get the words `several` too.
    """
    outputs = {}
    for count in counts:
        outputs[count], cache = place / f"on-{count}", place / f"cache-{count}"
        given = [*words(outputs[count]), *(several if count > 1 else ())]
        ended = Ranks(given, cache, count).wait() if count > 1 else [Command(given, cache).wait()]
        assert {end.code for end in ended} == {0}, told(ended)
        assert not any(end.said.strip() for end in ended[1:]), "only the first rank speaks"
    return outputs


def trained_alike(outputs: dict[int, Path]) -> float:
    """Compare the reports of a training on several ranks with that on one; return the largest difference of numbers.

    What the original does must be the same to the last bit.
    """
    largest, without = 0.0, (*TIMES, *OF_BATCHES)
    reports = {count: plain(report_of(output), without) for count, output in outputs.items()}
    for report in reports.values():
        one, several = ([m for m in r["measurements"] if m["arm"].startswith("original")] for r in (reports[1], report))
        assert one and not apart(one, several), apart(one, several)[:5]
        found, wrong = far(apart(reports[1], report))
        assert not wrong, wrong[:5]
        largest = max(largest, found)
    return largest
