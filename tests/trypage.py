"""Models that say what a test wants, and `unteach try` served for real, for the tests of its page."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from unteach.errors import DataError
from unteach.try_page.app import TryPage
from unteach.try_page.negatives import NegativesFile
from unteach.try_page.serve import bind, make_server
from unteach.try_page.streaming import Piece
from unteach.try_page.worker import MAX_WAITING

TOKEN = "token-of-the-tests"


@dataclass
class Parrot:
    """Answers every prompt with its text, a word a turn; with `gate`, no turn goes on before it is open.

    It remembers how it was asked, and whether it was stopped.
    """

    text: str = "one two three"
    name: str = "./parrot"
    reminder: str | None = None
    ended: str = "end"
    fails: Exception | None = None
    gate: threading.Event | None = None
    asked: list[dict[str, object]] = field(default_factory=list)
    stops: int = 0

    def reply(
        self, prompt: str, *, guided: bool, temperature: float, seed: int, stopped: Callable[[], bool]
    ) -> Iterator[Piece]:
        self.asked.append({"prompt": prompt, "guided": guided, "temperature": temperature, "seed": seed})
        words, said = self.text.split(" "), ""
        for number, word in enumerate(words, start=1):
            while self.gate is not None and not self.gate.is_set() and not stopped():
                time.sleep(0.005)
            if stopped():
                self.stops += 1
                yield Piece(said, number - 1, "stopped")
                return
            said = f"{said} {word}" if said else word
            yield Piece(said, number, self.ended if number == len(words) else "")
            if self.fails is not None:
                raise self.fails


TOO_LONG = DataError("the prompt has 99 tokens and the model's context is 64; shorten it")


@dataclass
class Served:
    """A page that is being served."""

    page: TryPage
    port: int

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/{TOKEN}/"

    def send(self, raw: bytes) -> socket.socket:
        """Send bytes as they are, but for {host}."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        connection.sendall(raw.replace(b"{host}", f"127.0.0.1:{self.port}".encode()))
        return connection


@contextmanager
def serving(
    models: Sequence[Parrot], negatives: NegativesFile | None = None, max_waiting: int = MAX_WAITING
) -> Iterator[Served]:
    """Serve a page on a free port until the test is over."""
    page = TryPage(models, negatives, max_waiting=max_waiting)
    listening = bind("127.0.0.1", 0, anyone=False)
    running = make_server(page, listening, "127.0.0.1", TOKEN)
    thread = threading.Thread(target=running.run, args=([listening],))
    thread.start()
    try:
        until(lambda: running.started)
        yield Served(page, listening.getsockname()[1])
    finally:
        page.worker.close()
        running.should_exit = True
        thread.join(20)
        listening.close()
        assert not thread.is_alive() and page.worker.join(5)


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for something that another thread does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
