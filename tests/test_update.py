"""An update is applied at any scale and undone bit by bit, for whole weights and for adapters."""

import copy

import pytest
import torch

import toy
from unteach.errors import ModelError
from unteach.models.adapter import add_adapter, lora_config
from unteach.training.update import Update


def two_models(dtype=torch.float32):
    """A model, and the same with other weights, some of them equal."""
    before = toy.model().to(dtype)
    after = copy.deepcopy(before)
    drawn = torch.Generator().manual_seed(1)
    for name, weight in after.named_parameters():
        if "layernorm" not in name:
            weight.data += 0.01 * torch.randn(weight.shape, generator=drawn).to(dtype)
    return before, after


def adapted():
    """A model with an adapter whose two factors are both at random."""
    model = add_adapter(toy.model(), lora_config(4, 8.0))
    drawn = torch.Generator().manual_seed(2)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            weight.data = 0.1 * torch.randn(weight.shape, generator=drawn)
    return model


def logits(model):
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 11)[None]).logits


def same(model, weights):
    return all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def copied(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scales_zero_and_one_are_the_weights_themselves_and_undo_puts_them_back(dtype):
    before, after = two_models(dtype)
    update, held = Update.of(before.state_dict(), after.state_dict()), copied(after)
    for scale in (0.3, 1, -2.0, 0):
        update.apply(after, scale)
        if scale in (0, 1):
            assert same(after, copied(before) if scale == 0 else held)
    update.undo(after)
    assert same(after, held)
    update.undo(after)  # nothing is held any more
    assert same(after, held)


def test_every_scale_counts_from_the_start_and_not_from_the_last_one():
    before, after = two_models()
    name = "model.layers.0.mlp.up_proj.weight"
    old, new = (model.state_dict()[name].double().numpy().copy() for model in (before, after))
    update = Update.of(before.state_dict(), after.state_dict())
    for scale in (3.0, 0.25):
        update.apply(before, scale)
        moved = before.state_dict()[name].double().numpy()
        assert abs(moved - ((1 - scale) * old + scale * new)).max() < 1e-6


def test_equal_weights_are_left_out():
    before, after = two_models()
    update = Update.of(before.state_dict(), after.state_dict())
    assert update.change and not any("layernorm" in name for name in update.change)


def test_a_direction_starts_from_the_weights_of_the_model():
    model = toy.model()
    held, name = copied(model), "model.layers.1.mlp.down_proj.weight"
    direction = torch.full_like(held[name], 0.5)
    update = Update({name: direction})
    update.apply(model, 0.1)
    update.apply(model, 0.2)
    assert torch.allclose(model.state_dict()[name], held[name] + 0.1, atol=1e-7)
    update.undo(model)
    assert same(model, held)


def test_an_adapter_is_scaled_as_its_change_of_the_weights_is():
    model, scale = adapted(), 0.4
    update, held = Update.of_adapter(model), copied(model)
    merged = copy.deepcopy(model)
    plain = merged.get_base_model()
    with torch.no_grad():
        for module in plain.modules():
            if hasattr(module, "lora_A"):
                a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
                module.base_layer.weight += scale * module.scaling["default"] * b @ a
    with merged.disable_adapter():
        expected = logits(merged)
    update.apply(model, scale)
    assert torch.allclose(logits(model), expected, atol=1e-5)
    update.apply(model, 0)
    with model.disable_adapter():
        original = logits(model)
    assert torch.equal(logits(model), original)
    update.undo(model)
    assert same(model, held)


def test_of_takes_the_weights_of_an_adapter_too():
    """A fresh adapter has B = 0; at every scale A is the trained one, or the change would grow with the square."""
    trained, fresh = adapted(), add_adapter(toy.model(), lora_config(4, 8.0))
    update = Update.of(fresh.state_dict(), trained.state_dict())
    update.apply(fresh, 0.5)
    half = Update.of_adapter(trained)
    half.apply(trained, 0.5)
    assert torch.allclose(logits(fresh), logits(trained), atol=1e-6)


def test_another_model_is_refused():
    before, after = two_models()
    update = Update.of(before.state_dict(), after.state_dict())
    with pytest.raises(ModelError, match="another model"):
        update.apply(toy.model(hidden_size=16), 1.0)
    with pytest.raises(ModelError, match="different models"):
        Update.of(before.state_dict(), toy.model(hidden_size=16).state_dict())
    with pytest.raises(ModelError, match="no adapter"):
        Update.of_adapter(before)
    settings = lora_config(4, 8.0)
    settings.use_dora = True
    with pytest.raises(ModelError, match="use_dora"):
        Update.of_adapter(add_adapter(toy.model(), settings))
