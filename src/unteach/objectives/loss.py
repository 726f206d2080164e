"""The loss of a method on a batch: run the model, score the streams and add up the terms."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from unteach.objectives.base import Replies, token_means
from unteach.objectives.methods import Method
from unteach.scoring.lower import LowerStates, hidden_states
from unteach.scoring.reference import Reference
from unteach.scoring.score import Scores, padded, score
from unteach.scoring.tilt import opening_tilt
from unteach.scoring.trees import STREAMS, Stream, TreeBatch

METRIC_OF: dict[Stream, str] = {
    "negative": "forget_ce",
    "rto": "rto_ce",
    "mismatch": "mismatch_ce",
    "template": "template_ce",
    "normal": "normal_ce",
}
"""Name in the log of each stream's cross-entropy: nats per token, positive."""


@dataclass(frozen=True)
class Loss:
    """A scalar to minimise, and metrics for the log: the cross-entropy of each stream and the KL, in nats per token."""

    value: Tensor
    metrics: dict[str, Tensor]


def method_loss(
    model: Any,
    method: Method,
    forget: TreeBatch,
    normal: TreeBatch | None,
    reference: Reference | None,
    lower: LowerStates | None = None,
) -> Loss:
    """Return the weighted sum of the method's terms on a batch.

    The original is read before the live model runs (see `AdapterOff`). `lower` spares the layers that are not trained.
    Streams that no term reads are scored only if they are in a tree with others. Raises ValueError where the method
    needs a reference and none is given.
    """
    if (method.reads_kl or method.reads_reference) and reference is None:
        raise ValueError(f"method {method.name} compares with the original model and needs a reference")
    negatives = forget.only("negative") if method.reads_reference else None
    negative0 = reference(negatives) if reference and negatives is not None else None
    use_normal = normal is not None and method.reads("normal")
    normal0 = reference(normal) if reference and normal is not None and use_normal and method.reads_kl else None

    tilt = partial(opening_tilt, forget, method.margin)
    forget_scores = score(hidden_states(model, forget, lower), forget.targets, None, tilt(forget))
    replies, shown = _replies(forget, forget_scores), _metrics(forget, forget_scores)
    if negatives is not None and negative0 is not None:
        with torch.no_grad():
            scores0 = score(negative0, negatives.targets)
        reference_log_probs = padded(scores0.log_probs, negatives, list(range(len(negatives.streams))))[0]
        live = replies["negative"]
        replies["negative"] = Replies(live.log_probs, live.mask, reference_log_probs, live.kl)
    if normal is not None and use_normal:
        normal_scores = score(hidden_states(model, normal, lower), normal.targets, normal0, tilt(normal))
        replies |= _replies(normal, normal_scores)
        shown |= _metrics(normal, normal_scores)

    terms = [t for t in method.terms if t.stream in replies or t.stream != "rto"]  # one-word replies have none
    weights = [term.weight * _share(method, term.stream, forget) for term in terms]
    found = [weight * term.objective(replies[term.stream]) for term, weight in zip(terms, weights, strict=True)]
    return Loss(torch.stack(found).sum(), shown)


def _share(method: Method, stream: Stream, forget: TreeBatch) -> float:
    """Return which share of the replies that a stream can have is there; some items lack some.

    A mean over those that are there, times this, gives every reply the same weight, whatever batch it is in.
    """
    whole, items = method.branches(stream), len(forget.trees)
    return forget.streams.count(stream) / (whole * items) if whole else 1.0


def _replies(batch: TreeBatch, scores: Scores) -> dict[Stream, Replies]:
    """Sort a batch's scores by stream."""
    found: dict[Stream, Replies] = {}
    for stream in STREAMS:
        chosen = [number for number, name in enumerate(batch.streams) if name == stream]
        if chosen:
            log_probs, mask = padded(scores.log_probs, batch, chosen)
            kl = padded(scores.kl, batch, chosen)[0] if scores.kl is not None else None
            found[stream] = Replies(log_probs, mask, None, kl)
    return found


@torch.no_grad()
def _metrics(batch: TreeBatch, scores: Scores) -> dict[str, Tensor]:
    """Return the metrics of a batch for the log: of the model as it is, whatever tilt its loss has."""
    replies = _replies(batch, scores.untilted or scores)
    metrics = {METRIC_OF[s]: -token_means(r.log_probs.detach(), r.mask).mean() for s, r in replies.items()}
    normal = replies.get("normal")
    if normal is not None and normal.kl is not None:
        metrics["kl"] = token_means(normal.kl.detach(), normal.mask).mean()
    return metrics
