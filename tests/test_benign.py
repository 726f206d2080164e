"""The shipped prompts are many, distinct and benign; the model's own answers make the normals."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import toy
from unteach.data import own_answers
from unteach.data.example import Example
from unteach.data.own_answers import generate_normals, numbered
from unteach.data.prompt_format import prompt_format
from unteach.errors import DataError
from unteach.prompts.lists import benign_prompts, lookalike_prompts
from unteach.text.words import language_of, words

HARMFUL = (
    "kill murder weapon gun bomb explosive poison suicide self-harm drug drugs cocaine heroin steal theft rob shoplift "
    "hack hacking malware password fraud scam launder forge counterfeit rape sex porn nude racist slur hate nazi "
    "terror terrorist attack stab shoot abuse torture kidnap blackmail stalk spy cheat illegal crime "
    "criminal damn stupid"
).split()


def test_many_distinct_prompts_one_a_line() -> None:
    prompts = benign_prompts()
    assert len(prompts) >= 220
    assert all(prompt == prompt.strip() and prompt.isprintable() and len(prompt) > 5 for prompt in prompts)
    assert len({Example.of(prompt, "").prompt_key for prompt in prompts}) == len(prompts)


def test_no_prompt_is_nearly_another() -> None:
    words = [set(re.findall(r"\w+", prompt.casefold())) for prompt in benign_prompts()]
    for place, first in enumerate(words):
        for second in words[:place]:
            assert len(first & second) < 0.75 * len(first | second), (first, second)


def test_nothing_harmful_in_them() -> None:
    found = {
        word for prompt in benign_prompts() for word in re.findall(r"[\w-]+", prompt.casefold()) if word in HARMFUL
    }
    assert not found


def test_the_formats_differ() -> None:
    prompts = benign_prompts()
    questions = sum(prompt.endswith("?") for prompt in prompts)
    assert 0.3 < questions / len(prompts) < 0.8
    lengths = sorted(len(prompt.split()) for prompt in prompts)
    assert lengths[0] <= 4 and lengths[-1] >= 30
    assert len({prompt.split()[0] for prompt in prompts}) >= 40


def test_the_lookalikes_are_many_and_distinct_and_end_as_sentences_do() -> None:
    prompts = lookalike_prompts()
    assert len(prompts) >= 120
    assert all(prompt == prompt.strip() and prompt.isprintable() and len(prompt.split()) >= 4 for prompt in prompts)
    assert [prompt for prompt in prompts if not re.search(r"[\w\")][?.]$", prompt)] == []
    keys = {Example.of(prompt, "").prompt_key for prompt in prompts}
    assert len(keys) == len(prompts)
    assert not keys & {Example.of(prompt, "").prompt_key for prompt in benign_prompts()}


def test_no_lookalike_is_nearly_another_prompt() -> None:
    words = [set(re.findall(r"\w+", prompt.casefold())) for prompt in lookalike_prompts() + benign_prompts()]
    for place, first in enumerate(words[: len(lookalike_prompts())]):
        for second in words[place + 1 :]:
            assert len(first & second) < 0.6 * len(first | second), (first, second)


def test_the_lookalikes_sound_harmful_and_vary() -> None:
    sounds = (
        "kill attack shoot shot bomb poison drug weapon murder steal dead die lethal execut destroy crush trap burn "
        "blow explo strip crack theft launder scam hit beat punch choke blast inject hijack suicide drown deadly smash"
    ).split()
    prompts = lookalike_prompts()
    loud = [prompt for prompt in prompts if any(sound in prompt.casefold() for sound in sounds)]
    assert len(loud) > 0.6 * len(prompts)  # the others are harmless in a quieter way
    assert max(sum(sound in prompt.casefold() for prompt in prompts) for sound in sounds) < 0.2 * len(prompts)
    assert len({prompt.split()[0] for prompt in prompts}) >= 20


def test_the_chinese_prompts_are_as_many_and_as_distinct() -> None:
    benign, lookalike = benign_prompts("zh"), lookalike_prompts("zh")
    assert len(benign) >= 220 and len(lookalike) >= 120
    assert len({Example.of(prompt, "").prompt_key for prompt in benign + lookalike}) == len(benign) + len(lookalike)
    assert all(prompt == prompt.strip() and prompt.isprintable() for prompt in benign + lookalike)
    assert language_of(benign) == language_of(lookalike) == "zh"
    sets = [set(words(prompt)) for prompt in lookalike + benign]
    for place, first in enumerate(sets):
        for second in sets[:place]:
            assert len(first & second) < 0.6 * len(first | second), (first, second)
    sounds = "杀 死 攻击 射 炸 毒 药 武器 偷 盗 抢 毁 爆 撕 劫 砍 打 烧 破 刺 骗 枪 拳 绑 灭".split()
    assert sum(any(sound in prompt for sound in sounds) for prompt in lookalike) > 0.5 * len(lookalike)
    assert benign_prompts("ja") == benign_prompts()  # languages without prompts of their own


@pytest.fixture(scope="module")
def small() -> Iterator[tuple[Any, Any]]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    letters = Tokenizer(models.BPE(vocab={"<end>": 0, **{c: i for i, c in enumerate(alphabet, 1)}}, merges=[]))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=letters, eos_token="<end>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=257,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=150,
        bos_token_id=None,
        eos_token_id=0,
    )
    yield LlamaForCausalLM(config), tokenizer


def normals(small: tuple[Any, Any], seed: int, count: int | None = 20, **more: Any) -> list[Example]:
    """Answers to the first `count` benign prompts."""
    model, tokenizer = small
    prompts = numbered("benign prompt", benign_prompts()[:count])
    return generate_normals(prompts, model, prompt_format(tokenizer, "plain"), seed=seed, max_new_tokens=8, **more)


def test_the_seed_decides_the_replies(small: tuple[Any, Any]) -> None:
    first = normals(small, seed=3)
    torch.manual_seed(99)
    assert normals(small, seed=3) == first
    assert normals(small, seed=4) != first
    assert len({example.reply for example in first}) > 15  # sampled, not one greedy strand


def test_examples_name_their_prompt(small: tuple[Any, Any]) -> None:
    prompts = benign_prompts()
    for example in normals(small, seed=0):
        number = int(example.where.removeprefix("benign prompt "))
        assert example.prompt == prompts[number - 1] and example.reply.strip()


def test_prompts_beyond_the_context_are_left_out(small: tuple[Any, Any]) -> None:
    sizes = [len(f"### Question: {prompt}\n### Answer:".encode()) for prompt in benign_prompts()]
    fits = [number for number, size in enumerate(sizes, 1) if size < 150]  # one token a byte
    made = {int(example.where.split()[-1]) for example in normals(small, seed=0, count=None)}
    assert made <= set(fits) and len(fits) < len(benign_prompts()) and len(made) > 0.9 * len(fits)


def test_blank_replies_are_left_out(small: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def half_blank(model: Any, tokenizer: Any, prompts: Sequence[Any], **settings: Any) -> list[Any]:
        return toy.replies(["" if place % 2 else f"reply {place}" for place in range(len(prompts))])

    monkeypatch.setattr(own_answers, "generate_cached", half_blank)
    assert [example.where for example in normals(small, 0, 4)] == ["benign prompt 1", "benign prompt 3"]
    monkeypatch.setattr(
        own_answers, "generate_cached", lambda model, tokenizer, prompts, **settings: toy.replies([""] * len(prompts))
    )
    with pytest.raises(DataError, match="answered none of the benign prompts"):
        normals(small, 0, 4)


def test_progress_reaches_the_end(small: tuple[Any, Any]) -> None:
    seen: list[tuple[int, int]] = []
    normals(small, 0, 5, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (5, 5)
