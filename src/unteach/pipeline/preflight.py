"""What can be wrong with a run beside its rows, found before anything slow begins and anything is written."""

from typing import Any

from unteach.errors import ConfigError, ModelError
from unteach.models.loading import check_four_bit, check_loadable, load_tokenizer
from unteach.objectives.methods import load_method
from unteach.pipeline.config import RunConfig


def check_settings(config: RunConfig) -> None:
    """Raise ConfigError for settings that cannot be or exclude each other, before anything slow is done."""
    load_method(
        config.method,
        forget_weight=config.forget_weight,
        mismatch_weight=config.mismatch_weight,
        retain_weight=config.retain_weight,
        beta=config.beta,
        delta=config.delta,
    )
    if config.reference == "adapter_off" and not config.lora:
        raise ConfigError("--reference adapter_off: needs an adapter; add --lora or choose cached")
    if config.lm_eval and config.skip_evaluation:
        raise ConfigError("--lm-eval and --skip-evaluation exclude each other; leave one out")
    check_four_bit(config)


def check_comparable(config: RunConfig, name: str, tokenizer: Any) -> None:
    """Check a model that is measured later: it must be there, and cut text into the same tokens.

    Raises ModelError.
    """
    remote = config.trust_remote_code
    check_loadable(name, trust_remote_code=remote)
    if load_tokenizer(name, trust_remote_code=remote).get_vocab() != tokenizer.get_vocab():
        raise ModelError(f"{name}: its tokenizer is another than the model's; metrics per token cannot be compared")
