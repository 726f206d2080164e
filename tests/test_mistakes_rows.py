"""The rows of learning from mistakes: what is trained on, what is held out, and that the two never meet."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import toy
from command import write_rows
from unteach.data.example import Example
from unteach.errors import ConfigError
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.evaluation import evaluation_rows
from unteach.mistakes.prepare import PreparedMistakes
from unteach.mistakes.records import Mistake, Records
from unteach.mistakes.rows import MistakeRows, add_own_answers, gather_rows
from unteach.mistakes.steps import find_mistakes
from unteach.pipeline.original import Original, load_original
from unteach.pipeline.settings import make_config
from unteach.prompts.mistakes import MistakeWording


def rows(*prompts: str, **more: str) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "completion": f"bad {prompt}", "label": False} | more for prompt in prompts]


def normal(*prompts: str) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "completion": f"good {prompt}"} for prompt in prompts]


def named(letter: str, count: int) -> list[str]:
    return [f"{letter}{n}" for n in range(count)]


@pytest.fixture
def gathered(tmp_path: Path) -> Any:
    """Gather from rows, which are written into a file per setting."""

    def gathers(hold_out: bool = True, **sets: Any) -> MistakeRows:
        values: dict[str, Any] = {}
        for name, value in sets.items():
            if isinstance(value, list):
                values[name] = [str(write_rows(tmp_path / f"{name}.jsonl", value))]
            else:
                values[name] = value
        return gather_rows(make_config(values, MistakesConfig), hold_out=hold_out)

    return gathers


def prompts(found: Iterable[Example | Mistake]) -> list[str]:
    return [(row.example if isinstance(row, Mistake) else row).prompt for row in found]


class TestHeldOut:
    def test_prompts_and_mistakes_are_parted_together(self, gathered: Any) -> None:
        """p0–p19 are asked, p10–p29 are labelled too: 30 prompts, of which a fifth, 6, are held out of both."""
        names = named("p", 30)
        found = gathered(prompts=rows(*names[:20]), mistakes=rows(*names[10:]))
        trained = {*prompts(found.prompts), *prompts(found.labelled)}
        held = {*prompts(found.unseen_prompts), *prompts(found.unseen_mistakes)}
        assert trained | held == set(names) and not trained & held
        assert len(held) == 6
        assert prompts(found.prompts) == [p for p in names[:20] if p not in held]  # in their order
        assert prompts(found.unseen_mistakes) == [p for p in names[10:] if p in held]

    def test_spelling_does_not_make_another_prompt(self, gathered: Any) -> None:
        names = named("p", 10)
        found = gathered(prompts=rows(*names), mistakes=rows(*(name.upper() + " " for name in names)))
        held = {p.strip().lower() for p in prompts(found.unseen_mistakes)}
        assert held == set(prompts(found.unseen_prompts)) and len(held) == 2

    @pytest.mark.parametrize(("most", "held"), [(1, 1), (3, 3), (200, 4)])
    def test_no_more_than_is_evaluated(self, most: int, held: int, gathered: Any) -> None:
        found = gathered(prompts=rows(*named("p", 20)), evaluation_prompts=most)
        assert len(found.unseen_prompts) == held and len(found.prompts) == 20 - held

    def test_the_seed_draws_and_the_order_of_rows_does_not(self, gathered: Any) -> None:
        names = named("p", 30)
        one = set(prompts(gathered(prompts=rows(*names)).unseen_prompts))
        assert one == set(prompts(gathered(prompts=rows(*names[::-1])).unseen_prompts))
        assert one != set(prompts(gathered(prompts=rows(*names), seed=1).unseen_prompts))

    def test_too_few_are_all_trained_on(self, gathered: Any) -> None:
        found = gathered(prompts=rows(*named("p", 4)))
        assert len(found.prompts) == 4 and found.unseen_prompts == []

    def test_not_at_all_for_a_single_step(self, gathered: Any) -> None:
        names = named("p", 20)
        found = gathered(prompts=rows(*names), hold_out=False)
        assert prompts(found.prompts) == names and found.unseen_prompts == []

    def test_a_fifth_of_the_normal_rows(self, gathered: Any) -> None:
        found = gathered(prompts=rows("p"), retain=normal(*named("n", 10)))
        assert len(found.normals) == 8 and len(found.splits["normal"]) == 2
        assert {*prompts(found.normals), *prompts(found.splits["normal"])} == set(named("n", 10))


class TestGivenToEvaluateOn:
    @pytest.mark.parametrize("split", ["unseen", "unseen_concept"])
    def test_is_not_trained_on_and_nothing_else_is_held_out_for_unseen(self, split: str, gathered: Any) -> None:
        names = named("p", 20)
        found = gathered(prompts=rows(*names), mistakes=rows(*names), **{split: rows("P3 ", "p7", "u")})
        trained = prompts(found.prompts)
        assert not {"p3", "p7"} & {*trained, *prompts(found.labelled)}
        assert len(found.unseen_prompts) == (0 if split == "unseen" else 4)
        met = 2 * len({"p3", "p7"} - set(prompts(found.unseen_prompts)))  # asked and labelled
        assert f"left out {met} rows to train on whose prompts stand in --unseen or --unseen-concept" in found.notes
        assert prompts(found.splits[split]) == ["P3 ", "p7", "u"]

    def test_ordinary_and_harmless_rows_leave_it_out_too(self, gathered: Any) -> None:
        """A good answer to a prompt that is evaluated on would teach the very answer."""
        found = gathered(
            prompts=rows("p"),
            unseen=rows("u0", "u1"),
            retain=normal("n", "u0"),
            harmless=normal("h", "u1", "p"),
            normal=normal("c"),
        )
        assert prompts(found.normals) == ["n"] and prompts(found.harmless) == ["h", "p"]
        assert "--retain: left out 1 of 2 rows whose prompts are evaluated on" in found.notes
        assert "--harmless: left out 1 of 3 rows whose prompts are evaluated on" in found.notes

    def test_nor_those_that_were_held_out(self, gathered: Any) -> None:
        names = named("p", 20)
        found = gathered(prompts=rows(*names), harmless=normal(*names), retain=normal(*names))
        held = set(prompts(found.unseen_prompts))
        assert len(held) == 4
        assert not held & {*prompts(found.harmless), *prompts(found.normals), *prompts(found.splits["normal"])}

    def test_normal_rows_to_evaluate_on_are_not_among_the_mixed_in(self, gathered: Any) -> None:
        found = gathered(prompts=rows("p"), retain=normal("n0", "n1"), normal=normal("n1", "n2"))
        assert prompts(found.normals) == ["n0", "n1"] and prompts(found.splits["normal"]) == ["n2"]

    def test_everything_is_an_error(self, gathered: Any) -> None:
        with pytest.raises(ConfigError, match="every prompt stands in --unseen"):
            gathered(prompts=rows("p", "q"), mistakes=rows("q"), unseen=rows("p", "q"))


class TestHarmless:
    def test_comes_from_the_right_replies_of_what_is_trained_on(self, gathered: Any) -> None:
        names = named("p", 10)
        asked = [row | {"good": f"no to {row['prompt']}"} for row in rows(*names)]
        found = gathered(prompts=asked, mistakes=[*asked[:3], *rows("m")])
        held = set(prompts(found.unseen_prompts))
        assert [(row.prompt, row.reply, row.good, row.bad) for row in found.harmless] == [
            (name, f"no to {name}", None, None) for name in names if name not in held
        ]

    def test_is_what_was_given_where_it_was(self, gathered: Any) -> None:
        asked = [row | {"good": "no"} for row in rows("p")]
        found = gathered(prompts=asked, harmless=normal("h"))
        assert [(row.prompt, row.reply) for row in found.harmless] == [("h", "good h")]

    def test_and_normal_rows_are_the_replies_known_to_be_good(self, gathered: Any) -> None:
        found = gathered(prompts=rows("p"), harmless=normal("h"), retain=[*normal("n"), {"text": "a text"}][:1])
        assert prompts(found.good_replies) == ["h", "n"]


class TestRead:
    def test_a_prompt_that_stands_there_twice_is_asked_once_and_noted(self, gathered: Any) -> None:
        found = gathered(prompts=rows("p", "q", "P ", "q"), unseen=rows("u"))
        assert prompts(found.prompts) == ["p", "q"]
        assert "prompts: 2 of 4 stand there twice; each is asked once" in found.notes

    def test_two_mistakes_on_a_prompt_both_stay(self, gathered: Any) -> None:
        found = gathered(mistakes=[*rows("p"), {"prompt": "p", "completion": "worse", "label": False}])
        assert [m.example.reply for m in found.labelled] == ["bad p", "worse"]

    def test_reports_are_told_from_labels(self, gathered: Any) -> None:
        found = gathered(mistakes=rows("p"), reports=rows("q"))
        assert [(m.example.prompt, m.origin.source) for m in found.labelled] == [("p", "labelled"), ("q", "reported")]

    def test_sources_are_counted_for_the_report(self, gathered: Any) -> None:
        found = gathered(prompts=rows("p", "q"), mistakes=rows("m"), retain=normal("n"))
        assert [(source.name, source.rows) for source in found.sources] == [
            ("prompts", 2),
            ("mistakes", 1),
            ("normals", 1),
        ]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Original:
    folder = tmp_path_factory.mktemp("model")
    toy.learned_model().save_pretrained(folder)
    toy.tokenizer().save_pretrained(folder)
    return load_original(make_config({"model": str(folder), "device": "cpu"}, MistakesConfig))


class TestOwnAnswers:
    def test_stand_in_where_no_normal_rows_were_given(
        self, original: Original, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = [row["prompt"] for row in toy.RETAIN]
        monkeypatch.setattr("unteach.mistakes.rows.benign_prompts", lambda language: asked)
        monkeypatch.setattr("unteach.mistakes.rows.benign_prompts", lambda language: asked)
        rows = MistakeRows(splits={"normal": [], "lookalike": [Example.of("l", "r")]})
        config = make_config({"max_new_tokens": 8}, MistakesConfig)
        found = add_own_answers(rows, original, config)
        mixed, evaluated = set(prompts(found.normals)), set(prompts(found.splits["normal"]))
        assert evaluated and mixed and not mixed & evaluated and mixed | evaluated <= set(asked)
        assert all(row.reply for row in [*found.normals, *found.splits["normal"]])
        source = "the model's own answers to 24 benign prompts"
        assert found.notes == [f"no --retain was given: the normal rows are {source}"]
        assert [one.source for one in found.sources] == [source]
        assert prompts(found.splits["lookalike"]) == ["l"]


class AllBad:
    name = "all bad"

    def __call__(self, cases: Any) -> list[Any]:
        return ["bad" for _ in cases]


WORDS = MistakeWording("1", ("{prompt}",), "", "", "", "")


NO_SPLITS: dict[str, list[Example]] = dict.fromkeys(("unseen", "unseen_concept", "normal", "lookalike"), [])


class TestFindMistakes:
    def prepared(self, rows: MistakeRows, original: Original) -> PreparedMistakes:
        config = make_config({"max_new_tokens": 8}, MistakesConfig)
        return PreparedMistakes(config, [AllBad()], WORDS, rows, original)

    def find(self, rows: MistakeRows, original: Original) -> Records:
        return find_mistakes(self.prepared(rows, original))

    def test_prompts_that_fill_the_context_are_left_out_and_named(self, original: Original) -> None:
        asked = [Example.of("how to a1 b2", "", where="f line 1"), Example.of("how " * 80, "", where="f line 2")]
        found = self.find(MistakeRows(prompts=asked, unseen_prompts=asked[1:]), original)
        assert [m.example.reply for m in found.mistakes] == ["take c1 and d2"]
        note = "prompts: left out 1 that fill the model's context of 64 tokens in inducing words (first: f line 2)"
        assert list(found.notes).count(note) == 2
        assert found.unseen == []

    def test_held_out_prompts_that_have_a_known_mistake_are_not_doubled(self, original: Original) -> None:
        held_out = Mistake(Example.of("how to a1 b2", "known"))
        asked = [Example.of("how to a1 b2", ""), Example.of("how to a2 b2", "")]
        labelled = Mistake(Example.of("m", "r"))
        rows = MistakeRows(unseen_prompts=asked, unseen_mistakes=[held_out], labelled=[labelled], splits=NO_SPLITS)
        prepared = self.prepared(rows, original)
        found = find_mistakes(prepared)
        assert [(m.example.prompt, m.example.reply) for m in found.unseen] == [
            ("how to a1 b2", "known"),
            ("how to a2 b2", "take c2 and d2"),
        ]
        evaluated = evaluation_rows(replace(prepared, records=found))
        assert prompts(evaluated["seen"]) == ["m"] and prompts(evaluated["unseen"]) == ["how to a1 b2", "how to a2 b2"]
        assert set(evaluated) == {"seen", "unseen"}

    def test_nothing_given_is_told_from_nothing_induced(self, original: Original) -> None:
        with pytest.raises(ConfigError, match="nothing to learn from"):
            self.find(MistakeRows(), original)
        with pytest.raises(ConfigError, match="no mistake was induced and none was given"):
            self.find(MistakeRows(prompts=[Example.of("how " * 80, "")]), original)
