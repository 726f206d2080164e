"""RepSelect's mathematics: a direction in the MLP weights along which the bad replies are forgotten.

Source: arXiv 2606.17168, with the authors' code (github.com/filyp/RepSelect). A throw-away LoRA learns the bad
replies; with it on, one pass takes the gradient of their negative log-likelihood (NLL) by the MLP weights; it is
removed; in each matrix the strongest components of a gradient, which other knowledge shares, are collapsed. What is
left is the direction: moving along it makes the bad replies less likely, and disturbs the rest little.

The paper collapses the components of that very gradient, in the form "soft". The authors' code now collapses those of
the gradient of normal rows, in the form "quadratic", by default, and so does this file; it can do both.

Differs: each reply counts its mean over tokens, and all replies count alike (there: all tokens of a batch). The number
of components follows the matrix, an eighth of its smaller side, where the paper has 512 at a width of 4096. The SVD is
taken with a few components more than are used, as its authors advise. The direction as a whole is brought to the norm
of the weights, so that a scale of 0.01 moves them by a hundredth.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from unteach.errors import ConfigError, ModelError
from unteach.models.layers import decoder_layers
from unteach.models.unwrap import unwrapped
from unteach.objectives.base import token_means
from unteach.progress import OnProgress
from unteach.scoring.score import last_hidden_states, padded, score
from unteach.scoring.trees import TreeBatch
from unteach.training.selection import Form, Selection, Sides

RANK = 8
"""Rank of the throw-away LoRA: PEFT's default, which the authors take, with a scale of 1."""
MOST_COMPONENTS, SHARE = 512, 8
"""Components that are collapsed in a matrix: one for every `SHARE` of its smaller side, and this many at most."""
EXTRA = 8
"""Components that the randomised SVD finds beside those that are used: its last ones are inexact."""
NOTHING = 1e-6
"""Singular values below this share of the largest are rounding: such components hold nothing to collapse."""

_MLP = re.compile(r"(^|\.)([a-z_]*mlp[a-z_]*|feed_forward|ffn|ff|fc\d|fc_in|fc_out)(\.|$)", re.IGNORECASE)


def mlp_modules(model: Any) -> dict[str, nn.Module]:
    """Return the linear modules of every layer's MLP (gate, up and down) whose weights are trained, by name.

    Raises ModelError where there are none, as in a mixture of experts whose experts share one tensor.
    """
    from transformers.pytorch_utils import Conv1D

    model = unwrapped(model)
    names = {module: name for name, module in model.named_modules()}
    found, shared = {}, False
    for layer in decoder_layers(model)[1]:
        shared |= any(weight.ndim == 3 and _MLP.search(path) for path, weight in layer.named_parameters())
        for path, module in layer.named_modules():
            if isinstance(module, nn.Linear | Conv1D) and _MLP.search(path) and module.weight.requires_grad:
                found[names[module]] = module
    if shared or not found:
        raise ModelError(
            f"--method repselect: {type(model).__name__} has no MLP of linear layers that are trained; "
            "choose --method template"
        )
    return found


# ---- the gradient ----------------------------------------------------------------------------------------------------


def mean_nll(model: Any, batch: TreeBatch) -> Float[Tensor, ""]:
    """Return the negative log-likelihood of a batch's replies: mean over replies of means over tokens, in nats."""
    log_probs = score(last_hidden_states(model, batch), batch.targets).log_probs
    return -token_means(*padded(log_probs, batch, list(range(len(batch.streams))))).mean()


@contextmanager
def low_rank_added(modules: Sequence[nn.Module], seed: int) -> Iterator[list[nn.Parameter]]:
    """Add B·A to the weights of modules within the block; yields all A and B. A is random, and B begins at 0.

    Source: arXiv 2106.09685, as PEFT begins it. The modules themselves are not changed.
    """
    drawn = torch.Generator().manual_seed(seed)
    factors: list[nn.Parameter] = []
    handles = []
    for module in modules:
        weight: Any = module.weight
        inner, outer = weight.shape[::-1] if isinstance(module, nn.Linear) else weight.shape
        a = (2 * torch.rand(RANK, inner, generator=drawn) - 1) / inner**0.5
        pair = [nn.Parameter(part.to(weight)) for part in (a, torch.zeros(outer, RANK))]
        factors += pair
        handles.append(module.register_forward_hook(_adding(*pair)))
    try:
        yield factors
    finally:
        for handle in handles:
            handle.remove()


def _adding(a: Tensor, b: Tensor) -> Any:
    """Return a forward hook that adds B·A·input to what a module gives."""
    return lambda _, inputs, output: output + nn.functional.linear(nn.functional.linear(inputs[0], a), b)


@contextmanager
def only_trained(model: Any, wanted: Sequence[Tensor]) -> Iterator[None]:
    """Let only these tensors have gradients within the block."""
    before = [(weight, weight.requires_grad) for weight in unwrapped(model).parameters()]
    try:
        for weight, _ in before:
            weight.requires_grad_(False)
        for weight in wanted:
            weight.requires_grad_(True)
        yield
    finally:
        for weight, trained in before:
            weight.requires_grad_(trained)
            weight.grad = None


def elicit(
    model: Any, batches: Sequence[TreeBatch], factors: Sequence[nn.Parameter], rate: float, progress: OnProgress
) -> None:
    """Make the bad replies likelier: one step of SGD on the factors of a LoRA for each batch."""
    with only_trained(model, factors):
        for number, batch in enumerate(batches, start=1):
            mean_nll(model, batch).backward()
            with torch.no_grad():
                for factor in factors:
                    if factor.grad is not None:
                        factor.sub_(factor.grad, alpha=rate)
                    factor.grad = None
            progress(number, len(batches))


def nll_gradients(
    model: Any, batches: Sequence[TreeBatch], weights: Mapping[str, Tensor], progress: OnProgress
) -> dict[str, Tensor]:
    """Return the gradient of the mean NLL of all replies by each weight, by its name, in float32."""
    replies = sum(len(batch.streams) for batch in batches)
    with only_trained(model, list(weights.values())):
        for number, batch in enumerate(batches, start=1):
            (mean_nll(model, batch) * (len(batch.streams) / replies)).backward()
            progress(number, len(batches))
        return {name: weight.grad.float() for name, weight in weights.items() if weight.grad is not None}


# ---- the collapse ----------------------------------------------------------------------------------------------------


def components_of(shape: Sequence[int], wanted: int | None) -> int:
    """Return how many components of a matrix are collapsed."""
    return min(*shape, wanted or max(1, min(MOST_COMPONENTS, min(shape) // SHARE)))


def principal_components(
    matrix: Float[Tensor, "output input"], count: int, seed: int
) -> tuple[Float[Tensor, "output k"], Float[Tensor, " k"], Float[Tensor, "input k"]]:
    """Return U, S and V of the strongest components, those of rounding left out, by a randomised SVD.

    Source: arXiv 0909.4061. The draws depend on the seed alone, and torch's own random state stays as it is.
    """
    if not bool(matrix.any()):
        return matrix[:, :0], matrix.new_zeros(0), matrix.mT[:, :0]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        u, s, v = torch.svd_lowrank(matrix, q=min(count + EXTRA, *matrix.shape), niter=4)
    count = min(count, int((s > NOTHING * s[0]).sum()))
    return u[:, :count], s[:count], v[:, :count]


def collapsed(
    matrix: Float[Tensor, "row column"], basis: Float[Tensor, "column k"], values: Float[Tensor, " k"], form: Form
) -> Float[Tensor, "row column"]:
    """Return a matrix in which what lies along `basis`, orthonormal directions of its columns, is made smaller.

    hard: they are removed. soft (Mahalanobis): each is divided by its singular value, in units of the smallest, so that
    the smallest stays as it is. quadratic: by the square of that. What is not along `basis` stays.
    """
    if form == "hard":
        kept = torch.zeros_like(values)
    else:
        kept = (values[-1:] / values) ** (2 if form == "quadratic" else 1)
    return matrix - (matrix @ basis) * (1 - kept) @ basis.mT


def collapse(
    gradient: Float[Tensor, "output input"], components: tuple[Tensor, Tensor, Tensor], form: Form, sides: Sides
) -> Float[Tensor, "output input"]:
    """Return a gradient with `components` (U, S and V) collapsed on the input side, the output side or both."""
    u, s, v = components
    if sides in ("input", "both"):
        gradient = collapsed(gradient, v, s, form)
    if sides in ("output", "both"):
        gradient = collapsed(gradient.mT, u, s, form).mT
    return gradient


def norm(weights: Mapping[str, Tensor]) -> float:
    """Return the norm of all weights together."""
    return sum(float(weight.detach().float().square().sum()) for weight in weights.values()) ** 0.5


def find_direction(
    model: Any,
    negatives: Sequence[TreeBatch],
    normals: Sequence[TreeBatch],
    selection: Selection,
    progress: OnProgress,
) -> dict[str, Tensor]:
    """Return the direction, by the names of the model's weights; its norm is that of these weights.

    The batches hold each row once, as plain rows; `normals` are read only where their gradient is to be collapsed. The
    model is as before afterwards. Raises ModelError for a model without such weights, and ConfigError where the
    gradient holds no direction.
    """
    modules = mlp_modules(model)
    weights: dict[str, Any] = {f"{name}.weight": module.weight for name, module in modules.items()}

    def components(gradients: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        counts = {name: components_of(gradient.shape, selection.components) for name, gradient in gradients.items()}
        return {name: principal_components(g, counts[name], selection.seed) for name, g in gradients.items()}

    with low_rank_added(list(modules.values()), selection.seed) as factors:
        if selection.elicitation_rate:
            elicit(model, negatives, factors, selection.elicitation_rate, progress)
        shared = {}
        if selection.of == "normals":
            shared = components(nll_gradients(model, normals, weights, progress))
        found = nll_gradients(model, negatives, weights, progress)
    whole = norm(found)
    shared = shared or components(found)
    found = {name: collapse(part, shared[name], selection.form, selection.sides) for name, part in found.items()}
    length = norm(found)
    if not NOTHING * whole < length < float("inf"):
        raise ConfigError(
            f"--method repselect: the gradient has no direction (its norm is {length:g} after {selection.form} "
            "collapse); set fewer --set trainer.components, or choose --method template"
        )
    share = norm(weights) / length
    return {name: part.mul_(share) for name, part in found.items()}
