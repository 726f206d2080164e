"""The items of a run: what a forget tree is made of."""

from dataclasses import replace

import numpy as np
import pytest

from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.prompts.turn import Turn
from unteach.scoring.trees import Branch
from unteach.training.dataset import RTO_TOKENS, UnlearnItems, next_of

TEMPLATE = (90, 91, 2)


def row(prompt: int, reply: int) -> Encoded:
    example = Example((Turn("user", f"prompt {prompt}"),), f"reply {reply}")
    return Encoded(example, tuple(range(10, 10 + prompt)), tuple(range(50, 50 + reply)), False)


def items(*rows: Encoded, **settings: object) -> UnlearnItems:
    plain = {"length": 400, "seed": 3, "template_replies": [TEMPLATE] * len(rows), "interrupted": True}
    return UnlearnItems(list(rows), [row(2, 2)], **(plain | settings))


def made_of(made: UnlearnItems) -> list:
    return [made[index] for index in range(len(made))]


@pytest.mark.parametrize(("reply", "longest"), [(2, 1), (3, 1), (8, 4), (9, 4)])
def test_a_bad_reply_is_broken_off_anywhere_up_to_its_half(reply, longest):
    found = set()
    for item in made_of(items(row(4, reply))):
        negative, whole, broken = item.forget.branches
        assert [b.stream for b in item.forget.branches] == ["negative", "template", "template"]
        assert whole.reply_ids == TEMPLATE and whole.lead == 0
        assert broken.reply_ids == negative.reply_ids[: broken.lead] + TEMPLATE
        found.add(broken.lead)
    assert found == set(range(1, longest + 1))


def test_where_it_breaks_off_depends_on_seed_and_index_only():
    def drawn(seed):
        return [item.forget.branches[2].lead for item in made_of(items(row(4, 40), seed=seed, length=50))]

    assert drawn(3) == drawn(3) != drawn(4)


def test_a_reply_of_one_token_has_nothing_to_break_off():
    assert [len(item.forget.branches) for item in made_of(items(row(4, 1), length=5))] == [2] * 5


@pytest.mark.parametrize(("room", "longest"), [(9, 5), (5, 2), (4, 1), (3, 0)])
def test_a_broken_off_reply_fits_the_context_whole(room, longest):
    made = made_of(items(row(4, 10), max_length=4 + room))
    for item in made:
        assert all(len(b.reply_ids) <= room and b.reply_ids[b.lead :][-1] == 2 for b in item.forget.branches[1:])
    assert max((b.lead for item in made for b in item.forget.branches), default=0) == min(longest, room - 3)


def test_published_methods_do_not_break_off():
    assert {len(item.forget.branches) for item in made_of(items(row(4, 10), interrupted=False))} == {2}


def test_every_place_in_the_beginning_of_a_bad_reply_is_asked_to_break_off():
    made = made_of(items(row(4, 10), interrupted=False, rto=True, length=3))
    for item in made:
        negative, _, broken = item.forget.branches
        assert broken == Branch("rto", negative.reply_ids[:-1], lead=1, instead=(TEMPLATE[0],) * 9)
        assert item.forget.places == 4 + 9 + 2, "it is read along the bad reply, at no token more"
    (item,) = made_of(items(row(4, 200), interrupted=False, rto=True, length=1))
    assert len(item.forget.branches[2].reply_ids) == RTO_TOKENS


@pytest.mark.parametrize(("reply", "truncated", "asked"), [(1, False, 0), (2, False, 0), (3, False, 1), (2, True, 1)])
def test_the_end_of_a_bad_reply_may_come_as_it_came(reply, truncated, asked):
    made = items(replace(row(4, reply), truncated=truncated), interrupted=False, rto=True, length=1)
    found = [b for b in made[0].forget.branches if b.stream == "rto"]
    assert sum(len(b.reply_ids) - b.lead for b in found) == asked


@pytest.mark.parametrize(
    ("read", "said"),
    [
        ((50, 51, 52), (90, 90, 90)),
        ((90, 50, 90, 91), (90, 91, 90, 91)),
        ((50, 90, 91, 51), (90, 90, 91, 2)),
        ((90, 90, 91, 2, 50), (90, 91, 91, 2, 90)),
    ],
)
def test_a_bad_reply_that_begins_as_the_template_does_goes_on_as_it(read, said):
    assert next_of(TEMPLATE, read) == said


def test_a_template_that_repeats_itself_goes_on_from_its_longest_beginning():
    assert next_of((1, 1, 2), (1, 1, 1, 1)) == (1, 1, 2, 2)


def test_items_follow_the_shares_given():
    made = items(row(1, 2), row(2, 2), row(3, 2), length=60)
    made.share_out(np.array([1.0, 0.25, 0.0]))
    drawn = [len(item.forget.prompt_ids) for item in made_of(made)]
    assert [drawn.count(prompt) for prompt in (1, 2, 3)] == [48, 12, 0]
