"""Checkpoints that can be trusted: complete or not there at all."""

import json
from pathlib import Path
from typing import Any

STATE_FILE = "unteach.json"
"""Written last into a checkpoint, by an atomic rename: a directory without it was cut off half-way."""


def complete_step(checkpoint: Path, ranks: int = 1) -> int | None:
    """Return the step of a complete checkpoint, None for anything else.

    Complete means: the Trainer's state parses and names the directory's step, every rank's random state is there, and
    our own state, the last file to be written, parses.
    """
    try:
        step = int(checkpoint.name.removeprefix("checkpoint-"))
        trainer_state = json.loads((checkpoint / "trainer_state.json").read_text())
        json.loads((checkpoint / STATE_FILE).read_text())
    except (OSError, ValueError):
        return None
    names = ["rng_state.pth"] if ranks == 1 else [f"rng_state_{rank}.pth" for rank in range(ranks)]
    there = all((checkpoint / name).exists() for name in names)
    return step if there and trainer_state.get("global_step") == step else None


def last_complete(directory: Path, ranks: int = 1) -> Path | None:
    """Return the complete checkpoint with the highest step under a directory, if there is one."""
    found = {complete_step(path, ranks): path for path in directory.glob("checkpoint-*") if path.is_dir()}
    steps = [step for step in found if step is not None]
    return found[max(steps)] if steps else None


def write_state(checkpoint: Path, state: dict[str, Any]) -> None:
    """Write our own state, which completes the checkpoint."""
    partial = checkpoint / f"{STATE_FILE}.partial"
    partial.write_text(json.dumps(state))
    partial.rename(checkpoint / STATE_FILE)


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Read what `write_state` wrote."""
    return json.loads((checkpoint / STATE_FILE).read_text())
