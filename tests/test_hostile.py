"""Files that were made to break a reader: deep, endless, huge or not a number. One error that names them, no traceback.

Chat templates have a file of their own, test_rendering.py; rows that are merely wrong stand in test_bad_input.py.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import toy
from command import Place, call, place, write_rows
from unteach.data.reading import read_examples
from unteach.errors import DataError, ModelError
from unteach.models.adapter import add_adapter, lora_config
from unteach.models.directory import base_of
from unteach.models.loading import check_loadable, load_model, load_tokenizer
from unteach.text.bounded import YamlFault, read_json, read_yaml

Capture = pytest.CaptureFixture[str]
DIGITS = "9" * 5000


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def model(here: Place, tmp_path: Path) -> Path:
    shutil.copytree(here.model, tmp_path / "model")
    return tmp_path / "model"


def refused(outcome: Any, *words: str) -> None:
    assert outcome.code == 2 and outcome.err.startswith("Error: ") and outcome.err.count("\n") == 1, outcome.err
    assert len(outcome.err) < 2500
    for word in words:
        assert word in outcome.err


# ---- weights that are no numbers -------------------------------------------------------------------------------------


def broken_weights(model: Path, name: str, value: float, dtype: torch.dtype = torch.float32) -> Path:
    tensors = {key: tensor.to(dtype) for key, tensor in load_file(model / "model.safetensors").items()}
    tensors[name].view(-1)[-1] = value
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})
    return model


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_tensor_that_is_no_number_is_named(value: float, dtype: torch.dtype, model: Path) -> None:
    broken_weights(model, "model.layers.1.mlp.up_proj.weight", value, dtype)
    with pytest.raises(
        ModelError, match=r"1 of .* the tensor model\.layers\.1\.mlp\.up_proj\.weight are (NaN|infinite)"
    ):
        load_model(model, device="cpu")


@pytest.mark.parametrize("tensor", ["lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"])
def test_every_tensor_is_read(tensor: str, model: Path) -> None:
    with pytest.raises(ModelError, match=tensor):
        load_model(broken_weights(model, tensor, float("nan")), device="cpu")


def test_a_type_that_is_too_narrow_is_said(model: Path) -> None:
    broken_weights(model, "lm_head.weight", 1e6)
    load_model(model, device="cpu")
    with pytest.raises(ModelError, match=r"lm_head\.weight are infinite \(as float16\).*--dtype float32"):
        load_model(model, device="cpu", dtype="float16")


def adapter(here: Place, directory: Path, value: float = 0.0) -> Path:
    made = add_adapter(load_model(here.model, device="cpu"), lora_config(2, 4.0))
    made.save_pretrained(directory)
    tensors = load_file(directory / "adapter_model.safetensors")
    key = next(key for key in sorted(tensors) if "lora_B" in key)
    tensors[key].view(-1)[0] = value
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    return directory


def test_an_adapter_and_its_base_are_read_too(here: Place, model: Path, tmp_path: Path) -> None:
    good = adapter(here, tmp_path / "good")
    load_model(good, device="cpu")
    with pytest.raises(ModelError, match=r"bad/adapter_model\.safetensors: 1 of .*lora_B.* are NaN"):
        load_model(adapter(here, tmp_path / "bad", float("nan")), device="cpu")
    config = json.loads((good / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(broken_weights(model, "model.norm.weight", float("inf")))
    (good / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"model: 1 of 32 values of the tensor model\.norm\.weight are infinite"):
        load_model(good, device="cpu")


@pytest.mark.parametrize("verb", ["run", "evaluate", "try", "baseline", "mistakes"])
def test_verbs_say_so_before_they_write(verb: str, here: Place, model: Path, tmp_path: Path, capsys: Capture) -> None:
    broken_weights(model, "model.norm.weight", float("nan"))
    rows = ["--forget", here.forget, "--retain", here.retain]
    out = ["--output", tmp_path / "out"]
    prompts = write_rows(tmp_path / "prompts.jsonl", [{"prompt": row["prompt"]} for row in toy.FORGET])
    words = {
        "run": [*rows, *out],
        "evaluate": [*rows, *out],
        "try": [],
        "baseline": ["finetune", *rows, *out],
        "mistakes": ["run", "--prompts", prompts, "--judge", "rule", *out],
    }[verb]
    verbs = [verb, *words[:1]] if verb in ("baseline", "mistakes") else [verb]
    outcome = call(capsys, *verbs, "--model", model, "--device", "cpu", *words[len(verbs) - 1 :])
    refused(outcome, str(model), "model.norm.weight", "NaN")
    assert not (tmp_path / "out").exists()


# ---- models that promise too much ------------------------------------------------------------------------------------


def set_config(model: Path, **changed: Any) -> Path:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changed))
    return model


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", 10**7),
        ("num_hidden_layers", 1000),
        ("num_hidden_layers", 0),
        ("num_hidden_layers", -1),
        ("vocab_size", 10**8),
        ("vocab_size", 10**12),
        ("hidden_size", 10**9),
        ("intermediate_size", 10**10),
        ("num_attention_heads", 0),
        ("num_hidden_layers", 1e300),
        ("hidden_size", None),
        ("hidden_size", [8]),
        ("hidden_size", int("9" * 4000)),
    ],
)
def test_sizes_that_the_weights_do_not_have(field: str, value: Any, model: Path) -> None:
    set_config(model, **{field: value})
    for load in (load_model, check_loadable):
        with pytest.raises(ModelError) as refusal:
            load(model)
        assert str(model) in str(refusal.value) and len(str(refusal.value)) < 1000


TEXTS: dict[str, str] = {
    "brackets": "[" * 100_000,
    "objects": '{"a":' * 100_000,
    "pairs": "[" * 100_000 + "]" * 100_000,
    "digits": '{"vocab_size": ' + DIGITS + "}",
    "nothing": "",
    "half": '{"model_type": "lla',
    "null": "null",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_files_of_a_model_that_break_their_reader(file: str, text: str, model: Path) -> None:
    (model / file).write_text(text)
    failures = []
    for load in (load_model, load_tokenizer, check_loadable):
        try:
            load(model)
        except ModelError as error:
            failures.append(str(error))
    assert all("\n" not in said and str(model) in said for said in failures)
    assert failures or text in ("null", "") or file == "generation_config.json"


def chain(tmp_path: Path, *bases: str) -> Path:
    """Adapters one above the other, each a directory `0`, `1` … whose base is named."""
    for number, base in enumerate(bases):
        (tmp_path / str(number)).mkdir()
        config = {"base_model_name_or_path": str(tmp_path / base), "peft_type": "LORA", "r": 2}
        (tmp_path / str(number) / "adapter_config.json").write_text(json.dumps(config))
        save_file({"x": torch.zeros(1)}, tmp_path / str(number) / "adapter_model.safetensors")
    return tmp_path / "0"


@pytest.mark.parametrize(
    "bases", [["0"], ["1", "0"], ["1", "2", "1"], [str(number + 1) for number in range(100)] + ["0"]]
)
@pytest.mark.parametrize("load", [load_model, load_tokenizer, check_loadable, base_of])
def test_adapters_that_lead_to_adapters_without_end(
    bases: list[str], load: Callable[[Path], Any], tmp_path: Path
) -> None:
    first = chain(tmp_path, *bases)
    with pytest.raises(
        ModelError, match="leads from adapter to adapter .*; write the directory of whole weights there"
    ):
        load(first)


def test_an_adapter_on_an_adapter_is_fine(here: Place, tmp_path: Path) -> None:
    lower = adapter(here, tmp_path / "lower")
    upper = tmp_path / "upper"
    shutil.copytree(lower, upper)
    config = json.loads((upper / "adapter_config.json").read_text()) | {"base_model_name_or_path": str(lower)}
    (upper / "adapter_config.json").write_text(json.dumps(config))
    assert load_model(upper, device="cpu") and base_of(upper) == str(lower)


# ---- settings and rows -----------------------------------------------------------------------------------------------

BILLION = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
YAMLS = {
    "brackets": ("method: " + "[" * 100_000, "nested more than 100 deep"),
    "blocks": ("".join("  " * n + "a:\n" for n in range(600)), "nested more than 100 deep"),
    "digits": (f"seed: {DIGITS}", "over 4,300 digits"),
    "hexadecimal": ("seed: 0x" + "f" * 5000, "a whole number of 20000 bits"),
    "aliases": (BILLION, "aliases repeat"),
    "itself": ("forget: &a [*a]", "nested more than 100 deep|aliases repeat"),
    "no date": ("template_date: 2024-99-99", "not valid YAML"),
    "no list": ("forget: [a", "not valid YAML"),
}


@pytest.mark.parametrize("name", YAMLS)
def test_yaml_that_breaks_its_reader(name: str, tmp_path: Path, capsys: Capture) -> None:
    text, said = YAMLS[name]
    with pytest.raises(YamlFault, match=said):
        read_yaml(text)
    path = tmp_path / "run.yaml"
    path.write_text(text)
    refused(
        call(capsys, "run", "--config", path, "--model", "m", "--forget", "f", "--output", tmp_path / "o"), str(path)
    )
    refused(call(capsys, "study", "--config", path, "--output", tmp_path / "o"), str(path))
    (tmp_path / "rules.yaml").write_text(text)
    judge = f"rule:{tmp_path / 'rules.yaml'}"
    words = ["run", "--model", "m", "--forget", "f", "--judge", judge, "--output", tmp_path / "o"]
    refused(call(capsys, *words), "rules.yaml")


def test_yaml_that_is_large_but_fine() -> None:
    assert read_yaml("a: &a [1, 2]\nb: *a\n" + "".join(f"k{n}: *a\n" for n in range(1000)))["k9"] == [1, 2]
    assert read_yaml("[" * 99 + "]" * 99) and read_yaml(f"a: {2**63}") == {"a": 2**63}


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--seed", DIGITS),
        ("--seed", "99999999999999999999"),
        ("--seed", "-1"),
        ("--max-steps", DIGITS),
        ("--max-steps", str(2**40)),
        ("--learning-rate", "1e999"),
        ("--learning-rate", DIGITS),
        ("--max-new-tokens", DIGITS),
        ("--set", "trainer.warmup_steps=" + "[" * 100_000),
        ("--judge", "world:" + DIGITS),
        ("--column", "reply=a." + DIGITS),
    ],
)
def test_numbers_and_texts_of_flags(flag: str, value: str, here: Place, tmp_path: Path, capsys: Capture) -> None:
    outcome = call(capsys, *here.quick(tmp_path / "out"), flag, value)
    refused(outcome, "" if flag == "--judge" else flag.removeprefix("--"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("words", [["organism"], ["demo"], ["mistakes", "chat", "--model", "m"]])
@pytest.mark.parametrize("seed", [DIGITS, "99999999999999999999", "-1", "x"])
def test_seeds_of_other_verbs(words: list[str], seed: str, tmp_path: Path, capsys: Capture) -> None:
    output = [] if "chat" in words else ["--output", tmp_path / "out"]
    refused(call(capsys, *words, *output, "--seed", seed), "--seed")
    assert not (tmp_path / "out").exists()


ROW = '{"prompt": "p", "completion": "c", "more": %s}\n'
ROWS = {
    "brackets": "[" * 100_000,
    "in a row": ROW % ("[" * 100_000 + "]" * 100_000),
    "900 deep": ROW % ("[" * 900 + "]" * 900),
    "objects": ROW % ('{"a":' * 900 + "1" + "}" * 900),
    "digits": ROW % DIGITS,
    "digits of an answer": json.dumps({"question": "q", "choices": ["a", "b"], "answer": DIGITS}),
    "digits of a label": f'{{"prompt": "p", "completion": "c", "label": "{DIGITS}"}}',
    "no number": '{"question": "q", "choices": ["a", "b"], "answer": 1e999}',
    "a column in a column": '{"messages": ' + "[" * 900 + "]" * 900 + "}",
}


@pytest.mark.parametrize("name", ROWS)
def test_rows_that_break_their_reader(name: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    for text in (ROWS[name], '{"prompt": "a", "completion": "b"}\n' * 3 + ROWS[name]):
        path.write_text(text)
        with pytest.raises(DataError, match=r"rows\.jsonl") as refusal:
            read_examples(str(path), "negative")
        assert len(str(refusal.value)) < 1000 and "\n" not in str(refusal.value)


def test_the_arguments_of_a_tool_that_break_their_reader(tmp_path: Path) -> None:
    call_of = {"function": {"name": "f", "arguments": "[" * 100_000}}
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": [call_of]}]
    path = write_rows(tmp_path / "rows.jsonl", [{"messages": [*said, {"role": "assistant", "content": "c"}]}])
    assert read_examples(str(path), "negative")


def test_depth_is_measured_outside_texts() -> None:
    assert read_json(json.dumps({"a": "[" * 1000, "b": [[1]] * 200}))
    with pytest.raises(ValueError, match="nested more than 100 deep"):
        read_json("[" * 101 + "]" * 101)
    assert read_json("[" * 100 + "]" * 100)


@pytest.mark.parametrize("flag", ["model", "forget", "retain", "output", "retrained", "judge", "config"])
def test_names_that_no_file_can_have(flag: str, here: Place, tmp_path: Path, capsys: Capture) -> None:
    for name in ("a" * 5000, "a/" * 3000):
        value = f"rule:{name}" if flag == "judge" else name
        words = {flag: value} if flag != "output" else {}
        refused(call(capsys, *here.quick(Path(value) if flag == "output" else tmp_path / "out", **words)))
    (tmp_path / "run.yaml").write_text('forget: ["a\\0b"]\n')
    refused(call(capsys, "run", "--config", tmp_path / "run.yaml"), "null character")
