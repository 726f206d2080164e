"""The one thread that asks the models, and the bounded line before it."""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from unteach.errors import UnteachError
from unteach.text.escape import inert_line
from unteach.try_page.models import Tried
from unteach.try_page.streaming import Piece

SEATS = 8
"""How many prompts may wait for their turn."""


class Full(Exception):
    """Too many prompts wait already."""


@dataclass
class Side:
    """What has come of one model's reply; `error` says why nothing more will."""

    piece: Piece = field(default_factory=lambda: Piece("", 0))
    error: str = ""
    seconds: float = 0.0
    begun: bool = False

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return bool(self.piece.ended or self.error)


@dataclass(eq=False)
class Question:
    """A prompt on its way to every model; `guided` says model by model whether its reminder is on."""

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
    """Asks the models, one question after the other; the models take turns, so their replies grow side by side.

    Randomness is torch's global one, so that no two questions may be asked at once: hence one thread.
    """

    def __init__(self, models: Sequence[Tried], seats: int = SEATS) -> None:
        self.models = models
        self._waiting: queue.Queue[Question] = queue.Queue(seats)
        self._running: Question | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="replies", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def ask(self, question: Question) -> None:
        """Put a question in line. Raises Full where no place is left, or where the worker is closed."""
        if self._closed.is_set():
            raise Full
        try:
            self._waiting.put_nowait(question)
        except queue.Full:
            raise Full from None

    def ahead(self, question: Question) -> int:
        """How many questions come before this one."""
        with self._waiting.mutex:
            waiting = list(self._waiting.queue)
        return waiting.index(question) + (self._running is not None) if question in waiting else 0

    def close(self) -> None:
        """Stop what is being answered and let what waits go; returns at once, and may be called from a signal."""
        self._closed.set()

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end; tells whether it did."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while not self._closed.is_set():
            try:
                question = self._waiting.get(timeout=0.2)
            except queue.Empty:
                continue
            self._running = question
            self._answer(question)
            self._running = None
        while not self._waiting.empty():
            self._answer(self._waiting.get_nowait())  # which tells its reader that it was stopped

    def _answer(self, question: Question) -> None:
        """Go round the models, a turn each, until every reply has ended."""
        going: dict[int, Iterator[Piece]] = {}
        for number, (model, guided) in enumerate(zip(self.models, question.guided, strict=True)):
            going[number] = model.reply(
                question.prompt,
                guided=guided,
                temperature=question.temperature,
                seed=question.seed,
                stopped=lambda: question.stop.is_set() or self._closed.is_set(),
            )
        while going:
            for number, pieces in list(going.items()):
                side = question.sides[number]
                side.begun = True
                begun = time.monotonic()
                try:
                    side.piece = next(pieces)
                except StopIteration:
                    del going[number]
                except Exception as error:  # one reply that fails ends neither the other nor the page
                    side.error = _said(error)
                    del going[number]
                side.seconds += time.monotonic() - begun
                question.changed()


def _said(error: Exception) -> str:
    """What to tell a person of an error."""
    if isinstance(error, UnteachError):
        return inert_line(str(error), 500)
    if isinstance(error, torch.OutOfMemoryError):
        return "the prompt and its reply do not fit into memory; shorten it, or lower --max-new-tokens"
    return f"the model failed ({type(error).__name__}: {inert_line(str(error), 300)}); try another prompt"
