"""What training a model takes on each of many cards: memory, traffic and the time of a step, on paper.

All formulas stand here, and tests/test_growth.py checks them against what torch allocates and gloo sends on a tiny
model. Bytes a parameter, for full tuning with Adam: 4 weights, 4 gradients, 8 moments, all in float32, as `unteach run`
holds them (arXiv 1910.02054, section 3.1, has 2 + 2 + 12). DeepSpeed holds the weights of its part a second time.
"""

from dataclasses import dataclass
from typing import Literal

from unteach.models.outline import Outline
from unteach.scoring.score import CHUNK_BYTES

Strategy = Literal["DDP", "ZeRO-2", "ZeRO-3", "FSDP2"]
Tuning = Literal["full", "lora", "qlora"]
STRATEGIES: tuple[Strategy, ...] = ("DDP", "ZeRO-2", "ZeRO-3", "FSDP2")
TUNINGS: tuple[Tuning, ...] = ("full", "lora", "qlora")
ALLOWED: dict[Tuning, tuple[Strategy, ...]] = {
    "full": STRATEGIES,
    "lora": STRATEGIES,
    "qlora": ("DDP", "FSDP2"),  # DeepSpeed does not shard packed weights by layer
}
REFUSED: tuple[tuple[Tuning, Strategy], ...] = (("qlora", "FSDP2"), ("lora", "ZeRO-3"))
"""What is planned and cannot be run (`unteach.pipeline.sharding`)."""
FOUR_BITS = 0.5 + 1 / 64 + 1 / 4096
"""Bytes of a packed weight: half a byte, a byte of scale for 64, and four bytes for 256 of these (arXiv 2305.14314)."""
LOGITS = 3
"""Chunks of float32 logits that live at once: the logits, their softmax and their gradient."""
FREE = 0.1
"""Share of a card that is left for the context of CUDA, buffers of NCCL and what falls between allocations."""


@dataclass(frozen=True)
class Cluster:
    """`nodes` machines with `gpus` cards each; bytes of a card, FLOP/s of a card, and bytes/s that leave a card."""

    nodes: int
    gpus: int
    memory: float
    throughput: float
    bandwidth: float

    @property
    def cards(self) -> int:
        """All cards."""
        return self.nodes * self.gpus


@dataclass(frozen=True)
class Memory:
    """Bytes on one card while a step is made; `activations` without checkpointing and `checkpointed` with it."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float
    checkpointed: float
    logits: float
    reference: float = 0.0

    @property
    def fixed(self) -> float:
        """All that does not depend on the batch."""
        return self.weights + self.gradients + self.optimizer + self.gathered + self.logits + self.reference

    def whole(self, checkpointing: bool) -> float:
        """Return the sum."""
        return self.fixed + (self.checkpointed if checkpointing else self.activations)


def memory_of(
    outline: Outline, strategy: Strategy, tuning: Tuning, cards: int, tokens: float, frozen_copy: bool = False
) -> Memory:
    """Return what a card holds, where `tokens` are those of one micro-batch on it.

    `outline` must have the adapter unless the tuning is full. Activations are in two-byte numbers but for full tuning,
    which computes in float32. Under FSDP2 an adapter is whole on every card.
    """
    count, trained = outline.parameters, outline.trained
    shared = cards if strategy in ("ZeRO-3", "FSDP2") else 1  # who holds a part of the weights
    whole = strategy == "DDP" or (strategy == "FSDP2" and tuning != "full")
    parted = 1 if whole else cards  # who holds a part of gradients and moments
    buckets = 4.0 * trained if strategy == "DDP" and cards > 1 else 0.0
    again = 4.0 * trained / cards if strategy.startswith("ZeRO") else 0.0  # the weights that DeepSpeed's Adam moves
    wide = 2.0 if tuning == "full" else 1.0
    if tuning == "full":
        weights = 4.0 * count / shared
    else:
        base = 2.0 * count
        if tuning == "qlora":
            base = FOUR_BITS * outline.linear + 2.0 * (count - outline.linear)
        weights = base / shared + 4.0 * trained / (parted if shared > 1 else 1)
    unpacked = 2.0 * outline.layer if tuning == "qlora" else 0.0
    unit = 2.0 * wide * max(2 * outline.layer, outline.layer + outline.outside)  # one in use, the next one on its way
    alive = wide * tokens
    return Memory(
        weights=weights + again,
        gradients=4.0 * trained / parted,
        optimizer=8.0 * trained / parted,
        gathered=(unit if shared > 1 else unpacked) + buckets,
        activations=alive * outline.activations,
        checkpointed=alive * (outline.entering + outline.activations / outline.layers),
        logits=float(LOGITS * CHUNK_BYTES),
        reference=2.0 * wide * count / shared if frozen_copy else 0.0,
    )


def traffic_of(
    outline: Outline, strategy: Strategy, tuning: Tuning, cards: int, passes: int = 4, batches: int = 1
) -> float:
    """Return the bytes that each card sends for one optimizer step, by rings.

    `passes` are those in which every weight is read, forward or backward: sharded weights are gathered for each. A ring
    over n cards passes on (n − 1)/n of what it gathers or reduces; an all-reduce is both (arXiv 1910.02054, section 7).
    DDP, and FSDP2 for an adapter, reduce gradients once a step, whatever the number of `batches` that are accumulated.
    Gradients, and weights that are trained themselves, are in float32.
    """
    ring, count, trained = (cards - 1) / cards, outline.parameters, outline.trained
    reduced = ring * 4.0 * trained * batches
    if strategy == "DDP" or (strategy == "FSDP2" and tuning != "full"):
        reduced = ring * 2 * 4.0 * trained
    if strategy == "DDP":
        return reduced
    if strategy == "ZeRO-2":
        return reduced + ring * 4.0 * trained
    held = (4.0 if tuning == "full" else 2.0) * count
    if tuning == "qlora":
        held = FOUR_BITS * outline.linear + 2.0 * (count - outline.linear)
    return reduced + ring * held * passes * batches


@dataclass(frozen=True)
class StepTime:
    """Seconds of one optimizer step: computing, sending, and both, overlapped as far as may be or not at all."""

    computing: float
    sending: float

    @property
    def best(self) -> float:
        """The longer of both."""
        return max(self.computing, self.sending)

    @property
    def worst(self) -> float:
        """One after the other."""
        return self.computing + self.sending


def step_time(flops: float, traffic: float, cluster: Cluster, checkpointing: bool = False) -> StepTime:
    """Return the time of a step of so many FLOPs on all cards together, of which each sends so many bytes.

    Checkpointing computes the forward pass again: a third more of a step with as much backward as two forward passes.
    """
    again = 4 / 3 if checkpointing else 1.0
    return StepTime(again * flops / (cluster.cards * cluster.throughput), traffic / cluster.bandwidth)


@dataclass(frozen=True)
class Choice:
    """The strategy that a plan would take; None where nothing fits."""

    strategy: Strategy | None
    tuning: Tuning
    checkpointing: bool = False


def choose(outline: Outline, tuning: Tuning, cluster: Cluster, tokens: float, frozen_copy: bool = False) -> Choice:
    """Return the first that fits into the cards, with a tenth of each left free.

    In this order: DDP, which sends least; then ZeRO-2; then FSDP2, which sends most, before
    ZeRO-3, which holds as much and is another library. Each is tried without checkpointing, which costs a third more
    computing, and with it, before the next.
    """
    room = (1 - FREE) * cluster.memory
    for strategy in ("DDP", "ZeRO-2", "FSDP2", "ZeRO-3"):
        if strategy not in ALLOWED[tuning] or (cluster.cards == 1 and strategy != "DDP"):
            continue
        for checkpointing in (False, True):
            held = memory_of(outline, strategy, tuning, cluster.cards, tokens, frozen_copy)
            if held.whole(checkpointing) <= room:
                return Choice(strategy, tuning, checkpointing)
    return Choice(None, tuning)
