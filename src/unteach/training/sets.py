"""The four sets of a training run: negatives and normals to train on, and some of each held out for stopping."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from unteach.data.encoded import Encoded, encode_all
from unteach.data.example import Example
from unteach.data.formats import Polarity, examples_of
from unteach.data.overlap import split_by_prompt
from unteach.data.prompt_format import PromptFormat
from unteach.data.sources import numbered_rows
from unteach.errors import ConfigError

FEWEST_TO_SPLIT = 20
"""Sets with fewer prompts are too small to part; the stopping rules then look at training rows."""


@dataclass
class TrainingSets:
    """Tokenised rows, and notes on rows that did not fit."""

    negatives: list[Encoded]
    normals: list[Encoded]
    validation_negatives: list[Encoded]
    validation_normals: list[Encoded]
    notes: list[str] = field(default_factory=list)


def training_sets(
    forget: Any,
    retain: Any,
    validation_forget: Any,
    validation_retain: Any,
    *,
    prompt_format: PromptFormat,
    max_length: int,
    hold_out: int,
    seed: int,
) -> TrainingSets:
    """Encode a run's sets; up to `hold_out` rows of each are held out, from the training set where none are given.

    Raises DataError for rows that cannot be used.
    """
    negatives = as_examples(forget, "negative", "forget_dataset")
    normals = as_examples(retain, "normal", "retain_dataset") if retain is not None else []
    validation_negatives = as_examples(validation_forget, "negative", "forget_validation") if validation_forget else []
    validation_normals = as_examples(validation_retain, "normal", "retain_validation") if validation_retain else []
    if hold_out and not validation_negatives:
        negatives, validation_negatives = _held_out(negatives, seed)
    if hold_out and normals and not validation_normals:
        normals, validation_normals = _held_out(normals, seed)
    sets = TrainingSets([], [], [], [])
    for name, examples in (
        ("negatives", negatives),
        ("normals", normals),
        ("validation_negatives", _some(validation_negatives, hold_out)),
        ("validation_normals", _some(validation_normals, hold_out)),
    ):
        if examples:
            rows, messages = encode_all(examples, prompt_format, max_length, name.replace("held_", "held-out "))
            setattr(sets, name, rows)
            sets.notes += messages
    return sets


def as_examples(dataset: Any, polarity: Polarity, name: str) -> list[Example]:
    """Return the examples of a list of `Example`, a list of rows or a `datasets.Dataset`."""
    if dataset is None:
        raise ConfigError(f"{name} is missing; give a list of examples, a list of rows or a datasets.Dataset")
    rows = list(dataset)
    if rows and all(isinstance(row, Example) for row in rows):
        return rows
    return examples_of(name, numbered_rows(name, rows), polarity)


def _held_out(examples: list[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """Part a tenth off by prompt."""
    if len({example.prompt_key for example in examples}) < FEWEST_TO_SPLIT:
        return examples, examples
    parts = split_by_prompt(examples, {"train": 0.9, "held": 0.1}, seed)
    return parts["train"], parts["held"]


def _some(examples: Sequence[Example], count: int) -> list[Example]:
    """Take `count` examples evenly from all over the list: files come sorted by source."""
    if len(examples) <= count:
        return list(examples) if count else []
    return [examples[round(i * (len(examples) - 1) / max(1, count - 1))] for i in range(count)]
