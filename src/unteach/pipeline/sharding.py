"""ShardSettings: whether what a run holds is spread over its ranks, and what does not work with that."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from unteach.errors import ConfigError
from unteach.pipeline.settings import Settings, setting


def _strategies() -> Sequence[str]:
    from unteach.models.sharding import STRATEGIES

    return STRATEGIES


class ShardSettings(Settings):
    """The setting of verbs that run a model which is spread over several ranks."""

    shard: str | None = setting(
        "Model",
        None,
        "Spread the model over torchrun's ranks: fsdp2, or DeepSpeed's zero2, zero3.",
        choices=_strategies,
    )
    offload_optimizer: bool = setting("Model", False, "Keep Adam's states in main memory; with --shard zero2 or zero3.")


class Sharded(Protocol):
    """What is asked of a config here."""

    shard: str | None
    offload_optimizer: bool
    device: str | None
    load_in_4bit: bool
    lora: bool
    lora_targets: str
    strength: str
    lm_eval: list[str]
    trainer: dict[str, Any]


def check_sharding(config: Sharded, *, training: bool = True) -> None:
    """Raise ConfigError where sharding was asked for, and something that does not work with it."""
    from unteach.models.sharding import PARTED, require_strategy

    if config.offload_optimizer and not (training and by_deepspeed(config)):
        raise ConfigError("--offload-optimizer: is for a training with --shard zero2 or zero3; add one, or drop it")
    if config.shard is None:
        return
    require_strategy(config.shard)
    name = f"--shard {config.shard}"
    if not training and config.shard not in PARTED:
        raise ConfigError(f"{name}: spreads what training adds to a model, and nothing is trained; drop it")
    if training and config.lora and config.shard == "zero3":
        raise ConfigError(f"{name}: a run with --lora stood still under it (docs/many-gpus.md); give --shard fsdp2")
    cast = sorted({"bf16", "fp16"} & config.trainer.keys())
    if cast and by_deepspeed(config):
        raise ConfigError(f"{name}: DeepSpeed would cast all weights to {cast[0]}; drop --set trainer.{cast[0]}")
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


def by_deepspeed(config: Sharded) -> bool:
    """Whether DeepSpeed spreads what the run holds."""
    return (config.shard or "").startswith("zero")


@contextmanager
def engine_of(config: Sharded) -> Iterator[dict[str, Any]]:
    """Yield the trainer's arguments by which DeepSpeed trains, where it does; they are to be made within the block.

    Arguments that name stage 3 have Transformers part every model that is loaded as long as they live, judges too.
    """
    if not by_deepspeed(config):
        yield {}
        return
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    from unteach.models.zero import engine_settings

    assert config.shard
    yield {"deepspeed": engine_settings(config.shard, config.offload_optimizer)}
    unset_hf_deepspeed_config()
