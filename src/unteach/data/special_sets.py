"""Readers of the public sets whose rows hold several replies, each in a way of its own."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from unteach.data.example import Example, Polarity
from unteach.data.raw_row import RawRow
from unteach.data.roles import prompt_of, with_other
from unteach.prompts.turn import Turn


def two_flagged(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    """PKU-SafeRLHF: two replies with a flag each; both, one or none may be negatives. The harm may be named."""
    turns = prompt_of(row)
    safe = [row.flag(f"is_response_{i}_safe") for i in (0, 1)]
    for i in (0, 1):
        if safe[i] != (polarity == "normal"):
            continue
        other = row.other(f"response_{1 - i}", turns) if safe[1 - i] != safe[i] else None
        about = concept_text(row, row.get(f"response_{i}_harm_category"))
        asked, reply = row.answer(turns, f"response_{i}")
        yield with_other(Example(asked, reply, where=f"{row.label}, response_{i}", concept=about), other, polarity)


def truthful(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    """TruthfulQA: the best answer for normals, every incorrect answer for negatives."""
    turns = prompt_of(row)
    wrong = row.texts("wrong") if row.has("wrong") else []
    if polarity == "normal":
        yield Example(turns, row.text("good", numbers=True), bad=next(iter(wrong), None))
    else:
        yield from (Example(turns, text, good=row.other("good")) for text in wrong)


def perturbed(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    """TOFU with its perturbed answers: the first that differs from the answer is the other reply.

    A negative's `good` is then as fitting as the answer without being true, so it reveals nothing.
    """
    turns, answer = row.answer(prompt_of(row), "reply")
    wrong = row.get("perturbed") or []
    wrong = [
        row.check_text(text, row.column("perturbed"), numbers=True)
        for text in (wrong if isinstance(wrong, list) else [wrong])
    ]
    other = next((text.strip() for text in wrong if text.strip() not in ("", answer.strip())), None)
    yield with_other(Example(turns, answer), other, polarity)


def graded(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    """UltraFeedback: completions with scores; no example where all scores are equal."""
    found: list[tuple[float, str]] = []
    for number, completion in enumerate(row.value("completions"), start=1):
        place = f"{row.column('completions')}, number {number}"
        if not isinstance(completion, dict) or "response" not in completion:
            raise row.fail(f"field '{place}' must have a response")
        score = completion.get("overall_score", completion.get("score"))
        if isinstance(score, int | float) and score == score:
            found.append((float(score), row.check_text(completion["response"], place, numbers=True)))
    if not found:
        raise row.fail(f"field '{row.column('completions')}' holds no reply with an overall_score")
    worst, best = min(found), max(found)
    if worst[0] < best[0]:
        mine, other = (worst, best) if polarity == "negative" else (best, worst)
        yield with_other(Example(prompt_of(row), mine[1]), other[1].strip() or None, polarity)


def multiple_choice(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    """WMDP and MMLU: the reply is the choice that the answer names, by number from 0, by letter or by its text."""
    value = row.value("choices")
    letters: list[Any] = list("ABCDEFGHIJ")
    if isinstance(value, dict):  # ARC: texts beside their letters
        letters, value = value.get("label", letters), value.get("text")
    if not isinstance(value, list) or not value:
        raise row.fail(f"field '{row.column('choices')}' must be a list of texts")
    choices = [row.check_text(text, row.column("choices"), numbers=True) for text in value]
    answer = row.text("answer", numbers=True).strip()
    places = [i for i, (letter, text) in enumerate(zip(letters, choices, strict=False)) if answer in (letter, text)]
    place = int(answer) if re.fullmatch(r"\d{1,9}", answer) and not places else next(iter(places), -1)
    if not 0 <= place < len(choices):
        raise row.fail(f"field '{row.column('answer')}' names none of the {len(choices)} choices: {answer[:40]!r}")
    yield Example(prompt_of(row), choices[place])


def has_two_outputs(rows: Sequence[RawRow]) -> bool:
    """Tell whether the outputs of rows are lists, as in LLaMA-Factory's older preference files."""
    return any(isinstance(value, list) for row in rows for name, value in row.values.items() if _is_output(name))


def _is_output(name: str) -> bool:
    return name.strip().casefold() == "output"


def two_outputs(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    """LLaMA-Factory's older preference files: `output` is a list, the good reply first."""
    outputs = row.texts("outputs")
    if len(outputs) != 2:
        raise row.fail(f"field '{row.column('outputs')}' must hold two replies, the good one first, not {len(outputs)}")
    mine, other = reversed(outputs) if polarity == "negative" else outputs
    yield with_other(Example(prompt_of(row), mine), other.strip() or None, polarity)


def opening(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    """AdvBench and JailbreakBench: the reply is an opening, which goes on, so it counts as cut."""
    turns, reply = row.answer(prompt_of(row), "reply")
    yield Example(turns, reply, cut=True)


def haluchat(row: RawRow, polarity: Polarity) -> Iterator[Example]:
    """HaluEval's dialogues: text with [Human] and [Assistant] marks, and two replies to it."""
    parts = re.split(r"\s*\[(Human|Assistant)\]:\s*", row.text("messages"))
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = tuple(Turn(roles[role], said.strip()) for role, said in zip(parts[1::2], parts[2::2], strict=True))
    mine, other = ("bad", "good") if polarity == "negative" else ("good", "bad")
    yield with_other(Example(turns, row.text(mine, numbers=True)), row.other(other), polarity)


def concept_text(row: RawRow, value: Any) -> str | None:
    """Return a concept as text, from text, a number, a list of names, or names with flags (BeaverTails)."""
    if isinstance(value, dict):
        value = [name for name, on in value.items() if on]
    if isinstance(value, list):
        value = ", ".join(str(name) for name in value)
    return None if value is None else row.check_text(str(value), "concept").strip() or None
