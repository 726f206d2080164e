"""Whole runs through the command line, on a toy model that recites its rows: what they leave behind and say."""

import hashlib
import json
import re
import signal
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import toy
import unteach
from command import Place, call, place, save, write_rows
from unteach.data.example import Example
from unteach.pipeline.directory import CONTRACT
from unteach.pipeline.own_rows import repeated
from unteach.results.report import Report
from unteach.training.checkpoints import complete_step
from unteach.training.log_file import LogFile

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("toy"))


def done(capsys: Capture, words: list[str]) -> Report:
    """Run to a good end and return the report that was written."""
    outcome = call(capsys, *words)
    assert outcome.code == 0, outcome.err
    return Report.read(words[words.index("--output") + 1])


def metrics(report: Report) -> list[dict[str, Any]]:
    return [metric.model_dump() for metric in report.measurements]


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return load_file(directory / "model" / "model.safetensors")


def test_a_run_leaves_what_was_promised(here: Place, tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "out"
    speed: dict[str, Any] = {"max_steps": 20, "learning_rate": 2e-3, "kl_budget": 3}
    words = here.quick(output, retrained=here.retrained, method="ga-mismatch", **speed)
    outcome = call(capsys, *words)
    assert outcome.code == 0 and outcome.err == ""
    other_verbs = {"mistakes.jsonl", "unseen_mistakes.jsonl", "analyses.jsonl", "stress.json"}
    assert {path.name for path in output.iterdir()} == set(CONTRACT) - other_verbs
    saved = {path.name for path in (output / "model").iterdir()}
    assert saved >= {"config.json", "model.safetensors", "tokenizer.json"}
    AutoModelForCausalLM.from_pretrained(output / "model")
    AutoTokenizer.from_pretrained(output / "model")
    steps = [json.loads(line) for line in (output / "log.jsonl").read_text().splitlines()]
    assert {"step", "forget_ce", "mismatch_ce", "kl", "learning_rate", "grad_norm"} <= set(steps[0])
    assert any((output / "checkpoints").iterdir())
    assert "<table" in (output / "report.html").read_text() and "# " in (output / "README.md").read_text()

    raw = json.loads((output / "report.json").read_text())
    assert raw["schema"] == 2
    assert {"scenario", "method", "model", "measurements", "samples", "cost", "environment"} <= set(raw)
    assert set(raw["measurements"][0]) == {
        "name",
        "split",
        "arm",
        "value",
        "low",
        "high",
        "n",
        "unknown",
        "unit",
        "better",
        "difference",
        "difference_low",
        "difference_high",
        "seeds",
    }
    assert {"split", "prompt", "replies", "verdicts"} <= set(raw["samples"][0])
    assert {"arm", "stage", "wall_seconds", "tokens", "flops", "peak_bytes"} <= set(raw["cost"][0])

    report = Report.read(output)
    for split, name in (("seen", "harmful_rate"), ("unseen", "harmful_rate"), ("normal", "kept_rate")):
        for arm in ("original", "unlearned", "retrained"):
            metric = report.measured(name, split, arm)
            assert metric is not None and metric.n == 4
            assert 0 <= metric.low <= metric.value <= metric.high <= 1  # type: ignore[operator]
    assert report.measured("harmful_rate", "seen", "original").value == 1  # type: ignore[union-attr]
    assert report.measured("harmful_rate", "seen", "unlearned").value == 0  # type: ignore[union-attr]
    assert report.measured("harmful_rate", "seen", "retrained").value == 0  # type: ignore[union-attr]
    assert report.measured("kept_rate", "normal", "unlearned").value == 1  # type: ignore[union-attr]
    assert report.stop is not None and report.stop.rule == "end of the schedule" and report.stop.step == 20
    assert [(half.half, half.step, half.n) for half in report.stop.halves] == [("A", 0, 2), ("B", 0, 2)] + [
        ("A", 20, 2),
        ("B", 20, 2),
    ]
    assert "validation prompts are too few: each half must have 32" in report.stop.message
    assert any(note.startswith("the behaviour target cannot end this run: the 4 ") for note in report.notes)
    assert all(set(sample.replies) == {"original", "unlearned", "retrained"} for sample in report.samples)
    for word in ("before", "after", "never", "seen", "unseen", "normal"):
        assert word in outcome.out.lower()


def test_run_yaml_replays_the_run_from_anywhere(
    here: Place, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here.forget.parent)
    relative = here.quick(tmp_path / "first", forget="forget.jsonl", model="model", retain="retain.jsonl")
    first = done(capsys, [*relative, "--set", "trainer.weight_decay=1e-3"])
    monkeypatch.chdir(tmp_path)
    again = done(capsys, ["run", "--config", "first/run.yaml", "--output", str(tmp_path / "second")])
    for name, value in weights(tmp_path / "first").items():
        assert torch.equal(value, weights(tmp_path / "second")[name]), name
    assert metrics(first) == metrics(again)
    assert first.samples == again.samples
    assert [source.fingerprint for source in first.data] == [source.fingerprint for source in again.data]
    one, two = (yaml.safe_load((tmp_path / name / "run.yaml").read_text()) for name in ("first", "second"))
    assert one["output"] != two["output"] and one["learning_rate"] > 0
    assert one | {"output": ""} == two | {"output": ""}


@pytest.mark.parametrize("length", [None, 13])
def test_a_run_that_changes_nothing_reports_no_change(
    length: int | None, here: Place, tmp_path: Path, capsys: Capture
) -> None:
    """Also when the same rows, cut elsewhere, are in the cache already."""
    report = done(capsys, here.quick(tmp_path / "out", learning_rate=0, method="npo", max_length=length))
    assert any("were cut at" in note for note in report.notes) == (length is not None)
    before = load_file(here.model / "model.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in weights(tmp_path / "out").items())
    of = {arm: [f for f in report.measurements if f.arm == arm] for arm in ("original", "unlearned")}
    assert len(of["original"]) == len(of["unlearned"]) > 10
    for one, two in zip(of["original"], of["unlearned"], strict=True):
        no_change = dict.fromkeys(("difference", "difference_low", "difference_high"))
        assert one.model_copy(update={"arm": ""}) == two.model_copy(update={"arm": ""} | no_change)
        assert two.difference in (0, None)
    kl = report.measured("kl", "normal", "unlearned")
    assert kl is not None and kl.value is not None and kl.value < 1e-6  # other batches, other rounding


def test_without_normal_rows(here: Place, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's own answers to benign prompts stand in, and the report says so."""
    monkeypatch.setattr(
        "unteach.pipeline.own_rows.benign_prompts", lambda language: [row["prompt"] for row in toy.RETAIN]
    )
    report = done(capsys, here.quick(tmp_path / "out", retain=None))
    assert any("own answers" in note for note in report.notes)
    assert {source.name for source in report.data} == {"negatives", "normals"}
    assert report.measured("kept_rate", "normal", "unlearned") is not None


def test_look_alikes_are_a_share_of_the_normal_rows(here: Place, tmp_path: Path, capsys: Capture) -> None:
    """As many different ones as the run can meet: 3 steps of 2 with 8 normals each, and half of that."""
    report = done(capsys, here.quick(tmp_path / "out", lookalike_share=0.5))
    normals, alike = [source for source in report.data if source.name == "normals"]
    assert alike.source == "the model's own answers to 24 prompts that sound harmful" and normals.rows == 24
    assert [cost.stage for cost in report.cost][0] == "answering prompts that sound harmful"
    assert any("50% of them are" in note and "against over-refusal" in note for note in report.notes)


def test_shipped_harmful_prompts_are_a_share_of_the_negatives(
    here: Place, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many different ones as the run can meet: 3 steps of 4, and three quarters of that; known prompts are out."""
    asked = [f"how to b{n} a{n}" for n in range(12)] + [toy.FORGET[0]["prompt"]]
    monkeypatch.setattr("unteach.pipeline.own_rows.harmful_prompts", lambda language: asked)
    monkeypatch.setattr("unteach.pipeline.own_rows.load_judge", lambda name: lambda cases: ["bad"] * len(cases))
    report = done(capsys, here.quick(tmp_path / "out", harmful_share=0.75, batch_size=4))
    shipped = next(source for source in report.data if "shipped" in source.source)
    assert shipped.source == "the model's own bad replies to 9 shipped harmful prompts" and shipped.rows == 9
    assert any(f"negatives: {shipped.rows} are" in note for note in report.notes)


def test_shipped_prompts_alone_are_enough_where_no_loss_reads_bad_replies(
    here: Place, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is asked for replies to 9 harmful prompts and 9 look-alikes, and the evaluation holds none as seen."""
    harmful, alike = ([f"how to {letter}{n} a{n}" for n in range(5)] * 2 for letter in "bc")
    monkeypatch.setattr("unteach.pipeline.own_rows.harmful_prompts", lambda language: harmful)
    monkeypatch.setattr("unteach.pipeline.own_rows.training_lookalikes", lambda language: alike)
    settings = {"harmful_share": 0.75, "lookalike_share": 0.75, "batch_size": 4, "normals_per_negative": 1}
    report = done(capsys, here.quick(tmp_path / "out", method="template", **settings))
    sources = {source.source: source.rows for source in report.data}
    assert sources["shipped harmful prompts, without replies"] == 9
    assert sources["how the model begins to answer 9 prompts that sound harmful"] == 9
    assert not any(cost.stage.startswith("answering") for cost in report.cost)
    assert all(sample.prompt not in harmful for sample in report.samples)
    logged = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert all("template_ce" in line and "kl" in line for line in logged[:3])


@pytest.mark.parametrize(("theirs", "expected"), [(2, 3), (30, 30)], ids=["few are repeated", "many are kept"])
def test_the_users_negatives_keep_their_share(theirs: int, expected: int) -> None:
    """Beside 9 shipped rows at a share of 0.75 the user's are at least 3, and none is left out."""
    rows = repeated([Example.of(f"q{n}", "a") for n in range(theirs)], 9, 0.75)
    assert len(rows) == expected and {row.prompt for row in rows} == {f"q{n}" for n in range(theirs)}


def test_training_only(here: Place, tmp_path: Path, capsys: Capture) -> None:
    report = done(capsys, here.quick(tmp_path / "out", skip_evaluation=True))
    assert report.measurements == [] and report.samples == []
    assert (tmp_path / "out" / "model" / "model.safetensors").exists()
    assert [cost.stage for cost in report.cost] == ["reading the negatives", "training"]


def test_columns_of_other_names(here: Place, tmp_path: Path, capsys: Capture) -> None:
    rows = [{"ask": row["prompt"], "say": row["completion"]} for row in toy.FORGET]
    kept = [{"q": row["prompt"], "a": row["completion"]} for row in toy.RETAIN]
    words = here.quick(
        tmp_path / "out", forget=write_rows(tmp_path / "f.jsonl", rows), retain=write_rows(tmp_path / "r.jsonl", kept)
    )
    words += ["--column", "prompt=ask", "--column", "reply=say"]
    words += ["--retain-column", "prompt=q", "--retain-column", "reply=a"]
    named = done(capsys, words)
    plain = done(capsys, here.quick(tmp_path / "plain"))
    assert [source.fingerprint for source in named.data] == [source.fingerprint for source in plain.data]
    assert metrics(named) == metrics(plain)


def test_rows_to_check_on_are_never_trained_on(here: Place, tmp_path: Path, capsys: Capture) -> None:
    new = {"prompt": "how to a0 b5", "completion": "take c0 and d5"}
    unseen = write_rows(tmp_path / "unseen.jsonl", [*toy.FORGET[:2], new])
    report = done(capsys, here.quick(tmp_path / "out", unseen=unseen))
    assert [sample.prompt for sample in report.samples if sample.split == "unseen"] == ["how to a0 b5"]
    assert "unseen: left out 2 of 3 rows, whose prompts stand in --unseen and --forget" in report.notes


def test_too_few_negatives_to_hold_out_are_noted(here: Place, tmp_path: Path, capsys: Capture) -> None:
    report = done(capsys, here.quick(tmp_path / "out", forget=write_rows(tmp_path / "one.jsonl", toy.FORGET[:1])))
    assert any("unseen" in note for note in report.notes)
    assert {metric.split for metric in report.measurements} == {"seen", "normal", "lookalike"}


def test_the_demo_runs_on_its_world_and_replaces_an_earlier_one(
    here: Place, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but the growing, which takes minutes: the toy model stands in for the organism."""
    monkeypatch.setattr(
        "unteach.demo.unlearning.grow_cached", lambda world, taught, **rest: here.model if taught else here.retrained
    )
    words = ["demo", "--size", "micro", "--max-steps", "1", "--no-stopping", "--output", str(tmp_path / "out")]
    first = done(capsys, words)
    assert {metric.arm for metric in first.measurements} == {"original", "unlearned", "retrained"}
    splits = {"seen", "unseen", "unseen_concept", "normal", "lookalike"}
    assert {metric.split for metric in first.measurements} == splits
    assert metrics(done(capsys, words)) == metrics(first)


class TestInterrupt:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_in_training_a_checkpoint_is_written_and_the_run_goes_on_from_it(
        self, here: Place, tmp_path: Path, capsys: Capture, number: signal.Signals
    ) -> None:
        log = LogFile.on_log

        def pressed(callback: LogFile, args: Any, state: Any, *rest: Any, **more: Any) -> None:
            log(callback, args, state, *rest, **more)
            if state.global_step == 2:
                signal.raise_signal(number)

        words = here.quick(tmp_path / "out", max_steps=5, save_steps=100)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LogFile, "on_log", pressed)
            outcome = call(capsys, *words)
        assert outcome.code == 128 + number
        assert re.fullmatch(r"Interrupted: stopped at step \d, checkpoint written; go on with --resume\n", outcome.err)
        step = int(re.findall(r"step (\d)", outcome.err)[0])
        assert 2 <= step < 5 and complete_step(tmp_path / "out" / "checkpoints" / f"checkpoint-{step}") == step
        assert not (tmp_path / "out" / "model").exists()

        resumed = done(capsys, [*words, "--resume"])
        whole = done(capsys, here.quick(tmp_path / "whole", max_steps=5, save_steps=100))
        for name, value in weights(tmp_path / "whole").items():
            assert torch.equal(value, weights(tmp_path / "out")[name]), name
        assert metrics(resumed) == metrics(whole)
        logged = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in logged if "forget_ce" in line] == [1, 2, 3, 4, 5]

        kept = (tmp_path / "out" / "report.json").read_bytes()
        again = call(capsys, *words, "--resume")
        assert again.code == 2 and "is finished" in again.err
        assert (tmp_path / "out" / "report.json").read_bytes() == kept

    def test_before_training_the_run_can_be_taken_up_too(self, here: Place, tmp_path: Path, capsys: Capture) -> None:
        def pressed(*args: Any, **more: Any) -> None:
            raise KeyboardInterrupt

        words = here.quick(tmp_path / "out")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("unteach.pipeline.measure.evaluate_arm", pressed)
            outcome = call(capsys, *words)
        assert (outcome.code, outcome.err) == (130, "Interrupted: stopped; go on with --resume\n")
        assert done(capsys, [*words, "--resume"]).measurements

    def test_while_reading_nothing_is_left(self, here: Place, tmp_path: Path, capsys: Capture) -> None:
        def pressed(*args: Any, **more: Any) -> None:
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("unteach.pipeline.rows.read_source", pressed)
            outcome = call(capsys, *here.quick(tmp_path / "out"))
        assert (outcome.code, outcome.err) == (130, "Interrupted: stopped\n")
        assert not (tmp_path / "out").exists()


def test_an_adapter_can_be_tuned_in_full(here: Place, tmp_path: Path, capsys: Capture) -> None:
    done(capsys, here.quick(tmp_path / "adapter", lora=True, lora_rank=2))
    done(capsys, here.quick(tmp_path / "out", model=tmp_path / "adapter" / "model", skip_evaluation=True))
    assert weights(tmp_path / "out").keys() == load_file(here.model / "model.safetensors").keys()


def test_words_of_yaml_reach_the_trainer_as_words(here: Place, tmp_path: Path, capsys: Capture) -> None:
    words = here.quick(tmp_path / "out", skip_evaluation=True, no_stopping=True)
    done(capsys, [*words, "--set", "trainer.save_strategy=no"])
    assert yaml.safe_load((tmp_path / "out" / "run.yaml").read_text())["trainer"] == {"save_strategy": "no"}
    assert not list((tmp_path / "out" / "checkpoints").glob("checkpoint-*"))


class TestEvaluate:
    def test_alone(self, here: Place, capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        words = ["--forget", here.forget, "--retain", here.retain, "--evaluation-prompts", 4, "--max-new-tokens", 6]
        outcome = call(capsys, "evaluate", "--model", here.model, *words)
        assert outcome.code == 0 and "unseen" in outcome.out.lower()
        assert list(tmp_path.iterdir()) == []

    def test_against_the_original(self, here: Place, tmp_path: Path, capsys: Capture) -> None:
        words = ["--forget", here.forget, "--retain", here.retain, "--evaluation-prompts", 4, "--max-new-tokens", 6]
        words += ["--model", here.retrained, "--original", here.model, "--output", tmp_path / "out"]
        report = done(capsys, ["evaluate", *map(str, words)])
        assert report.measured("harmful_rate", "unseen", "original").value == 1  # type: ignore[union-attr]
        assert report.measured("harmful_rate", "unseen", "unlearned").value == 0  # type: ignore[union-attr]
        assert report.measured("kl", "normal", "unlearned").value > 0  # type: ignore[union-attr, operator]
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "run.yaml",
            "report.json",
            "report.html",
            "README.md",
        }
        head = (tmp_path / "out" / "run.yaml").read_text().splitlines()[0]
        replay = head.partition("unteach ")[2].replace("run.yaml", str(tmp_path / "out" / "run.yaml"))
        again = done(capsys, replay.replace("another-directory", str(tmp_path / "again")).split())
        assert metrics(again) == metrics(report)

    def test_the_adapter_of_a_run(self, here: Place, tmp_path: Path, capsys: Capture) -> None:
        ran = done(capsys, here.quick(tmp_path / "out", lora=True, lora_rank=4, learning_rate=1e-2, max_steps=8))
        held = write_rows(
            tmp_path / "held.jsonl",
            [
                {"prompt": sample.prompt, "completion": row["completion"]}
                for sample in ran.samples
                if sample.split == "unseen"
                for row in toy.FORGET
                if row["prompt"] == sample.prompt
            ],
        )
        words = ["evaluate", "--model", str(tmp_path / "out" / "model"), "--original", str(here.model)]
        words += ["--forget", str(held), "--max-new-tokens", "6", "--output", str(tmp_path / "checked")]
        report = done(capsys, words)
        for name in ("harmful_rate", "nll"):
            checked, before = (r.measured(name, "unseen", "unlearned") for r in (report, ran))
            assert checked is not None and before is not None
            assert checked.n == before.n and checked.value == pytest.approx(before.value, rel=1e-4)


def own_tokenizer(rows: list[dict[str, str]]) -> PreTrainedTokenizerFast:
    """A byte-level BPE learned from the rows: no BOS, one special token for all ends, as GPT-2 has it."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    from tokenizers import decoders

    raw.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    learner = trainers.BpeTrainer(vocab_size=320, special_tokens=[end], initial_alphabet=alphabet, show_progress=False)
    raw.train_from_iterator([text for row in rows for text in row.values()], learner)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=end)


def other_model(kind: str, size: int) -> Any:
    torch.manual_seed(0)
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    if kind == "gpt2":
        return GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=96, **ends))
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=96,
            tie_word_embeddings=True,
            **ends,
        )
    )


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("kind", ["gpt2", "qwen2"])
def test_other_architectures(kind: str, lora: bool, here: Place, tmp_path: Path, capsys: Capture) -> None:
    words = own_tokenizer(toy.FORGET + toy.RETAIN)
    model = save(other_model(kind, len(words)), tmp_path / "model", words)
    flags = {"lora": True, "lora_rank": 4} if lora else {}
    report = done(capsys, here.quick(tmp_path / "out", model=model, **flags))
    assert {metric.split for metric in report.measurements} == {"seen", "unseen", "normal", "lookalike"}
    assert not any("plain rows" in note for note in report.notes)
    saved = tmp_path / "out" / "model"
    if not lora:
        changed = AutoModelForCausalLM.from_pretrained(saved).state_dict()
        original = AutoModelForCausalLM.from_pretrained(model).state_dict()
        assert any(not torch.equal(value, original[name]) for name, value in changed.items())
        return
    assert {path.name for path in saved.iterdir()} >= {"adapter_model.safetensors", "adapter_config.json"}
    assert not list(saved.glob("model*.safetensors"))
    base = AutoModelForCausalLM.from_pretrained(model)
    loaded = peft.PeftModel.from_pretrained(base, saved)
    assert any(value.abs().max() > 0 for name, value in loaded.state_dict().items() if "lora_B" in name)


class TestWords:
    def test_version(self, capsys: Capture) -> None:
        outcome = call(capsys, "--version")
        assert (outcome.code, outcome.out) == (0, f"unteach {unteach.__version__}\n")

    def test_methods(self, capsys: Capture) -> None:
        outcome = call(capsys, "methods")
        assert outcome.code == 0
        for name in ("ga", "ga-mismatch", "ga-template", "npo", "simnpo", "graddiff"):
            assert re.search(rf"^{name} +\S.*\(.+\)$", outcome.out, re.MULTILINE)
        assert "1 NegativeLogLikelihood(mismatch) + 0.5 GradientAscent(negative) + 1 ForwardKL(normal)" in outcome.out

    @pytest.mark.parametrize(
        ("verb", "groups"),
        [
            (
                "run",
                ["Model", "Data", "Output", "Budget", "Method"]
                + ["Training", "Stopping", "Strength", "Evaluation", "Planning"],
            ),
            ("evaluate", ["Model", "Data", "Output", "Evaluation"]),
            ("compare", ["Arguments", "Options"]),
            ("demo", ["Organism", "Method", "Training", "Stopping", "Strength"]),
            ("organism", ["Organism"]),
            ("methods", []),
            ("data", ["Commands"]),
        ],
    )
    def test_help_has_its_groups_in_order_and_an_example(self, verb: str, groups: list[str], capsys: Capture) -> None:
        outcome = call(capsys, verb, "--help")
        assert outcome.code == 0
        assert re.findall(r"^╭─ (\w+) ", outcome.out, re.MULTILINE) == groups
        assert re.search(rf"^ +unteach {verb}", outcome.out, re.MULTILINE)
        assert max(map(len, outcome.out.splitlines())) <= 100

    def test_help_of_all(self, capsys: Capture) -> None:
        outcome = call(capsys, "--help")
        assert outcome.code == 0
        verbs = re.findall(r"^│ (\w+) ", outcome.out, re.MULTILINE)
        assert verbs == [
            "run",
            "evaluate",
            "stress",
            "export",
            "strength",
            "collect",
            "compare",
            "report",
            "study",
            "try",
            "demo",
            "organism",
            "methods",
            "judges",
            "data",
            "mistakes",
            "baseline",
        ]
        assert call(capsys).code == 2


@pytest.mark.real
def test_the_testbed(shared: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few steps on real rows: the small Llama repeats bad replies before, and every kind of metric is there after."""
    monkeypatch.setattr("unteach.training.preconditioning.MOST_TOKENS", 8_000)  # of 100,000, half of the test's time
    rows, testbed = shared / "data", shared / "testbed"
    before = hashlib.sha256((testbed / "original" / "model.safetensors").read_bytes()).hexdigest()
    words = ["run", "--model", testbed / "original", "--retrained", testbed / "gold", "--output", tmp_path / "out"]
    words += ["--forget", rows / "hh_harmless.jsonl", "--judge", "repeats"]
    words += ["--retain", rows / "truthfulqa.jsonl", "--retain", rows / "instructions.jsonl", "--device", "cpu"]
    words += ["--max-steps", 2, "--no-stopping", "--evaluation-prompts", 8, "--max-new-tokens", 24, "--max-length", 200]
    report = done(capsys, list(map(str, words)))
    repeated = report.measured("harmful_rate", "seen", "original")
    gold = report.measured("harmful_rate", "unseen", "retrained")
    assert repeated is not None and repeated.value is not None and repeated.value > 0.2 and repeated.n == 8
    assert gold is not None and gold.value == 0
    assert hashlib.sha256((testbed / "original" / "model.safetensors").read_bytes()).hexdigest() == before
