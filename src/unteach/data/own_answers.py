"""Rows that the model makes itself: its own answers to prompts, which become normals and evaluation rows."""

from collections.abc import Callable, Sequence
from typing import Any

from unteach.data.example import Example
from unteach.data.prompt_format import PromptFormat
from unteach.errors import DataError
from unteach.models.context import context_length
from unteach.models.kept_replies import generate_cached
from unteach.progress import OnProgress
from unteach.prompts.lists import lookalike_prompts

Answer = Callable[..., list[Example]]
"""Has a model answer prompts, as `answer_prompts` does."""


def generate_normals(
    prompts: Sequence[tuple[str, str]],
    model: Any,
    prompt_format: PromptFormat,
    *,
    seed: int,
    max_new_tokens: int,
    key: str | None = None,
    progress: OnProgress | None = None,
    answer: Answer | None = None,
) -> list[Example]:
    """Return the model's own answers to each (benign prompt, where it stands) as normals.

    They are sampled at temperature 1 from the whole distribution: the KL to the original is an expectation over text
    that the original would write, and a greedy reply is only the most likely of these, and often repeats itself. The
    same seed gives the same replies. Blank replies, and prompts that fill the model's context, are left out. A reply
    is cut at `max_new_tokens` and marked so. With the model's fingerprint as `key`, replies are kept for other runs.

    `answer` stands in for `answer_prompts`. Raises DataError where no prompt got a reply.
    """
    normals = (answer or answer_prompts)(
        prompts,
        model,
        prompt_format,
        key=key,
        max_new_tokens=max_new_tokens,
        temperature=1.0,
        seed=seed,
        said_only=False,
        progress=progress,
    )
    if not normals:
        raise DataError("the model answered none of the benign prompts; give normal rows of your own with --retain")
    return normals


def generate_lookalikes(
    model: Any,
    prompt_format: PromptFormat,
    *,
    max_new_tokens: int,
    count: int,
    language: str = "en",
    key: str | None = None,
    progress: OnProgress | None = None,
    answer: Answer | None = None,
) -> list[Example]:
    """Return the model's greedy answers to the first `count` look-alike prompts of a language, without blank ones."""
    return (answer or answer_prompts)(
        numbered("look-alike prompt", lookalike_prompts(language)[:count]),
        model,
        prompt_format,
        key=key,
        max_new_tokens=max_new_tokens,
        progress=progress,
    )


def numbered(what: str, prompts: Sequence[str]) -> list[tuple[str, str]]:
    """Return shipped prompts, each with the words that say where it stands."""
    return [(prompt, f"{what} {number}") for number, prompt in enumerate(prompts, start=1)]


def answer_prompts(
    prompts: Sequence[tuple[str, str]],
    model: Any,
    prompt_format: PromptFormat,
    said_only: bool = True,
    **settings: Any,
) -> list[Example]:
    """Have a model answer each (prompt, where it stands), greedily unless the `settings` of `generate_cached` differ.

    Prompts that fill the model's context and blank answers are left out, and of `said_only` ones those in which the
    model was cut inside its thought.
    """
    context = context_length(model)
    examples = [Example.of(prompt, "", where=where) for prompt, where in prompts]
    encoded = [(example, prompt_format.prompt_ids(example.turns)) for example in examples]
    fitting = [(example, ids) for example, ids in encoded if context is None or len(ids) < context]
    asked = [ids for _, ids in fitting]
    replies = generate_cached(model, prompt_format.tokenizer, asked, end=prompt_format.end, **settings)
    return [
        Example(example.turns, reply.written, where=example.where, cut=reply.cut)
        for (example, _), reply in zip(fitting, replies, strict=True)
        if (reply.text if said_only else reply.written)
    ]
