"""Write a model as a GGUF file, for runtimes on laptops: by llama.cpp's converter, or by the package gguf alone."""

import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unteach.errors import ModelError
from unteach.models.gguf import need_package
from unteach.models.gguf_words import FIX, gguf_words
from unteach.text.escape import inert_line

CONVERTER = "UNTEACH_GGUF_CONVERTER"
SCRIPT = "convert_hf_to_gguf.py"
OUTTYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
_FAMILIES = {"llama": "llama", "qwen2": "qwen2"}
"""Families that are written here: transformers' name of each, and GGUF's."""


def converter() -> Path | None:
    """Return llama.cpp's converter: the one that the environment names, else one on the PATH, else None.

    Raises ModelError where the named one is not there.
    """
    named = os.environ.get(CONVERTER, "")
    if named and not Path(named).is_file():
        raise ModelError(f"{CONVERTER}={inert_line(named, 200)}: no such file; name llama.cpp's {SCRIPT}, or unset it")
    found = named or shutil.which(SCRIPT)
    return Path(found) if found else None


def convert(script: Path, source: Path, path: Path, dtype: torch.dtype) -> None:
    """Let llama.cpp's converter write the model of a directory. Raises ModelError with its last line where it fails."""
    words = [sys.executable, str(script), str(source), "--outfile", str(path), "--outtype", OUTTYPES[dtype]]
    ended = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False)
    if ended.returncode or not path.is_file():
        last = (ended.stderr.strip() or ended.stdout.strip() or f"exit code {ended.returncode}").splitlines()[-1]
        raise ModelError(f"{script}: failed ({inert_line(last, 300)}); update llama.cpp, or unset {CONVERTER}")


def check_writable(name: str, config: Any) -> None:
    """Raise ModelError for a model that the package gguf alone does not write rightly."""
    need_package(Path(name))
    kind = config.model_type
    rope = getattr(config, "rope_parameters", None) or {}
    odd = {
        "its attention or its MLP has biases": kind == "llama"
        and (getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False)),
        "its positions are scaled (rope)": rope.get("rope_type", "default") != "default",
        "its attention slides": bool(getattr(config, "use_sliding_window", False)),
        "its activation is not silu": getattr(config, "hidden_act", "silu") != "silu",
    }
    if kind not in _FAMILIES:
        known = ", ".join(_FAMILIES)
        raise ModelError(
            f"{name}: models of the family {inert_line(str(kind), 40)} are not written here (only {known}); {FIX}"
        )
    for what, holds in odd.items():
        if holds:
            raise ModelError(f"{name}: {what}, which is not written here; {FIX}")


def write_gguf(
    path: Path,
    model: Any,
    tokenizer: Any,
    dtype: torch.dtype,
    *,
    chat_template: str | None,
    ends: Collection[int],
    adds_bos: bool,
) -> None:
    """Write a Llama or Qwen2 with its tokenizer, its matrices in `dtype` and its vectors in float32.

    `ends` are the tokens that end a reply; the tokenizer's EOS is one, and the lowest other one is written as the end
    of a turn. `adds_bos` says that a prompt begins with BOS. Raises ModelError for a model that cannot be written so.
    """
    name = str(model.name_or_path)
    check_writable(name, model.config)
    import gguf

    words = gguf_words(name, tokenizer, model.get_input_embeddings().num_embeddings)
    file = gguf.GGUFWriter(path, _FAMILIES[model.config.model_type])
    file.add_name(path.stem)
    _describe(file, model.config, len(words.tokens))
    kinds = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 32}
    file.add_file_type(kinds[dtype])
    file.add_tokenizer_model("gpt2")
    file.add_tokenizer_pre(words.pre)
    file.add_token_list(list(words.tokens))
    file.add_token_types(list(words.kinds))
    file.add_token_merges(list(words.merges))
    named = {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "unk": tokenizer.unk_token_id}
    others = sorted(set(ends) - {tokenizer.eos_token_id})
    named |= {"pad": tokenizer.pad_token_id, "eot": others[0] if others else None}
    for kind, number in named.items():
        if number is not None:
            getattr(file, f"add_{kind}_token_id")(number)
    file.add_add_bos_token(adds_bos)
    file.add_add_space_prefix(False)
    if chat_template:
        file.add_chat_template(chat_template)
    _add_tensors(file, model, dtype)
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


def _describe(file: Any, config: Any, rows: int) -> None:
    """Write the sizes of a model."""
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    file.add_context_length(config.max_position_embeddings)
    file.add_embedding_length(config.hidden_size)
    file.add_block_count(config.num_hidden_layers)
    file.add_feed_forward_length(config.intermediate_size)
    file.add_head_count(heads)
    file.add_head_count_kv(config.num_key_value_heads)
    file.add_layer_norm_rms_eps(config.rms_norm_eps)
    file.add_rope_freq_base(float(config.rope_parameters["rope_theta"]))
    file.add_rope_dimension_count(width)
    file.add_key_length(width)
    file.add_value_length(width)
    file.add_vocab_size(rows)


def _add_tensors(file: Any, model: Any, dtype: torch.dtype) -> None:
    """Add all weights under GGUF's names; a shared output layer is left out, which means shared there too."""
    import gguf

    config = model.config
    arch = next(key for key, kind in gguf.MODEL_ARCH_NAMES.items() if kind == _FAMILIES[config.model_type])
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    shared = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for key, tensor in model.state_dict().items():
        if shared and key == "lm_head.weight":
            continue
        target = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise ModelError(f"{model.name_or_path}: GGUF has no name for its tensor {inert_line(key, 100)}; {FIX}")
        values = tensor.detach().to("cpu", torch.float32)
        turned = heads.get(key.split(".")[-2]) if config.model_type == "llama" else None
        if turned:  # llama.cpp rotates neighbouring values of a head, transformers its two halves
            values = values.reshape(turned, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        _add_tensor(file, target, values, dtype if values.ndim > 1 else torch.float32)


def _add_tensor(file: Any, name: str, values: torch.Tensor, dtype: torch.dtype) -> None:
    import gguf

    if dtype == torch.bfloat16:
        kind = gguf.GGMLQuantizationType.BF16
        raw = values.to(dtype).contiguous().view(torch.uint8).numpy()
        file.add_tensor(name, raw, raw_dtype=kind)
        return
    if not torch.isfinite(values.to(dtype)).all():
        raise ModelError(f"{name}: holds values beyond float16; add --dtype bfloat16 or float32")
    file.add_tensor(name, np.ascontiguousarray(values.to(dtype).numpy()))
