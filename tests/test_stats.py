import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy.stats import ks_2samp
from scipy.stats import t as student

from unteach.stats import auc, bootstrap, ks_distance, paired_difference, wilson


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


def test_few_values_get_an_interval_at_least_as_wide_as_students_and_at_most_three_times():
    rng = np.random.default_rng(4)
    for values in (rng.normal(0, 1, 20), rng.lognormal(0, 2, 20), np.append(rng.normal(0, 0.01, 19), 50.0)):
        value, low, high = bootstrap(values.tolist())
        half = student.ppf(0.975, 19) * values.std(ddof=1) / math.sqrt(20)
        assert half - 1e-9 <= value - low <= 3 * half + 1e-9 and half - 1e-9 <= high - value <= 3 * half + 1e-9
    assert bootstrap([0.0, 0.0, 0.0, 1.0], within=(0, 1))[1:] == (0.0, 1.0)


def test_few_skewed_values_hold_their_mean_about_as_often_as_the_interval_says():
    rng, held = np.random.default_rng(5), 0
    for number in range(200):
        _, low, high = bootstrap(rng.exponential(1.0, 40).tolist(), seed=number)
        held += low <= 1.0 <= high
    assert held >= 186  # the percentile bootstrap: 183 of these


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


# --- two lists -----------------------------------------------------------------------------------------------------


def test_auc_by_hand_and_its_ties_count_half():
    assert auc([1.0, 2.0, 3.0], [0.0, 2.0])[0] == pytest.approx((1 + 1.5 + 2) / 6)
    assert auc([1.0] * 3, [1.0] * 4) == (0.5, 0.5, 0.5)
    assert auc([2.0, 3.0], [0.0, 1.0])[0] == 1.0 and auc([0.0], [1.0]) == (0.0, None, None)
    assert auc([], [1.0]) == auc([1.0], []) == (None, None, None)
    with pytest.raises(ValueError, match="finite"):
        auc([1.0, math.nan], [1.0])


SCORES = some.lists(some.integers(-5, 5).map(float), min_size=1, max_size=12)


@settings(max_examples=50, deadline=None)
@given(SCORES, SCORES)
def test_auc_equals_counting_all_pairs_and_turns_round(members, non_members):
    wins = sum((a > b) + 0.5 * (a == b) for a in members for b in non_members)
    value = auc(members, non_members)[0]
    assert value == pytest.approx(wins / (len(members) * len(non_members)))
    assert value == pytest.approx(1 - auc(non_members, members)[0])
    assert value == pytest.approx(auc([a**3 for a in members], [b**3 for b in non_members])[0])


def test_auc_interval_is_seeded_and_near_that_of_hanley_and_mcneil():
    rng = np.random.default_rng(3)
    members, non_members = rng.normal(1.0, 1.0, 150).tolist(), rng.normal(0.0, 1.0, 250).tolist()
    value, low, high = auc(members, non_members, seed=1)
    assert (value, low, high) == auc(members, non_members, seed=1) != auc(members, non_members, seed=2)
    first, second = value / (2 - value), 2 * value**2 / (1 + value)
    spread = value * (1 - value) + 149 * (first - value**2) + 249 * (second - value**2)
    half = 1.96 * math.sqrt(spread / (150 * 250))
    assert low == pytest.approx(value - half, abs=0.012) and high == pytest.approx(value + half, abs=0.012)


def test_large_lists_are_drawn_in_parts():
    many = np.arange(800).astype(float)  # four parts
    value, low, high = ks_distance(many.tolist(), many[::-1].tolist())  # the same values in other pairs
    assert (value, low) == (0.0, 0.0) and 0.05 < high < 0.1
    value, low, high = auc(many.tolist(), many.tolist())
    assert value == 0.5 and 0.46 < low < 0.48 and 0.52 < high < 0.54


@settings(max_examples=50, deadline=None)
@given(some.lists(some.tuples(*[some.integers(-4, 4).map(float)] * 2), min_size=2, max_size=15))
def test_ks_distance_equals_the_largest_gap_of_the_two_shares(pairs):
    ours, theirs = [a for a, _ in pairs], [b for _, b in pairs]
    gaps = [abs(sum(a <= at for a in ours) - sum(b <= at for b in theirs)) / len(pairs) for at in ours + theirs]
    value, low, high = ks_distance(ours, theirs)
    assert value == pytest.approx(max(gaps)) == pytest.approx(ks_distance(theirs, ours)[0])
    assert value == pytest.approx(ks_2samp(ours, theirs, method="asymp").statistic)
    assert 0 <= low <= value <= high <= 1
    assert ks_distance(ours, ours) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("shift", [0.0, 0.5, 2.0])
def test_ks_interval_holds_the_true_distance(shift):
    # of two normal distributions of spread 1: 2Φ(shift / 2) − 1
    true, rng, held = math.erf(shift / 2 / math.sqrt(2)), np.random.default_rng(4), 0
    for seed in range(40):
        shared = rng.normal(size=60)  # cases are easy or hard for both arms
        ours = 0.6 * shared + 0.8 * rng.normal(size=60)
        theirs = 0.6 * shared + 0.8 * rng.normal(size=60) + shift
        _, low, high = ks_distance(ours.tolist(), theirs.tolist(), seed)
        held += low <= true <= high
    assert held >= 36


def test_ks_distance_of_nothing_one_and_unequal_lists():
    assert ks_distance([], []) == (None, None, None)
    assert ks_distance([1.0], [2.0]) == (1.0, None, None)
    with pytest.raises(ValueError, match="paired"):
        ks_distance([1.0], [1.0, 2.0])
    with pytest.raises(ValueError, match="finite"):
        ks_distance([math.inf], [1.0])
