import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unteach.scoring.trees import Branch, Tree, lay_out

TREE = Tree((1, 7, 8), (Branch("negative", (20, 21, 22)), Branch("mismatch", (30, 31))), key=("rows", 4))


def test_a_small_tree_is_laid_out_as_worked_by_hand():
    batch = lay_out([TREE])
    assert batch.input_ids.tolist() == [[1, 7, 8, 20, 21, 30]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 3]]
    assert batch.segments.tolist() == [[0, 0, 0, 1, 1, 2]]
    assert batch.targets.tolist() == [20, 21, 22, 30, 31]
    assert batch.columns.tolist() == [2, 3, 4, 2, 5]
    assert batch.rows.tolist() == [0] * 5
    assert batch.branches.tolist() == [0, 0, 0, 1, 1]
    assert batch.slots.tolist() == [0, 1, 2, 0, 1]
    assert batch.streams == ["negative", "mismatch"]
    assert batch.token_count == 6


def test_a_branch_sees_its_prompt_and_itself_only():
    mask = lay_out([TREE]).may_attend()[0, 0].int().tolist()
    assert mask == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 0, 0, 1],
    ]


def test_padding_sees_itself_only_and_is_seen_by_nobody():
    mask = lay_out([TREE, Tree((1,), (Branch("negative", (5, 6)),))], pad_id=9)
    assert mask.input_ids[1].tolist() == [1, 5, 9, 9, 9, 9]
    assert mask.may_attend()[1, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


def test_plain_rows_hold_the_same_branches_in_the_same_order():
    batch = lay_out([TREE, Tree((1,), (Branch("negative", (5, 6)),))])
    plain = batch.plain()
    assert plain.is_plain and not batch.is_plain
    assert plain.input_ids.tolist() == [[1, 7, 8, 20, 21], [1, 7, 8, 30, 0], [1, 5, 0, 0, 0]]
    assert plain.position_ids.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 3, 0], [0, 1, 0, 0, 0]]
    for name in ("targets", "branches", "slots"):
        assert torch.equal(getattr(plain, name), getattr(batch, name)), name


SHORT = [
    Tree((1,), (Branch("negative", (5, 6)),), key=("rows", 5)),
    Tree((1, 9), (Branch("normal", (7, 8)),), key=("rows", 6)),
]


def test_a_packed_row_holds_as_many_trees_as_the_longest_one_leaves_room():
    batch = lay_out([SHORT[0], TREE, SHORT[1]], pad_id=9, packed=True)
    assert batch.input_ids.tolist() == [[1, 7, 8, 20, 21, 30], [1, 9, 7, 1, 5, 9]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 3], [0, 1, 2, 0, 1, 0]]
    assert batch.members.tolist() == [[1] * 6, [2, 2, 2, 0, 0, -1]]
    assert batch.segments.tolist() == [[0, 0, 0, 1, 1, 2], [0, 0, 1, 0, 1, -1]]
    assert batch.streams == ["negative", "negative", "mismatch", "normal"]
    assert batch.targets.tolist() == [5, 6, 20, 21, 22, 30, 31, 7, 8], "answers keep the order of the trees"
    assert batch.rows.tolist() == [1, 1, 0, 0, 0, 0, 0, 1, 1]
    assert batch.columns.tolist() == [3, 4, 2, 3, 4, 2, 5, 1, 2]
    assert batch.token_count == lay_out(batch.trees).token_count == 11


def test_trees_of_a_packed_row_do_not_see_each_other():
    assert lay_out([TREE, *SHORT], packed=True).may_attend()[1, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


SYSTEM = (1, 2, 3, 4, 5, 6, 7, 8)
"""What a chat template puts before every prompt."""
ALIKE = [
    Tree((*SYSTEM, 11, 12), (Branch("negative", (20, 21)),), key=("rows", 0)),
    Tree((*SYSTEM, 13), (Branch("negative", (22, 23)), Branch("template", (24, 25, 26))), key=("rows", 1)),
]


def test_what_all_prompts_begin_with_is_laid_out_once_a_row():
    batch = lay_out(ALIKE, pad_id=9, packed=True)
    assert batch.input_ids.tolist() == [[*SYSTEM, 13, 22, 24, 25, 11, 12, 20]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 10, 8, 9, 10]]
    assert batch.members.tolist() == [[-2] * 8 + [1] * 4 + [0] * 3]
    assert batch.segments.tolist() == [[0] * 8 + [0, 1, 2, 2] + [0, 0, 1]]
    assert batch.targets.tolist() == [20, 21, 22, 23, 24, 25, 26]
    assert batch.columns.tolist() == [13, 14, 8, 9, 8, 10, 11]
    assert batch.may_attend()[0, 0, 8:].int().tolist() == [
        [1] * 8 + [1, 0, 0, 0, 0, 0, 0],
        [1] * 8 + [1, 1, 0, 0, 0, 0, 0],
        [1] * 8 + [1, 0, 1, 0, 0, 0, 0],
        [1] * 8 + [1, 0, 1, 1, 0, 0, 0],
        [1] * 8 + [0, 0, 0, 0, 1, 0, 0],
        [1] * 8 + [0, 0, 0, 0, 1, 1, 0],
        [1] * 8 + [0, 0, 0, 0, 1, 1, 1],
    ]
    assert batch.token_count == 15 and lay_out(ALIKE).token_count == 23


def test_a_short_beginning_and_that_of_a_lone_tree_are_not_shared():
    assert lay_out(ALIKE[:1], packed=True).shared == 0
    assert lay_out([Tree(tree.prompt_ids[1:], tree.branches) for tree in ALIKE], packed=True).shared == 0


def test_a_whole_prompt_is_not_shared_so_that_its_reply_has_a_place_of_its_own_to_be_predicted_at():
    twice = [Tree((*SYSTEM, 11), (Branch("negative", (20 + n, 21)),)) for n in (0, 1)]
    assert lay_out(twice, packed=True).shared == len(SYSTEM)


def test_packed_rows_of_one_branch_are_not_plain_and_become_so():
    batch = lay_out([Tree((1, 7, 8), (Branch("negative", (20, 21, 22)),)), *SHORT], packed=True)
    assert len(batch.input_ids) == 2 and not batch.is_plain
    assert lay_out(SHORT[:1], packed=True).is_plain
    assert batch.plain().is_plain and not batch.plain().packed
    assert batch.only("negative").packed and len(batch.only("negative").input_ids) == 2


@given(st.lists(st.integers(1, 40), min_size=1, max_size=30), st.sampled_from([(), SYSTEM]))
def test_packing_overlaps_nothing_and_loses_nothing(lengths, system):
    prompts = [tuple(range(1000 * key, 1000 * key + n)) for key, n in enumerate(lengths, start=1)]
    trees = [Tree(system + ids, (Branch("normal", (9,)),), ("rows", key)) for key, ids in enumerate(prompts)]
    batch = lay_out(trees, packed=True)
    assert batch.shared == (len(system) if len(lengths) > 1 else 0)
    assert len(batch.input_ids) <= len(trees)
    assert batch.input_ids.shape[1] <= (512 if system else max(lengths))
    for row in batch.input_ids:
        assert row[: batch.shared].tolist() == list(system[: batch.shared])
    for key, tree in enumerate(trees):
        where = batch.members == key
        assert batch.input_ids[where].tolist() == list(tree.prompt_ids[batch.shared :])
        assert batch.position_ids[where].tolist() == list(range(batch.shared, len(tree.prompt_ids)))
        assert len(set(where.nonzero()[:, 0].tolist())) == 1
    assert int((batch.segments == -1).sum()) == batch.input_ids.numel() - batch.token_count


def test_one_stream_leaves_out_trees_without_it():
    batch = lay_out([TREE, Tree((1,), (Branch("negative", (5, 6)),), key=("rows", 9))]).only("mismatch")
    assert [tree.key for tree in batch.trees] == [("rows", 4)]
    assert batch.targets.tolist() == [30, 31]


def test_a_reply_of_one_token_takes_no_place_in_the_row():
    batch = lay_out([Tree((1, 3), (Branch("negative", (5,)), Branch("mismatch", (6,))))])
    assert batch.input_ids.tolist() == [[1, 3]]
    assert batch.columns.tolist() == [1, 1]


def test_the_lead_of_a_branch_is_read_and_not_scored():
    batch = lay_out([Tree((1, 7), (Branch("negative", (20, 21)), Branch("template", (20, 5, 6), lead=1)))])
    assert batch.input_ids.tolist() == [[1, 7, 20, 20, 5]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 2, 3]]
    assert batch.targets.tolist() == [20, 21, 5, 6]
    assert batch.columns.tolist() == [1, 2, 3, 4]
    assert batch.slots.tolist() == [0, 1, 1, 2]


BROKEN = Branch("rto", (20, 21, 22), lead=1, instead=(97, 98, 99))


def test_a_branch_that_asks_for_another_token_is_scored_at_the_places_of_the_one_it_goes_along():
    batch = lay_out([Tree((1, 7), (Branch("template", (5, 6)), Branch("negative", (20, 21, 22, 23)), BROKEN))])
    assert batch.input_ids.tolist() == [[1, 7, 5, 20, 21, 22]], "it takes no place of its own"
    assert batch.segments.tolist() == [[0, 0, 1, 2, 2, 2]]
    assert batch.targets.tolist() == [5, 6, 20, 21, 22, 23, 98, 99]
    assert batch.columns.tolist() == [1, 2, 1, 3, 4, 5, 3, 4]
    assert batch.branches.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    assert batch.slots.tolist() == [0, 1, 0, 1, 2, 3, 1, 2]
    assert batch.token_count == 6 and batch.trees[0].tokens == 8


@pytest.mark.parametrize("other", [Branch("negative", (20, 9, 22)), Branch("negative", (20, 21)), BROKEN])
def test_a_branch_that_no_earlier_one_begins_with_takes_places_of_its_own(other):
    tree = Tree((1, 7), (other, BROKEN))
    assert tree.carriers() == [0, 1]
    assert lay_out([tree]).input_ids[0].tolist() == [1, 7, *other.reply_ids[:-1], 20, 21]
    alone = lay_out([tree]).only("rto")
    assert alone.input_ids.tolist()[0][:4] == [1, 7, 20, 21] and alone.targets.tolist()[:2] == [98, 99]


@pytest.mark.parametrize(
    "tree",
    [
        Tree((1,), (Branch("template", (1, 2), lead=2),), ("rows", 17)),
        Tree((), (Branch("negative", (1,)),), ("rows", 17)),
        Tree((1,), (), ("rows", 17)),
        Tree((1,), (Branch("negative", (1,)), Branch("mismatch", ())), ("rows", 17)),
    ],
)
def test_what_would_score_nothing_is_refused_and_named(tree):
    with pytest.raises(ValueError, match=r"tree \('rows', 17\) has an empty"):
        lay_out([TREE, tree])
