"""The data of a training run: negatives and normals to train on, and some of each for validation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from unteach.data.encoded import Encoded, encode_all
from unteach.data.example import Example, Polarity
from unteach.data.overlap import split_by_prompt
from unteach.data.prompt_format import PromptFormat
from unteach.data.reading import reading_of
from unteach.data.sources import numbered_rows
from unteach.errors import ConfigError
from unteach.models.context import context_length
from unteach.training.config import MOST_TOKENS, UnlearnConfig

FEWEST_TO_SPLIT = 20
"""A set with fewer prompts is too small to split: validation then uses its training rows."""


@dataclass(frozen=True)
class TrainingData:
    """Rows as token ids, and what else is known before training begins.

    `form` is how they were tokenised. `key` is the fingerprint of the original's weights, empty where it is not known
    yet. `shares` are the shares of the rounds in which each negative is drawn, None where they are not known yet.
    `notes` are about rows that did not fit.
    """

    negatives: list[Encoded]
    normals: list[Encoded]
    validation_negatives: list[Encoded]
    validation_normals: list[Encoded]
    form: PromptFormat
    key: str = ""
    shares: Float[np.ndarray, " negative"] | None = None
    notes: list[str] = field(default_factory=list)


def training_data(
    forget: Any,
    retain: Any,
    validation_forget: Any,
    validation_retain: Any,
    form: PromptFormat,
    args: UnlearnConfig,
    key: str = "",
) -> TrainingData:
    """Encode the rows of a run, of at most `args.max_length` tokens.

    With stopping rules, at most `args.validation_prompts` rows of each set are for validation; where none are given, a
    tenth is held out from training.
    Raises DataError for rows that cannot be used.
    """
    hold_out, notes = args.validation_prompts if args.stopping else 0, list[str]()
    negatives = as_examples(forget, "negative", "forget_dataset", notes)
    normals = as_examples(retain, "normal", "retain_dataset", notes) if retain is not None else []
    for_negatives = as_examples(validation_forget, "negative", "forget_validation", notes) if validation_forget else []
    for_normals = as_examples(validation_retain, "normal", "retain_validation", notes) if validation_retain else []
    if hold_out and not for_negatives:
        negatives, for_negatives = _hold_out(negatives, args.seed)
    if hold_out and normals and not for_normals:
        normals, for_normals = _hold_out(normals, args.seed)

    def encoded(name: str, examples: Sequence[Example]) -> list[Encoded]:
        if not examples:
            return []
        rows, messages = encode_all(examples, form, args.max_length or MOST_TOKENS, name)
        notes.extend(messages)
        return rows

    return TrainingData(
        encoded("negatives", negatives),
        encoded("normals", normals),
        encoded("validation negatives", _spread(for_negatives, hold_out)),
        encoded("validation normals", _spread(for_normals, hold_out)),
        form,
        key,
        notes=notes,
    )


def encoded_rows(dataset: Any, form: PromptFormat, max_length: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return the (prompt ids, reply ids) of normal rows in any form that `UnlearnTrainer` takes."""
    if dataset and all(isinstance(row, Encoded) for row in dataset):
        return [row.ids for row in dataset]
    rows, _ = encode_all(as_examples(dataset, "normal", "eval_dataset"), form, max_length, "eval_dataset")
    return [row.ids for row in rows]


def longest_row(max_length: int | None, model: Any, most: int = MOST_TOKENS) -> int:
    """Return how many tokens prompt and reply may have together: `max_length`, else the context, but at most `most`.

    Raises ConfigError for more than the model's context holds.
    """
    context = context_length(model)
    if context and max_length and max_length > context:
        raise ConfigError(f"--max-length {max_length}: the model's context is {context} tokens; give {context} or less")
    return max_length or min(context or most, most)


def as_examples(dataset: Any, polarity: Polarity, name: str, notes: list[str] | None = None) -> list[Example]:
    """Return the examples of a list of `Example`, a list of rows or a `datasets.Dataset`; `notes` say how they read."""
    if dataset is None:
        raise ConfigError(f"{name} is missing; give a list of examples, a list of rows or a datasets.Dataset")
    rows = list(dataset)
    if rows and all(isinstance(row, Example) for row in rows):
        return rows
    reading = reading_of(name, numbered_rows(name, rows), polarity)
    if notes is not None:
        notes += [f"{name}: {note}" for note in (*reading.warnings, *reading.notes)]
    return reading.examples


def _hold_out(examples: list[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Split off a tenth for validation, by prompt."""
    if len({example.prompt_key for example in examples}) < FEWEST_TO_SPLIT:
        return examples, examples
    parts = split_by_prompt(examples, {"train": 0.9, "validation": 0.1}, seed)
    return parts["train"], parts["validation"]


def _spread(examples: Sequence[Example], count: int) -> list[Example]:
    """Take `count` examples at even distances, since files are often sorted by source."""
    if len(examples) <= count:
        return list(examples) if count else []
    return [examples[round(i * (len(examples) - 1) / max(1, count - 1))] for i in range(count)]
