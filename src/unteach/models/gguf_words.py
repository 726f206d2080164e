"""What a GGUF file says of a tokenizer: byte-level BPE, whose rules of splitting llama.cpp knows by name."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unteach.errors import ModelError

NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5
"""Kinds of tokens in a GGUF file."""
_LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {f"{_LETTERS}|\\p{{N}}{{1,3}}{_REST}": "llama-bpe", f"{_LETTERS}|\\p{{N}}{_REST}": "qwen2"}
FIX = "install llama.cpp and put its convert_hf_to_gguf.py on the PATH, or name it in UNTEACH_GGUF_CONVERTER"


@dataclass(frozen=True)
class GgufWords:
    """The words of a tokenizer: its rule of splitting (`pre`), tokens by id, their kinds, and the merges in order."""

    pre: str
    tokens: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[str]


def gguf_words(name: str, tokenizer: Any, rows: int) -> GgufWords:
    """Return what a GGUF file says of a tokenizer, for a model with so many rows in its embedding.

    Raises ModelError for a tokenizer that is no byte-level BPE, or splits text by a rule that has no name here.
    """
    inner = getattr(tokenizer, "backend_tokenizer", None)
    described = json.loads(inner.to_str()) if inner is not None else {}
    bpe = described.get("model", {})
    if (
        bpe.get("type") != "BPE"
        or bpe.get("byte_fallback")
        or (described.get("decoder") or {}).get("type") != "ByteLevel"
    ):
        raise ModelError(f"{name}: its tokenizer is no byte-level BPE, which alone can be written here; {FIX}")
    pre = _rule(described)
    if pre is None:
        raise ModelError(f"{name}: its tokenizer splits text by a rule that has no name here; {FIX}")
    if bpe.get("ignore_merges") and pre != "llama-bpe":
        raise ModelError(
            f"{name}: its tokenizer takes known words whole (ignore_merges), and GGUF has no word for that; serve the "
            "merged weights (--as merged) instead"
        )
    added = tokenizer.added_tokens_decoder
    by_id = {number: token for token, number in tokenizer.get_vocab().items()}
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(rows)]
    kinds = [_kind(number, added, by_id) for number in range(rows)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"]]
    return GgufWords(pre, tokens, kinds, merges)


def split_as(tokenizer: Any, pre: str) -> None:
    """Let a tokenizer that transformers read from a GGUF file split text as llama.cpp does by the rule `smollm`.

    Transformers 5.23 knows other rules, and takes this one for GPT-2's.
    """
    from tokenizers import pre_tokenizers

    if pre == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )


def _kind(number: int, added: Any, by_id: dict[int, str]) -> int:
    if number not in by_id:
        return UNUSED
    if number not in added:
        return NORMAL
    return CONTROL if added[number].special else USER_DEFINED


def _rule(described: dict[str, Any]) -> str | None:
    """Return llama.cpp's name of the rule by which a tokenizer splits text; None for one without a name here."""
    normalizer, rule = described.get("normalizer"), described.get("pre_tokenizer") or {}
    if normalizer is not None and normalizer.get("type") != "NFC":  # llama.cpp takes text as it comes
        return None
    parts = rule.get("pretokenizers", [rule])
    kinds = [part.get("type") for part in parts]
    if any(part.get("add_prefix_space") for part in parts):
        return None
    if kinds == ["ByteLevel"] and parts[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits") and parts[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not parts[1].get("use_regex", True):
        named = _SPLITS.get(parts[0].get("pattern", {}).get("Regex", ""))
        return named if parts[0].get("behavior") == "Isolated" and not parts[0].get("invert") else None
    return None
