"""Which row each training item holds: a function of the seed and the item's number alone, so that runs resume exactly.

Rows are shuffled and cycled, one fresh permutation after another. Negatives may have shares: a row with a share of a
quarter comes up in every fourth round only.
"""

from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

FORGET, NORMAL, DECOY, LEAD, SHARE, HALF = 0, 1, 2, 3, 4, 5
"""What a draw is for; each has its own stream of random numbers."""


@lru_cache(maxsize=8)
def shuffled(count: int, seed: int, stream: int, cycle: int) -> Int[np.ndarray, " count"]:
    """Return the permutation of `count` rows in one cycle."""
    return np.random.default_rng([seed, stream, cycle]).permutation(count)


def nth_of_shuffled(place: int, count: int, seed: int, stream: int) -> int:
    """Return element `place` of an endless list made of one fresh permutation of `count` rows after another."""
    return int(shuffled(count, seed, stream, place // count)[place % count])


def negative_drawn(index: int, count: int, seed: int) -> int:
    """Return which of `count` forget rows item `index` of a run holds, where all have the same share."""
    return nth_of_shuffled(index, count, seed, FORGET)


def drawn_by_share(length: int, shares: Float[np.ndarray, " row"], seed: int) -> Int[np.ndarray, " length"]:
    """Return the row of each of `length` items, where row i comes up in a share sᵢ of the rounds, 0 ≤ sᵢ ≤ 1.

    It comes up in round r if ⌊(r + 1)·sᵢ + uᵢ⌋ > ⌊r·sᵢ + uᵢ⌋, with uᵢ drawn once, and so at even distances. Shares of 1
    give the order of `negative_drawn`. Raises ValueError where every share is 0.
    """
    if not shares.any():
        raise ValueError("every share is 0: there is no row to draw")
    offsets = np.random.default_rng([seed, SHARE]).random(len(shares))
    rounds: list[np.ndarray] = []
    drawn = 0
    while drawn < length:
        number = len(rounds)
        present = np.floor((number + 1) * shares + offsets) > np.floor(number * shares + offsets)
        order = shuffled(len(shares), seed, FORGET, number)
        rounds.append(order[present[order]])
        drawn += len(rounds[-1])
    return np.concatenate(rounds)[:length]
