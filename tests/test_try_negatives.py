"""The negatives file of `unteach try`: whole lines, no duplicates, undo, and never a byte of anyone else's lost."""

import fcntl
import json
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from unteach.data.reading import read_examples
from unteach.errors import ConfigError, DataError, OutputError
from unteach.try_page.negatives import Duplicate, NegativesFile

HOSTILE = '<script>alert(1)</script> \u202e\x1b[31m\u200b "quoted" \\n\u2028 ünïcode 𝒜'


def row(prompt: str = "how to a1 b1", reply: str = "take c1", **more: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": reply, "label": False} | more


def marked(path: Path, *rows: dict[str, Any]) -> NegativesFile:
    file = NegativesFile(path)
    for one in rows:
        file.add(one)
    return file


def test_a_marked_reply_is_one_line_that_unteach_run_reads_as_a_negative(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    extra = {"model": "org/m", "time": "2026-01-01T00:00:00+00:00", "note": "n", "seed": 3, "guided": True}
    file = marked(path, row(HOSTILE, HOSTILE + " reply", **extra), row("other"))
    first, second = (json.loads(line) for line in path.read_text().split("\n")[:-1])
    assert first == row(HOSTILE, HOSTILE + " reply", **extra) and second == row("other")
    negatives = read_examples(str(path), "negative")
    assert [(one.prompt, one.reply) for one in negatives] == [(HOSTILE, HOSTILE + " reply"), ("other", "take c1")]
    assert (file.contents.negatives, file.contents.broken) == (2, 0)


def test_nothing_is_written_before_the_first_mark(tmp_path: Path) -> None:
    NegativesFile(tmp_path / "bad.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_the_same_reply_to_the_same_prompt_is_refused_also_from_another_session(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    file, other = NegativesFile(path), NegativesFile(path)
    file.add(row("How?", "Take it"))
    before = path.read_bytes()
    for again in (row("How?", "Take it"), row(" how? ", "take  it", note="another note")):
        with pytest.raises(Duplicate, match="has this reply to this prompt already"):
            other.add(again)
    assert path.read_bytes() == before
    other.add(row("How?", "Take that"))
    file.refresh()
    assert (file.contents.negatives, other.contents.negatives) == (2, 2)


def test_the_last_line_of_another_program_without_a_line_break_stays_whole(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(row("p", "r")))
    file = NegativesFile(path)
    assert file.contents.negatives == 1
    mark = file.add(row())
    assert [json.loads(line) for line in path.read_text().splitlines()] == [row("p", "r"), row()]
    assert file.contents.negatives == 2
    file.undo(mark)
    assert path.read_text() == json.dumps(row("p", "r")) + "\n"


def test_a_last_line_that_another_program_finishes_later_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    text = json.dumps(row("p", "r")) + "\n"
    path.write_text(text[:10])
    file = NegativesFile(path)
    assert (file.contents.negatives, file.contents.broken) == (0, 1)
    path.write_text(text)
    file.refresh()
    assert (file.contents.negatives, file.contents.broken) == (1, 0)


def test_broken_lines_are_counted_and_left_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    old = b'\xff\xfe broken\n\n[1]\n{"prompt": "p", "completion": "r", "label": false}\n{"half": \n'
    path.write_bytes(old)
    file = NegativesFile(path)
    assert (file.contents.negatives, file.contents.broken) == (1, 3)
    mark = file.add(row())
    assert path.read_bytes().startswith(old)
    file.undo(mark)
    assert path.read_bytes() == old
    assert (file.contents.negatives, file.contents.broken) == (1, 3)


def test_good_rows_do_not_count_and_a_bad_row_of_the_same_words_may_join_them(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row() | {"label": True}) + "\n" + json.dumps(row("q")) + "\n")
    file = NegativesFile(path)
    assert file.contents.negatives == 1
    file.add(row())
    assert file.contents.negatives == 2 and len(read_examples(str(path), "negative")) == 2


def test_a_file_without_labels_stays_readable(tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "p", "completion": "r"}\n')
    marked(path, row())
    assert "label" not in json.loads(path.read_text().splitlines()[1])
    assert len(read_examples(str(path), "negative")) == 2


def test_undo_takes_out_its_own_line_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps(row("before")) + "\n")
    path.chmod(0o640)
    file = NegativesFile(path)
    first = file.add(row("one"))
    NegativesFile(path).add(row("by another"))
    file.add(row("two"))
    file.undo(first)
    assert [json.loads(line)["prompt"] for line in path.read_text().splitlines()] == ["before", "by another", "two"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert file.contents.negatives == 3
    file.add(row("one"))  # what was taken back may be marked again
    assert os.listdir(tmp_path) == ["bad.jsonl"]


def test_undo_of_a_line_that_someone_changed_says_so_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    file = NegativesFile(path)
    mark = file.add(row())
    changed = path.read_text().replace("take", "Take")
    path.write_text(changed)
    with pytest.raises(DataError, match="this line is not in it any more"):
        file.undo(mark)
    assert path.read_text() == changed


def test_a_line_that_only_ends_like_the_mark_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    file = NegativesFile(path)
    mark = file.add(row())
    path.write_bytes(b"x" + mark.line)
    with pytest.raises(DataError):
        file.undo(mark)
    assert path.read_bytes() == b"x" + mark.line


def _append_many(path: str, who: int, count: int) -> None:
    file = NegativesFile(path)
    for number in range(count):
        mark = file.add(row(f"{who} {number}", "reply " * 500))
        if number % 5 == 4:
            file.undo(mark)
        file.add(row("the same", "for all " + str(number))) if who == number % 3 else None


def test_processes_that_mark_and_undo_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_append_many, args=(str(path), who, 20)) for who in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    prompts = [json.loads(line)["prompt"] for line in path.read_text().splitlines()]
    kept = [f"{who} {number}" for who in range(3) for number in range(20) if number % 5 != 4]
    assert sorted(prompts) == sorted(kept + ["the same"] * 20)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "there" / "real.jsonl", tmp_path / "bad.jsonl"
    real.parent.mkdir()
    link.symlink_to(real)
    file = NegativesFile(link)
    mark = file.add(row())
    file.add(row("kept"))
    file.undo(mark)
    assert link.is_symlink() and [json.loads(line) for line in real.read_text().splitlines()] == [row("kept")]


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda place: place / "bad.txt", ConfigError, "must end in .jsonl"),
        (lambda place: place / "missing" / "bad.jsonl", OutputError, "there is no directory"),
        (lambda place: _made(place / "dir.jsonl", Path.mkdir), OutputError, "is not a file"),
        (lambda place: _made(place / "pipe.jsonl", os.mkfifo), OutputError, "is not a file"),
        (lambda place: _made(place / "a.jsonl", lambda path: path.symlink_to(path)), OutputError, "leads to itself"),
        (
            lambda place: _made(place / "pref.jsonl", lambda path: path.write_text('{"prompt":"p","rejected":"r"}\n')),
            DataError,
            "line 1 has no text in prompt and completion",
        ),
    ],
)
def test_what_cannot_be_written_is_said_at_once(tmp_path: Path, make: Any, error: Any, words: str) -> None:
    with pytest.raises(error, match=words):
        NegativesFile(make(tmp_path))


def _made(path: Path, how: Any) -> Path:
    how(path)
    return path


@pytest.mark.parametrize("which", ["file", "directory"])
def test_a_place_without_permission_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    path = tmp_path / "bad.jsonl"
    path.touch()
    closed = path if which == "file" else tmp_path
    monkeypatch.setattr(os, "access", lambda place, mode: Path(place) != closed)  # root may write everything
    with pytest.raises(OutputError, match="no permission"):
        NegativesFile(path)


def test_a_disk_that_takes_half_a_line_gets_none_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bad.jsonl"
    file = marked(path, row("p"))
    before = path.read_bytes()
    whole = os.write
    monkeypatch.setattr(os, "write", lambda handle, line: whole(handle, line[: len(line) // 2]))
    with pytest.raises(OutputError, match="the disk is full"):
        file.add(row())
    monkeypatch.undo()
    assert path.read_bytes() == before
    file.add(row())
    assert len(path.read_text().splitlines()) == 2


def test_an_undo_that_fails_leaves_the_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bad.jsonl"
    file = NegativesFile(path)
    mark = file.add(row())
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match="No space left"):
        file.undo(mark)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["bad.jsonl"]


def test_a_writer_that_waited_while_an_undo_replaced_the_file_writes_to_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    file, other = NegativesFile(path), NegativesFile(path)
    mark = file.add(row())
    held = os.open(path, os.O_RDWR)
    replaced = []
    lock = fcntl.flock

    def replace_first(handle: int, kind: int) -> None:
        if not replaced:
            replaced.append(True)
            file.undo(mark)
        lock(handle, kind)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unteach.try_page.negatives.fcntl.flock", replace_first)
        other.add(row("late"))
    os.close(held)
    assert [json.loads(line)["prompt"] for line in path.read_text().splitlines()] == ["late"]


FOREIGN = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * 300}]})


@pytest.mark.parametrize("how", ["another file", "in place", "longer in place", "appended"])
def test_a_file_that_becomes_one_of_another_format_gets_no_more_rows(tmp_path: Path, how: str) -> None:
    path = tmp_path / "bad.jsonl"
    file = marked(path, row(), row("other"))
    if how == "another file":
        path.unlink()
    foreign = '{"messages": []}\n'.ljust(path.stat().st_size) if how == "in place" else 2 * (FOREIGN + "\n")
    with path.open("a" if how == "appended" else "w") as writer:
        writer.write(foreign)
    before = path.read_bytes()
    with pytest.raises(DataError, match="line . has no text in prompt and completion.*left as it is"):
        file.add(row("third"))
    assert path.read_bytes() == before


@pytest.mark.parametrize("kind", ["pipe", "link", "link to nothing", "directory", "device", "linked directory"])
def test_a_file_that_becomes_something_else_is_not_written(tmp_path: Path, kind: str) -> None:
    (tmp_path / "here").mkdir()
    path, system = tmp_path / "here" / "bad.jsonl", tmp_path / "system"
    file = marked(path, row())
    system.write_text("root:x:0\n")
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "linked directory":
        path.parent.rmdir()
        (tmp_path / "elsewhere").mkdir()
        path.parent.symlink_to(tmp_path / "elsewhere")
    else:
        path.symlink_to({"link": str(system), "device": "/dev/null"}.get(kind, str(tmp_path / "nothing")))
    with pytest.raises(OutputError, match="cannot be written"):
        file.add(row("second"))
    assert system.read_text() == "root:x:0\n" and not (tmp_path / "nothing").exists()
    assert not (tmp_path / "elsewhere" / "bad.jsonl").exists()
