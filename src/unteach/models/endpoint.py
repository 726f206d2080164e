"""An endpoint that speaks OpenAI's protocol: many questions at once, bounded in number, rate, time and size."""

import asyncio
import json
import logging
import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
from anyio.from_thread import start_blocking_portal

from unteach.errors import ConfigError
from unteach.text.escape import inert_line

log = logging.getLogger(__name__)

KEY_NAMES = ("UNTEACH_JUDGE_API_KEY", "OPENAI_API_KEY")
MOST_BYTES = 1 << 20
FIRST_WAIT = 0.5
"""Seconds before the second try; doubled for each one after it."""
LONGEST_WAIT = 30.0
"""Seconds between two tries, whatever the server asks for."""
GIVE_UP_AFTER = 8
"""So many questions in a row without an answer, each tried to the end, and the rest is not asked any more."""
FINISHED = ("stop", "eos_token", None)  # the words of different servers for "it had said all it wanted"
_LATER = (408, 409, 425, 429)

Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Answer:
    """What came back: the text, or why there is none; `cut` where the longest length ended it.

    `model` is what the server calls the model that answered, empty where it does not say. `ids` are the tokens of the
    text, where these were asked for.
    """

    text: str | None = None
    failure: str = ""
    cut: bool = False
    model: str = ""
    ids: tuple[int, ...] = ()


Arrived = Callable[[int, Answer], None]
Question = Mapping[str, Any]
"""The fields of a request, but for the model and, where they leave it to the endpoint, the longest answer."""
Read = Callable[[Question, bytes], Answer]
"""Takes the answer to a question out of the body that came back."""


@dataclass(frozen=True)
class Endpoint:
    """Where and how to ask. `url` is the full address of the chat completions, or of the completions.

    At most `concurrency` requests are under way at a time and `rate` begin per second; each has `timeout` seconds for
    all of its answer and is tried `attempts` times; an answer has at most `longest` tokens, and one that was cut there
    is a failure unless `takes_cut`. The key is sent as a bearer token and shown nowhere; `key_name` is the variable
    that holds it.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    concurrency: int = 8
    rate: float | None = None
    timeout: float = 60.0
    attempts: int = 5
    longest: int = 64
    takes_cut: bool = False
    key_name: str = KEY_NAMES[0]

    @property
    def base(self) -> str:
        """The address as a user gives it."""
        return self.url.removesuffix("/completions").removesuffix("/chat")

    def ask(self, conversations: Sequence[Messages], arrived: Arrived | None = None) -> list[Answer]:
        """Put each conversation to the model at temperature 0; returns as many answers, in the same order (`post`)."""
        questions = [{"messages": messages, "temperature": 0} for messages in conversations]
        return self.post(questions, lambda _, content: _answer_of(content, self.takes_cut), arrived)

    def post(self, questions: Sequence[Question], read: Read, arrived: Arrived | None = None) -> list[Answer]:
        """Send each question, and `read` what comes back; returns as many answers, in the same order.

        Never raises for what the server does: an answer then says what failed. Timeouts, broken connections and the
        statuses that mean "later" are tried again, with growing pauses or those that the server asks for, up to
        `LONGEST_WAIT`. `arrived` is called with place and answer as they come, from another thread. Ctrl-C ends it
        at once.
        """
        if not questions:
            return []
        call = _Call(self, questions, read, arrived or (lambda place, answer: None))
        # In a thread of its own: a loop may run in this one already, and Ctrl-C reaches this one.
        with start_blocking_portal(name="unteach-endpoint") as portal:
            answers = portal.start_task_soon(call.all)
            while not wait([answers], 0.2).done:  # in slices, for Ctrl-C does not end an unbounded wait everywhere
                pass
            return answers.result()

    @property
    def headers(self) -> dict[str, str]:
        """The headers of a request. They go to this address and to no other, so no redirect may be followed."""
        held = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        return {"Content-Type": "application/json", "Accept-Encoding": "identity", **held}

    def redacted(self, text: str) -> str:
        """Return the text for a message: inert, short, and without a trace of the key."""
        windows = {self.key[start : start + 8] for start in range(max(1, len(self.key) - 7))} if self.key else set()
        if any(window in text for window in windows):
            return "(left out: it repeats the key)"
        return inert_line(text, 200)


class _Later(Exception):
    """Worth another try, after `seconds` where the server said how long."""

    def __init__(self, failure: str, seconds: float | None = None) -> None:
        super().__init__(failure)
        self.seconds = seconds


class _Failed(Exception):
    """No use to try this question again; `final`: nor any other."""

    def __init__(self, failure: str, final: bool = False) -> None:
        super().__init__(failure)
        self.final = final


class _LookUps(ThreadPoolExecutor):
    """Threads that look up hosts' names. One that hangs cannot be broken off; it is not waited for."""

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let the threads end when they can."""
        super().shutdown(wait=False, cancel_futures=cancel_futures)


class _Call:
    """All questions of one `ask`, and what the tries so far have taught."""

    def __init__(self, endpoint: Endpoint, questions: Sequence[Question], read: Read, arrived: Arrived) -> None:
        self.endpoint = endpoint
        self.questions = questions
        self.read = read
        self.arrived = arrived
        self.answers = [Answer()] * len(questions)
        self.waiting = iter(range(len(questions)))
        self.next_start = 0.0
        self.in_a_row = 0
        self.given_up = ""
        self.limit_name = "max_tokens"
        self.jitter = random.Random()

    async def all(self) -> list[Answer]:
        asyncio.get_running_loop().set_default_executor(_LookUps())
        async with httpx2.AsyncClient(headers=self.endpoint.headers, timeout=None, follow_redirects=False) as client:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(self.endpoint.concurrency, len(self.questions))):
                    group.create_task(self._work(client))
        return self.answers

    async def _work(self, client: httpx2.AsyncClient) -> None:
        for place in self.waiting:
            answer = await self._answer(client, self.questions[place])
            self.answers[place] = answer
            self.arrived(place, answer)

    async def _answer(self, client: httpx2.AsyncClient, question: Question) -> Answer:
        failure = ""
        for attempt in range(self.endpoint.attempts):
            await self._turn()
            if self.given_up:
                return Answer(failure=self.given_up)
            pause: float | None = None
            try:
                async with asyncio.timeout(self.endpoint.timeout):
                    answer = await self._once(client, question)
                self.in_a_row = 0
                return answer
            except _Failed as problem:
                self.given_up = str(problem) if problem.final else self.given_up
                return Answer(failure=str(problem))
            except _Later as problem:
                failure, pause = str(problem), problem.seconds
            except TimeoutError:
                failure = f"no answer within {self.endpoint.timeout:g} s"
            except (httpx2.TransportError, OSError) as problem:
                failure = f"no connection ({type(problem).__name__})"
            except Exception as problem:  # whatever one answer does to the client must not end the whole check
                return Answer(failure=f"{type(problem).__name__}")
            if attempt + 1 < self.endpoint.attempts:
                await self._pause(attempt, pause)
        self.in_a_row += 1
        if self.in_a_row >= GIVE_UP_AFTER:
            self.given_up = f"not asked after {GIVE_UP_AFTER} failures in a row"
        return Answer(failure=failure)

    async def _turn(self) -> None:
        """Wait until the next request may begin."""
        now = time.monotonic()
        start = max(now, self.next_start)
        if self.endpoint.rate:
            self.next_start = start + 1 / self.endpoint.rate
        if start > now:
            await asyncio.sleep(start - now)

    async def _pause(self, attempt: int, asked: float | None) -> None:
        """Wait between two tries; a pause that the server asked for holds for all questions."""
        if asked is None:
            await asyncio.sleep(min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * self.jitter.uniform(0.75, 1.25))
            return
        asked = min(asked, LONGEST_WAIT)
        self.next_start = max(self.next_start, time.monotonic() + asked)
        await asyncio.sleep(asked)

    async def _once(self, client: httpx2.AsyncClient, question: Question) -> Answer:
        limit = self.limit_name
        body = {"model": self.endpoint.model, limit: self.endpoint.longest, **question}
        async with client.stream("POST", self.endpoint.url, content=json.dumps(body).encode()) as response:
            content = bytearray()
            async for part in response.aiter_raw():
                content += part
                if len(content) > MOST_BYTES:
                    raise _Failed(f"the answer is larger than {MOST_BYTES:,} bytes")
        if response.status_code == 200:
            return self.read(question, bytes(content))
        said = content.decode("utf-8", "replace")
        if response.status_code in (400, 422) and limit == "max_tokens" and "max_completion_tokens" in said:
            self.limit_name = "max_completion_tokens"  # some servers insist on the newer name, most know the older one
            raise _Later(f"HTTP {response.status_code}", 0.0)
        raise self._problem(response, said)

    def _problem(self, response: httpx2.Response, said: str) -> Exception:
        status = response.status_code
        if status in _LATER or status >= 500:
            return _Later(f"HTTP {status}", _seconds(response.headers.get("retry-after", "")))
        if status in (401, 403):
            return _Failed(f"HTTP {status}: the key was refused; set {self.endpoint.key_name}", final=True)
        what = f"HTTP {status}: {self.endpoint.redacted(message_of(said))}"
        if status == 404:
            return _Failed(f"{what}; check the model's name and the address, which mostly ends in /v1", final=True)
        if 300 <= status < 400:
            return _Failed(f"HTTP {status}: the server points to another address; give that one", final=True)
        return _Failed(what)


def _answer_of(content: bytes, takes_cut: bool) -> Answer:
    """Take the answer out of a chat completion."""
    try:
        whole = json.loads(content)
        choice, model = whole["choices"][0], whole.get("model")
        text, finish = choice["message"]["content"], choice.get("finish_reason")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise _Failed("the answer is no chat completion") from None
    if not isinstance(text, str):
        raise _Failed("the answer has no text")
    cut = finish == "length" and takes_cut
    if finish not in FINISHED and not cut:
        raise _Failed(f"the answer was cut short ({inert_line(str(finish), 40)})")
    return Answer(text, cut=cut, model=model if isinstance(model, str) else "")


def message_of(said: str) -> str:
    """Find the server's own words in an error's body."""
    try:
        found = json.loads(said)
        found = found.get("error", found.get("detail", found))
        return str(found["message"] if isinstance(found, dict) and "message" in found else found)
    except (ValueError, AttributeError, RecursionError):
        return said


def _seconds(wanted: str) -> float | None:
    """Read Retry-After, seconds or a date; None where it says nothing."""
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", wanted.strip(), re.ASCII):
        return float(wanted)
    try:
        date = parsedate_to_datetime(wanted)
        return max(0.0, (date - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None


def chat_address(url: str | None, flag: str = "--judge-url", key_name: str = KEY_NAMES[0]) -> str:
    """Return the full address of an endpoint's chat completions from its base address.

    Raises ConfigError for anything but a plain http or https address; the address itself is not repeated in the
    message where it may hold a secret.
    """
    example = "such as http://localhost:8000/v1"
    if not url or not url.strip():
        raise ConfigError(f"{flag} is missing; give the base address of an OpenAI-compatible endpoint, {example}")
    url = url.strip()
    try:
        parts = urlsplit(url)
        port_fits = parts.port is None or parts.port > 0
    except ValueError:
        parts, port_fits = urlsplit(""), False
    if "@" in url:
        raise ConfigError(f"{flag}: holds a name or password; give the address alone and the key in {key_name}")
    if "?" in url or "#" in url:
        raise ConfigError(f"{flag}: give the address without what follows ? or #, and the key in {key_name}")
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_fits or not re.fullmatch(r"[!-~]+", url):
        raise ConfigError(f"{flag}: not an http or https address; give one {example}")
    base = url.rstrip("/")
    return base if base.endswith("/chat/completions") else f"{base}/chat/completions"


def warn_of_readable_key(endpoint: Endpoint, flag: str) -> None:
    """Warn where the key would travel readable for all on the way to another machine."""
    host = urlsplit(endpoint.url).hostname or ""
    here = host in ("localhost", "::1") or host.startswith("127.")
    if endpoint.key and endpoint.url.startswith("http:") and not here:
        log.warning("%s is http, so the key travels readable for all on the way; use https", flag)


def key_from_environment(names: Sequence[str] = KEY_NAMES) -> str:
    """Return the key from the first of these variables that is set, also when it is set to nothing.

    Raises ConfigError, without the key, for one that cannot be sent.
    """
    for name in names:
        if name in os.environ:
            key = os.environ[name].strip()
            if key and not re.fullmatch(r"[!-~]+", key):
                raise ConfigError(f"{name}: holds a space or a letter that no key has; set it again")
            return key
    return ""
