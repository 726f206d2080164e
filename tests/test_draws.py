"""Which row each item holds."""

import numpy as np
import pytest

from unteach.training.draws import drawn_by_share, negative_drawn


@pytest.mark.parametrize("length", [1, 7, 100])
def test_equal_shares_are_the_even_draw(length):
    assert drawn_by_share(length, np.ones(9), 3).tolist() == [negative_drawn(n, 9, 3) for n in range(length)]


def test_a_row_comes_up_in_its_share_of_the_rounds_and_at_even_distances():
    shares = np.array([1.0, 0.5, 0.25, 0.1, 0.0])
    drawn = drawn_by_share(1850, shares, 0).tolist()
    assert [drawn.count(row) for row in range(5)] == [1000, 500, 250, 100, 0]
    rounds = np.cumsum(np.array(drawn) == 0)  # the first row is in every round, though not at its beginning
    distances = np.diff(rounds[np.array(drawn) == 3])
    assert distances.min() >= 9 and distances.max() <= 11


def test_draws_depend_on_the_seed_and_a_longer_run_begins_as_a_shorter_one():
    shares = np.linspace(0.1, 1.0, 20)
    assert drawn_by_share(300, shares, 1)[:50].tolist() == drawn_by_share(50, shares, 1).tolist()
    assert drawn_by_share(50, shares, 1).tolist() != drawn_by_share(50, shares, 2).tolist()


def test_without_any_share_there_is_nothing_to_draw():
    with pytest.raises(ValueError, match="every share is 0"):
        drawn_by_share(5, np.zeros(3), 0)
