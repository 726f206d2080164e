"""Whatever is wrong with the input: exit code 2, one line that names it and the fix, and nothing written."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import toy
from command import Outcome, Place, call, place, save, write_rows
from unteach.pipeline import directory
from unteach.pipeline.config import RunConfig
from unteach.pipeline.run import run
from unteach.pipeline.settings import make_config

PROGRAM = Path(sys.executable).with_name("unteach")


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def finished(here: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that was trained to its end."""
    output = tmp_path_factory.mktemp("finished") / "out"
    places = {"model": str(here.model), "forget": [str(here.forget)], "retain": [str(here.retain)]}
    small = {
        "max_steps": 1,
        "mismatch_samples": 2,
        "batch_size": 2,
        "device": "cpu",
        "harmful_share": 0,
        "lookalike_share": 0,
    }
    run(make_config(places | small | {"output": str(output), "skip_evaluation": True}, RunConfig))
    return output


def refused(outcome: Outcome, *words: str) -> None:
    """Assert what every error must be, and that it says these words."""
    assert outcome.code == 2
    assert outcome.err.startswith("Error: ") and outcome.err.count("\n") == 1, outcome.err
    assert "Traceback" not in outcome.err + outcome.out
    for word in words:
        assert word in outcome.err


def listing(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*")}


GOOD = '{"prompt": "how to a1 b1", "completion": "take c1 and d1"}\n'


class TestRows:
    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("gone.jsonl", None, ["gone.jsonl", "no such file"]),
            ("empty.jsonl", "", ["empty.jsonl", "empty"]),
            ("blank.jsonl", "\n\n", ["blank.jsonl", "no rows"]),
            ("cut.jsonl", GOOD + '{"prompt": "how', ["cut.jsonl line 2", "not valid JSON", "mend"]),
            ("list.jsonl", GOOD + "[1]\n", ["list.jsonl line 2"]),
            ("bytes.jsonl", b"\xff\xfe\x00", ["bytes.jsonl", "UTF-8"]),
            ("odd.xyz", GOOD, ["odd.xyz", ".jsonl", ".csv"]),
            ("less.jsonl", GOOD + '{"prompt": "p"}\n', ["less.jsonl line 2", "'completion'", "columns found: prompt"]),
            ("null.jsonl", GOOD + '{"prompt": "p", "completion": null}\n', ["null.jsonl line 2", "'completion' is"]),
            ("true.jsonl", GOOD + '{"prompt": "p", "completion": true}\n', ["true.jsonl line 2", "must be text"]),
            ("silent.jsonl", GOOD + '{"prompt": "p", "completion": " "}\n', ["silent.jsonl line 2", "reply is empty"]),
            ("other.jsonl", '{"q": "how", "a": "so"}\n', ["other.jsonl", "q, a", "--column"]),
            ("good.jsonl", '{"prompt": "p", "completion": "c", "label": true}\n', ["good.jsonl", "negative", "label"]),
        ],
    )
    def test_negatives(
        self,
        name: str,
        text: str | bytes | None,
        words: list[str],
        here: Place,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        path = tmp_path / name
        if text is not None:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        refused(call(capsys, *here.quick(tmp_path / "out", forget=path)), *words)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("flag", ["retain", "unseen", "unseen_concept", "normal", "lookalike"])
    def test_every_other_set(self, flag: str, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        path = tmp_path / "rows.jsonl"
        path.write_text(GOOD + "{\n")
        refused(call(capsys, *here.quick(tmp_path / "out", **{flag: path})), "rows.jsonl line 2", "not valid JSON")
        assert not (tmp_path / "out").exists()

    def test_prompts_that_fill_the_context(
        self, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = write_rows(tmp_path / "long.jsonl", [{"prompt": "how " * 80, "completion": "no"}])
        refused(call(capsys, *here.quick(tmp_path / "out", forget=path)), "long.jsonl line 1", "64 tokens", "shorter")
        assert not (tmp_path / "out").exists()

    def test_rows_to_check_on_that_fill_the_context(
        self, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = write_rows(tmp_path / "long.jsonl", [{"prompt": "how " * 80, "completion": "no"}])
        refused(call(capsys, *here.quick(tmp_path / "out", lookalike=path)), "lookalike", "long.jsonl line 1")
        assert not (tmp_path / "out").exists()

    def test_a_length_that_leaves_no_reply(
        self, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = here.quick(tmp_path / "out", max_length=5)
        refused(call(capsys, *words), "forget.jsonl line", "5 tokens of --max-length", "raise --max-length")
        assert not (tmp_path / "out").exists()

    def test_identical_sets(self, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = here.quick(tmp_path / "out", retain=here.forget)
        refused(call(capsys, *words), "identical", "--forget", "--retain", "forget.jsonl line 1")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(("flag", "source"), [("unseen", "forget"), ("normal", "retain")])
    def test_rows_to_check_on_that_are_trained_on(
        self, flag: str, source: str, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = here.quick(tmp_path / "out", **{flag: getattr(here, source)})
        refused(call(capsys, *words), f"--{flag} and --{source}", "24 prompts")
        assert not (tmp_path / "out").exists()

    def test_more_mismatches_than_decoys(self, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = here.quick(tmp_path / "out", method="ga-mismatch", mismatch_samples=500)
        refused(call(capsys, *words), "--mismatch-samples 500", "501", "smaller number")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("column", "words"),
        [
            ("prompt", ["--column prompt", "KEY=VALUE"]),
            ("promt=prompt", ["--column promt=prompt", "did you mean 'prompt'?"]),
            ("prompt=quesion", ["'quesion'", "prompt, completion"]),
        ],
    )
    def test_columns(
        self, column: str, words: list[str], here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        refused(call(capsys, *here.quick(tmp_path / "out", column=column)), *words)
        assert not (tmp_path / "out").exists()


class TestModels:
    def test_missing(self, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = here.quick(tmp_path / "out", model=tmp_path / "nowhere")
        refused(call(capsys, *words), "nowhere: no such model directory", "check the path")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("flag", ["model", "retrained"])
    @pytest.mark.parametrize(("left", "words"), [("", ["no weights"]), ("weights.bin", ["pickle", "save_pretrained"])])
    def test_without_safe_weights(
        self, flag: str, left: str, words: list[str], here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        broken = tmp_path / "model"
        shutil.copytree(here.model, broken)
        (broken / "model.safetensors").unlink()
        if left:
            (broken / left).write_bytes(b"never opened")
        refused(call(capsys, *here.quick(tmp_path / "out", **{flag: broken})), str(broken), *words)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("flag", ["model", "retrained"])
    def test_cut_weights(self, flag: str, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        broken = tmp_path / "model"
        shutil.copytree(here.model, broken)
        weights = (broken / "model.safetensors").read_bytes()
        (broken / "model.safetensors").write_bytes(weights[: len(weights) // 2])
        refused(call(capsys, *here.quick(tmp_path / "out", **{flag: broken})), str(broken), "cannot be loaded")
        assert not (tmp_path / "out").exists()

    def test_a_retrained_model_that_is_not_there(
        self, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = here.quick(tmp_path / "out", retrained=tmp_path / "nowhere")
        refused(call(capsys, *words), "nowhere: no such model directory")
        assert not (tmp_path / "out").exists()

    def test_a_retrained_model_with_another_tokenizer(
        self, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = toy.tokenizer()
        words.add_tokens(["elsewhere"])
        retrained = save(toy.model(), tmp_path / "retrained", words)
        refused(call(capsys, *here.quick(tmp_path / "out", retrained=retrained)), str(retrained), "tokenizer")
        assert not (tmp_path / "out").exists()

    def test_without_tokenizer(self, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        toy.model().save_pretrained(tmp_path / "bare")
        refused(call(capsys, *here.quick(tmp_path / "out", model=tmp_path / "bare")), "bare", "tokenizer.json")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("lacks", [{"pad_token": None}, {"eos_token": None, "pad_token": None}])
    def test_a_tokenizer_without_pad_or_eos_is_no_error(
        self, lacks: dict[str, None], here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        model = save(toy.learned_model(), tmp_path / "model", toy.tokenizer(**lacks))
        outcome = call(capsys, *here.quick(tmp_path / "out", model=model))
        assert outcome.code == 0, outcome.err
        report = json.loads((tmp_path / "out" / "report.json").read_text())
        assert report["measurements"]


class TestSettings:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--metod", "npo"], ["--metod", "did you mean '--method'?"]),
            (["--method", "ga-mismach"], ["--method ga-mismach", "did you mean 'ga-mismatch'?", "npo"]),
            (["--judge", "repeets"], ["--judge repeets", "did you mean 'repeats'?"]),
            (["--judge", "rule:gone.yaml"], ["gone.yaml"]),
            (["--reference", "cachd"], ["--reference cachd", "did you mean 'cached'?"]),
            (["--reference", "adapter_off"], ["--reference adapter_off", "--lora"]),
            (["--dtype", "float23"], ["--dtype float23", "did you mean 'float32'?"]),
            (["--device", "cudda"], ["cudda", "use cpu"]),
            (["--prompt-format", "chatt"], ["--prompt-format chatt", "did you mean 'chat'?"]),
            (["--prompt-format", "chat"], ["--prompt-format chat", "no chat template", "plain"]),
            (["--load-in-4bit"], ["--load-in-4bit", "--lora"]),
            (["--lora", "--lora-targets", "q_projj"], ["--lora-targets q_projj", "did you mean 'q_proj'?"]),
            (["--max-steps", "many"], ["--max-steps", "integer"]),
            (["--max-steps", "0"], ["--max-steps 0", "at least 1"]),
            (["--target-rate", "5"], ["--target-rate 5", "at most 1"]),
            (["--broken-limit", "-1"], ["--broken-limit -1", "at least 0"]),
            (["--learning-rate", "-1"], ["--learning-rate -1", "at least 0"]),
            (["--learning-rate", "nan"], ["--learning-rate nan", "finite"]),
            (["--max-length", "65"], ["--max-length 65", "context is 64"]),
            (["--forget-weight", "0", "--mismatch-weight", "0", "--retain-weight", "0"], ["--forget-weight"]),
            (["--set", "trainer.weight_decai=1"], ["trainer.weight_decai", "did you mean 'weight_decay'?"]),
            (["--set", "trainer.weight_decay=heavy"], ["trainer.weight_decay=heavy", "number"]),
            (["--set", "trainer.max_steps=9"], ["trainer.max_steps", "use --max-steps"]),
            (["--set", "method=npo"], ["--set method", "trainer.KEY=VALUE"]),
            (["--set", "trainer.weight_decay"], ["--set trainer.weight_decay", "KEY=VALUE"]),
            (["--set", "trainer.optim=adamm"], ["adamm"]),
            (["--set", "trainer.lr_scheduler_kwargs={a"], ["trainer.lr_scheduler_kwargs={a", "YAML"]),
            (["--set", "trainer.load_best_model_at_end=true"], ["load_best_model_at_end"]),
            (["--set", "trainer.report_to=tensorboardd"], ["report_to", "tensorboardd"]),
            (["--resume", "--overwrite"], ["--resume", "--overwrite"]),
        ],
    )
    def test_values(
        self, words: list[str], said: list[str], here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        refused(call(capsys, *here.quick(tmp_path / "out"), *words), *said)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("flag", ["model", "forget", "output"])
    def test_what_must_be_given(
        self, flag: str, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = here.quick(tmp_path / "out")
        place = words.index(f"--{flag}")
        refused(call(capsys, *words[:place], *words[place + 2 :]), f"--{flag} is missing")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, ["run.yaml", "cannot be read"]),
            ("model: [a\n", ["run.yaml line", "not valid YAML"]),
            ("just words\n", ["run.yaml", "no settings"]),
            ("metod: npo\n", ["'metod'", "did you mean 'method'?"]),
            ("max_steps: many\n", ["--max-steps many", "integer"]),
            ("forget: rows.jsonl\n", ["--forget rows.jsonl", "list"]),
            ("1: 2\n", ["unknown setting '1'"]),
        ],
    )
    def test_config_files(
        self, text: str | None, said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        if text is not None:
            (tmp_path / "run.yaml").write_text(text)
        refused(call(capsys, "run", "--config", tmp_path / "run.yaml", "--output", tmp_path / "out"), *said)
        assert not (tmp_path / "out").exists()

    def test_unknown_verb(self, capsys: pytest.CaptureFixture[str]) -> None:
        refused(call(capsys, "evalute"), "evalute", "evaluate")

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--method", "nope"], ["--method nope", "'npo'"]),
            (["--size", "tinny"], ["tinny", "did you mean 'tiny'?"]),
            (["--set", "trainer.weight_decay=heavy"], ["trainer.weight_decay=heavy"]),
        ],
    )
    def test_the_demo_grows_nothing_before_its_settings_are_right(
        self, words: list[str], said: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        refused(call(capsys, "demo", "--output", tmp_path / "out", *words), *said)
        assert not (tmp_path / "out").exists()

    def test_evaluate(self, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["evaluate", "--model", here.model, "--output", tmp_path / "out"]
        refused(call(capsys, *words), "--forget or --retain is missing")
        refused(call(capsys, *words, "--forget", here.forget, "--original", tmp_path / "nowhere"), "nowhere")
        assert not (tmp_path / "out").exists()


class TestOutput:
    def test_not_empty(self, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "mine.txt").write_text("keep")
        refused(call(capsys, *here.quick(tmp_path)), str(tmp_path), "not empty", "--overwrite", "--resume")
        refused(call(capsys, *here.quick(tmp_path), "--overwrite"), str(tmp_path), "holds none", "another directory")
        refused(call(capsys, "demo", "--output", tmp_path), str(tmp_path), "not empty")
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]

    def test_a_file(self, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        file = tmp_path / "out"
        file.write_text("keep")
        refused(call(capsys, *here.quick(file)), "is a file", "name a directory")
        refused(call(capsys, *here.quick(file / "below")), "is a file", "another directory")
        assert file.read_text() == "keep"

    def test_no_permission(
        self, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(directory.os, "access", lambda path, mode: False)
        refused(call(capsys, *here.quick(tmp_path / "out")), "no permission to write in", str(tmp_path))
        assert list(tmp_path.iterdir()) == []

    def test_overwriting_what_the_run_reads(
        self, here: Place, finished: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        before = listing(finished)
        words = here.quick(finished, model=finished / "model")
        refused(call(capsys, *words, "--overwrite"), "--overwrite would delete", str(finished / "model"))
        assert listing(finished) == before

    def test_a_model_below_the_trainer_fails(
        self, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """The Trainer makes its directory at once; an error right after that must not leave it."""
        (tmp_path / "there").mkdir()
        for output in (tmp_path / "new" / "deep", tmp_path / "there"):
            refused(call(capsys, *here.quick(output), "--set", "trainer.optim=bnb_8bitt"), "bnb_8bitt")
        assert [path.name for path in tmp_path.iterdir()] == ["there"] and not any((tmp_path / "there").iterdir())


class TestResume:
    def test_nothing_there(self, here: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        words = here.quick(tmp_path / "out", max_steps=1)
        refused(call(capsys, *words, "--resume"), "--resume", "no run in", "leave --resume out")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize(
        ("changed", "said"),
        [
            ({"max_steps": 7}, ["--max-steps 7", "started with 1"]),
            ({"method": "npo"}, ["--method npo", "rto"]),
            ({"seed": 5}, ["--seed 5"]),
        ],
    )
    def test_other_settings(
        self,
        changed: dict[str, object],
        said: list[str],
        here: Place,
        finished: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        before = listing(finished)
        unset = dict.fromkeys(("validation_prompts", "validation_steps", "max_new_tokens"))
        words = here.quick(finished, **(unset | {"max_steps": 1} | changed))
        refused(call(capsys, *words, "--resume"), *said, "--overwrite")
        assert listing(finished) == before

    def test_a_broken_run_yaml(self, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.copytree(finished, tmp_path / "out")
        (tmp_path / "out" / "run.yaml").write_text("model: [")
        before = listing(tmp_path / "out")
        refused(call(capsys, "run", "--resume", "--output", tmp_path / "out"), "run.yaml line 1", "not valid YAML")
        assert listing(tmp_path / "out") == before

    def test_goes_on_with_the_stored_settings(
        self, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shutil.copytree(finished, tmp_path / "out")
        (tmp_path / "out" / "report.json").unlink()  # cut off before it was finished
        outcome = call(capsys, "run", "--resume", "--output", tmp_path / "out")
        assert outcome.code == 0, outcome.err
        again, first = ((where / "model" / "model.safetensors").read_bytes() for where in (tmp_path / "out", finished))
        assert again == first
        stored = yaml.safe_load((tmp_path / "out" / "run.yaml").read_text())
        assert stored["max_steps"] == 1 and stored["skip_evaluation"] is True


def test_in_a_process_of_its_own(here: Place, tmp_path: Path) -> None:
    """What a shell sees: the code, the line, no trace of where in the program it happened."""
    words = here.quick(tmp_path / "out", forget=tmp_path / "gone.jsonl")
    done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, env=os.environ | {"COLUMNS": "60"})
    refused(Outcome(done.returncode, done.stdout, done.stderr), "gone.jsonl: no such file")
    assert re.fullmatch(r"Error: [^\n]+\n", done.stderr)
    assert not (tmp_path / "out").exists()
