"""GGUF files that we write: read back they are the model and the tokenizer, and what cannot be written is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader

import gguf_toy
from unteach.errors import ModelError
from unteach.models.gguf import read_gguf
from unteach.models.gguf_file import check_writable, convert, converter, write_gguf
from unteach.models.gguf_words import gguf_words, split_as

TEXT = "the cat saw the 1234 hats, don't\n\n  they?<|end|>\nça"


def written(path: Path, model: Any, words: Any, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    write_gguf(
        path,
        model,
        words,
        dtype,
        chat_template=gguf_toy.TEMPLATE,
        ends={gguf_toy.WORDS.index("<|end|>")},
        adds_bos=True,
    )
    return read_gguf(path)


@pytest.mark.parametrize(
    ("family", "split", "settings"),
    [
        ("llama", "gpt-2", {"tie_word_embeddings": False}),
        (
            "llama",
            "smollm",
            {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 5e4}},
        ),
        ("qwen2", "qwen2", {"tie_word_embeddings": True}),
    ],
)
def test_what_is_written_is_read_back(family: str, split: str, settings: dict[str, Any], tmp_path: Path) -> None:
    model, words = gguf_toy.model(family, **settings), gguf_toy.words(split)
    read, its_words = written(tmp_path / "m.gguf", model, words)
    split_as(its_words, split)
    ids = words(TEXT, add_special_tokens=False)["input_ids"]
    assert its_words(TEXT, add_special_tokens=False)["input_ids"] == ids and its_words.decode(ids) == TEXT
    assert (
        its_words.chat_template == gguf_toy.TEMPLATE and its_words.eos_token == "</s>" and its_words.bos_token == "<s>"
    )
    with torch.no_grad():
        batch = torch.tensor([ids])
        assert torch.allclose(read(batch).logits, model(batch).logits, atol=1e-4)
    assert read.config.tie_word_embeddings is settings["tie_word_embeddings"]
    file = GGUFReader(tmp_path / "m.gguf")
    told = {key: file.get_field(f"tokenizer.ggml.{key}").contents() for key in ("pre", "eos_token_id", "eot_token_id")}
    assert told == {"pre": split, "eos_token_id": words.eos_token_id, "eot_token_id": gguf_toy.WORDS.index("<|end|>")}
    assert file.get_field("tokenizer.ggml.add_bos_token").contents() is True


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_matrices_are_rounded_and_vectors_are_not(dtype: torch.dtype, tmp_path: Path) -> None:
    model = gguf_toy.model()
    with torch.no_grad():
        model.model.norm.weight.mul_(1.0001)
    read, _ = written(tmp_path / "m.gguf", model, gguf_toy.words(), dtype)
    theirs = dict(read.named_parameters())
    for name, ours in model.named_parameters():
        assert torch.equal(theirs[name], ours.to(dtype).float() if ours.ndim > 1 else ours), name


def test_a_value_beyond_float16_is_refused(tmp_path: Path) -> None:
    model = gguf_toy.model()
    model.lm_head.weight.data[0, 0] = 1e6
    with pytest.raises(ModelError, match="beyond float16; add --dtype"):
        written(tmp_path / "m.gguf", model, gguf_toy.words(), torch.float16)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"model_type": "gemma"}, "models of the family gemma are not written here"),
        ({"attention_bias": True}, "has biases"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "positions are scaled"),
        ({"hidden_act": "gelu"}, "activation is not silu"),
    ],
)
def test_other_models_are_refused_with_the_fix(changed: dict[str, Any], says: str) -> None:
    config = gguf_toy.model().config
    for name, value in changed.items():
        object.__setattr__(config, name, value) if name == "model_type" else setattr(config, name, value)
    with pytest.raises(ModelError, match=f"(?s){says}.*convert_hf_to_gguf.py"):
        check_writable("m", config)


def test_other_tokenizers_are_refused() -> None:
    import toy

    for words, says in (
        (toy.tokenizer(), "no byte-level BPE"),
        (gguf_toy.words(ignore_merges=True), "ignore_merges"),
        (gguf_toy.words(byte_fallback=True), "no byte-level BPE"),
    ):
        with pytest.raises(ModelError, match=says):
            gguf_words("m", words, 300)
    other = gguf_toy.words()
    other.backend_tokenizer.pre_tokenizer = gguf_toy.pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(ModelError, match="rule that has no name"):
        gguf_words("m", other, 300)


def test_llama_cpps_converter_is_taken_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("UNTEACH_GGUF_CONVERTER", raising=False)
    assert converter() is None
    script = tmp_path / "convert_hf_to_gguf.py"
    script.write_text(
        "import sys, pathlib\nsource, _, target, _, kind = sys.argv[1:]\n"
        "if source == 'bad': sys.exit('Model Nonesuch is not supported')\n"
        "pathlib.Path(target).write_text(f'{source} {kind}')\n"
    )
    script.chmod(0o755)
    found = converter()
    assert found == script
    convert(found, tmp_path, tmp_path / "m.gguf", torch.bfloat16)
    assert (tmp_path / "m.gguf").read_text() == f"{tmp_path} bf16"
    with pytest.raises(ModelError, match="Model Nonesuch is not supported"):
        convert(found, Path("bad"), tmp_path / "n.gguf", torch.float32)
    monkeypatch.setenv("UNTEACH_GGUF_CONVERTER", str(tmp_path / "nowhere.py"))
    with pytest.raises(ModelError, match=r"UNTEACH_GGUF_CONVERTER=.*no such file"):
        converter()
