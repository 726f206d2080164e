"""The page's guard: requests must come from the page itself, have the token, and be of bounded size."""

import contextlib
import ipaddress
import secrets
import socket
from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY = 256 * 1024
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """Passes requests to the page if the first part of their path is the token.

    It refuses a Host that is not this server's (a foreign name that points here, "DNS rebinding"), a path without the
    token, whatever a browser sends from another page except to open this one, and bodies whose stated length is over
    MAX_BODY bytes. Where no length is stated, `app` counts the bytes as it reads them.
    """

    def __init__(self, app: ASGIApp, token: str, hosts: Collection[str], *, any_address: bool = False) -> None:
        self.app = app
        self.token = token
        self.hosts = frozenset(host.lower() for host in hosts)
        self.any_address = any_address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        refused = self._refusal(Request(scope))
        if refused is not None:
            refused.headers["connection"] = "close"  # it is not kept open for whoever has no token
            await refused(scope, receive, _with_headers(send))
            return
        await self.app(dict(scope, root_path=f"/{self.token}"), receive, _with_headers(send))

    def _refusal(self, request: Request) -> Response | None:
        """Return the response to a request that must not pass, else None."""
        host = request.headers.get("host", "").lower()
        if not self._is_ours(host):
            return PlainTextResponse("This server does not go by that name.", 421)
        first, slash, rest = request.scope["path"][1:].partition("/")
        if not secrets.compare_digest(first.encode(), self.token.encode()):
            return PlainTextResponse("Use the whole address that `unteach try` printed: it ends in a token.", 403)
        if not self._is_from_here(request, opening=not rest, host=host):
            return PlainTextResponse("Requests from other pages are refused.", 403)
        length = request.headers.get("content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY:
            return PlainTextResponse(f"More than {MAX_BODY:,} bytes are refused.", 413)
        if not slash:  # the page's own addresses are relative to the one with the last slash
            return RedirectResponse(f"/{self.token}/")
        return None

    def _is_ours(self, host: str) -> bool:
        if host in self.hosts:
            return True
        if not self.any_address:
            return False
        # The server listens on every address of the machine. Others can point names here, but not numbers.
        name = host.rpartition(":")[0].strip("[]") if ":" in host and not host.endswith("]") else host.strip("[]")
        with contextlib.suppress(ValueError):
            ipaddress.ip_address(name)
            return True
        return name == socket.gethostname().lower()

    @staticmethod
    def _is_from_here(request: Request, opening: bool, host: str) -> bool:
        """Whether a browser sent this from the page, or to open the page."""
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        reading = request.method in ("GET", "HEAD")
        if opening and reading and request.headers.get("sec-fetch-dest") in (None, "document"):
            return True  # any page may link to this one, but it cannot read what this one shows
        if origin is not None and origin.lower() != f"http://{host}":
            return False
        return site in (None, "same-origin") or (site == "none" and reading)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_HEADERS)
        await send(message)

    return sending
