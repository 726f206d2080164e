"""Running text as rows: sections to split a text by, windows to train on, and passages to evaluate on.

A passage is a prompt of running text and the text that follows it; neither ends in EOS.
Source: arXiv 2310.10683, section 4 (200 characters from a sentence start, and the next 200). Differs: texts are cut at
whole words, so that prompt and reply have the same tokens together and apart; training windows start anywhere, so that
they cover the text evenly.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from unicodedata import category

import regex

from unteach.data.example import Example
from unteach.prompts.turn import TEXT, Turn
from unteach.text.words import CLUSTERS, HAN

PROMPT, REPLY = 200, 200
"""Characters of a passage's prompt and of its reply."""
SECTION = 4000
"""Longer texts are split into sections of about this many characters before some are held out."""
WINDOW = 400
"""Characters of the reply of a training window."""
LONGEST_WORD, NEAR = 100, 20
"""Characters to look ahead for the beginning of a word, and for one after a punctuation mark."""
_ABBREVIATIONS = set("Mr Mrs Ms Dr St Prof Esq No vol ch pp cf vs Mme Mlle Hr Fr Nr Sr Sra проф им ул св стр".split())
_CLOSING, _OPENING = r"[\p{Pe}\p{Pf}'\"”’_*]*", r"[\p{Ps}\p{Pi}'\"“‘_*¿¡]*"
_END = regex.compile(
    rf"[\p{{STerm}}…--[。！？｡．]]{_CLOSING}\s+(?={_OPENING}[\p{{Lu}}\p{{Lt}}\p{{Lo}}])"
    rf"|(?:[。！？｡။។៕]|(?<!\d)．)+{_CLOSING}\s*(?=\S)"
    r"|(?<=[\p{Thai}\p{Lao}])\s+(?=[\p{Thai}\p{Lao}])",
    regex.V1,
)
_LETTER = rf"(?=[{HAN}\p{{Hiragana}}\p{{Katakana}}{CLUSTERS}])(?![\p{{M}}ำຳー])"  # Korean has spaces
_BEGIN = regex.compile(rf"(?<=\s)(?=\S)|{_LETTER}", regex.V1)
_AFTER_SIGN = regex.compile(rf"(?<=[\s\p{{P}}]){_LETTER}", regex.V1)


def is_text(example: Example) -> bool:
    """Whether an example is running text, without a prompt."""
    return not example.turns


def sections(examples: Sequence[Example]) -> list[Example]:
    """Split long texts at sentence starts into pieces of about SECTION characters; other rows stay as they are.

    Where a stretch has no sentence start, it is split at a word.
    """
    pieces: list[Example] = []
    for example in examples:
        if not is_text(example) or len(example.reply) <= 1.5 * SECTION:
            pieces.append(example)
            continue
        count = round(len(example.reply) / SECTION)
        starts = _starts(example.reply)
        aims = [round(len(example.reply) * n / count) for n in range(count)]
        cuts = sorted({0, *(min(starts, key=lambda start: abs(start - aim)) for aim in aims[1:])})
        for number, (start, end) in enumerate(zip(cuts, [*cuts[1:], None], strict=True), start=1):
            where = f"{example.where or 'a text'}, part {number}"
            if piece := example.reply[start:end].strip():
                pieces.append(replace(example, reply=piece, where=where))
    return pieces


def windows(examples: Sequence[Example], seed: int) -> list[Example]:
    """Cut texts into training rows: a lead of PROMPT characters and the WINDOW characters after it.

    Windows start half a window apart, from a seeded offset, so that every character is in about two replies; the first
    window has no lead. Rows with a prompt, and texts no longer than one passage, stay as they are.
    """
    rows: list[Example] = []
    for example in examples:
        text = example.reply
        if not is_text(example) or len(text) <= PROMPT + REPLY:
            rows.append(example)
            continue
        first = random.Random(f"windows:{seed}:{example.key}").randrange(1, WINDOW // 2)
        begins = [0, *range(first, len(text) - REPLY // 2, WINDOW // 2)]
        for at in begins:
            rows += _passage(example, _word(text, at - PROMPT), _word(text, at, after_sign=True), WINDOW)
    return rows


def passages(examples: Sequence[Example]) -> list[Example]:
    """Cut texts into rows to evaluate on: one from every sentence start that is followed by enough text.

    A short text gives one passage, whose prompt is the first half. Rows with a prompt stay as they are.
    """
    rows: list[Example] = []
    for example in examples:
        text = example.reply
        if not is_text(example):
            rows.append(example)
        elif len(text) < PROMPT + REPLY:
            half = _word(text, len(text) // 2, after_sign=True)
            rows += _passage(example, 0, half, len(text)) or [example]
        else:
            for at in (at for at in _starts(text) if at + PROMPT + REPLY <= len(text)):
                rows += _passage(example, at, _word(text, at + PROMPT, after_sign=True), REPLY)
    return rows


def sentence_starts(text: str) -> list[int]:
    """Return where sentences begin, in any script: the text's start, and what follows an end mark.

    After a mark like "." come a space and a capital or a letter of a script without capitals, but not after titles
    ("Mr."). Marks like "。" need no space. Thai and Lao have no marks, and their spaces part sentences.
    """
    starts = [0]
    for found in _END.finditer(text):
        word = regex.search(r"(\w+)$", text[max(0, found.start() - 12) : found.start()])
        if not (found[0][0] == "." and word and (word[1] in _ABBREVIATIONS or len(word[1]) == 1)):
            starts.append(found.end())
    return starts


def whole_words(text: str, length: int) -> str:
    """Return the first `length` characters of a text and the rest of their last word."""
    return text[: _word(text, length)].rstrip()


def _starts(text: str) -> list[int]:
    """Return where sentences begin and, in a stretch of over half a SECTION without such a place, words."""
    starts = sentence_starts(text)
    found = set(starts)
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        if end - start > SECTION // 2:
            found |= {_word(text, at, after_sign=True) for at in range(start + WINDOW, end - WINDOW, WINDOW)}
    return sorted(found)


def _passage(example: Example, start: int, middle: int, length: int) -> list[Example]:
    """Return the passage with prompt text[start:middle] and the next `length` characters as reply, at whole words.

    There is none where only white space follows.
    """
    text = example.reply
    end = _word(text, middle + length)
    where = f"{example.where or 'a text'}, character {start}"
    prompt = text[start:middle].rstrip()
    reply = text[start + len(prompt) : end].rstrip()  # white space before it shows whether a paragraph begins
    return [replace(example, turns=(Turn(TEXT, prompt),), reply=reply, where=where)] if reply.strip() else []


def _word(text: str, at: int, after_sign: bool = False) -> int:
    """Return the first place from `at` on where a word begins, or the text's end.

    Where words have no spaces, `after_sign` looks for one after a punctuation mark first, since no token goes across
    it. Within a "word" of more than LONGEST_WORD characters, any place will do.
    """
    if at <= 0:
        return 0
    ahead = min(len(text), at + LONGEST_WORD)
    found = _AFTER_SIGN.search(text, at, min(ahead, at + NEAR)) if after_sign else None
    if found := found or _BEGIN.search(text, at, ahead):
        return int(found.start())
    if ahead == len(text):
        return ahead
    while at < len(text) and category(text[at])[0] == "M":
        at += 1
    return at


def balanced(rows: list[Example]) -> list[Example]:
    """Repeat passages of running text until they are about half of the rows.

    Normal rows must look like the negatives, or the model tells them apart by their form (arXiv 2310.10683, §4).
    """
    texts = [row for row in rows if row.is_passage]
    others = len(rows) - len(texts)
    return rows + texts * (others // len(texts) - 1) if texts else rows


def shuffle_passages(rows: list[Example], seed: int) -> list[Example]:
    """Shuffle rows that are cut from texts, since they come in the order of the text; other rows keep their order."""
    if not any(row.is_passage for row in rows):
        return rows
    return random.Random(f"passages:{seed}").sample(rows, len(rows))
