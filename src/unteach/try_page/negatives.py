"""The negatives file: bad replies that a person marked, as JSON lines for `unteach run --forget`.

Several programs may write it at once. A line is appended whole, under a lock, or not at all. Lines of other programs
are never changed, even if they cannot be read.
"""

import contextlib
import errno
import fcntl
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unteach.data.example import Example
from unteach.errors import ConfigError, DataError, OutputError

ENDINGS = (".jsonl", ".ndjson")


class Duplicate(DataError):
    """The file already holds this reply to this prompt."""


@dataclass(frozen=True)
class WrittenNegative:
    """A row that this program wrote, and its line in the file."""

    row: dict[str, Any]
    line: bytes


@dataclass
class FileContents:
    """What was read of a file so far: how many `negatives`, and how many `broken` lines that are no JSON object.

    `file` identifies the file, `size` is the number of bytes read, `ends` are the first and the last of them.
    `foreign` is the number of the first line of another format, 0 if there is none. `labelled` says whether rows have a
    label, `keys` are those of the negatives.
    """

    file: tuple[int, int] = (0, 0)
    size: int = 0
    lines: int = 0
    negatives: int = 0
    broken: int = 0
    foreign: int = 0
    labelled: bool | None = None
    ends_in_newline: bool = True
    ends: bytes = b""
    keys: set[str] = field(default_factory=set)

    def add(self, line: bytes) -> None:
        """Take in one line."""
        self.lines += 1
        if not line.strip():
            return
        try:
            row = json.loads(line.decode("utf-8-sig" if self.lines == 1 else "utf-8"))
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            self.broken += 1
            return
        if not {"prompt", "completion"} <= row.keys():
            self.foreign = self.foreign or self.lines
            return
        self.labelled = "label" in row if self.labelled is None else self.labelled
        if str(row.get("label", "false")).strip().lower() not in ("false", "0", "0.0"):
            return
        self.negatives += 1
        if isinstance(row["prompt"], str) and isinstance(row["completion"], str):
            with contextlib.suppress(UnicodeEncodeError):  # half a surrogate pair, which no reply marked here has
                self.keys.add(Example.of(row["prompt"], row["completion"].strip()).key)


class NegativesFile:
    """A file that bad replies are appended to; `contents` is what it holds.

    If the rows of the file have no label, new rows have none either: a file has one format.

    Raises ConfigError for a name that `unteach run` would not read, DataError for a file with rows of another format,
    OutputError where it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.shown = str(path)
        if Path(path).suffix.lower() not in ENDINGS:
            raise ConfigError(f"--negatives {path}: must end in .jsonl, or unteach run cannot read it")
        try:
            # An undo replaces the file that a link points to, never the link.
            self.path = Path(os.path.realpath(Path(path).expanduser()))
        except (OSError, ValueError, RuntimeError) as error:
            raise OutputError(f"--negatives {path}: cannot be used ({error}); name another file") from None
        self.contents = FileContents()
        self._check()

    def add(self, row: dict[str, Any]) -> WrittenNegative:
        """Append a row with prompt and completion, whole or not at all, and wait until it is on the disk.

        Raises Duplicate if the file already has prompt and reply, up to case and white space, DataError if it has
        become a file of another format, and OutputError.
        """
        key = Example.of(row["prompt"], row["completion"]).key
        with self._locked() as file:
            if self.contents.foreign:
                raise DataError(f"{self._foreign()}; it is left as it is: put it elsewhere, and mark again")
            if key in self.contents.keys:
                raise Duplicate(f"{self.shown} has this reply to this prompt already")
            without = {"label"} if self.contents.labelled is False else set[str]()
            kept = {name: value for name, value in row.items() if name not in without}
            line = json.dumps(kept, ensure_ascii=False).encode() + b"\n"
            _append(file, line if self.contents.ends_in_newline else b"\n" + line)
            self._catch_up(file)
        return WrittenNegative(row, line)

    def undo(self, written: WrittenNegative) -> None:
        """Remove a line that this program wrote; all others stay byte for byte.

        Raises DataError if it is not there any more, and OutputError.
        """
        with self._locked() as file:
            content = _content(file)
            start = content.rfind(written.line)
            if start < 0 or (start > 0 and content[start - 1 : start] != b"\n"):
                raise DataError(f"{self.shown}: this line is not in it any more; someone changed the file")
            self._replace(file, content[:start] + content[start + len(written.line) :])

    def refresh(self) -> None:
        """Read what other programs have written meanwhile."""
        if self.path.exists():
            with self._locked():
                pass
        else:
            self.contents = FileContents()

    def _check(self) -> None:
        """Refuse now what would make the first mark fail, without writing anything."""
        if self.path.is_dir() or (self.path.exists() and not self.path.is_file()):
            raise OutputError(f"--negatives {self.shown}: is not a file; name one that ends in .jsonl")
        if self.path.is_symlink():  # a link even after all links were followed
            raise OutputError(f"--negatives {self.shown}: is a link that leads to itself; remove it")
        place = self.path if self.path.exists() else self.path.parent
        if not place.exists():
            raise OutputError(f"--negatives {self.shown}: there is no directory {self.path.parent}; make it first")
        # An undo writes a new file beside the old one, so the directory must be writable in any case.
        if not os.access(self.path.parent, os.W_OK | os.X_OK) or not os.access(place, os.R_OK | os.W_OK):
            raise OutputError(f"--negatives {self.shown}: no permission to write it; name another file")
        self.refresh()
        if self.contents.foreign:
            raise DataError(f"--negatives {self._foreign()}; name another file (unteach run takes several --forget)")

    def _foreign(self) -> str:
        """Say which line shows that the file is of another format."""
        return (
            f"{self.shown}: line {self.contents.foreign} has no text in prompt and completion, so the file is of "
            "another format"
        )

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Open and lock the file, and read what is new in it."""
        try:
            file = self._open()
        except OSError as error:
            why = "it is a link now" if self.path.is_symlink() else error.strerror
            raise OutputError(f"{self.shown}: cannot be written ({why}); put the file back") from error
        try:
            self._catch_up(file)
            yield file
        except OSError as error:
            raise OutputError(f"{self.shown}: cannot be written ({error.strerror}); free some space") from error
        finally:
            os.close(file)  # this releases the lock

    def _open(self) -> int:
        """Open and lock the file; once more if another program's undo has replaced it meanwhile."""
        if os.path.realpath(self.path.parent) != str(self.path.parent):
            raise OSError(errno.ELOOP, "its directory is a link now")
        while True:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            file = os.open(self.path, flags, 0o666)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise OSError(errno.EINVAL, "it is no longer a file")
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.path.samestat(os.fstat(file), os.stat(self.path)):
                    return file
            except FileNotFoundError:
                pass
            except OSError:
                os.close(file)
                raise
            os.close(file)

    def _catch_up(self, file: int) -> None:
        """Read the lines that are new; all lines if an earlier one may have changed."""
        status = os.fstat(file)
        this = (status.st_dev, status.st_ino)
        read = self.contents.size
        same = this == self.contents.file and status.st_size >= read and _ends(file, read) == self.contents.ends
        # A last line without a line break may have grown since.
        if not same or (not self.contents.ends_in_newline and status.st_size != self.contents.size):
            self.contents = FileContents(this)
        content = os.pread(file, status.st_size - self.contents.size, self.contents.size)
        if not content:
            return
        self.contents.ends_in_newline = content.endswith(b"\n")
        for line in content.removesuffix(b"\n").split(b"\n"):
            self.contents.add(line)
        self.contents.size += len(content)
        self.contents.ends = _ends(file, self.contents.size)

    def _replace(self, file: int, content: bytes) -> None:
        """Replace the locked file by one with this content, in one step."""
        temporary = None
        try:
            with tempfile.NamedTemporaryFile(dir=self.path.parent, prefix=f".{self.path.name}.", delete=False) as new:
                temporary = Path(new.name)
                new.write(content)
                os.fchmod(new.fileno(), os.fstat(file).st_mode & 0o7777)
                new.flush()
                os.fsync(new.fileno())
            temporary.replace(self.path)
        except OSError:
            if temporary is not None:
                with contextlib.suppress(OSError):
                    temporary.unlink(missing_ok=True)
            raise
        _sync_directory(self.path.parent)
        self.contents = FileContents()
        with open(self.path, "rb") as again:
            self._catch_up(again.fileno())


def _ends(file: int, size: int) -> bytes:
    """Return the first and the last kilobyte of the first `size` bytes: who writes a file anew changes these."""
    return os.pread(file, min(1024, size), 0) + os.pread(file, min(1024, size), max(0, size - 1024))


def _content(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


def _append(file: int, line: bytes) -> None:
    """Write a line with one call; if the disk takes only a part of it, write nothing."""
    before = os.fstat(file).st_size
    try:
        written = os.write(file, line)
        if written < len(line):
            raise OSError(28, "the disk is full")
        os.fsync(file)
    except OSError:
        os.ftruncate(file, before)
        raise


def _sync_directory(directory: Path) -> None:
    """Put a rename on the disk, if the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
