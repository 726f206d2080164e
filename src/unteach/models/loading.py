"""Models and tokenizers, loaded safely: safetensors only, no code from strangers, one clear error otherwise."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from unteach.errors import ConfigError, ModelError, nearest
from unteach.models import sharding
from unteach.models.adapter import merge_adapter
from unteach.models.directory import base_of, check_directory, is_adapter, local_directory
from unteach.models.hub import cached_only, out_of_reach, reason
from unteach.models.saving import AsItCame, note_tokenizer
from unteach.models.soundness import check_finite, check_sizes, tensor_shapes
from unteach.models.vocabulary import fit_tokenizer
from unteach.text.escape import inert_line

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_NOWHERE = "no-adapter"
"""Where Transformers looks for an adapter to put on whole weights: in a folder that no model has."""
_OTHER_KINDS = ("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice")


class LoadSettings(Protocol):
    """What the settings of a run say about loading its models."""

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
    template_arg: dict[str, Any]
    system: str | None
    template_date: str | None


def load_configured(config: LoadSettings, name: str, trained: bool = False) -> tuple[Any, Any]:
    """Load the tokenizer and the model of a run called `name`.

    Weights that are trained in full are held in float32: in bfloat16, small updates are lost in rounding.
    """
    remote = config.trust_remote_code
    revision = config.revision if name == config.model else None
    tokenizer = load_tokenizer(name, revision=revision, trust_remote_code=remote)
    full = trained and not config.lora
    model = load_model(
        name,
        dtype=config.dtype,
        device=config.device,
        revision=revision,
        load_in_4bit=config.load_in_4bit,
        trust_remote_code=remote,
        in_full=full,
        shard=getattr(config, "shard", None),  # only `run` and `evaluate` have this setting
    )
    fit_tokenizer(tokenizer, model, name)
    return tokenizer, model


def load_tokenizer(
    path_or_id: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model directory or hub id; one without a pad token pads with its EOS.

    Raises ModelError where there is none.
    """
    directory = local_directory(path_or_id)
    name = str(directory or path_or_id)
    if directory is not None and is_adapter(directory) and not (directory / "tokenizer_config.json").is_file():
        return load_tokenizer(base_of(directory), revision=revision, trust_remote_code=trust_remote_code)
    remedy = "put tokenizer.json and tokenizer_config.json beside the weights"
    with _loading(name, directory, "no tokenizer could be loaded", remedy):
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    note_tokenizer(tokenizer)
    if tokenizer.pad_token_id is None and tokenizer.eos_token_id is not None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    path_or_id: str | Path,
    *,
    dtype: str = "auto",
    device: str | torch.device | None = None,
    revision: str | None = None,
    load_in_4bit: bool = False,
    trust_remote_code: bool = False,
    in_full: bool = False,
    shard: str | None = None,
) -> PreTrainedModel:
    """Load a causal language model from a directory or hub id, in evaluation mode, on `device`.

    `dtype` "auto" is float32 on a CPU, bfloat16 on a GPU that has it, else what the checkpoint has; with `in_full`,
    for weights that will be trained themselves, it is float32. Full tuning of bfloat16 weights loses updates smaller
    than about 1/256 of a weight (bfloat16 arithmetic can still be had from the trainer's `bf16`). `save_model` writes
    the dtype that was asked for or, with "auto", the checkpoint's own. `device` None is the GPU where there is one.
    A run directory stands for its model/. An adapter directory loads its base and merges the adapter into it, so that
    switching adapters off later never brings back another model than this one. Adapter files beside whole weights are
    left alone. With `shard`, one of `sharding.STRATEGIES`, the weights are spread over the ranks, which load together.

    Raises ModelError for a model that cannot be loaded or is of another kind, ConfigError for bad settings.
    """
    place = device_of(device)
    precision = _dtype("float32" if in_full and dtype == "auto" else dtype, place)
    directory = local_directory(path_or_id)
    if shard and load_in_4bit:
        raise ConfigError(f"--shard {shard}: 4-bit weights cannot be sharded; drop it, or --load-in-4bit")
    parted = shard if shard in sharding.PARTED else None
    if directory is not None and is_adapter(directory):
        if load_in_4bit:
            raise ConfigError(f"{directory}: an adapter cannot be merged into 4-bit weights; leave 4-bit loading off")
        if parted:
            raise ConfigError(f"{directory}: an adapter cannot be merged into sharded weights; give whole weights")
        base = load_model(
            base_of(directory),
            dtype=dtype,
            device=place,
            revision=revision,
            trust_remote_code=trust_remote_code,
            in_full=in_full,
        )
        return merge_adapter(base, directory)
    if directory is not None:
        check_directory(directory)
    name = str(directory or path_or_id)
    settings: dict[str, Any] = {"dtype": precision, "use_safetensors": True, "output_loading_info": True}
    settings["adapter_kwargs"] = {"subfolder": _NOWHERE}
    settings["ignore_mismatched_sizes"] = True  # refused below, with a message that says which
    if shard:
        sharding.require_strategy(shard)
    if load_in_4bit:
        settings |= {"quantization_config": _four_bit(precision), "device_map": {"": place}}
    source = {"revision": revision, "trust_remote_code": trust_remote_code}
    config = load_config(name, in_full=in_full, **source)
    came = _as_it_came(config, dtype)
    kind = config.dtype or torch.float32 if precision == "auto" else precision
    with _loading(name, directory), sharding.loading(shard, kind) as ways:
        model, loading = AutoModelForCausalLM.from_pretrained(name, config=config, **source, **settings, **ways)
    _check_complete(name, loading)
    check_finite(name, model)
    model.as_it_came = replace(came, generation=AsItCame.of(model).generation)
    if parted:
        sharding.loaded(parted, name, model)
    elif not load_in_4bit:
        model = _move(model, place)
    return model.eval()


def check_loadable(path_or_id: str | Path, *, trust_remote_code: bool = False) -> Any:
    """Check what can be known of a model without reading its weights; return its config.

    Raises ModelError as `load_model` would; a local file of weights must have a whole header.
    """
    directory = local_directory(path_or_id)
    if directory is not None and is_adapter(directory):
        return check_loadable(base_of(directory), trust_remote_code=trust_remote_code)
    if directory is not None:
        check_directory(directory)
    name = str(directory or path_or_id)
    return load_config(name, trust_remote_code=trust_remote_code)


def load_config(name: str, *, in_full: bool = False, **source: Any) -> Any:
    """Load the config of a model that is no adapter, and check it against the headers of local weights.

    Raises ModelError for one that cannot be read, is of another kind or promises more than the weights hold.
    """
    directory = local_directory(name)
    with _loading(name, directory):
        config = AutoConfig.from_pretrained(name, **source)
        shapes = tensor_shapes(directory) if directory is not None else []
    _check_kind(name, config, in_full)
    check_sizes(name, config, shapes)
    return config


@contextmanager
def _loading(
    name: str,
    directory: Path | None,
    failure: str = "cannot be loaded",
    remedy: str = "check its files or fetch it again",
) -> Iterator[None]:
    """Turn what goes wrong while a model is loaded into one ModelError; a hub that does not answer is asked once."""
    unreached = out_of_reach() if directory is None else ""
    try:
        with cached_only(bool(unreached)):
            yield
    except Exception as error:  # files of strangers, read by libraries that raise anything
        if directory is None:
            why = unreached if isinstance(error, OSError) and unreached else reason(error)
            raise ModelError(
                f"{inert_line(name, 200)}: no directory of that name, and not to be had as a hub id ({why}); "
                "without a network, give a local directory with config.json and safetensors weights"
            ) from error
        raise ModelError(f"{name}: {failure} ({reason(error)}); {remedy}") from error


def _as_it_came(config: Any, dtype: str) -> AsItCame:
    """Note what a config says, and take a pad token from it that lies outside the embedding, which cannot be loaded."""
    named = DTYPES.get(dtype) or config.dtype
    came = AsItCame.of_config(config, named if isinstance(named, torch.dtype) else None)
    inner = config.get_text_config()
    for part in (config, inner):
        pad = getattr(part, "pad_token_id", None)
        if isinstance(pad, int) and not 0 <= pad < getattr(inner, "vocab_size", pad + 1):
            part.pad_token_id = None
    return came


def _check_kind(name: str, config: Any, in_full: bool = False) -> None:
    """Refuse models that do not write text from left to right; some of them would load with a random head.

    Quantised weights cannot be trained in full.
    """
    kinds = getattr(config, "architectures", None) or []
    other = kinds and all(kind.endswith(_OTHER_KINDS) for kind in kinds)
    if other or getattr(config, "is_encoder_decoder", False):
        what = inert_line(", ".join(kinds), 100) or config.model_type
        raise ModelError(f"{name}: {what} is not a causal language model; give one that continues text")
    quantised = getattr(config, "quantization_config", None)
    if quantised and in_full:
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised.quant_method
        raise ModelError(
            f"{name}: its weights are quantised ({inert_line(str(method), 40)}), which cannot be trained; give the "
            "model as it was before that, or add --lora"
        )


def _check_complete(name: str, loading: dict[str, Any]) -> None:
    """Refuse weights that leave part of the model as it was initialised, at random."""
    if other := sorted(str(key[0]) for key in loading["mismatched_keys"]):
        raise ModelError(
            f"{name}: {len(other)} tensors of the weights have another shape than config.json says, such as "
            f"{inert_line(other[0], 100)}; put the config.json of these weights back"
        )
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ModelError(
            f"{name}: the weights lack {len(missing)} of the model's tensors, such as "
            f"{inert_line(missing[0], 100)}; it is not a complete causal language model"
        )


def device_of(device: str | torch.device | None) -> torch.device:
    """Return the device of a name; without one the GPU where there is one. Raises ConfigError."""
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        place = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"device '{device}' does not exist; use cpu, cuda or cuda:0") from error
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device '{device}': there is no such GPU here; use cpu")
    return place


def _dtype(name: str, place: torch.device) -> torch.dtype | str:
    """Return the dtype to load in; the text "auto" means the checkpoint's own."""
    if name != "auto":
        if name not in DTYPES:
            known = ["auto", *DTYPES]
            raise ConfigError(f"unknown dtype '{name}'{nearest(name, known)}; known: {', '.join(known)}")
        return DTYPES[name]
    if place.type == "cpu":
        return torch.float32
    return torch.bfloat16 if place.type == "cuda" and torch.cuda.is_bf16_supported() else "auto"


def _four_bit(precision: torch.dtype | str) -> Any:
    """Settings of QLoRA (arXiv 2305.14314): NF4 weights, scales quantised too, arithmetic in `precision`."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError("4-bit weights need bitsandbytes; install it with: pip install 'unteach[4bit]'")
    from transformers import BitsAndBytesConfig

    compute = precision if isinstance(precision, torch.dtype) else torch.float16
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _move(model: PreTrainedModel, place: torch.device) -> PreTrainedModel:
    try:
        return model.to(place)
    except torch.OutOfMemoryError as error:
        raise ModelError(f"the model does not fit on {place}; use a smaller dtype or 4-bit weights") from error
