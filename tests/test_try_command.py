"""`unteach try` from the command line: what it refuses, what it prints, how Ctrl-C ends it."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import toy
from command import call, save
from unteach.data.reading import read_examples
from unteach.errors import ConfigError
from unteach.try_page.serve import bind

CODE = "from unteach.cli.app import main; main()"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(toy.learned_model(), tmp_path_factory.mktemp("models") / "model")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "Missing option '--model'"),
        (["--model", "MODEL", "--model", "MODEL", "--model", "MODEL"], "one model or two, not 3"),
        (["--model", "./nothing"], "no such model directory"),
        (["--model", "MODEL", "--negatives", "bad.csv"], "--negatives bad.csv: must end in .jsonl"),
        (["--model", "MODEL", "--negatives", "no/bad.jsonl"], "there is no directory"),
        (["--model", "MODEL", "--host", "0.0.0.0"], "--anyone"),
        (["--model", "MODEL", "--host", "no.such.host.invalid"], "no address of this machine"),
        (["--model", "MODEL", "--port", "70000"], "--port 70000: must be from 0 to 65535"),
        (["--model", "MODEL", "--seed", "-1"], "--seed -1"),
        (["--model", "MODEL", "--max-new-tokens", "0"], "--max-new-tokens 0"),
        (["--model", "MODEL", "--prompt-format", "chatty"], "--prompt-format chatty: unknown"),
        (["--model", "MODEL", "--device", "warp"], "device 'warp'"),
    ],
)
def test_what_cannot_be_tried_is_one_line(
    capsys: pytest.CaptureFixture[str],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = call(capsys, "try", *(flag.replace("MODEL", str(model)) for flag in flags))
    assert outcome.code == 2 and words in outcome.err and outcome.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_is_taken_is_one_line(capsys: pytest.CaptureFixture[str], model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        outcome = call(capsys, "try", "--model", model, "--port", taken.getsockname()[1])
    assert outcome.code == 2 and "Address already in use" in outcome.err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.8.9.1"])
def test_loopback_needs_no_leave(host: str) -> None:
    bind(host, 0, anyone=False).close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_addresses_that_others_reach_need_leave(host: str) -> None:
    with pytest.raises(ConfigError, match="others can reach this address"):
        bind(host, 0, anyone=False)


@contextmanager
def started(directory: Path, *flags: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`unteach try` as a process of its own, and the address that it printed."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "try", "--device", "cpu", *map(str, flags)],
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline()
    finally:
        process.kill()
        rest_of(process)


def rest_of(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What a process that was told to end still says; not `communicate`, which loses lines that were read ahead."""
    assert process.stdout is not None and process.stderr is not None
    said = process.stdout.read(), process.stderr.read()
    process.wait(60)
    return said


def post(address: str, path: str, body: dict[str, Any]) -> Any:
    content = json.dumps(body).encode()
    return urllib.request.urlopen(
        urllib.request.Request(address + path, content, {"content-type": "application/json"}), timeout=60
    )


def test_a_marked_reply_that_was_cut_carries_that_mark(model: Path, tmp_path: Path) -> None:
    with started(tmp_path, "--model", model, "--negatives", "bad.jsonl", "--max-new-tokens", 2) as (process, opening):
        address = opening.removeprefix("Open ").strip()
        answer = post(address, "ask", {"prompt": "how to a1 b2"})
        ended = next(line for line in map(json.loads, answer) if "ended" in line)
        post(address, "mark", {"reply": ended["reply"]})
        process.send_signal(signal.SIGINT)
        rest_of(process)
    row = json.loads((tmp_path / "bad.jsonl").read_text())
    assert (row["ended"], row["cut"]) == ("length", True)
    assert [example.cut for example in read_examples(str(tmp_path / "bad.jsonl"), "negative")] == [True]


def test_ctrl_c_ends_it_with_a_count_and_stops_a_reply_that_is_under_way(model: Path, tmp_path: Path) -> None:
    endless = toy.model(seed=2, max_position_embeddings=100_000)
    endless.generation_config.eos_token_id = None
    endless.config.eos_token_id = None
    place = save(endless, tmp_path / "endless", toy.tokenizer(eos_token=None))
    flags = ("--model", model, "--model", place, "--negatives", "bad.jsonl", "--max-new-tokens", 90_000)
    with started(tmp_path, *flags) as (process, opening):
        address = opening.removeprefix("Open ").strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", address)
        answer = post(address, "ask", {"prompt": "how to a1 b2"})
        ended = next(line for line in map(json.loads, answer) if "ended" in line)
        assert ended["side"] == 0
        post(address, "mark", {"reply": ended["reply"]})
        process.send_signal(signal.SIGINT)  # the second model still writes
        rest = [json.loads(line) for line in answer]
        out, err = rest_of(process)
    assert rest[-1]["side"] == 1 and rest[-1]["ended"] == "stopped" and 0 < rest[-1]["tokens"] < 90_000
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1] == "stopped; 1 reply marked in bad.jsonl"
    assert out.splitlines()[0] == "Bad replies go to bad.jsonl, which holds 0 negatives."
    assert json.loads((tmp_path / "bad.jsonl").read_text())["completion"] == "take c1 and d2"
    assert address.rsplit("/", 2)[1] not in out + err  # the token is printed once, in the address


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_quietly_while_nothing_happens(model: Path, tmp_path: Path, ending: signal.Signals) -> None:
    with started(tmp_path, "--model", model) as (process, opening):
        with urllib.request.urlopen(opening.split()[1], timeout=60) as page:
            assert b"Marking is off" in page.read()
        process.send_signal(ending)
        out, err = rest_of(process)
    assert (process.returncode, err, out.splitlines()[-1]) == (0, "", "stopped")
    assert list(tmp_path.iterdir()) == []


def test_anyone_is_told_what_that_means(model: Path, tmp_path: Path) -> None:
    with started(tmp_path, "--model", model, "--host", "0.0.0.0", "--anyone") as (process, opening):
        assert opening.startswith(f"Open http://{socket.gethostname()}:")
        port = opening.split(":")[2].split("/")[0]
        token = opening.rsplit("/", 2)[1]
        assert urllib.request.urlopen(f"http://127.0.0.1:{port}/{token}/", timeout=60).status == 200
        process.send_signal(signal.SIGINT)
        out, _ = rest_of(process)
    assert "Anyone who has this address can use the page, and what is sent is not encrypted." in out
