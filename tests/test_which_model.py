"""The model that is measured and saved is the one that was meant and trained, whatever its files look like."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig

import toy
from command import Place, call, place, save
from unteach.data.prompt_format import prompt_format
from unteach.errors import ConfigError, ModelError
from unteach.models.adapter import lora_config
from unteach.models.loading import load_model, load_tokenizer
from unteach.models.saving import save_model
from unteach.models.vocabulary import fit_tokenizer
from unteach.pipeline import run as pipeline_run
from unteach.prompts.turn import Turn

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*is_gradient_checkpointing:FutureWarning",
    "ignore:.*save_embedding_layers:UserWarning",
    "ignore:(?s).*(tied|tie_word_embeddings):UserWarning",
)
Capture = pytest.CaptureFixture[str]
ROWS = len(toy.VOCABULARY)


@pytest.fixture
def here(tmp_path: Path) -> Place:
    return place(tmp_path)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[1, 4, 5, 9, 20, 30]])).logits


def tied(directory: Path) -> Path:
    return save(toy.model(tie_word_embeddings=True), directory)


def adapter_on(base: Path, directory: Path, rows: int = 0, **settings: Any) -> torch.Tensor:
    """Save an adapter that changes all it can; returns what base and adapter predict, not merged."""
    model = load_model(base, device="cpu")
    if rows:
        model.resize_token_embeddings(rows, mean_resizing=False)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, **settings))
    torch.manual_seed(3)
    for name, weight in adapted.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            torch.nn.init.normal_(weight, std=0.2)
    adapted.save_pretrained(str(directory))
    return logits(adapted.eval())


# ---- adapters --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head", "embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"], "rows": ROWS + 3},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
@pytest.mark.parametrize("shared", [True, False])
def test_a_merged_adapter_predicts_what_it_was_trained_to_and_so_does_its_copy_on_disk(
    tmp_path: Path, settings: dict[str, Any], shared: bool
) -> None:
    base = save(toy.model(tie_word_embeddings=shared), tmp_path / "base")
    expected = adapter_on(base, tmp_path / "adapter", **settings)
    merged = load_model(tmp_path / "adapter", device="cpu")
    torch.testing.assert_close(logits(merged), expected, rtol=1e-5, atol=1e-5)
    save_model(merged.save_pretrained, merged, toy.tokenizer(), tmp_path / "saved")
    again = load_model(tmp_path / "saved", device="cpu")
    torch.testing.assert_close(logits(again), expected, rtol=1e-5, atol=1e-5)
    untouched = shared and list(settings.values()) == [["q_proj"]]
    assert (again.lm_head.weight is again.model.embed_tokens.weight) == untouched == again.config.tie_word_embeddings


def test_adapter_files_beside_whole_weights_are_left_alone_with_a_note(
    here: Place, tmp_path: Path, capsys: Capture
) -> None:
    adapter_on(here.model, tmp_path / "adapter", target_modules=["q_proj"])
    expected = logits(load_model(here.model, device="cpu"))
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        shutil.copy(tmp_path / "adapter" / name, here.model)
    torch.testing.assert_close(logits(load_model(here.model, device="cpu")), expected)
    for lora in (None, True):
        ran = call(capsys, *here.quick(tmp_path / f"out{lora}", lora=lora))
        assert ran.code == 0, ran.err
        notes = json.loads((tmp_path / f"out{lora}" / "report.json").read_text())["notes"]
        assert any("the adapter, which they may hold already, was left alone" in note for note in notes)


def test_a_config_beside_an_adapter_does_not_make_it_a_whole_model(here: Place, tmp_path: Path) -> None:
    expected = adapter_on(here.model, tmp_path / "adapter", target_modules=["q_proj"])
    shutil.copy(here.model / "config.json", tmp_path / "adapter")
    torch.testing.assert_close(logits(load_model(tmp_path / "adapter", device="cpu")), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("flags", [{}, {"lora": True}, {"lora": True, "lora_targets": "q_proj,lm_head"}])
@pytest.mark.parametrize("start", ["tied", "adapter"])
def test_a_run_measures_the_model_that_it_saves(
    here: Place, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, start: str, flags: dict[str, Any]
) -> None:
    model = tied(tmp_path / "tied")
    if start == "adapter":
        adapter_on(model, tmp_path / "adapter", target_modules=["v_proj", "lm_head"])
        model = tmp_path / "adapter"
    measured = {}
    evaluate_arm = pipeline_run.evaluate_arm

    def spied(evaluation: Any, arm: str, trained: Any, *args: Any) -> None:
        measured[arm] = logits(trained)
        evaluate_arm(evaluation, arm, trained, *args)

    monkeypatch.setattr(pipeline_run, "evaluate_arm", spied)
    monkeypatch.chdir(tmp_path)
    ran = call(capsys, *here.quick(tmp_path / "out", model=model.name, learning_rate=1e-2, **flags))
    assert ran.code == 0 and "peft" not in ran.err.casefold(), ran.err
    monkeypatch.chdir("/")  # an adapter finds its base from anywhere
    again = logits(load_model(tmp_path / "out", device="cpu"))
    torch.testing.assert_close(again, measured["unlearned"], rtol=1e-5, atol=1e-5)
    assert (again - logits(load_model(model, device="cpu"))).abs().max() > 1e-3
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["notes"]
    assert any("peft issue 2777" in note for note in notes) == ("lora_targets" in flags and start == "tied")


# ---- tokens ----------------------------------------------------------------------------------------------------------


def longer_tokenizer(**settings: Any) -> Any:
    words = toy.tokenizer()
    words.add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|stop|>"]} | settings)
    return words


def test_a_pad_token_outside_the_embedding_is_padded_with_eos_and_saved_as_it_came(
    here: Place, tmp_path: Path, capsys: Capture
) -> None:
    words = toy.tokenizer(padding_side="left")
    words.add_special_tokens({"pad_token": "[PAD]"})
    words.save_pretrained(here.model)
    config = json.loads((here.model / "config.json").read_text())
    (here.model / "config.json").write_text(json.dumps(config | {"pad_token_id": words.pad_token_id}))
    ran = call(capsys, *here.quick(tmp_path / "out"))
    assert ran.code == 0, ran.err
    saved = load_tokenizer(tmp_path / "out")
    assert (saved.pad_token, saved.pad_token_id, saved.padding_side) == ("[PAD]", ROWS, "left")
    assert json.loads((tmp_path / "out" / "model" / "config.json").read_text())["pad_token_id"] == ROWS


def test_a_pad_token_outside_the_embedding_in_the_trainer(tmp_path: Path) -> None:
    words = toy.tokenizer(pad_token="[PAD]")
    assert words.pad_token_id == ROWS
    trainer = toy.trainer(tmp_path, words=words, stopping=True, validation_steps=1)
    trainer.train()
    assert trainer.state.global_step == 3 and words.pad_token == "[PAD]"


def test_a_row_with_a_token_that_the_model_lacks_is_named(here: Place, tmp_path: Path, capsys: Capture) -> None:
    longer_tokenizer().save_pretrained(here.model)
    with here.forget.open("a") as file:
        file.write(json.dumps({"prompt": "how to <|turn|>", "completion": "take c1"}) + "\n")
    ran = call(capsys, *here.quick(tmp_path / "out"))
    assert ran.code == 2 and not (tmp_path / "out").exists()
    assert f"forget.jsonl line {len(toy.FORGET) + 1}" in ran.err and "resize_token_embeddings" in ran.err
    assert f"'<|turn|>' is token {ROWS}, but the model knows only {ROWS}" in ran.err


def test_an_end_that_the_model_lacks_is_refused() -> None:
    with pytest.raises(ModelError, match=r"its eos_token '<\|stop\|>' is token \d+, but the model knows only"):
        fit_tokenizer(longer_tokenizer(eos_token="<|stop|>"), toy.model(), "m")


def test_one_added_token_in_model_and_tokenizer_is_no_fault(here: Place, tmp_path: Path, capsys: Capture) -> None:
    words, grown = longer_tokenizer(), toy.learned_model()
    grown.resize_token_embeddings(len(words), mean_resizing=False)
    save(grown, here.model, words)
    assert call(capsys, *here.quick(tmp_path / "out")).code == 0
    assert load_model(tmp_path / "out", device="cpu").config.vocab_size == len(words)


def test_named_templates_without_a_default_are_refused_but_for_plain() -> None:
    words = toy.tokenizer()
    words.chat_template = {"rag": "{{ messages }}", "tool_use": "{{ messages }}"}
    for form in ("auto", "chat"):
        with pytest.raises(ConfigError, match=r"\(rag, tool_use\) and none that is the default; save one"):
            prompt_format(words, form)
    assert prompt_format(words, "plain").name == "plain"
    words.chat_template |= {"default": "{% for m in messages %}{{ m.content }}{% endfor %}"}
    assert prompt_format(words).prompt_ids((Turn("user", "how to"),))


# ---- saved as it came ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "saved"), [(None, torch.bfloat16), ("float32", torch.float32)])
def test_a_model_is_saved_as_it_came(
    here: Place, tmp_path: Path, capsys: Capture, dtype: str | None, saved: torch.dtype
) -> None:
    model = toy.learned_model().to(torch.bfloat16)
    model.config.use_cache = False
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.7, eos_token_id=[2, 3], pad_token_id=0)
    words = toy.tokenizer(pad_token=None, padding_side="left")
    save(model, here.model, words)
    trainer = "trainer.activation_checkpointing=true"
    ran = call(capsys, *here.quick(tmp_path / "out", dtype=dtype, learning_rate=1e-3), "--set", trainer)
    assert ran.code == 0, ran.err
    out = tmp_path / "out" / "model"
    for name in ("config.json", "generation_config.json"):
        before, after = (json.loads((place / name).read_text()) for place in (here.model, out))
        assert {**before, "dtype": None} == {**after, "dtype": None}
    again = load_model(out, dtype=str(saved).removeprefix("torch."), device="cpu")
    assert json.loads((out / "config.json").read_text())["dtype"] == str(saved).removeprefix("torch.")
    assert again.config.use_cache is False and again.generation_config.temperature == 0.7
    settings = json.loads((out / "tokenizer_config.json").read_text())
    assert settings.get("pad_token") is None and settings["padding_side"] == "left"
    notes = json.loads((tmp_path / "out" / "report.json").read_text())["notes"]
    assert any("saved in bfloat16, as they came" in note for note in notes) == (dtype is None)


def test_weights_are_rounded_to_what_was_saved_and_nothing_else(tmp_path: Path) -> None:
    save(toy.learned_model().to(torch.bfloat16), tmp_path / "model")
    model = load_model(tmp_path / "model", device="cpu", in_full=True)
    with torch.no_grad():
        model.lm_head.weight += 1e-5
    angles = model.model.rotary_emb.inv_freq.clone()
    save_model(model.save_pretrained, model, toy.tokenizer(), tmp_path / "saved")
    assert model.dtype == torch.float32 and torch.equal(model.model.rotary_emb.inv_freq, angles)
    torch.testing.assert_close(logits(model), logits(load_model(tmp_path / "saved", device="cpu")), rtol=0, atol=0)


# ---- run directories -------------------------------------------------------------------------------------------------


def test_evaluate_takes_a_run_directory_and_asks_and_measures_as_the_run_did(
    here: Place, tmp_path: Path, capsys: Capture
) -> None:
    words = toy.tokenizer()
    words.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    words.save_pretrained(here.model)
    flags = {"prompt_format": "plain", "template": "sorry no", "judge": "verbatim", "max_new_tokens": 5}
    assert call(capsys, *here.quick(tmp_path / "out", lora=True, **flags)).code == 0
    rows = ["--forget", here.forget, "--evaluation-prompts", 4, "--device", "cpu"]
    ran = call(capsys, "evaluate", "--model", tmp_path / "out", *rows, "--output", tmp_path / "after")
    assert ran.code == 0, ran.err
    config = (tmp_path / "after" / "run.yaml").read_text()
    assert "prompt_format: plain" in config and "max_new_tokens: 5" in config and "template: sorry no" in config
    report = json.loads((tmp_path / "after" / "report.json").read_text())
    assert report["judge"] == "verbatim" and any("template_rate" == m["name"] for m in report["measurements"])
    note = next(note for note in report["notes"] if "as in" in note)
    assert "--prompt-format plain" in note and str(tmp_path / "out" / "run.yaml") in note
    words = ["evaluate", "--model", tmp_path / "out" / "model", *rows, "--judge", "repeats"]
    assert call(capsys, *words, "--output", tmp_path / "own").code == 0
    assert json.loads((tmp_path / "own" / "report.json").read_text())["judge"] == "repeats"
    (tmp_path / "out" / "model").rename(tmp_path / "gone")
    ran = call(capsys, "evaluate", "--model", tmp_path / "out", *rows)
    assert ran.code == 2 and "a run directory without model/" in ran.err and ran.err.count("\n") == 1


def test_a_report_names_only_the_judges_that_judged(here: Place, tmp_path: Path, capsys: Capture) -> None:
    words = ["evaluate", "--model", here.model, "--forget", here.forget, "--judge", "repeats", "--judge", "trained"]
    ran = call(capsys, *words, "--evaluation-prompts", 4, "--device", "cpu", "--output", tmp_path / "after")
    assert ran.code == 0, ran.err
    report = json.loads((tmp_path / "after" / "report.json").read_text())
    assert report["judge"] == "repeats" and any("no second opinion" in note for note in report["notes"])


# ---- settings of adapters --------------------------------------------------------------------------------------------


def test_unknown_modules_are_refused_before_anything_is_asked(here: Place, tmp_path: Path, capsys: Capture) -> None:
    ran = call(capsys, *here.quick(tmp_path / "out", retain=None, lora=True, lora_targets="foo"))
    assert ran.code == 2 and "--lora-targets foo" in ran.err and ran.progress == ()


@pytest.mark.parametrize("flag", [("--lora-rank", 8), ("--lora-alpha", 8), ("--lora-targets", "q_proj")])
def test_settings_of_an_adapter_without_one_are_refused(
    here: Place, tmp_path: Path, capsys: Capture, flag: tuple[str, object]
) -> None:
    ran = call(capsys, *here.quick(tmp_path / "out"), *flag)
    assert ran.code == 2 and flag[0] in ran.err and "add --lora" in ran.err


def test_lora_config_still_knows_all_linear() -> None:
    assert lora_config(2, 4, model=toy.model()).target_modules == "all-linear"


# ---- refused ---------------------------------------------------------------------------------------------------------


def test_weights_that_only_other_programs_read_do_not_hide_pickles(here: Place) -> None:
    (here.model / "model.safetensors").rename(here.model / "consolidated.safetensors")
    (here.model / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"only pickle weights \(pytorch_model.bin\)"):
        load_model(here.model, device="cpu")


def test_quantised_weights_are_not_trained_in_full(here: Place, tmp_path: Path, capsys: Capture) -> None:
    config = json.loads((here.model / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4, "group_size": 128}
    (here.model / "config.json").write_text(json.dumps(config))
    ran = call(capsys, *here.quick(tmp_path / "out"))
    assert ran.code == 2 and "quantised (gptq)" in ran.err and "add --lora" in ran.err
