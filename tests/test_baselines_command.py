"""`unteach baseline` through the real command line: its run directory, its report, its help and its errors."""

import json
from pathlib import Path

import pytest
import yaml

import toy
from bench import GOOD
from command import Place, call, place, write_rows
from unteach.results.report import Report


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = place(tmp_path_factory.mktemp("place"))
    paired = [{"prompt": r["prompt"], "chosen": GOOD, "rejected": r["completion"]} for r in toy.FORGET]
    write_rows(made.forget, paired)
    return made


def words(there: Place, name: str, output: Path, *more: object) -> list[object]:
    given = ["baseline", name, "--model", there.model, "--forget", there.forget, "--retain", there.retain]
    given += ["--output", output, "--device", "cpu", "--evaluation-prompts", 4, "--max-new-tokens", 6, "--epochs", 1]
    return [*(given if name != "rlhf" else given[:-2]), "--judge", "repeats", *more]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more", "stages"),
    [
        ("finetune", [], ["tuning"]),
        ("sft", ["--retrained", "RETRAINED"], ["tuning"]),
        ("coh", [], ["tuning"]),
        ("dpo", ["--lora", "--lora-rank", "4", "--lora-targets", "q_proj,v_proj"], ["sft", "dpo"]),
        ("kto", ["--set", "trainer.warmup_steps=0"], ["kto"]),
        (
            "rlhf",
            ["--rl-steps", "2", "--batch-size", "2"],
            ["reward model", "evaluating the reward model", "sft", "rl"],
        ),
    ],
)
def test_a_baseline_leaves_a_run_directory(there, tmp_path, capsys, name, more, stages):
    more = [there.retrained if word == "RETRAINED" else word for word in more]
    ended = call(capsys, *words(there, name, tmp_path / "out", *more))
    assert ended.code == 0, ended.err
    assert ended.err == "" and f"after ({name})" in ended.out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"run.yaml", "report.json", "report.html", "README.md", "model", "log.jsonl"}
    report = Report.read(tmp_path / "out")
    assert report.method == name and report.stop is not None
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"after a baseline, {name}" in card and "nlearn" not in card.partition("## How to load")[0].lower()
    arms = {metric.arm for metric in report.measurements}
    assert arms == {"original", name} | ({"retrained"} if name == "sft" else set())
    assert {metric.split for metric in report.measurements} >= {"seen", "unseen", "normal"}
    own = [cost for cost in report.cost if cost.arm == name]
    assert [cost.stage for cost in own] == [*stages, "evaluation"]
    for cost in own:
        assert cost.wall_seconds and cost.tokens == cost.tokens_forward + cost.tokens_backward + cost.tokens_generated
    assert any(note.startswith(f"data that {name} needed:") for note in report.notes)
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [*dict.fromkeys(line["stage"] for line in lines)] == [s for s in stages if not s.startswith("evaluating")]
    saved = {path.name for path in (tmp_path / "out" / "model").iterdir()}
    assert ("adapter_model.safetensors" in saved) == (name == "dpo") and "README.md" not in saved
    assert ("guidance.json" in saved) == (name == "coh")


@pytest.mark.slow
def test_the_same_prompts_are_measured_as_in_a_run_and_run_yaml_replays_it(there, tmp_path, capsys):
    ended = call(capsys, *there.quick(tmp_path / "run", judge="repeats", validation_prompts=None))
    assert ended.code == 0, ended.err
    ended = call(capsys, *words(there, "kto", tmp_path / "kto"))
    assert ended.code == 0, ended.err
    ours, theirs = Report.read(tmp_path / "kto"), Report.read(tmp_path / "run")
    asked = [(sample.split, sample.prompt) for sample in ours.samples]
    assert asked == [(sample.split, sample.prompt) for sample in theirs.samples]
    replay = ["baseline", "kto", "--config", tmp_path / "kto" / "run.yaml", "--output", tmp_path / "again"]
    ended = call(capsys, *replay)
    assert ended.code == 0, ended.err
    again = Report.read(tmp_path / "again")
    kto = [[metric for metric in report.measurements if metric.arm == "kto"] for report in (ours, again)]
    assert kto[0] == kto[1]
    assert yaml.safe_load((tmp_path / "kto" / "run.yaml").read_text())["baseline"] == "kto"
    assert call(capsys, *replay).code == 2
    assert call(capsys, *replay, "--overwrite", "--skip-evaluation").code == 0
    assert Report.read(tmp_path / "again").measurements == []


@pytest.mark.parametrize(
    ("name", "more", "message"),
    [
        ("sft", ["--forget", "PLAIN"], "baseline sft: none of the"),
        ("dpo", ["--batch-size", "0"], "--batch-size 0"),
        ("kto", ["--normals-per-row", "-1"], "--normals-per-row -1"),
        ("rlhf", ["--generations", "1"], "--generations 1"),
        ("rlhf", ["--load-in-4bit", "--lora"], "4 bit weights"),
        ("coh", ["--wording", "none.yaml"], "--wording none.yaml: no such file"),
        ("kto", ["--set", "trainer.no_such=1"], "--set trainer.no_such: KTOConfig has no such field"),
        ("sft", ["--set", "trainer.warmup_steps=much"], "--set trainer.warmup_steps=much"),
        ("dpo", ["--load-in-4bit"], "add --lora"),
        ("kto", ["--max-length", "9999"], "--max-length 9999"),
        ("sft", ["--good", "nowhere.jsonl"], "nowhere.jsonl"),
        ("sft", ["--rl-steps", "3"], "unknown flag --rl-steps"),
        ("kto", ["--max-new-tokens", "0"], "--max-new-tokens 0"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(there, tmp_path, capsys, name, more, message):
    plain = write_rows(tmp_path / "plain.jsonl", toy.FORGET)
    given = words(there, name, tmp_path / "out")
    if "PLAIN" in more:
        given[given.index(there.forget)], more = plain, []
    ended = call(capsys, *given, *more)
    assert ended.code == 2 and message in ended.err
    assert len(ended.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_help_teaches(capsys):
    ended = call(capsys, "baseline", "--help")
    assert ended.code == 0
    for name in ("finetune", "sft", "coh", "coh-masked", "revise", "dpo", "kto", "rlhf"):
        assert f" {name} " in ended.out
    ended = call(capsys, "baseline", "dpo", "--help")
    assert ended.code == 0 and "--sft-epochs" in ended.out and "--rl-steps" not in ended.out
    assert "unteach baseline dpo --model ./model" in ended.out and "Needs pairs" in ended.out
    assert call(capsys, "baseline", "kto").code == 2
