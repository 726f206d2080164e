"""RepSelect's mathematics against plain computations: finite differences, PEFT, and numpy's exact SVD."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

import toy
from test_architectures import MODELS, build
from unteach.errors import ConfigError, ModelError
from unteach.scoring.trees import lay_out, reply_trees
from unteach.training.move import strongest
from unteach.training.repselect import (
    collapse,
    collapsed,
    components_of,
    elicit,
    find_direction,
    low_rank_added,
    mean_nll,
    mlp_modules,
    nll_gradients,
    norm,
    principal_components,
)
from unteach.training.selection import Selection

WORDS = toy.tokenizer()
PAIRS = [((1, 8, 9, 20 + n), (12, 30 + n, *range(40, 40 + n % 3), 2)) for n in range(6)]
"""Prompts and replies of 3 to 5 tokens."""


def batches(pairs=PAIRS, size=2):
    trees = reply_trees("rows", pairs)
    return [lay_out(trees[first : first + size]) for first in range(0, len(trees), size)]


def silent(done, total):
    pass


def nll_by_hand(model, pairs):
    """Mean over replies of the mean cross-entropy of their tokens, each row alone."""
    rows = []
    for prompt, reply in pairs:
        ids = torch.tensor([[*prompt, *reply]])
        logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
        rows.append(torch.nn.functional.cross_entropy(logits, ids[0, len(prompt) :]))
    return torch.stack(rows).mean()


def nll_value(model, pairs):
    with torch.no_grad():
        return float(nll_by_hand(model, pairs))


# ---- which weights ---------------------------------------------------------------------------------------------------

MLPS = {"GPT2": {"c_fc", "c_proj"}, "OPT": {"fc1", "fc2"}, "GPTNeoX": {"dense_h_to_4h", "dense_4h_to_h"}}
MLPS["Phi3"] = {"gate_up_proj", "down_proj"}


@pytest.mark.parametrize("name", MODELS)
def test_the_mlps_of_every_layer_are_found_and_nothing_else(name):
    found = mlp_modules(build(name))
    kinds = MLPS.get(name, {"gate_proj", "up_proj", "down_proj"})
    assert {path.rpartition(".")[2] for path in found} == kinds
    assert len(found) == 2 * len(kinds) and not any("attn" in path for path in found)


def test_only_trained_layers_count_and_a_model_without_an_mlp_is_refused():
    model = toy.model()
    model.model.layers[0].requires_grad_(False)
    assert all(".1." in path for path in mlp_modules(model))
    model.requires_grad_(False)
    with pytest.raises(ModelError, match="no MLP of linear layers"):
        mlp_modules(model)


# ---- elicitation -----------------------------------------------------------------------------------------------------


def test_elicitation_equals_sgd_on_a_lora_of_peft():
    """The same factors at the start, one step of torch's SGD a batch; then the same logits."""
    ours, theirs = toy.model(), toy.model()
    modules = mlp_modules(ours)
    names = [path.rpartition(".")[2] for path in modules]
    peft = get_peft_model(theirs, LoraConfig(r=8, lora_alpha=8, target_modules=sorted(set(names))))
    before = {name: weight.clone() for name, weight in ours.state_dict().items()}
    with low_rank_added(list(modules.values()), seed=3) as factors:
        for path, a, b in zip(modules, factors[::2], factors[1::2], strict=True):
            layer = theirs.get_submodule(path)
            layer.lora_A["default"].weight.data = a.data.clone()
            assert not b.any() and a.abs().max() <= 1 / layer.in_features**0.5
        optimizer = torch.optim.SGD([w for n, w in peft.named_parameters() if "lora_" in n], lr=0.5)
        for first in range(0, len(PAIRS), 2):
            optimizer.zero_grad()
            nll_by_hand(peft, PAIRS[first : first + 2]).backward()
            optimizer.step()
        start = nll_value(ours, PAIRS)
        elicit(ours, batches(), factors, 0.5, silent)
        ids = torch.arange(3, 11)[None]
        assert torch.allclose(ours(input_ids=ids).logits, peft(input_ids=ids).logits, atol=1e-5)
        assert nll_value(ours, PAIRS) < start - 0.1
    assert all(torch.equal(weight, before[name]) for name, weight in ours.state_dict().items())
    assert all(w.requires_grad and w.grad is None for w in ours.parameters())
    assert nll_value(ours, PAIRS) == pytest.approx(start, abs=1e-6)


# ---- the gradient ----------------------------------------------------------------------------------------------------


def test_the_nll_of_a_batch_is_that_of_its_rows():
    model = toy.model()
    assert float(mean_nll(model, batches(size=6)[0]).detach()) == pytest.approx(nll_value(model, PAIRS), abs=1e-5)


@pytest.mark.parametrize("size", [2, 4])
def test_gradients_equal_finite_differences_with_the_lora_on(size):
    """However the rows are cut into batches, the gradient is that of the mean over all replies."""
    model = toy.model().double()
    modules = mlp_modules(model)
    weights = {f"{path}.weight": module.weight for path, module in modules.items()}
    with low_rank_added(list(modules.values()), seed=0) as factors:
        for factor in factors:
            factor.data += 0.1
        found = nll_gradients(model, batches(size=size), weights, silent)
        assert set(found) == set(weights)
        for name, weight in weights.items():
            drawn = torch.Generator().manual_seed(len(name))
            way = torch.randn(weight.shape, generator=drawn, dtype=torch.float64)
            values = []
            for step in (1e-3, -1e-3):  # norms are taken in float32
                with torch.no_grad():
                    weight += step * way
                    values.append(nll_value(model, PAIRS))
                    weight -= step * way
            slope = (values[0] - values[1]) / 2e-3
            assert float((found[name].double() * way).sum()) == pytest.approx(slope, rel=2e-3, abs=2e-4)


# ---- the collapse ----------------------------------------------------------------------------------------------------


def decaying(rows, columns, seed=0):
    """A matrix whose singular values fall by a third each."""
    drawn = np.random.default_rng(seed)
    left, _ = np.linalg.qr(drawn.normal(size=(rows, rows)))
    right, _ = np.linalg.qr(drawn.normal(size=(columns, columns)))
    count = min(rows, columns)
    return left[:, :count] * (3 * 0.66 ** np.arange(count)) @ right[:, :count].T


def by_numpy(matrix, of, count, form, sides):
    """Collapse component by component, from an exact SVD."""
    u, s, vt = np.linalg.svd(of, full_matrices=False)
    for side, basis in (("output", u[:, :count].T), ("input", vt[:count])):
        if sides not in (side, "both"):
            continue
        for number, vector in enumerate(basis):
            divisor = s[number] / s[count - 1]
            kept = {"hard": 0.0, "soft": 1 / divisor, "quadratic": 1 / divisor**2}[form]
            along = np.outer(vector, vector @ matrix) if side == "output" else np.outer(matrix @ vector, vector)
            matrix = matrix - (1 - kept) * along
    return matrix


@pytest.mark.parametrize("form", ["soft", "hard", "quadratic"])
@pytest.mark.parametrize("sides", ["both", "input", "output", "none"])
@pytest.mark.parametrize("own", [True, False], ids=["own", "other"])
def test_every_form_and_side_equals_numpy(form, sides, own):
    matrix, other = decaying(12, 20), decaying(12, 20, seed=1)
    of = matrix if own else other
    found = principal_components(torch.tensor(of), 4, seed=0)
    result = collapse(torch.tensor(matrix), found, form, sides)
    assert np.abs(result.numpy() - by_numpy(matrix, of, 4, form, sides)).max() < 1e-9


def test_in_its_own_components_the_smallest_kept_stays_as_it_is():
    """By hand: singular values 8, 4, 2, 1, two collapsed on both sides."""
    matrix = torch.diag(torch.tensor([8.0, 4.0, 2.0, 1.0]))
    found = principal_components(matrix, 2, seed=0)
    for form, expected in (
        ("soft", [8 / 2**2, 4, 2, 1]),
        ("quadratic", [8 / 4**2, 4, 2, 1]),
        ("hard", [0.0, 0, 2, 1]),
    ):
        assert torch.allclose(collapse(matrix, found, form, "both").diagonal(), torch.tensor(expected), atol=1e-5)


def test_the_randomised_svd_finds_the_strongest_and_repeats():
    matrix = torch.tensor(decaying(60, 90)).float()
    state = torch.get_rng_state()
    u, s, v = principal_components(matrix, 6, seed=5)
    assert torch.equal(torch.get_rng_state(), state)
    exact = np.linalg.svd(matrix.numpy(), compute_uv=False)
    assert np.allclose(s.numpy(), exact[:6], rtol=1e-4)
    assert torch.allclose((u * s) @ v.mT @ v, matrix @ v, atol=1e-4)
    assert all(map(torch.equal, principal_components(matrix, 6, seed=5), (u, s, v)))


def test_components_of_rounding_are_not_collapsed():
    """A matrix of rank 1: dividing by singular values of rounding would erase all else."""
    matrix = torch.outer(torch.arange(1.0, 9.0), torch.arange(1.0, 7.0))
    _, s, _ = principal_components(matrix, 4, seed=0)
    assert len(s) == 1
    assert all(part.shape[-1] == 0 for part in principal_components(torch.zeros(8, 6), 4, seed=0))
    assert torch.equal(collapsed(matrix, torch.zeros(6, 0), torch.zeros(0), "soft"), matrix)


def test_the_number_of_components_follows_the_matrix():
    assert components_of((14336, 4096), None) == 512 == components_of((4096, 14336), None)
    assert components_of((512, 128), None) == 16 and components_of((4, 4), None) == 1
    assert components_of((512, 128), 500) == 128


# ---- all of it -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", ["normals", "negatives"])
def test_the_direction_is_the_collapsed_gradient_and_raises_the_nll(of):
    model = toy.learned_model()
    ids = [WORDS(f"<s>{row['prompt']} {row['completion']}</s>")["input_ids"] for row in toy.FORGET]
    bad = [(tuple(row[:5]), tuple(row[5:])) for row in ids]
    selection = Selection(components=3, form="soft", of=of, elicitation_rate=0.0)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    direction = find_direction(model, batches(bad), batches(), selection, silent)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())

    weights = {name: dict(model.named_parameters())[name] for name in direction}
    nll_by_hand(model, bad).backward()
    gradients = {name: weight.grad.double().numpy() for name, weight in weights.items()}
    model.zero_grad()
    nll_by_hand(model, bad if of == "negatives" else PAIRS).backward()
    of_rows = {name: weight.grad.double().numpy() for name, weight in weights.items()}
    plain = {name: by_numpy(g, of_rows[name], 3, "soft", "both") for name, g in gradients.items()}
    share = norm(weights) / sum((part**2).sum() for part in plain.values()) ** 0.5
    assert norm(direction) == pytest.approx(norm(weights), rel=1e-4)
    for name, part in direction.items():
        error = np.linalg.norm(part.double().numpy() - share * plain[name]) / np.linalg.norm(share * plain[name])
        assert error < 0.02
    start = nll_value(model, bad)
    with torch.no_grad():
        for name, weight in weights.items():
            weight += 0.01 * direction[name]
    assert nll_value(model, bad) > start


def test_a_gradient_that_is_collapsed_to_nothing_is_refused():
    selection = Selection(components=1000, form="hard", of="negatives")
    with pytest.raises(ConfigError, match=r"no direction.*fewer --set trainer\.components"):
        find_direction(toy.model(), batches(), [], selection, silent)


# ---- the scale -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [1e-7, 4e-4, 0.0123, 0.9, 300.0])
def test_the_search_ends_just_within_the_budget(edge):
    """KL = (scale / edge)², so that a KL of 1 is reached at the edge."""
    looks = []

    def kl_at(scale):
        looks.append(scale)
        return (scale / edge) ** 2 if scale < 1e3 else float("nan")

    found = strongest(1.0, kl_at)
    assert edge / 1.06 <= found <= edge
    assert len(looks) == len(set(looks)) <= 30


def test_a_kl_that_jumps_ends_below_the_jump_and_one_that_is_always_over_at_nothing():
    assert 0.049 / 1.06 <= strongest(0.1, lambda scale: float("inf") if scale > 0.049 else 0.01) <= 0.049
    assert strongest(0.1, lambda scale: float("nan")) == 0
