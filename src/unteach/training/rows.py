"""Rows to tune on, with their loss masks, and passes over them."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from unteach.data.encoded import Encoded, encode_all
from unteach.data.example import Example
from unteach.data.prompt_format import PromptFormat


@dataclass(frozen=True)
class TrainingRow:
    """A row to train on: `learnt[i]` says whether token i of prompt and reply has loss; `kind` names its kind."""

    kind: str
    encoded: Encoded
    learnt: tuple[bool, ...]

    @property
    def input_ids(self) -> tuple[int, ...]:
        """The prompt's and the reply's tokens."""
        return self.encoded.prompt_ids + self.encoded.reply_ids

    @property
    def labels(self) -> list[int]:
        """The tokens that are learnt, and −100 for the others."""
        return [token if learnt else -100 for token, learnt in zip(self.input_ids, self.learnt, strict=True)]


def fitting(
    kind: str, examples: Iterable[Example], form: PromptFormat, max_length: int, notes: list[str]
) -> list[Encoded]:
    """Encode rows that are not too long; the others are left out whole and named, since no trainer may cut a reply."""
    examples = list(examples)
    encoded, _ = encode_all(examples, form, 10**9, kind)
    kept = [row for row in encoded if row.length <= max_length]
    if len(kept) < len(encoded):
        first = next(row for row in encoded if row.length > max_length)
        notes.append(
            f"{kind} rows: left out {len(encoded) - len(kept)} of {len(encoded)} that are longer than the {max_length} "
            f"tokens of --max-length (first: {first.example.where or 'row 1'}, "
            f"{first.length} tokens)"
        )
    return kept


def repeated_to(rows: Sequence[TrainingRow], tokens: int, seed: int) -> list[TrainingRow]:
    """Return passes over the rows, each in its own order, until there are `tokens` tokens.

    The last row may exceed them, so there are at least `tokens` and less than a row more. Raises ValueError without
    rows.
    """
    if not rows:
        raise ValueError("no rows to repeat")
    laid: list[TrainingRow] = []
    total, turn = 0, 0
    while total < tokens:
        order = random.Random(f"pass:{seed}:{turn}").sample(rows, len(rows))
        for row in order:
            if total >= tokens:
                break
            laid.append(row)
            total += len(row.input_ids)
        turn += 1
    return laid
