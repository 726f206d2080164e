import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from chat_server import ChatServer, Reply, completion
from unteach.errors import ConfigError
from unteach.models import endpoint as module
from unteach.models.endpoint import Answer, Endpoint, chat_address, key_from_environment

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch):
    monkeypatch.setattr(module, "FIRST_WAIT", 0.01)


def at(server, **changed):
    return Endpoint(chat_address(server.url), "m", **({"timeout": 5.0} | changed))


def asked(*texts):
    return [[{"role": "user", "content": text}] for text in texts]


def only(reply, question="x", **changed):
    """What one question brings where the server always replies so, and how often it was asked."""
    with ChatServer(lambda request, number: reply) as server:
        (answer,) = at(server, **changed).ask(asked(question))
        return answer, len(server.requests)


# --- what is sent, and what comes back -----------------------------------------------------------------------------


def test_the_request_is_the_protocols():
    with ChatServer(lambda request, number: completion("hello")) as server:
        assert at(server, key=KEY, longest=7).ask(asked("hi")) == [Answer("hello")]
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    assert request.body == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
        "max_tokens": 7,
    }
    assert request.headers["Authorization"] == f"Bearer {KEY}"


def test_without_a_key_no_key_is_sent():
    with ChatServer(lambda request, number: completion("hello")) as server:
        at(server).ask(asked("hi"))
    assert "Authorization" not in server.requests[0].headers


def test_answers_keep_the_order_of_the_questions_and_the_bound_on_those_under_way():
    def slow_first(request, number):
        return completion(request.last.upper(), wait=0.15 if number % 3 == 0 else 0.02)

    texts = [f"question {number}" for number in range(20)]
    came = []
    with ChatServer(slow_first) as server:
        answers = at(server, concurrency=3).ask(asked(*texts), lambda place, answer: came.append((place, answer.text)))
    assert [answer.text for answer in answers] == [text.upper() for text in texts]
    assert server.most_under_way == 3
    assert sorted(came) == list(enumerate(text.upper() for text in texts))
    assert [place for place, _ in came] != list(range(20))


def test_requests_begin_no_faster_than_the_rate():
    with ChatServer(lambda request, number: completion("x")) as server:
        at(server, rate=40).ask(asked(*map(str, range(9))))
    times = [request.time for request in server.requests]
    assert times[-1] - times[0] >= 8 / 40 - 0.03


def test_no_questions_need_no_server():
    assert Endpoint("http://127.0.0.1:9/v1/chat/completions", "m").ask([]) == []


def test_it_can_be_asked_where_a_loop_is_running():
    async def notebook(server):
        return at(server).ask(asked("hi"))

    with ChatServer(lambda request, number: completion("x")) as server, ThreadPoolExecutor(1) as other:
        # in a thread, since tests of pages may have left a loop running in this one
        assert other.submit(lambda: asyncio.run(notebook(server))).result() == [Answer("x")]


# --- what goes wrong -----------------------------------------------------------------------------------------------

CHOICE = {"message": {"content": "x"}, "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("reply", "failure"),
    [
        (Reply(body=b"{not json"), "no chat completion"),
        (Reply(body=b"<html>welcome to the network</html>"), "no chat completion"),
        (Reply(body=b"\xff\xfe\x00"), "no chat completion"),
        (Reply(body=b"[" * 100_000), "no chat completion"),
        (Reply(body=b"null"), "no chat completion"),
        (Reply(body=b""), "no chat completion"),
        (Reply(body=json.dumps({"choices": []}).encode()), "no chat completion"),
        (Reply(body=json.dumps({"choices": ["x"]}).encode()), "no chat completion"),
        (Reply(body=json.dumps({"choices": {"0": CHOICE}}).encode()), "no chat completion"),
        (completion(None), "has no text"),  # a refusal comes so, in a field of its own
        (completion(["x"]), "has no text"),
        (completion("GOOD", finish="length"), "cut short (length)"),
        (completion("GOOD", finish="content_filter"), "cut short (content_filter)"),
        (Reply(body=b" " * (1 << 20) + b"{}"), "larger than"),
        (Reply(status=307, headers={"Location": "http://127.0.0.1:9/"}), "another address"),
        (Reply(status=400, body=b'{"error": {"message": "too long"}}'), "HTTP 400: too long"),
        (Reply(status=404, body=b'{"detail": "no model m"}'), "HTTP 404: no model m; check"),
        (Reply(status=401), "the key was refused"),
        (Reply(status=422, body=b"\x1b[2J" + b"x" * 900), "HTTP 422: \\x1b[2J"),
    ],
)
def test_what_trying_again_would_not_mend_is_asked_once(reply, failure):
    answer, count = only(reply)
    assert answer.text is None and failure in answer.failure and len(answer.failure) < 350
    assert count == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 529])
def test_later_means_later_but_not_for_ever(status):
    answer, count = only(Reply(status=status), attempts=4)
    assert answer == Answer(failure=f"HTTP {status}")
    assert count == 4


def test_an_answer_after_some_tries_counts():
    with ChatServer(lambda request, number: Reply(status=500) if number < 3 else completion("x")) as server:
        assert at(server).ask(asked("hi")) == [Answer("x")]
    assert len(server.requests) == 4


@pytest.mark.parametrize("style", ["seconds", "date"])
def test_the_pause_that_a_server_asks_for_is_kept_by_all_questions(style):
    def busy(request, number):
        if number:
            return completion("x", wait=0.2)
        # a date has whole seconds only: one 2 s ahead asks for 1 to 2 s
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        return Reply(status=429, headers={"Retry-After": "1" if style == "seconds" else date})

    with ChatServer(busy) as server:
        answers = at(server, concurrency=2).ask(asked("a", "b", "c"))
    first, beside_it, *others = sorted(request.time for request in server.requests)
    assert [answer.text for answer in answers] == ["x"] * 3 and len(others) == 2
    assert beside_it - first < 0.5 and all(0.9 <= other - first < 3 for other in others)


@pytest.mark.parametrize("wanted", ["86400", "Fri, 31 Dec 2199 23:59:59 GMT"])
def test_no_server_can_make_it_wait_for_long(wanted, monkeypatch):
    monkeypatch.setattr(module, "LONGEST_WAIT", 0.1)
    began = time.monotonic()
    answer, count = only(Reply(status=429, headers={"Retry-After": wanted}), attempts=3)
    assert answer.failure == "HTTP 429" and count == 3
    assert 0.2 <= time.monotonic() - began < 2


@pytest.mark.parametrize("wanted", ["-5", "soon", "nan", "1e9", "٣", ""])
def test_a_senseless_retry_after_is_ignored(wanted):
    assert module._seconds(wanted) is None


@pytest.mark.parametrize("reply", [completion("x", wait=30), completion("x", drip=0.05)], ids=["silent", "dripping"])
def test_an_answer_has_one_deadline_for_all_of_it(reply):
    began = time.monotonic()
    answer, count = only(reply, timeout=0.2, attempts=2)
    assert answer.failure == "no answer within 0.2 s" and count == 2
    assert time.monotonic() - began < 3


def test_nobody_there():
    (answer,) = Endpoint("http://127.0.0.1:9/v1/chat/completions", "m", attempts=2).ask(asked("hi"))
    assert answer.failure == "no connection (ConnectError)"


def test_after_many_failures_in_a_row_the_rest_is_not_asked():
    with ChatServer(lambda request, number: Reply(status=500)) as server:
        answers = at(server, attempts=2, concurrency=2).ask(asked(*map(str, range(100))))
    assert len(answers) == 100 and not any(answer.text for answer in answers)
    assert answers[-1].failure == "not asked after 8 failures in a row"
    assert 16 <= len(server.requests) <= 18


def test_a_failure_here_and_there_stops_nothing():
    with ChatServer(lambda request, number: Reply(status=500) if "odd" in request.last else completion("x")) as server:
        texts = [f"{number} {'odd' if number % 2 else 'even'}" for number in range(40)]
        answers = at(server, attempts=1, concurrency=1).ask(asked(*texts))
    assert [answer.text for answer in answers] == ["x", None] * 20


def test_a_refused_key_ends_it_at_once():
    with ChatServer(lambda request, number: Reply(status=401)) as server:
        answers = at(server, concurrency=2).ask(asked(*map(str, range(50))))
    assert {answer.failure for answer in answers} == {"HTTP 401: the key was refused; set UNTEACH_JUDGE_API_KEY"}
    assert len(server.requests) <= 2


def test_the_newer_name_of_the_limit_is_used_where_the_server_insists():
    def modern(request, number):
        if "max_tokens" in request.body:
            return Reply(status=400, body=b'{"error": {"message": "use max_completion_tokens instead"}}')
        return completion(str(request.body["max_completion_tokens"]))

    with ChatServer(modern) as server:
        answers = at(server, concurrency=4, longest=9).ask(asked(*"abcdefgh"))
    assert [answer.text for answer in answers] == ["9"] * 8
    assert len(server.requests) <= 12


def test_ctrl_c_ends_it_promptly():
    script = """if True:
        import signal, sys, threading
        from unteach.models.endpoint import Endpoint
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored for its jobs
        try:
            Endpoint(sys.argv[1], "m", timeout=600).ask([[{"role": "user", "content": str(n)}] for n in range(50)])
        except KeyboardInterrupt:
            sys.exit(f"left over: {[thread.name for thread in threading.enumerate()]}")
    """
    with ChatServer(lambda request, number: completion("x", wait=60)) as server:
        command = [sys.executable, "-c", script, chat_address(server.url)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            deadline = time.monotonic() + 30
            while len(server.requests) < 8 and time.monotonic() < deadline:
                time.sleep(0.02)
            began = time.monotonic()
            os.kill(process.pid, signal.SIGINT)
            said = process.communicate(timeout=20)[1]
        finally:
            process.kill()
    assert time.monotonic() - began < 3
    assert said.strip() == "left over: ['MainThread']" and len(server.requests) == 8


@pytest.mark.parametrize("ended", ["by Ctrl-C", "by its deadline"])
def test_a_look_up_of_a_name_that_hangs_holds_nothing_up(ended):
    script = """if True:
        import os, signal, socket, sys, threading, time
        from unteach.models.endpoint import Endpoint
        signal.signal(signal.SIGINT, signal.default_int_handler)
        asked = threading.Event()
        def hangs(*args, **named):
            asked.set()
            time.sleep(60)
        socket.getaddrinfo = hangs
        interrupted = sys.argv[1] == "by Ctrl-C"
        if interrupted:
            threading.Thread(target=lambda: asked.wait() and os.kill(os.getpid(), signal.SIGINT), daemon=True).start()
        limit = 600 if interrupted else 0.5
        try:
            answers = Endpoint("http://host/v1", "m", timeout=limit, attempts=1).ask([[{"role": "user"}]])
            print(answers[0].failure, flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        os._exit(0)
    """
    began = time.monotonic()
    process = subprocess.run([sys.executable, "-c", script, ended], capture_output=True, text=True, timeout=50)
    assert process.stdout.strip() == ("interrupted" if ended == "by Ctrl-C" else "no answer within 0.5 s")
    assert time.monotonic() - began < 20


# --- address and key -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://localhost:8000/v1", "http://localhost:8000/v1/chat/completions"),
        (" https://host/v1/ ", "https://host/v1/chat/completions"),
        ("https://host/x/chat/completions", "https://host/x/chat/completions"),
        ("http://[::1]:80/v1", "http://[::1]:80/v1/chat/completions"),
    ],
)
def test_addresses(url, address):
    assert chat_address(url) == address


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "--judge-url is missing; give"),
        ("  ", "--judge-url is missing; give"),
        ("localhost:8000", "not an http"),
        ("ftp://host/v1", "not an http"),
        ("http://", "not an http"),
        ("http://host:port/v1", "not an http"),
        ("http://host/\n/v1", "not an http"),
        ("https://[::1/v1", "not an http"),
        (f"https://me:{KEY}@host/v1", "holds a name or password"),
        (f"https://{KEY}@host/v1", "holds a name or password"),
        (f"https://host/v1?key={KEY}", "without what follows"),
        (f"https://host/v1#{KEY}", "without what follows"),
    ],
)
def test_other_addresses_are_refused_and_not_repeated(url, message):
    with pytest.raises(ConfigError, match=message) as caught:
        chat_address(url)
    assert KEY not in str(caught.value)


def test_the_key_is_ours_before_the_common_one(monkeypatch):
    for name in module.KEY_NAMES:
        monkeypatch.delenv(name, raising=False)
    assert key_from_environment() == ""
    monkeypatch.setenv("OPENAI_API_KEY", "common")
    assert key_from_environment() == "common"
    monkeypatch.setenv("UNTEACH_JUDGE_API_KEY", f" {KEY}\n")
    assert key_from_environment() == KEY
    monkeypatch.setenv("UNTEACH_JUDGE_API_KEY", "")
    assert key_from_environment() == ""
    monkeypatch.setenv("UNTEACH_JUDGE_API_KEY", f"{KEY}\n{KEY}")
    with pytest.raises(ConfigError, match="UNTEACH_JUDGE_API_KEY: holds a space") as caught:
        key_from_environment()
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("said", [KEY, f"no such key: {KEY}!", f"key {KEY[:10]}****", f"****{KEY[-9:]}"])
def test_the_key_is_in_no_message_though_the_server_repeats_it(said, caplog):
    caplog.set_level(logging.DEBUG)
    for body in (said.encode(), json.dumps({"error": {"message": said}}).encode()):
        for status in (400, 401, 404):
            answer, _ = only(Reply(status=status, body=body), key=KEY)
            shown = answer.failure + caplog.text + repr(Endpoint("u", "m", KEY))
            assert not any(KEY[start : start + 8] in shown for start in range(len(KEY) - 7))
