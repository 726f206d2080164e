"""A real HTTP server on this machine that answers chat requests as a test tells it to, and notes what it was asked."""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What the server sends; `wait` seconds before it, `drip` seconds between its bytes."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    wait: float = 0.0
    drip: float = 0.0


def completion(text: Any, finish: str | None = "stop", **changed: Any) -> Reply:
    """A well-formed chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return Reply(body=json.dumps({"object": "chat.completion", "choices": [choice]}).encode(), **changed)


@dataclass(frozen=True)
class Request:
    """What arrived, and when."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    time: float

    @property
    def last(self) -> str:
        """The text of the last message."""
        return self.body["messages"][-1]["content"]


class ChatServer:
    """Serves until the block ends; `answer` gets the request and its number, from 0."""

    def __init__(self, answer: Callable[[Request, int], Reply]) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.under_way = self.most_under_way = 0
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def __enter__(self) -> "ChatServer":
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer._handle(self)

            do_GET = do_POST

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers.get("Content-Length") or 0)) or b"{}")
        with self._lock:
            request = Request(handler.path, body, dict(handler.headers), time.monotonic())
            number = len(self.requests)
            self.requests.append(request)
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        reply = self.answer(request, number)
        self._closing.wait(reply.wait)
        with self._lock:
            self.under_way -= 1
        try:
            handler.send_response(reply.status)
            for name, value in (reply.headers | {"Content-Length": str(len(reply.body))}).items():
                handler.send_header(name, value)
            handler.end_headers()
            step = 1 if reply.drip else len(reply.body) or 1
            for start in range(0, len(reply.body), step):
                handler.wfile.write(reply.body[start : start + step])
                if reply.drip and self._closing.wait(reply.drip):
                    break
        except OSError:  # the one who asked has hung up
            handler.close_connection = True
