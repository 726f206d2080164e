"""Running text as rows: sections to split a text by, windows to train on, and passages to evaluate on.

A passage is a prompt of running text and the text that follows it; neither ends in EOS.
Source: arXiv 2310.10683, section 4 (200 characters from a sentence start, and the next 200). Differs: texts are cut at
whole words, so that prompt and reply have the same tokens together and apart; training windows start anywhere, so that
they cover the text evenly.
"""

import random
import re
from collections.abc import Sequence
from dataclasses import replace

from unteach.data.example import Example
from unteach.prompts.turn import TEXT, Turn

PROMPT, REPLY = 200, 200
"""Characters of a passage's prompt and of its reply."""
SECTION = 4000
"""Longer texts are split into sections of about this many characters before some are held out."""
WINDOW = 400
"""Characters of the reply of a training window."""
_ABBREVIATIONS = ("Mr", "Mrs", "Ms", "Dr", "St", "Prof", "Esq", "No", "vol", "ch", "pp", "cf", "vs")


def is_text(example: Example) -> bool:
    """Whether an example is running text, without a prompt."""
    return not example.turns


def sections(examples: Sequence[Example]) -> list[Example]:
    """Split long texts at sentence starts into pieces of about SECTION characters; other rows stay as they are."""
    pieces: list[Example] = []
    for example in examples:
        if not is_text(example) or len(example.reply) <= 1.5 * SECTION:
            pieces.append(example)
            continue
        count = round(len(example.reply) / SECTION)
        starts = sentence_starts(example.reply)
        aims = [round(len(example.reply) * n / count) for n in range(count)]
        cuts = sorted({0, *(min(starts, key=lambda start: abs(start - aim)) for aim in aims[1:])})
        for number, (start, end) in enumerate(zip(cuts, [*cuts[1:], None], strict=True), start=1):
            where = f"{example.where or 'a text'}, part {number}"
            pieces.append(replace(example, reply=example.reply[start:end].strip(), where=where))
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
        rows += [_passage(example, _word(text, max(0, at - PROMPT)), _word(text, at), WINDOW) for at in begins]
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
            half = _word(text, len(text) // 2)
            rows.append(_passage(example, 0, half, len(text)) if half < len(text) else example)
        else:
            starts = [at for at in sentence_starts(text) if at + PROMPT + REPLY <= len(text)]
            rows += [_passage(example, at, _word(text, at + PROMPT), REPLY) for at in starts]
    return rows


def sentence_starts(text: str) -> list[int]:
    """Return where sentences begin: the text's start, and capitals after an end mark, except after titles (Mr.)."""
    starts = [0]
    for found in re.finditer(r"[.!?]['\"”’)_]*\s+(?=['\"“‘(_]*[A-Z])", text):
        word = re.search(r"(\w+)$", text[max(0, found.start() - 12) : found.start()])
        if not (word and (word[1] in _ABBREVIATIONS or len(word[1]) == 1)):
            starts.append(found.end())
    return starts


def whole_words(text: str, length: int) -> str:
    """Return the first `length` characters of a text and the rest of their last word."""
    return text[: _word(text, length)].rstrip()


def _passage(example: Example, start: int, middle: int, length: int) -> Example:
    """Return the passage with prompt text[start:middle] and the next `length` characters as reply, at whole words."""
    text = example.reply
    end = _word(text, middle + length)
    where = f"{example.where or 'a text'}, character {start}"
    prompt = text[start:middle].rstrip()
    reply = text[start + len(prompt) : end].rstrip()  # white space before it shows whether a paragraph begins
    return replace(example, turns=(Turn(TEXT, prompt),), reply=reply, where=where)


def _word(text: str, at: int) -> int:
    """Return the first place from `at` on where a word begins, or the text's end."""
    if at <= 0:
        return 0
    if at >= len(text):
        return len(text)
    found = re.compile(r"\s+").search(text, at - 1)
    return found.end() if found else len(text)
