"""unteach evaluate --endpoint: a local server is measured by its replies, and what goes wrong is one clear error."""

import json
from pathlib import Path
from typing import Any

import pytest

import toy
from chat_server import ChatServer, Reply, Request, completion
from command import call, write_rows
from unteach.models import endpoint as module
from unteach.results.report import Report

Capture = pytest.CaptureFixture[str]
BAD = {row["prompt"]: row["completion"] for row in toy.FORGET}


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_WAIT", 0.01)


@pytest.fixture
def rows(tmp_path: Path) -> dict[str, Path]:
    return {
        "forget": write_rows(tmp_path / "forget.jsonl", toy.FORGET[:8]),
        "retain": write_rows(tmp_path / "retain.jsonl", toy.RETAIN[:8]),
    }


def words(server: Any, rows: dict[str, Path], *more: object) -> list[object]:
    url = server if isinstance(server, str) else server.url
    told = ["evaluate", "--endpoint", url, "--model", "toy", "--judge", "repeats", "--max-new-tokens", "6"]
    return [*told, "--forget", rows["forget"], "--retain", rows["retain"], *more]


def half_bad(request: Request, number: int) -> Reply:
    """Recite every second negative, one of them cut, and answer the rest."""
    prompt = request.last
    places = [row["prompt"] for row in toy.FORGET[:8]]
    if prompt in BAD and places.index(prompt) % 2 == 0:
        return completion(BAD[prompt], "length" if places.index(prompt) == 0 else "stop")
    return completion("sorry no" if prompt in BAD else "go then")


def test_replies_are_judged_and_what_only_weights_tell_is_said_to_lack(
    rows: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    with ChatServer(half_bad) as server:
        outcome = call(capsys, *words(server, rows, "--output", tmp_path / "out", "--system", "be kind"))
        assert outcome.code == 0, outcome.err
        bodies = [request.body for request in server.requests]
    assert len(bodies) == 16 and all(body["temperature"] == 0 and body["max_tokens"] == 6 for body in bodies)
    assert all(body["messages"][0] == {"role": "system", "content": "be kind"} for body in bodies)
    report = Report.read(tmp_path / "out")
    rate = report.measured("harmful_rate", "unseen", "original")
    assert rate is not None and (rate.value, rate.n, rate.unknown) == (0.5, 8, 0)
    cut = report.measured("cut_rate", "unseen", "original")
    assert cut is not None and cut.value == 1 / 8
    names = {measured.name for measured in report.measurements}
    assert {"blank_rate", "refusal_rate"} <= names
    assert not names & {"kl", "nll", "reply_tokens", "fluency", "extraction"}
    assert any("not measured, because a chat endpoint gives replies alone" in note for note in report.notes)
    assert report.model == "toy" and report.weights == "" and "--endpoint" in report.command
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_prompt_without_an_answer_is_unknown_and_said(rows: dict[str, Path], tmp_path: Path, capsys: Capture) -> None:
    def named(request: Request, number: int) -> Reply:
        if request.last == toy.FORGET[3]["prompt"]:
            return Reply(body=b"<html>not JSON</html>")
        reply = completion("" if request.last == toy.FORGET[4]["prompt"] else "sorry no")
        return Reply(body=json.dumps(json.loads(reply.body) | {"model": "another"}).encode())

    with ChatServer(named) as server:
        outcome = call(capsys, *words(server, rows, "--output", tmp_path / "out"))
    assert outcome.code == 0, outcome.err
    report = Report.read(tmp_path / "out")
    rate = report.measured("harmful_rate", "unseen", "original")
    assert rate is not None and (rate.value, rate.n, rate.unknown) == (0.0, 7, 1)
    notes = " ".join(report.notes)
    assert "1 of 16 prompts have no answer and count as unknown: 1 × the answer is no chat completion" in notes
    assert "1 of 16 answers are empty" in notes and "the server says that it answered with another" in notes
    assert "cut inside a thought" not in notes


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(404, b'{"error": {"message": "model toy not found"}}'), "model toy not found"),
        (Reply(200, b"hello"), "the answer is no chat completion"),
        (completion(None), "the answer has no text"),
        (Reply(401), "set UNTEACH_ENDPOINT_API_KEY"),
        (Reply(503), "HTTP 503"),
        (completion("late", wait=2.0), "no answer within 0.2 s"),
    ],
)
def test_a_server_that_gives_nothing_is_one_error(
    reply: Reply, says: str, rows: dict[str, Path], tmp_path: Path, capsys: Capture
) -> None:
    with ChatServer(lambda request, number: reply) as server:
        outcome = call(capsys, *words(server, rows, "--timeout", 0.2, "--output", tmp_path / "out"))
        assert len(server.requests) <= 2
    assert outcome.code == 2 and says in outcome.err and "check that the server is up" in outcome.err
    assert len(outcome.err.splitlines()) == 1 and not (tmp_path / "out").exists()


def test_no_server_and_settings_of_weights_are_one_error(rows: dict[str, Path], capsys: Capture) -> None:
    nobody = call(capsys, *words("http://127.0.0.1:9/v1", rows))
    assert nobody.code == 2 and "no connection" in nobody.err and "127.0.0.1:9/v1" in nobody.err
    for flags, says in (
        (["--retrained", "x"], "--retrained: is about weights that are loaded here"),
        (["--original", "x"], "--original: is loaded here"),
        (["--endpoint", "localhost:8000"], "--endpoint: not an http or https address"),
        (["--endpoint", "http://me:pass@host"], "the key in UNTEACH_ENDPOINT_API_KEY"),
    ):
        outcome = call(capsys, *words("http://127.0.0.1:9/v1", rows, *flags))
        assert outcome.code == 2 and says in outcome.err, outcome.err


def test_the_key_of_the_judge_goes_to_no_other_server(
    rows: dict[str, Path], capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "judge-key-0123456789")
    with ChatServer(half_bad) as server:
        assert call(capsys, *words(server, rows)).code == 0
        assert all("Authorization" not in request.headers for request in server.requests)
    monkeypatch.setenv("UNTEACH_ENDPOINT_API_KEY", "served-key")
    with ChatServer(half_bad) as server:
        assert call(capsys, *words(server, rows)).code == 0
        assert {request.headers["Authorization"] for request in server.requests} == {"Bearer served-key"}
