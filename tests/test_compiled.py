"""Compiled layers and head, and flex attention over trees: scores, KL and gradients are those of the plain way.

Most tests compile with `aot_eager`: the same graphs, run without generated kernels. PyTorch has no backward pass of
flex attention on a CPU; its gradients are tested with that refusal off, by PyTorch's own plain arithmetic for it.
"""

import copy
import inspect
import random

import pytest
import torch
from peft import get_peft_model
from torch import log_softmax
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn.attention import flex_attention as flex_module
from torch.nn.attention.flex_attention import create_mask

import toy
from test_lower import with_upper_adapter
from unteach.errors import ConfigError
from unteach.models.adapter import lora_config
from unteach.models.layers import decoder_layers
from unteach.scoring import compiled as module
from unteach.scoring import score as scoring
from unteach.scoring.compiled import Compiled, compiled_agree
from unteach.scoring.head import Head
from unteach.scoring.lower import LowerStates, hidden_states
from unteach.scoring.mask import tree_rule
from unteach.scoring.reference import AdapterOff
from unteach.scoring.score import last_hidden_states, score
from unteach.scoring.tilt import Tilt
from unteach.scoring.trees import Branch, Tree, lay_out
from unteach.training.config import UnlearnConfig
from unteach.training.settings import COMPILED

# torch.compile hides this warning of its own by a hook, which comes too late where warnings are errors.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")

CHUNK_PARTS = ((scoring, "_scores"), (scoring.Scores, "__init__"))
HEADS = {"heads": {}, "grouped": {"num_key_value_heads": 2}}


@pytest.fixture(autouse=True)
def graphs(monkeypatch):
    """Forget what other tests have compiled, and count the graphs that this one makes."""
    torch._dynamo.reset()
    for owner, name in ((Head, "__call__"), (scoring, "forward_kl"), (module, "score_chunk"), *CHUNK_PARTS):
        monkeypatch.setattr(owner, name, inspect.unwrap(getattr(owner, name)))  # shape checks cannot be compiled
    counted = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(module, "BACKEND", counted)
    return counted


@pytest.fixture
def with_backward(monkeypatch):
    monkeypatch.setattr(flex_module, "_validate_device", lambda *_: None)


def random_trees(rng, count, shared):
    def ids(most):
        return tuple(rng.randrange(8, len(toy.VOCABULARY)) for _ in range(rng.randint(1, most)))

    first = tuple(rng.randrange(8, len(toy.VOCABULARY)) for _ in range(shared))
    return [
        Tree(first + ids(9), tuple(Branch("negative", ids(7)) for _ in range(rng.randint(1, 3)))) for _ in range(count)
    ]


def batches():
    """Trees packed with a shared beginning and without, one in a row, and plain rows."""
    rng = random.Random(0)
    trees, alone = random_trees(rng, 5, 12), random_trees(rng, 4, 0)
    return [lay_out(trees, packed=True), lay_out(alone, packed=True), lay_out(alone), lay_out(alone).plain()]


def allowed(batch):
    """Which places each place may attend to, from the words of the docstring: one place after the other."""
    rows, length = batch.input_ids.shape
    found = torch.eye(length, dtype=torch.bool).repeat(rows, 1, 1)
    for row in range(rows):
        places = list(zip(batch.members[row].tolist(), batch.segments[row].tolist(), strict=True))
        for query, (tree, part) in enumerate(places):
            for key, (its_tree, its_part) in enumerate(places[:query]):
                if part >= 0 and its_part >= 0 and its_tree in (tree, -2) and its_part in (0, part):
                    found[row, query, key] = True
    return found[:, None]


@pytest.mark.parametrize("seed", range(12))
def test_blocks_are_made_from_the_rule_of_the_dense_mask(seed):
    rng = random.Random(seed)
    batch = lay_out(random_trees(rng, rng.randint(1, 7), rng.choice([0, 0, 3, 20])), packed=seed % 2 == 0)
    rows, length = batch.input_ids.shape
    expected = allowed(batch)
    assert torch.equal(batch.may_attend(), expected)
    assert torch.equal(
        create_mask(tree_rule(batch.members, batch.segments), rows, None, length, length, device="cpu"), expected
    )


def scored(model, batch, original=None, lower=None, backward=True):
    """Log-probabilities, KL and gradients; the head in chunks of 9 tokens, with a tilt."""
    model.zero_grad()
    tilt = Tilt(9, torch.linspace(0, 1, len(batch.targets)))
    with torch.set_grad_enabled(backward):
        scores = score(hidden_states(model, batch, lower), batch.targets, original, tilt)
    values = [scores.log_probs] + ([scores.kl] if original else [])
    if backward:
        sum((value * torch.linspace(-1, 2, len(value))).sum() for value in values).backward()
    return [value.detach() for value in values], {
        n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None
    }


def assert_same(found, expected):
    for value, right in zip(found[0], expected[0], strict=True):
        torch.testing.assert_close(value, right, rtol=1e-5, atol=2e-5)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        assert (found[1][name] - gradient).abs().max() <= 2e-5 * (1e-2 + gradient.abs().max()), name


def moved(model):
    """A copy of a model with other weights: an original, to which the KL has gradients."""
    other = copy.deepcopy(model).requires_grad_(False)
    torch.manual_seed(5)
    for weight in other.parameters():
        weight += 0.1 * weight.abs().mean() * torch.randn_like(weight)
    return other


def same_on_all(model, compiled, monkeypatch, backward=True, lower=None):
    monkeypatch.setattr(scoring, "CHUNK_BYTES", 9 * 4 * len(toy.VOCABULARY))
    other = moved(model)
    for batch in batches():
        with torch.no_grad():
            original = last_hidden_states(other, batch)
        expected = scored(model, batch, original, backward=backward)
        with compiled.on():
            assert_same(scored(model, batch, original, lower, backward), expected)


@pytest.mark.parametrize("heads", HEADS)
def test_layers_and_head_score_alike_compiled(heads, monkeypatch, graphs):
    model = toy.model(**HEADS[heads])
    same_on_all(model, Compiled(model), monkeypatch)
    assert 0 < graphs.frame_count <= 6, "layers share graphs, and so do widths"


def test_flex_attention_scores_alike(monkeypatch, graphs):
    model = toy.model(**HEADS["grouped"])
    same_on_all(model, Compiled(model, flex=True), monkeypatch, backward=False)
    assert graphs.frame_count > 0


@pytest.mark.parametrize("heads", HEADS)
def test_gradients_through_flex_attention_are_the_same(heads, monkeypatch, with_backward):
    model = toy.model(**HEADS[heads])
    same_on_all(model, Compiled(model, flex=True), monkeypatch)


def test_flex_attention_has_no_backward_on_a_cpu_still():
    """Where this fails, `--compile flex` need not be refused there any more, nor a test take a detour."""
    model, batch = toy.model(), batches()[0]
    with pytest.raises(NotImplementedError, match="backward on CPU"), Compiled(model, flex=True).on():
        scored(model, batch)


@pytest.mark.parametrize("checkpoints", [False, True])
def test_an_adapter_above_kept_states_trains_alike(checkpoints, monkeypatch, graphs):
    model = with_upper_adapter(toy.model(num_hidden_layers=4))
    if checkpoints:
        model.train().activation_checkpointing_enable({"use_reentrant": False})
    same_on_all(model, Compiled(model), monkeypatch, lower=LowerStates.of(model))


def test_the_adapter_is_off_for_the_original_in_compiled_layers_too(graphs):
    model = get_peft_model(toy.model(), lora_config(4, 8, "all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.3)
    compiled, made = Compiled(model), 0
    for number, batch in enumerate((*batches()[2:], *batches()[3:])):
        batch = batch.only("negative") if batch.is_plain else batch.plain()
        reference = AdapterOff(model)
        expected = score(last_hidden_states(model, batch), batch.targets, reference(batch))
        with compiled.on():
            found = score(last_hidden_states(model, batch), batch.targets, reference(batch))
        assert expected.kl.mean() > 0.01
        torch.testing.assert_close(found.kl, expected.kl, rtol=1e-4, atol=2e-5)
        made = graphs.frame_count if number == 0 else made
    assert graphs.frame_count == made, "switching the adapter needs its graph once"


def test_a_model_is_left_as_it_was(tmp_path):
    model = toy.model()
    before = {name: dict(vars(part)) for name, part in model.named_modules()}
    with pytest.raises(ZeroDivisionError), Compiled(model, flex=True).on():
        assert model.config._attn_implementation == "flex_attention" and "forward" in vars(decoder_layers(model)[1][0])
        raise ZeroDivisionError
    assert {name: dict(vars(part)) for name, part in model.named_modules()}.keys() == before.keys()
    assert not any("forward" in vars(part) for part in model.modules())
    assert model.config._attn_implementation == "sdpa"
    assert scoring.CHUNK.get() is scoring.score_chunk


def trained(directory, **settings):
    run = toy.trainer(directory, toy.learned_model(), **settings)
    run.train()
    return run, toy.weights(run.model)


@pytest.mark.parametrize("settings", [{"method": "ga-mismatch"}, {"method": "rto", "train_layers": 0.5}])
def test_a_run_ends_at_the_same_weights(settings, tmp_path, graphs):
    plain = trained(tmp_path / "plain", **settings)[1]
    assert graphs.frame_count == 0
    run, weights = trained(tmp_path / "compiled", compile="layers", **settings)
    assert 0 < graphs.frame_count <= 12 and run.notes == []
    for name, weight in plain.items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=1e-4)  # Adam turns rounding into 1e-3 at most
    assert not any("forward" in vars(part) for part in run.model.modules())


def test_what_does_not_score_alike_is_left_out_and_said(tmp_path, monkeypatch):
    def wrong(head, states, targets, *rest):
        return scoring.Scores(log_softmax(head(states), -1).gather(-1, targets[:, None])[:, 0] + 1, None)

    monkeypatch.setattr(module, "score_chunk", wrong)
    run, weights = trained(tmp_path / "compiled", compile="layers")
    [note] = run.notes
    assert (
        note == "LlamaForCausalLM does not score alike with compiled layers (difference 1 nats): --compile was left out"
    )
    plain = trained(tmp_path / "plain")[1]
    assert all(torch.equal(weights[name], weight) for name, weight in plain.items())


def test_a_compiler_that_fails_is_one_error(tmp_path, monkeypatch):
    def fails(*_):
        raise RuntimeError("no compiler\nhere")

    monkeypatch.setattr(module, "BACKEND", fails)
    with pytest.raises(ConfigError, match=r"^--compile: torch.compile failed here \(.*no compiler.*\); leave it out$"):
        trained(tmp_path, compile="layers")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"compile": "layer"}, "--compile layer: unknown; did you mean 'layers'?; layers or flex"),
        (
            {"compile": "flex"},
            "--compile flex: PyTorch's flex attention has no backward pass on a CPU; use --compile layers",
        ),
        (
            {"compile": "layers", "method": "repselect"},
            "--compile layers: --method repselect makes no steps that could be",
        ),
        (
            {"compile": "layers", "torch_compile": True},
            "--set trainer.torch_compile compiles the whole model; drop one",
        ),
    ],
)
def test_what_cannot_be_compiled_is_refused_before_anything_runs(settings, said, tmp_path):
    with pytest.raises(ConfigError) as caught:
        toy.trainer(tmp_path, **settings)
    assert said in str(caught.value)


def test_several_ranks_and_models_without_a_list_of_layers_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(UnlearnConfig, "world_size", 2)
    with pytest.raises(ConfigError, match="was tried in one process only; start it without torchrun"):
        toy.trainer(tmp_path, compile="layers")
    model = toy.model()
    model.config.num_hidden_layers = 3
    with pytest.raises(ConfigError, match="^--compile: LlamaForCausalLM has no list of layers; leave it out$"):
        Compiled(model)
    assert COMPILED == ("layers", "flex")


@pytest.mark.slow
def test_kernels_of_inductor_score_alike(monkeypatch):
    monkeypatch.setattr(module, "BACKEND", "inductor")
    model, batch = toy.model(num_key_value_heads=2), batches()[0]
    with torch.no_grad():
        original = last_hidden_states(moved(model), batch)
    expected, compiled = scored(model, batch, original), Compiled(model)
    with compiled.on():
        assert_same(scored(model, batch, original), expected)
    assert compiled_agree(model, batch, compiled, None)[0]
