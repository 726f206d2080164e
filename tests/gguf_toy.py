"""A toy Llama or Qwen2 whose byte-level tokenizer a GGUF file can hold, with a chat template."""

from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
WORDS = [*BYTES, "Ġt", "he", "Ġthe", "<s>", "</s>", "<|end|>"]
TEMPLATE = (
    "{{ bos_token }}{% if messages[0].role != 'system' %}System: kind\n{% endif %}{% for m in messages %}"
    "{{ m.role + ': ' + m.content + '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)
SPLIT_OF_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def rule(name: str) -> Any:
    """How text is split before it becomes tokens, by llama.cpp's name of it."""
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), whole])
    if name == "qwen2":
        split = pre_tokenizers.Split(Regex(SPLIT_OF_QWEN), behavior="isolated")
        return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    return whole


def words(split: str = "gpt-2", template: str | None = TEMPLATE, **changed: Any) -> Any:
    """The tokenizer; `changed` are settings of its BPE."""
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he")]
    inner = Tokenizer(models.BPE({word: n for n, word in enumerate(WORDS)}, merges, **changed))
    inner.pre_tokenizer, inner.decoder = rule(split), decoders.ByteLevel()
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    made = PreTrainedTokenizerFast(tokenizer_object=inner, **special, additional_special_tokens=["<|end|>"])
    made.chat_template = template
    return made


def model(family: str = "llama", **changed: Any) -> Any:
    """Two layers, 32 wide, at random; three rows of the embedding have no token."""
    torch.manual_seed(0)
    sizes = {"vocab_size": len(WORDS) + 3, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512}
    sizes |= {"bos_token_id": WORDS.index("<s>"), "eos_token_id": WORDS.index("</s>"), "initializer_range": 0.2}
    kinds = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen2": (Qwen2Config, Qwen2ForCausalLM)}
    settings, kind = kinds[family]
    made = kind(settings(**(sizes | changed)))
    for name, weight in made.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(weight, std=0.2)
    return made.eval()
