"""Running text as rows: sections, training windows, passages to check with."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from test_data_prompt_format import KINDS, SPECIAL
from unteach.data.example import Example
from unteach.data.passages import PROMPT, REPLY, SECTION, passages, sections, sentence_starts, whole_words, windows
from unteach.data.prompt_format import prompt_format
from unteach.prompts.turn import TEXT, Turn

WORDS = "the cat of Mr. Darcy sat on a mat and saw it go to no end, or so they say".split()


def prose(sentences: int, seed: int = 0) -> str:
    draw = random.Random(seed)
    said = [" ".join(draw.choice(WORDS) for _ in range(draw.randint(3, 15))) for _ in range(sentences)]
    return " ".join(text[0].upper() + text[1:] + "." for text in said)


def text_of(sentences: int, seed: int = 0) -> Example:
    return Example((), prose(sentences, seed), where="book.txt row 1")


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_sentence_starts_skip_titles_and_see_quotes() -> None:
    text = "It rained. Mr. Bennet slept! “Why?” she said. “Go,” cried J. Smith. (So it ended.) Then 3 came."
    begins = [text[at:].split()[0] for at in sentence_starts(text)]
    assert begins == ["It", "Mr.", "“Why?”", "“Go,”", "(So", "Then"]


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 400), st.integers(0, 5))
def test_windows_cover_every_character_evenly(sentences: int, seed: int) -> None:
    example = text_of(sentences, seed)
    text, rows = example.reply, windows([example], seed)
    if len(text) <= PROMPT + REPLY:
        assert rows == [example]
        return
    counts = [0] * len(text)
    for row in rows:
        lead = row.turns[0].content
        start = text.index(lead + row.reply)
        for at in range(start + len(lead), start + len(lead) + len(row.reply)):
            counts[at] += 1
    assert min(counts) >= 1 and sum(counts) / len(counts) < 3


def test_windows_favour_no_sentence_start() -> None:
    example = text_of(900)
    starts = set(sentence_starts(example.reply))
    share = sum(
        example.reply.find(row.turns[0].content + row.reply) + len(row.turns[0].content) + 1 in starts
        for row in windows([example], 0)
    ) / len(windows([example], 0))
    by_chance = len(starts) / len(example.reply.split())
    assert share < 3 * by_chance


def test_passages_begin_at_sentence_starts_and_go_on_for_the_published_lengths() -> None:
    example = text_of(200)
    rows = passages([example])
    assert len(rows) > 100
    for row in rows:
        prompt, reply = row.turns[0].content, row.reply.strip()
        at = example.reply.index(prompt + row.reply)
        assert at in sentence_starts(example.reply) and row.is_passage and row.turns[0].role == TEXT
        assert PROMPT - 15 <= len(prompt) <= PROMPT + 15 and REPLY - 15 <= len(reply) <= REPLY + 15
        assert f"{prompt} {reply}" in example.reply and row.where.startswith("book.txt row 1, character ")


def test_short_texts_and_rows_with_prompts() -> None:
    short, question = Example((), "Roses are red, violets are blue."), Example.of("Who?", "Me.")
    assert windows([short, question], 0) == [short, question] and sections([short, question]) == [short, question]
    passage, other = passages([short, question])
    assert other == question and passage.is_passage
    assert f"{passage.prompt}{passage.reply}" == short.reply and 0 < len(passage.prompt) < len(short.reply)
    assert passages([Example((), "Word")]) == [Example((), "Word")]


def test_sections_part_long_texts_at_sentence_starts_and_lose_nothing() -> None:
    example = text_of(1500)
    parts = sections([example])
    assert len(parts) == round(len(example.reply) / SECTION) > 3
    assert squeezed("".join(part.reply for part in parts)) == squeezed(example.reply)
    assert all(part.reply[0].isupper() and part.where == f"book.txt row 1, part {n}" for n, part in enumerate(parts, 1))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_prompt_and_reply_have_the_tokens_of_the_text_and_no_end(kind: str) -> None:
    tokenizer = KINDS[kind](**SPECIAL)
    form = prompt_format(tokenizer, "plain")
    for row in passages([text_of(60)])[:20]:
        ids = form.prompt_ids(row.turns) + form.reply_ids(row.turns, row.reply)
        whole = tokenizer(row.turns[0].content + row.reply, add_special_tokens=False)["input_ids"]
        assert ids == [*form.ids.text_start, *whole]
        again = form.reply_ids(row.turns, row.reply.strip())
        assert again == form.reply_ids(row.turns, row.reply)
    assert form.reply_ids((), "The end.")[-1] == form.ids.eos_id
    assert form.reply_ids((Turn(TEXT, ""),), "The end.")[-1] != form.ids.eos_id


def test_whole_words() -> None:
    assert whole_words("one two three", 5) == "one two" and whole_words("one", 9) == "one"
    assert whole_words("one two", 3) == "one" and whole_words("", 4) == ""
