"""Preconditioned steps: short in the directions that normal rows use, long in the others.

A change D of a layer y = Wx changes its outputs on normal rows by Dx. The size of Dx depends on the directions of x in
which D lies: those in which normal rows hardly vary cost nearly nothing. So before training, while the original reads
normal rows, the second moments of each layer's inputs are collected and decomposed: E[xxᵀ] = Q diag(λ) Qᵀ. Adam then
runs in the basis Q with a step of its own in each direction, in proportion to (λ/λ̄ + δ)^-½. This is the input half of
K-FAC's preconditioner with the Fisher matrix of the normal rows, which approximates the KL to the original near it.

Source: K-FAC (arXiv 1503.05671) for the factor, SOAP (arXiv 2409.11321) for Adam in its eigenbasis. Gradient projection
memory (arXiv 2103.09762) and AlphaEdit (2410.02355) allow steps only into the null space of what must stay. Differs:
damped instead of cut off, fixed before training, and from the rows that must stay alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from unteach.errors import ConfigError
from unteach.models.unwrap import is_sharded, unwrapped
from unteach.scoring.likelihood import batches_of
from unteach.scoring.score import last_hidden_states
from unteach.scoring.trees import Tree, lay_out
from unteach.training.config import UnlearnConfig

DAMPING = 0.01
"""δ: no direction's step is longer than that of a direction with this share of the mean variance."""
REACH = 1.6
"""Root mean square of a layer's steps, relative to the learning rate; above 1, since short steps leave room for it."""
WIDEST = 8192
"""Widest input whose moments are decomposed; a wider layer keeps its own coordinates."""
MOST_TOKENS = 100_000
"""Most tokens of normal rows that the original reads for this."""
ADAMS = ("adamw_torch", "adamw_torch_fused")
"""Optimizers, as transformers names them, that `PreconditionedAdam` may replace."""


@dataclass(frozen=True)
class Directions:
    """How a weight's inputs vary on normal rows: an orthonormal basis (None: their own coordinates) and a step in each.

    `steps` are relative to the learning rate. `axis` is the weight's dimension that the inputs come in on.
    """

    steps: Float[Tensor, " input"]
    basis: Float[Tensor, "input input"] | None
    axis: int = 1

    @classmethod
    def of(cls, moments: Float[Tensor, "input input"]) -> "Directions":
        """Decompose second moments; a vector holds those of each coordinate."""
        if moments.dim() == 1:
            variances, basis = moments.double(), None
        else:
            variances, basis = torch.linalg.eigh(moments.double())
            basis = basis.to(moments.dtype)
        shares = (variances / variances.mean()).clamp(min=0)
        steps = (shares + DAMPING).rsqrt()
        return cls((REACH * steps / steps.square().mean().sqrt()).to(moments.dtype), basis)

    def to(self, dtype: torch.dtype) -> "Directions":
        """Return them in another precision."""
        return replace(self, steps=self.steps.to(dtype), basis=None if self.basis is None else self.basis.to(dtype))

    def into(self, weight: Tensor) -> Tensor:
        """Return a weight, or its gradient, with the directions as columns."""
        columns = weight if self.axis == 1 else weight.T
        return columns if self.basis is None else columns @ self.basis

    def out_of(self, columns: Tensor) -> Tensor:
        """Undo `into`, each direction stretched by its step."""
        stretched = columns * self.steps
        weight = stretched if self.basis is None else stretched @ self.basis.T
        return weight if self.axis == 1 else weight.T


@torch.no_grad()
def directions_of(model: Any, rows: Sequence[Tree], pad_id: int) -> tuple[dict[Tensor, Directions], int]:
    """Collect the inputs of the linear layers of `model`, except its head, while it reads `rows`.

    Returns the directions by weight and the number of tokens read. Layers of another kind, such as the stacked experts
    of some mixtures, and layers that no row reaches have none.
    """
    model = unwrapped(model)
    head = model.get_output_embeddings()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | Conv1D) and m is not head]
    moments: dict[nn.Module, Tensor] = {}
    read = 0

    def collect(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        states = inputs[0].detach()  # a mixture's experts get only their own tokens, in no order
        seen = (states[kept] if states.shape[:2] == kept.shape else states.flatten(0, -2)).float()
        moment = seen.T @ seen if seen.shape[1] <= WIDEST else seen.square().sum(dim=0)
        moments[layer] = moments[layer] + moment if layer in moments else moment

    handles = [layer.register_forward_pre_hook(collect) for layer in layers]
    try:
        chosen = rows_read(rows)
        for numbers in batches_of([row.tokens for row in chosen], model.device):
            batch = lay_out([chosen[number] for number in numbers], pad_id).to(model.device)
            kept = batch.segments >= 0
            last_hidden_states(model, batch)
            read += batch.token_count
    finally:
        for handle in handles:
            handle.remove()
    found: dict[Tensor, Directions] = {}
    last: tuple[Tensor, Directions] | None = None
    for layer, moment in moments.items():
        if not (isinstance(layer.weight, Tensor) and bool(moment.any())):
            continue
        if last is None or not torch.equal(last[0], moment):  # queries, keys and values have the same inputs
            last = moment, Directions.of(moment).to(layer.weight.dtype)
        found[layer.weight] = replace(last[1], axis=0 if isinstance(layer, Conv1D) else 1)
    return found, read


def rows_read(rows: Sequence[Tree]) -> list[Tree]:
    """Return the rows up to the one that reaches `MOST_TOKENS`, inclusive."""
    before = accumulate((row.tokens for row in rows), initial=0)
    return [row for row, tokens in zip(rows, before, strict=False) if tokens < MOST_TOKENS]


class PreconditionedAdam(torch.optim.Optimizer):
    """Adam that keeps its moments and takes its steps in the `Directions` of a weight, where it has any.

    Other parameters take Adam's ordinary steps. Weight decay is decoupled, as in AdamW.
    """

    def __init__(
        self,
        groups: Any,
        directions: dict[Tensor, Directions],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self._directions = directions
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Make one step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group)
        return loss

    def _move(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        directions, state = self._directions.get(weight), self.state[weight]
        gradient = directions.into(gradient) if directions else gradient
        if not state:
            state["step"] = torch.tensor(0.0)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        state["step"] += 1
        (beta1, beta2), taken = group["betas"], float(state["step"])
        state["exp_avg"].lerp_(gradient, 1 - beta1)
        state["exp_avg_sq"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        spread = (state["exp_avg_sq"] / (1 - beta2**taken)).sqrt_().add_(group["eps"])
        move = state["exp_avg"] / (1 - beta1**taken) / spread
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(directions.out_of(move) if directions else move, alpha=group["lr"])


def is_preconditioned(model: Any, args: UnlearnConfig, default: bool, normals: int, own_optimizer: bool) -> bool:
    """Return whether steps are preconditioned: if the user or the method (`default`) asks for it and it is possible.

    Raises ConfigError where the user asks for it and it is not possible.
    """
    wanted = args.preconditioning
    if not (default if wanted is None else wanted):
        return False
    reason = _hindrance(model, args, normals, own_optimizer)
    if reason and wanted:
        raise ConfigError(f"--preconditioning: {reason}; leave it out")
    return reason is None


def _hindrance(model: Any, args: UnlearnConfig, normals: int, own_optimizer: bool) -> str | None:
    """Return why steps cannot be preconditioned in this run; None where they can."""
    if hasattr(unwrapped(model), "peft_config"):
        return "an adapter is trained, not the model's own weights"
    if not normals:
        return "there are no normal rows"
    if own_optimizer:
        return "an optimizer was given"
    if args.optim not in ADAMS:
        return "the optimizer is not Adam"
    if getattr(args, "fsdp", None) or getattr(args, "deepspeed", None) or is_sharded(unwrapped(model)):
        return "the weights are sharded"
    return None


def freeze_embeddings(model: Any) -> None:
    """Stop training the embeddings and the head, where each token has its own row and no direction is free."""
    model = unwrapped(model)
    for layer in [*(m for m in model.modules() if isinstance(m, nn.Embedding)), model.get_output_embeddings()]:
        for weight in layer.parameters():
            weight.requires_grad_(False)
