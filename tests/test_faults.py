"""A small part of `make test-faults`, and what a run promises at moments that are chosen."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command import call, place
from unteach.disk import files
from unteach.disk.lock import LOCK, only_writer
from unteach.errors import OutputError
from unteach.pipeline import directory as module
from unteach.pipeline import measure
from unteach.pipeline.directory import CONTRACT, REPLACED, beginning, check_output, output_directory
from unteach.pipeline.measure import is_finished


@pytest.mark.slow
def test_a_few_kills_full_disks_damaged_caches_and_pairs():
    """See tests/faults.py for the tries; `make test-faults` makes many more of them."""
    script = Path(__file__).with_name("faults.py")
    counts = ["--kills", "4", "--full", "2", "--damaged", "2", "--pairs", "1", "--signals", "2", "--hostile", "3"]
    done = subprocess.run([sys.executable, str(script), *counts], capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 tries, 0 failures" in done.stdout or "skipped: " in done.stdout


# ---- a run that is replaced ------------------------------------------------------------------------------------------


class Killed(BaseException):
    """As if the process had been killed here: nothing catches it."""


def old_run(directory: Path) -> Path:
    directory.mkdir()
    for name in CONTRACT:
        if name in ("model", "checkpoints"):
            (directory / name / "deep").mkdir(parents=True)
            (directory / name / "deep" / "weights").write_text("old")
        else:
            (directory / name).write_text("old")
    (directory / "notes.txt").write_text("mine")
    return directory


def begin(directory: Path, *, overwrite: bool) -> None:
    with beginning(directory, overwrite=overwrite):
        files.write_whole(directory / "run.yaml", "new")


def killed_at(moment: int, directory: Path) -> bool:
    """Replace a run, killed before the given change of the disk; return whether it came that far."""
    count = 0

    def ticking(real):
        def function(*args, **kwargs):
            nonlocal count
            count += 1
            if count > moment:
                raise Killed
            return real(*args, **kwargs)

        return function

    with pytest.MonkeyPatch.context() as patch:
        for name in ("rename", "unlink", "rmdir", "mkdir"):
            patch.setattr(os, name, ticking(getattr(os, name)))
        try:
            begin(directory, overwrite=True)
        except Killed:
            return True
    return False


def test_a_kill_at_any_moment_of_replacing_a_run_leaves_an_old_run_or_room_for_a_new_one(tmp_path):
    moment = 0
    while killed_at(moment, out := old_run(tmp_path / f"out{moment}")):
        if (out / "run.yaml").exists() and (out / "run.yaml").read_text() == "old":
            assert {name for name in CONTRACT if (out / name).exists()} == set(CONTRACT), "the old run is whole"
        elif not (out / "run.yaml").exists():
            again = moment % 2 == 0  # either way must do
            check_output(str(out), overwrite=again, resume=False)
            begin(out, overwrite=again)
            assert sorted(path.name for path in out.iterdir()) == ["notes.txt", "run.yaml"]
        check_output(str(out), overwrite=True, resume=False)
        begin(out, overwrite=True)
        assert sorted(path.name for path in out.iterdir()) == ["notes.txt", "run.yaml"]
        moment += 1
    assert moment > 20


@pytest.mark.parametrize("left", ["", LOCK, ".run.yaml.abc.partial", "checkpoints", ".model.xyz.partial/weights"])
def test_what_a_kill_leaves_before_the_run_has_begun_is_an_empty_directory(tmp_path, left):
    if left == "checkpoints":
        (tmp_path / left).mkdir()
    elif left:
        (tmp_path / left).parent.mkdir(exist_ok=True)
        (tmp_path / left).write_text("")
    for overwrite in (False, True):
        with output_directory(str(tmp_path), overwrite=overwrite) as directory:
            with beginning(directory, overwrite=overwrite):
                there = {path.name for path in directory.iterdir()}
            assert there - {"checkpoints"} <= {LOCK, REPLACED}
    (tmp_path / "something").touch()
    with pytest.raises(OutputError, match="not empty"), output_directory(str(tmp_path), overwrite=False):
        pass


def test_a_directory_that_a_failed_command_has_made_goes_and_that_of_others_stays(tmp_path):
    with pytest.raises(ValueError), output_directory(str(tmp_path / "a" / "b"), overwrite=False) as directory:
        (directory / "checkpoints").mkdir()
        raise ValueError
    assert list(tmp_path.iterdir()) == []
    with output_directory(str(tmp_path / "a"), overwrite=False):
        with pytest.raises(OutputError, match="in use by process"):
            with output_directory(str(tmp_path / "a"), overwrite=True):
                pass
        assert (tmp_path / "a" / LOCK).exists()


def test_a_disk_that_fails_under_a_command_is_one_error(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"), output_directory(str(tmp_path), overwrite=False):
        raise OSError(28, "No space left on device")


# ---- finished --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    home = tmp_path_factory.mktemp("finished")
    here = place(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["unteach", *here.quick(home / "out")])
        with pytest.raises(SystemExit) as ended:
            from unteach.cli.app import main

            main()
    assert not ended.value.code
    return home / "out"


@pytest.mark.parametrize("missing", [["README.md"], ["report.html", "README.md"], ["report.html"]])
def test_a_run_that_lacks_a_page_is_not_finished_and_resume_writes_it(tmp_path, capsys, finished, missing):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    expected = {name: (out / name).read_text() for name in missing}
    for name in missing:
        (out / name).unlink()
    assert not is_finished(out)
    model = (out / "model" / "model.safetensors").stat().st_mtime_ns
    done = call(capsys, "run", "--output", out, "--resume")
    assert done.code == 0, done.err
    assert {name: (out / name).read_text() for name in missing} == expected
    assert (out / "model" / "model.safetensors").stat().st_mtime_ns == model, "nothing was trained again"
    refused = call(capsys, "run", "--output", out, "--resume")
    assert refused.code == 2 and "is finished, see its report.html" in refused.err


def test_the_card_is_written_last_and_an_old_one_goes_first(tmp_path, finished, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    seen = []
    for name in ("write_page", "write_card"):
        monkeypatch.setattr(measure, name, lambda *_, name=name: seen.append((name, is_finished(out))))
    measure.write_report(measure.Report.read(out), out)
    assert seen == [("write_page", False), ("write_card", False)]


def test_a_command_beside_a_running_one_is_refused_by_name(tmp_path, capsys, finished):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    (out / "README.md").unlink()
    here = place(tmp_path)
    evaluate = ["evaluate", "--model", here.model, "--forget", here.forget, "--output", out, "--overwrite"]
    baseline = ["baseline", "finetune", "--model", here.model, "--forget", here.forget, "--output", out, "--overwrite"]
    with only_writer(out):
        for words in (here.quick(out, overwrite=True), here.quick(out, resume=True), evaluate, baseline):
            refused = call(capsys, *words)
            assert refused.code == 2 and f"in use by process {os.getpid()} on host {os.uname().nodename}" in refused.err
    assert json.loads((out / "report.json").read_text()) and not (out / "README.md").exists()


def test_nothing_is_written_but_by_the_one_writer():
    """Text and bytes of our own go through `unteach.disk.files`; libraries write inside `whole_directory`."""
    allowed = {"disk/files.py", "disk/lock.py", "try_page/negatives.py", "results/cost.py", "scoring/states_file.py"}
    source = Path(files.__file__).parents[1]
    for path in source.rglob("*.py"):
        text = path.read_text()
        name = path.relative_to(source).as_posix()
        found = [word for word in (".write_text(", ".write_bytes(", "NamedTemporaryFile(", "mkstemp(") if word in text]
        assert not found or name in allowed, f"{name}: {found}"


assert module.PARTIAL in REPLACED
