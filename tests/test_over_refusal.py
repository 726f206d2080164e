"""Corrections of a finished update: the closed forms solve what they say, and the script measures all of them."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

import toy
from command import save, write_rows
from unteach.data.prompt_format import prompt_format
from unteach.training.update import Update

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
LOOKALIKES = ["how to a1 b1", "how to a2 b3"]
HARMFUL = ["how to a4 b2", "how to c1 d5", "how to a5 b5"]


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))  # it reads other scripts
        yield importlib.import_module("over_refusal")
        for name in ("over_refusal", "first_token", "real_model", "refusals"):
            sys.modules.pop(name, None)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def layer():
    """The change of a layer of 8 inputs and 5 outputs, and inputs at 3 look-alikes and 20 harmful prompts."""
    return drawn(5, 8), drawn(3, 8, seed=1), drawn(20, 8, seed=2)


def moment(x):
    return x.T @ x / len(x)


def test_no_weight_changes_nothing_and_all_of_it_leaves_lookalikes_as_they_were(script, layer):
    change, look, harm = layer
    for harmful in (None, moment(harm)):
        torch.testing.assert_close(script.held(change, moment(look), 0.0, harmful), change)
        assert (script.held(change, moment(look), 1e9, harmful) @ look.T).abs().max() < 1e-6
    others = torch.linalg.svd(look).Vh[3:]  # directions in which no look-alike lies
    torch.testing.assert_close(script.held(change, moment(look), 1e9) @ others.T, change @ others.T)


@pytest.mark.parametrize("weight", [0.1, 3.0])
def test_the_closed_form_is_the_minimum(script, layer, weight):
    change, look, harm = layer
    looks, harms = (script.scaled(moment(x)) for x in (look, harm))
    one = torch.eye(8, dtype=torch.float64)
    for harmful, keep in ((None, one), (moment(harm), script.RIDGE * one + harms)):
        new = script.held(change, moment(look), weight, harmful).requires_grad_()
        moved = new - change
        loss = (moved @ keep @ moved.T).trace() + weight * (new @ looks @ new.T).trace()
        loss.backward()
        assert new.grad.abs().max() < 1e-10 and not torch.allclose(new, change)


def test_what_harmful_prompts_need_is_kept_better_when_they_are_read(script, layer):
    change, look, harm = layer
    look = torch.cat([look, harm[:2]])  # some harmful prompts look alike
    lost = [(((script.held(change, moment(look), 1.0, h)) - change) @ harm.T).norm() for h in (None, moment(harm))]
    assert lost[1] < lost[0]


def test_the_null_space_lacks_the_strongest_directions_and_no_others(script, layer):
    change = layer[0]
    axes = torch.linalg.qr(drawn(8, 8, seed=3)).Q
    normal = axes @ torch.diag(torch.tensor([64, 32, 2, 1, 0.5, 0.25, 0.125, 0.125]).double()) @ axes.T
    for share, count in ((0.6, 1), (0.9, 2), (0.97, 3)):
        left = script.null_space(change, normal, share) @ axes
        assert left[:, :count].abs().max() < 1e-10
        torch.testing.assert_close(left[:, count:], (change @ axes)[:, count:])


def reading(script, margins, states):
    return script.Reading(torch.tensor(margins), {1: states}, {})


def test_false_refusals_lie_across_true_ones(script):
    look, harm, benign = drawn(6, 8), drawn(4, 8, seed=1), drawn(4, 8, seed=2)
    looks = reading(script, [1.0, -1.0, 2.0, -3.0, -1.0, 0.5], look)
    others = [reading(script, [0.0] * 4, states) for states in (harm, benign)]
    direction = script.false_refusal(looks, *others, 1)
    true = harm.mean(0) - benign.mean(0)
    assert abs(direction @ true) < 1e-10
    plain = look[[0, 2, 5]].mean(0) - look[[1, 3, 4]].mean(0)
    assert direction @ plain > 0 and torch.linalg.matrix_rank(torch.stack([direction, plain, true])) == 2
    with pytest.raises(SystemExit, match="0 of 6 look-alikes are declined"):
        script.false_refusal(reading(script, [-1.0] * 6, look), *others, 1)


def test_the_difference_of_two_areas_is_paired(script):
    rng = np.random.default_rng(0)
    bad, good = rng.normal(1, 1, size=60), rng.normal(size=70)
    better = {"bad": bad + 1, "good": good}
    old, new = (script.wins(found, "bad", "good") for found in ({"bad": bad, "good": good}, better))
    labels = [1] * 60 + [0] * 70
    areas = [roc_auc_score(labels, np.concatenate([scores, good])) for scores in (bad, bad + 1)]
    value, low, high = script.auc_difference(new, old)
    assert value == pytest.approx(areas[1] - areas[0]) and 0 < low < value < high
    assert script.auc_difference(new, new) == (0, 0, 0)


def finished():
    """Return the toy model as a run might leave it, with weights of its upper layer changed."""
    pupil = toy.learned_model()
    torch.manual_seed(3)
    for name, weight in pupil.named_parameters():
        if "layers.1" in name and name.endswith("proj.weight"):
            weight.data += torch.randn_like(weight) * 0.1
    return pupil


def test_a_model_that_is_held_at_lookalikes_treats_them_as_the_original_does(script):
    original, model = toy.learned_model().double(), finished().double()
    form, update = prompt_format(toy.tokenizer()), script.linear_update(original, model)
    assert len(update.change) == 7 and script.first_changed(model, list(update.change)) == 1
    looks = script.read(original, form, LOOKALIKES, "look-alikes", list(update.change), None)
    before, after = ([script.margins(m, form, p, "") for p in (LOOKALIKES, HARMFUL)] for m in (original, model))
    assert looks.margins.tolist() == pytest.approx(before[0])
    changes = {name: script.held(u, looks.moments["prompt"][name], 1e10) for name, u in update.change.items()}
    Update(changes, update.start).apply(model, 1)
    kept, harmful = (script.margins(model, form, prompts, "") for prompts in (LOOKALIKES, HARMFUL))
    assert kept == pytest.approx(before[0], abs=1e-4) and after[0] != pytest.approx(before[0], abs=0.05)
    assert harmful != pytest.approx(before[1], abs=0.01)


def test_the_script_tries_everything_on_a_finished_model(script, tmp_path, capsys, monkeypatch):
    pairs = [f"{letter}{i} {other}{j}" for letter, other in ("ab", "cd") for i in range(6) for j in range(6)]
    write_rows(tmp_path / "advbench.jsonl", ({"prompt": f"how to {pairs[n % 36]}"} for n in range(230)))
    kinds = [("unsafe", "how to"), ("safe", "where is")]
    write_rows(tmp_path / "xstest.jsonl", ({"prompt": f"{a} {p}", "label": kind} for kind, a in kinds for p in pairs))
    write_rows(tmp_path / "instructions.jsonl", ({"prompt": f"where is {p}"} for p in pairs))
    shipped = {"harmful_prompts": "how to take", "training_lookalikes": "how to go", "benign_prompts": "where is"}
    for name, words in shipped.items():
        monkeypatch.setattr(script, name, lambda words=words: [f"{words} {pair}" for pair in pairs])
    monkeypatch.setattr(script, "validation_prompts", lambda: (HARMFUL, ["where is e1 f2", "where is e3 f4"]))
    monkeypatch.setattr(script, "false_refusal", lambda look, *_: look.states[1].mean(0))  # it declines nothing
    models = ["--model", save(finished(), tmp_path / "out"), "--original"]
    words = [str(w) for w in ["--data", tmp_path, *models, save(toy.learned_model(), tmp_path / "model"), "--read", 12]]
    measured, line = {}, script.line
    monkeypatch.setattr(
        script, "line", lambda name, found, old: measured.update({name: found}) or line(name, found, old)
    )
    script.main(words)
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in capsys.readouterr().out.splitlines()]
    head, _, trained, *others = rows
    assert len({row[0] for row in others}) == len(others) == 2 * (2 + 2 + 1) + 2 + 1
    assert all(len(row) == len(head) and row[4].endswith("of 2") for row in (trained, *others))
    assert trained[2] == "+0.000 [+0.000, +0.000]" and trained[7] == trained[2]
    assert len({tuple(found["XSTest unsafe"]) for found in measured.values()}) == 1 + len(others)
    form = prompt_format(toy.tokenizer())
    assert list(measured["scale 0"]["our harmful pairs"]) == script.margins(toy.learned_model(), form, HARMFUL, "")
    script.main([*words, "--only", "scale"])
    assert [row.split("|")[1].strip() for row in capsys.readouterr().out.splitlines()[3:]] == [
        f"scale {scale}" for scale in ("0", "0.6")
    ]
    with pytest.raises(SystemExit, match="are those of --original"):
        script.main([*words[:4], "--original", words[3]])
