"""Replies of `unteach try`: those that checking would see, seeded, stopped when asked, two at once."""

import json
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import torch

import toy
from command import save
from unteach.errors import ConfigError, DataError, ModelError
from unteach.mistakes.guide import export_guidance
from unteach.models.directory import local_directory
from unteach.models.generate import generate
from unteach.models.reply import ReplyEnd
from unteach.prompts.turn import Turn
from unteach.try_page import streaming
from unteach.try_page.models import load_tried_models
from unteach.try_page.streaming import Piece, reply_in_pieces

PROMPT = toy.tokenizer()("<s>### Question: how to a1 b2\n### Answer:")["input_ids"]
REMINDER = "go then"


@pytest.fixture(scope="module")
def model() -> Any:
    return toy.learned_model()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(toy.learned_model(), tmp_path_factory.mktemp("models") / "model")


def pieces(model: Any, **settings: Any) -> list[Piece]:
    return list(reply_in_pieces(model, toy.tokenizer(), PROMPT, **({"max_new_tokens": 20} | settings)))


@pytest.mark.parametrize("temperature", [0.0, 2.0])
@pytest.mark.parametrize("seed", [0, 7])
def test_a_reply_is_the_one_that_generate_gives(model: Any, temperature: float, seed: int) -> None:
    settings = {"max_new_tokens": 20, "temperature": temperature, "seed": seed}
    shown = pieces(model, **settings)
    [reply] = generate(model, toy.tokenizer(), [PROMPT], **settings)
    assert (shown[-1].text, shown[-1].tokens) == (reply.text, len(reply.ids))
    assert len(shown) > 1 and all(later.text.startswith(one.text) for one, later in zip(shown, shown[1:], strict=False))
    assert [one.ended for one in shown[:-1]] == [""] * (len(shown) - 1)


def test_the_same_seed_gives_the_same_reply_and_another_seed_another_one(model: Any) -> None:
    texts = [pieces(model, temperature=3.0, seed=seed)[-1].text for seed in (1, 1, 2, 3)]
    assert texts[0] == texts[1] and len(set(texts)) == 3


def test_two_replies_that_take_turns_are_those_of_each_alone(model: Any) -> None:
    state = torch.get_rng_state()
    alone = [pieces(model, temperature=2.0, seed=seed)[-1].text for seed in (4, 5)]
    both = [reply_in_pieces(model, toy.tokenizer(), PROMPT, max_new_tokens=20, temperature=2.0, seed=s) for s in (4, 5)]
    last: list[Piece | None] = [None, None]
    for pair in zip_longest(*both):
        torch.rand(3)  # what others draw between turns changes nothing
        last = [new or old for new, old in zip(pair, last, strict=True)]
    assert [one.text for one in last if one] == alone
    torch.set_rng_state(state)
    pieces(model, temperature=2.0)
    assert torch.equal(torch.get_rng_state(), state)


def test_how_a_reply_ended_is_told(model: Any) -> None:
    # A row that was learned by heart ends by itself; its first two words are cut, and so is what fills the context.
    whole = pieces(model)[-1]
    assert (whole.text, whole.tokens, whole.ended) == ("take c1 and d2", 5, "end")
    assert pieces(model, max_new_tokens=2)[-1] == Piece("take c1", 2, "length")
    narrow = toy.model(seed=3, max_position_embeddings=len(PROMPT) + 3)
    narrow.generation_config.eos_token_id = None
    last = list(reply_in_pieces(narrow, toy.tokenizer(eos_token=None), PROMPT, max_new_tokens=50))[-1]
    assert (last.tokens, last.ended) == (3, "length")


def test_a_prompt_that_fills_the_context_says_so(model: Any) -> None:
    with pytest.raises(DataError, match=r"the prompt has 64 tokens and the model's context is 64"):
        next(reply_in_pieces(model, toy.tokenizer(), [5] * 64, max_new_tokens=4))


def test_a_reply_stops_between_turns_and_keeps_what_is_there(model: Any) -> None:
    asked = iter([False] * 3)
    shown = pieces(model, temperature=2.0, stopped=lambda: next(asked, True))
    assert shown[-1].ended == "stopped" and 0 < shown[-1].tokens < 20
    assert pieces(model, stopped=lambda: True) == [Piece("", 0, "stopped")]


def test_a_model_without_a_plain_cache_gives_its_reply_in_one_piece_that_can_be_stopped(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = pieces(model)[-1]
    monkeypatch.setattr(streaming, "roomy_cache", lambda *_: None)
    assert pieces(model) == [expected]
    asked = iter([False, False, False])
    stopped = pieces(model, stopped=lambda: next(asked, True))
    assert [one.ended for one in stopped] == ["stopped"] and 0 < stopped[0].tokens < 5


def test_turns_grow_while_they_are_quick_and_shrink_when_they_are_slow() -> None:
    assert [streaming._next_size(4, seconds) for seconds in (0.0, 0.025, 0.05, 0.2, 9)] == [8, 8, 4, 1, 1]
    assert streaming._next_size(16, 0.0) == 16


def test_models_are_asked_in_the_format_they_were_trained_in(directory: Path) -> None:
    (tried,) = load_tried_models([str(directory)], device="cpu", max_new_tokens=9)
    reply = list(tried.reply("how to a1 b2", guided=True, temperature=0, seed=0, stopped=lambda: False))[-1]
    assert reply.text == "take c1 and d2" and tried.reminder is None
    asked = tried.unguided.prompt_ids((Turn("user", "how to a1 b2"),))
    assert asked == PROMPT


def test_a_run_directory_stands_for_its_model_and_a_model_named_twice_is_held_once(
    directory: Path, tmp_path: Path
) -> None:
    (tmp_path / "run.yaml").write_text("model: x\n")
    (tmp_path / "model").symlink_to(directory)
    assert local_directory(str(tmp_path)) == tmp_path / "model"
    assert local_directory(directory) == directory and local_directory("org/name") is None
    first, second = load_tried_models([str(tmp_path), str(tmp_path / "model")], device="cpu")
    assert first.model is second.model and first.name == str(tmp_path)
    (tmp_path / "model").unlink()
    with pytest.raises(ModelError, match="a run directory without model/"):
        local_directory(tmp_path)


@pytest.mark.parametrize("file", ["config.json", "adapter_config.json"])
def test_a_run_directory_is_known_by_its_model_where_run_yaml_is_gone(tmp_path: Path, file: str) -> None:
    assert local_directory(str(tmp_path)) == tmp_path
    (tmp_path / "model").mkdir()
    assert local_directory(str(tmp_path)) == tmp_path
    (tmp_path / "model" / file).write_text("{}")
    assert local_directory(str(tmp_path)) == tmp_path / "model"
    (tmp_path / file).write_text("{}")  # a model that has a model beside it is itself meant
    assert local_directory(str(tmp_path)) == tmp_path


def test_the_reminder_of_a_run_can_be_switched_on_and_off(tmp_path: Path) -> None:
    place = save(toy.model(), tmp_path / "model")
    export_guidance(place, toy.tokenizer(), REMINDER)
    (tried,) = load_tried_models([str(place)], device="cpu")
    assert tried.reminder == REMINDER
    seen: list[list[int]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unteach.try_page.models.reply_in_pieces", lambda m, t, ids, **_: seen.append(ids) or iter(()))
        for guided in (True, False):
            list(tried.reply("where is e1", guided=guided, temperature=0, seed=0, stopped=lambda: False))
    decoded = [toy.tokenizer().decode(ids) for ids in seen]
    assert REMINDER in decoded[0] and REMINDER not in decoded[1] and "where is e1" in decoded[1]


def test_a_reminder_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    place = save(toy.model(), tmp_path / "model")
    (place / "guidance.json").write_text(json.dumps({"reminder": 3}))
    with pytest.raises(DataError, match="guidance.json"):
        load_tried_models([str(place)], device="cpu")


@pytest.mark.parametrize("names", [[], ["a", "b", "c"]])
def test_one_model_or_two(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="give one model or two"):
        load_tried_models(names)


def test_a_reply_of_no_tokens_is_refused(directory: Path) -> None:
    with pytest.raises(ConfigError, match="--max-new-tokens 0"):
        load_tried_models([str(directory)], max_new_tokens=0)


def test_half_a_character_is_kept_back_until_it_is_whole(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # A byte-level tokenizer decodes the first bytes of "é" as a replacement mark.
    def read(end: ReplyEnd, tokenizer: Any, new: Any) -> Any:
        return toy.replies(["caf\ufffd" if len(new) < 3 else "café"])[0]

    monkeypatch.setattr(ReplyEnd, "read", read)
    shown = [one.text for one in pieces(model)]
    assert shown[0] == "caf" and shown[-1] == "café" and not any("\ufffd" in text for text in shown)
