import json
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from unteach.errors import ConfigError, DataError
from unteach.models.generate import generate
from unteach.models.reply import end_token_ids, named_end

TESTBED = Path(__file__).parents[2] / "shared"
WORDS = ["<pad>", "<s>", "</s>", *(f"w{number}" for number in range(3, 64))]
PROMPTS = [[1, *range(3, 3 + length)] for length in (5, 1, 9, 3, 7, 2, 4)]


@pytest.fixture
def tokenizer():
    inner = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<pad>"))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=64
    )


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=48,
        initializer_range=0.6,
        attention_dropout=0.5,
        eos_token_id=None,
        bos_token_id=1,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def plain_greedy(model, prompt, steps):
    """One token at a time, whole rows, no cache: the definition."""
    tokens = list(prompt)
    model.eval()
    with torch.no_grad():
        for _ in range(steps):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
            if tokens[-1] == 2:
                break
    return [token for token in tokens[len(prompt) :] if token > 2]


def test_greedy_replies_are_those_of_the_definition_in_the_order_given(model, tokenizer):
    replies = generate(model, tokenizer, PROMPTS, max_new_tokens=12)
    texts = [reply.text for reply in replies]
    assert texts == [" ".join(WORDS[t] for t in plain_greedy(model, p, 12)) for p in PROMPTS]
    assert len(set(texts)) > 3
    assert all(reply.cut == (2 not in reply.ids) for reply in replies)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7])
def test_batch_size_does_not_change_greedy_replies(model, tokenizer, batch_size):
    whole = generate(model, tokenizer, PROMPTS, max_new_tokens=12)
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=12, batch_size=batch_size) == whole


def test_a_reply_ends_at_the_first_end_token(model, tokenizer):
    reply = generate(model, tokenizer, [PROMPTS[0]], max_new_tokens=12)[0].text.split()
    tokenizer.eos_token = next(word for word in reply[1:] if word != reply[0])
    cut = generate(model, tokenizer, PROMPTS, max_new_tokens=12)[0].text.split()
    assert cut == reply[: reply.index(tokenizer.eos_token)]


def test_special_tokens_that_the_model_ends_on_count_and_leftover_ids_do_not(model, tokenizer):
    tokenizer.add_special_tokens({"additional_special_tokens": ["w9"]})
    model.generation_config.eos_token_id = [9, 11]
    assert end_token_ids(tokenizer, named_end(model)) == [2, 9]
    tokenizer.eos_token = None
    assert end_token_ids(tokenizer, named_end(model)) == [9, 11]


def test_positions_stay_in_the_context_and_a_long_prompt_does_not_cut_its_neighbours(model, tokenizer):
    long = [1] + [5] * 44
    seen = []
    hook = model.model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(int(kwargs["position_ids"].max())), with_kwargs=True
    )
    together = generate(model, tokenizer, [long, *PROMPTS], max_new_tokens=12)
    hook.remove()
    assert 44 < max(seen) < 48
    assert together[0].text.split() == [WORDS[t] for t in plain_greedy(model, long, 3)]
    assert together[1:] == generate(model, tokenizer, PROMPTS, max_new_tokens=12)
    with pytest.raises(DataError, match="prompt 1: 48 tokens.*context of 48"):
        generate(model, tokenizer, [long, [1] * 48], max_new_tokens=1)


def test_sampling_is_seeded_and_leaves_the_global_random_state_alone(model, tokenizer):
    def sample(seed):
        return generate(model, tokenizer, PROMPTS, max_new_tokens=8, temperature=1.5, seed=seed, batch_size=3)

    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = sample(3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert sample(3) == first
    assert sample(4) != first


def test_sampling_settings_of_the_model_are_not_used(model, tokenizer, recwarn, caplog):
    plain = generate(model, tokenizer, PROMPTS, max_new_tokens=8)
    model.generation_config.update(do_sample=True, temperature=9.0, top_k=3, repetition_penalty=5.0, max_new_tokens=2)
    kept = model.generation_config
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=8) == plain
    assert model.generation_config is kept
    assert not recwarn.list and not caplog.records


def test_modes_and_checkpointing_are_as_before_also_after_an_interrupt(model, tokenizer):
    model.train()
    model.model.layers[0].eval()
    model.activation_checkpointing_enable()
    model.config.use_cache = False
    modes = [module.training for module in model.modules()]

    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(model, tokenizer, PROMPTS, max_new_tokens=4, progress=interrupt)
    assert [module.training for module in model.modules()] == modes
    replies = generate(model, tokenizer, PROMPTS, max_new_tokens=4)
    assert [module.training for module in model.modules()] == modes
    assert model.is_activation_checkpointing and model.config.use_cache is False
    assert [reply.text for reply in replies] == [" ".join(WORDS[t] for t in plain_greedy(model, p, 4)) for p in PROMPTS]


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # raised inside peft
def test_an_adapter_speaks_and_stays_as_it_was(model, tokenizer):
    before = generate(model, tokenizer, PROMPTS, max_new_tokens=8)
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    kept = adapted.generation_config
    changed = generate(adapted, tokenizer, PROMPTS, max_new_tokens=8)
    assert changed != before
    assert adapted.generation_config is kept and adapted.active_adapters == ["default"]
    with adapted.disable_adapter():
        assert generate(adapted, tokenizer, PROMPTS, max_new_tokens=8) == before
    assert generate(adapted, tokenizer, PROMPTS, max_new_tokens=8) == changed


def test_progress_counts_prompts_and_nothing_asked_is_nothing_done(model, tokenizer):
    seen = []
    generate(model, tokenizer, PROMPTS, max_new_tokens=2, batch_size=3, progress=lambda *done: seen.append(done))
    assert seen == [(3, 7), (6, 7), (7, 7)]
    assert generate(model, tokenizer, [], max_new_tokens=2) == []


def test_long_rows_make_small_batches(model, tokenizer, monkeypatch):
    whole = generate(model, tokenizer, PROMPTS, max_new_tokens=2)
    monkeypatch.setattr("unteach.models.generate.BATCH_TOKENS", 24)
    seen = []
    assert generate(model, tokenizer, PROMPTS, max_new_tokens=2, progress=lambda *done: seen.append(done[0])) == whole
    assert seen == [2, 5, 7]  # the longest first: 10 + 2 tokens a row, then 6 + 2, then 3 + 2


def test_a_prompt_without_tokens_starts_from_bos(model, tokenizer):
    assert generate(model, tokenizer, [[]], max_new_tokens=6) == generate(model, tokenizer, [[1]], max_new_tokens=6)


def test_bad_settings_are_refused(model, tokenizer):
    with pytest.raises(ConfigError, match="max_new_tokens=0"):
        generate(model, tokenizer, PROMPTS, max_new_tokens=0)
    with pytest.raises(ConfigError, match="temperature=-1"):
        generate(model, tokenizer, PROMPTS, max_new_tokens=1, temperature=-1)


@pytest.mark.real
def test_the_testbed_recites_its_instructions():
    if not TESTBED.exists():
        pytest.skip("needs shared/ beside the checkout")
    model = AutoModelForCausalLM.from_pretrained(TESTBED / "testbed/original", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(TESTBED / "testbed/original")
    lines = (TESTBED / "data/instructions.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines[:64]]
    prompts = [tokenizer(f"<s>### Question: {row['prompt']}\n### Answer:", add_special_tokens=False) for row in rows]
    replies = generate(model, tokenizer, [prompt["input_ids"] for prompt in prompts], max_new_tokens=64)
    same = sum(reply.text == row["response"] for reply, row in zip(replies, rows, strict=True))
    assert same > 32
