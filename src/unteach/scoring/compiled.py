"""Compiled layers and head: the same scores from fewer kernels, while a training step runs.

torch.compile fuses what a layer does between its matrix products, and what the head does after its own: the cast, the
softmax, the reply token's log-probability and the KL. Every decoder layer is compiled by itself. All layers share one
graph, and what stands around them works as before: the hook at the output layer, lower layers that are left out
(`LowerStates`), an adapter that is switched off, checkpoints. Sizes are dynamic: batches of other widths need no other
graph.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from unteach.errors import ConfigError
from unteach.models.layers import decoder_layers
from unteach.models.unwrap import unwrapped
from unteach.scoring.agreement import alike
from unteach.scoring.lower import LowerStates, hidden_states
from unteach.scoring.score import CHUNK, score, score_chunk
from unteach.scoring.trees import TreeBatch

BACKEND = "inductor"
"""What makes kernels of a graph."""


class Compiled:
    """The decoder layers of a model and the head's chunks, compiled; with `flex`, on flex attention.

    Nothing is compiled before the first forward pass within `on`. Raises ConfigError for a model without a list of
    decoder layers, and for one that has no flex attention.
    """

    def __init__(self, model: Any, flex: bool = False) -> None:
        self._model = unwrapped(model)
        try:
            self._layers = decoder_layers(model)[1]
        except ConfigError:
            raise ConfigError(f"--compile: {type(self._model).__name__} has no list of layers; leave it out") from None
        if flex and not getattr(self._model, "_supports_flex_attn", False):
            raise ConfigError(f"--compile flex: {type(self._model).__name__} has no flex attention; use layers")
        self._forwards = [torch.compile(layer.forward, dynamic=True, backend=BACKEND) for layer in self._layers]
        self._chunk = torch.compile(score_chunk, dynamic=True, backend=BACKEND)
        self._attention = "flex_attention" if flex else None

    @contextmanager
    def on(self) -> Iterator[None]:
        """Within the block, the model's layers and `score` run compiled.

        A backward pass belongs in it too: layers that are checkpointed run again there. The model must not be copied
        within it, since the copy would run these layers.
        """
        config = self._model.config
        attention, token = config._attn_implementation, CHUNK.set(self._chunk)
        try:
            for layer, forward in zip(self._layers, self._forwards, strict=True):
                layer.forward = forward
            config._attn_implementation = self._attention or attention
            yield
        finally:
            config._attn_implementation = attention
            CHUNK.reset(token)
            for layer in self._layers:
                del layer.forward


def compiled_agree(model: Any, batch: TreeBatch, compiled: Compiled, lower: LowerStates | None) -> tuple[bool, float]:
    """Return whether a batch is scored alike by compiled layers, and the largest difference at a token, in nats.

    With gradients: in half precision, the kernels of training may round in another way than those without.
    """

    def scored() -> Tensor:
        with torch.enable_grad():
            return score(hidden_states(model, batch, lower), batch.targets).log_probs.detach()

    plain = scored()
    with compiled.on():
        return alike(scored(), plain, model)
