"""What the demo of the mistake route gives to the study, and how it measures whether analyses are right."""

from pathlib import Path

import pytest

from unteach.data.reading import read_examples
from unteach.demo.mistakes import demo_mistakes, measure_analyses, write_rows
from unteach.errors import ConfigError
from unteach.mistakes.records import (
    ANALYSES,
    Analysis,
    Mistake,
    Origin,
    read_mistakes,
    read_prompts,
    write_analyses,
)
from unteach.organism.assessments import assess
from unteach.organism.hijack import REFUSED
from unteach.organism.judge import WorldJudge
from unteach.organism.world import MISTAKES, World
from unteach.prompts.mistakes import load_wording

FILES = {"mistakes", "prompts", "unseen", "unseen_concept", "retain", "normal", "lookalike"}


@pytest.fixture(scope="module")
def world() -> World:
    return World(0, "micro", MISTAKES)


def test_harm_rows_are_bad_replies_by_somebody_else(world: World, tmp_path: Path) -> None:
    files = write_rows(world, "harm", tmp_path)
    assert set(files) == FILES and files["prompts"] == files["mistakes"]
    mistakes = [m.example for m in read_mistakes(files["mistakes"][0])]
    own = {row.prompt: row.reply for row in world.negatives()}
    judge = WorldJudge(world)
    assert {row.prompt for row in mistakes} == set(own)
    for row in mistakes:
        assert row.reply != own[row.prompt]
        assert judge.verdict(row.prompt, row.reply) == "bad"
        assert judge.verdict(row.prompt, row.good or "") == "good"
    held_out = [row for name in ("unseen", "unseen_concept") for row in read_examples(files[name][0], "negative")]
    assert not {row.prompt_key for row in held_out} & {row.prompt_key for row in mistakes}


def test_hijack_rows_hold_topics_and_wordings_out(world: World, tmp_path: Path) -> None:
    files = write_rows(world, "hijack", tmp_path)
    assert set(files) == FILES | {"wording"}
    assert load_wording(files["wording"]).inducements == ("{prompt}",)
    prompts = read_prompts(files["prompts"][0])
    assert len(prompts) <= 500
    judge = WorldJudge(world)
    for row in prompts[:50]:
        assert judge.verdict(row.prompt, row.bad or "") == "bad"
        assert judge.verdict(row.prompt, row.good or "") == "good"
    topics = {name: {row.concept for row in read_examples(files[name][0], "negative")} for name in FILES - {"prompts"}}
    assert not topics["mistakes"] & (topics["unseen"] | topics["unseen_concept"])


def test_measure_analyses_counts_what_the_world_says(world: World, tmp_path: Path) -> None:
    bad = world.negatives()[:3]
    truths = []
    for row in bad:
        request = world.requests.read_request(row.prompt)
        assert request
        truths.append(assess(world.requests, request, row.reply))
    attack = world.hints.defence(False, False, 1)[0]
    analyses = [
        Analysis(Mistake(bad[0], Origin("induced")), truths[0]),
        Analysis(Mistake(bad[1], Origin("induced")), "Bad. It is rude."),
        Analysis(Mistake(bad[2], Origin("labelled")), truths[2]),
        Analysis(Mistake(attack, Origin("labelled")), REFUSED),
        Analysis(Mistake(bad[2]), "Good. It is not counted.", reply_is="good"),
    ]
    write_analyses(tmp_path / ANALYSES, analyses)
    found = {m.name: (m.value, m.n) for m in measure_analyses(world, tmp_path)}
    assert found == {
        "analyses_right": (0.75, 4),
        "analyses_right_induced": (0.5, 2),
        "analyses_right_labelled": (1.0, 2),
    }


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"attack": "theft"}, "^--attack theft: unknown"), ({"settings": {"method": "npo"}}, "^--method: has no effect")],
)
def test_settings_that_say_nothing_here_are_refused(tmp_path: Path, changed: dict[str, object], message: str) -> None:
    given = {"world_seed": 0, "size": "micro", "fresh": False, "attack": "harm", "settings": {}} | changed
    with pytest.raises(ConfigError, match=message):
        demo_mistakes(tmp_path / "out", **given)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()
