"""LoRA adapters: their settings, and merging one into its base model."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unteach.errors import ConfigError, ModelError, nearest
from unteach.models.directory import pickled_weights
from unteach.models.hub import LOADING_ERRORS, reason


def lora_config(
    rank: int,
    alpha: float,
    targets: str | Sequence[str] = "all-linear",
    model: Any = None,
) -> Any:
    """Return PEFT's LoraConfig; `targets` is "all-linear", or module names (a list, or text with commas).

    With `model`, the names are checked, and layers that store their weights transposed (GPT-2's) are set up for it.
    Raises ConfigError.
    """
    from peft import LoraConfig
    from transformers.pytorch_utils import Conv1D

    if rank < 1 or alpha <= 0:
        raise ConfigError(f"LoRA: rank {rank} must be at least 1 and alpha {alpha} above 0")
    if isinstance(targets, str) and targets != "all-linear":
        targets = [name.strip() for name in targets.split(",") if name.strip()]
    if not targets:
        raise ConfigError('LoRA: no target modules; give names such as "q_proj,v_proj", or "all-linear"')
    if model is not None and not isinstance(targets, str):
        there = {name.rpartition(".")[2] for name, module in model.named_modules() if hasattr(module, "weight")}
        for name in targets:
            if name.rpartition(".")[2] not in there:
                raise ConfigError(
                    f"--lora-targets {name}: the model has no such module{nearest(name, there)} "
                    f"(it has {', '.join(sorted(there))})"
                )
    transposed = model is not None and any(isinstance(module, Conv1D) for module in model.modules())
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        fan_in_fan_out=transposed,
    )


def merge_adapter(base: Any, directory: Path) -> Any:
    """Return the base model with the adapter of a directory merged into its weights.

    Raises ModelError where the adapter has no safe weights or does not fit.
    """
    from peft import PeftModel

    if not (directory / "adapter_model.safetensors").is_file():
        pickles = pickled_weights(directory)
        found = f"only pickle weights ({', '.join(pickles)})" if pickles else "no weights"
        raise ModelError(f"{directory}: {found} of the adapter; save it again as adapter_model.safetensors")
    try:
        with warnings.catch_warnings():
            # PEFT 0.21 asks for a property that Transformers 5 has renamed.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            merged = PeftModel.from_pretrained(base, str(directory)).merge_and_unload(safe_merge=True)
    except LOADING_ERRORS as error:
        raise ModelError(
            f"{directory}: the adapter does not fit its base model {base.name_or_path} ({reason(error)})"
        ) from error
    return merged.requires_grad_(True).eval()  # PEFT froze the base
