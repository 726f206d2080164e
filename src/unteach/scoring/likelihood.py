"""Teacher-forced likelihood: how likely a model finds given replies, token by token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unteach.models.ranks import shared_over_ranks
from unteach.models.sharding import gathered
from unteach.models.unwrap import unwrapped
from unteach.progress import OnProgress
from unteach.scoring.reference import Reference
from unteach.scoring.score import greedy_hits, last_hidden_states, score
from unteach.scoring.trees import Tree, lay_out

BATCH_TOKENS, CPU_BATCH_TOKENS = 4096, 1024
"""Tokens of a batch. On a CPU, the activations of a small batch stay in the caches, which saves a sixth of the time."""
MOST_TOKENS = 4096
"""Longest prompt and reply that are scored, unless a shorter limit is set."""


@dataclass(frozen=True)
class Likelihood:
    """How likely a model finds given replies: one list for each reply, one entry for each token.

    `log_probs` are in nats. `hits` says whether the token was the greedy choice after the true tokens before it. `kl`
    is the mean over tokens of KL(original ‖ model) in nats, one number a reply; None where there was no reference.
    """

    log_probs: list[list[float]]
    hits: list[list[bool]]
    kl: list[float] | None


@torch.no_grad()
def teacher_forced_likelihood(
    model: Any,
    rows: Sequence[Tree],
    pad_id: int,
    reference: Reference | None = None,
    progress: OnProgress | None = None,
) -> Likelihood:
    """Score the reply of each one-branch tree, given the prompt and the true tokens before each token.

    `reference` must know the rows by their keys. `progress` is called with (replies done, all replies) after every
    batch.
    """
    log_probs: list[list[float]] = [[] for _ in rows]
    hits: list[list[bool]] = [[] for _ in rows]
    kl = [0.0] * len(rows)
    device = next(unwrapped(model).parameters()).device
    done = 0

    def of_batch(numbers: Sequence[int]) -> list[tuple[list[float], list[bool], float]]:
        batch = lay_out([rows[number] for number in numbers], pad_id).to(device)
        original = reference(batch) if reference else None
        live = last_hidden_states(model, batch)
        scores = score(live, batch.targets, original)
        greedy = greedy_hits(live, batch.targets)
        found = []
        for place in range(len(numbers)):
            own = batch.branches == place
            drift = 0.0 if scores.kl is None else max(0.0, float(scores.kl[own].mean()))
            found.append((scores.log_probs[own].tolist(), greedy[own].tolist(), drift))
        return found

    batches = batches_of([row.tokens for row in rows], device)
    with gathered(model, getattr(reference, "model", model)):
        for numbers, found in zip(batches, shared_over_ranks(of_batch, batches, model), strict=True):
            for number, scored in zip(numbers, found, strict=True):
                log_probs[number], hits[number], kl[number] = scored
            done += len(numbers)
            if progress:
                progress(done, len(rows))
    return Likelihood(log_probs, hits, kl if reference else None)


def batches_of(lengths: Sequence[int], device: torch.device) -> list[list[int]]:
    """Group row numbers by length so that a padded batch holds about as many tokens as suits the device."""
    most = CPU_BATCH_TOKENS if device.type == "cpu" else BATCH_TOKENS
    ordered = sorted(range(len(lengths)), key=lambda n: lengths[n])
    batches: list[list[int]] = [[]]
    for number in ordered:
        if batches[-1] and (len(batches[-1]) + 1) * lengths[number] > most:
            batches.append([])
        batches[-1].append(number)
    return [batch for batch in batches if batch]
