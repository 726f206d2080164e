"""Start the page, print its address, and end it cleanly."""

import ipaddress
import secrets
import signal
import socket
import webbrowser
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import uvicorn

from unteach.errors import ConfigError
from unteach.text.escape import inert_line
from unteach.try_page.app import MAX_SEED, TryPage
from unteach.try_page.connection import connection_class
from unteach.try_page.guard import Guard
from unteach.try_page.models import load_tried_models
from unteach.try_page.negatives import NegativesFile

_END_SECONDS = 5  # how long the end of the page waits for running replies, and for the worker


def try_models(
    names: Sequence[str],
    negatives: str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    anyone: bool = False,
    seed: int = 0,
    open_browser: bool = False,
    say: Callable[[str], None] = lambda line: print(line, flush=True),
    **loading: Any,
) -> None:
    """Serve the page for one or two models until Ctrl-C; `loading` goes to `load_tried_models`.

    All other settings are checked before a model is loaded.

    Raises ConfigError, DataError, ModelError or OutputError.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"--seed {seed}: must be from 0 to {MAX_SEED}")
    file = NegativesFile(negatives) if negatives is not None else None
    listening = bind(host, port, anyone)
    try:
        page = TryPage(load_tried_models(names, **loading), file, seed=seed)
        token = secrets.token_urlsafe(24)
        address = f"http://{_authority(host, listening)}/{token}/"
        listening.listen(64)  # from now on the address can be opened
        say(f"Open {address}")
        if file is None:
            say("Marking is off; --negatives FILE switches it on.")
        else:
            holds = _counted(file.contents.negatives, "negative")
            say(f"Bad replies go to {inert_line(file.shown)}, which holds {holds}.")
        if anyone:
            say("Anyone who has this address can use the page, and what is sent is not encrypted.")
        say("Ctrl-C ends it.")
        if open_browser:
            webbrowser.open(address)
        make_server(page, listening, host, token).run([listening])
    finally:
        listening.close()
    page.worker.join(_END_SECONDS)
    marked = len(page.marks)
    say("\nstopped" + (f"; {_counted(marked, 'reply', 'replies')} marked in {inert_line(file.shown)}" if file else ""))


def bind(host: str, port: int, anyone: bool) -> socket.socket:
    """Bind a port, without listening yet; port 0 means a free one.

    Raises ConfigError for an address that others can reach, unless `anyone` is true, and for one that cannot be bound.
    """
    if not 0 <= port <= 65535:
        raise ConfigError(f"--port {port}: must be from 0 to 65535; 0 means a free one")
    try:
        family, kind, _, _, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"--host {host}: is no address of this machine ({error}); use 127.0.0.1") from None
    if not ipaddress.ip_address(str(place[0]).partition("%")[0]).is_loopback and not anyone:
        raise ConfigError(
            f"--host {host}: others can reach this address, and could use the models and write to the file; add "
            "--anyone if that is meant, or leave --host out"
        )
    listening = socket.socket(family, kind)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
    except OSError as error:
        listening.close()
        raise ConfigError(f"--host {host} --port {port}: cannot be used ({error.strerror}); try --port 0") from None
    return listening


def make_server(page: TryPage, listening: socket.socket, host: str, token: str) -> uvicorn.Server:
    """Make the server of a page. It logs no requests, since their paths hold the token."""
    port = listening.getsockname()[1]
    address = listening.getsockname()[0]
    hosts = {f"{name}:{port}" for name in (_bracketed(host), _bracketed(address))}
    if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        hosts.add(f"localhost:{port}")
    anywhere = ipaddress.ip_address(address.partition("%")[0]).is_unspecified
    config = uvicorn.Config(
        Guard(page.app(), token, hosts, any_address=anywhere),
        http=connection_class(),
        ws="none",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=64,
        timeout_graceful_shutdown=_END_SECONDS,
    )
    return _Server(config, page.worker.close)


class _Server(uvicorn.Server):
    """A server that on Ctrl-C stops the replies and ends as usual, and raises nothing afterwards."""

    def __init__(self, config: uvicorn.Config, closing: Callable[[], None]) -> None:
        super().__init__(config)
        self._closing = closing

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End; a second Ctrl-C ends at once. Unlike this, uvicorn sends itself the signal again at the end."""
        self._closing()
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True


def _authority(host: str, listening: socket.socket) -> str:
    address, port = listening.getsockname()[:2]
    unspecified = ipaddress.ip_address(address.partition("%")[0]).is_unspecified
    return f"{socket.gethostname() if unspecified else _bracketed(host)}:{port}"


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _counted(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"
