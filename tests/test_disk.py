"""What stands on the disk: files whole or not at all, one error for a disk that fails, one lock, one cache."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from unteach.disk import lock as module
from unteach.disk.cache import Cache, cache_directory
from unteach.disk.files import living_on, remove_whole, whole_directory, whole_file, write_whole, writing
from unteach.disk.lock import LOCK, FileLock, only_writer
from unteach.errors import OutputError


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_the_writer_goes_on(tmp_path, monkeypatch):
    seen = []
    real_fsync, real_replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (seen.append(os.readlink(f"/proc/self/fd/{file}")), real_fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *pair: (seen.append("replace"), real_replace(*pair)))
    write_whole(tmp_path / "new" / "a.json", "text")
    assert seen[0].endswith(".partial") and seen[1:] == ["replace", str(tmp_path / "new")]
    assert (tmp_path / "new" / "a.json").read_text() == "text" and names(tmp_path / "new") == ["a.json"]


@pytest.mark.parametrize("function", ["fsync", "replace", "fchmod"])
def test_a_file_that_cannot_be_written_stays_as_it_was(tmp_path, monkeypatch, function):
    path = write_whole(tmp_path / "a", "before")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, function, full)
    with pytest.raises(OutputError, match=f"^{path}: cannot be written .the disk is full.; free some space"):
        write_whole(path, "after")
    assert path.read_text() == "before" and names(tmp_path) == ["a"]


def test_a_block_that_fails_leaves_neither_file_nor_directory(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "old").touch()
    for opened in (whole_file(tmp_path / "file"), whole_directory(tmp_path / "directory")):
        with pytest.raises(KeyboardInterrupt), opened:
            raise KeyboardInterrupt
    with pytest.raises(ValueError), whole_directory(tmp_path / "kept") as partial:
        (partial / "new").touch()
        raise ValueError
    assert names(tmp_path) == ["kept"] and names(tmp_path / "kept") == ["old"]


def test_a_directory_takes_the_place_of_another(tmp_path):
    for content in ("old", "new"):
        with whole_directory(tmp_path / "model") as partial:
            assert names(tmp_path) != ["model"] or content == "new"
            (partial / content).touch()
    assert names(tmp_path) == ["model"] and names(tmp_path / "model") == ["new"]
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o755
    remove_whole(tmp_path / "model")
    remove_whole(tmp_path / "model")
    assert names(tmp_path) == []


FULL = "No space left on device (os error 28)"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded"),
        (SafetensorError(f"Error while serializing: I/O error: {FULL}"), "the disk is full"),
        (Exception(FULL), "the disk is full"),
        (RuntimeError("[enforce fail at inline_container.cc:820] . PytorchStreamWriter failed writing file"), ""),
        (RuntimeError("basic_ios::clear: iostream error"), ""),
    ],
    ids=["OSError", "quota", "safetensors", "tokenizers", "torch", "iostream"],
)
def test_whatever_a_library_raises_when_it_cannot_write_is_one_error(tmp_path, error, reason):
    for guarded in (writing(tmp_path / "a"), living_on(tmp_path)):
        with pytest.raises(OutputError, match="cannot be written") as told, guarded:
            raise error
        assert reason in str(told.value)


@pytest.mark.parametrize("error", [ValueError("x"), torch.OutOfMemoryError("x"), RuntimeError("tensors share memory")])
def test_other_errors_pass(tmp_path, error):
    for guarded in (writing(tmp_path / "a"), living_on(tmp_path)):
        with pytest.raises(type(error), match=str(error)), guarded:
            raise error


def test_a_file_that_cannot_be_read_elsewhere_is_no_error_of_the_disk(tmp_path):
    with pytest.raises(FileNotFoundError), living_on(tmp_path / "out"):
        (tmp_path / "rows.jsonl").read_text()
    with pytest.raises(OutputError, match="model: cannot be written"), living_on(tmp_path / "out"):
        (tmp_path / "out" / "model").mkdir()


# ---- the lock --------------------------------------------------------------------------------------------------------

HOLD = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unteach.disk.lock import only_writer
with only_writer(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(directory: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_who_the_first_is_and_a_killed_one_leaves_nothing(tmp_path):
    process = holder(tmp_path)
    with pytest.raises(OutputError) as told, only_writer(tmp_path):
        pass
    message = str(told.value)
    assert f"--output {tmp_path}: is in use by process {process.pid} on host {os.uname().nodename} since " in message
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (tmp_path / LOCK).exists()
    with only_writer(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert names(tmp_path) == []


def test_two_in_one_process_exclude_each_other_too(tmp_path):
    with only_writer(tmp_path), pytest.raises(OutputError, match=f"process {os.getpid()} "), only_writer(tmp_path):
        pass


def test_one_that_waits_goes_on_when_the_first_has_ended(tmp_path):
    process = holder(tmp_path)
    began = time.monotonic()
    process.stdin.close()
    with FileLock(tmp_path / LOCK) as taken:
        assert taken.path.exists() and time.monotonic() - began < 10
    process.wait()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"pid": []}', "[" * 9999, "\x00" * 999])
def test_a_lock_file_that_nobody_holds_is_taken_whatever_it_says(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    with only_writer(tmp_path):
        pass
    assert names(tmp_path) == []


def test_a_holder_on_another_host_counts_as_long_as_it_shows_signs_of_life(tmp_path, monkeypatch):
    """As on a file system that gives both hosts the lock: a job that goes on elsewhere waits for silence."""
    monkeypatch.setattr(module, "BEAT", 0.1)
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    path = tmp_path / LOCK
    path.write_text(json.dumps({"pid": 12, "host": "elsewhere", "since": "today"}))
    with only_writer(tmp_path):
        pass
    path.write_text(json.dumps({"pid": 12, "host": "elsewhere", "since": "today"}))
    beating = subprocess.Popen(
        [sys.executable, "-c", "import os,sys,time\nwhile True: os.utime(sys.argv[1]); time.sleep(.05)", str(path)]
    )
    time.sleep(0.5)
    try:
        with pytest.raises(OutputError, match="process 12 on host elsewhere since today"), only_writer(tmp_path):
            pass
    finally:
        beating.kill()
        beating.wait()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_the_process_number_decides(tmp_path, monkeypatch, number):
    def none(*_):
        raise OSError(number, "no locks here")

    monkeypatch.setattr(module.fcntl, "flock", none)
    alive = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    (tmp_path / LOCK).write_text(json.dumps({"pid": alive.pid, "host": os.uname().nodename}))
    with pytest.raises(OutputError, match=f"process {alive.pid} on host"), only_writer(tmp_path):
        pass
    alive.kill()
    alive.wait()
    with only_writer(tmp_path):
        pass


def test_a_child_does_not_keep_the_lock(tmp_path):
    """A data loader may live a little longer than the run that was killed."""
    with only_writer(tmp_path):
        child = os.fork()
        if not child:
            time.sleep(30)
            os._exit(0)
    try:
        with only_writer(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# ---- the cache -------------------------------------------------------------------------------------------------------


def fill(size: int):
    return lambda directory: (directory / "states.bin").write_bytes(bytes(size))


def test_only_the_owner_may_read_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache = Cache(cache_directory() / "kind", 2**20)
    cache.put("ab" * 16, {"a": 1})
    cache.make("key", fill(10))
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "cache").rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}


def test_a_directory_that_others_could_read_is_closed(tmp_path):
    tmp_path.chmod(0o755)
    Cache(tmp_path, 2**20).make("key", fill(10))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o700


def test_directories_and_objects_that_were_not_used_for_longest_go(tmp_path):
    cache = Cache(tmp_path, 3500)
    for number in range(3):
        cache.make(f"key{number}", fill(1000))
        for path in tmp_path.rglob("*"):
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 3600))
    assert cache.find("key0") is not None  # used now
    cache.make("key3", fill(1000))
    assert sorted(names(tmp_path)) == ["key0", "key2", "key3"]
    assert Cache(tmp_path, 10).make("key4", fill(1000)).is_dir(), "the newest one stays"
    assert names(tmp_path) == ["key4"]


def test_many_small_objects_keep_within_the_bound(tmp_path):
    cache = Cache(tmp_path, 20_000)
    for number in range(400):
        cache.put(f"{number:032x}", {"answer": "x" * 50})
    assert sum(path.stat().st_size for path in tmp_path.rglob("*.json")) <= 20_000


def test_what_a_killed_writer_left_is_no_entry_and_goes_in_the_end(tmp_path):
    cache = Cache(tmp_path, 3000)
    (tmp_path / ".key.abc.partial").mkdir()
    (tmp_path / ".key.abc.partial" / "states.bin").write_bytes(bytes(2500))
    os.utime(tmp_path / ".key.abc.partial", (0, 0))
    os.utime(tmp_path / ".key.abc.partial" / "states.bin", (0, 0))
    assert cache.find("key") is None
    cache.make("key", fill(1000))
    assert names(tmp_path) == ["key"]


def test_what_two_processes_keep_under_a_key_is_kept_once_and_stays_open(tmp_path):
    """Both did not find it and made it: the second one finds the first one's in its place, whose readers have it."""
    opened = []

    def meanwhile(directory: Path) -> None:
        fill(10)(directory)
        opened.append((Cache(tmp_path, 2**20).make("key", fill(10)) / "states.bin").stat())

    made = Cache(tmp_path, 2**20).make("key", meanwhile)
    assert os.path.samestat((made / "states.bin").stat(), opened[0]) and names(tmp_path) == ["key"]


def test_what_does_not_check_is_replaced(tmp_path):
    cache = Cache(tmp_path, 2**20)
    (cache.make("key", fill(10)) / "states.bin").write_bytes(b"damaged")
    assert (cache.make("key", fill(20)) / "states.bin").stat().st_size == 20
    assert cache.find("key") is not None and names(tmp_path) == ["key"]


def test_makers_at_one_time_all_get_an_entry_that_can_be_read_at_once(tmp_path):
    """Without order between them, no maker may find its entry gone or fail because another one's is there."""

    def make(_: int) -> int:
        return (Cache(tmp_path, 2**20).make("key", fill(1000)) / "states.bin").stat().st_size

    for _ in range(20):
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(make, range(8))) == [1000] * 8
        remove_whole(tmp_path / "key")
    assert names(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_named_with_the_remedy(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file/key: cannot be written .*XDG_CACHE_HOME"):
        Cache(tmp_path / "file", 100).make("key", fill(1))
