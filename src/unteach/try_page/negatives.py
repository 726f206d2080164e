"""The negatives file: bad replies that a person marked, as JSON lines that `unteach run --forget` reads.

Several programs may write it at once. A line is appended whole, under a lock, or not at all; lines of others, also
those that cannot be read, are never touched.
"""

import contextlib
import fcntl
import json
import os
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
    """The file holds this prompt with this reply already."""


@dataclass(frozen=True)
class Mark:
    """One line that was written here."""

    row: dict[str, Any]
    line: bytes


@dataclass
class Read:
    """What was read of a file so far: `held` negatives and `broken` lines, which no program can read.

    `foreign` is the number of the first line of another format, `labelled` says whether rows have a label.
    """

    file: tuple[int, int] = (0, 0)
    size: int = 0
    lines: int = 0
    held: int = 0
    broken: int = 0
    foreign: int = 0
    labelled: bool | None = None
    ends_in_newline: bool = True
    keys: set[str] = field(default_factory=set)

    def take(self, line: bytes) -> None:
        """Count one line and remember what it holds."""
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
        self.held += 1
        if isinstance(row["prompt"], str) and isinstance(row["completion"], str):
            with contextlib.suppress(UnicodeEncodeError):  # half a surrogate pair, which no reply marked here has
                self.keys.add(Example.of(row["prompt"], row["completion"].strip()).key)


class NegativesFile:
    """A file that bad replies are appended to, and `read`, what it holds.

    A file whose rows have no label gets rows without one, so that it stays of one format.

    Raises ConfigError for a name that `unteach run` would not read, DataError for a file with rows of another format,
    OutputError where it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.shown = str(path)
        if Path(path).suffix.lower() not in ENDINGS:
            raise ConfigError(f"--negatives {path}: must end in .jsonl, or unteach run cannot read it")
        try:
            # What a link points to is replaced by an undo, never the link.
            self.path = Path(os.path.realpath(Path(path).expanduser()))
        except (OSError, ValueError, RuntimeError) as error:
            raise OutputError(f"--negatives {path}: cannot be used ({error}); name another file") from None
        self.read = Read()
        self._check()

    def add(self, row: dict[str, Any]) -> Mark:
        """Append a row with prompt and completion, whole or not at all; the file is on the disk afterwards.

        Raises Duplicate where prompt and reply are there already, up to case and white space, and OutputError.
        """
        key = Example.of(row["prompt"], row["completion"]).key
        with self._locked() as file:
            if key in self.read.keys:
                raise Duplicate(f"{self.shown} has this reply to this prompt already")
            written = {name: value for name, value in row.items() if name != "label" or self.read.labelled is not False}
            line = json.dumps(written, ensure_ascii=False).encode() + b"\n"
            _append(file, line if self.read.ends_in_newline else b"\n" + line)
            self._catch_up(file)
        return Mark(row, line)

    def undo(self, mark: Mark) -> None:
        """Take out a line that was written here; all others stay byte for byte.

        Raises DataError where it is not there any more, and OutputError.
        """
        with self._locked() as file:
            content = _content(file)
            start = content.rfind(mark.line)
            if start < 0 or (start > 0 and content[start - 1 : start] != b"\n"):
                raise DataError(f"{self.shown}: this line is not in it any more; someone changed the file")
            self._replace(file, content[:start] + content[start + len(mark.line) :])

    def look(self) -> None:
        """Read what others have written since."""
        if self.path.exists():
            with self._locked():
                pass
        else:
            self.read = Read()

    def _check(self) -> None:
        """Find out now what would stop the first mark, without writing anything."""
        if self.path.is_dir() or (self.path.exists() and not self.path.is_file()):
            raise OutputError(f"--negatives {self.shown}: is not a file; name one that ends in .jsonl")
        if self.path.is_symlink():  # one that is left after all links were followed
            raise OutputError(f"--negatives {self.shown}: is a link that leads to itself; remove it")
        place = self.path if self.path.exists() else self.path.parent
        if not place.exists():
            raise OutputError(f"--negatives {self.shown}: there is no directory {self.path.parent}; make it first")
        # An undo writes a new file beside the old one, so the directory counts in any case.
        if not os.access(self.path.parent, os.W_OK | os.X_OK) or not os.access(place, os.R_OK | os.W_OK):
            raise OutputError(f"--negatives {self.shown}: no permission to write it; name another file")
        self.look()
        if self.read.foreign:
            raise DataError(
                f"--negatives {self.shown}: line {self.read.foreign} has no text in prompt and completion, so the file "
                "is of another format; name another file (unteach run takes several --forget)"
            )

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, open and locked, after what is new in it was read."""
        try:
            file = self._open()
        except OSError as error:
            raise OutputError(f"{self.shown}: cannot be written ({error.strerror}); check its permissions") from error
        try:
            self._catch_up(file)
            yield file
        except OSError as error:
            raise OutputError(f"{self.shown}: cannot be written ({error.strerror}); free some space") from error
        finally:
            os.close(file)  # which lets go of the lock

    def _open(self) -> int:
        """Open and lock; again where an undo of another program put a new file in its place meanwhile."""
        while True:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
            file = os.open(self.path, flags, 0o666)
            try:
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
        """Read the lines that came since the last look; all of them where an earlier line may have changed."""
        status = os.fstat(file)
        this = (status.st_dev, status.st_ino)
        same = this == self.read.file and status.st_size >= self.read.size
        # A last line without a line break may have grown since.
        if not same or (not self.read.ends_in_newline and status.st_size != self.read.size):
            self.read = Read(this)
        content = os.pread(file, status.st_size - self.read.size, self.read.size)
        if not content:
            return
        self.read.ends_in_newline = content.endswith(b"\n")
        for line in content.removesuffix(b"\n").split(b"\n"):
            self.read.take(line)
        self.read.size += len(content)

    def _replace(self, file: int, content: bytes) -> None:
        """Put a file with this content in the place of the locked one, in one step."""
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
        self.read = Read()
        with open(self.path, "rb") as again:
            self._catch_up(again.fileno())


def _content(file: int) -> bytes:
    return os.pread(file, os.fstat(file).st_size, 0)


def _append(file: int, line: bytes) -> None:
    """Write a line in one go; a disk that takes only part of it gets nothing."""
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
    """Make a rename last; not every file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
