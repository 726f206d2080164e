"""Two processes are one: same weights, same metrics, same decisions."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import toy

RULES = {"stopping": True, "validation_steps": 2, "patience": 99, "forget_bound": 99.0, "validation_new_tokens": 2}
SETTINGS = RULES | {"max_steps": 6, "save_strategy": "steps", "save_steps": 3, "lr_scheduler_type": "linear"}
EARLY = {"forget_bound": 0.3, "forget_hold": 1, "forget_tail": 1.0, "kl_budget": 99.0, "learning_rate": 1e-2}

SCRIPT = f"""
import json, os, sys, torch, toy
from unteach.models.adapter import lora_config
torch.set_num_threads(1)
directory = sys.argv[1]
cases = {{
    "full": ({{}}, {SETTINGS!r} | {{"kl_budget": 99.0}}),
    "lora": ({{"peft_config": lora_config(4, 8.0)}}, {SETTINGS!r} | {{"kl_budget": 99.0}}),
    "break": ({{}}, {SETTINGS!r} | {{"kl_budget": 99.0, "method": "rto"}}),
    "early": ({{}}, {SETTINGS | EARLY!r}),
    "over": ({{}}, {SETTINGS!r} | {{"kl_budget": 1e-3, "patience": 1}}),
}}
for name, (extra, settings) in cases.items():
    world = int(os.environ.get("WORLD_SIZE", 1))
    settings["per_device_train_batch_size"] = 4 // world
    pupil = toy.learned_model() if name == "early" else toy.model()
    run = toy.trainer(f"{{directory}}/{{name}}", pupil, extra=extra, **settings)
    run.train()
    end = {{"stop": run.stop and [run.stop.step, run.stop.rule, run.stop.went_back_to], "step": run.state.global_step}}
    end["log"] = [line for line in run.state.log_history if "loss" in line]
    end["metrics"] = run.watch.metrics
    end["sum"] = float(sum(value.double().abs().sum() for value in run.model.parameters()))
    with open(f"{{directory}}/{{name}}-{{os.environ.get('RANK', 0)}}.json", "w") as file:
        json.dump(end, file)
    if run.is_world_process_zero():
        run.save_model(f"{{directory}}/{{name}}/model")
"""
"""All cases in one start of the processes: starting them costs most."""


@pytest.fixture(scope="module")
def ends(tmp_path_factory):
    """Train every case in one process and in two; return {processes: directory}."""
    found = {}
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    for processes in (1, 2):
        directory = tmp_path_factory.mktemp(f"processes{processes}")
        (directory / "script.py").write_text(SCRIPT)
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
        command = [sys.executable, *(launch if processes == 2 else []), str(directory / "script.py"), str(directory)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        found[processes] = directory
    return found


def told(directory, name, rank=0):
    return json.loads((directory / f"{name}-{rank}.json").read_text())


CASES = ("full", "lora", "break", "early", "over")


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_with_half_the_batch_are_one(ends, name):
    alone, together = (
        load_file(next((ends[processes] / name / "model").glob("*.safetensors"))) for processes in (1, 2)
    )
    assert alone.keys() == together.keys()
    for key, value in alone.items():  # Adam makes whole steps of the rounding in gradients near 0
        named = {"msg": lambda text, key=key: f"{key}: {text}"}
        torch.testing.assert_close(together[key], value, rtol=1e-5, atol=5e-5, **named)
    one, two = told(ends[1], name), told(ends[2], name)
    assert one["step"] == two["step"] and one["stop"] == two["stop"]
    for here, there in zip(one["log"], two["log"], strict=True):
        assert here.pop("tokens_per_second") > 0 < there.pop("tokens_per_second")
        assert here == pytest.approx(there, rel=1e-4, abs=1e-5)
    assert one["metrics"] == pytest.approx(two["metrics"], rel=1e-4, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_all_ranks_stop_alike_with_the_same_weights(ends, name):
    first, second = told(ends[2], name, 0), told(ends[2], name, 1)
    assert first["stop"] == second["stop"] and first["step"] == second["step"]
    assert first["sum"] == second["sum"]


@pytest.mark.slow
def test_the_rules_did_stop(ends):
    step, rule, _ = told(ends[2], "early")["stop"]
    assert rule == "forget bound" and step == told(ends[2], "early")["step"] <= 6
    assert told(ends[2], "over")["stop"] == [2, "utility budget", 0]
    untouched = {name: value for name, value in toy.model().state_dict().items()}
    restored = load_file(next((ends[2] / "over" / "model").glob("*.safetensors")))
    assert all(value.equal(untouched[name]) for name, value in restored.items()), "back to the original"


@pytest.mark.slow
def test_checkpoints_of_two_processes_are_complete(ends):
    from unteach.training.checkpoints import last_complete

    assert last_complete(ends[2] / "full" / "out", ranks=2).name == "checkpoint-6"
    assert last_complete(ends[2] / "full" / "out", ranks=1) is None, "another number of processes cannot go on"
