"""Progress without a terminal: plain, inert lines on standard error, few of them, none where it was switched off."""

import io
import re
import sys

import pytest

import toy
from command import call, place
from unteach import progress
from unteach.cli.command import Command, ModelCommand
from unteach.errors import TrainingError
from unteach.progress import Lines, track


class Clock:
    """Seconds that pass when told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Nothing else computes on this machine."""
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))


def test_a_shared_machine_is_named_where_the_stage_says_how_far_it_is(capsys, monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {0, 1})
    clock = Clock()
    lines = Lines("training", clock)
    for load in (2.9, 3.0):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        clock.now += 30
        lines.report(1, 2, "KL 0.01")
    said = capsys.readouterr().err.splitlines()
    assert said[1:] == ["training 1/2  KL 0.01", "training 1/2  KL 0.01  (shared machine: load 3.0 on 2 cores)"]


def test_a_stage_says_its_start_and_end_and_where_it_is_every_half_minute(capsys):
    clock = Clock()
    lines = Lines("evaluating original: unseen", clock)
    for done in range(1, 201):
        clock.now += 0.5
        lines.report(done, 200)
    lines.end("done")
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "evaluating original: unseen begins",
        "evaluating original: unseen 60/200  about 70 s left",
        "evaluating original: unseen 120/200  about 40 s left",
        "evaluating original: unseen 180/200  about 10 s left",
        "evaluating original: unseen done after 100.0 s",
    ]


def test_the_time_left_is_that_of_this_start(capsys):
    clock = Clock()
    lines = Lines("unlearning", clock)
    for step in (500, 501, 502):  # resumed at step 500
        clock.now += 30
        lines.report(step, 800)
    said = capsys.readouterr().err.splitlines()
    assert said[1:] == ["unlearning 500/800"] + [
        f"unlearning {step}/800  about {minutes} min left" for step, minutes in ((501, 150), (502, 149))
    ]


def test_track_speaks_in_lines_where_no_terminal_is(capsys):
    with track("growing") as report:
        report(1, 2)
    assert re.fullmatch(r"growing begins\ngrowing done after \d+\.\d s\n", capsys.readouterr().err)
    with pytest.raises(KeyboardInterrupt), track("growing"):
        raise KeyboardInterrupt
    assert "growing broken off after" in capsys.readouterr().err
    with track("growing", show=False) as report:
        assert report is None
    assert capsys.readouterr().err == ""


def test_what_is_shown_is_inert(capsys):
    with track("evaluating \x1b[2Jarm\nnew line\u202e"):
        pass
    said = capsys.readouterr().err
    assert "\x1b" not in said and "\u202e" not in said and len(said.splitlines()) == 2


def test_other_processes_are_silent(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with track("growing"):
        pass
    assert capsys.readouterr().err == ""


def test_a_log_that_cannot_be_written_ends_nothing(monkeypatch):
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(progress, "make_bar", lambda: None)
    monkeypatch.setattr(sys, "stderr", closed)
    with track("growing") as report:
        report(1, 1)


def as_terminal(monkeypatch):
    """Make standard error a terminal, and return what is written to it."""

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    return sys.stderr


def test_on_a_terminal_there_is_a_bar_and_no_line(monkeypatch):
    terminal = as_terminal(monkeypatch)
    with track("growing") as report:
        report(1, 2)
    assert "growing" in terminal.getvalue() and "begins" not in terminal.getvalue()


@pytest.mark.parametrize(("kind", "shown"), [(ModelCommand, True), (Command, False)])
def test_a_verb_that_works_with_models_says_at_once_that_it_reads_their_libraries(monkeypatch, kind, shown):
    called, terminal = [], as_terminal(monkeypatch)
    kind("verb", callback=lambda: called.append(terminal.getvalue())).main([], standalone_mode=False)
    assert len(called) == 1 and ("loading the libraries" in called[0]) is shown


def test_training_tells_steps_and_losses(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    run = toy.trainer(tmp_path, max_steps=3, progress=True)
    assert capsys.readouterr().err == "", "nothing is asked before training begins"
    run.read_original()
    assert {line.split()[0] for line in capsys.readouterr().err.splitlines()} == {"reference"}
    run.train()
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "unlearning begins at step 0 of at most 3"
    shown = [re.sub(r"\d+\.\d\d", "#", line) for line in said[1:4]]
    assert [re.sub(r"about \d+ s left", "#", line) for line in shown] == [
        f"unlearning {step}/3  forget #  mismatch #  KL #{left}" for step, left in ((1, ""), (2, "  #"), (3, ""))
    ]
    assert re.fullmatch(r"unlearning done at step 3 after \d+\.\d s", said[4]) and len(said) == 5


def test_training_that_breaks_off_says_so(tmp_path, capsys):
    run = toy.trainer(tmp_path, max_steps=3, progress=True, learning_rate=1e9)
    with pytest.raises(TrainingError):
        run.train()
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("unlearning")]
    assert len(said) == 2 and said[1].startswith("unlearning broken off after")


def test_a_run_in_a_pipe_tells_every_stage(tmp_path, capsys):
    here = place(tmp_path / "toy")
    done = call(capsys, *here.quick(tmp_path / "out"))
    assert done.code == 0 and done.err == ""
    begun = [line.partition(" begins")[0] for line in done.progress if " begins" in line]
    assert "evaluating original: unseen" in begun and "evaluating unlearned: normal" in begun and "unlearning" in begun
    assert [line.partition(" done")[0] for line in done.progress if " done" in line] == begun
    others = [line for line in done.progress if " begins" not in line and " done" not in line]
    assert all(line.startswith("note: ") for line in others), others
