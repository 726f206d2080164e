"""Every file is written here: whole or not at all, safe on the disk before its name is, and with one error."""

import contextlib
import errno
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from unteach.errors import OutputError, UnteachError

PARTIAL = ".partial"
"""Ends the name of what is being written or removed; the name begins with a dot. A killed process leaves it behind."""
FIX = "free some space or choose another --output"
_OF_THE_DISK = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "ESTALE", "ENXIO", "ENODEV", "ENOTCONN", "EREMOTEIO")
    if hasattr(errno, name)
}


def without_surrogates(value: Any) -> Any:
    """Replace each half of a surrogate pair by U+FFFD, since no file can hold it; other values stay as they are."""
    if not isinstance(value, str):
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


# ---- writing ---------------------------------------------------------------------------------------------------------


def write_whole(path: Path, content: str | bytes, fix: str = FIX) -> Path:
    """Replace the file by the content in one step, so that no reader sees half of it. Raises OutputError."""
    with whole_file(path, fix=fix) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path


@contextlib.contextmanager
def whole_file(path: Path, mode: int = 0o644, fix: str = FIX) -> Iterator[IO[bytes]]:
    """Yield a file that takes the place of `path` when the block ends without an error. Raises OutputError.

    It is written under another name in the same directory, put on the disk, renamed, and the rename put on the disk.
    """
    with writing(path, fix):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=PARTIAL)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fchmod(handle, mode)
                os.fsync(handle)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        _sync(path.parent)


@contextlib.contextmanager
def whole_directory(
    path: Path, mode: int = 0o755, fix: str = FIX, stays: Callable[[], bool] = lambda: False
) -> Iterator[Path]:
    """Yield an empty directory that takes the place of `path` when the block ends without an error.

    What is at `path` then is removed, unless `stays()`: then the new directory is. Raises OutputError, also for what
    libraries raise when they cannot write.
    """
    with writing(path, fix):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=PARTIAL))
        try:
            yield partial
            partial.chmod(mode)
            sync_tree(partial)
            _take_place(partial, path, stays)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        _sync(path.parent)


def _take_place(partial: Path, path: Path, stays: Callable[[], bool]) -> None:
    """Rename a directory, again and again while other processes put theirs in its place."""
    while True:
        try:
            return os.rename(partial, path)  # fails where there is something
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        if stays():
            return shutil.rmtree(partial)
        with contextlib.suppress(FileNotFoundError):  # another process has removed it
            remove_whole(path)


def remove_whole(path: Path) -> None:
    """Remove a file or a directory with all it holds; its name is gone at once. Nothing there is no error."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name[:100]}.", suffix=PARTIAL))
    try:
        path.rename(aside / "removed")
    finally:
        shutil.rmtree(aside)


def is_partial(path: Path) -> bool:
    """Whether a name is that of something half-written or half-removed."""
    return path.name.startswith(".") and path.name.endswith(PARTIAL)


def sync_tree(directory: Path) -> None:
    """Put all files below a directory on the disk, and their names."""
    for place, _, names in os.walk(directory, topdown=False):
        for name in names:
            _sync(Path(place, name), file=True)
        _sync(Path(place))


def _sync(path: Path, file: bool = False) -> None:
    """Put a file or the names in a directory on the disk; a file system that cannot do so for directories need not."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        if file:
            raise
    finally:
        os.close(handle)


# ---- errors ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def writing(path: Path, fix: str = FIX) -> Iterator[None]:
    """Turn whatever the block raises because it cannot write `path` into an OutputError that ends with the fix."""
    try:
        yield
    except UnteachError:
        raise
    except Exception as error:
        reason = write_problem(error, path)
        if reason is None:
            raise
        if isinstance(error, IsADirectoryError):
            raise OutputError(f"{path}: is a directory; name a file") from error
        raise OutputError(f"{path}: cannot be written ({reason}); {fix}") from error


@contextlib.contextmanager
def living_on(directory: Path) -> Iterator[None]:
    """Turn errors of the disk into an OutputError, whichever file and library they come from.

    Other errors, such as an input that cannot be read, pass: only a disk that is full or broken, and files under
    `directory`, are meant.
    """
    try:
        yield
    except UnteachError:
        raise
    except Exception as error:
        reason = write_problem(error, directory)
        if reason is None or (isinstance(error, OSError) and not _concerns(error, directory)):
            raise
        place = error.filename if isinstance(error, OSError) and isinstance(error.filename, str) else directory
        raise OutputError(f"{place}: cannot be written ({reason}); {FIX}") from error


def write_problem(error: Exception, place: Path) -> str | None:
    """Return why writing at `place` failed; None where the error is about something else.

    Beside OSError, libraries in Rust raise errors of their own with the number in the text (`SafetensorError`, and a
    bare `Exception` of tokenizers), and torch's archive writer a RuntimeError that does not say what is wrong.
    """
    number = error.errno if isinstance(error, OSError) else None
    if not isinstance(error, OSError):
        if found := re.search(r"os error (\d+)", str(error)):
            number = int(found[1])
        elif isinstance(error, RuntimeError) and re.search("inline_container|PytorchStreamWriter|iostream", str(error)):
            there = next(path for path in (place, *place.absolute().parents) if path.exists())
            number = errno.ENOSPC if shutil.disk_usage(there).free < 2**20 else errno.EIO
        else:
            return None
    return "the disk is full" if number == errno.ENOSPC else os.strerror(number or errno.EIO)


def _concerns(error: OSError, directory: Path) -> bool:
    if error.errno in _OF_THE_DISK:
        return True
    if not isinstance(error.filename, str):
        return False
    return Path(error.filename).absolute().is_relative_to(directory.absolute())
