"""unteach study: what a file may say, one parting of the rows for all arms, and runs that are skipped, go on, fail."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

import toy
from bench import GOOD
from command import Place, call, place, write_rows
from test_compare import GOOD as HARMLESS
from test_compare import report
from unteach.data.reading import read_examples
from unteach.errors import ConfigError, DataError, Interrupted
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.measure import write_report
from unteach.pipeline.rows import read_sets
from unteach.pipeline.settings import make_config
from unteach.study import runs
from unteach.study.config import StudyConfig, arm_config, read_study
from unteach.study.plan import estimate, plan, sizes_of
from unteach.study.rows import mistakes_rows
from unteach.study.runs import done_runs, run_study

Capture = pytest.CaptureFixture[str]
ARMS: dict[str, dict[str, Any]] = {
    "sft": {"baseline": "sft"},
    "ga": {"method": "ga", "max_steps": 3},
    "mistakes": {"mistakes": True, "judge": ["repeats"]},
}


def written(place: Path, values: dict[str, Any]) -> Path:
    path = place / "study.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    return path


def rows_of(place: Path) -> dict[str, Any]:
    negatives = [{"prompt": f"bad {n}?", "completion": f"wrong {n}", "good": "No."} for n in range(40)]
    normals = [{"prompt": f"fine {n}?", "completion": f"right {n}"} for n in range(40)]
    write_rows(place / "bad.jsonl", negatives)
    write_rows(place / "fine.jsonl", normals)
    return {"model": "org/model-7b", "forget": [str(place / "bad.jsonl")], "retain": [str(place / "fine.jsonl")]}


def made(place: Path, **fields: Any) -> StudyConfig:
    values = {"shared": rows_of(place), "arms": dict(ARMS)} | fields
    return read_study(written(place, values))


class TestFile:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"arms": {}}, "arms is empty"),
            ({"arms": {"../x": {"method": "ga"}}}, "its name becomes a directory's"),
            ({"arms": {"rows": {"method": "ga"}}}, "its name becomes a directory's"),
            ({"arms": {"a": {}}}, "arms.a: say what it is with one of `method: …`, `baseline: …`, `mistakes: …`"),
            ({"arms": {"a": {"method": "ga", "baseline": "sft"}}}, "arms.a: say what it is"),
            ({"arms": {"a": {"method": "gaa"}}}, "arms.a: method gaa: .*unknown.*did you mean 'ga'"),
            ({"arms": {"a": {"baseline": "sft", "rl_step": 3}}}, "arms.a: unknown setting 'rl_step'.*'rl_steps'"),
            ({"arms": {"a": {"baseline": "sft", "epochs": -1}}}, "arms.a: epochs -1: "),
            ({"shared": {"model": "m", "forget": ["f"], "lerning_rate": 1}}, "shared.lerning_rate: .*'learning_rate'"),
            ({"shared": {"model": "m"}}, "shared.forget is missing"),
            ({"arms": {"a": {"mistakes": ["bad.jsonl"]}}}, "arms.a: write `mistakes: true`"),
            ({"seeds": 0}, "seeds 0: "),
            ({"sedes": 3}, "unknown setting 'sedes'; did you mean 'seeds'"),
            ({"relative_to": "rlh"}, "relative_to rlh: no such arm"),
        ],
    )
    def test_what_is_wrong_is_said_with_its_place(self, tmp_path: Path, change: dict[str, Any], message: str) -> None:
        path = written(tmp_path, {"shared": {"model": "m", "forget": ["f"]}, "arms": {"ga": {"method": "ga"}}} | change)
        with pytest.raises(ConfigError, match=message) as raised:
            read_study(path)
        assert str(raised.value).startswith(str(path))

    def test_an_unknown_baseline_is_an_error(self, tmp_path: Path) -> None:
        path = written(tmp_path, {"shared": {"model": "m", "forget": ["f"]}, "arms": {"a": {"baseline": "stf"}}})
        with pytest.raises(ConfigError, match="arms.a: .*stf.*did you mean 'sft'"):
            read_study(path)

    def test_arms_can_be_chosen(self, tmp_path: Path) -> None:
        path = written(tmp_path, {"shared": rows_of(tmp_path), "arms": ARMS, "relative_to": "sft"})
        study = read_study(path, ["ga"], seeds=2)
        assert (list(study.arms), study.seeds, study.relative_to) == (["ga"], 2, None)
        with pytest.raises(ConfigError, match="--arms gaa: no such arm; did you mean 'ga'"):
            read_study(path, ["gaa"])

    def test_shared_settings_go_to_the_arms_that_know_them(self, tmp_path: Path) -> None:
        shared = rows_of(tmp_path) | {"validations": 5, "validation_steps": 7, "max_new_tokens": 9}
        study = made(tmp_path, shared=shared)
        sft, ga, mistakes = (arm_config(study, arm, 3) for arm in ARMS)
        assert (sft.validations, sft.max_new_tokens, sft.seed) == (5, 9, 3)
        assert (ga.validation_steps, ga.max_new_tokens, ga.max_steps) == (7, 9, 3)
        assert (mistakes.validations, mistakes.judge) == (5, ["repeats"])


def test_all_arms_train_on_and_watch_the_same_rows(tmp_path: Path) -> None:
    shared = rows_of(tmp_path)
    named = mistakes_rows(shared, 4, tmp_path / "rows")
    sets = read_sets(with_defaults(make_config(shared | {"seed": 4}, RunConfig)))

    def prompts(name: str) -> list[str]:
        (path,) = named[name]
        polarity: Any = "normal" if name.startswith("normal") else "negative"
        return [row.prompt for row in read_examples(path, polarity)]

    assert prompts("mistakes") == prompts("prompts") == [row.prompt for row in sets.negatives["train"]]
    assert prompts("validation") == [row.prompt for row in sets.negatives["validation"]]
    assert prompts("unseen") == [row.prompt for row in sets.evaluation["unseen"]]
    assert prompts("normal") == [row.prompt for row in sets.evaluation["normal"]]
    assert not set(prompts("validation")) & set(prompts("mistakes")) and len(prompts("unseen")) == 8


class Calls:
    """Stands in for the runs' commands: leaves a report, or fails as it is told."""

    def __init__(self, fails: dict[str, int] | None = None) -> None:
        self.made: list[str] = []
        self.words: list[list[str]] = []
        self.fails = fails or {}

    def __call__(self, command: list[str], log: Any, environment: dict[str, str]) -> int:
        directory = Path(command[command.index("--output") + 1])
        name = f"{directory.parent.name}/{directory.name}"
        self.made.append(name)
        self.words.append(command)
        code = self.fails.get(name, 0)
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "run.yaml").write_text("begun: true\n")
        if code:
            log.write(b"some words\nError: out of memory\n")
        else:
            write_report(report({directory.parent.name: HARMLESS}, environment={"seed": int(name[-1])}), directory)
        return code


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    found = Calls()
    monkeypatch.setattr(runs._Commands, "call", lambda commands, *words: found(*words))
    return found


class TestRuns:
    def test_seed_after_seed_and_nothing_twice(self, tmp_path: Path, calls: Calls) -> None:
        study, said = made(tmp_path, seeds=2), list[str]()
        compared = run_study(study, str(tmp_path / "out"), said.append)
        order = [f"{arm}/seed-{seed}" for seed in (0, 1) for arm in ARMS]
        assert calls.made == order and not compared.failed
        assert [row.name for row in compared.arms] == ["original", "sft", "ga", "mistakes"]
        assert said[0].startswith("sft, seed 0 begins") and "seed-0.log" in said[0]
        assert said[1].startswith("[1/6] sft, seed 0: sft 0.0 % harmful")
        assert (tmp_path / "out" / "sft" / "report.json").exists()
        settings = yaml.safe_load((tmp_path / "out" / "ga" / "seed-1.yaml").read_text())
        assert settings["seed"] == 1 and settings["method"] == "ga"
        run_study(study, str(tmp_path / "out"), said.append)
        assert calls.made == order and said[-1] == "6 of 6 runs are done already"

    def test_one_that_fails_stops_no_other_and_is_tried_again(self, tmp_path: Path, calls: Calls) -> None:
        study, said = made(tmp_path, seeds=2), list[str]()
        calls.fails = {"ga/seed-0": 1, "sft/seed-1": 2}
        compared = run_study(study, str(tmp_path / "out"), said.append)
        assert compared.failed == ["ga, seed 0", "sft, seed 1"] and len(calls.made) == 6
        assert any("failed: Error: out of memory" in line and "seed-0.log" in line for line in said)
        assert "ga, seed 0 failed and is missing: Error: out of memory" in compared.notes
        calls.fails, calls.made, calls.words = {}, [], []
        assert run_study(study, str(tmp_path / "out"), said.append).failed == []
        assert calls.made == ["ga/seed-0", "sft/seed-1"]
        assert calls.words[0][-1] == "--resume" and calls.words[1][-1] == "--overwrite"

    @pytest.mark.parametrize("code", [130, 143])
    def test_a_run_that_was_stopped_ends_it_and_it_goes_on(self, tmp_path: Path, calls: Calls, code: int) -> None:
        study = made(tmp_path)
        calls.fails = {"ga/seed-0": code}
        with pytest.raises(Interrupted, match="the same command goes on"):
            run_study(study, str(tmp_path / "out"))
        assert calls.made == ["sft/seed-0", "ga/seed-0"]
        calls.fails, calls.made = {}, []
        run_study(study, str(tmp_path / "out"))
        assert calls.made == ["ga/seed-0", "mistakes/seed-0"]

    def test_other_settings_than_those_of_a_run_that_is_there(self, tmp_path: Path, calls: Calls) -> None:
        run_study(made(tmp_path), str(tmp_path / "out"))
        arms = ARMS | {"ga": {"method": "ga", "max_steps": 4}}
        with pytest.raises(ConfigError, match=r"ga/seed-0 was made with other settings \(max_steps\); remove"):
            run_study(made(tmp_path, arms=arms), str(tmp_path / "out"))
        more = ARMS | {"npo": {"method": "npo"}}
        calls.made.clear()
        run_study(made(tmp_path, arms=more), str(tmp_path / "out"))
        assert calls.made == ["npo/seed-0"]

    def test_nothing_to_compare_is_an_error_that_says_why(self, tmp_path: Path, calls: Calls) -> None:
        calls.fails = {f"{arm}/seed-0": 1 for arm in ARMS}
        with pytest.raises(ConfigError, match="nothing to compare: sft, seed 0 failed and is missing: Error: out of"):
            run_study(made(tmp_path), str(tmp_path / "out"))

    def test_one_arm_alone_is_shown_too(self, tmp_path: Path, calls: Calls) -> None:
        compared = run_study(made(tmp_path, arms={"ga": ARMS["ga"]}), str(tmp_path / "out"))
        assert [row.name for row in compared.arms] == ["original", "ga"]

    def test_rows_that_are_not_there_are_found_before_anything_runs(self, tmp_path: Path, calls: Calls) -> None:
        study = made(tmp_path, arms={"ga": ARMS["ga"], "sft": {"baseline": "sft", "good": ["nowhere.jsonl"]}})
        with pytest.raises(DataError, match="arms.sft.good: nowhere.jsonl: no such file"):
            run_study(study, str(tmp_path / "out"))
        assert not calls.made and not (tmp_path / "out").exists()
        assert "not here yet: nowhere.jsonl (arms.sft.good)" in plan(study)

    def test_what_is_done_is_not_planned_again(self, tmp_path: Path, calls: Calls) -> None:
        study = made(tmp_path, seeds=2)
        calls.fails = {"ga/seed-1": 1}
        run_study(study, str(tmp_path / "out"))
        text = plan(study, done_runs(study, tmp_path / "out"))
        assert "6 runs (3 arms, 2 seeds, 1 at a time), 5 of them done, about" in text
        assert "   1 of 2 done" in next(line for line in text.splitlines() if line.startswith("ga "))

    def test_runs_at_a_time_share_the_cores(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(runs, "_cards", lambda: ["0", "1"])
        cores = len(os.sched_getaffinity(0))
        assert runs._environment(0, 1).get("OMP_NUM_THREADS") is None
        first, third = runs._environment(0, 4), runs._environment(2, 4)
        assert first["OMP_NUM_THREADS"] == str(max(1, cores // 4))
        assert (first["CUDA_VISIBLE_DEVICES"], third["CUDA_VISIBLE_DEVICES"]) == ("0", "0")
        assert runs._environment(3, 4)["CUDA_VISIBLE_DEVICES"] == "1"

    def test_a_directory_of_something_else_is_left_alone(self, tmp_path: Path, calls: Calls, capsys: Capture) -> None:
        path = written(tmp_path, {"shared": rows_of(tmp_path), "arms": ARMS})
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("mine")
        outcome = call(capsys, "study", "--config", path, "--output", tmp_path / "out")
        assert outcome.code == 2 and "not empty" in outcome.err and not calls.made


class TestPlan:
    def test_tokens_follow_from_the_settings(self, tmp_path: Path) -> None:
        study = made(
            tmp_path,
            parameters=1e6,
            flops_per_second=1e9,
            arms={
                "finetune": {"baseline": "finetune", "epochs": 2},
                "lora": {"baseline": "finetune", "epochs": 2, "lora": True, "dtype": "bfloat16"},
                "ga": {"method": "ga", "stopping": False, "max_steps": 10, "batch_size": 4, "normals_per_negative": 2},
            },
        )
        sizes = sizes_of(study)
        assert (sizes.negatives, sizes.normals, sizes.parameters) == (40, 40, 1e6)
        full, lora, ga = (estimate(study, arm, sizes) for arm in study.arms)
        assert full.backward == lora.backward == 2 * 40 * sizes.row
        assert full.flops == 6e6 * full.backward and lora.flops == 4e6 * lora.backward
        assert full.memory == 16e6 and lora.memory == pytest.approx(2.12e6)
        assert ga.backward == pytest.approx(10 * 4 * 3 * sizes.row) and ga.generated == 0
        assert "1 at a time" in plan(study) and "1 GFLOP a second, as given" in plan(study)

    def test_a_model_whose_size_nothing_tells(self, tmp_path: Path, capsys: Capture) -> None:
        shared = rows_of(tmp_path) | {"model": "org/model"}
        path = written(tmp_path, {"shared": shared, "arms": ARMS})
        outcome = call(capsys, "study", "--config", path, "--dry-run")
        assert outcome.code == 2 and "add `parameters: 7e9`" in outcome.err

    def test_a_local_model_is_counted_without_its_weights(self, tmp_path: Path) -> None:
        toy.learned_model().config.save_pretrained(tmp_path / "model")
        study = made(tmp_path, shared=rows_of(tmp_path) | {"model": str(tmp_path / "model")})
        from unteach.results.cost import multiplying_parameters

        assert sizes_of(study).parameters == multiplying_parameters(toy.learned_model())[0]


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Place:
    found = place(tmp_path_factory.mktemp("place"))
    paired = [{"prompt": r["prompt"], "chosen": GOOD, "rejected": r["completion"]} for r in toy.FORGET]
    write_rows(found.forget, paired)
    return found


@pytest.mark.slow
def test_a_real_study_from_the_command_line(there: Place, tmp_path: Path) -> None:
    """Two arms that come to a result and one that cannot, through processes of their own."""
    shared = {
        "model": str(there.model),
        "forget": [str(there.forget)],
        "retain": [str(there.retain)],
        "device": "cpu",
        "evaluation_prompts": 4,
        "max_new_tokens": 6,
        "validations": 2,
        "judge": ["repeats"],
    }
    arms = {
        "sft": {"baseline": "sft", "epochs": 1},
        "ga": {"method": "ga", "max_steps": 4, "validation_steps": 2},
        "broken": {"baseline": "sft", "max_length": 3},
    }
    path = written(tmp_path, {"shared": shared, "arms": arms, "relative_to": "sft", "jobs": 2})
    command = [sys.executable, "-m", "unteach", "study", "--config", str(path), "--output", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "broken, seed 0: failed: Error: " in ended.stdout and "Traceback" not in ended.stdout + ended.stderr
    compared = json.loads((tmp_path / "out" / "compared.json").read_text())
    assert compared["failed"] == ["broken, seed 0"], ended.stdout
    rows = {row["name"]: row for row in compared["arms"]}
    assert list(rows) == ["original", "sft", "ga"] and rows["ga"]["cost"]["relative_flops"] > 0
    assert len(rows["sft"]["curve"]) == 2 and rows["ga"]["curve"]
    assert rows["sft"]["curve"][-1]["flops"] == pytest.approx(rows["sft"]["cost"]["flops"])
    assert "| sft | " in (tmp_path / "out" / "results.md").read_text()
    assert "broken, seed 0" in (tmp_path / "out" / "report.html").read_text()
