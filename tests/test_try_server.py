"""The server of `unteach try`: who may use it, what it streams, how it is bounded, and what a mark writes."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from trypage import TOKEN, TOO_LONG, Parrot, serving, until
from unteach.try_page import connection
from unteach.try_page.app import MAX_NOTE, MAX_PROMPT, TryPage
from unteach.try_page.guard import MAX_BODY, Guard
from unteach.try_page.negatives import NegativesFile
from unteach.try_page.worker import MAX_WAITING

BASE = "http://127.0.0.1:8000"
HOSTILE = "<script>alert(1)</script>\u202e \x1b[31m \u200b<img src=x onerror=alert(2)>"


class Client(TestClient):
    """A browser's requests, without the browser."""

    def lines(self, **said: Any) -> list[dict[str, Any]]:
        answer = self.post(f"/{TOKEN}/ask", json={"prompt": "hello"} | said)
        assert answer.status_code == 200, answer.text
        return [json.loads(line) for line in answer.text.splitlines()]

    def ends(self, **said: Any) -> list[dict[str, Any]]:
        """The last line of each side, in the order of sides."""
        ends = [line for line in self.lines(**said) if "ended" in line]
        return sorted(ends, key=lambda line: line["side"])

    def mark(self, reply: Any, note: str = "") -> Any:
        return self.post(f"/{TOKEN}/mark", json={"reply": reply, "note": note})


@contextmanager
def client(*models: Parrot, file: Path | None = None, max_waiting: int = MAX_WAITING) -> Iterator[Client]:
    page = TryPage(models or (Parrot(),), NegativesFile(file) if file else None, max_waiting=max_waiting)
    guard = Guard(page.app(), TOKEN, {"127.0.0.1:8000", "localhost:8000"})
    with Client(guard, base_url=BASE) as made:
        yield made


def text_of(lines: list[dict[str, Any]], side: int) -> str:
    """What the page shows of a side after these lines."""
    shown = ""
    for line in lines:
        if line.get("side") == side:
            shown = line.get("text", shown) + line.get("add", "")
    return shown


# Who may use it


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/wrong/",
        "/wrong",
        f"/{TOKEN}x",
        f"/{TOKEN}x/",
        "/static/try.js",
        "/docs",
        "/é/",
        f"//{TOKEN}/",
        f"//{TOKEN}",
        "/ask",
        f"/{TOKEN[:-1]}",
        f"/{TOKEN[:-1]}/",
    ],
)
def test_without_the_token_there_is_nothing(path: str) -> None:
    with client() as browser:
        answer = browser.get(path, follow_redirects=False)
        assert answer.status_code == 403 and TOKEN not in answer.text
        assert "location" not in answer.headers


def test_the_last_slash_of_the_address_may_be_missing() -> None:
    with client() as browser:
        answer = browser.get(f"/{TOKEN}", follow_redirects=False)
        assert answer.status_code == 307 and answer.headers["location"] == f"/{TOKEN}/"
        assert answer.headers["cache-control"] == "no-store"
        assert "<h1>unteach <b>try</b></h1>" in browser.get(f"/{TOKEN}").text
        away = {"sec-fetch-site": "cross-site", "sec-fetch-dest": "iframe"}
        assert browser.get(f"/{TOKEN}", headers=away, follow_redirects=False).status_code == 403


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost:8000", 200),
        ("LOCALHOST:8000", 200),
        ("evil.example:8000", 421),
        ("127.0.0.1:9", 421),
        ("127.0.0.1", 421),
        ("", 421),
    ],
)
def test_a_name_that_someone_pointed_here_is_refused(host: str, status: int) -> None:
    with client() as browser:
        assert browser.get(f"/{TOKEN}/", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": BASE, "sec-fetch-site": "same-origin"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://127.0.0.1:9"}, 403),
        ({"origin": "https://127.0.0.1:8000"}, 403),
        ({"origin": "null"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"origin": BASE, "sec-fetch-site": "cross-site"}, 403),
    ],
)
@pytest.mark.parametrize("path", ["ask", "stop", "mark", "undo"])
def test_requests_of_other_pages_change_nothing(
    headers: dict[str, str], status: int, path: str, tmp_path: Path
) -> None:
    parrot = Parrot()
    with client(parrot, file=tmp_path / "bad.jsonl") as browser:
        body = {"prompt": "hello", "ask": 1, "reply": 1, "mark": 1}
        answer = browser.post(f"/{TOKEN}/{path}", json=body, headers=headers)
        assert (answer.status_code == 403) == (status == 403)
        assert len(parrot.asked) == (path == "ask" and status == 200)


def test_other_pages_may_link_to_the_page_and_no_more() -> None:
    away = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    with client() as browser:
        assert browser.get(f"/{TOKEN}/", headers=away | {"sec-fetch-dest": "document"}).status_code == 200
        assert browser.get(f"/{TOKEN}/", headers=away | {"sec-fetch-dest": "iframe"}).status_code == 403
        assert browser.get(f"/{TOKEN}/static/try.js", headers=away).status_code == 403
        assert browser.get(f"/{TOKEN}/marks", headers=away).status_code == 403


def test_any_address_of_the_machine_goes_by_numbers_but_not_by_names() -> None:
    guard = Guard(TryPage((Parrot(),), None).app(), TOKEN, set(), any_address=True)
    with TestClient(guard, base_url=BASE) as browser:
        for host, status in [("10.1.2.3:8000", 200), ("[::1]:8000", 200), ("evil.example:8000", 421), ("x", 421)]:
            assert browser.get(f"/{TOKEN}/", headers={"host": host}).status_code == status, host


@pytest.mark.parametrize("path", ["/", "/static/try.js", "/static/nothing", "/marks", "/nothing", "/ask"])
def test_every_answer_carries_the_policy(path: str) -> None:
    with client() as browser:
        for answer in (browser.get(f"/{TOKEN}{path}"), browser.get(path)):
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers.get_list("cache-control") == ["no-store"]
            assert not any(name.startswith("access-control") for name in answer.headers)


def test_files_outside_the_static_ones_cannot_be_had() -> None:
    with client() as browser:
        for path in ("../app.py", "%2e%2e/app.py", "..%2fapp.py", "", "%00"):
            assert browser.get(f"/{TOKEN}/static/{path}").status_code in (403, 404, 405), path


def test_the_page_has_no_script_or_style_of_its_own_and_names_are_inert() -> None:
    with client(Parrot(name=HOSTILE, reminder=HOSTILE)) as browser:
        page = browser.get(f"/{TOKEN}/").text
    assert page.count("<script") == 1 and '<script src="static/try.js" defer></script>' in page
    assert "<style" not in page and " on" not in [part[:3] for part in page.split("<")[1:]] and "style=" not in page
    assert "&lt;script&gt;alert(1)" in page and "\\u202e \\x1b[31m" in page
    assert not set("\u202e\x1b\u200b") & set(page)


# What it streams


def test_both_replies_arrive_and_the_lines_add_up() -> None:
    with client(Parrot("one two three"), Parrot("uno due", name="b")) as browser:
        lines = browser.lines()
    assert (text_of(lines, 0), text_of(lines, 1)) == ("one two three", "uno due")
    ends = [line for line in lines if "ended" in line]
    assert sorted((end["side"], end["ended"], end["tokens"]) for end in ends) == [(0, "end", 3), (1, "end", 2)]
    assert lines[0].keys() == {"ask", "ahead", "prompt"}


def test_text_grows_line_by_line_while_the_model_writes() -> None:
    gate = threading.Event()
    with serving([Parrot("a b", gate=gate)]) as served:
        connection = served.send(request("ask", {"prompt": "p"}))
        until(lambda: served.page.models[0].asked)  # type: ignore[attr-defined]
        early = connection.recv(65536)
        while b'"ahead"' not in early:
            early += connection.recv(65536)
        assert b'"ended"' not in early
        gate.set()
        late = read_all(connection)
    assert b'"ended": "end"' in late and b"a b" in (early + late)


def test_what_is_hostile_arrives_visible() -> None:
    with client(Parrot(HOSTILE)) as browser:
        shown = text_of(browser.lines(), 0)
    assert "\\u202e" in shown and "\\x1b[31m" in shown and "\\u200b" in shown
    assert not set("\u202e\x1b\u200b") & set(shown)


def test_a_reply_of_megabytes_is_cut_on_the_page_and_whole_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    with client(Parrot("x" * 3_000_000), file=file) as browser:
        lines = browser.lines()
        assert sum(len(json.dumps(line)) for line in lines) < 60_000
        assert text_of(lines, 0).endswith("… (2,980,000 more characters)")
        assert browser.mark(lines[-1]["reply"]).status_code == 200
    assert len(json.loads(file.read_text())["completion"]) == 3_000_000


def test_how_the_models_are_asked() -> None:
    plain, guided = Parrot(), Parrot(reminder="Mind it.")
    with client(plain, guided) as browser:
        browser.lines(prompt=" p ", temperature=0.5, seed=9)
        browser.lines(guided=[True, False])
    first, second = guided.asked
    assert first == {"prompt": " p ", "guided": True, "temperature": 0.5, "seed": 9}
    assert (second["guided"], second["temperature"], second["seed"]) == (False, 0, 0)
    assert [one["guided"] for one in plain.asked] == [False, False]  # it has no reminder to put in


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        (TOO_LONG, "shorten it"),
        (RuntimeError("bug \x1b[31m"), "the model failed (RuntimeError: bug \\x1b[31m)"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_side_that_fails_says_why_and_the_other_goes_on(fails: Exception, said: str) -> None:
    with client(Parrot(fails=fails), Parrot("fine")) as browser:
        for _ in range(2):  # and the next prompt is answered as well
            first, second = browser.ends()
            assert said in first["error"] and "reply" not in first
            assert second["ended"] == "end" and second["reply"]


# Bounds


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"prompt": ""}, "empty"),
        ({"prompt": " \n"}, "empty"),
        ({"prompt": 3}, "empty"),
        ({"prompt": "x" * (MAX_PROMPT + 1)}, "20,001 characters; 20,000 are the most"),
        ({"prompt": "\ud800"}, "half a character"),
        ({"temperature": -1}, "temperature must be a number from 0 to 5"),
        ({"temperature": 6}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"seed": -1}, "seed must be a whole number from 0 to 2147483647"),
        ({"seed": 2**31}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"guided": "yes"}, "guided"),
        ({"guided": [1]}, "guided"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_reason(said: dict[str, Any], words: str) -> None:
    parrot = Parrot()
    with client(parrot) as browser:
        body = json.dumps({"prompt": "p"} | said).encode()
        answer = browser.post(f"/{TOKEN}/ask", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 422 and words in answer.json()["error"]
    assert parrot.asked == []


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"temperature": NaN, "prompt": "p"}', "application/json", 422),
        (b'{"prompt": "p"}', "text/plain", 415),
        (b'{"prompt": "p"}', "application/x-www-form-urlencoded", 415),
        (b"x" * (MAX_BODY + 1), "application/json", 413),
    ],
)
def test_bodies_that_are_no_small_json_object_are_refused(content: bytes, kind: str, status: int) -> None:
    with client() as browser:
        answer = browser.post(f"/{TOKEN}/ask", content=content, headers={"content-type": kind})
        assert answer.status_code == status


def test_a_body_that_says_it_is_too_long_is_not_waited_for() -> None:
    with serving([Parrot()]) as served:
        head = request("ask", {}).replace(b"Content-Length: 2", b"Content-Length: 99999999").removesuffix(b"{}")
        assert read_all(served.send(head)).startswith(b"HTTP/1.1 413")


def test_a_body_that_does_not_say_how_long_it_is_is_counted() -> None:
    with client() as browser:
        parts = (b"x" * 1000 for _ in range(MAX_BODY // 1000 + 1))
        answer = browser.post(f"/{TOKEN}/ask", content=parts, headers={"content-type": "application/json"})
        assert answer.status_code == 413


@pytest.mark.parametrize("number", [None, "1", [], {}, 7, 1.0, True])
def test_numbers_that_mean_nothing_are_refused_or_ignored(number: Any, tmp_path: Path) -> None:
    with client(file=tmp_path / "bad.jsonl") as browser:
        assert browser.mark(number).status_code == 410
        assert browser.post(f"/{TOKEN}/undo", json={"mark": number}).status_code == 410
        assert browser.post(f"/{TOKEN}/stop", json={"ask": number}).status_code == 200


def test_a_full_line_is_refused_and_moves_on(tmp_path: Path) -> None:
    gate = threading.Event()
    parrot = Parrot("a b c", gate=gate)
    with serving([parrot], max_waiting=1) as served:
        first = served.send(request("ask", {"prompt": "1"}))
        until(lambda: parrot.asked)
        second = served.send(request("ask", {"prompt": "2"}))
        until(lambda: served.page.worker._waiting.full())
        refused = read_all(served.send(request("ask", {"prompt": "3"})))
        assert refused.startswith(b"HTTP/1.1 503") and b"Too many prompts are waiting" in refused
        assert b"retry-after: 5" in refused
        gate.set()
        assert b'"ended": "end"' in read_all(first)
        assert b'"ahead": 1' in (waited := read_all(second)) and b'"ended": "end"' in waited
    assert [one["prompt"] for one in parrot.asked] == ["1", "2"]


def test_a_reader_who_leaves_stops_the_reply_and_the_next_is_answered() -> None:
    gate = threading.Event()
    parrot = Parrot("a b c", gate=gate)
    with serving([parrot]) as served:
        leaving = served.send(request("ask", {"prompt": "1"}))
        until(lambda: parrot.asked)
        leaving.close()
        until(lambda: parrot.stops == 1)
        gate.set()
        assert b'"ended": "end"' in read_all(served.send(request("ask", {"prompt": "2"})))


def test_stop_ends_a_reply_where_it_is_and_it_can_still_be_marked(tmp_path: Path) -> None:
    gate = threading.Event()
    parrot, quick = Parrot("a b c", gate=gate), Parrot("quick")
    file = NegativesFile(tmp_path / "bad.jsonl")
    with serving([parrot, quick], file) as served:
        answer = served.send(request("ask", {"prompt": "1"}))
        until(lambda: parrot.asked)
        served.send(request("stop", {"ask": 1}))
        said = read_all(answer)
    assert b'"ended": "stopped"' in said and b'"blank": true' in said and parrot.stops == 1


def test_closing_stops_what_runs_and_what_waits() -> None:
    parrot = Parrot(gate=threading.Event())
    with serving([parrot]) as served:
        running, waiting = (served.send(request("ask", {"prompt": text})) for text in "12")
        until(lambda: served.page.worker._waiting.qsize() == 1 and parrot.asked)
        served.page.worker.close()
        assert b'"ended": "stopped"' in read_all(running) and b'"ended": "stopped"' in read_all(waiting)
        assert read_all(served.send(request("ask", {"prompt": "3"}))).startswith(b"HTTP/1.1 503")


# Marks


def test_a_mark_writes_what_the_model_said_and_how_it_was_asked(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    with client(Parrot(HOSTILE), Parrot(name="guided", reminder="r"), file=file) as browser:
        first, second = browser.ends(prompt="p\u202e", temperature=0.7, seed=5)
        answer = browser.mark(first["reply"], note=" why ").json()
        assert (answer["negatives"], answer["marked"], answer["broken"]) == (1, 1, 0)
        assert "\\u202e" in answer["last"][0]["prompt"] and "<script>" in answer["last"][0]["completion"]
        assert browser.mark(second["reply"]).json()["last"][0]["model"] == "guided, guided"
    one, two = (json.loads(line) for line in file.read_text().splitlines())
    age = datetime.now().astimezone() - datetime.fromisoformat(one.pop("time"))
    assert 0 <= age.total_seconds() < 60
    expected = {"prompt": "p\u202e", "completion": HOSTILE, "label": False, "model": "./parrot", "temperature": 0.7}
    assert one == expected | {"seed": 5, "ended": "end", "note": "why"}
    assert (two["model"], two["guided"], two["note"]) == ("guided", True, "")


def test_a_reply_is_marked_once_and_may_be_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    with client(file=file) as browser:
        (end,) = browser.ends()
        mark = browser.mark(end["reply"]).json()["mark"]
        again = browser.mark(browser.ends()[0]["reply"])  # greedy: the same reply, asked for a second time
        assert again.status_code == 409 and "already" in again.json()["error"]
        undone = browser.post(f"/{TOKEN}/undo", json={"mark": mark}).json()
        assert (undone["negatives"], undone["marked"], undone["last"]) == (0, 0, [])
        assert file.read_text() == ""
        assert browser.post(f"/{TOKEN}/undo", json={"mark": mark}).status_code == 410
        assert browser.mark(end["reply"]).status_code == 200


def test_all_marks_of_the_session_are_listed_and_each_can_be_taken_back(tmp_path: Path) -> None:
    with client(file=tmp_path / "bad.jsonl") as browser:
        states = [browser.mark(browser.ends(prompt=f"p{n}")[0]["reply"]).json() for n in range(8)]
        assert [one["prompt"] for one in states[-1]["last"]] == [f"p{n}" for n in reversed(range(8))]
        for one in states[-1]["last"]:
            assert browser.post(f"/{TOKEN}/undo", json={"mark": one["mark"]}).status_code == 200
    assert (tmp_path / "bad.jsonl").read_text() == ""


def test_a_blank_reply_cannot_be_marked() -> None:
    with client(Parrot("")) as browser:
        (end,) = browser.ends()
    assert end["blank"] and "reply" not in end


def test_without_a_file_marking_is_off(tmp_path: Path) -> None:
    with client() as browser:
        (end,) = browser.ends()
        for answer in (browser.mark(end["reply"]), browser.get(f"/{TOKEN}/marks")):
            assert answer.status_code == 409 and "--negatives FILE" in answer.json()["error"]
        assert "unteach try --model ./parrot --negatives bad.jsonl" in browser.get(f"/{TOKEN}/").text


def test_a_note_has_a_limit_and_half_characters_in_it_do_no_harm(tmp_path: Path) -> None:
    with client(file=tmp_path / "bad.jsonl") as browser:
        (end,) = browser.ends()
        assert browser.mark(end["reply"], note="x" * (MAX_NOTE + 1)).status_code == 422
        body = json.dumps({"reply": end["reply"], "note": "\ud800"}).encode()
        answer = browser.post(f"/{TOKEN}/mark", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 200 and answer.json()["last"][0]["note"] == "?"


def test_a_file_that_breaks_meanwhile_is_told(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    with client(file=file) as browser:
        (end,) = browser.ends()
        file.mkdir()
        answer = browser.mark(end["reply"])
        assert answer.status_code == 500 and "bad.jsonl: cannot be written" in answer.json()["error"]


def test_the_next_command_names_models_and_files_as_the_shell_wants_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "unlearned").mkdir()
    page = TryPage([Parrot(name="my model")], NegativesFile("bad ones.jsonl"))
    assert page.next_command() == ("unteach run --model 'my model' --forget 'bad ones.jsonl' --output unlearned-2")


def test_others_marks_and_broken_lines_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    with client(file=file) as browser:
        assert browser.get(f"/{TOKEN}/marks").json()["negatives"] == 0 and not file.exists()
        file.write_text('{"prompt": "p", "completion": "r", "label": false}\nbroken\n')
        state = browser.get(f"/{TOKEN}/marks").json()
        assert (state["negatives"], state["broken"], state["marked"]) == (1, 1, 0)


def request(path: str, body: dict[str, Any]) -> bytes:
    """A POST as it goes over the wire, to a server of `serving`."""
    content = json.dumps(body).encode()
    return (
        f"POST /{TOKEN}/{path} HTTP/1.1\r\nHost: {{host}}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    ).encode() + content


def read_all(connection: Any) -> bytes:
    said = b""
    while part := connection.recv(65536):
        said += part
    connection.close()
    return said


# Who keeps the owner out


def answer_of(connection: Any) -> bytes:
    """Read until the server closes, or the header is over."""
    found = b""
    while b"\r\n\r\n" not in found and (part := connection.recv(65536)):
        found += part
    return found


@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"G",
        b"GET / HTTP/1.1\r\nHost: {host}\r\n",
        b"POST /wrong/ask HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n{",
        b"GET /wrong/ HTTP/1.1\r\nHost: {host}\r\n\r\n",
    ],
)
def test_requests_that_never_come_do_not_keep_the_owner_out(half: bytes) -> None:
    with serving([Parrot()]) as served:
        others = [served.send(half) for _ in range(100)]
        for _ in range(3):
            owner = served.send(f"GET /{TOKEN}/ HTTP/1.1\r\nHost: {{host}}\r\n\r\n".encode())
            assert answer_of(owner).startswith(b"HTTP/1.1 200")
            owner.close()
        for other in others:
            other.close()


def test_a_header_has_a_time_limit_even_if_it_trickles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.5)
    with serving([Parrot()]) as served:
        slow = served.send(b"GET / HTTP/1.1\r\n")
        began = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - began < 10:
                slow.sendall(b"X-A: b\r\n")
                time.sleep(0.1)
        assert time.monotonic() - began < 5
        again = served.send(f"GET /{TOKEN}/ HTTP/1.1\r\nHost: {{host}}\r\n\r\n".encode())
        assert answer_of(again).startswith(b"HTTP/1.1 200")
        again.sendall(b"GET / HT")  # a second request on the same connection, half sent
        again.settimeout(5)
        while again.recv(65536):
            pass


def test_who_has_no_token_is_not_kept_connected() -> None:
    with client() as browser:
        assert browser.get("/wrong/").headers["connection"] == "close"
        assert "connection" not in browser.get(f"/{TOKEN}/").headers
