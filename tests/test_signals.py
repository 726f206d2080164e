"""Signals: one line and the right exit code at any moment, a grace time, and a second one that ends at once."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from command import Place, place
from unteach import signals
from unteach.study.runs import _Commands
from unteach.training.checkpoints import last_complete

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("toy"))


def start(*words: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )


def wait_for(process: "subprocess.Popen[str]", word: str) -> str:
    """Read what a process says until a line has this word; return all of it."""
    assert process.stderr
    read = ""
    for line in process.stderr:
        read += line
        if word in line:
            return read
    raise AssertionError(f"{word!r} was never said: {read}")


def told(process: "subprocess.Popen[str]") -> str:
    """Wait for the end, and return the lines that are neither progress nor the list of imports."""
    error = process.communicate(timeout=200)[1]
    return "".join(line for line in error.splitlines(keepends=True) if line.startswith(("Inter", "Err", "Trace")))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "module"),
    [
        (signal.SIGINT, "typer.models"),
        (signal.SIGINT, "rich.console"),
        (signal.SIGTERM, "yaml"),
        (signal.SIGINT, "torch._C"),
        (signal.SIGINT, "transformers.utils"),
        (signal.SIGHUP, "torch.nn"),
    ],
)
def test_during_imports_it_is_one_line(number: int, module: str, here: Place, tmp_path: Path) -> None:
    process = start("-X", "importtime", "-m", "unteach", *here.quick(tmp_path / "out"))
    wait_for(process, module)
    process.send_signal(number)
    assert told(process) == "Interrupted: stopped\n"
    assert process.returncode == 128 + number and not (tmp_path / "out").exists()


@pytest.mark.slow
def test_sigterm_in_training_writes_a_checkpoint(here: Place, tmp_path: Path) -> None:
    process = start("-m", "unteach", *here.quick(tmp_path / "out", max_steps=3000, save_steps=5000, stopping=None))
    wait_for(process, "unlearning begins")
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    said = told(process)
    assert said.startswith("Interrupted: stopped at step ") and said.count("\n") == 1 and "--resume" in said
    assert process.returncode == 143
    checkpoint = last_complete(tmp_path / "out" / "checkpoints")
    assert checkpoint is not None and f"step {checkpoint.name.removeprefix('checkpoint-')}," in said


@pytest.mark.slow
def test_a_baseline_ends_with_the_code_of_sigterm(here: Place, tmp_path: Path) -> None:
    words = ["--model", here.model, "--forget", here.forget, "--retain", here.retain, "--output", tmp_path / "out"]
    process = start("-m", "unteach", "baseline", "finetune", *words, "--device", "cpu", "--max-new-tokens", "6")
    wait_for(process, "begins")
    process.send_signal(signal.SIGTERM)
    assert told(process).startswith("Interrupted: stopped") and process.returncode == 143


@pytest.mark.slow
def test_a_study_passes_it_on_and_its_runs_write_checkpoints(here: Place, tmp_path: Path) -> None:
    """The signal goes to the study alone, as from `kill`; a terminal or Slurm would send it to all."""
    shared = {"model": str(here.model), "forget": [str(here.forget)], "retain": [str(here.retain)], "device": "cpu"}
    shared |= {"evaluation_prompts": 4, "max_new_tokens": 6, "judge": ["repeats"]}
    arm = {"method": "ga", "max_steps": 3000, "save_steps": 5000, "stopping": False}
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"shared": shared, "arms": {"ga": arm}}))
    process = start("-m", "unteach", "study", "--config", path, "--output", tmp_path / "out")
    log = tmp_path / "out" / "ga" / "seed-0.log"
    end = time.monotonic() + 300
    while not (log.exists() and "unlearning begins" in log.read_text()):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    assert told(process) == "Interrupted: stopped; the same command goes on with what is left\n"
    assert process.returncode == 143
    assert "checkpoint written" in log.read_text()
    assert last_complete(tmp_path / "out" / "ga" / "seed-0" / "checkpoints")


WAITS = """
import sys, time
from unteach import signals
signals.GRACE_SECONDS = float(sys.argv[1])
with signals.handled(program=True), signals.taking(lambda number: True):
    print("ready", file=sys.stderr, flush=True)
    while True:
        time.sleep(0.05)
"""
"""A program whose stage takes the signal and never comes to its end."""


def test_a_second_signal_ends_it_at_once_but_not_the_same_one_twice() -> None:
    process = start("-c", WAITS, 60)
    wait_for(process, "ready")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    process.send_signal(signal.SIGTERM)  # a scheduler sends it to all processes, and a study passes it on
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2 * signals.SAME_SECONDS)
    process.send_signal(signal.SIGINT)
    assert told(process) == "Interrupted: stopped at once\n" and process.returncode == 143


def test_the_grace_time_ends_what_does_not_end() -> None:
    process = start("-c", WAITS, 1)
    wait_for(process, "ready")
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    assert told(process).startswith("Interrupted: not done 1 s after the signal")
    assert process.returncode == 143 and time.monotonic() - began < 5
    assert signals.GRACE_SECONDS < 30


def test_ctrl_c_has_no_grace_time() -> None:
    process = start("-c", WAITS, 0.5)
    wait_for(process, "ready")
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(2)
    process.send_signal(signal.SIGINT)
    assert told(process) == "Interrupted: stopped at once\n" and process.returncode == 130


def test_signals_that_are_ignored_or_handled_elsewhere_stay_so() -> None:
    def ours(number: int, frame: object) -> None: ...

    before = {number: signal.getsignal(number) for number in signals.NUMBERS}
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, ours)
        with signals.handled():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN and signal.getsignal(signal.SIGTERM) is ours
        with pytest.raises(KeyboardInterrupt), signals.handled():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == before[signal.SIGHUP] and signals.exit_code() == 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_command_that_starts_while_the_study_ends_is_stopped(tmp_path: Path) -> None:
    commands = _Commands()
    commands.stop(signal.SIGTERM)
    with (tmp_path / "log").open("wb") as log:
        assert commands.call([sys.executable, "-c", "import time; time.sleep(60)"], log, dict(os.environ)) == -15
