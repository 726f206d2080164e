"""Kill a run at any moment: it resumes bit-identically, from a complete checkpoint, or says what is wrong."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

import toy
from command import call, place
from unteach.errors import OutputError
from unteach.models.adapter import lora_config
from unteach.training.checkpoints import complete_step, last_complete, write_state

STEPS = 8
RULES = {"stopping": True, "validation_steps": 3, "patience": 99, "kl_budget": 99.0, "forget_bound": 99.0}
SETTINGS = RULES | {"max_steps": STEPS, "save_strategy": "steps", "save_steps": 2, "validation_new_tokens": 2}
SETTINGS |= {"gradient_accumulation_steps": 2, "lr_scheduler_type": "linear"}

SCRIPT = f"""
import os, signal, sys, torch, toy
from transformers import TrainerCallback
from unteach.models.adapter import lora_config
torch.set_num_threads(1)
directory, kill_at, adapter = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "lora"

class Kill(TrainerCallback):
    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step == kill_at:  # between two batches of a step
            os.kill(os.getpid(), signal.SIGKILL)

pupil = toy.model()
extra = {{"callbacks": [Kill()]}} | ({{"peft_config": lora_config(4, 8.0)}} if adapter else {{}})
toy.trainer(directory, pupil, extra=extra, **{SETTINGS!r}).train()
"""


def final(directory):
    return load_file(next((directory / "model").glob("*.safetensors")))


def assert_identical(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def adapter(kind):
    return {"peft_config": lora_config(4, 8.0)} if kind == "lora" else {}


KILLS = list(zip(("full", "lora"), random.Random(0).sample(range(1, STEPS), 2), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "step"), KILLS)
def test_a_killed_run_resumes_bit_identically(tmp_path, kind, step):
    """The process that is killed, the one that goes on and the one that was never cut off agree in every bit."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "cut"), str(step), kind]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert last_complete(tmp_path / "cut" / "out").name != f"checkpoint-{STEPS}"
    runs = [toy.trainer(tmp_path / name, toy.model(), extra=adapter(kind), **SETTINGS) for name in ("cut", "whole")]
    for run in runs:
        run.train(resume_from_checkpoint=True)
        assert run.state.global_step == STEPS
    assert_identical(*(toy.weights(run.model) for run in runs))


class Die(TrainerCallback):
    """Breaks a run off inside a step, as a kill would, without the cost of a process."""

    def __init__(self, step):
        self.step = step

    def on_substep_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def cut_off(directory, step, pupil=toy.model, **settings):
    with pytest.raises(KeyboardInterrupt):
        toy.trainer(directory, pupil(), extra={"callbacks": [Die(step)]}, **(SETTINGS | settings)).train()


def resumed(directory, pupil=toy.model, **settings):
    run = toy.trainer(directory, pupil(), **(SETTINGS | settings))
    run.train(resume_from_checkpoint=True)
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    run = toy.trainer(tmp_path_factory.mktemp("whole"), toy.model(), **SETTINGS)
    run.train()
    return run


@pytest.mark.parametrize("step", [0, 3, 7])
def test_a_run_broken_off_at_any_step_ends_the_same(tmp_path, whole, step):
    cut_off(tmp_path, step)
    run = resumed(tmp_path)
    assert_identical(toy.weights(run.model), toy.weights(whole.model))
    assert toy.logged(run, "loss") == toy.logged(whole, "loss")
    assert run.watch.memory() == whole.watch.memory()


JUMP = {"forget_bound": 0.05, "forget_hold": 1, "forget_tail": 2.0, "learning_rate": 1e-2}
"""The loss of the model that knows the rows jumps at step 2, so the run ends at step 6."""


@pytest.mark.parametrize("step", [1, 5])
def test_a_run_whose_end_a_rule_had_moved_ends_the_same(tmp_path, step):
    moved = JUMP | {"lr_scheduler_type": "constant_with_warmup", "cooldown": 0.5, "pupil": toy.learned_model}
    undisturbed = resumed(tmp_path / "whole", **moved)
    assert (undisturbed.watch.state.jumped_at, undisturbed.stop.step) == (2, 6)
    assert toy.logged(undisturbed, "learning_rate") == pytest.approx([1e-2] * 4 + [2e-2 / 3, 1e-2 / 3])
    cut_off(tmp_path, step, **moved)
    run = resumed(tmp_path, **moved)
    assert_identical(toy.weights(run.model), toy.weights(undisturbed.model))
    assert toy.logged(run, "learning_rate") == toy.logged(undisturbed, "learning_rate") and run.stop == undisturbed.stop


def truncate(path):
    path.write_text(path.read_text()[:-40])


DAMAGE = {
    "half a trainer_state.json": lambda folder: truncate(folder / "trainer_state.json"),
    "no unteach.json": lambda folder: (folder / "unteach.json").unlink(),
    "half an unteach.json": lambda folder: truncate(folder / "unteach.json"),
    "no random state": lambda folder: (folder / "rng_state.pth").unlink(),
    "another step's state": lambda folder: folder.rename(folder.with_name("checkpoint-7")),
    "an empty directory": lambda folder: [path.unlink() for path in folder.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_half_written_checkpoints_are_passed_over(tmp_path, whole, damage):
    cut_off(tmp_path, 5)
    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint-3", "checkpoint-4"]
    DAMAGE[damage](out / "checkpoint-4")
    assert last_complete(out).name == "checkpoint-3"
    assert_identical(toy.weights(resumed(tmp_path).model), toy.weights(whole.model))


def test_complete_means_every_rank_wrote_its_random_state(tmp_path):
    folder = tmp_path / "checkpoint-4"
    folder.mkdir()
    (folder / "trainer_state.json").write_text('{"global_step": 4}')
    write_state(folder, {"stopping": {}})
    assert complete_step(folder) is None
    (folder / "rng_state_0.pth").touch()
    assert complete_step(folder, ranks=2) is None and complete_step(folder) is None
    (folder / "rng_state_1.pth").touch()
    assert complete_step(folder, ranks=2) == 4
    assert complete_step(tmp_path / "checkpoint-x") is None


def test_nothing_to_resume_starts_from_the_start(tmp_path, whole):
    assert_identical(toy.weights(resumed(tmp_path).model), toy.weights(whole.model))


def test_a_finished_run_resumes_to_its_end(tmp_path, whole):
    resumed(tmp_path)
    again = resumed(tmp_path)
    assert again.state.global_step == STEPS
    assert_identical(toy.weights(again.model), toy.weights(whole.model))


@pytest.mark.parametrize("rule", [JUMP, {"kl_budget": 1e-4, "patience": 1, "learning_rate": 1e-2}])
def test_a_run_that_a_rule_ended_stays_ended(tmp_path, rule):
    """Also where the program was killed after training, while the model was checked."""
    settings = rule | {"save_steps": 1, "validation_steps": 2, "pupil": toy.learned_model}
    ended = resumed(tmp_path, **settings)
    assert ended.stop is not None and ended.stop.step < STEPS
    again = resumed(tmp_path, **settings)
    assert again.stop == ended.stop
    assert_identical(toy.weights(again.model), toy.weights(ended.model))


def test_an_old_checkpoint_goes_only_when_the_new_one_is_complete(tmp_path, monkeypatch):
    import unteach.training.checkpoints as module

    seen = []

    def write(folder, state):
        seen.append((folder.name, last_complete(folder.parent)))
        write_state(folder, state)

    monkeypatch.setattr(module, "write_state", write)
    toy.trainer(tmp_path, toy.model(), **SETTINGS, save_total_limit=1).train()
    assert [name for name, _ in seen][:3] == ["checkpoint-0", "checkpoint-2", "checkpoint-3"]
    assert all(valid is not None and valid.name != name for name, valid in seen[1:])
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"checkpoint-{STEPS}"]


class FullDisk(TrainerCallback):
    """From one step on, no file may grow beyond a size: writing fails for real."""

    def __init__(self, step, size):
        self.step, self.size = step, size

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@pytest.mark.parametrize("size", [100, 10_000, 100_000], ids=["texts", "weights", "optimizer"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path, whole, size):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    run = toy.trainer(tmp_path, toy.model(), extra={"callbacks": [FullDisk(4, size)]}, **SETTINGS)
    try:
        with pytest.raises(OutputError, match=r"checkpoint-4: the checkpoint could not be written \(.*resume$") as told:
            run.train()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "checkpoint-3 is valid: free space and go on" in str(told.value)
    assert not (tmp_path / "out" / "checkpoint-4").exists()
    assert_identical(toy.weights(resumed(tmp_path).model), toy.weights(whole.model))


def test_a_full_disk_is_called_full(tmp_path, monkeypatch):
    import safetensors.torch
    import transformers.modeling_utils as saving

    def full(*_, **__):
        raise safetensors.SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(saving, "safe_save_file", full)
    with pytest.raises(OutputError, match=r"checkpoint-0: .*\(the disk is full\); free space and start again"):
        toy.trainer(tmp_path, toy.model(), **SETTINGS).train()
    monkeypatch.undo()

    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", no_space)
    with pytest.raises(OutputError, match=r"\(the disk is full\)"):
        toy.trainer(tmp_path, toy.model(), **SETTINGS).train()
    assert list((tmp_path / "out").iterdir()) == []


def test_an_error_that_is_not_about_the_disk_is_told_as_it_is(tmp_path, monkeypatch):
    def wrong(*_, **__):
        raise RuntimeError("tensors share memory")

    monkeypatch.setattr(torch, "save", wrong)
    with pytest.raises(RuntimeError, match="tensors share memory"):
        toy.trainer(tmp_path, toy.model(), **SETTINGS).train()


# ---- Ctrl-C --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ctrl_c_writes_a_checkpoint_and_resume_ends_the_same(tmp_path, capsys):
    here, log = place(tmp_path), tmp_path / "run" / "log.jsonl"
    settings = {"max_steps": 60, "learning_rate": 1e-5, "validation_steps": 25, "patience": 99, "save_steps": 1000}
    words = here.quick(tmp_path / "run", skip_evaluation=True, **settings)
    command = [sys.executable, "-c", "from unteach.cli.app import main; main()", *words]
    alike = os.environ | {"OMP_NUM_THREADS": "1"}  # as in this process: sums over two threads round otherwise
    process = subprocess.Popen(command, env=alike, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (log.exists() and log.read_text().count("\n") >= 3):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130, told
    step = last_complete(tmp_path / "run" / "checkpoints").name.removeprefix("checkpoint-")
    assert f"stopped at step {step}, checkpoint written; go on with --resume" in told
    assert 3 <= int(step) < 60 and not (tmp_path / "run" / "model").exists()

    assert call(capsys, *words, "--resume").code == 0
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines() if "forget_ce" in line]
    assert steps == list(range(1, 61)), "every step once"
    assert call(capsys, *here.quick(tmp_path / "whole", skip_evaluation=True, **settings)).code == 0
    assert_identical(final(tmp_path / "run"), final(tmp_path / "whole"))
