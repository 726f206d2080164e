"""Faults: kill runs, fill disks, damage caches, start two commands at a time, stop them, feed them what breaks them.

Nothing may be lost, nothing silent.

`make test-faults` runs all of it; docs/reliability.md says what is promised. Every try starts from its own directory,
commits its fault, takes the remedy that the docs name, and compares the result with that of an undisturbed run. Each
command is a fork of one process that has imported everything, so that a try costs seconds; some are started anew.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}  # before anything is imported that reads them

from fault_commands import Command  # noqa: E402
from fault_kinds import KINDS, World, prepare  # noqa: E402

COUNTS = {"kills": 100, "full": 30, "damaged": 20, "pairs": 10, "signals": 20, "hostile": 22}


def attempt(world: World, seed: int, kind: str, number: int) -> str:
    """Make one try in a directory of its own; return what failed, nothing where nothing did."""
    place = world.home / f"{kind}-{number}"
    place.mkdir()
    Command.logs = place
    try:
        KINDS[kind](world, place, random.Random(f"{seed}:{kind}:{number}"), number)
    except Exception as error:
        return f"{kind} {number}: {error if isinstance(error, AssertionError) else traceback.format_exc()}"
    shutil.rmtree(place, ignore_errors=True)
    return ""


def no_disks() -> str:
    """Return why no small disk can be mounted; nothing where it can."""
    if os.geteuid() != 0:
        return "not root: no small disk can be mounted"
    with tempfile.TemporaryDirectory() as place:
        found = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True
        )
        if found.returncode:
            return f"no small disk can be mounted ({found.stderr.strip()})"
        subprocess.run(["umount", place], check=True)
    return ""


def work(world: World, seed: int, tries: Sequence[tuple[str, int]], out: Path, until: float) -> None:
    """Make tries one after the other in this process; write each outcome as a line of JSON."""
    with out.open("w") as file:
        for kind, number in tries:
            if time.monotonic() > until:
                break
            began = time.monotonic()
            failure = attempt(world, seed, kind, number)
            print(json.dumps([kind, number, failure, time.monotonic() - began]), file=file, flush=True)


def main() -> int:
    """Make all tries; print a line for each kind and each failure; return how many failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, count in COUNTS.items():
        parser.add_argument(f"--{flag}", type=int, default=count, metavar="N", help="how many tries of this kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="tries at a time")
    parser.add_argument("--minutes", type=float, default=18.0, help="begin no try after so many minutes")
    parser.add_argument("--only", type=int, help="of each kind, only this number")
    asked = parser.parse_args()
    began = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="unteach-faults-"))
    world = prepare(home)
    counts = {kind: getattr(asked, kind) for kind in KINDS}
    skipped = {"full": why} if counts["full"] and (why := no_disks()) else {}
    numbers = [(kind, n) for kind in KINDS if kind not in skipped for n in range(counts[kind])]
    numbers = [(kind, n) for kind, n in numbers if asked.only in (None, n)]
    random.Random(asked.seed).shuffle(numbers)
    ahead = f"{len(numbers)} tries, seed {asked.seed}, in {home}"
    print(f"{ahead}; a run takes {world.seconds:.1f} s and {world.operations} file operations", flush=True)
    children, until = [], began + 60 * asked.minutes
    for worker in range(asked.workers):
        if not (child := os.fork()):
            code = 1
            try:
                work(world, asked.seed, numbers[worker :: asked.workers], home / f"worker-{worker}", until)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    broken = [child for child in children if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]
    lines = [line for worker in range(asked.workers) for line in (home / f"worker-{worker}").read_text().splitlines()]
    outcomes = [json.loads(line) for line in lines]
    failures = [text for _, _, text, _ in outcomes if text]
    for text in failures:
        print(f"FAILED {text}")
    for kind in KINDS:
        made = [one for one in outcomes if one[0] == kind]
        failed, took = sum(bool(one[2]) for one in made), sum(one[3] for one in made) / max(1, len(made))
        why = f"  skipped: {skipped[kind]}" if kind in skipped else ""
        print(f"{kind:<8} {len(made):>4} tries {failed:>4} failures  {took:5.1f} s each{why}")
    unmade = len(numbers) - len(outcomes)
    print(f"{len(outcomes)} tries, {len(failures)} failures, {unmade} not made, {time.monotonic() - began:.0f} s")
    if not (failures or broken):
        shutil.rmtree(home, ignore_errors=True)
    return int(bool(failures or broken or unmade))


if __name__ == "__main__":
    sys.exit(main())
