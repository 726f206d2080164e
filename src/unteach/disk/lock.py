"""One writer for each directory: a lock that is held for the life of a command."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from unteach.disk.files import writing
from unteach.errors import OutputError

LOCK = ".unteach.lock"
"""The lock file of a directory. It says who holds it; that it is there says nothing, since a kill leaves it behind."""
BEAT = 5.0
"""Seconds between two signs of life of the holder."""
PATIENCE = 3.5 * BEAT
"""Seconds without a sign of life after which a holder on another host counts as dead."""

_held: set[int] = set()


class FileLock:
    """An exclusive lock on a file, by `flock`: the kernel ends it with the process, however that ends.

    Over NFS the kernel passes the lock on to the server. Where it does not reach other hosts (`nolock`, some parallel
    file systems), and where there are no locks at all, the content decides: the holder touches the file every few
    seconds, and one on another host that goes on doing so keeps the lock. A process of this host is asked for by its
    number where there are no locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._ended = threading.Event()

    def take(self, wait: bool = False) -> dict[str, Any] | None:
        """Take the lock and return None, or return what is known of who has it. Raises OutputError.

        With `wait`, it is taken as soon as it is free.
        """
        with writing(self.path):
            while True:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
                try:
                    holder = self._try(file, wait)
                    if holder is None and self._is_current(file):
                        self._file = file
                        self._begin(file)
                        return None
                except BaseException:
                    os.close(file)
                    raise
                os.close(file)
                if holder is not None and not wait:
                    return holder
                if holder is not None:
                    time.sleep(1)

    def _try(self, file: int, wait: bool) -> dict[str, Any] | None:
        """Lock an open file; return who has it where it is taken."""
        locks = True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return _holder(file, wait=1.0)
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
                raise
            locks = False
        holder = _holder(file)
        if holder.get("host") == socket.gethostname():
            alive = not locks and holder.get("pid") != os.getpid() and _is_alive(holder.get("pid"))
        else:
            alive = bool(holder) and self._beats()
        return holder if alive else None

    def _is_current(self, file: int) -> bool:
        """Whether the open file still has its name: the one who held it before may have removed it meanwhile."""
        with contextlib.suppress(OSError):
            return os.path.samestat(os.fstat(file), os.stat(self.path))
        return False

    def _beats(self) -> bool:
        """Whether somebody touches the file while we watch it; opened anew each time, since NFS asks only then."""
        before, end = None, time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(OSError), open(self.path, "rb") as file:
                now = os.fstat(file.fileno()).st_mtime_ns
                if before is not None and now != before:
                    return True
                before = now
            time.sleep(BEAT / 10)
        return False

    def _begin(self, file: int) -> None:
        _held.add(file)
        me = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        with contextlib.suppress(OSError):  # a full disk: the lock holds, but does not say whose it is
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(me).encode(), 0)
        threading.Thread(target=self._live, args=(file,), name="lock", daemon=True).start()

    def _live(self, file: int) -> None:
        while not self._ended.wait(BEAT):
            with contextlib.suppress(OSError):
                os.utime(file)

    def release(self) -> None:
        """Remove the file and give the lock back."""
        if self._file is None:
            return
        self._ended.set()
        with contextlib.suppress(OSError):
            if self._is_current(self._file):
                os.unlink(self.path)
        _held.discard(self._file)
        os.close(self._file)
        self._file = None

    def __enter__(self) -> "FileLock":
        self.take(wait=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@contextlib.contextmanager
def only_writer(directory: Path, flag: str = "--output") -> Iterator[None]:
    """Hold a directory, which must be there, as the only one that writes to it. Raises OutputError where it is held."""
    lock = FileLock(directory / LOCK)
    holder = lock.take()
    if holder is not None:
        who = f"process {holder.get('pid', 'unknown')} on host {holder.get('host', 'unknown')}"
        since = f" since {holder['since']}" if "since" in holder else ""
        fix = "wait for it to end, or name another directory"
        raise OutputError(f"{flag} {directory}: is in use by {who}{since}; {fix}")
    try:
        yield
    finally:
        lock.release()


def _holder(file: int, wait: float = 0.0) -> dict[str, Any]:
    """Return what a lock file says; nothing where it says nothing that can be read within `wait` seconds."""
    end = time.monotonic() + wait
    while True:
        with contextlib.suppress(OSError, ValueError, RecursionError):
            found = json.loads(os.pread(file, 1000, 0))
            if isinstance(found, dict):
                return {key: found[key] for key in ("pid", "host", "since") if isinstance(found.get(key), str | int)}
        if time.monotonic() >= end:
            return {}
        time.sleep(0.05)


def _is_alive(pid: Any) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, TypeError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _close_in_child() -> None:
    """A forked child, such as a data loader, must not keep the lock when its parent is gone."""
    for file in _held:
        with contextlib.suppress(OSError):
            os.close(file)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)
