"""Decoding a batch: the cache with room equals transformers' own, rows that ended leave, odd caches are left alone."""

import pytest
import torch
from transformers import (
    DynamicCache,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from unteach.models.beginning import FEWEST_SHARED
from unteach.models.decoding import STRETCH, RoomyLayer, continue_batch, roomy_cache

PROMPTS = [[1, *range(3, 3 + length)] for length in (5, 1, 9, 3, 7, 2, 4)]
LLAMA = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
LLAMA |= {"vocab_size": 64, "max_position_embeddings": 96, "initializer_range": 0.6, "eos_token_id": None}
GPT2 = {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 96, "initializer_range": 0.6}
OPT = {"vocab_size": 64, "hidden_size": 32, "ffn_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
OPT |= {"max_position_embeddings": 96, "word_embed_proj_dim": 32, "init_std": 0.6, "eos_token_id": None}
MAMBA = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "eos_token_id": None}
KINDS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(num_key_value_heads=2, **LLAMA)),
    "sliding window": lambda: MistralForCausalLM(MistralConfig(sliding_window=6, num_key_value_heads=2, **LLAMA)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(eos_token_id=None, bos_token_id=1, **GPT2)),
    "opt": lambda: OPTForCausalLM(OPTConfig(**OPT)),
    "mamba": lambda: MambaForCausalLM(MambaConfig(**MAMBA)),
}


def settings(new, ends):
    return GenerationConfig(max_new_tokens=new, pad_token_id=0, eos_token_id=ends or None, use_cache=True)


def batch(model, prompts, new, ends):
    """The rows of a batch up to their ends."""
    rows = continue_batch(model, prompts, 0, settings(new, ends), lambda ids: any(token in ends for token in ids))
    stops = [next((place + 1 for place, token in enumerate(row) if token in ends), len(row)) for row in rows]
    return [row[:stop] for row, stop in zip(rows, stops, strict=True)]


def model_of(kind, seed=0):
    torch.manual_seed(seed)
    made = KINDS[kind]().eval()
    made.generation_config = GenerationConfig()
    return made


@torch.no_grad()
def plain(model, prompt, new, ends):
    """One token at a time, whole rows, no cache: the definition."""
    tokens = list(prompt)
    for _ in range(new):
        tokens.append(int(model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
        if tokens[-1] in ends:
            break
    return tokens[len(prompt) :]


SYSTEM = list(range(40, 40 + FEWEST_SHARED + 2))


@pytest.mark.parametrize("beginning", [[], SYSTEM], ids=["nothing shared", "one beginning"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "mamba"])
def test_a_batch_gives_every_row_what_it_would_say_alone(kind, beginning):
    model, prompts = model_of(kind), [beginning + prompt for prompt in PROMPTS]
    free = [plain(model, prompt, 40, []) for prompt in prompts]
    end = free[0][20]  # one row ends in the second stretch, the others elsewhere or never
    expected = [plain(model, prompt, 40, [end]) for prompt in prompts]
    assert len({len(reply) for reply in expected}) > 1
    assert batch(model, prompts, 40, [end]) == expected
    assert batch(model, prompts, 40, []) == free


def test_what_all_prompts_begin_with_is_read_once():
    model, shapes = model_of("llama"), []
    model.model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    for prompts, read in (
        ([SYSTEM + prompt for prompt in PROMPTS], [(1, len(SYSTEM) + 1), (7, 9)]),  # all go on with a 1
        ([SYSTEM, SYSTEM], [(1, len(SYSTEM) - 1), (2, 1)]),  # each keeps a token of its own
        ([SYSTEM + PROMPTS[0]], [(1, len(SYSTEM) + 6)]),
        ([SYSTEM[:7] + prompt for prompt in PROMPTS[1:3]][:1] + [PROMPTS[0]], [(2, 9)]),
    ):
        shapes.clear()
        batch(model, prompts, 1, [])
        assert shapes == read


def test_rows_that_ended_are_no_longer_computed():
    model = model_of("llama")
    end = next(
        token
        for token in range(3, 64)
        if 0 < sum(len(plain(model, prompt, 40, [token])) <= STRETCH for prompt in PROMPTS) < len(PROMPTS)
    )
    expected = [plain(model, prompt, 40, [end]) for prompt in PROMPTS]
    shapes = []
    hook = model.model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    assert batch(model, PROMPTS, 40, [end]) == expected
    hook.remove()
    late = sum(len(reply) > STRETCH for reply in expected)
    assert shapes[0] == (7, 10) and shapes[1] == (7, 1)
    assert shapes[STRETCH] == (late, 1) and len(shapes) <= max(map(len, expected)) + STRETCH
    assert all(columns == 1 for _, columns in shapes[1:])  # no prompt is computed twice


@pytest.mark.parametrize("room", [1, 7, 50])
def test_the_cache_holds_what_transformers_own_holds(room):
    torch.manual_seed(0)
    ours, theirs = RoomyLayer(room), DynamicCache().layer_class_to_replicate()
    for columns in (4, 1, 1, 5):
        states = torch.randn(3, 2, columns, 8), torch.randn(3, 2, columns, 8)
        for mine, other in zip(ours.update(*states), theirs.update(*states), strict=True):
            assert torch.equal(mine, other)
    chosen = torch.tensor([2, 0])
    ours.batch_select_indices(chosen)
    theirs.batch_select_indices(chosen)
    ours.crop(-2)
    theirs.crop(-2)
    states = torch.randn(2, 2, 1, 8), torch.randn(2, 2, 1, 8)
    for mine, other in zip(ours.update(*states), theirs.update(*states), strict=True):
        assert torch.equal(mine, other)
    assert ours.get_seq_length() == theirs.get_seq_length() == 10


def test_the_cache_is_filled_in_place():
    layer = RoomyLayer(8)
    first, _ = layer.update(torch.ones(2, 1, 3, 4), torch.ones(2, 1, 3, 4))
    again, _ = layer.update(torch.ones(2, 1, 1, 4), torch.ones(2, 1, 1, 4))
    assert first.data_ptr() == again.data_ptr() and again.shape == (2, 1, 4, 4)


def test_a_model_with_states_of_its_own_keeps_its_own_cache():
    model = model_of("mamba")
    assert roomy_cache(model, 20) is None
    same = [PROMPTS[0], PROMPTS[0]]
    assert batch(model, same, 20, []) == [plain(model, PROMPTS[0], 20, [])] * 2
