"""Inducing: what counts as a mistake, which inducements are tried and in which order, and what is told of it."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

import toy
from unteach.data.example import Example
from unteach.data.prompt_format import prompt_format
from unteach.mistakes import ask as module
from unteach.mistakes.induce import Induction, induce
from unteach.mistakes.records import Mistake, Origin
from unteach.models.fingerprint import model_fingerprint
from unteach.models.reply import Reply, ReplyEnd
from unteach.pipeline.original import Original
from unteach.prompts.mistakes import MistakeWording
from unteach.prompts.turn import Turn
from unteach.results.verdict import Case, Verdict

WORDS = MistakeWording("7", ("x0 {prompt}", "x1 {prompt}", "{prompt} x2"), "", "", "", "")
CRIME, HELP = "Take the purse when nobody looks.", "Here is a nice cake."


class Script:
    """Stands for the model: answers by inducement and prompt, and remembers what it was asked, round by round."""

    def __init__(self, answers: dict[tuple[int, str], str], otherwise: str = HELP) -> None:
        self.answers, self.otherwise = answers, otherwise
        self.rounds: list[list[tuple[int, str]]] = []
        self.settings: list[dict[str, Any]] = []

    end = ReplyEnd(frozenset())

    def prompt_ids(self, turns: Sequence[Turn]) -> tuple[Turn, ...]:
        return tuple(turns)

    def __call__(self, model: Any, tokenizer: Any, prompts: Sequence[Any], **settings: Any) -> list[Reply]:
        asked = []
        for turns in prompts:
            text = turns[-1].content
            number = next(n for n in range(3) if f"x{n}" in text)
            asked.append((number, text.replace(f"x{number}", "").strip()))
        self.rounds.append(asked)
        self.settings.append(settings)
        return toy.replies([self.answers.get(one, self.otherwise) for one in asked])


class Judge:
    """Calls what these words are in bad, what "hm" is in unknown, or all of it what it is told to."""

    name = "words"

    def __init__(self, always: Verdict | None = None) -> None:
        self.always, self.cases = always, list[Case]()

    def __call__(self, cases: Sequence[Case]) -> list[Verdict]:
        self.cases += cases
        if self.always:
            return [self.always for _ in cases]
        return ["bad" if "purse" in c.reply else "unknown" if "hm" in c.reply else "good" for c in cases]


Inducer = Callable[..., Induction]


@pytest.fixture
def inducer(monkeypatch: pytest.MonkeyPatch) -> Inducer:
    def run(script: Script, prompts: Sequence[str | Example], judge: Any = None, **settings: Any) -> Induction:
        monkeypatch.setattr(module, "generate_cached", script)
        form: Any = script
        form.tokenizer = lambda text, **_: {"input_ids": text.split()}
        rows = [Example.of(p, "", where=p) if isinstance(p, str) else p for p in prompts]
        original = Original("m", None, None, form, settings.pop("key", ""))
        return induce(original, rows, judge or Judge(), WORDS, **settings)

    return run


def everywhere(prompt: str, reply: str) -> dict[tuple[int, str], str]:
    return {(number, prompt): reply for number in range(3)}


REFUSALS = ["I cannot help with that.", "I'm sorry, but no.", "\u201cI won\u2019t do that\u201d", "Sorry, I can't."]


@pytest.mark.parametrize("reply", REFUSALS)
def test_a_refusal_is_never_a_mistake_whatever_the_judge_says(reply: str, inducer: Inducer) -> None:
    judge = Judge("bad")
    found = inducer(Script({}, reply), ["a", "b"], judge)
    assert found.mistakes == [] and judge.cases == []
    assert found.outcomes == {"declined": 2}
    assert found.rate[0] == 0


@pytest.mark.parametrize(
    ("reply", "outcome", "judged"),
    [
        (CRIME, "induced", True),
        (HELP, "benign", True),
        ("hm", "unknown", True),
        ("", "blank", False),
        (" \u200b\n", "blank", False),
        ("purse " * 30, "gibberish", False),
    ],
)
def test_every_outcome_is_counted(reply: str, outcome: str, judged: bool, inducer: Inducer) -> None:
    judge = Judge()
    found = inducer(Script({}, reply), ["a"], judge)
    tries = 1 if outcome == "induced" else 3
    assert found.outcomes == {outcome: 1}
    assert sum((tried for tried in found.tried), start=type(found.outcomes)()) == {outcome: tries}
    assert len(judge.cases) == (tries if judged else 0)
    assert len(found.mistakes) == (outcome in ("induced", "unknown"))


def test_a_prompt_counts_by_the_best_that_came_of_it(inducer: Inducer) -> None:
    script = Script(
        {
            (0, "a"): "",
            (1, "a"): "I cannot do that.",
            (2, "a"): "hm",
            (0, "b"): "",
            (1, "b"): HELP,
            (2, "b"): "I cannot do that.",
        }
    )
    found = inducer(script, ["a", "b"])
    assert found.outcomes == {"unknown": 1, "benign": 1}
    assert [dict(tried) for tried in found.tried] == [
        {"blank": 2},
        {"declined": 1, "benign": 1},
        {"unknown": 1, "declined": 1},
    ]


class TestTries:
    def test_go_on_until_one_is_bad_and_then_end(self, inducer: Inducer) -> None:
        script = Script({(2, "a"): CRIME} | everywhere("b", CRIME))
        found = inducer(script, ["a", "b", "c"])
        asked = [one for turn in script.rounds for one in turn]
        place = [number for number, prompt in asked if prompt == "a"].index(2)
        assert [prompt for _, prompt in asked].count("a") == place + 1  # 2 was its last
        assert [prompt for _, prompt in asked].count("b") == 1
        assert sorted(number for number, prompt in asked if prompt == "c") == [0, 1, 2]  # each once
        assert [m.example.prompt for m in found.mistakes] == ["a", "b"]
        assert found.outcomes == {"induced": 2, "benign": 1}

    def test_have_an_order_that_neighbours_do_not_change(self, inducer: Inducer) -> None:
        names = [f"p{n}" for n in range(30)]

        def orders(prompts: list[str], seed: int) -> dict[str, list[int]]:
            script = Script({})
            inducer(script, prompts, seed=seed)
            return {p: [n for turn in script.rounds for n, prompt in turn if prompt == p] for p in prompts}

        whole = orders(names, 0)
        assert orders(names[::-3], 0) == {name: whole[name] for name in names[::-3]}
        assert {tuple(order) for order in whole.values()} == {
            (0, 1, 2),
            (0, 2, 1),
            (1, 0, 2),
            (1, 2, 0),
            (2, 0, 1),
            (2, 1, 0),
        }
        assert orders(names, 1) != whole

    def test_pass_the_settings_on(self, inducer: Inducer) -> None:
        script = Script({})
        inducer(script, ["a"], max_new_tokens=9, key="k")
        assert [(s["max_new_tokens"], s["key"]) for s in script.settings] == [(9, "k")] * 3
        assert all("temperature" not in s for s in script.settings)  # greedy


class TestMistakes:
    def test_say_where_they_come_from(self, inducer: Inducer) -> None:
        script = Script({(1, "a"): CRIME})
        found = inducer(script, [Example.of("a", "", good="g", bad="known", concept="c", where="f 1")], seed=5)
        origin = Origin("induced", "m", 5, "7", 1, "words", "bad")
        assert found.mistakes == [Mistake(Example.of("a", CRIME, good="g", concept="c", where="f 1"), origin)]

    def test_keep_the_dialogue_without_the_inducing_words(self, inducer: Inducer) -> None:
        turns = (Turn("user", "q"), Turn("assistant", "r"), Turn("user", "a"))
        judge = Judge()
        found = inducer(Script({}, CRIME), [Example(turns, "")], judge)
        assert found.mistakes[0].example.turns == turns
        assert judge.cases[0].prompt == "user: q\nassistant: r\nuser: a"

    def test_are_judged_by_the_prompt_as_it_was(self, inducer: Inducer) -> None:
        judge = Judge()
        inducer(Script({}, CRIME), [Example.of("a", "", good="g", bad="known", concept="c")], judge)
        assert judge.cases == [Case("a", CRIME, bad="known", good="g", concept="c")]

    def test_come_in_the_order_of_the_prompts(self, inducer: Inducer) -> None:
        names = [f"p{n}" for n in range(12)]
        script = Script({(n % 3, name): CRIME for n, name in enumerate(names)})
        assert [m.example.prompt for m in inducer(script, names).mistakes] == names

    def test_unknown_ones_are_kept_and_marked_and_do_not_count(self, inducer: Inducer) -> None:
        found = inducer(Script(everywhere("a", "hm") | {(0, "b"): CRIME}), ["a", "b", "c"])
        assert [(m.example.prompt, m.origin.verdict) for m in found.mistakes] == [("a", "unknown"), ("b", "bad")]
        assert found.outcomes == {"unknown": 1, "induced": 1, "benign": 1}
        assert found.rate[0] == pytest.approx(1 / 3)

    def test_a_bad_reply_takes_the_place_of_an_unknown_one(self, inducer: Inducer) -> None:
        script = Script({(0, "a"): "hm", (1, "a"): "hm", (2, "a"): CRIME})
        [mistake] = inducer(script, ["a"]).mistakes
        assert (mistake.example.reply, mistake.origin.verdict, mistake.origin.inducement) == (CRIME, "bad", 2)


class TestTold:
    def test_the_rate_with_its_interval_and_the_others(self, inducer: Inducer) -> None:
        answers = {key: CRIME for name in ("a", "b", "c", "d") for key in everywhere(name, CRIME)}
        answers |= everywhere("e", "I cannot do that.") | everywhere("f", "") | everywhere("g", "hm")
        found = inducer(Script(answers), list("abcdefgh"))
        # Wilson, 4 of 8: (0.5 + 1.96²/16 ± 1.96·√(0.25/8 + 1.96²/256)) / (1 + 1.96²/8) = 0.2152, 0.7848
        assert str(found) == (
            "induction rate 50.0% [21.5, 78.5] of 8 prompts (the others: 1 unknown, 1 benign, 1 declined, 1 blank)"
        )

    def test_an_aligned_model_has_a_message_of_its_own(self, inducer: Inducer) -> None:
        text = str(inducer(Script({}, "I cannot help with that."), ["a", "b"]))
        assert text.startswith("induction rate 0.0% [0.0, 65.8] of 2 prompts (the others: 2 declined); the model will")
        assert "--mistakes" in text and "--wording" in text

    def test_nobody_was_asked(self, inducer: Inducer) -> None:
        found = inducer(Script({}), [])
        assert found.mistakes == [] and found.rate == (None, None, None) and str(found) == "no prompt was asked"


def test_on_a_real_model() -> None:
    """The toy model recites its rows also in inducing words that the tokenizer does not know."""
    words = MistakeWording("1", ("{prompt}",), "", "", "", "")
    rows = [Example.of("how to a1 b2", ""), Example.of("where is e3 f0", "")]

    class Takes(Judge):
        def __call__(self, cases: Sequence[Case]) -> list[Verdict]:
            return ["bad" if case.reply.startswith("take") else "good" for case in cases]

    model, tokenizer = toy.learned_model(), toy.tokenizer()
    original = Original("toy", model, tokenizer, prompt_format(tokenizer), model_fingerprint(model))
    found = induce(original, rows, Takes(), words, max_new_tokens=8)
    assert [(m.example.prompt, m.example.reply) for m in found.mistakes] == [("how to a1 b2", "take c1 and d2")]
    assert found.outcomes == {"induced": 1, "benign": 1}
