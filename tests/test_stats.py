import math

import numpy as np
import pytest

from unteach.stats import bootstrap, paired_difference, wilson


def test_wilson_equals_the_formula_worked_by_hand():
    # n = 10, 5 successes: centre 0.5, half width z·sqrt(1/40 + z²/400) / (1 + z²/10) with z = 1.959964
    z = 1.959963984540054
    half = z * math.sqrt(0.25 / 10 + z * z / 400) / (1 + z * z / 10)
    value, low, high = wilson(5, 10)
    assert value == 0.5
    assert low == pytest.approx(0.5 - half, abs=1e-9)
    assert high == pytest.approx(0.5 + half, abs=1e-9)
    assert (round(low, 4), round(high, 4)) == (0.2366, 0.7634)


def test_wilson_keeps_its_width_at_none_and_all():
    z2 = 1.959963984540054**2
    value, low, high = wilson(0, 200)
    assert (value, low) == (0.0, 0.0)
    assert high == pytest.approx(z2 / (200 + z2))
    value, low, high = wilson(200, 200)
    assert (value, high) == (1.0, 1.0)
    assert low == pytest.approx(200 / (200 + z2))


def test_nothing_counted_has_no_value():
    assert wilson(0, 0) == (None, None, None)
    assert bootstrap([]) == (None, None, None)
    assert paired_difference([], []) == (None, None, None)


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes, n):
    with pytest.raises(ValueError, match="successes"):
        wilson(successes, n)


def test_bootstrap_is_seeded_and_near_the_normal_interval():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=400).tolist()
    first = bootstrap(values, seed=7)
    assert first == bootstrap(values, seed=7)
    assert first[1:] != bootstrap(values, seed=8)[1:]
    value, low, high = first
    half = 1.96 * np.std(values) / math.sqrt(400)
    assert value == pytest.approx(np.mean(values))
    assert low == pytest.approx(value - half, abs=0.03)
    assert high == pytest.approx(value + half, abs=0.03)


def test_bootstrap_of_equal_values_is_a_point_and_of_one_value_has_no_interval():
    assert bootstrap([0.25] * 9) == (0.25, 0.25, 0.25)
    assert bootstrap([0.25]) == (0.25, None, None)


def test_bootstrap_of_many_values_draws_in_parts():
    values = np.arange(20_000) % 2
    value, low, high = bootstrap(values.tolist())
    assert value == 0.5
    assert 0.49 < low < 0.5 < high < 0.51


def test_bootstrap_refuses_what_is_not_finite():
    with pytest.raises(ValueError, match="finite"):
        bootstrap([1.0, math.nan])


def test_paired_difference_sees_a_small_constant_shift_in_wide_data():
    before = np.random.default_rng(2).normal(0, 100, size=50)
    value, low, high = paired_difference((before + 1.0).tolist(), before.tolist())
    assert value == pytest.approx(1.0)
    assert low == pytest.approx(1.0) and high == pytest.approx(1.0)
    with pytest.raises(ValueError):
        paired_difference([1.0], [1.0, 2.0])
