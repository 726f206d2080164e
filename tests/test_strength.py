"""How strongly an update is applied: the search finds the smallest scale that is enough, and never breaks a budget."""

from collections.abc import Callable

import pytest

from unteach.results.strength import StrengthPoint
from unteach.training.strength import LARGEST, STEP, Budgets, search


def world(
    enough: float, declines: float = 9.0, drifts: float = 9.0, gibberish: float = 9.0
) -> tuple[Callable[[float], StrengthPoint], list[float]]:
    """Return a model whose bad replies end at the scale `enough`, and that breaks each budget from a scale on."""
    asked: list[float] = []

    def measure(scale: float) -> StrengthPoint:
        asked.append(scale)
        return StrengthPoint(
            scale=scale,
            bad=0 if scale >= enough else 90,
            judged=100,
            asked=100,
            broken=0.5 if scale >= gibberish else 0.01,
            declined=30 if scale >= declines else 2,
            lookalikes=100,
            kl=0.5 if scale >= drifts else 0.01,
        )

    return measure, asked


@pytest.mark.parametrize("enough", [0.03, 0.3, 0.5, 0.77, 1.0])
def test_the_smallest_scale_that_is_enough_is_found(enough: float) -> None:
    """Places are multiples of 1/16, so the smallest that is enough is the next of these."""
    measure, asked = world(enough)
    found = search(measure, Budgets())
    assert found.reached and enough <= found.scale < enough + STEP
    assert found.scale in asked and len(asked) == len(set(asked)) <= 7
    assert [point.scale for point in found.points] == sorted(asked)


def test_an_update_that_does_too_little_is_enlarged() -> None:
    measure, _ = world(1.2)
    found = search(measure, Budgets())
    assert found.reached and 1.2 <= found.scale < 1.2 + STEP


def test_where_nothing_is_enough_the_largest_scale_is_taken() -> None:
    measure, _ = world(3.0)
    found = search(measure, Budgets())
    assert not found.reached and found.scale == LARGEST
    assert "90 of 100 replies to harmful validation prompts are bad" in found.message


@pytest.mark.parametrize(
    ("budget", "says"),
    [
        ("declines", "30 of 100 harmless prompts that sound harmful are declined (30.0%), 2 by the original"),
        ("drifts", "the KL is 0.500 nats per token, over the budget of 0.1"),
        ("gibberish", "50.0% of replies are blank or gibberish, 1.0% of the original's"),
    ],
)
def test_a_budget_ends_the_search(budget: str, says: str) -> None:
    """Bad replies would end at 0.9, but each budget breaks at 0.4: the last multiple of 1/16 below it is taken."""
    measure, _ = world(0.9, **{budget: 0.4})
    found = search(measure, Budgets())
    assert not found.reached and 0.4 - STEP <= found.scale < 0.4
    assert says in found.message


def test_a_budget_that_breaks_later_does_not_matter() -> None:
    measure, _ = world(0.3, declines=0.6)
    found = search(measure, Budgets())
    assert found.reached and 0.3 <= found.scale < 0.3 + STEP


def test_where_every_scale_breaks_a_budget_the_original_is_kept() -> None:
    measure, _ = world(0.5, drifts=0.001)
    found = search(measure, Budgets())
    assert not found.reached and found.scale == 0.0
    assert "the original was kept; at 0.0625 the KL is 0.500" in found.message


def test_without_bad_replies_there_is_nothing_to_search() -> None:
    measure, asked = world(0.0)
    found = search(measure, Budgets())
    assert found.scale == 1.0 and asked == [0.0]


def test_a_judge_without_verdicts_reaches_no_target() -> None:
    point = StrengthPoint(scale=1.0, bad=0, judged=10, asked=100, broken=0.0)
    assert not Budgets().reached(point)
    assert Budgets().reached(point.model_copy(update={"judged": 50}))
    assert not Budgets().reached(point.model_copy(update={"judged": 0, "asked": 0}))


def test_what_the_original_does_is_no_fault_of_the_update() -> None:
    """Budgets bound the difference to the original: 5 points here, so 8 of 100 are over 2 and 7 are not."""
    before = StrengthPoint(scale=0.0, bad=9, judged=9, asked=9, broken=0.3, declined=2, lookalikes=100)
    after = before.model_copy(update={"scale": 1.0, "broken": 0.32, "declined": 7})
    assert Budgets().over(before, after) == ""
    assert "8 of 100" in Budgets().over(before, after.model_copy(update={"declined": 8}))
    assert "33.0%" in Budgets().over(before, after.model_copy(update={"broken": 0.33}))
