"""ShardSettings: whether the weights of a run are spread over its ranks, and what does not work with that."""

from collections.abc import Sequence
from typing import Protocol

from unteach.errors import ConfigError
from unteach.models.ranks import world
from unteach.pipeline.settings import Settings, setting


def _strategies() -> Sequence[str]:
    from unteach.models.sharding import STRATEGIES

    return STRATEGIES


class ShardSettings(Settings):
    """The setting of verbs that run a model whose weights are spread over several ranks."""

    shard: str | None = setting(
        "Model",
        None,
        "Spread the weights over torchrun's ranks, where they do not fit on one: fsdp2.",
        choices=_strategies,
    )


class Sharded(Protocol):
    """What is asked of a config here."""

    shard: str | None
    device: str | None
    load_in_4bit: bool
    lora: bool
    lora_targets: str
    strength: str
    lm_eval: list[str]


def check_sharding(config: Sharded) -> None:
    """Raise ConfigError where sharded weights were asked for, and something that does not work with them."""
    if config.shard is None:
        return
    name = f"--shard {config.shard}"
    if world() == 1:
        raise ConfigError(f"{name}: there is one process; start several with torchrun (docs/many-gpus.md) or drop it")
    if config.load_in_4bit:
        raise ConfigError(f"{name}: 4-bit weights cannot be sharded; drop it, or --load-in-4bit")
    if config.lm_eval:
        raise ConfigError(f"{name}: lm-eval runs in one process; drop --lm-eval, and evaluate the saved model with it")
    if config.strength not in ("", "1") and not config.lora:
        raise ConfigError(f"{name}: --strength {config.strength} needs whole weights; use `unteach strength` later")
    _check_device(name, config.device)


def _check_device(name: str, device: str | None) -> None:
    """Raise ConfigError where the weights would lie on other devices than those that were asked for."""
    import torch

    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if device is not None and device != (kind.type if kind else "cpu"):
        raise ConfigError(f"{name}: shards over the GPUs of the ranks, or the CPU where there is none; drop --device")
