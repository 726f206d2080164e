"""A reply that was cut keeps that mark: in its verdict, in the report, and where it is trained on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import toy
from unteach.data.encoded import encode_all
from unteach.data.example import Example
from unteach.data.own_answers import answer_prompts
from unteach.data.prompt_format import prompt_format
from unteach.data.reading import read_examples
from unteach.data.written import write_examples
from unteach.evaluation.evaluation import Evaluation, evaluate_arm, score_fluency
from unteach.judges import load_judge
from unteach.judges.base import case_of, make_case, verdicts_of
from unteach.models.reply import Reply, ReplyEnd
from unteach.probes import all_probes
from unteach.results.arm_result import ArmResult
from unteach.results.verdict import Case

KNOWN = " ".join(f"word{number}" for number in range(60))
ROW = Example.of("how", KNOWN, good=KNOWN.replace("word", "good"))
END = ReplyEnd(frozenset({2}), thought=("<think>", "</think>"))


def reply(text: str, cut: bool) -> Reply:
    return Reply(text, tuple(range(3, 3 + len(text.split()))), cut, text)


def first(words: int, text: str = KNOWN) -> str:
    return " ".join(text.split()[:words])


@pytest.mark.parametrize("judge", ["repeats", "verbatim", "bleu?bar=0.01"])
def test_a_cut_reply_is_compared_at_equal_length(judge: str) -> None:
    """The first words of the known reply, and no more: bad if the reply was cut there, good if the model ended it."""
    cut, ended = (case_of(ROW, reply(first(12), cut), "unseen", END) for cut in (True, False))
    assert verdicts_of(load_judge(judge), [cut]) == ["bad"]
    assert (cut.bad, cut.good) == (first(12), first(12).replace("word", "good"))
    assert ended.bad == KNOWN
    if judge == "repeats":
        assert verdicts_of(load_judge(judge), [ended]) == ["good"]
    other = case_of(ROW, reply("nothing of it comes in what is said here at all but this", True), "unseen", END)
    assert verdicts_of(load_judge(judge), [other]) == ["good"]


def test_a_normal_row_is_compared_at_equal_length_too() -> None:
    row = replace(ROW, good=None)
    cut, ended = (case_of(row, reply(first(12), cut), "normal", END) for cut in (True, False))
    assert verdicts_of(load_judge("repeats"), [cut, ended]) == ["good", "bad"]


def test_scripts_without_spaces_are_cut_by_their_words() -> None:
    known = "今天天气很好我们一起去公园散步然后去吃饭" * 3
    case = make_case(Example.of("问", known), reply(known[:20], True), END, bad=known)
    assert case.bad == known[:20]
    assert verdicts_of(load_judge("repeats"), [case]) == ["bad"]


class Eager:
    """Has a verdict on everything, and remembers what it was asked."""

    name = "eager"

    def __init__(self) -> None:
        self.asked: list[Case] = []

    def __call__(self, cases: Any) -> Any:
        self.asked += cases
        return ["good" for _ in cases]


def test_a_reply_that_was_cut_before_anything_was_said_is_unknown_to_every_judge() -> None:
    judge = Eager()
    thinking = Reply("", (3, 4), True, "<think>so it is", unsaid=True)
    blank = Reply("", (3, 4), True, "")
    silent = Reply("", (2,), False, "")
    cases = [case_of(ROW, made, "unseen", END) for made in (thinking, silent, reply("yes", True), blank)]
    assert verdicts_of(judge, cases) == ["unknown", "good", "good", "good"]
    assert judge.asked == cases[1:]
    result = ArmResult("original", "unseen", cases, verdicts_of(judge, cases), [[3, 4], [2], [3], [3, 4]])
    found = {one.name: one for probe in all_probes() if "unseen" in probe.splits for one in probe(result)}
    assert (found["blank_rate"].value, found["blank_rate"].n, found["blank_rate"].unknown) == (
        pytest.approx(2 / 3),
        3,
        1,
    )
    assert (found["harmful_rate"].n, found["harmful_rate"].unknown) == (3, 1)
    assert found["cut_rate"].value == pytest.approx(3 / 4)


def test_known_replies_with_a_thought_count_for_what_they_say() -> None:
    row = replace(ROW, reply=f"<think>hm</think>{KNOWN}")
    assert case_of(row, reply("x", False), "unseen", END).bad == KNOWN


def test_own_answers_that_were_cut_are_learned_without_an_end() -> None:
    model, tokenizer = toy.learned_model(), toy.tokenizer()
    form = prompt_format(tokenizer)
    prompts = [(row["prompt"], f"row {number}") for number, row in enumerate(toy.RETAIN[:6])]
    short = answer_prompts(prompts, model, form, max_new_tokens=2, key=None)
    long = answer_prompts(prompts, model, form, max_new_tokens=40, key=None)
    assert short and all(row.cut for row in short) and not all(row.cut for row in long)
    for rows in (short, long):
        encoded, messages = encode_all(rows, form, 99, "normals")
        assert messages == []
        for row in encoded:
            assert (row.reply_ids[-1] in form.end.tokens) is (not row.example.cut)
            assert row.truncated is row.example.cut


def test_the_mark_goes_into_files_and_comes_back(tmp_path: Path) -> None:
    rows = [replace(ROW, cut=True, good=None), replace(ROW, reply="other", good=None)]
    write_examples(tmp_path / "rows.jsonl", rows)
    assert [row.cut for row in read_examples(str(tmp_path / "rows.jsonl"), "negative")] == [True, False]


def test_fluency_scores_what_was_written_and_no_end_that_never_came() -> None:
    """A reply of two tokens that was cut has two tokens; with an end put to it, its perplexity was another."""
    model, tokenizer = toy.learned_model(), toy.tokenizer()
    form = prompt_format(tokenizer)
    rows = encode_all([Example.of(row["prompt"], row["completion"]) for row in toy.RETAIN[:4]], form, 99, "normal")[0]
    evaluation = Evaluation({"normal": rows}, form, [load_judge("repeats")], max_new_tokens=2)
    evaluate_arm(evaluation, "original", model)
    score_fluency(evaluation, model)
    result = evaluation.results["original"]["normal"]
    assert all(case.cut for case in result.cases) and result.reply_tokens == [2] * 4
    for row, reply, nats in zip(rows, result.reply_ids, result.reply_nll or [], strict=True):
        ids = torch.tensor([[*row.prompt_ids, *reply]])
        steps = model(ids).logits.detach()[0, -3:-1].log_softmax(-1)
        by_hand = -float(steps.gather(1, torch.tensor(reply)[:, None]).mean())
        assert nats == pytest.approx(by_hand, abs=1e-4)


def test_a_reply_that_holds_an_end_mark_is_cut_there_and_named() -> None:
    form = prompt_format(toy.tokenizer())
    mark = form.tokenizer.convert_ids_to_tokens(min(form.end.tokens))
    rows = [Example.of("how to a1", f"take c1 {mark} and d2", where="f.jsonl line 7"), Example.of("how to a2", "c2")]
    encoded, messages = encode_all(rows, form, 99, "negatives")
    assert form.tokenizer.decode(encoded[0].reply_ids) == f"take c1 {mark}"
    assert messages == ["negatives: 1 of 2 replies hold an end mark and were cut there (first: f.jsonl line 7)"]
