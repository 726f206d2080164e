"""The directory of an export: whether it may be written, who writes it, and what is replaced."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unteach.disk.files import is_partial, living_on, remove_whole, writing
from unteach.disk.lock import LOCK, only_writer
from unteach.errors import OutputError
from unteach.pipeline.directory import no_empty_left
from unteach.results.export import FILE_NAME

FIX = "name another directory"
CONTRACT = (FILE_NAME, "merged", "adapter", "gguf")
"""Everything an export writes; `--overwrite` removes nothing else."""


@contextmanager
def export_directory(to: str, *, overwrite: bool) -> Iterator[Path]:
    """Hold the directory of an export, which alone may write there; what an earlier one left stays until `clear`.

    Raises OutputError for a directory that is not empty (unless `overwrite` is set and it holds an export).
    """
    if not to:
        raise OutputError("--to is missing; name a directory for the export")
    directory = Path(to)
    if directory.exists() and not directory.is_dir():
        raise OutputError(f"--to {to}: is a file; {FIX}")
    with living_on(directory), no_empty_left([directory, *directory.absolute().parents]):
        with writing(directory, FIX):
            directory.mkdir(parents=True, exist_ok=True)
        with only_writer(directory, "--to"):
            used = not all(path.name == LOCK or is_partial(path) for path in directory.iterdir())
            if used and not overwrite:
                raise OutputError(f"--to {to}: not empty; {FIX}, or add --overwrite to replace the export in it")
            if used and not (directory / FILE_NAME).is_file():
                raise OutputError(
                    f"--to {to}: --overwrite replaces exports only, and this directory holds none (no {FILE_NAME}); "
                    f"{FIX}"
                )
            yield directory


def clear(directory: Path) -> None:
    """Remove an earlier export, its export.json first, and what killed commands left."""
    with writing(directory, FIX):
        for name in CONTRACT:
            remove_whole(directory / name)
