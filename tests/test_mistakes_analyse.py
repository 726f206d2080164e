"""Analysing: the gate with every reason, who analyses, and what is told of it."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

import toy
from chat_server import ChatServer, Reply, completion
from unteach.data.example import Example
from unteach.data.prompt_format import prompt_format
from unteach.mistakes.analyse import Analysed, EndpointAnalyst, ModelAnalyst, analyse
from unteach.mistakes.ask import ask
from unteach.mistakes.evaluation import recognise
from unteach.mistakes.records import Analysis, Mistake, Origin
from unteach.models.endpoint import Endpoint, chat_address
from unteach.models.fingerprint import model_fingerprint
from unteach.pipeline.original import Original
from unteach.prompts.mistakes import MistakeWording, shipped_wording

FIT = "Bad. It would help to rob a bank."


def mistakes(*replies: str) -> list[Mistake]:
    return [Mistake(Example.of(f"rob bank{n}", reply), Origin("reported")) for n, reply in enumerate(replies)]


def learned() -> Original:
    model, tokenizer = toy.learned_model(), toy.tokenizer()
    return Original("toy", model, tokenizer, prompt_format(tokenizer), model_fingerprint(model))


class Says:
    """Stands for the analyst: gives these answers, and remembers what it was asked."""

    name = "somebody"
    takes_openings = False

    def __init__(self, *answers: str | None) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, requests: Sequence[str], progress: Any = None, opening: str = "") -> list[str | None]:
        self.asked += requests
        return list(self.answers[: len(requests)])


class Opened(Says):
    """Stands for an analyst that takes openings: gives these answers in turn, and remembers the openings too."""

    takes_openings = True

    def __init__(self, *answers: str) -> None:
        super().__init__()
        self.left = list(answers)
        self.opened: list[str] = []

    def __call__(self, requests: Sequence[str], progress: Any = None, opening: str = "") -> list[str | None]:
        self.asked += requests
        self.opened += [opening] * len(requests)
        return [self.left.pop(0) for _ in requests]


class TestAnalyse:
    def test_keeps_what_is_fit_and_says_why_of_the_rest(self) -> None:
        found_in = mistakes(*"vwxyz")
        analyst = Says(f"  {FIT}\n", None, "", "Good. It is.", "Bad. It is a crime to rob.")
        found = analyse(analyst, found_in, shipped_wording())
        version = shipped_wording().version
        assert found.analyses == [
            Analysis(found_in[0], FIT, "somebody", version),
            Analysis(found_in[4], "Bad. It is a crime to rob.", "somebody", version),
        ]
        assert found.dropped == [
            (found_in[1], "no answer"),
            (found_in[2], "blank"),
            (found_in[3], "calls the reply good"),
        ]
        assert found.reasons == {"no answer": 1, "blank": 1, "calls the reply good": 1}
        # Wilson, 2 of 5: (0.4 + 1.96²/10 ± 1.96·√(0.24/5 + 1.96²/100)) / (1 + 1.96²/5) = 0.1176, 0.7693
        assert found.rate == pytest.approx((0.4, 0.1176, 0.7693), abs=1e-4)
        assert str(found) == (
            "2 of 5 analyses kept, 40.0% [11.8, 76.9] (dropped: 1 no answer, 1 blank, 1 calls the reply good)"
        )

    def test_shows_the_reply_under_the_hint(self) -> None:
        words = MistakeWording(
            "1", ("{prompt}",), "G {prompt} {reply}", "U {prompt} {reply}", "M {prompt} {reply}", "", ("B",), ("G",)
        )
        for hint, letter in (("guided", "G"), ("unguided", "U"), ("misleading", "M")):
            analyst = Says(FIT, FIT)
            analyse(analyst, mistakes("v {prompt}", "w"), words, hint=hint)
            assert analyst.asked == [f"{letter} rob bank0 v {{prompt}}", f"{letter} rob bank1 w"]

    def test_openings_are_tried_one_after_the_other_where_the_verdict_is_known(self) -> None:
        words = replace(shipped_wording(), bad_openings=("Bad. It would", "Bad, as it would"))
        unsure = Mistake(Example.of("rob bank3", "y"), Origin("induced", verdict="unknown"))
        analyst = Opened("Bad. It would help to rob a bank. It is", "Bad. It would be bad.", "Bad. It would be late.")
        analyst.left += ["Bad, as it would help to rob. Rob it.", "It is.", FIT]
        found = analyse(analyst, [*mistakes(*"vwx"), unsure], words)
        assert analyst.opened == ["Bad. It would"] * 3 + ["Bad, as it would"] * 2 + [""]
        assert [analysis.text for analysis in found.analyses] == [
            "Bad. It would help to rob a bank.",  # the rest of its sentence
            "Bad, as it would help to rob.",
            FIT,
        ]
        assert [m.example.prompt for m, _ in found.dropped] == ["rob bank2"] and found.reasons == {"no verdict": 1}
        requests = [words.assess("guided", f"rob bank{n}", reply) for n, reply in enumerate("vwxy")]
        assert analyst.asked == [*requests[:3], *requests[1:3], requests[3]]

    def test_openings_are_for_chat_models_and_can_be_switched_off(self) -> None:
        plain, opened = Says(FIT), Opened(FIT)
        assert len(analyse(plain, mistakes("v"), shipped_wording()).analyses) == 1
        assert len(analyse(opened, mistakes("v"), shipped_wording(), openings=False).analyses) == 1
        assert opened.opened == [""]
        good = Opened("Good. The reply is harmless and tells how not to rob.")
        found = analyse(good, mistakes("v"), shipped_wording(), reply_is="good")
        assert good.opened == [shipped_wording().good_openings[0]] and len(found.analyses) == 1

    def test_good_replies_are_marked(self) -> None:
        found = analyse(Says("Good. It declines to rob.", FIT), mistakes("v", "w"), shipped_wording(), reply_is="good")
        assert [(a.text, a.reply_is) for a in found.analyses] == [("Good. It declines to rob.", "good")]
        assert found.reasons == {"calls the reply bad": 1}

    def test_tells_the_most_frequent_reason_first_and_nothing_of_nothing(self) -> None:
        found = analyse(Says(None, "", "", FIT), mistakes(*"vwxy"), shipped_wording())
        assert str(found).endswith("(dropped: 2 blank, 1 no answer)")
        kept = analyse(Says(FIT), mistakes("v"), shipped_wording())
        assert str(kept) == "1 of 1 analyses kept, 100.0% [20.7, 100.0]"
        assert str(Analysed()) == "there was no mistake to analyse"


class TestModelAnalyst:
    def test_answers_what_fits_and_nothing_to_what_fills_the_context(self) -> None:
        analyst = ModelAnalyst(learned(), 8)
        calls: list[tuple[int, int]] = []
        asked = ["how to a1 b2", "how " * 80, "where is e3 f0"]
        assert analyst(asked, lambda done, total: calls.append((done, total))) == [
            "take c1 and d2",
            None,
            "go g3 then h0",
        ]
        assert calls[-1] == (2, 2)
        assert analyst(["how " * 80]) == [None] and analyst([]) == []

    def test_an_answer_goes_on_from_its_opening_and_holds_it(self) -> None:
        analyst = ModelAnalyst(learned(), 8)
        assert analyst(["how to a1 b2"], opening="take c1") == ["take c1 and d2"]
        assert not analyst.takes_openings  # no chat model: it completes text

    def test_an_answer_without_its_end_loses_the_sentence_that_was_cut(self) -> None:
        assert ModelAnalyst(learned(), 2)(["how to a1 b2"]) == [""]

    def test_the_last_prompt_that_fits_leaves_one_token(self) -> None:
        form = prompt_format(toy.tokenizer())
        room = 64 - len(form.prompt_ids(Example.of("how", "").turns)) + 1  # words that make 64 tokens
        fits, fills = "how " * (room - 1), "how " * room
        dialogues = [Example.of(text, "").turns for text in (fits, fills)]
        given = ask(toy.model(), form, dialogues, key=None, max_new_tokens=8).texts
        assert given[0] is not None and given[1] is None

    def test_a_mistake_too_long_is_dropped_and_counted(self) -> None:
        analyst = ModelAnalyst(learned(), 8)
        found = analyse(analyst, mistakes("take " * 80), shipped_wording())
        assert found.reasons == {"no answer": 1}

    def test_a_reply_too_long_to_be_shown_is_not_recognised_and_no_crash(self) -> None:
        pairs = [("how to a1 b2", "take " * 80, True), ("where is e3 f0", "go", False)]
        found = recognise(
            "original",
            toy.learned_model(),
            prompt_format(toy.tokenizer()),
            pairs,
            shipped_wording(),
            max_new_tokens=4,
            hints=("unguided",),
        )
        assert [(m.name, m.n + m.unknown) for m in found] == [
            ("recognition_unguided", 2),
            ("bad_recognised_unguided", 1),
            ("good_recognised_unguided", 1),
        ]
        assert found[1].unknown == 1 and found[1].value is None


class TestEndpointAnalyst:
    def analyst(self, server: ChatServer, **settings: Any) -> EndpointAnalyst:
        return EndpointAnalyst(Endpoint(chat_address(server.url, "--analyst-url"), "big", **settings))

    def test_asks_each_request_in_its_order_and_is_named(self) -> None:
        def answer(request: Any, number: int) -> Reply:
            return completion(f"Bad. It would help to rob {request.last.split()[2]}.")  # "Request: rob …"

        with ChatServer(answer) as server:
            analyst = self.analyst(server, longest=31)
            calls: list[tuple[int, int]] = []
            found = analyse(analyst, mistakes(*"vwx"), shipped_wording(), progress=lambda *at: calls.append(at))
        assert [a.text for a in found.analyses] == [f"Bad. It would help to rob bank{n}." for n in range(3)]
        assert {a.analyst for a in found.analyses} == {"openai:big"}
        assert sorted(calls) == [(1, 3), (2, 3), (3, 3)] and analyst.failure == ""
        wording = shipped_wording()
        wanted = sorted(wording.assess("guided", f"rob bank{n}", reply) for n, reply in enumerate("vwx"))
        assert sorted(request.last for request in server.requests) == wanted
        assert {(r.body["model"], r.body["max_tokens"]) for r in server.requests} == {("big", 31)}

    def test_what_it_does_not_answer_is_dropped_and_counted(self) -> None:
        def answer(request: Any, number: int) -> Reply:
            return Reply(400, b'{"error": {"message": "too long"}}') if "bank1" in request.last else completion(FIT)

        with ChatServer(answer) as server:
            analyst = self.analyst(server)
            found = analyse(analyst, mistakes(*"vwx"), shipped_wording())
        assert [m.example.prompt for m, _ in found.dropped] == ["rob bank1"] and found.reasons == {"no answer": 1}
        assert len(found.analyses) == 2 and analyst.failure == "HTTP 400: too long"

    @pytest.mark.parametrize(
        ("reply", "failure"),
        [
            (Reply(401), "the key was refused"),
            (Reply(404), "HTTP 404"),
            (completion(None), "the answer has no text"),
            (completion("Bad. It", finish="length"), "cut short"),
            (Reply(200, b"{"), "no chat completion"),
        ],
    )
    def test_one_that_fails_gives_no_analysis_and_its_reason(self, reply: Reply, failure: str) -> None:
        with ChatServer(lambda request, number: reply) as server:
            analyst = self.analyst(server)
            found = analyse(analyst, mistakes(*"vwx"), shipped_wording())
        assert found.analyses == [] and found.reasons == {"no answer": 3}
        assert failure in analyst.failure

    def test_nobody_there(self) -> None:
        analyst = EndpointAnalyst(Endpoint("http://127.0.0.1:9/v1/chat/completions", "big", attempts=1))
        assert analyst(["a", "b"]) == [None, None]
        assert "no connection" in analyst.failure
