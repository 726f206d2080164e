"""Duplicates, overlap, splits that share no prompt, and fingerprints."""

import random
from dataclasses import replace

import pytest

from unteach.data.example import Example
from unteach.data.overlap import fingerprint, overlap, split_by_prompt, without_duplicates
from unteach.errors import DataError


def test_duplicates_ignore_case_and_white_space_and_keep_the_first() -> None:
    first, again, other = Example.of("Q", "a b", where="1"), Example.of(" q", "A  b", where="2"), Example.of("q", "c")
    assert without_duplicates([first, again, other]) == ([first, other], [again])


def test_overlap_counts_shared_prompts_once_and_finds_contradictions() -> None:
    negatives = [Example.of("q1", "bad"), Example.of("q1", "worse"), Example.of("q2", "bad"), Example((), "text")]
    normals = [
        Example.of("Q1", "fine"),
        Example.of("q1", "Bad ", where="n.jsonl line 2"),
        Example.of("q3", "bad"),
        Example((), "other text"),
    ]
    contradictions, messages = overlap(negatives, normals)
    assert contradictions == [normals[1]]
    assert messages[0].startswith("1 prompts") and "n.jsonl line 2" in messages[1]


def test_disjoint_sets_have_nothing_to_report() -> None:
    assert overlap([Example.of("q", "a")], [Example.of("p", "a")]) == ([], [])


def test_running_text_on_both_sides_can_contradict() -> None:
    text = Example((), "once upon")
    assert overlap([text], [text, Example((), "a time")])[0] == [text]


def test_identical_sets_are_refused_in_any_order() -> None:
    rows = [Example.of("q1", "a", where="f.jsonl line 1"), Example.of("q2", "b")]
    with pytest.raises(DataError, match="identical.*f.jsonl line 1"):
        overlap(rows, rows[::-1] + rows[:1])


ROWS = [Example.of(f"prompt {i % 40}", f"reply {i}") for i in range(100)]
SHARES = {"train": 0.8, "validation": 0.05, "unseen": 0.15}


def test_split_parts_share_no_prompt_and_have_exact_sizes() -> None:
    parts = split_by_prompt(ROWS, SHARES, seed=3)
    prompts = {name: {example.prompt_key for example in part} for name, part in parts.items()}
    assert {name: len(keys) for name, keys in prompts.items()} == {"train": 32, "validation": 2, "unseen": 6}
    assert len(set.union(*prompts.values())) == 40
    assert sum(map(len, parts.values())) == 100
    assert parts["train"] == [example for example in ROWS if example in parts["train"]]


def test_split_depends_on_seed_but_not_on_row_order_or_replies() -> None:
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    changed = [replace(example, reply=example.reply + "!") for example in shuffled]
    prompts = [
        {name: {example.prompt for example in part} for name, part in split_by_prompt(rows, SHARES, seed).items()}
        for rows, seed in ((ROWS, 3), (shuffled, 3), (changed, 3), (ROWS, 4))
    ]
    assert prompts[0] == prompts[1] == prompts[2] != prompts[3]


@pytest.mark.parametrize(
    ("prompts", "sizes"),
    [(3, [1, 1, 1]), (4, [2, 1, 1]), (10, [8, 1, 1]), (2, [1, 0, 1]), (1, [1, 0, 0])],
)
def test_small_sets_fill_every_part_where_they_can(prompts: int, sizes: list[int]) -> None:
    parts = split_by_prompt([Example.of(f"q{i}", "a") for i in range(prompts)], SHARES, seed=0)
    assert [len(part) for part in parts.values()] == sizes


def test_a_fraction_of_zero_stays_empty() -> None:
    parts = split_by_prompt(ROWS, {"train": 1.0, "unseen": 0.0}, seed=0)
    assert (len(parts["train"]), len(parts["unseen"])) == (100, 0)


def test_running_texts_are_split_though_none_has_a_prompt() -> None:
    parts = split_by_prompt([Example((), f"chapter {i}") for i in range(10)], {"a": 0.5, "b": 0.5}, seed=0)
    assert [len(part) for part in parts.values()] == [5, 5]


def test_fingerprint_sees_content_and_order_but_not_the_file() -> None:
    rows = [Example.of("q", "a", where="x"), Example.of("p", "b")]
    same = fingerprint(rows)
    assert same == fingerprint([replace(row, where="elsewhere") for row in rows])
    changes = [rows[::-1], rows[:1], [replace(rows[0], good="g"), rows[1]], [replace(rows[0], concept="c"), rows[1]]]
    assert len({same, *map(fingerprint, changes)}) == 5
    assert len(same) == 16
