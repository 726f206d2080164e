"""Connections to the page: those that do not come to a request make room for those that do.

The server takes a bounded number of connections. A browser sends its request at once; whoever opens connections and
sends nothing, or a byte now and then, would keep the owner out.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
"""Longest time from the opening of a connection, or the first byte of a later request, to the end of its header."""
MOST_WAITING = 32
"""Most connections on which no request is being answered; the oldest is closed for a new one."""


def connection_class() -> type[H11Protocol]:
    """Return the class of connections of one server."""
    waiting: dict[H11Protocol, None] = {}  # in the order in which they began to wait

    class Connection(H11Protocol):
        """A connection that is closed where no request comes."""

        _clock: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self._wait_or_answer()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            self._wait_or_answer(idle=True)

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait_or_answer(self, idle: bool = False) -> None:
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()
            elif self._clock is None:
                self._wait(idle)

        def _wait(self, idle: bool = False) -> None:
            if self.transport.is_closing():
                return
            waiting[self] = None
            if not idle:  # one that has been answered is closed by uvicorn where nothing comes
                self._clock = self.loop.call_later(HEADER_SECONDS, self.transport.close)
            while len(waiting) > MOST_WAITING:
                oldest = next(iter(waiting))
                del waiting[oldest]
                oldest.transport.close()

        def _stop_waiting(self) -> None:
            waiting.pop(self, None)
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

    return Connection
