"""The original, which is the model that a run starts from, and the models that are compared with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unteach.data.own_answers import Answer, answer_prompts
from unteach.data.prompt_format import PromptFormat, TemplateSettings, prompt_format
from unteach.errors import ConfigError, ModelError
from unteach.models.adapter import lora_config
from unteach.models.directory import notes_on
from unteach.models.fingerprint import same_fingerprint
from unteach.models.loading import LoadSettings, check_loadable, load_configured, load_tokenizer
from unteach.models.reply import named_end
from unteach.models.reply_server import ReplyServer
from unteach.pipeline.config import ModelSettings
from unteach.pipeline.settings import flag


@dataclass(frozen=True)
class Original:
    """The model as it is before training, with its tokenizer and prompt format.

    `key` is its weights' fingerprint, `notes` are about how it was loaded. `answer` has it answer shipped prompts.
    `server` generates its replies in its place, where there is one.
    """

    name: str
    model: Any
    tokenizer: Any
    form: PromptFormat
    key: str
    notes: Sequence[str] = ()
    answer: Answer = answer_prompts
    server: ReplyServer | None = None


def check_adapter_settings(config: ModelSettings) -> None:
    """Raise ConfigError where 4-bit weights were to be trained in full, and for an adapter's settings without one."""
    if config.lora:
        return
    if config.load_in_4bit:
        raise ConfigError("--load-in-4bit trains an adapter over frozen weights; add --lora")
    for name in ("lora_rank", "lora_alpha", "lora_targets"):
        value = getattr(config, name)
        if value != type(config).model_fields[name].default:
            raise ConfigError(f"{flag(name)} {value}: is about an adapter, and all weights are trained; add --lora")


def load_original(config: LoadSettings, name: str | None = None, *, trained: bool = False) -> Original:
    """Load `name`, or the model of the config. `trained` as in `load_configured`.

    Raises ModelError, and ConfigError for modules of an adapter that the model does not have.
    """
    name = name or config.model
    tokenizer, model = load_configured(config, name, trained=trained)
    form = prompt_format(tokenizer, config.prompt_format, named_end(model), TemplateSettings.of(config))
    if trained:
        adapter_settings(config, model)
    return Original(name, model, tokenizer, form, same_fingerprint(model), notes_on(name))


def load_weights(config: LoadSettings, name: str, *, trained: bool = False) -> Any:
    """Load a model whose tokenizer is that of the original."""
    return load_configured(config, name, trained=trained)[1]


def check_comparable(config: LoadSettings, name: str, tokenizer: Any) -> None:
    """Raise ModelError unless a model that is loaded later is there and cuts text into the same tokens."""
    remote = config.trust_remote_code
    check_loadable(name, trust_remote_code=remote)
    if load_tokenizer(name, trust_remote_code=remote).get_vocab() != tokenizer.get_vocab():
        raise ModelError(f"{name}: its tokenizer is another than the model's; metrics per token cannot be compared")


def adapter_settings(config: LoadSettings, model: Any) -> Any:
    """Return the LoRA settings of a run, None where it trains all weights. Raises ConfigError for unknown modules."""
    if not config.lora:
        return None
    share = getattr(config, "train_layers", None)  # baselines have no such setting
    return lora_config(config.lora_rank, config.lora_alpha, config.lora_targets, model, share)
