"""Rounded and pruned weights, held to plain computations."""

import bisect

import pytest
import torch
from scipy.stats import norm

import toy
from stressed import target
from unteach.evaluation.attacks.pruned import smallest
from unteach.evaluation.attacks.quantised import BLOCK, NF4, _moved, int8, nf4
from unteach.evaluation.weights import kept_weights, matrices


def test_the_levels_are_the_published_quantiles() -> None:
    """arXiv 2305.14314, section 3 and appendix E: 8 levels above 0, 7 below, from quantiles of the normal, scaled to 1.

    The outermost quantile is 0.9677083, the mean of 1 - 1/32 and 1 - 1/30, so that both halves end at 1.
    """
    end = (1 - 1 / 32 + 1 - 1 / 30) / 2
    above = [norm.ppf(end + (0.5 - end) * step / 8) for step in range(8)]
    below = [-norm.ppf(end + (0.5 - end) * step / 7) for step in range(7)]
    levels = sorted([*above, 0.0, *below])
    assert pytest.approx([level / levels[-1] for level in levels], abs=2e-6) == list(NF4)


def test_nf4_in_plain_python() -> None:
    """Row-major blocks of 64, which go over the ends of rows; the last one is shorter."""
    weight = torch.randn(5, 30, generator=torch.Generator().manual_seed(1))
    flat, expected, bins = weight.flatten().tolist(), [], []
    for start in range(0, len(flat), BLOCK):
        block = flat[start : start + BLOCK]
        scale = max(map(abs, block))
        for value in block:
            level = min(NF4, key=lambda known: abs(known - value / scale))
            place = NF4.index(level)
            edges = [-1.0, *((low + high) / 2 for low, high in zip(NF4[:-1], NF4[1:], strict=True)), 1.0]
            assert bisect.bisect_left(edges[1:-1], value / scale) == place
            expected.append(level * scale)
            bins.append((edges[place + 1] - edges[place]) * scale)
    rounded, widths = nf4(weight)
    assert rounded.flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert widths.flatten().tolist() == pytest.approx(bins, abs=1e-6)


def test_int8_by_hand() -> None:
    weight = torch.tensor([[127.0, -1.4, 0.6, 0.0], [0.0, 0.0, 0.0, 0.0], [2.54, -0.031, 1.0, -2.54]])
    rounded, widths = int8(weight)
    assert rounded.tolist()[:2] == [[127.0, -1.0, 1.0, 0.0], [0.0] * 4]
    assert rounded[2].tolist() == pytest.approx([2.54, -0.04, 1.0, -2.54])  # steps of 0.02: -1.55 and 50
    assert widths[0].tolist() == [1.0] * 4 and widths[2].tolist() == pytest.approx([0.02] * 4)


@pytest.mark.parametrize("rounding", [int8, nf4])
def test_a_second_round_trip_changes_nothing(rounding) -> None:
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(2))
    once = rounding(weight)[0]
    assert not torch.equal(once, weight)
    assert torch.allclose(rounding(once)[0], once, atol=1e-6)


def test_the_share_that_moved_by_more_than_half_a_bin() -> None:
    """A quarter of the rows moves by 0.6 bins of INT8, another by 0.4."""
    before = toy.learned_model()
    after = toy.learned_model()
    original = kept_weights(before)
    with torch.no_grad():
        for name, weight in matrices(after).items():
            bins = int8(original[name])[1]
            rows = len(weight) // 4
            weight[:rows] += 0.6 * bins[:rows]
            weight[rows : 2 * rows] -= 0.4 * bins[rows : 2 * rows]
    assert _moved(after, original, int8) == {"moved_above_half_a_bin": 0.25}
    assert _moved(before, original, int8) == {"moved_above_half_a_bin": 0.0}


def test_the_smallest_values_are_marked() -> None:
    values = torch.tensor([[0.0, -1.0, 2.0, -3.0, 4.0], [0.5, 6.0, 7.0, 8.0, 9.0]])
    marked = smallest(values, 0.25)  # of nine that are not 0: two
    assert marked.tolist() == [[False, True, False, False, False], [True, False, False, False, False]]
    assert not smallest(torch.zeros(4, 4)).any() and not smallest(torch.tensor([1.0, 2.0]), 0.05).any()


def test_undoing_the_smallest_updates_brings_those_weights_back() -> None:
    """A model that moved everywhere by one of two sizes has 5 % of each matrix at the original's value meanwhile."""
    from unteach.evaluation.attacks.pruned import attack

    model = toy.learned_model()
    original = kept_weights(model)
    with torch.no_grad():
        for weight in matrices(model).values():
            weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(4)))
    seen = {}

    class Watching(type(target(model))):  # type: ignore[misc]
        def ask_plainly(self):
            seen.setdefault("weights", kept_weights(self.model))
            return [0.0]

    under = Watching(**vars(target(model, "unlearned", original=original)))
    assert [found.level for found in attack(under)] == ["smallest updates undone", "smallest weights zero"]
    for name, weight in matrices(model).items():
        undone = seen["weights"][name] == original[name]
        assert int(undone.sum()) == int(0.05 * weight.numel())
        moved = (weight - original[name]).abs()
        assert moved[undone].max() <= moved[~undone].min()
