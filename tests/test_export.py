"""unteach export: each form is the trained model, and what silently is another is named, removed and an error."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import gguf_toy
import toy
from command import Place, call, save, write_rows
from unteach.models.loading import load_model, load_tokenizer
from unteach.pipeline import artefacts
from unteach.pipeline.config import RunConfig
from unteach.pipeline.run import run as unlearn
from unteach.results.export import Export
from unteach.results.report import Report

Capture = pytest.CaptureFixture[str]
QUICK: dict[str, Any] = {"max_steps": 8, "learning_rate": 5e-3, "method": "npo", "stopping": False, "batch_size": 2}
QUICK |= {"max_new_tokens": 6, "evaluation_prompts": 4, "validation_prompts": 4, "lookalike_share": 0}
QUICK |= {"harmful_share": 0, "judge": ["repeats"], "device": "cpu", "mismatch_samples": 2}


def trained(here: Place, output: Path, **changed: Any) -> Path:
    files: dict[str, Any] = {"forget": [str(here.forget)], "retain": [str(here.retain)], "model": str(here.model)}
    unlearn(RunConfig(output=str(output), **(files | QUICK | changed)))
    return output


def rows_beside(model: Path) -> Place:
    forget = write_rows(model.parent / "forget.jsonl", toy.FORGET)
    return Place(model, model, forget, write_rows(model.parent / "retain.jsonl", toy.RETAIN))


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return rows_beside(save(toy.model(), tmp_path_factory.mktemp("toy") / "model"))


@pytest.fixture(scope="module")
def full(here: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(here, tmp_path_factory.mktemp("runs") / "full")


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with an adapter on a bfloat16 model whose head is shared, and whose tokenizer a GGUF file can hold."""
    directory = tmp_path_factory.mktemp("lora")
    model = save(gguf_toy.model(tie_word_embeddings=True).to(torch.bfloat16), directory / "model", gguf_toy.words())
    rows = rows_beside(model)
    return trained(rows, directory / "out", lora=True, lora_targets="q_proj,v_proj,embed_tokens,lm_head")


def read(directory: Path) -> Export:
    return Export.model_validate_json((directory / "export.json").read_text())


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.arange(5, 25)[None]).logits


def test_whole_weights_are_exported_as_they_were_trained(full: Path, tmp_path: Path, capsys: Capture) -> None:
    outcome = call(capsys, "export", full, "--to", tmp_path / "to")
    assert outcome.code == 0 and outcome.err == "", outcome.err
    assert "same replies    100.0%" in outcome.out and "vllm serve" in outcome.out
    made = read(tmp_path / "to")
    (merged,) = made.artefacts
    assert (merged.form, merged.place, merged.dtype) == ("merged", "merged", "float32")
    assert merged.trained.mean_difference == 0 and merged.moved.mean_difference > 0.1
    assert merged.trained.n == sum(made.prompts.values()) >= 8 and made.judge == "repeats"
    assert {rate.arm for rate in merged.bad_rates} == {"exported", "unlearned", "original"}
    assert made.environment["transformers"] and made.method == "npo"
    ours, theirs = load_file(full / "model" / "model.safetensors"), load_file(tmp_path / "to/merged/model.safetensors")
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["export.json", "merged"]
    template = load_tokenizer(tmp_path / "to/merged").chat_template  # it was asked in the plain format
    assert "### Question: " in template
    refused = call(capsys, "export", full, "--to", tmp_path / "other", "--as", "adapter")
    assert refused.code == 2 and "has trained all weights" in refused.err and not (tmp_path / "other").exists()


def test_every_form_of_an_adapter_is_the_trained_model(lora: Path, tmp_path: Path, capsys: Capture) -> None:
    outcome = call(capsys, "export", lora, "--to", tmp_path, "--as", "merged,adapter", "--as", "ollama", "--as", "gguf")
    assert outcome.code == 0, outcome.err
    made = read(tmp_path)
    assert [artefact.form for artefact in made.artefacts] == ["merged", "adapter", "ollama"]
    for artefact in made.artefacts:
        assert artefact.trained.mean_difference < artefact.moved.mean_difference / 4, artefact.form
    assert made.artefacts[1].trained.mean_difference < 1e-4  # not merged, and not rounded
    kept = load_file(tmp_path / "merged/model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.bfloat16}
    config = json.loads((tmp_path / "merged/config.json").read_text())
    assert config["dtype"] == "bfloat16" and config["tie_word_embeddings"] is False and "lm_head.weight" in kept
    assert torch.allclose(logits(load_model(tmp_path / "merged")), logits(load_model(lora)), atol=0.2)
    assert load_tokenizer(tmp_path / "merged").chat_template == gguf_toy.TEMPLATE
    assert (tmp_path / "merged/generation_config.json").is_file()
    assert sorted(path.name for path in (tmp_path / "gguf").iterdir()) == ["Modelfile", "model.gguf"]
    modelfile = (tmp_path / "gguf/Modelfile").read_text()
    assert "FROM ./model.gguf\n" in modelfile and 'PARAMETER stop "<|end|>"' in modelfile and "<s>" not in modelfile
    assert not any(path.name.startswith(".") for path in tmp_path.rglob("*"))


def test_a_lost_merge_is_named_and_removed(
    lora: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The merged weights are those of the original: what a tool that forgets the adapter writes."""
    write = artefacts.save_model

    def forgets(_: Any, model: Any, tokenizer: Any, directory: Path) -> Any:
        original = load_model(RunConfig(model=str(lora.parent / "model")).model)
        return write(original.save_pretrained, original, tokenizer, directory)

    monkeypatch.setattr(artefacts, "save_model", forgets)
    outcome = call(capsys, "export", lora, "--to", tmp_path / "to", "--as", "adapter,merged")
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert (
        "--as merged: what was written is not the trained model: it predicts what the original predicts" in outcome.err
    )
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["adapter", "export.json"]
    assert [artefact.form for artefact in read(tmp_path / "to").artefacts] == ["adapter"]


def test_other_weights_and_another_tokenizer_are_named(
    full: Path, lora: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = artefacts.write_form

    def shaken(form: str, subject: Any, directory: Path, dtype: str) -> str:
        precision = write(form, subject, directory, dtype)
        path = directory / "model.safetensors"
        save_file({name: value * 1.2 for name, value in load_file(path).items()}, path, {"format": "pt"})
        return precision

    def other_template(form: str, subject: Any, directory: Path, dtype: str) -> str:
        precision = write(form, subject, directory, dtype)
        (directory / "chat_template.jinja").write_text(gguf_toy.TEMPLATE.replace("kind", "mean"))
        return precision

    for run, change, says in (
        (full, shaken, "it is another model"),
        (lora, other_template, "its tokenizer or chat template makes other tokens of 12 of 12 prompts"),
    ):
        monkeypatch.setattr("unteach.pipeline.export.write_form", change)
        outcome = call(capsys, "export", run, "--to", tmp_path / "to")
        assert outcome.code == 2 and says in outcome.err and not (tmp_path / "to/merged").exists(), outcome.err


def test_an_adapter_that_does_nothing_is_named(lora: Path, tmp_path: Path, capsys: Capture) -> None:
    run = Path(shutil.copytree(lora, tmp_path / "run"))
    path = run / "model" / "adapter_model.safetensors"
    zeroed = {
        name: value * ("lora_B" not in name and "embedding_A" not in name) for name, value in load_file(path).items()
    }
    save_file(zeroed, path, {"format": "pt"})
    outcome = call(capsys, "export", run, "--to", tmp_path / "to")
    assert outcome.code == 2 and "its adapter, or its update, does nothing" in outcome.err
    assert not (tmp_path / "to").exists()


def test_without_the_rows_the_prompts_of_the_report_are_taken(full: Path, tmp_path: Path, capsys: Capture) -> None:
    run = Path(shutil.copytree(full, tmp_path / "run"))
    settings = (run / "run.yaml").read_text()
    (run / "run.yaml").write_text(settings.replace("forget.jsonl", "gone.jsonl"))
    outcome = call(capsys, "export", run, "--to", tmp_path / "to")
    assert outcome.code == 0, outcome.err
    made = read(tmp_path / "to")
    assert "compared on the prompts of report.json" in " ".join(made.notes) and made.prompts["unseen"]
    empty = Report.read(run)
    empty.samples = []
    empty.write(run)
    refused = call(capsys, "export", run, "--to", tmp_path / "to", "--overwrite")
    assert refused.code == 2 and "nothing to compare the export on" in refused.err
    assert (tmp_path / "to/merged").is_dir()  # what was there stays until there is something to put in its place


def test_directories_that_cannot_be(full: Path, here: Place, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "mine.txt").write_text("x")
    unfinished = Path(shutil.copytree(full, tmp_path / "unfinished"))
    (unfinished / "report.json").unlink()
    seeds = tmp_path / "seeds"
    shutil.copytree(full, seeds / "seed-0")
    for words, says in (
        ([full, "--to", tmp_path / "to"], "not empty; name another directory, or add --overwrite"),
        ([full, "--to", tmp_path / "to", "--overwrite"], "--overwrite replaces exports only"),
        ([full, "--to", full / "run.yaml"], "is a file"),
        ([full, "--to", tmp_path / "new", "--as", "ggml"], "--as ggml: unknown; did you mean 'gguf'?"),
        ([full, "--to", tmp_path / "new", "--as", "gguf"], "no byte-level BPE"),
        ([full, "--to", tmp_path / "new", "--dtype", "int8"], "--dtype int8: unknown"),
        ([unfinished, "--to", tmp_path / "new"], f"go on with `unteach run --resume --output {unfinished}`"),
        ([seeds, "--to", tmp_path / "new"], f"name one, such as {seeds / 'seed-0'}"),
        ([here.model, "--to", tmp_path / "new"], "no run.yaml"),
    ):
        outcome = call(capsys, "export", *words)
        assert outcome.code == 2 and says in outcome.err, outcome.err
        assert len(outcome.err.splitlines()) == 1 and not (tmp_path / "new").exists()
    assert [path.name for path in (tmp_path / "to").iterdir()] == ["mine.txt"]


def test_four_bits_are_not_merged(lora: Path, tmp_path: Path, capsys: Capture) -> None:
    run = Path(shutil.copytree(lora, tmp_path / "run"))
    settings = (run / "run.yaml").read_text()
    (run / "run.yaml").write_text(settings.replace("load_in_4bit: false", "load_in_4bit: true"))
    outcome = call(capsys, "export", run, "--to", tmp_path / "to")
    assert outcome.code == 2 and "4-bit weights (--load-in-4bit)" in outcome.err and "use --as adapter" in outcome.err
