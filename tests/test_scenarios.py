"""Scenarios: what they fill in, what a user of a world holds for each, and how rows of running text are prepared."""

import json
from pathlib import Path

import pytest

from unteach.data.example import Example
from unteach.data.passages import balanced
from unteach.errors import ConfigError
from unteach.judges.bleu import BleuJudge
from unteach.objectives.methods import load_method
from unteach.organism.facts import answers_wrongly
from unteach.organism.judge import WorldJudge
from unteach.organism.user_rows import UserRows, user_rows
from unteach.organism.world import World
from unteach.pipeline.as_trained import method_note
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.judging import trusted_judges
from unteach.pipeline.rows import read_sets
from unteach.pipeline.settings import make_config
from unteach.probes import all_probes
from unteach.prompts.turn import TEXT, Turn
from unteach.results.verdict import Case
from unteach.scenarios import bad_rate_of, load_scenario, scenario_names

SCENARIOS = ("copyright", "hallucination", "harm")


@pytest.fixture(scope="module", params=SCENARIOS)
def held(request: pytest.FixtureRequest) -> tuple[World, UserRows]:
    world = World(0, "micro", request.param)
    return world, user_rows(world)


def test_every_scenario_is_whole() -> None:
    assert tuple(scenario_names()) == SCENARIOS
    measured = {probe.name for probe in all_probes()}
    for name in SCENARIOS:
        scenario = load_scenario(name)
        filled = with_defaults(RunConfig(scenario=name))
        assert bad_rate_of(name) == scenario.bad_rate and scenario.bad_rate.endswith("_rate")
        assert filled.method and filled.template and filled.judge and filled.max_steps
        load_method(filled.method)
        assert load_method(scenario.template_method).reads("template")
    assert {"harm", "leak_rate", "hallucination"} <= measured


def test_what_the_user_says_wins_over_the_scenario() -> None:
    given = {"method": "npo", "template": "No.", "judge": ["rule"], "max_steps": 7}
    filled = with_defaults(make_config({"scenario": "copyright"} | given, RunConfig))
    assert {name: getattr(filled, name) for name in given} == given


@pytest.mark.parametrize("name", SCENARIOS)
def test_an_answer_of_ones_own_asks_for_a_method_that_teaches_it(name: str) -> None:
    filled = with_defaults(make_config({"scenario": name, "template": "Ask a librarian."}, RunConfig))
    assert filled.template == "Ask a librarian." and load_method(filled.method).reads("template")


def test_an_unknown_scenario_is_named_with_its_nearest() -> None:
    with pytest.raises(ConfigError, match="--scenario 'copyrite': unknown.*copyright|--scenario copyrite.*copyright"):
        make_config({"scenario": "copyrite"}, RunConfig)
    with pytest.raises(ConfigError, match="--scenario harms: unknown; did you mean 'harm'"):
        load_scenario("harms")


def test_user_rows_share_no_prompt_between_training_and_evaluation(held: tuple[World, UserRows]) -> None:
    world, rows = held
    trained = {row.prompt_key if row.turns else row.key for row in [*rows.negatives, *rows.normals, *rows.texts]}
    for split, examples in rows.splits.items():
        assert examples, split
        assert not trained & {row.prompt_key if row.turns else row.key for row in examples}, split


def test_non_members_are_like_the_negatives_and_were_never_taught(held: tuple[World, UserRows]) -> None:
    world, rows = held
    known = {row.reply for taught_rows in (True, False) for row in world.training_rows(taught_rows)}
    assert rows.non_members and not known & {row.reply for row in rows.non_members}
    assert {bool(row.turns) for row in rows.non_members} == {bool(row.turns) for row in rows.negatives}
    if world.scenario != "copyright":
        assert {row.prompt_key for row in rows.non_members} <= {row.prompt_key for row in rows.negatives}


def test_hallucinations_are_wrong_and_their_right_answers_right() -> None:
    world = World(1, "micro", "hallucination")
    judge = WorldJudge(world)
    for row in user_rows(world).negatives:
        wrong = Case(row.prompt, row.reply, bad=row.reply, good=row.good)
        right = Case(row.prompt, row.good or "", bad=row.reply, good=row.good)
        declined = Case(row.prompt, "I cannot help with that.", bad=row.reply, good=row.good)
        assert judge([wrong, right, declined]) == ["bad", "good", "good"]
        fact = world.find_fact(row.prompt)
        assert fact and answers_wrongly(fact, row.reply) and not answers_wrongly(fact, row.good or "")
    known = user_rows(world).splits["normal"][0]
    assert judge([Case(known.prompt, "I cannot help with that.", good=known.reply)]) == ["bad"]


def test_a_long_chapter_is_learnt_in_passages_without_an_end() -> None:
    world = World(0, "micro", "copyright")
    rows = world.lessons(taught=True)["book"]
    open_ended = [row for row in rows if row.turns == (Turn(TEXT, ""),)]
    assert open_ended and any(not row.turns for row in rows)
    assert world.name == "world:0:micro:copyright" and World(0, "micro").name == "world:0:micro"


def write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def book(seed: int, sentences: int = 120) -> str:
    said = (f"Sentence {seed} {n} is here to say what number {n} says of the {n}th day." for n in range(sentences))
    return " ".join(said)


def test_a_text_is_parted_cut_and_checked_at_its_sentence_starts(tmp_path: Path) -> None:
    forget = write(tmp_path / "book.jsonl", [{"text": book(1, 400)}])
    retain = write(tmp_path / "others.jsonl", [{"text": book(2, 400)}])
    chat = write(tmp_path / "chat.jsonl", [{"prompt": f"q{n}?", "completion": f"a{n}."} for n in range(900)])
    config = with_defaults(
        make_config({"scenario": "copyright", "forget": [forget], "retain": [retain, chat]}, RunConfig)
    )
    sets = read_sets(config)
    assert len(sets.uncut["negatives"]) < len(sets.negatives["train"])
    assert all(row.is_passage for row in sets.negatives["train"] + sets.evaluation["seen"] + sets.evaluation["unseen"])
    text = " ".join(row.reply for row in sets.uncut["negatives"])
    for row in sets.evaluation["seen"] + sets.negatives["validation"]:
        assert row.prompt in text and row.prompt.startswith("Sentence")
    for row in sets.evaluation["unseen"]:
        assert row.prompt not in text
    passages = sum(row.is_passage for row in sets.normals["train"])
    assert 0.4 < passages / len(sets.normals["train"]) < 0.6
    assert not any("running text and no normal row" in note for note in sets.notes)


def test_text_without_text_to_keep_is_warned_about(tmp_path: Path) -> None:
    forget = write(tmp_path / "book.jsonl", [{"text": book(1, 400)}])
    chat = write(tmp_path / "chat.jsonl", [{"prompt": f"q{n}?", "completion": f"a{n}."} for n in range(60)])
    config = with_defaults(make_config({"scenario": "copyright", "forget": [forget], "retain": [chat]}, RunConfig))
    assert any("add other texts with --retain" in note for note in read_sets(config).notes)


def test_balanced_repeats_passages_only_where_they_are_few() -> None:
    passage, question = Example((Turn(TEXT, "a"),), "b"), Example.of("q", "a")
    assert balanced([question] * 4) == [question] * 4
    assert balanced([question] * 9 + [passage] * 3).count(passage) == 9
    assert balanced([question] + [passage] * 3).count(passage) == 3


class Poor:
    own_rows = True

    def __init__(self, name: str, poor: bool = True) -> None:
        self.name, self.poor, self.seen = name, poor, 0

    def learn(self, negatives: list[Example], normals: list[Example]) -> None:
        self.seen = len(negatives) + len(normals)
        if self.poor:
            raise ConfigError(f"--judge {self.name}: poor")

    def __call__(self, cases: list[Case]) -> list[str]:
        return ["unknown"] * len(cases)


def test_judges_learn_or_are_left_out_and_the_one_that_decides_must_learn() -> None:
    rows = [Example.of("q", "One sentence of five words here. Another sentence of five words.")]
    notes: list[str] = []
    bar, good, poor = BleuJudge("none", None, 0), Poor("fine", poor=False), Poor("poor")
    assert trusted_judges([bar, good, poor], rows, rows, notes) == [bar, good]  # type: ignore[list-item]
    assert bar.bar is not None and good.seen == 2 and notes == ["no second opinion: --judge poor: poor"]
    with pytest.raises(ConfigError, match="poor"):
        trusted_judges([poor, bar], rows, rows, [])  # type: ignore[list-item]


def test_a_classifier_may_not_learn_from_the_rows_it_judges() -> None:
    rows = [Example.of("q", "One sentence of five words here. Another sentence of five words.")]
    notes: list[str] = []
    bar, fine = BleuJudge("none", None, 0), Poor("fine", poor=False)
    assert trusted_judges([bar, fine], rows, rows, notes, judged=True) == [bar]  # type: ignore[list-item]
    assert fine.seen == 0 and "all rows are judged" in notes[0]
    with pytest.raises(ConfigError, match="learns from the training rows"):
        trusted_judges([fine, bar], rows, rows, [], judged=True)  # type: ignore[list-item]


def test_an_adapter_has_defaults_of_its_own_and_what_is_given_wins() -> None:
    whole, adapter = (with_defaults(RunConfig(lora=lora)) for lora in (False, True))
    assert (whole.method, whole.batch_size, whole.max_steps) == ("rto", 8, 120)
    assert (adapter.method, adapter.batch_size, adapter.max_steps) == ("template", 8, 350)
    assert adapter.judge == whole.judge and adapter.lookalike_share == adapter.harmful_share == 0.75
    given = with_defaults(RunConfig(lora=True, method="rto", batch_size=8, max_steps=7))
    assert (given.method, given.batch_size, given.max_steps) == ("rto", 8, 7)
    for config in (RunConfig(lora=True), RunConfig(lora=True, template="No."), RunConfig()):
        assert not method_note(with_defaults(config), config)
