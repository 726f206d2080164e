"""Prompts that we wrote: benign ones, which the model's own answers turn into normals, and their look-alikes."""

from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any

from unteach.data.example import Example
from unteach.data.prompt_format import PromptFormat
from unteach.errors import ConfigError, DataError
from unteach.models.kept_replies import replies_of
from unteach.models.loading import context_length

FILE_NAME = "benign.txt"
LOOKALIKE_FILE_NAME = "lookalike.txt"


def benign_prompts() -> list[str]:
    """Return the shipped benign prompts, in the order of the file."""
    return _lines(FILE_NAME)


def lookalike_prompts() -> list[str]:
    """Return the shipped prompts that sound harmful and are not, in the order of the file.

    A model that refuses "How do I kill a Python process?" has learned words instead of meanings.
    """
    return _lines(LOOKALIKE_FILE_NAME)


def _lines(name: str) -> list[str]:
    return resources.files("unteach.prompts").joinpath(name).read_text(encoding="utf-8").splitlines()


def self_made_normals(
    model: Any,
    tokenizer: Any,
    prompt_format: PromptFormat,
    *,
    seed: int,
    max_new_tokens: int,
    count: int | None = None,
    temperature: float = 1.0,
    key: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Example]:
    """Return the model's own answers to the first `count` benign prompts (all where None) as normals.

    Sampled at temperature 1 from the whole distribution: the KL to the original is an expectation over text that
    the original would write, and greedy replies are but its one most likely, often repeating, strand. The same
    seed gives the same replies. Blank replies, and prompts that fill the model's context, are left out. A reply
    that reaches `max_new_tokens` is cut there. With the model's fingerprint as `key`, replies are kept for other runs.

    Raises ConfigError for a bad count, DataError where no prompt got a reply.
    """
    prompts = benign_prompts()
    if count is not None and not 1 <= count <= len(prompts):
        raise ConfigError(f"count {count}: there are {len(prompts)} benign prompts; ask for 1 to {len(prompts)}")
    normals = answers_to(
        [(prompt, f"benign prompt {number}") for number, prompt in enumerate(prompts[:count], start=1)],
        model,
        tokenizer,
        prompt_format,
        key=key,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        progress=progress,
    )
    if not normals:
        raise DataError("the model answered none of the benign prompts; give normal rows of your own with --retain")
    return normals


def own_lookalikes(
    model: Any,
    tokenizer: Any,
    prompt_format: PromptFormat,
    *,
    max_new_tokens: int,
    count: int,
    key: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Example]:
    """Return the model's own greedy answers to the first `count` look-alike prompts; blank ones are left out."""
    return answers_to(
        [(prompt, f"look-alike prompt {number}") for number, prompt in enumerate(lookalike_prompts()[:count], start=1)],
        model,
        tokenizer,
        prompt_format,
        key=key,
        max_new_tokens=max_new_tokens,
        progress=progress,
    )


def answers_to(
    prompts: Sequence[tuple[str, str]], model: Any, tokenizer: Any, form: PromptFormat, **settings: Any
) -> list[Example]:
    """Let a model answer (prompt, where it stands), greedily unless `settings` of `replies_of` say otherwise.

    Prompts that fill its context and blank answers are left out.
    """
    context = context_length(model)
    examples = [Example.of(prompt, "", where=where) for prompt, where in prompts]
    asked = [(example, form.prompt_ids(example.turns)) for example in examples]
    fitting = [(example, ids) for example, ids in asked if context is None or len(ids) < context]
    replies = replies_of(model, tokenizer, [ids for _, ids in fitting], **settings)
    return [
        Example(example.turns, reply, where=example.where)
        for (example, _), reply in zip(fitting, replies, strict=True)
        if reply.strip()
    ]
