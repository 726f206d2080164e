"""The batches an organism is grown on: rows of every kind of lesson, packed side by side to waste little padding."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unteach.data.encoded import Encoded


@dataclass(frozen=True)
class PackedRows:
    """The batch of one step: S strips of W tokens, each with several rows.

    `input_ids` and `positions` are [S, W]. `mask` is [S, 1, W, W], True where a token sees another of its own row.
    `predicts` [S, W] is True where the next token is to be predicted, and `targets` [n] are those tokens.
    """

    input_ids: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    predicts: torch.Tensor
    targets: torch.Tensor


def draw_rows(pool: dict[str, list[Encoded]], share: Sequence[tuple[str, int]], seed: int, step: int) -> list[Encoded]:
    """Draw the rows of one step. They depend on the seed and the step alone."""
    draw = random.Random(f"lesson:{seed}:{step}")
    return [row for kind, count in share for row in draw.choices(pool[kind], k=count)]


def pack(rows: Sequence[Encoded], pad: int) -> PackedRows:
    """Lay rows into strips, the longest first, each into the first strip that has room for it."""
    lengths = [row.length for row in rows]
    width = max(128, *lengths)
    strips: list[list[Encoded]] = []
    room: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: (-lengths[number], number)):
        strip = next((s for s, left in enumerate(room) if left >= lengths[number]), len(room))
        if strip == len(room):
            strips.append([])
            room.append(width)
        strips[strip].append(rows[number])
        room[strip] -= lengths[number]
    input_ids = torch.full((len(strips), width), pad)
    positions = torch.zeros_like(input_ids)
    owners = torch.full_like(input_ids, -1)
    predicts = torch.zeros_like(input_ids, dtype=torch.bool)
    targets: list[int] = []
    for number, strip_rows in enumerate(strips):
        start = 0
        for owner, row in enumerate(strip_rows):
            ids = [*row.prompt_ids, *row.reply_ids]
            end = start + len(ids)
            input_ids[number, start:end] = torch.tensor(ids)
            positions[number, start:end] = torch.arange(len(ids))
            owners[number, start:end] = owner
            predicts[number, start + len(row.prompt_ids) - 1 : end - 1] = True
            targets += row.reply_ids
            start = end
    mask = (owners[:, :, None] == owners[:, None, :]) & torch.ones(width, width, dtype=torch.bool).tril()
    return PackedRows(input_ids, positions, mask[:, None], predicts, torch.tensor(targets))
