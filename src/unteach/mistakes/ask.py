"""Put dialogues to a model and count the tokens: all steps that generate text go through here."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from unteach.data.prompt_format import PromptFormat
from unteach.models.context import context_length
from unteach.models.kept_replies import generate_cached, tokens_of
from unteach.models.reply import Reply
from unteach.progress import OnProgress
from unteach.prompts.turn import Turn

AT_ONCE = 128
"""Dialogues that are answered before their replies are kept."""


@dataclass(frozen=True)
class ModelAnswers:
    """The answers to dialogues, None where a dialogue filled the context, and the tokens by the names of `flops_of`."""

    replies: list[Reply | None]
    tokens: Counter[str]

    @property
    def texts(self) -> list[str | None]:
        """What the answers say."""
        return [None if reply is None else reply.text for reply in self.replies]


def ask(
    model: Any,
    form: PromptFormat,
    dialogues: Sequence[tuple[Turn, ...]],
    *,
    key: str | None,
    max_new_tokens: int,
    opening: str = "",
    progress: OnProgress | None = None,
) -> ModelAnswers:
    """Have a model answer dialogues greedily, each answer beginning with `opening`. `key` as in `generate_cached`.

    They are asked `AT_ONCE` at a time; what is broken off is taken up again where the same is asked anew.
    """
    openings = [form.reply_ids(turns, opening, cut=True) if opening else [] for turns in dialogues]
    prompts = [[*form.prompt_ids(turns), *begun] for turns, begun in zip(dialogues, openings, strict=True)]
    room = context_length(model)
    fits = [n for n, prompt in enumerate(prompts) if room is None or len(prompt) < room]
    asked = [prompts[n] for n in fits]
    settings: dict[str, Any] = {"key": key, "max_new_tokens": max_new_tokens, "end": form.end}
    given: list[Reply] = []
    for start in range(0, len(asked), AT_ONCE):
        shown = None if progress is None else partial(_shown, progress, start, len(asked))
        given += generate_cached(model, form.tokenizer, asked[start : start + AT_ONCE], progress=shown, **settings)
    replies: list[Reply | None] = [None] * len(dialogues)
    for n, answer in zip(fits, given, strict=True):
        replies[n] = form.end.read(form.tokenizer, [*openings[n], *answer.ids]) if opening else answer
    read, generated = tokens_of(asked, given)
    return ModelAnswers(replies, Counter(forward=read, generated=generated))


def _shown(progress: OnProgress, before: int, total: int, done: int, _: int) -> None:
    """Report how many of all dialogues are answered."""
    progress(before + done, total)
