"""How likely a model finds replies that are known, token by token."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from unteach.models.unwrap import unwrapped
from unteach.progress import OnProgress
from unteach.scoring.reference import Reference, one_branch
from unteach.scoring.score import greedy_hits, last_hidden_states, score
from unteach.scoring.trees import Tree, lay_out

BATCH_TOKENS, CPU_BATCH_TOKENS = 4096, 1024
"""Tokens of a batch; on a CPU, activations of fewer stay in its caches, which takes a sixth less time."""
MOST_TOKENS = 4096
"""Longest prompt and reply that are scored where nothing shorter is asked for."""


@dataclass(frozen=True)
class Likelihood:
    """Figures of known replies; one list a reply, one entry a token.

    `log_probs` in nats; `hits`: whether the token was the greedy choice after the true tokens before it; `kl`: mean
    over tokens of KL(original ‖ model), one number a reply, None where there was no reference.
    """

    log_probs: list[list[float]]
    hits: list[list[bool]]
    kl: list[float] | None


@torch.no_grad()
def teacher_forced_likelihood(
    model: Any,
    pairs: Sequence[tuple[tuple[int, ...], tuple[int, ...]]],
    pad_id: int,
    reference: Reference | None = None,
    first_key: int = 0,
    progress: OnProgress | None = None,
) -> Likelihood:
    """Score the reply of each (prompt ids, reply ids). `first_key` is the reference's key of the first pair.

    `progress` is called with (replies done, replies in all) after every batch.
    """
    log_probs: list[list[float]] = [[] for _ in pairs]
    hits: list[list[bool]] = [[] for _ in pairs]
    kl = [0.0] * len(pairs)
    trees = one_branch(pairs, "normal")
    device = next(unwrapped(model).parameters()).device
    done = 0
    for numbers in batches_of([len(prompt) + len(reply) for prompt, reply in pairs], device):
        keyed = [Tree(trees[n].prompt_ids, trees[n].branches, first_key + n) for n in numbers]
        batch = lay_out(keyed, pad_id).to(device)
        original = reference(batch) if reference else None
        live = last_hidden_states(model, batch)
        scores = score(live, batch.targets, original)
        greedy = greedy_hits(live, batch.targets)
        for place, number in enumerate(numbers):
            own = batch.branches == place
            log_probs[number] = scores.log_probs[own].tolist()
            hits[number] = greedy[own].tolist()
            if scores.kl is not None:
                kl[number] = max(0.0, float(scores.kl[own].mean()))
        done += len(numbers)
        if progress:
            progress(done, len(pairs))
    return Likelihood(log_probs, hits, kl if reference else None)


def batches_of(lengths: Sequence[int], device: torch.device) -> list[list[int]]:
    """Group row numbers by length so that a batch, padded, holds about as many tokens as suits the device."""
    most = CPU_BATCH_TOKENS if device.type == "cpu" else BATCH_TOKENS
    ordered = sorted(range(len(lengths)), key=lambda n: lengths[n])
    batches: list[list[int]] = [[]]
    for number in ordered:
        if batches[-1] and (len(batches[-1]) + 1) * lengths[number] > most:
            batches.append([])
        batches[-1].append(number)
    return [batch for batch in batches if batch]
