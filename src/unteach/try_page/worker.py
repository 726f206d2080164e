"""The one thread that runs the models, and the bounded queue before it."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from unteach.errors import UnteachError
from unteach.text.escape import inert_line
from unteach.try_page.models import TriedModel
from unteach.try_page.streaming import Piece

MAX_WAITING = 8
"""Most prompts that may wait."""


class QueueFull(Exception):
    """Too many prompts are waiting already."""


@dataclass
class Side:
    """One model's reply so far; `error` says why it failed."""

    piece: Piece = field(default_factory=lambda: Piece("", 0))
    error: str = ""
    seconds: float = 0.0
    started: bool = False

    @property
    def over(self) -> bool:
        """Whether the reply has ended or failed."""
        return bool(self.piece.ended or self.error)


@dataclass(eq=False)
class PendingPrompt:
    """A prompt to every model; `guided` says for each model whether its reminder is on."""

    prompt: str
    temperature: float
    seed: int
    guided: tuple[bool, ...]
    changed: Callable[[], None]
    sides: list[Side] = field(init=False)
    stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.sides = [Side() for _ in self.guided]


class Worker:
    """Answers one prompt after the other; the models take turns, so their replies grow side by side.

    There is one thread, since the replies draw from torch's global random state.
    """

    def __init__(self, models: Sequence[TriedModel], max_waiting: int = MAX_WAITING) -> None:
        self.models = models
        self._waiting: queue.Queue[PendingPrompt] = queue.Queue(max_waiting)
        self._running: PendingPrompt | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="replies", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def ask(self, pending: PendingPrompt) -> None:
        """Put a prompt into the queue. Raises QueueFull if there is no place left, or if the worker is closed."""
        if self._closed.is_set():
            raise QueueFull
        try:
            self._waiting.put_nowait(pending)
        except queue.Full:
            raise QueueFull from None

    def ahead(self, pending: PendingPrompt) -> int:
        """Return how many prompts are answered before this one."""
        with self._waiting.mutex:
            waiting = list(self._waiting.queue)
        return waiting.index(pending) + (self._running is not None) if pending in waiting else 0

    def close(self) -> None:
        """Stop the running replies and drop what waits. Returns at once, and may be called from a signal handler."""
        self._closed.set()

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end; return whether it did."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while not self._closed.is_set():
            try:
                pending = self._waiting.get(timeout=0.2)
            except queue.Empty:
                continue
            self._running = pending
            self._answer(pending)
            self._running = None
        while not self._waiting.empty():
            self._answer(self._waiting.get_nowait())  # so that its reader learns that it was stopped

    def _answer(self, pending: PendingPrompt) -> None:
        """Give each model a turn, again and again, until every reply has ended."""
        running: dict[int, Iterator[Piece]] = {}
        for number, (model, guided) in enumerate(zip(self.models, pending.guided, strict=True)):
            running[number] = model.reply(
                pending.prompt,
                guided=guided,
                temperature=pending.temperature,
                seed=pending.seed,
                stopped=lambda: pending.stop.is_set() or self._closed.is_set(),
            )
        while running:
            for number, pieces in list(running.items()):
                side = pending.sides[number]
                side.started = True
                started = time.monotonic()
                try:
                    side.piece = next(pieces)
                except StopIteration:
                    del running[number]
                except Exception as error:  # a reply that fails must end neither the other nor the page
                    side.error = _explain(error)
                    del running[number]
                side.seconds += time.monotonic() - started
                pending.changed()


def _explain(error: Exception) -> str:
    """Put an error into words for the page."""
    if isinstance(error, UnteachError):
        return inert_line(str(error), 500)
    if isinstance(error, torch.OutOfMemoryError):
        return "the prompt and its reply do not fit into memory; shorten it, or lower --max-new-tokens"
    return f"the model failed ({type(error).__name__}: {inert_line(str(error), 300)}); try another prompt"
