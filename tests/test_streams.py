"""The items of a run: what a forget tree is made of."""

import pytest

from unteach.data.encoded import Encoded
from unteach.data.example import Example, Turn
from unteach.data.streams import UnlearnItems

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
