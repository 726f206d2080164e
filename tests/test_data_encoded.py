"""Rows that fit, rows that are cut, rows that are left out, and what is said of them."""

import logging
from collections.abc import Sequence

import pytest

from test_data_prompt_format import SPECIAL, STRICT, byte_level, chatty, word_level
from unteach.data.encoded import encode_all
from unteach.data.example import Example
from unteach.data.prompt_format import prompt_format
from unteach.errors import ConfigError, DataError
from unteach.prompts.turn import Turn

TOKENIZER = word_level(**SPECIAL)
PLAIN = prompt_format(TOKENIZER, "plain")
HEAD = 5  # <s> ### Question: … ### Answer:


def row(words: int, reply: int, number: int = 1) -> Example:
    return Example.of(" ".join(["it"] * words), " ".join(["cat"] * reply), where=f"f.jsonl line {number}")


def test_ids_are_those_of_the_format() -> None:
    [encoded], messages = encode_all([row(2, 3)], PLAIN, 100, "f")
    assert TOKENIZER.convert_ids_to_tokens(encoded.prompt_ids + encoded.reply_ids) == (
        "<s> ### Question: it it ### Answer: cat cat cat </s>".split()
    )
    assert len(encoded.prompt_ids) == HEAD + 2 and not encoded.truncated
    assert messages == []


@pytest.mark.parametrize(("max_length", "kept", "truncated"), [(11, 4, False), (10, 3, True), (8, 1, True)])
def test_replies_are_cut_at_their_end_without_eos(max_length: int, kept: int, truncated: bool) -> None:
    [encoded], messages = encode_all([row(2, 3)], PLAIN, max_length, "f")
    assert (len(encoded.reply_ids), encoded.truncated, len(messages)) == (kept, truncated, int(truncated))
    assert (TOKENIZER.eos_token_id in encoded.reply_ids) is not truncated


def test_long_prompts_are_left_out_counted_and_named() -> None:
    rows = [row(2, 1, 1), row(3, 1, 2), row(9, 1, 3), row(2, 2, 4)]
    encoded, messages = encode_all(rows, PLAIN, 8, "negatives")
    assert [item.example for item in encoded] == [rows[0], rows[3]]
    assert "negatives: left out 2 of 4 rows" in messages[0]
    assert "f.jsonl line 2, 8 tokens" in messages[0]
    assert "2 of 4 replies were cut at 8 tokens (first: f.jsonl line 1)" in messages[1]


def test_nothing_left_names_row_tokens_room_and_fix() -> None:
    with pytest.raises(DataError) as caught:
        encode_all([row(4, 1), row(5, 1, 2)], PLAIN, 9, "negatives")
    message = str(caught.value)
    assert "negatives" in message and "f.jsonl line 1, 9 tokens" in message and "the 9 tokens" in message
    assert "--max-length" in message and "shorter" in message


def test_empty_set_and_empty_replies() -> None:
    with pytest.raises(DataError, match="negatives: there are no rows"):
        encode_all([], PLAIN, 9, "negatives")
    with pytest.raises(DataError, match="f.jsonl line 7: the reply is empty"):
        encode_all([Example.of("it", " \n", where="f.jsonl line 7")], PLAIN, 9, "negatives")
    with pytest.raises(DataError, match="f.jsonl line 7: the reply gives no tokens"):
        encode_all([Example.of("it", "</s>", where="f.jsonl line 7")], PLAIN, 9, "negatives")


def test_template_errors_name_the_row() -> None:
    form = prompt_format(chatty(STRICT, **SPECIAL), "chat")
    twice = Example((Turn("user", "it"), Turn("user", "is")), "a", where="f.jsonl line 3")
    with pytest.raises(ConfigError, match="f.jsonl line 3: the chat template refuses"):
        encode_all([twice], form, 100, "f")


def test_running_text_follows_bos_or_else_its_own_first_token() -> None:
    [encoded], _ = encode_all([Example((), "it is a cat")], PLAIN, 100, "book")
    assert (len(encoded.prompt_ids), len(encoded.reply_ids)) == (1, 5)
    bare = prompt_format(byte_level(), "plain")
    [encoded], _ = encode_all([Example((), "it is a cat")], bare, 100, "book")
    assert len(encoded.prompt_ids) == 1
    assert bare.tokenizer.decode(encoded.prompt_ids + encoded.reply_ids) == "it is a cat"


def test_long_rows_make_no_noise(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = chatty("{% for m in messages %}{{ m['content'] }} {% endfor %}>", **SPECIAL)
    tokenizer.model_max_length = 4
    logger = logging.getLogger("transformers")
    monkeypatch.setattr(logger, "propagate", True)
    forms: Sequence[str] = ("plain", "chat")
    with caplog.at_level(logging.WARNING, logger="transformers"):
        for form in forms:
            try:
                encode_all([row(30, 30)], prompt_format(tokenizer, form), 100, "f")
            except ConfigError:
                assert form == "chat"
        assert not caplog.records
        tokenizer("it " * 30)
        assert caplog.records  # the warning exists, and would have been seen
