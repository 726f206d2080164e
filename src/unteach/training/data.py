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
from unteach.training.draws import HALF

FEWEST_TO_SPLIT = 20
"""A set with fewer prompts is too small to split: validation then uses its training rows."""
VALIDATION = 0.1
"""Share of a set's prompts that is held out for validation; a small set gives up to twice that."""
FEWEST_NEGATIVES, FEWEST_NORMALS = 64, 20
"""Prompts that validation should have, where twice the share holds so many.

With 32 negatives in each half and none bad, the 95 % interval ends below 11 %, where the stopping rules ask for it. A
mean KL needs fewer rows.
"""


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

    With stopping rules, at most `args.validation_prompts` rows of each set are for validation; where none are given,
    they are held out from training (`validation_share`).
    Raises DataError for rows that cannot be used.
    """
    hold_out, notes = args.validation_prompts if args.stopping else 0, list[str]()
    negatives = as_examples(forget, "negative", "forget_dataset", notes)
    normals = as_examples(retain, "normal", "retain_dataset", notes) if retain is not None else []
    for_negatives = as_examples(validation_forget, "negative", "forget_validation", notes) if validation_forget else []
    for_normals = as_examples(validation_retain, "normal", "retain_validation", notes) if validation_retain else []
    if hold_out and not for_negatives:
        negatives, for_negatives = _hold_out(negatives, hold_out, FEWEST_NEGATIVES, args.seed)
    if hold_out and normals and not for_normals:
        normals, for_normals = _hold_out(normals, hold_out, FEWEST_NORMALS, args.seed)

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


def validation_share(prompts: int, most: int, fewest: int) -> float:
    """Return the share of a set's prompts to hold out for validation, of which there shall be `fewest` to `most`."""
    return min(max(VALIDATION, min(2 * VALIDATION, fewest / prompts)), most / prompts)


def halves(negatives: Sequence[Encoded], seed: int) -> tuple[list[Encoded], list[Encoded]]:
    """Draw half A and half B of the validation negatives; rows with the same prompt stay together."""
    prompts = list(dict.fromkeys(row.prompt_ids for row in negatives))
    drawn = np.random.default_rng([seed, HALF]).permutation(len(prompts))
    in_a = {prompts[i] for i in drawn[: (len(prompts) + 1) // 2]}
    a = [row for row in negatives if row.prompt_ids in in_a]
    return a, [row for row in negatives if row.prompt_ids not in in_a]


def _hold_out(examples: list[Example], most: int, fewest: int, seed: int) -> tuple[list[Example], list[Example]]:
    """Split off rows for validation, by prompt."""
    prompts = len({example.prompt_key for example in examples})
    if prompts < FEWEST_TO_SPLIT:
        return examples, examples
    share = validation_share(prompts, most, fewest)
    parts = split_by_prompt(examples, {"train": 1 - share, "validation": share}, seed)
    return parts["train"], parts["validation"]


def _spread(examples: Sequence[Example], count: int) -> list[Example]:
    """Take `count` examples at even distances, since files are often sorted by source."""
    if len(examples) <= count:
        return list(examples) if count else []
    return [examples[round(i * (len(examples) - 1) / max(1, count - 1))] for i in range(count)]
