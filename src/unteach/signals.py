"""Ctrl-C, SIGTERM and a closed terminal: the first signal stops in order, a second one ends the program at once.

All three are one request. A stage that can stop in order takes it (`taking`): training finishes its step and writes a
checkpoint. Everywhere else KeyboardInterrupt is raised. While a module is imported the program ends at once, since an
import that is broken off may report anything. After SIGTERM, and where the terminal was closed, the program ends within
`GRACE_SECONDS`, whatever it does: schedulers kill what takes longer (Slurm and Kubernetes wait for 30 seconds).
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

GRACE_SECONDS = 28.0
"""Time from SIGTERM to the end, so that the end comes before the kill of a scheduler that waits for 30 seconds."""
SAME_SECONDS = 0.5
"""Signals that are closer together are one: Slurm sends it to a study and to its runs, and the study passes it on."""
NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

Taker = Callable[[int], bool]
"""Gets a signal's number, and returns whether the program ends by itself, so that nothing is raised."""


class _Handling:
    """What is known while signals are handled: the first one, when the last one came, and who takes them.

    `program` says whether the process is ours to end; `ending` whether it is at its end already.
    """

    def __init__(self, program: bool) -> None:
        self.program, self.ending = program, False
        self.process = os.getpid()
        self.first, self.last_at = 0, 0.0
        self.takers: list[Taker] = []
        self.before: dict[int, Any] = {}

    def install(self) -> None:
        for number in NUMBERS:
            before = signal.getsignal(number)
            # nohup and the jobs of a script have signals ignored; a host program may handle them in its own way
            if before in (signal.SIG_DFL, signal.default_int_handler):
                self.before[number] = signal.signal(number, self.on_signal)

    def restore(self) -> None:
        for number, before in self.before.items():
            signal.signal(number, before)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:  # a fork of this process: as if we were not there
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        now, again = time.monotonic(), bool(self.first)
        if again and now - self.last_at < SAME_SECONDS:
            return
        self.first, self.last_at = self.first or number, now
        taken = [taker(number) for taker in self.takers]
        if self.program and (again or self.ending or _imports(frame)):
            end("stopped at once" if again else "stopped")
        if self.program and number != signal.SIGINT:
            _end_later()
        if again or not any(taken):
            raise KeyboardInterrupt


_handling: _Handling | None = None


@contextmanager
def handled(program: bool = False) -> Iterator[None]:
    """Handle signals in this block, in the main thread; inside another such block nothing changes.

    `program` says that the process is ours, and may be ended at once. Signals that are ignored, or that the host
    program handles itself, stay as they are.
    """
    global _handling
    if _handling is not None or threading.current_thread() is not threading.main_thread():
        yield
        return
    made = _handling = _Handling(program)
    made.install()
    try:
        yield
    finally:
        if not made.ending:
            made.restore()
            _handling = None


@contextmanager
def taking(taker: Taker) -> Iterator[None]:
    """Let a stage take the signals of this block."""
    handling = _handling
    if handling is None:
        yield
        return
    handling.takers.append(taker)
    try:
        yield
    finally:
        handling.takers.remove(taker)


def exit_code() -> int:
    """Return the exit code that the first signal asks for (130 after Ctrl-C, 143 after SIGTERM); 0 without one."""
    return 128 + _handling.first if _handling is not None and _handling.first else 0


def ending() -> None:
    """Say that the program is at its end: a signal from now on ends it without a word of Python's."""
    if _handling is not None:
        _handling.ending = True


def end(how: str) -> None:
    """End the process now, with one line on standard error and the exit code of the first signal."""
    shown = "\x1b[?25h\n" if sys.stderr is not None and sys.stderr.isatty() else ""  # a bar hides the cursor
    try:
        os.write(2, f"{shown}Interrupted: {how}\n".encode())
    finally:
        os._exit(exit_code())


def _end_later() -> None:
    how = f"not done {GRACE_SECONDS:.0f} s after the signal; stopped at once, what was written before is kept"
    timer = threading.Timer(GRACE_SECONDS, end, [how])
    timer.daemon = True
    timer.start()


def _imports(frame: FrameType | None) -> bool:
    """Tell whether a module is being imported."""
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
