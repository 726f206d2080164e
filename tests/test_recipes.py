"""Every shipped recipe is a config that parses, and its dry run says what would be done; nothing is fetched."""

import socket
from pathlib import Path

import pytest

from command import call
from unteach.data.example import Example
from unteach.data.written import write_examples
from unteach.errors import ConfigError
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.plan import plan
from unteach.mistakes.rows import gather_rows
from unteach.pipeline.settings import make_config, read_config
from unteach.study.config import read_study

EVERY = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))
RECIPES = [path for path in EVERY if path.stem.startswith("mistakes")]
STUDIES = [path for path in EVERY if path not in RECIPES]
HARM = {"finetune", "sft", "kto", "dpo", "coh", "revise", "rlhf", "ga", "ga-mismatch", "ga-template", "npo", "mistakes"}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **named: object) -> None:
        raise AssertionError("a dry run asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def test_there_are_recipes() -> None:
    assert [path.name for path in RECIPES] == ["mistakes-alpaca-7b.yaml", "mistakes-hijack-7b.yaml"]
    real = [
        f"{model}-{kind}"
        for model in ("llama-2-7b", "opt-1.3b", "opt-2.7b")
        for kind in ("copyright", "hallucination", "harm")
    ]
    assert [path.stem for path in STUDIES] == [
        "alpaca-7b-harm",
        *real,
        "organism-grid",
        "organism-harm-quick",
        "organism-harm",
    ]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_parses_and_says_what_it_would_take(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = read_study(path)
    if "harm" in path.stem:
        assert set(study.arms) >= HARM and study.relative_to == "rlhf"
    outcome = call(capsys, "study", "--config", path, "--dry-run")
    assert outcome.code == 0 and not outcome.err
    lines = outcome.out.splitlines()
    for arm in study.arms:
        metrics = next(line for line in lines if line.startswith(f"{arm} ")).split()
        assert float(metrics[1]) > 0 and "FLOP" in " ".join(metrics) and metrics[-1] in ("s", "min")
    counts = f"({len(study.arms)} arms, {study.seeds} seed{'s' * (study.seeds > 1)}, {study.jobs} at a time)"
    told = f"{len(study.arms) * study.seeds} runs {counts}, about "
    assert any(line.startswith(told) for line in lines)
    assert path.stem in path.read_text().splitlines()[1]  # the command names the file


def test_the_quick_study_is_the_whole_one_with_one_seed() -> None:
    whole, quick = (read_study(EVERY[0].parent / f"organism-harm{end}.yaml") for end in ("", "-quick"))
    assert (whole.seeds, quick.seeds) == (3, 1)
    assert whole.model_dump(exclude={"seeds"}) == quick.model_dump(exclude={"seeds"})


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_parses_and_says_what_it_would_do(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = read_config(path)
    config = make_config(values, MistakesConfig)
    assert {name: getattr(config, name) for name in values} == values
    outcome = call(capsys, "mistakes", "study", "--config", str(path), "--dry-run")
    assert outcome.code == 0
    said = outcome.out.splitlines()
    assert said[0] == f"model: {config.model}, a hub id that was not looked up"
    assert [line[:2] for line in said if line[:2] in ("1.", "2.", "3.", "4.")] == ["1.", "2.", "3.", "4."]
    assert f"{config.most_rows} of the prompts at most" in outcome.out
    assert "each 3 times at an equal number of tokens: sft, analysis" in outcome.out


class TestPlan:
    def test_local_rows_are_counted_and_public_sets_named(self, tmp_path: Path) -> None:
        (tmp_path / "risky.txt").write_text("one?\n\ntwo?\n")
        write_examples(tmp_path / "bad.jsonl", [Example.of("p", "bad")])
        config = MistakesConfig(
            model="owner/model",
            prompts=[str(tmp_path / "risky.txt")],
            mistakes=[str(tmp_path / "bad.jsonl")],
            retain=["alpaca"],
            judge=["rule"],
            analyst="openai:judge",
        )
        said = plan(config).splitlines()
        assert said[1:4] == [
            f"--prompts {tmp_path / 'risky.txt'}: 2 prompts",
            f"--mistakes {tmp_path / 'bad.jsonl'}: 1 mistakes",
            "--retain alpaca: public set alpaca (CC-BY-NC-4.0), not fetched",
        ]
        assert "2. analyse, guided: by openai:judge" in said
        assert not any(line.startswith("arms") for line in said)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({}, "^--model is missing"),
            ({"model": "a/b", "prompts": ["pku-saferlhf"]}, "^--judge is missing"),
            ({"model": "a/b", "judge": ["rul:x"]}, "^--judge rul:x: no such judge; did you mean 'rule'?"),
            ({"model": "a/b", "wording": "nowhere.yaml"}, "^--wording nowhere.yaml: no such file"),
        ],
    )
    def test_what_is_wrong_is_said(self, values: dict[str, object], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            plan(make_config(values, MistakesConfig))


def test_most_rows_takes_a_lot_and_keeps_the_order(tmp_path: Path) -> None:
    write_examples(tmp_path / "bad.jsonl", [Example.of(f"prompt {n}", "bad") for n in range(40)])

    def taken(seed: int) -> list[str]:
        config = MistakesConfig(
            prompts=[str(tmp_path / "bad.jsonl")], most_rows=10, seed=seed, unseen=[], judge=["rule"]
        )
        found = gather_rows(config)
        assert len(found.prompts) == 8 and len(found.unseen_prompts) == 2
        return [row.prompt for row in [*found.prompts, *found.unseen_prompts]]

    first = taken(0)
    assert first == taken(0) and set(first) != set(taken(1))
    assert [int(prompt.split()[1]) for prompt in first[:8]] == sorted(int(prompt.split()[1]) for prompt in first[:8])
