"""The original: the model that a run starts from, before anything is trained."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from unteach.data.prompt_format import PromptFormat, prompt_format
from unteach.models.loading import load_model, load_tokenizer, lora_config, model_fingerprint


class ModelSettings(Protocol):
    """The settings of a model that the configs of all routes have."""

    model: str
    revision: str | None
    dtype: str
    device: str | None
    load_in_4bit: bool
    trust_remote_code: bool
    lora: bool
    lora_rank: int
    lora_alpha: float
    lora_targets: str
    prompt_format: str
    max_length: int | None


@dataclass(frozen=True)
class Original:
    """The model as it is before training, with its tokenizer and prompt format. `key` is its weights' fingerprint."""

    name: str
    model: Any
    tokenizer: Any
    form: PromptFormat
    key: str


def load_original(config: ModelSettings, name: str | None = None, *, trained: bool = False) -> Original:
    """Load `name`, or the model of the config. `trained` as in `load_weights`. Raises ModelError."""
    name = name or config.model
    revision = config.revision if name == config.model else None
    tokenizer = load_tokenizer(name, revision=revision, trust_remote_code=config.trust_remote_code)
    model = load_weights(config, name, trained=trained)
    form = prompt_format(tokenizer, config.prompt_format, None, model.generation_config.eos_token_id)
    return Original(name, model, tokenizer, form, model_fingerprint(model))


def load_weights(config: ModelSettings, name: str, *, trained: bool = False) -> Any:
    """Load a model. Weights that will be trained in full are held in float32 unless --dtype asks for another.

    Small updates to bfloat16 weights are lost in rounding.
    """
    full = trained and not config.lora
    return load_model(
        name,
        dtype="float32" if full and config.dtype == "auto" else config.dtype,
        device=config.device,
        revision=config.revision if name == config.model else None,
        load_in_4bit=config.load_in_4bit,
        trust_remote_code=config.trust_remote_code,
    )


def adapter_settings(config: ModelSettings, model: Any) -> Any:
    """Return the LoRA settings of a run, None where it trains all weights. Raises ConfigError for unknown modules."""
    if not config.lora:
        return None
    return lora_config(config.lora_rank, config.lora_alpha, 0.0, config.lora_targets, model)


def save_model(write: Callable[[str], Any], tokenizer: Any, directory: Path) -> None:
    """Save weights as safetensors, or an adapter, with the tokenizer. `write` saves the weights into a directory."""
    write(str(directory))
    tokenizer.save_pretrained(directory)
    for name in ("README.md", "training_args.bin"):  # the card of a library says less than ours; a pickle is unsafe
        (directory / name).unlink(missing_ok=True)
