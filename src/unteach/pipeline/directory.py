"""The run directory: whether it may be written, and what a run writes there."""

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from unteach.errors import OutputError

CONTRACT = (
    "run.yaml",
    "report.json",
    "report.html",
    "README.md",
    "model",
    "log.jsonl",
    "checkpoints",
    "mistakes.jsonl",
    "unseen_mistakes.jsonl",
    "analyses.jsonl",
)
"""Everything a run writes; `--overwrite` removes nothing else."""


def check_output(output: str, *, overwrite: bool, resume: bool) -> Path:
    """Return the output directory if a run may use it; changes nothing on disk.

    Raises OutputError for a directory that is not empty (unless `overwrite` or `resume` is set), for a file at its
    place, and where nothing may be written.
    """
    if not output:
        raise OutputError("--output is missing; name a directory for the model and the report")
    if overwrite and resume:
        raise OutputError("--overwrite and --resume exclude each other; leave one out")
    directory = Path(output)
    if directory.exists() and not directory.is_dir():
        raise OutputError(f"--output {output}: is a file; name a directory")
    nearest = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise OutputError(f"--output {output}: {nearest} is a file; name another directory")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"--output {output}: no permission to write in {nearest}; name another directory")
    used = directory.exists() and any(directory.iterdir())
    if used and not (overwrite or resume):
        raise OutputError(
            f"--output {output}: not empty; name another directory, or add --resume to go on with the run in it "
            "or --overwrite to replace it"
        )
    if overwrite and used and not (directory / "run.yaml").exists():
        raise OutputError(
            f"--output {output}: --overwrite replaces runs only, and this directory holds none (no run.yaml); "
            "name another directory"
        )
    return directory


def check_inputs(directory: Path, inputs: Iterable[str | None], *, overwrite: bool) -> None:
    """Refuse to overwrite a run that this one reads from. Raises OutputError."""
    going = [(directory / name).resolve() for name in CONTRACT] if overwrite else []
    for source in filter(None, inputs):
        path = Path(source).expanduser().resolve()
        if path.exists() and any(path == part or part in path.parents or path in part.parents for part in going):
            raise OutputError(f"--output {directory}: --overwrite would delete {source}, which this run reads; move it")


@contextmanager
def nothing_left_after_errors(directory: Path) -> Iterator[None]:
    """Remove the empty directories that the block has made where it fails; the Trainer makes its own at once."""
    paths = (directory / "checkpoints", directory, *directory.absolute().parents)
    missing = [path for path in paths if not path.exists()]
    try:
        yield
    except BaseException:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise


def clear_output(directory: Path, *, overwrite: bool) -> None:
    """Make the directory and, with `overwrite`, remove an earlier run from it. Raises OutputError where that fails."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if overwrite:
            for name in CONTRACT:
                path = directory / name
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or os.strerror(error.errno or errno.EIO)
        raise OutputError(f"--output {directory}: cannot be written ({reason}); name another directory") from error
