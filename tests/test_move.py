"""A run that moves along a direction: alone and before steps, killed and resumed, and what it refuses."""

import json
import math
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

import toy
import unteach.training.move as module
from test_resume import Die
from unteach.errors import ConfigError
from unteach.models.adapter import lora_config
from unteach.training.log_file import LogFile
from unteach.training.update import Update

BUDGET = 0.05
SETTINGS = {"stopping": True, "kl_budget": BUDGET, "validation_new_tokens": 4, "save_strategy": "steps"}
SETTINGS |= {"save_steps": 1, "components": 4, "template": "sorry no"}


def made(directory, method="repselect", callbacks=(), **settings):
    extra = {"callbacks": list(callbacks)}
    return toy.trainer(directory, toy.learned_model(), extra=extra, method=method, **(SETTINGS | settings))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was never cut off."""
    directory = tmp_path_factory.mktemp("whole")
    run = made(directory, callbacks=[LogFile(directory / "log.jsonl")])
    run.train()
    return run, directory


def looks_of(directory):
    return [module.AtScale(*look) for look in json.loads((directory / "out/direction/state.json").read_text())["looks"]]


def test_weights_are_the_originals_and_the_direction_by_the_strongest_scale_within_the_budget(whole):
    run, directory = whole
    direction, looks = load_file(directory / "out/direction/direction.safetensors"), looks_of(directory)
    chosen = max((look for look in looks if look.kl <= BUDGET), key=lambda look: look.scale)
    assert all("mlp" in name for name in direction) and len(direction) == 6
    original = toy.learned_model().state_dict()
    for name, weight in run.model.state_dict().items():
        expected = original[name]
        if name in direction:
            expected = expected + chosen.scale * direction[name]
        assert torch.equal(weight, expected)
    assert BUDGET / 2 < chosen.kl <= BUDGET
    assert all(look.kl > BUDGET for look in looks if look.scale > chosen.scale)
    assert chosen.nll > looks[0].nll + 0.1 and looks[0].scale == 0 and abs(looks[0].kl) < 1e-5
    with torch.no_grad():
        assert run._validation_kl() == pytest.approx(chosen.kl, rel=1e-5)


def test_the_run_ends_with_what_the_weights_do_and_says_so(whole):
    run, directory = whole
    state = run.watch.state
    assert (run.stop.rule, run.stop.step, state.phase) == ("disruption budget", 1, "ended")
    assert state.before_a.n == state.seen.a.n and state.seen.kl == state.seen.kl <= BUDGET
    assert [point.step for point in run.curve.points] == [1]
    assert any("moved along one direction by" in note for note in run.notes)
    lines = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    looks = looks_of(directory)
    assert [(line["scale"], line["moved_kl"], line["moved_ce"]) for line in lines[:-1]] == [
        (look.scale, look.kl, look.nll) for look in looks
    ]
    assert lines[-1]["step"] == 1 and 0 <= lines[-1]["validation_bad_rate"] <= 1


def test_two_passes_over_negatives_and_one_over_as_many_normals_are_counted(tmp_path):
    run = made(tmp_path, elicitation_rate=0.0)
    run.train()
    data = run.data
    lengths = [len(row.prompt_ids) + len(row.reply_ids) for row in data.negatives]
    normals = [len(row.prompt_ids) + len(row.reply_ids) for row in data.normals]
    assert len(set(normals)) == 1  # whichever are drawn
    expected = sum(lengths) + normals[0] * min(len(lengths), len(normals))
    assert abs(run.meter.tokens["backward"] - expected) <= len(lengths) + len(normals)  # the last token is not read
    twice = made(tmp_path / "again")
    twice.train()
    assert twice.meter.tokens["backward"] - run.meter.tokens["backward"] == pytest.approx(sum(lengths), abs=30)


def cut_off(directory, look, monkeypatch, **settings):
    """Break a run off in one of its looks, after others were kept."""
    seen = []

    def breaks(*args):
        seen.append(args)
        if len(seen) == look:
            raise KeyboardInterrupt
        return applied(*args)

    applied = Update.apply
    with monkeypatch.context() as patched:
        patched.setattr(Update, "apply", breaks)
        run = made(directory, callbacks=[LogFile(directory / "log.jsonl")], **settings)
        with pytest.raises(KeyboardInterrupt):
            run.train()
    original = toy.learned_model().state_dict()
    assert all(torch.equal(weight, original[name]) for name, weight in run.model.state_dict().items())


@pytest.mark.parametrize("look", [1, 2, 6])
def test_a_run_broken_off_at_any_look_ends_the_same_without_looking_twice(tmp_path, whole, monkeypatch, look):
    cut_off(tmp_path, look, monkeypatch)
    monkeypatch.setattr(module, "find_direction", None)  # must not be asked
    run = made(tmp_path, callbacks=[LogFile(tmp_path / "log.jsonl")])
    run.train(resume_from_checkpoint=True)
    assert all(map(torch.equal, run.model.state_dict().values(), whole[0].model.state_dict().values()))
    assert looks_of(tmp_path) == looks_of(whole[1])
    assert run.stop == whole[0].stop and run.notes == whole[0].notes
    assert (tmp_path / "log.jsonl").read_text() == (whole[1] / "log.jsonl").read_text()
    assert run.meter.tokens["backward"] == whole[0].meter.tokens["backward"]


def test_a_direction_of_other_settings_or_rows_is_not_taken(tmp_path, whole, monkeypatch):
    made(tmp_path).train()
    held = load_file(tmp_path / "out/direction/direction.safetensors")
    for changed in ({"collapse": "soft"}, {"forget": toy.FORGET[:20]}, {"collapse_of": "negatives"}):
        made(tmp_path, **changed).train(resume_from_checkpoint=True)
        now = load_file(tmp_path / "out/direction/direction.safetensors")
        assert any(not torch.equal(now[name], held[name]) for name in now)


@pytest.mark.parametrize("damaged", ["state.json", module.FILE])
def test_half_a_direction_is_found_anew(tmp_path, whole, damaged):
    made(tmp_path).train()
    (tmp_path / "out/direction" / damaged).write_text("{")
    run = made(tmp_path)
    run.train(resume_from_checkpoint=True)
    assert all(map(torch.equal, run.model.state_dict().values(), whole[0].model.state_dict().values()))


STEPS = {"method": "repselect-template", "max_steps": 4, "validation_steps": 2, "patience": 99, "kl_budget": 9.0}
STEPS |= {"disruption": BUDGET, "gradient_accumulation_steps": 2}


def test_steps_follow_from_the_moved_weights_and_are_measured_against_the_original(tmp_path, whole):
    run = made(tmp_path, save_total_limit=9, **STEPS)
    run.train()
    moved = load_file(next((tmp_path / "out/checkpoint-0").glob("*.safetensors")))
    alone = whole[0].model.state_dict()
    assert all(torch.equal(weight, alone[name]) for name, weight in moved.items())
    first = toy.logged(run, "kl")[0]
    assert first > BUDGET / 20, "the KL of the first step is that to the original, not to the moved weights"
    assert run.state.global_step == 4 and run.watch.state.before_a == whole[0].watch.state.before_a


@pytest.mark.parametrize("step", [0, 1, 3])
def test_a_run_broken_off_in_its_steps_ends_the_same(tmp_path, step):
    runs = {}
    for name in ("cut", "whole"):
        if name == "cut":
            with pytest.raises(KeyboardInterrupt):
                made(tmp_path / name, callbacks=[Die(step)], **STEPS).train()
        runs[name] = made(tmp_path / name, **STEPS)
        runs[name].train(resume_from_checkpoint=name == "cut")
    cut, complete = runs["cut"], runs["whole"]
    assert all(map(torch.equal, cut.model.state_dict().values(), complete.model.state_dict().values()))
    assert cut.notes == complete.notes and any("moved along" in note for note in cut.notes)
    assert cut.meter.tokens == complete.meter.tokens


def test_only_trained_layers_move(tmp_path):
    run = made(tmp_path, train_layers=0.5)
    run.train()
    assert {name.split(".")[2] for name in load_file(tmp_path / "out/direction/direction.safetensors")} == {"1"}


def test_weights_of_half_precision_are_moved_in_float32_and_keep_their_type(tmp_path):
    pupil = toy.learned_model().to(torch.bfloat16)
    run = toy.trainer(tmp_path, pupil, method="repselect", **SETTINGS)
    run.train()
    assert {weight.dtype for weight in pupil.parameters()} == {torch.bfloat16}
    assert run.watch.state.seen.kl <= BUDGET and all(w.requires_grad for w in pupil.parameters())


REFUSED = [
    ({"stopping": False}, "leave --no-stopping out"),
    ({"collapse": "sofd"}, "--set trainer.collapse=sofd: unknown; did you mean 'soft'"),
    ({"collapse_sides": "left"}, "known: both, input, output, none"),
    ({"collapse_of": "rows"}, "known: normals, negatives"),
    ({"components": 0}, "components 0 must be at least 1"),
    ({"elicitation_rate": -1.0}, "elicitation_rate -1 at least 0"),
    ({"disruption": math.inf}, "disruption inf above 0"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_what_cannot_be_is_refused_before_anything_is_done(tmp_path, settings, message):
    with pytest.raises(ConfigError) as error:
        made(tmp_path, **settings)
    assert message in str(error.value)


def test_an_adapter_is_refused_and_what_to_use_is_said(tmp_path):
    with pytest.raises(ConfigError, match="leave the adapter out, or choose --method template"):
        toy.trainer(tmp_path, extra={"peft_config": lora_config(4, 8.0)}, method="repselect", **SETTINGS)


def test_without_normals_there_is_nothing_to_measure(tmp_path):
    with pytest.raises(ConfigError, match="no normal rows"):
        made(tmp_path, retain=None).train()


def test_a_budget_that_no_scale_keeps_is_said_and_the_model_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "strongest", lambda budget, kl_at: 0.0 * kl_at(1.0))
    run = made(tmp_path)
    with pytest.raises(ConfigError, match=r"no scale keeps the KL within 0.05"):
        run.train()
    original = toy.learned_model().state_dict()
    assert all(torch.equal(weight, original[name]) for name, weight in run.model.state_dict().items())


def test_no_other_run_loads_it():
    code = "import sys, unteach.pipeline.run; print(any('repselect' in n or n.endswith('.move') for n in sys.modules))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
