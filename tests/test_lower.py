"""States below the trained layers, kept: scores and gradients are those of the whole model, and work is saved."""

import pytest
import torch
from peft import get_peft_model

import toy
from test_architectures import CASES, build
from unteach.errors import ConfigError
from unteach.models.adapter import lora_config
from unteach.models.layers import decoder_layers, first_trained, freeze_below, upper_layers
from unteach.results.cost import flops_of, multiplying_parameters
from unteach.scoring import lower as module
from unteach.scoring.lower import LowerStates, hidden_states, lower_agree
from unteach.scoring.reference import AdapterOff
from unteach.scoring.score import score
from unteach.scoring.trees import Branch, Tree, lay_out

LAYERS = {"num_hidden_layers": 4}
GPT2 = {"n_layer": 4, "num_hidden_layers": 4}
NORMALS = [Tree((1, 5, 6), (Branch("normal", (7, 8, 2)),), ("normals", 0)), Tree((1, 9), (Branch("normal", (3,)),))]


def four_layers(name, attention="sdpa"):
    return build(name, attention, **(GPT2 if name == "GPT2" else LAYERS))


def with_upper_adapter(model, share=0.5):
    live = get_peft_model(model, lora_config(4, 8, "all-linear", model, share))
    torch.manual_seed(1)
    for name, weight in live.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.3)
    return live


def scored(model, batch, lower=None):
    model.zero_grad()
    log_probs = score(hidden_states(model, batch, lower), batch.targets).log_probs
    (log_probs * torch.linspace(-1, 2, len(log_probs))).sum().backward()
    return log_probs.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same(found, expected):
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=1e-6)
    assert found[1].keys() == expected[1].keys() != set()
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).abs().max() <= 1e-6 * (1 + gradient.abs().max()), name


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_scores_and_gradients_are_those_of_the_whole_model(name, attention, trees):
    model = with_upper_adapter(four_layers(name, attention))
    assert first_trained(model) == 2
    lower = LowerStates.of(model)
    for packed in (True, False):
        batch = lay_out(trees, packed=packed)
        expected = scored(model, batch)
        for _ in range(2):  # computed, then kept
            assert_same(scored(model, batch, lower), expected)
        assert lower_agree(model, batch, lower)[0]
    torch.testing.assert_close(scored(model, batch)[0], expected[0])  # the layers run as before afterwards


@pytest.mark.parametrize("name", ["Llama", "GPT2"])
def test_full_tuning_of_the_upper_layers(name, trees):
    model = four_layers(name)
    freeze_below(model, 3)
    assert first_trained(model) == 3
    batch = lay_out(trees, packed=True)
    assert_same(scored(model, batch, LowerStates.of(model)), scored(model, batch))


@pytest.mark.filterwarnings("ignore:None of the inputs:UserWarning")  # torch's, of a forward without gradients
@pytest.mark.parametrize("reentrant", [True, False])
def test_activation_checkpointing_has_the_same_gradients(reentrant, trees):
    model = with_upper_adapter(four_layers("Llama"))
    batch, lower = lay_out(trees, packed=True), LowerStates.of(model)
    expected = scored(model, batch)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    model.train()
    assert_same(scored(model, batch, lower), expected)


def test_a_branch_is_read_once_whatever_tree_it_stands_in(trees, monkeypatch):
    model = with_upper_adapter(four_layers("Llama"))
    lower, read = LowerStates.of(model), []
    run = LowerStates._run
    monkeypatch.setattr(LowerStates, "_run", lambda self, batch: read.append(batch.token_count) or run(self, batch))
    tree = Tree((1, 5, 6), (Branch("negative", (7, 8, 2)), Branch("template", (9, 2))))
    lower(lay_out([tree]))
    assert read == [tree.places] and lower.skipped == 0
    lower(lay_out([tree.only("template")]))
    assert read == [tree.places] and lower.skipped == 4
    other = Tree(tree.prompt_ids, (tree.branches[0], Branch("mismatch", (10, 11, 2))))
    lower(lay_out([other]))
    assert read == [tree.places, 3 + 2]


def test_without_room_states_are_computed_each_time(trees, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 0)
    model = with_upper_adapter(four_layers("Llama"))
    batch, lower = lay_out(trees, packed=True), LowerStates.of(model)
    for _ in range(2):
        assert_same(scored(model, batch, lower), scored(model, batch))
    assert lower.skipped == 0


def test_the_original_is_read_once_a_row():
    model = with_upper_adapter(four_layers("Llama"))
    lower, whole = LowerStates.of(model), AdapterOff(model)
    off = AdapterOff(model, lower)
    for chosen in ([NORMALS[0]], NORMALS, NORMALS[::-1]):
        batch = lay_out(chosen, packed=True)
        torch.testing.assert_close(off(batch).states, whole(batch).states, rtol=1e-6, atol=1e-6)
    assert off.tokens_read == 5 + 2


def test_a_model_whose_upper_layers_read_more_is_found_out(trees):
    model = with_upper_adapter(four_layers("Llama"))
    layers = decoder_layers(model)[1]
    seen = []
    layers[0].register_forward_hook(lambda _, __, output: seen.append(output))
    layers[3].register_forward_hook(lambda _, __, output: output + seen[-1])
    assert not lower_agree(model, lay_out(trees), LowerStates.of(model))[0]


def test_which_layer_is_the_first_that_training_changes():
    model = four_layers("Llama")
    assert first_trained(model) == 0 and LowerStates.of(model) is None
    assert upper_layers(model, 0.5) == range(2, 4) and upper_layers(model, 0.01) == range(3, 4)
    model.requires_grad_(False)
    decoder_layers(model)[1][2].requires_grad_(True)
    assert first_trained(model) == 2
    model.get_output_embeddings().requires_grad_(True)
    assert first_trained(model) == 2
    model.get_input_embeddings().requires_grad_(True)
    assert first_trained(model) == 0


def test_the_model_inside_an_adapter_is_read_like_any_other():
    """PEFT marks it with `peft_config` as well, and the original is measured through it."""
    inner = with_upper_adapter(four_layers("Llama")).get_base_model()
    assert hasattr(inner, "peft_config") and first_trained(inner) == 2
    assert flops_of(inner, forward=3) == 6 * multiplying_parameters(inner)[0]


def test_a_model_without_a_list_of_layers():
    model = four_layers("Llama")
    model.config.num_hidden_layers = 7
    assert first_trained(model) == 0
    with pytest.raises(ConfigError, match="--train-layers: LlamaForCausalLM has no list of 7 layers"):
        upper_layers(model, 0.5)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5])
def test_a_share_that_cannot_be(share, tmp_path):
    with pytest.raises(ConfigError, match=f"--train-layers {share:g}: must be above 0 and at most 1"):
        toy.trainer(tmp_path, train_layers=share)


def test_what_the_lower_layers_do_not_read_costs_nothing():
    model = with_upper_adapter(four_layers("Llama"))
    whole, trained = multiplying_parameters(model)
    below = sum(weight.numel() for layer in decoder_layers(model)[1][:2] for weight in layer.parameters())
    assert flops_of(model, backward=10) == (4 * whole - 2 * below + 2 * trained) * 10
    assert flops_of(model, backward=10, kept=10) == (4 * (whole - below) + 2 * trained) * 10


@pytest.mark.parametrize("adapter", [True, False])
def test_a_run_with_kept_states_ends_where_one_without_does(adapter, tmp_path, monkeypatch):
    def weights(where):
        pupil = toy.model(num_hidden_layers=4)
        extra = {"peft_config": lora_config(4, 8, "all-linear", pupil, 0.5)} if adapter else {}
        run = toy.trainer(tmp_path / where, pupil, extra=extra, max_steps=6, stopping=False, train_layers=0.5)
        before = {name: weight.detach().clone() for name, weight in run.model.named_parameters()}
        run.train()
        assert (run.meter.tokens["kept"] > 0) == (where == "kept")
        return before, dict(run.model.named_parameters())

    before, kept = weights("kept")
    moved = {name for name in kept if not torch.equal(before[name], kept[name])}
    assert moved and not any(f".layers.{number}." in name for name in moved for number in (0, 1))
    monkeypatch.setattr(LowerStates, "of", lambda model: None)
    _, plain = weights("plain")
    for name, weight in plain.items():
        torch.testing.assert_close(kept[name], weight, rtol=1e-4, atol=1e-6)
