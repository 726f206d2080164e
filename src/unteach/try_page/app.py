"""What the page asks the server for: replies as they grow, marks, and undoing marks."""

import asyncio
import contextlib
import itertools
import json
import shlex
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from unteach.errors import DataError, OutputError
from unteach.text.escape import inert, inert_line
from unteach.try_page.guard import MAX_BODY
from unteach.try_page.models import TriedModel
from unteach.try_page.negatives import NegativesFile, WrittenNegative
from unteach.try_page.worker import MAX_WAITING, PendingPrompt, QueueFull, Side, Worker

MAX_PROMPT = 20_000
MAX_NOTE = 1_000
MAX_SEED = 2**31 - 1
MAX_TEMPERATURE = 5.0
_MOST_SHOWN = 20_000  # characters of a reply that the page shows; the file gets all
_MOST_MARKABLE = 200  # replies that can still be marked
_MOST_LISTED = 500  # marks that the page lists
_PAUSE = 0.04  # seconds between two lines about a growing reply


class TryPage:
    """The server of the page: one worker for the models, one file for the marks.

    `replies` are the replies that can be marked, each as the row for the file without time and note. `marks` are the
    marks of this session. Both have numbers by which the page names them.
    """

    def __init__(
        self,
        models: Sequence[TriedModel],
        negatives: NegativesFile | None,
        *,
        seed: int = 0,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self.models = models
        self.negatives = negatives
        self.seed = seed
        self.worker = Worker(models, max_waiting)
        self.replies: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self.marks: dict[int, WrittenNegative] = {}
        self._numbers = itertools.count(1)
        self._running: dict[int, PendingPrompt] = {}
        self._writing = asyncio.Lock()

    def app(self) -> Starlette:
        """Make the web application; its routes are relative to the token in the address."""
        routes = [
            Route("/", self.page),
            Route("/marks", self.state),
            Route("/ask", self.ask, methods=["POST"]),
            Route("/stop", self.stop, methods=["POST"]),
            Route("/mark", self.mark, methods=["POST"]),
            Route("/undo", self.undo, methods=["POST"]),
            Mount("/static", StaticFiles(packages=[("unteach.try_page", "static")])),
        ]
        handlers: dict[Any, Any] = dict.fromkeys((HTTPException, DataError, OutputError), _error_response)
        return Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.worker.start()
        try:
            yield
        finally:
            self.worker.close()

    async def page(self, request: Request) -> Response:
        """Return the page itself."""
        template = _templates().get_template("index.html.jinja")
        return HTMLResponse(
            template.render(
                models=[
                    {"letter": letter, "name": inert_line(model.name, 300), "reminder": _line(model.reminder)}
                    for letter, model in zip("AB", self.models, strict=False)
                ],
                marking=self.negatives is not None,
                seed=self.seed,
                max_seed=MAX_SEED,
                max_prompt=MAX_PROMPT,
                max_note=MAX_NOTE,
                max_temperature=MAX_TEMPERATURE,
                command=inert_line(" ".join(["unteach try", *self._model_flags(), "--negatives bad.jsonl"])),
            )
        )

    async def ask(self, request: Request) -> Response:
        """Stream the replies to a prompt: lines of JSON, each with what is new on one side."""
        body = await _read_body(request)
        prompt = body.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            raise HTTPException(422, "The prompt is empty; write something first.")
        if len(prompt) > MAX_PROMPT:
            raise HTTPException(422, f"The prompt has {len(prompt):,} characters; {MAX_PROMPT:,} are the most.")
        if any("\ud800" <= char <= "\udfff" for char in prompt):
            raise HTTPException(422, "The prompt holds half a character (a lone surrogate); take it out.")
        temperature = _number(body, "temperature", 0.0, MAX_TEMPERATURE)
        seed = int(_number(body, "seed", 0, MAX_SEED, whole=True))
        guided = body.get("guided", [])
        if not isinstance(guided, list) or not all(isinstance(one, bool) for one in guided):
            raise HTTPException(422, "The field guided must be a list of true and false.")
        guided = [*guided, *(True for _ in self.models)][: len(self.models)]
        reminded = tuple(one and model.reminder is not None for one, model in zip(guided, self.models, strict=True))
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def changed() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is listening any more
                loop.call_soon_threadsafe(news.set)

        pending = PendingPrompt(prompt, temperature, seed, reminded, changed)
        try:
            self.worker.ask(pending)
        except QueueFull:
            raise HTTPException(
                503, "Too many prompts are waiting; send it again in a moment.", {"retry-after": "5"}
            ) from None
        return StreamingResponse(self._lines(pending, news), media_type="application/x-ndjson")

    async def _lines(self, pending: PendingPrompt, news: asyncio.Event) -> AsyncIterator[str]:
        """Yield what changes until all replies have ended; a reader who leaves ends this, and so the replies."""
        number = next(self._numbers)
        self._running[number] = pending
        shown = [""] * len(pending.sides)
        ended = [False] * len(pending.sides)
        try:
            prompt = inert_line(pending.prompt, 300)
            yield _json({"ask": number, "ahead": self.worker.ahead(pending), "prompt": prompt})
            while not all(ended):
                news.clear()
                for place, side in enumerate(pending.sides):
                    if ended[place]:
                        continue
                    over = side.over  # read before the text, so that a last change is never missed
                    change = _change(shown[place], inert(side.piece.text, _MOST_SHOWN))
                    shown[place] = change.pop("shown")
                    ended[place] = over
                    if change or over:
                        yield _json({"side": place} | change | (self._end(pending, place) if over else {}))
                if not all(ended):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(news.wait(), 1.0)
                    await asyncio.sleep(_PAUSE)
                    if not any(side.started for side in pending.sides):
                        yield _json({"ahead": self.worker.ahead(pending)})
        finally:
            pending.stop.set()
            del self._running[number]

    def _end(self, pending: PendingPrompt, place: int) -> dict[str, Any]:
        """Say how one reply ended, and the number by which it can be marked."""
        side: Side = pending.sides[place]
        end = {"tokens": side.piece.tokens, "seconds": round(side.seconds, 2), "ended": side.piece.ended}
        if side.error:
            return end | {"error": side.error}
        if not side.piece.text:
            return end | {"blank": True}
        number = next(self._numbers)
        row = {"prompt": pending.prompt, "completion": side.piece.text, "label": False}
        row |= {"model": self.models[place].name, "temperature": pending.temperature}
        row |= {"seed": pending.seed} if pending.temperature > 0 else {}
        row |= {"guided": pending.guided[place]} if self.models[place].reminder is not None else {}
        row |= {"ended": side.piece.ended} | ({} if side.piece.ended == "end" else {"cut": True})
        self.replies[number] = row
        while len(self.replies) > _MOST_MARKABLE:
            self.replies.popitem(last=False)
        return end | {"reply": number}

    async def stop(self, request: Request) -> Response:
        """End the replies to one prompt."""
        pending = self._running.get(_identity(await _read_body(request), "ask"))
        if pending is not None:
            pending.stop.set()
        return JSONResponse({})

    async def mark(self, request: Request) -> Response:
        """Write a reply into the negatives file."""
        body = await _read_body(request)
        file = self._file()
        reply = self.replies.get(_identity(body, "reply"))
        if reply is None:
            raise HTTPException(410, "This reply is not kept any more; send its prompt again.")
        note = body.get("note", "")
        if not isinstance(note, str) or len(note) > MAX_NOTE:
            raise HTTPException(422, f"The note may have {MAX_NOTE:,} characters at most.")
        note = note.encode("utf-8", "replace").decode().strip()
        row = reply | {"time": datetime.now(UTC).isoformat(timespec="seconds"), "note": note}
        async with self._writing:
            written = await run_in_threadpool(file.add, row)
        number = next(self._numbers)
        self.marks[number] = written
        return JSONResponse({"mark": number} | await self._state())

    async def undo(self, request: Request) -> Response:
        """Remove a mark of this session from the file."""
        file = self._file()
        number = _identity(await _read_body(request), "mark")
        written = self.marks.get(number)
        if written is None:
            raise HTTPException(410, "This mark was taken back already.")
        async with self._writing:
            try:
                await run_in_threadpool(file.undo, written)
            finally:
                self.marks.pop(number, None)
        return JSONResponse(await self._state())

    async def state(self, request: Request) -> Response:
        """Say what the negatives file holds."""
        self._file()
        return JSONResponse(await self._state())

    async def _state(self) -> dict[str, Any]:
        file = self._file()
        async with self._writing:
            await run_in_threadpool(file.refresh)
        return {
            "file": inert_line(file.shown, 300),
            "negatives": file.contents.negatives,
            "broken": file.contents.broken,
            "marked": len(self.marks),
            "last": [_listed(*mark) for mark in list(self.marks.items())[: -_MOST_LISTED - 1 : -1]],
            "command": inert_line(self.next_command()),
        }

    def next_command(self) -> str:
        """Write the command that unlearns what was marked."""
        assert self.negatives is not None
        output = next(name for name in _outputs() if not Path(name).exists())
        words = ["unteach", "run", "--model", self.models[0].name, "--forget", self.negatives.shown, "--output", output]
        return shlex.join(words)

    def _model_flags(self) -> list[str]:
        return [f"--model {shlex.quote(model.name)}" for model in self.models]

    def _file(self) -> NegativesFile:
        if self.negatives is None:
            raise HTTPException(409, "Marking is off; start unteach try with --negatives FILE.")
        return self.negatives


def _outputs() -> Iterator[str]:
    yield "unlearned"
    for number in itertools.count(2):
        yield f"unlearned-{number}"


def _listed(number: int, mark: WrittenNegative) -> dict[str, Any]:
    """Describe a mark for the list on the page."""
    row = mark.row
    shown = {name: inert_line(row[name], 200) for name in ("prompt", "completion", "note", "model")}
    about = shown["model"] + {True: ", guided", False: ", unguided", None: ""}[row.get("guided")]
    return shown | {"model": about, "mark": number}


def _change(before: str, now: str) -> dict[str, Any]:
    """Say how to get from one text to the next: by adding to it, or else by the whole new text."""
    if now == before:
        return {"shown": now}
    return {"shown": now} | ({"add": now[len(before) :]} if now.startswith(before) else {"text": now})


def _line(text: str | None) -> str | None:
    return None if text is None else inert_line(text, 500)


def _number(body: dict[str, Any], name: str, least: float, most: float, whole: bool = False) -> float:
    value = body.get(name, 0)
    good = isinstance(value, int) or (isinstance(value, float) and not whole)
    if not good or isinstance(value, bool) or not least <= value <= most:
        what = "a whole number" if whole else "a number"
        raise HTTPException(422, f"The {name} must be {what} from {least:g} to {int(most)}.")
    return value


def _identity(body: dict[str, Any], name: str) -> int:
    value = body.get(name)
    return value if isinstance(value, int) else 0  # nothing has the number 0


async def _read_body(request: Request) -> dict[str, Any]:
    """Read a JSON object of bounded size in bounded time."""
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise HTTPException(415, "Send JSON.")
    content = bytearray()
    try:
        async with asyncio.timeout(10):
            async for part in request.stream():
                content += part
                if len(content) > MAX_BODY:
                    raise HTTPException(413, f"More than {MAX_BODY:,} bytes are refused.")
        body = json.loads(content)
    except TimeoutError:
        raise HTTPException(408, "The request took too long to arrive.") from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "This is not valid JSON.") from None
    if not isinstance(body, dict):
        raise HTTPException(400, "Send a JSON object.")
    return body


def _json(line: dict[str, Any]) -> str:
    return json.dumps(line) + "\n"


async def _error_response(request: Request, error: Exception) -> Response:
    """Put an error into a response for the page."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, dict(error.headers or {}))
    return JSONResponse({"error": inert_line(str(error), 500)}, 500 if isinstance(error, OutputError) else 409)


def _templates() -> Environment:
    loader = PackageLoader("unteach.try_page", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
