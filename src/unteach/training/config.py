"""UnlearnConfig: the Trainer's arguments and those of unlearning."""

from dataclasses import dataclass
from typing import Any

from transformers import TrainingArguments

from unteach.errors import ConfigError, nearest
from unteach.objectives.methods import Method, load_method
from unteach.training.settings import COMPILED, REFERENCES, UnlearnSettings

MOST_TOKENS = 1024
"""Longest prompt + reply by default, in tokens, where the model's context is longer."""


@dataclass
class UnlearnConfig(UnlearnSettings, TrainingArguments):
    """Settings of `UnlearnTrainer`; every field of `transformers.TrainingArguments` is here too.

    Weights and method parameters left at None take the method's published values. `learning_rate` None is chosen from
    the model's width, see `default_learning_rate`. Steps always mean optimizer steps.
    """

    def __post_init__(self) -> None:
        self.save_steps = max(1, self.save_steps)
        super().__post_init__()


def default_learning_rate(model: Any, lora: bool, rate: float = 1.0) -> float:
    """Return a peak learning rate from the model's width: 0.025 / width, ten times that for LoRA; times `rate`.

    Adam's updates have the same size whatever the width, while the weights shrink with it: 1e-4 at width 256 and 2e-4
    at 128, where it was tested (runs in docs/real-data.md), and 6e-6 at 4096, which lies in the range of arXiv
    2310.10683 (2e-6 to 2e-4).
    """
    width = model.config.get_text_config().hidden_size
    return rate * (0.25 if lora else 0.025) / width


def choose_method(args: UnlearnConfig, adapter: bool) -> Method:
    """Return the method of a run. Raises ConfigError where it, its parameters or the reference cannot be."""
    if args.reference not in REFERENCES:
        raise ConfigError(f"unknown reference '{args.reference}'{nearest(args.reference, REFERENCES)}")
    if args.reference == "adapter_off" and not adapter:
        raise ConfigError("--reference adapter_off needs an adapter; add --lora or choose cached")
    check_compile(args)
    method = load_method(
        args.method,
        forget_weight=args.forget_weight,
        mismatch_weight=args.mismatch_weight,
        retain_weight=args.retain_weight,
        margin=args.decline_margin,
        beta=args.beta,
        delta=args.delta,
    )
    if method.direction:
        from unteach.training.selection import check_movable

        check_movable(args, adapter)
    return method


def check_compile(args: UnlearnConfig) -> None:
    """Raise ConfigError where compiled steps are asked for and cannot be."""
    if args.compile is None:
        return
    name = f"--compile {args.compile}"
    if args.compile not in COMPILED:
        raise ConfigError(f"{name}: unknown{nearest(args.compile, COMPILED)}; layers or flex")
    if args.torch_compile:
        raise ConfigError(f"{name}: --set trainer.torch_compile compiles the whole model; drop one of them")
    if args.world_size > 1 or args.fsdp or args.deepspeed:
        raise ConfigError(f"{name}: was tried in one process only; start it without torchrun, or drop it")
    if args.method == "repselect":
        raise ConfigError(f"{name}: --method repselect makes no steps that could be compiled; drop it")
    if args.compile == "flex" and args.device.type == "cpu":
        raise ConfigError(f"{name}: PyTorch's flex attention has no backward pass on a CPU; use --compile layers")
