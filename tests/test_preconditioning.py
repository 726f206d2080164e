"""Steps that spare normal rows: the directions, the optimizer, and what the trainer does with them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import toy
from test_architectures import build
from unteach.errors import ConfigError
from unteach.models.adapter import lora_config
from unteach.scoring.trees import reply_trees
from unteach.training import preconditioning as preconditioning
from unteach.training.config import UnlearnConfig
from unteach.training.preconditioning import DAMPING, REACH, Directions, PreconditionedAdam, directions_of

ROWS = reply_trees("normals", [((1, 5, 6, 7), (8, 9, 2)), ((1, 11), (12, 13, 14, 2)), ((1, 20, 21), (22, 2))], "normal")


def moments(width=6, used=2, count=400):
    """Second moments of inputs that vary in `used` random directions of `width`, and those directions."""
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(width, width))[0]
    inputs = torch.randn(count, used) @ basis[:, :used].T
    return inputs.T @ inputs / count, basis[:, :used]


def test_steps_are_short_where_inputs_vary_and_long_where_they_do_not():
    second, used = moments()
    found = Directions.of(second)
    assert found.steps.square().mean().sqrt() == pytest.approx(REACH, rel=1e-5)
    along = (found.basis.T @ used).square().sum(dim=1)  # how much of each direction the inputs use
    assert along[found.steps.argsort()] == pytest.approx(torch.tensor([1.0, 1, 0, 0, 0, 0]), abs=1e-4)
    variances = torch.linalg.eigvalsh(second.double())
    expected = (variances / variances.mean() + DAMPING).rsqrt()
    ratio = found.steps.max() / found.steps.min()
    assert float(ratio) == pytest.approx(float(expected.max() / expected.min()), rel=1e-3)


@pytest.mark.parametrize("axis", [0, 1])
def test_what_goes_into_the_directions_comes_out_stretched(axis):
    found = replace(Directions.of(moments()[0]), axis=axis)
    weight = torch.randn((6, 3) if axis == 0 else (3, 6))
    inverse = Directions(1 / found.steps, found.basis, axis)
    restored = inverse.out_of(found.into(found.out_of(found.into(weight))))
    torch.testing.assert_close(restored, weight, rtol=1e-4, atol=1e-5)


def test_with_equal_steps_it_is_adamw():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 3), nn.Linear(4, 3)
    theirs.load_state_dict(ours.state_dict())
    flat = Directions(torch.ones(4), None)
    settings = {"lr": 0.1, "betas": (0.8, 0.95), "weight_decay": 0.01}
    optimizers = (
        PreconditionedAdam(ours.parameters(), {ours.weight: flat}, **settings),
        torch.optim.AdamW(theirs.parameters(), **settings),
    )
    for _ in range(5):
        inputs = torch.randn(7, 4)
        for layer, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            layer(inputs).pow(3).sum().backward()
            optimizer.step()
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(ours.bias, theirs.bias)


def test_a_layer_moves_less_under_what_it_spares():
    """At the same size of the change, inputs along the spared directions are answered far more alike."""
    second, used = moments(width=16, used=4)
    torch.manual_seed(1)
    spared, wanted = torch.randn(50, 4) @ used.T, torch.randn(50, 16)
    drift = {}
    for name in ("preconditioning", "plain"):
        torch.manual_seed(2)
        layer = nn.Linear(16, 8, bias=False)
        before, weight = layer(spared).detach(), layer.weight.detach().clone()
        directions = {layer.weight: Directions.of(second)} if name == "preconditioning" else {}
        optimizer = PreconditionedAdam(layer.parameters(), directions, lr=0.01)
        for _ in range(20):
            optimizer.zero_grad()
            (layer(wanted) - 1).square().mean().backward()
            optimizer.step()
        drift[name] = ((layer(spared) - before).norm() / (layer.weight - weight).norm()).item()
    assert drift["preconditioning"] < 0.4 * drift["plain"]


@pytest.mark.parametrize("name", ["Llama", "GPT2", "GPTNeoX"])
def test_every_linear_layer_but_the_head_has_directions(name):
    model = build(name)
    before = toy.weights(model)
    found, read = directions_of(model, ROWS, 0)
    assert read == sum(tree.tokens - 1 for tree in ROWS)
    named = {parameter: label for label, parameter in model.named_parameters()}
    labels = {named[weight] for weight in found}
    assert len(labels) == 2 * {"Llama": 7, "GPT2": 4, "GPTNeoX": 4}[name]
    assert not any("embed" in label or "lm_head" in label or "wte" in label for label in labels)
    for weight, directions in found.items():
        assert directions.into(weight).shape[1] == len(directions.steps)
    assert all(torch.equal(before[label], value) for label, value in toy.weights(model).items())


def test_padding_is_not_counted(monkeypatch):
    model = build("Llama")
    together, _ = directions_of(model, ROWS, 0)
    monkeypatch.setattr(
        preconditioning, "batches_of", lambda lengths, device: [[number] for number in range(len(lengths))]
    )
    apart, _ = directions_of(model, ROWS, 0)
    for weight, directions in together.items():
        steps = (apart[weight].steps.sort().values, directions.steps.sort().values)
        torch.testing.assert_close(*steps, rtol=1e-3, atol=1e-4)


def test_it_spares_and_leaves_embeddings_where_it_is_asked_for(tmp_path):
    run = toy.trainer(tmp_path, preconditioning=True)
    before, plain = toy.weights(run.model), toy.trainer(tmp_path)
    for trainer in (run, plain):
        trainer.read_original()
    assert run.meter.tokens["forward"] > plain.meter.tokens["forward"] > 0
    run.train()
    assert isinstance(run.optimizer.optimizer, PreconditionedAdam)
    after = toy.weights(run.model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and not any("embed_tokens" in name or "lm_head" in name for name in moved)


@pytest.mark.parametrize(
    ("settings", "spares"),
    [
        ({}, False),
        ({"method": "rto"}, True),
        ({"method": "rto", "preconditioning": False}, False),
        ({"method": "rto", "optim": "sgd"}, False),
    ],
)
def test_unless_asked_for_it_is_the_methods_choice_where_it_can(tmp_path, settings, spares):
    run = toy.trainer(tmp_path, **settings)
    run.train()
    assert isinstance(run.optimizer.optimizer, PreconditionedAdam) == spares
    assert UnlearnConfig(output_dir=str(tmp_path)).preconditioning is None


def test_layers_that_read_the_same_share_their_directions():
    model = toy.model()
    layer = model.model.layers[0]
    found, _ = directions_of(model, ROWS, 0)
    attention, block = layer.self_attn, layer.mlp
    for one, other in ((attention.q_proj, attention.v_proj), (block.gate_proj, block.up_proj)):
        assert found[one.weight].basis is found[other.weight].basis
    assert not torch.equal(found[attention.q_proj.weight].basis, found[attention.o_proj.weight].basis)


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    settings = {"preconditioning": True, "max_steps": 6, "save_strategy": "steps", "save_steps": 3, "warmup_steps": 0}
    whole = toy.trainer(tmp_path / "whole", **settings)
    whole.train()
    rest = toy.trainer(tmp_path / "rest", **settings)
    rest.train(resume_from_checkpoint=str(tmp_path / "whole" / "out" / "checkpoint-3"))
    assert rest.state.global_step == 6
    assert all(torch.equal(value, toy.weights(rest.model)[name]) for name, value in toy.weights(whole.model).items())


@pytest.mark.parametrize(
    ("settings", "extra", "reason"),
    [
        ({"optim": "sgd"}, {}, "the optimizer is not Adam"),
        ({}, {"extra": {"peft_config": lora_config(4, 8.0)}}, "an adapter is trained"),
        ({"method": "ga", "retain_weight": 0.0, "stopping": False}, {"retain": None}, "there are no normal rows"),
    ],
)
def test_what_it_cannot_do_is_refused(tmp_path, settings, extra, reason):
    with pytest.raises(ConfigError, match=f"--preconditioning: {reason}.*; leave it out"):
        toy.trainer(tmp_path, preconditioning=True, **settings, **extra)
