"""What the page asks for: replies as they grow, marks, and taking marks back."""

import asyncio
import contextlib
import itertools
import json
import shlex
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
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
from unteach.try_page.models import Tried
from unteach.try_page.negatives import Mark, NegativesFile
from unteach.try_page.worker import Full, Question, Side, Worker

MAX_PROMPT = 20_000
MAX_NOTE = 1_000
MAX_SEED = 2**31 - 1
MAX_TEMPERATURE = 5.0
_SHOWN = 20_000  # characters of a reply that the page shows; the file gets all
_KEPT = 200  # replies that can still be marked
_LAST = 500  # marks that the panel lists; it scrolls
_PAUSE = 0.04  # seconds between two looks at a reply that grows


@dataclass(frozen=True)
class Reply:
    """A reply that can be marked; `row` is what the file would get, but for time and note."""

    side: int
    row: dict[str, Any]


@dataclass
class Marked:
    """A mark of this session."""

    number: int
    mark: Mark


class TryPage:
    """The page's server: one worker for the models, one file for the marks."""

    def __init__(
        self, models: Sequence[Tried], negatives: NegativesFile | None, *, seed: int = 0, seats: int | None = None
    ) -> None:
        self.models = models
        self.negatives = negatives
        self.seed = seed
        self.worker = Worker(models) if seats is None else Worker(models, seats)
        self.replies: OrderedDict[int, Reply] = OrderedDict()
        self.marks: dict[int, Marked] = {}
        self._numbers = itertools.count(1)
        self._asked: dict[int, Question] = {}
        self._writing = asyncio.Lock()

    def app(self) -> Starlette:
        """Make the web application; its routes are relative to the token."""
        routes = [
            Route("/", self.page),
            Route("/marks", self.state),
            Route("/ask", self.ask, methods=["POST"]),
            Route("/stop", self.stop, methods=["POST"]),
            Route("/mark", self.mark, methods=["POST"]),
            Route("/undo", self.undo, methods=["POST"]),
            Mount("/static", StaticFiles(packages=[("unteach.try_page", "static")])),
        ]
        handlers: dict[Any, Any] = {HTTPException: _refused, DataError: _refused, OutputError: _refused}
        return Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.worker.start()
        try:
            yield
        finally:
            self.worker.close()

    async def page(self, request: Request) -> Response:
        """The page itself."""
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
        said = await _body(request)
        prompt = said.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            raise HTTPException(422, "The prompt is empty; write something first.")
        if len(prompt) > MAX_PROMPT:
            raise HTTPException(422, f"The prompt has {len(prompt):,} characters; {MAX_PROMPT:,} are the most.")
        if any("\ud800" <= char <= "\udfff" for char in prompt):
            raise HTTPException(422, "The prompt holds half a character (a lone surrogate); take it out.")
        temperature = _number(said, "temperature", 0.0, MAX_TEMPERATURE)
        seed = int(_number(said, "seed", 0, MAX_SEED, whole=True))
        guided = said.get("guided", [])
        if not isinstance(guided, list) or not all(isinstance(one, bool) for one in guided):
            raise HTTPException(422, "The field guided must be a list of true and false.")
        chosen = [*guided, *(True for _ in self.models)][: len(self.models)]
        on = tuple(one and model.reminder is not None for one, model in zip(chosen, self.models, strict=True))
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def changed() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                loop.call_soon_threadsafe(news.set)

        question = Question(prompt, temperature, seed, on, changed)
        try:
            self.worker.ask(question)
        except Full:
            raise HTTPException(
                503, "Too many prompts are waiting; send it again in a moment.", {"retry-after": "5"}
            ) from None
        return StreamingResponse(self._lines(question, news), media_type="application/x-ndjson")

    async def _lines(self, question: Question, news: asyncio.Event) -> AsyncIterator[str]:
        """Tell what changes until both sides are over; a reader who leaves ends this, and so the replies."""
        number = next(self._numbers)
        self._asked[number] = question
        shown = [""] * len(question.sides)
        told = [False] * len(question.sides)
        try:
            prompt = inert_line(question.prompt, 300)
            yield _json({"ask": number, "ahead": self.worker.ahead(question), "prompt": prompt})
            while not all(told):
                news.clear()
                for place, side in enumerate(question.sides):
                    if told[place]:
                        continue
                    over = side.over  # asked first: what comes between is then told in the next round
                    change = _change(shown[place], inert(side.piece.text, _SHOWN))
                    shown[place] = change.pop("shown")
                    told[place] = over
                    if change or over:
                        yield _json({"side": place} | change | (self._end(question, place) if over else {}))
                if not all(told):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(news.wait(), 1.0)
                    await asyncio.sleep(_PAUSE)
                    if not any(side.begun for side in question.sides):
                        yield _json({"ahead": self.worker.ahead(question)})
        finally:
            question.stop.set()
            del self._asked[number]

    def _end(self, question: Question, place: int) -> dict[str, Any]:
        """How one side ended, and the number under which its reply can be marked."""
        side: Side = question.sides[place]
        end = {"tokens": side.piece.tokens, "seconds": round(side.seconds, 2), "ended": side.piece.ended}
        if side.error:
            return end | {"error": side.error}
        if not side.piece.text:
            return end | {"blank": True}
        number = next(self._numbers)
        row = {"prompt": question.prompt, "completion": side.piece.text, "label": False}
        row |= {"model": self.models[place].name, "temperature": question.temperature}
        row |= {"seed": question.seed} if question.temperature > 0 else {}
        row |= {"guided": question.guided[place]} if self.models[place].reminder is not None else {}
        self.replies[number] = Reply(place, row | {"ended": side.piece.ended})
        while len(self.replies) > _KEPT:
            self.replies.popitem(last=False)
        return end | {"reply": number}

    async def stop(self, request: Request) -> Response:
        """End the replies to one prompt where they are."""
        question = self._asked.get(_identity(await _body(request), "ask"))
        if question is not None:
            question.stop.set()
        return JSONResponse({})

    async def mark(self, request: Request) -> Response:
        """Write a reply that was shown to the negatives file."""
        said = await _body(request)
        file = self._file()
        reply = self.replies.get(_identity(said, "reply"))
        if reply is None:
            raise HTTPException(410, "This reply is not kept any more; send its prompt again.")
        note = said.get("note", "")
        if not isinstance(note, str) or len(note) > MAX_NOTE:
            raise HTTPException(422, f"The note may have {MAX_NOTE:,} characters at most.")
        note = note.encode("utf-8", "replace").decode().strip()
        row = reply.row | {"time": datetime.now(UTC).isoformat(timespec="seconds"), "note": note}
        async with self._writing:
            written = await run_in_threadpool(file.add, row)
        made = Marked(next(self._numbers), written)
        self.marks[made.number] = made
        return JSONResponse({"mark": made.number} | await self._state())

    async def undo(self, request: Request) -> Response:
        """Take a mark of this session out of the file again."""
        file = self._file()
        made = self.marks.get(_identity(await _body(request), "mark"))
        if made is None:
            raise HTTPException(410, "This mark was taken back already.")
        async with self._writing:
            try:
                await run_in_threadpool(file.undo, made.mark)
            finally:
                self.marks.pop(made.number, None)
        return JSONResponse(await self._state())

    async def state(self, request: Request) -> Response:
        """What the negatives file holds."""
        self._file()
        return JSONResponse(await self._state())

    async def _state(self) -> dict[str, Any]:
        file = self._file()
        async with self._writing:
            await run_in_threadpool(file.look)
        return {
            "file": inert_line(file.shown, 300),
            "held": file.read.held,
            "broken": file.read.broken,
            "marked": len(self.marks),
            "last": [_shown_mark(made) for made in list(self.marks.values())[: -_LAST - 1 : -1]],
            "command": inert_line(self.next_command()),
        }

    def next_command(self) -> str:
        """The command line that unlearns what was marked."""
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


def _shown_mark(made: Marked) -> dict[str, Any]:
    row = made.mark.row
    shown = {name: inert_line(row[name], 200) for name in ("prompt", "completion", "note", "model")}
    about = shown["model"] + {True: ", guided", False: ", unguided", None: ""}[made.mark.row.get("guided")]
    return shown | {"model": about, "mark": made.number}


def _change(before: str, now: str) -> dict[str, Any]:
    """How to get from one text to the next: by adding to it, or else by taking all of the new one."""
    if now == before:
        return {"shown": now}
    return {"shown": now} | ({"add": now[len(before) :]} if now.startswith(before) else {"text": now})


def _line(text: str | None) -> str | None:
    return None if text is None else inert_line(text, 500)


def _number(said: dict[str, Any], name: str, least: float, most: float, whole: bool = False) -> float:
    value = said.get(name, 0)
    good = isinstance(value, int) or (isinstance(value, float) and not whole)
    if not good or isinstance(value, bool) or not least <= value <= most:
        what = "a whole number" if whole else "a number"
        raise HTTPException(422, f"The {name} must be {what} from {least:g} to {int(most)}.")
    return value


def _identity(said: dict[str, Any], name: str) -> int:
    value = said.get(name)
    return value if isinstance(value, int) else 0  # nothing has the number 0


async def _body(request: Request) -> dict[str, Any]:
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
        said = json.loads(content)
    except TimeoutError:
        raise HTTPException(408, "The request took too long to arrive.") from None
    except (ValueError, RecursionError):
        raise HTTPException(400, "This is not valid JSON.") from None
    if not isinstance(said, dict):
        raise HTTPException(400, "Send a JSON object.")
    return said


def _json(line: dict[str, Any]) -> str:
    return json.dumps(line) + "\n"


async def _refused(request: Request, error: Exception) -> Response:
    """An error as the page shows it."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, dict(error.headers or {}))
    return JSONResponse({"error": inert_line(str(error), 500)}, 500 if isinstance(error, OutputError) else 409)


def _templates() -> Environment:
    loader = PackageLoader("unteach.try_page", "templates")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
