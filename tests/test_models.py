"""Models load safely, or fail with one sentence that names the file and the fix."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from unteach.errors import ConfigError, ModelError
from unteach.models.adapter import lora_config
from unteach.models.context import context_length
from unteach.models.fingerprint import model_fingerprint
from unteach.models.loading import load_model, load_tokenizer

# PEFT 0.21 asks for a property that Transformers 5 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

SMALL: dict[str, Any] = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


def tokenizer(**special: str) -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({"<end>": 0, "<pad>": 1, "a": 2, "<unk>": 3}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", **special)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SMALL)).save_pretrained(tmp_path / "llama")
    tokenizer(eos_token="<end>").save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.tensor([[2, 5, 7]])).logits


class TestModel:
    @pytest.mark.parametrize("as_path", [True, False])
    def test_loads_in_evaluation_mode(self, llama: Path, as_path: bool) -> None:
        model = load_model(llama if as_path else str(llama), device="cpu")
        assert not model.training and model.dtype == torch.float32 and model.device.type == "cpu"
        torch.testing.assert_close(logits(model), logits(LlamaForCausalLM.from_pretrained(llama)))

    def test_dtype(self, llama: Path) -> None:
        assert load_model(llama, dtype="bfloat16", device="cpu").dtype == torch.bfloat16
        LlamaForCausalLM(LlamaConfig(**SMALL)).to(torch.bfloat16).save_pretrained(llama)
        assert load_model(llama, device="cpu").dtype == torch.float32
        with pytest.raises(ConfigError, match="unknown dtype 'bfloat61'; did you mean 'bfloat16'"):
            load_model(llama, dtype="bfloat61")

    def test_device(self, llama: Path) -> None:
        with pytest.raises(ConfigError, match="device 'gpu' does not exist"):
            load_model(llama, device="gpu")
        with pytest.raises(ConfigError, match="no such GPU here"):
            load_model(llama, device=f"cuda:{torch.cuda.device_count()}")

    def test_gpt2_with_tied_weights(self, tmp_path: Path) -> None:
        GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2)).save_pretrained(tmp_path)
        assert load_model(tmp_path, device="cpu").config.model_type == "gpt2"


class TestRefused:
    def test_directory_missing(self, tmp_path: Path) -> None:
        for path in (tmp_path / "none", str(tmp_path / "none"), "./none", "../a/b", "a/b/c"):
            with pytest.raises(ModelError, match="no such model directory; check the path"):
                load_model(path)

    def test_a_file_and_an_empty_name(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(ModelError, match="is a file, not a model directory"):
            load_model(tmp_path / "file")
        with pytest.raises(ModelError, match="name is empty"):
            load_model("")

    @pytest.mark.parametrize("load", [load_model, load_tokenizer])
    def test_hub_id_that_cannot_be_had(self, load: Any) -> None:
        with pytest.raises(ModelError, match="no-one/no-model: no directory.*give a local directory") as caught:
            load("no-one/no-model")
        assert "://" not in str(caught.value) and "\n" not in str(caught.value)

    def test_no_config(self, llama: Path) -> None:
        (llama / "config.json").unlink()
        with pytest.raises(ModelError, match="no config.json"):
            load_model(llama)

    def test_no_weights(self, llama: Path) -> None:
        (llama / "model.safetensors").unlink()
        (llama / "training_args.bin").write_bytes(b"x")
        with pytest.raises(ModelError, match=r"no weights; put model\.safetensors"):
            load_model(llama)

    def test_pickle_weights_are_named_and_never_opened(self, llama: Path) -> None:
        (llama / "model.safetensors").unlink()
        for name in ("pytorch_model-00001-of-00002.bin", "extra.pt"):
            (llama / name).write_bytes(b"cos\nsystem\n(S'false'\ntR.")
        with pytest.raises(ModelError, match=r"only pickle weights \(extra.pt, pytorch_model-0.*save_pretrained"):
            load_model(llama)

    @pytest.mark.parametrize("content", ["{", "[]", '{"model_type": "no-such-kind"}', "{}"])
    def test_broken_config(self, llama: Path, content: str) -> None:
        (llama / "config.json").write_text(content)
        with pytest.raises(ModelError, match="cannot be loaded") as caught:
            load_model(llama)
        assert str(llama) in str(caught.value) and "\n" not in str(caught.value)

    def test_mistyped_config_field(self, llama: Path) -> None:
        config = json.loads((llama / "config.json").read_text())
        (llama / "config.json").write_text(json.dumps(config | {"hidden_size": "many"}))
        with pytest.raises(ModelError, match="cannot be loaded.*hidden_size.*int"):
            load_model(llama)

    def test_config_of_other_weights(self, llama: Path) -> None:
        config = json.loads((llama / "config.json").read_text())
        (llama / "config.json").write_text(json.dumps(config | {"vocab_size": 40}))
        with pytest.raises(ModelError, match=r"2 tensors of the weights have another shape.*lm_head\.weight"):
            load_model(llama)

    def test_cut_weights(self, llama: Path) -> None:
        weights = llama / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
        with pytest.raises(ModelError, match="cannot be loaded"):
            load_model(llama)

    @pytest.mark.parametrize("kind", ["classifier", "masked", "encoder-decoder"])
    def test_other_kinds_of_model(self, tmp_path: Path, kind: str) -> None:
        if kind == "classifier":
            model: Any = LlamaForSequenceClassification(LlamaConfig(**SMALL))
        elif kind == "masked":
            model = BertForMaskedLM(BertConfig(**SMALL))
        else:
            model = T5ForConditionalGeneration(
                T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
            )
        model.save_pretrained(tmp_path)
        with pytest.raises(ModelError, match="is not a causal language model"):
            load_model(tmp_path)

    def test_weights_without_a_head(self, llama: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(llama / "model.safetensors")
        del tensors["lm_head.weight"]
        save_file(tensors, llama / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(ModelError, match=r"lack 1 of the model's tensors, such as lm_head\.weight"):
            load_model(llama)

    def test_code_in_a_model_directory_is_not_run(self, llama: Path) -> None:
        config = json.loads((llama / "config.json").read_text())
        config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
        (llama / "config.json").write_text(json.dumps(config))
        (llama / "own.py").write_text(f"open({str(llama / 'ran')!r}, 'w')\n")
        with pytest.raises(ModelError):
            load_model(llama)
        assert not (llama / "ran").exists()

    def test_four_bit_without_the_library(self, llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(ConfigError, match=r"pip install 'unteach\[4bit\]'"):
            load_model(llama, load_in_4bit=True)


class TestAdapter:
    @pytest.fixture
    def adapter(self, llama: Path, tmp_path: Path) -> Path:
        torch.manual_seed(1)
        base = load_model(llama, device="cpu")
        peft_model = get_peft_model(base, lora_config(4, 8))
        for name, weight in peft_model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight)
        self.expected = logits(peft_model)
        peft_model.save_pretrained(tmp_path / "adapter")
        return tmp_path / "adapter"

    def test_base_and_adapter_become_one_model(self, llama: Path, adapter: Path) -> None:
        model = load_model(adapter, device="cpu")
        torch.testing.assert_close(logits(model), self.expected, rtol=1e-4, atol=1e-5)
        assert (logits(load_model(llama, device="cpu")) - self.expected).abs().max() > 0.1
        assert not any("lora" in name for name in model.state_dict()) and not model.training
        assert load_tokenizer(adapter).eos_token == "<end>"

    def test_base_that_is_gone(self, llama: Path, adapter: Path) -> None:
        shutil.rmtree(llama)
        with pytest.raises(ModelError, match='adapter_config.json: field "base_model_name_or_path".*no such model'):
            load_model(adapter)

    def test_adapter_without_safetensors(self, adapter: Path) -> None:
        (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
        with pytest.raises(ModelError, match=r"only pickle weights \(adapter_model.bin\) of the adapter"):
            load_model(adapter)

    def test_adapter_and_four_bit(self, adapter: Path) -> None:
        with pytest.raises(ConfigError, match="cannot be merged into 4-bit"):
            load_model(adapter, load_in_4bit=True)

    def test_adapter_of_another_shape(self, llama: Path, adapter: Path) -> None:
        LlamaForCausalLM(LlamaConfig(**SMALL | {"hidden_size": 32})).save_pretrained(llama)
        with pytest.raises(ModelError, match="does not fit its base model"):
            load_model(adapter)


class TestTokenizer:
    def test_pad_falls_back_to_eos(self, llama: Path) -> None:
        assert load_tokenizer(llama).pad_token == "<end>"

    def test_an_own_pad_stays(self, tmp_path: Path) -> None:
        tokenizer(eos_token="<end>", pad_token="<pad>").save_pretrained(tmp_path)
        assert load_tokenizer(tmp_path).pad_token == "<pad>"

    def test_neither_eos_nor_pad_is_no_error(self, tmp_path: Path) -> None:
        tokenizer().save_pretrained(tmp_path)
        assert load_tokenizer(tmp_path).pad_token_id is None

    def test_none_there(self, llama: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (llama / name).unlink(missing_ok=True)
        with pytest.raises(ModelError, match=r"no tokenizer could be loaded.*tokenizer\.json"):
            load_tokenizer(llama)


class TestLora:
    def test_fields(self) -> None:
        config = lora_config(8, 16, "q_proj, v_proj")
        assert (config.r, config.lora_alpha, config.lora_dropout) == (8, 16, 0.0)
        assert config.target_modules == {"q_proj", "v_proj"} and config.task_type == "CAUSAL_LM"
        assert lora_config(8, 16).target_modules == "all-linear"

    @pytest.mark.parametrize("values", [(0, 1), (1, 0), (1, 1, ""), (1, 1, [])])
    def test_bad_values(self, values: tuple[Any, ...]) -> None:
        with pytest.raises(ConfigError, match="^LoRA: "):
            lora_config(*values)

    def test_gpt2_layers_are_found_without_a_warning(self) -> None:
        model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2))
        config = lora_config(2, 4, model=model)
        assert any("lora" in name for name, _ in get_peft_model(model, config).named_parameters())


class TestFingerprint:
    def test_of_a_model(self, llama: Path) -> None:
        model = load_model(llama, device="cpu")
        first = model_fingerprint(model)
        assert len(first) == 16
        assert model_fingerprint(load_model(llama, device="cpu")) == first
        assert model_fingerprint(load_model(llama, dtype="bfloat16", device="cpu")) != first
        with torch.no_grad():
            model.lm_head.weight[0, 0] += 1e-3
        assert model_fingerprint(model) != first


def test_context_length(llama: Path) -> None:
    assert context_length(load_model(llama, device="cpu")) == 64
    assert context_length(GPT2Config(n_positions=77)) == 77
    assert context_length(T5Config(n_positions=None)) is None
