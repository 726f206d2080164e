"""Commands that a test of faults starts and kills: each is a fork of one process that has imported everything."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT = 180.0
"""Seconds after which a command counts as hung."""


@dataclass
class Ended:
    """How a command ended: its exit code (negative: the signal), what it printed, and its file operations."""

    code: int
    said: str
    operations: int = 0
    seconds: float = 0.0

    @property
    def error(self) -> str:
        """The one line of its error; a complaint where there is a traceback, or not one line."""
        lines = [line for line in self.said.splitlines() if line.startswith(("Error:", "Interrupted:"))]
        if "Traceback" in self.said or len(lines) != 1:
            return f"NOT ONE ERROR LINE: {self.said[-1500:]}"
        return lines[0]


class Command:
    """`unteach WORDS` in a fork of this process, or in a process of its own (`anew`).

    `kill_at` names a file operation before which it kills itself; they are counted by Python's audit events. `also` are
    more variables of its environment, and `before` is called first in the fork.
    """

    logs: Path
    """Where the commands of the try that is made write what they print."""

    def __init__(
        self,
        words: Sequence[object],
        cache: Path,
        *,
        kill_at: int | None = None,
        anew: bool = False,
        also: Mapping[str, str] | None = None,
        before: Callable[[], object] | None = None,
    ) -> None:
        environment = {"XDG_CACHE_HOME": str(cache)} | dict(also or {})
        self.log = Path(tempfile.mkstemp(prefix="unteach-", suffix=".log", dir=self.logs)[1])
        self.count = self.log.with_suffix(".count")
        self.began = time.monotonic()
        arguments = ["unteach", *map(str, words)]
        if anew:
            with self.log.open("wb") as log:
                self.pid = subprocess.Popen(
                    [sys.executable, "-m", *arguments],
                    stdout=log,
                    stderr=log,
                    env=os.environ | environment,
                    start_new_session=True,
                ).pid
            return
        self.pid = os.fork()
        if not self.pid:
            self._be(arguments, environment, kill_at, before)

    def _be(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        kill_at: int | None,
        before: Callable[[], object] | None,
    ) -> None:
        code = 70
        try:
            os.setsid()
            file = os.open(self.log, os.O_WRONLY)
            os.dup2(file, 1)
            os.dup2(file, 2)
            os.environ |= environment
            if before:
                before()
            sys.argv = arguments
            count = _count_operations(kill_at)
            from unteach.cli.app import main

            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
            sys.stdout.flush()
            self.count.write_text(str(count()))
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def kill(self) -> None:
        """Kill it and whatever it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, kill_after: float | None = None) -> Ended:
        """Wait for its end, or kill it after so many seconds."""
        deadline = self.began + (LIMIT if kill_after is None else kill_after)
        hung = False
        while not (found := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() >= deadline:
                hung = kill_after is None
                self.kill()
                deadline = float("inf")
            time.sleep(0.01)
        said = self.log.read_text(errors="replace") + ("HUNG" if hung else "")
        operations = int(self.count.read_text()) if self.count.exists() else 0
        return Ended(os.waitstatus_to_exitcode(found[1]), said, operations, time.monotonic() - self.began)


def _count_operations(kill_at: int | None) -> Callable[[], int]:
    """Count what changes the disk from now on, and kill this process before the `kill_at`-th of it."""
    count, writes = 0, os.O_WRONLY | os.O_RDWR
    changes = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.chmod", "os.utime"}

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if event in changes or (event == "open" and isinstance(arguments[2], int) and arguments[2] & writes):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    return lambda: count
