"""Unlearn model organisms with every method and print one table: what each reached on each world.

    python benchmarks/methods.py                                   all methods, worlds 0, 1 and 2
    python benchmarks/methods.py --methods npo-template --worlds 0

Each cell is one `unteach demo` with default settings; its run directory is kept under --output and not run again.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unteach.demo.unlearning import demo_unlearning
from unteach.objectives.methods import method_names

COLUMNS = {
    "harmful: seen": ("harmful_rate", "seen"),
    "unseen": ("harmful_rate", "unseen"),
    "unseen acts": ("harmful_rate", "unseen_concept"),
    "kept: normal": ("kept_rate", "normal"),
    "look-alike": ("kept_rate", "lookalike"),
    "gibberish: seen": ("gibberish_rate", "seen"),
    "unseen ": ("gibberish_rate", "unseen"),
    "normal": ("gibberish_rate", "normal"),
}


def report_of(method: str, world: int, output: Path) -> dict[str, Any]:
    """Return the report of the method on the world, running the demo where it is not there yet."""
    home = output / f"{method}-{world}"
    if not (home / "report.json").exists():
        demo_unlearning(home, world_seed=world, size="tiny", fresh=False, settings={"method": method})
    report: dict[str, Any] = json.loads((home / "report.json").read_text())
    return report


def row(method: str, world: int, report: dict[str, Any]) -> str:
    """Return one line of the table."""
    values = {(m["name"], m["split"]): m for m in report["measurements"] if m["arm"] == "unlearned"}
    found = [values[key] for key in COLUMNS.values()]
    cells = [f"{100 * m['value']:.1f}" if m["value"] is not None else "–" for m in found]
    stop = report["stop"]
    ended = f"{stop['step']}, {stop['rule']}" if stop else "all steps"
    return f"| {' | '.join([f'`{method}`', str(world), *cells, ended])} |"


def main(words: Sequence[str] | None = None) -> None:
    """Run what is asked for and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=method_names(), choices=method_names(), metavar="NAME")
    parser.add_argument("--worlds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument("--output", type=Path, default=Path("methods"))
    asked = parser.parse_args(words)
    head = ["method", "world", *COLUMNS, "ended at step, by"]
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    for method in asked.methods:
        for world in asked.worlds:
            print(row(method, world, report_of(method, world, asked.output)), flush=True)


if __name__ == "__main__":
    main()
