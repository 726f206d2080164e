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


SCRIPTS = {
    "Chinese": "船夫把绳子系在码头上，天就黑了。“明天再走吧！”他说。没有人回答他，只有风在吹。",
    "Japanese": "船頭は綱を岸に結んだ。もう夜だった。「明日にしよう」と彼は言った。だれも答えなかった。",
    "Thai": "คนเรือผูกเชือกไว้กับท่าแล้วฟ้าก็มืด พรุ่งนี้ค่อยไปเถิดเขาพูด ไม่มีใครตอบเขา ",
    "Burmese": "လှေသမားသည်ကြိုးကိုဆိပ်ကမ်းတွင်ချည်ပြီးနောက်မိုးချုပ်သွားသည်။မနက်ဖြန်မှသွားမည်ဟုပြောသည်။",
    "Korean": "뱃사공은 밧줄을 부두에 묶었다. 곧 밤이 되었다. 아무도 그에게 대답하지 않았다. ",
    "Russian": "Лодочник привязал канат к причалу. Скоро стемнело! «Завтра поплывём», — сказал он. Никто не ответил. ",
    "Hindi": "नाविक ने रस्सी घाट से बाँध दी। अँधेरा हो गया। किसी ने उत्तर नहीं दिया। ",
    "Arabic": "ربط البحار الحبل بالرصيف. هل نذهب غدا؟ قال ذلك ثم سكت. لم يجبه أحد. ",
    "letters": "q" * 90,
    "emoji": "👩‍🔧🛠️" * 20,
    "blank": " \n" * 120,
}
TEXTS = st.lists(st.sampled_from(sorted(SCRIPTS)), min_size=1, max_size=40).map(
    lambda names: "".join(SCRIPTS[name] for name in names)
)


@settings(max_examples=60, deadline=None)
@given(TEXTS | st.text(min_size=401, max_size=1500), st.integers(0, 3))
def test_windows_of_any_script_lose_nothing_and_have_replies(text: str, seed: int) -> None:
    example = Example((), text)
    rows = windows([example], seed)
    if rows == [example]:
        assert len(text) <= PROMPT + REPLY
        return
    covered = [character.isspace() for character in text]
    for row in rows:
        assert 0 < len(row.reply.strip()) <= 600
        start = int(row.where.rsplit(" ", 1)[1]) + len(row.turns[0].content)
        assert text[start : start + len(row.reply)] == row.reply
        covered[start : start + len(row.reply)] = [True] * len(row.reply)
    assert all(covered)
    for row in passages([example]):
        assert row == example or row.reply.strip()


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name not in ("letters", "emoji", "blank")])
def test_a_long_text_of_any_script_has_sections_and_sentences(script: str) -> None:
    text = SCRIPTS[script] * (12_000 // len(SCRIPTS[script]))
    assert len(sections([Example((), text)])) == 3
    starts = {text[at : at + 4] for at in sentence_starts(text)}
    assert starts >= {SCRIPTS[script][:4]} and 2 <= len(starts) <= 4


def test_a_text_without_marks_is_cut_all_the_same() -> None:
    for text in ("one two three " * 900, "船夫把绳子系在码头上" * 1200, "q" * 12_000):
        parts = sections([Example((), text)])
        assert len(parts) >= 3 and squeezed("".join(part.reply for part in parts)) == squeezed(text)
        assert len(passages([Example((), text)])) > 10


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
    assert whole_words("水闸旁边的铁链", 4) == "水闸旁边" and whole_words("ที่นี่ดี", 4) == "ที่นี่"
    assert whole_words("먼저 수문 옆", 4) == "먼저 수문"
