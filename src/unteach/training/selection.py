"""The settings of a direction: how it is found, how far weights move along it, and which runs can.

The command line reads this before a model is loaded, so it imports nothing slow.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from unteach.errors import ConfigError, nearest

Form = Literal["soft", "hard", "quadratic"]
Sides = Literal["both", "input", "output", "none"]
Rows = Literal["normals", "negatives"]

MOST_LOOKS = 40
"""Most scales that are looked at on the way along a direction."""


@dataclass(frozen=True)
class Selection:
    """How a direction is found: see `unteach.training.repselect`.

    The strongest `components` (None: a number that follows the matrix) of the gradient `of` these rows are collapsed in
    one of three forms, on one side or both; `elicitation_rate` is the learning rate of the throw-away LoRA.
    """

    components: int | None = None
    form: Form = "quadratic"
    sides: Sides = "both"
    of: Rows = "normals"
    elicitation_rate: float = 0.01
    seed: int = 0


def selection_of(args: Any) -> Selection:
    """Return how the direction is found with these settings. Raises ConfigError for values that cannot be."""
    for name, value, known in (
        ("collapse", args.collapse, get_args(Form)),
        ("collapse_sides", args.collapse_sides, get_args(Sides)),
        ("collapse_of", args.collapse_of, get_args(Rows)),
    ):
        if value not in known:
            raise ConfigError(
                f"--set trainer.{name}={value}: unknown{nearest(value, known)} (known: {', '.join(known)})"
            )
    rate, components, budget = args.elicitation_rate, args.components, disruption_of(args)
    if not 0 <= rate < math.inf or not (components is None or components >= 1) or not 0 < budget < math.inf:
        raise ConfigError(
            f"--set trainer: components {components} must be at least 1, elicitation_rate {rate:g} at least 0, and "
            f"disruption {budget:g} above 0"
        )
    form: Any = args.collapse
    sides: Any = args.collapse_sides
    of: Any = args.collapse_of
    return Selection(components, form, sides, of, rate, args.seed)


def disruption_of(args: Any) -> float:
    """Return the most KL on validation normals that the move may cost, in nats per token.

    By default that is the budget of the run or, where steps follow, a tenth of it: 0.01, as in the paper.
    """
    if args.disruption is not None:
        return float(args.disruption)
    return float(args.kl_budget) * (1.0 if args.method == "repselect" else 0.1)


def check_movable(args: Any, adapter: bool) -> None:
    """Raise ConfigError where a run with these settings cannot move along a direction, and say what can."""
    name = f"--method {args.method}"
    if adapter:
        raise ConfigError(f"{name}: moves the model's own weights; leave the adapter out, or choose --method template")
    if args.world_size > 1 or args.fsdp or args.deepspeed:
        raise ConfigError(
            f"{name}: needs whole weights in one process; start it without torchrun, or choose --method template"
        )
    if not args.stopping:
        raise ConfigError(f"{name}: chooses its scale by the KL on validation rows; leave --no-stopping out")
    selection_of(args)
