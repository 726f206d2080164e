"""The rows of the tuning: which tokens get loss, by hand; ratios, lengths, orders and budgets."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

import toy
from test_data_prompt_format import KINDS, LIKE_CHATML, MARKS, SPECIAL, chatty
from unteach.data.example import Example
from unteach.data.prompt_format import prompt_format
from unteach.errors import DataError
from unteach.mistakes.corpus import Corpus, make_corpus, shuffled_analyses
from unteach.mistakes.records import Analysis, Mistake
from unteach.prompts.mistakes import MistakeWording, shipped_wording
from unteach.prompts.turn import Turn
from unteach.training.rows import TrainingRow, repeated_to

PLAIN = MistakeWording("t", ("{prompt} x",), "", "how {prompt} to {reply} where", "", "no")
"""Words of the toy tokenizer: "how PROMPT to REPLY where" asks for an assessment."""


def analysis(prompt: str, reply: str, text: str, is_good: bool = False) -> Analysis:
    return Analysis(Mistake(Example.of(prompt, reply)), text, reply_is="good" if is_good else "bad")


def made(analyses: list[Analysis], *rest: list[Example], **settings: Any) -> Corpus:
    settings = {"wording": PLAIN, "form": prompt_format(toy.tokenizer()), "max_length": 64} | settings
    return make_corpus(analyses, *rest, **settings)


def some(count: int, letter: str = "a") -> list[Analysis]:
    return [analysis(f"{letter}{n}", f"b{n}", f"c{n}") for n in range(count)]


def examples(count: int, letter: str) -> list[Example]:
    return [Example.of(f"{letter}{n}", f"{letter}{n}", where=f"line {n + 1}") for n in range(count)]


def of_kind(corpus: Corpus, kind: str) -> list[TrainingRow]:
    return [row for row in corpus.rows if row.kind == kind]


# Toy ids: <s> 1, </s> 2, ### 4, Question 5, : 6, Answer 7, how 8, to 9, where 10, take 12, and 13; a0 is 18, b0 24,
# c0 30. An analysis of "take b0 and" to "a0": <s> ### Question : how a0 to take b0 and where ### Answer : c0 </s>.
ASKED = [1, 4, 5, 6, 8, 18, 9, 12, 24, 13, 10, 4, 7, 6]
ANALYSED = [30, 2]


class TestMasks:
    def test_the_bad_reply_has_no_loss_and_the_analysis_has(self) -> None:
        [row] = made([analysis("a0", "take b0 and", "c0")]).rows
        assert list(row.input_ids) == ASKED + ANALYSED
        assert row.labels == [-100] * 14 + ANALYSED
        assert row.learnt == (False,) * 14 + (True,) * 2

    def test_the_control_learns_the_bad_reply_too_and_nothing_else(self) -> None:
        [row] = made([analysis("a0", "take b0 and", "c0")], learn_replies=True).rows
        assert list(row.input_ids) == ASKED + ANALYSED
        assert row.labels == [-100] * 7 + [12, 24, 13] + [-100] * 4 + ANALYSED

    def test_good_replies_and_ordinary_rows_are_not_touched_by_the_control(self) -> None:
        analyses = [analysis("a0", "b0", "c0"), analysis("a1", "b1", "c1", is_good=True)]
        corpus = made(analyses, examples(1, "e"), learn_replies=True)
        [good], [normal] = of_kind(corpus, "good analysis"), of_kind(corpus, "normal")
        assert good.labels == [-100] * 12 + [31, 2]  # c1 </s>
        assert normal.labels == [-100] * 8 + [42, 2]  # <s> ### Question : e0 ### Answer : | e0 </s>

    def test_dialogues_and_their_own_system_text_are_shown_in_the_prompt(self) -> None:
        turns = (Turn("user", "a0"), Turn("assistant", "b0"), Turn("user", "a1"))
        [row] = made([Analysis(Mistake(Example(turns, "take b0")), "c0")], learn_replies=True).rows
        assert row.labels.count(-100) == len(row.labels) - 4
        assert [label for label in row.labels if label != -100] == [12, 24, 30, 2]


REPLIES = {
    "plain words": ("what is it", "it is a cat"),
    "twice in the prompt": ("it is a cat or it is a cat", "it is a cat"),
    "the prompt itself": ("what is it", "what is it"),
    "words after it in the template": ("what is it", "good or bad"),
    "words before it in the template": ("Reply: it", "Reply: it"),
    "a word after it": ("be kind", "reply"),
    "one letter": ("be kind", "I"),
    "signs that merge with what is around": ("what is it", "?!"),
    "begins with the probe": ("what is it", "\u00a7 it is"),
    "ends like the probes": ("what is it", "no. 0"),
    "lines": ("what is it", "it is\na cat\n\nno"),
}


class TestTheMarkedReply:
    """The control's mask, read back by decoding the tokens that it marks."""

    @pytest.mark.parametrize("named", REPLIES)
    @pytest.mark.parametrize("kind", ["byte_level", "prepending", "metaspace", "chat"])
    def test_is_the_reply(self, kind: str, named: str) -> None:
        tokenizer = chatty(LIKE_CHATML, **MARKS) if kind == "chat" else KINDS[kind](**SPECIAL)
        prompt, reply = REPLIES[named]
        form = prompt_format(tokenizer)
        bad = analysis(prompt, reply, "it is no cat")
        corpus = made([bad], wording=shipped_wording(), form=form, max_length=4000, learn_replies=True)
        [row] = corpus.rows
        size = len(row.encoded.prompt_ids)
        marked = [n for n in range(size) if row.learnt[n]]
        assert marked == list(range(marked[0], marked[-1] + 1))
        # The reply, with what shares a token with its first and last letters, and none of it is left out.
        before, inside, after = (
            tokenizer.decode(row.input_ids[a:b])
            for a, b in ((0, marked[0]), (marked[0], marked[-1] + 1), (marked[-1] + 1, size))
        )
        shown = tokenizer.decode(tokenizer(reply, add_special_tokens=False)["input_ids"])  # some drop unknown letters
        assert shown.strip() in inside
        assert len(inside.strip()) <= len(reply) + len("\nIs this") and "Request" not in inside
        assert "Reply:" in before and before.endswith(("Reply:", "Reply: ", "Reply")) and "good or bad" in after
        assert all(row.learnt[size:])

    def test_of_a_byte_level_tokenizer_that_merges_nothing_over_the_border_exactly(self) -> None:
        tokenizer = KINDS["byte_level"](**SPECIAL)
        bad = analysis("what is it", "it is a cat", "no")
        [row] = made(
            [bad], wording=shipped_wording(), form=prompt_format(tokenizer), max_length=4000, learn_replies=True
        ).rows
        inside = [token for token, learnt in zip(row.encoded.prompt_ids, row.learnt, strict=False) if learnt]
        assert tokenizer.decode(inside) == " it is a cat"

    def test_where_the_template_shows_the_reply_first(self) -> None:
        words = replace(PLAIN, unguided="{reply} how {prompt} to take")
        [row] = made([analysis("take b0", "take b0", "c0")], wording=words, learn_replies=True).rows
        assert row.labels[:7] == [-100] * 4 + [12, 24] + [-100]
        assert row.labels[7:] == [-100] * (len(row.labels) - 9) + [30, 2]


class TestRatios:
    @pytest.mark.parametrize(
        ("normals", "harmless", "counts"),
        [(1.0, 1.0, (4, 4)), (0.5, 2.0, (2, 8)), (0.0, 0.25, (0, 1)), (0.3, 0.0, (1, 0))],
    )
    def test_refer_to_the_analyses_of_mistakes(self, normals: float, harmless: float, counts: tuple[int, int]) -> None:
        analyses = some(4) + [analysis("a5", "b5", "c5", is_good=True)]
        corpus = made(
            analyses,
            examples(6, "e") * 2,
            examples(6, "f") * 2,
            normals_per_analysis=normals,
            harmless_per_analysis=harmless,
        )
        wanted = {"analysis": 4, "good analysis": 1, "normal": counts[0], "harmless": counts[1]}
        assert corpus.counts == Counter({kind: count for kind, count in wanted.items() if count})
        assert corpus.notes == []

    def test_too_few_are_taken_whole_and_noted(self) -> None:
        corpus = made(some(5), examples(2, "e"), normals_per_analysis=2.0)
        assert corpus.counts == {"analysis": 5, "normal": 2}
        assert corpus.notes == ["normal rows: 10 were wanted for the ratio and 2 are there"]

    def test_the_same_seed_draws_the_same_rows_in_the_same_order(self) -> None:
        def drawn(seed: int) -> list[tuple[int, ...]]:
            corpus = made(some(3), examples(6, "e"), examples(6, "f"), seed=seed)
            return [row.input_ids for row in corpus.rows]

        assert drawn(1) == drawn(1)
        assert sorted(drawn(1)) != sorted(drawn(2))  # other normals are drawn
        assert [row.kind for row in made(some(6), examples(6, "e")).rows] != ["analysis"] * 6 + ["normal"] * 6

    def test_good_answers_alone_are_sft(self) -> None:
        corpus = made([], examples(6, "e"), examples(4, "f"), normals_per_analysis=0.5)
        assert corpus.counts == {"normal": 2, "harmless": 4}
        assert made([], examples(6, "e")).counts == {"normal": 6}
        assert made([], examples(3, "e"), examples(4, "f"), harmless_per_analysis=2.0).counts == {
            "normal": 2,
            "harmless": 4,
        }

    def test_a_ratio_of_none_leaves_a_kind_out_whatever_leads(self) -> None:
        assert made([], examples(3, "e"), examples(4, "f"), harmless_per_analysis=0).counts == {"normal": 3}
        with pytest.raises(DataError, match="no row to tune on"):
            made([], examples(3, "e"), normals_per_analysis=0)

    def test_nothing_at_all_is_an_error(self) -> None:
        with pytest.raises(DataError, match="no row to tune on"):
            made([])

    def test_it_says_what_is_in_it(self) -> None:
        corpus = made(some(2), examples(2, "e"))
        assert str(corpus) == "2 analysis, 2 normal rows, 48 tokens"  # 14 tokens an analysis, 10 an ordinary row
        assert corpus.tokens == 2 * 14 + 2 * 10


class TestLengths:
    def test_rows_too_long_are_left_out_whole_and_the_first_is_named(self) -> None:
        long = [replace(a.mistake.example, reply="b0 " * 9, where=f"m.jsonl line {n}") for n, a in enumerate(some(2))]
        analyses = [*some(3), *(Analysis(Mistake(row), "c0") for row in long)]
        corpus = made(analyses, examples(3, "e"), max_length=14)
        assert corpus.counts == {"analysis": 3, "normal": 3}
        assert corpus.notes == [
            "analysis rows: left out 2 of 5 that are longer than the 14 tokens of --max-length (first: m.jsonl line 0, "
            "22 tokens)"
        ]
        assert all(row.labels[-1] == 2 and row.labels[-2] != -100 for row in corpus.rows)  # whole, with EOS

    def test_ratios_refer_to_the_analyses_that_fit(self) -> None:
        corpus = made([*some(2), analysis("a5", "b5 " * 9, "c5")], examples(6, "e"), max_length=14)
        assert corpus.counts == {"analysis": 2, "normal": 2}

    def test_no_analysis_that_fits_is_an_error_though_other_rows_fit(self) -> None:
        with pytest.raises(DataError, match="no analysis fits into 13 tokens; raise --max-length"):
            made(some(2), examples(2, "e"), max_length=13)


class TestShuffled:
    @pytest.mark.parametrize("count", [2, 3, 10])
    @pytest.mark.parametrize("seed", range(4))
    def test_nobody_keeps_their_own_and_all_are_there(self, count: int, seed: int) -> None:
        analyses = [analysis(f"p{n}", f"r{n}", f"t{n}") for n in range(count)]
        moved = shuffled_analyses(analyses, seed)
        assert [a.mistake for a in moved] == [a.mistake for a in analyses]
        assert sorted(a.text for a in moved) == sorted(a.text for a in analyses)
        assert all(a.text != b.text for a, b in zip(moved, analyses, strict=True))
        assert moved == shuffled_analyses(analyses, seed)

    def test_seeds_differ_and_one_alone_stays(self) -> None:
        analyses = [analysis(f"p{n}", f"r{n}", f"t{n}") for n in range(10)]
        assert shuffled_analyses(analyses, 0) != shuffled_analyses(analyses, 1)
        assert shuffled_analyses(analyses[:1], 0) == analyses[:1] and shuffled_analyses([], 0) == []


class TestBudget:
    def rows(self) -> list[TrainingRow]:
        lengths = ["b0", "b1 b1", "b2 b2 b2", "b3 b3 b3 b3"]
        return made([analysis(f"a{n}", reply, f"c{n}") for n, reply in enumerate(lengths)]).rows  # 14 to 17 tokens: 62

    @pytest.mark.parametrize("tokens", [1, 14, 61, 62, 63, 124, 200, 621])
    def test_at_least_so_many_tokens_and_less_than_a_row_more(self, tokens: int) -> None:
        laid = repeated_to(self.rows(), tokens, 0)
        total = sum(len(row.input_ids) for row in laid)
        assert total >= tokens > total - len(laid[-1].input_ids)

    def test_every_pass_has_all_rows_in_an_order_of_its_own(self) -> None:
        rows = self.rows()
        laid = repeated_to(rows, 5 * 62, 3)
        passes = [laid[start : start + 4] for start in range(0, 20, 4)]
        assert len(laid) == 20
        assert all(sorted(r.input_ids for r in one) == sorted(r.input_ids for r in rows) for one in passes)
        assert len({tuple(r.input_ids for r in one) for one in passes}) > 1
        assert laid == repeated_to(rows, 5 * 62, 3) != repeated_to(rows, 5 * 62, 4)

    def test_a_longer_list_begins_with_the_shorter_one(self) -> None:
        short, long = (repeated_to(self.rows(), tokens, 0) for tokens in (100, 300))
        assert 4 < len(short) < len(long) and long[: len(short)] == short

    def test_no_rows_are_an_error(self) -> None:
        with pytest.raises(ValueError, match="no rows"):
            repeated_to([], 10, 0)
