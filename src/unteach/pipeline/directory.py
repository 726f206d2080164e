"""The run directory: whether it may be written, who writes it, and what a run writes there."""

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from unteach.disk.files import PARTIAL, is_partial, living_on, remove_whole, writing
from unteach.disk.lock import LOCK, only_writer
from unteach.errors import OutputError
from unteach.models.ranks import by_first_rank, held_by_first

SETTINGS = "run.yaml"
CONTRACT = (
    SETTINGS,
    "report.json",
    "report.html",
    "README.md",
    "model",
    "log.jsonl",
    "checkpoints",
    "mistakes.jsonl",
    "unseen_mistakes.jsonl",
    "analyses.jsonl",
    "stress.json",
)
"""Everything a run writes; `--overwrite` removes nothing else."""
REPLACED = f".replaced{PARTIAL}"
"""Where a run goes that is replaced. While it is there, whatever is left of `CONTRACT` beside it is to be removed."""


def output_directory(output: str, *, overwrite: bool, resume: bool = False) -> AbstractContextManager[Path]:
    """Hold the output directory for the life of a command, which alone may write there; see `check_output`.

    Empty directories that it has made are removed where the block fails, and errors of the disk become OutputErrors.
    The first rank holds it for all.
    """
    return held_by_first(_held(output, overwrite=overwrite, resume=resume))


@contextmanager
def _held(output: str, *, overwrite: bool, resume: bool) -> Iterator[Path]:
    """Hold the output directory in this process."""
    directory = _place_of(output, overwrite=overwrite, resume=resume)
    with living_on(directory), no_empty_left([directory, *directory.absolute().parents]):
        with writing(directory, "name another directory"):
            directory.mkdir(parents=True, exist_ok=True)
        with only_writer(directory), no_empty_left([directory / "checkpoints"]):  # the Trainer makes this one at once
            _check_content(directory, overwrite=overwrite, resume=resume)
            yield directory


@contextmanager
def no_empty_left(paths: Iterable[Path]) -> Iterator[None]:
    """Remove those of these directories that the block has made and left empty where it fails."""
    missing = [path for path in paths if not path.exists()]
    try:
        yield
    except BaseException:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise


def check_output(output: str, *, overwrite: bool, resume: bool) -> Path:
    """Return the output directory if a run may use it; changes nothing on disk.

    Raises OutputError for a directory that is not empty (unless `overwrite` or `resume` is set), for a file at its
    place, and where nothing may be written.
    """
    directory = _place_of(output, overwrite=overwrite, resume=resume)
    _check_content(directory, overwrite=overwrite, resume=resume)
    return directory


def _place_of(output: str, *, overwrite: bool, resume: bool) -> Path:
    """Return the directory, which need not exist, if it can be written."""
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
    return directory


def _check_content(directory: Path, *, overwrite: bool, resume: bool) -> None:
    if _is_replaced(directory):
        return
    used = directory.exists() and not all(map(_is_leftover, directory.iterdir()))
    if used and not (overwrite or resume):
        raise OutputError(
            f"--output {directory}: not empty; name another directory, or add --resume to go on with the run in it "
            "or --overwrite to replace it"
        )
    if overwrite and used and not _holds_run(directory):
        raise OutputError(
            f"--output {directory}: --overwrite replaces runs only, and this directory holds none (no run.yaml); "
            "name another directory"
        )


def _is_replaced(directory: Path) -> bool:
    """Whether a run that was to be replaced is still being removed: its settings went first, in one rename."""
    return (directory / REPLACED).exists() and not (directory / SETTINGS).exists()


def _is_leftover(path: Path) -> bool:
    """Whether a path in a run directory is what a killed process leaves there before its run has begun."""
    if path.name == "checkpoints":
        return path.is_dir() and not any(path.iterdir())
    return path.name == LOCK or is_partial(path)


def _holds_run(directory: Path) -> bool:
    """Whether a directory holds a run, or runs of several seeds."""
    return (directory / SETTINGS).exists() or any(directory.glob(f"seed-*/{SETTINGS}"))


@by_first_rank
def check_inputs(
    directory: Path,
    inputs: Iterable[str | None],
    *,
    overwrite: bool,
    contract: Iterable[str] = CONTRACT,
    flag: str = "--output",
) -> None:
    """Refuse to overwrite what this command reads from; `contract` is all that it removes. Raises OutputError."""
    going = [(directory / name).resolve() for name in contract] if overwrite else []
    for source in filter(None, inputs):
        path = Path(source).expanduser().resolve()
        if path.exists() and any(path == part or part in path.parents or path in part.parents for part in going):
            raise OutputError(f"{flag} {directory}: --overwrite would delete {source}, which this run reads; move it")


@contextmanager
def beginning(directory: Path, *, overwrite: bool) -> Iterator[None]:
    """Clear the directory, with `overwrite` of an earlier run too, before the block writes the settings of a new one.

    One rename takes the settings of the earlier run away, and with them the run: whoever is killed from there on until
    the new settings are written leaves a directory in which a new run can begin. Raises OutputError.
    """
    aside = directory / REPLACED
    with writing(directory, "name another directory"):
        replacing = overwrite or _is_replaced(directory)
        if replacing:
            aside.mkdir(exist_ok=True)
            for name in CONTRACT:
                if os.path.lexists(directory / name):
                    remove_whole(aside / name)
                    (directory / name).rename(aside / name)
        for path in [path for path in directory.iterdir() if is_partial(path)]:
            for part in path.iterdir() if path == aside and replacing else [path]:
                remove_whole(part)
    yield
    with writing(directory, "name another directory"):
        remove_whole(aside)
