"""Checkpoints that can be trusted: each is complete or absent."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from unteach.disk.files import sync_tree, write_problem, write_whole
from unteach.errors import OutputError

STATE_FILE = "unteach.json"
"""Written last into a checkpoint, by an atomic rename: a directory without it is incomplete."""


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


def refuse_other_ranks(directory: Path, ranks: int) -> None:
    """Raise OutputError where the checkpoints under a directory are those of another number of ranks.

    Weights and rows would be the same, but not the bits of what follows.
    """
    for checkpoint in directory.glob("checkpoint-*"):
        wrote = max(1, len(list(checkpoint.glob("rng_state_*.pth"))))
        if wrote != ranks and complete_step(checkpoint, wrote) is not None:
            raise OutputError(
                f"{checkpoint}: is of a run of {wrote} {'process' if wrote == 1 else 'processes'}, and this is one of "
                f"{ranks}; go on with as many, or begin again with --overwrite"
            )


def write_state(checkpoint: Path, state: dict[str, Any]) -> None:
    """Write our own state, which completes the checkpoint, once all other files are on the disk. Raises OutputError."""
    sync_tree(checkpoint)
    write_whole(checkpoint / STATE_FILE, json.dumps(state))


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Read what `write_state` wrote."""
    return json.loads((checkpoint / STATE_FILE).read_text())


@contextmanager
def writing_checkpoint(trainer: Trainer, state_of: Callable[[], dict[str, Any]]) -> Iterator[Path]:
    """Yield the directory of the checkpoint at the trainer's step; once the block has filled it, add our own state.

    One that an earlier run left there counts as incomplete from the beginning on. What cannot be written is removed,
    and an OutputError says which checkpoint is valid; errors that are not about writing pass.
    """
    checkpoint = Path(trainer.args.output_dir) / f"checkpoint-{trainer.state.global_step}"
    ranks = trainer.args.world_size
    try:
        if trainer.args.should_save:
            (checkpoint / STATE_FILE).unlink(missing_ok=True)
        yield checkpoint
        trainer.accelerator.wait_for_everyone()
        if trainer.args.should_save:
            write_state(checkpoint, state_of())
    except Exception as error:
        cause = error.__cause__ if isinstance(error, OutputError) else error
        reason = write_problem(cause, checkpoint) if isinstance(cause, Exception) else None
        if reason is None:
            raise
        shutil.rmtree(checkpoint, ignore_errors=True)
        valid = last_complete(checkpoint.parent, ranks)
        fix = f"{valid.name} is valid: free space and go on with --resume" if valid else "free space and start again"
        raise OutputError(f"{checkpoint}: the checkpoint could not be written ({reason}); {fix}") from error


class SaveFirst(TrainerCallback):
    """Save the untrained weights as checkpoint-0, since the stopping rules may have to go back to them."""

    def __init__(self, save: Callable[[Any, None], None]) -> None:
        self.save = save

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save once, before the first step."""
        if args.stopping and state.global_step == 0:
            self.save(kwargs["model"], None)
