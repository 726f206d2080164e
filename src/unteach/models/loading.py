"""Models and tokenizers, loaded safely: safetensors only, no code from strangers, one clear error otherwise."""

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from unteach.errors import ConfigError, ModelError, nearest
from unteach.models.hub import cached_only, is_hub_id, out_of_reach, reason
from unteach.text.escape import inert_line

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_NOT_WEIGHTS = {"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt"}  # a Trainer leaves these
_OTHER_KINDS = ("MaskedLM", "SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice")
_CONTEXT_FIELDS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "max_sequence_length",
    "seq_length",
    "n_ctx",
)
_LOADING_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    KeyError,
    TypeError,
    AttributeError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)


def load_tokenizer(
    path_or_id: str | Path, *, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model directory or hub id; one without a pad token pads with its EOS.

    Raises ModelError where there is none.
    """
    directory = _local(path_or_id)
    name = str(directory or path_or_id)
    if directory is not None and _is_adapter(directory) and not (directory / "tokenizer_config.json").is_file():
        return load_tokenizer(_base_of(directory), revision=revision, trust_remote_code=trust_remote_code)
    remedy = "put tokenizer.json and tokenizer_config.json beside the weights"
    with _loading(name, directory, "no tokenizer could be loaded", remedy):
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
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
) -> PreTrainedModel:
    """Load a causal language model from a directory or hub id, in evaluation mode, on `device`.

    `dtype` "auto" is float32 on a CPU, bfloat16 on a GPU that has it, else what the checkpoint has. Full tuning
    of bfloat16 weights loses updates smaller than about 1/256 of a weight: with learning rates near 1e-6 use
    "float32" (bfloat16 arithmetic can still be had from the trainer's `bf16`), or an adapter. `device` None is
    the GPU where there is one. An adapter directory loads its base and merges the adapter into it, so that
    switching adapters off later never brings back another model than this one.

    Raises ModelError for a model that cannot be loaded or is of another kind, ConfigError for bad settings.
    """
    place = _device(device)
    precision = _dtype(dtype, place)
    directory = _local(path_or_id)
    if directory is not None and _is_adapter(directory):
        if load_in_4bit:
            raise ConfigError(f"{directory}: an adapter cannot be merged into 4 bit weights; leave 4 bit off")
        base = load_model(
            _base_of(directory), dtype=dtype, device=place, revision=revision, trust_remote_code=trust_remote_code
        )
        return _with_adapter(base, directory)
    if directory is not None:
        _check_directory(directory)
    name = str(directory or path_or_id)
    settings: dict[str, Any] = {"dtype": precision, "use_safetensors": True, "output_loading_info": True}
    settings["ignore_mismatched_sizes"] = True  # refused below, with a message that says which
    if load_in_4bit:
        settings |= {"quantization_config": _four_bit(precision), "device_map": {"": place}}
    source = {"revision": revision, "trust_remote_code": trust_remote_code}
    with _loading(name, directory):
        config = AutoConfig.from_pretrained(name, **source)
        _check_kind(name, config)
        model, loading = AutoModelForCausalLM.from_pretrained(name, config=config, **source, **settings)
    _check_complete(name, loading)
    if not load_in_4bit:
        model = _moved(model, place)
    return model.eval()


def check_loadable(path_or_id: str | Path, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """Return the config of a model that is loaded later; what can be known without its weights is checked now.

    Raises ModelError as `load_model` would; a local file of weights must have a whole header.
    """
    directory = _local(path_or_id)
    if directory is not None and _is_adapter(directory):
        return check_loadable(_base_of(directory), revision=revision, trust_remote_code=trust_remote_code)
    if directory is not None:
        _check_directory(directory)
    name = str(directory or path_or_id)
    with _loading(name, directory):
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
        for path in sorted(directory.glob("*.safetensors")) if directory is not None else []:
            with safe_open(path, framework="pt"):
                pass
    _check_kind(name, config)
    return config


def lora_config(
    rank: int,
    alpha: float,
    dropout: float = 0.0,
    targets: str | Sequence[str] = "all-linear",
    model: PreTrainedModel | None = None,
) -> Any:
    """Return PEFT's LoraConfig; `targets` is "all-linear", or module names (a list, or text with commas).

    With `model`, layers that store their weights transposed (GPT-2's) are set up for it. Raises ConfigError.
    """
    from peft import LoraConfig
    from transformers.pytorch_utils import Conv1D

    if rank < 1 or alpha <= 0 or not 0 <= dropout < 1:
        raise ConfigError(
            f"LoRA: rank {rank} must be at least 1, alpha {alpha} above 0 and dropout {dropout} from 0 to below 1"
        )
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
        lora_dropout=dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        fan_in_fan_out=transposed,
    )


def model_fingerprint(model: PreTrainedModel | str | Path) -> str:
    """Identify weights by 16 hex digits, for cache keys: of a directory's safetensors files, or of a model.

    A directory and the model loaded from it have different fingerprints: a model's also tells its dtype and
    every change made in memory. Raises ModelError for a directory without safetensors files.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in _file_parts(Path(model)) if isinstance(model, str | Path) else _tensor_parts(model):
        digest.update(part)
    return digest.hexdigest()


def context_length(model: Any) -> int | None:
    """Return how many tokens prompt and reply may have together (a model or its config); None where unlimited."""
    config = getattr(model, "config", model)
    if hasattr(config, "get_text_config"):
        config = config.get_text_config()
    found = (getattr(config, field, None) for field in _CONTEXT_FIELDS)
    return next((length for length in found if isinstance(length, int) and length > 0), None)


def _local(path_or_id: str | Path) -> Path | None:
    """The directory that is meant, or None for a hub id, which is owner/name and does not exist here."""
    text = str(path_or_id)
    if not text.strip():
        raise ModelError("the model's name is empty; give a directory or a hub id")
    path = Path(path_or_id).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise ModelError(f"{text}: is a file, not a model directory; name the directory that holds config.json")
    if isinstance(path_or_id, Path) or not is_hub_id(text):
        near = nearest(path.name, _models_beside(path)) or "; check the path"
        raise ModelError(f"{inert_line(text, 200)}: no such model directory{near} (a hub id is written owner/name)")
    return None


def _models_beside(path: Path) -> list[str]:
    try:
        return [entry.parent.name for entry in path.parent.glob("*/*config.json")]
    except OSError:
        return []


@contextmanager
def _loading(
    name: str,
    directory: Path | None,
    failure: str = "cannot be loaded",
    remedy: str = "check its files or fetch it again",
) -> Iterator[None]:
    """Turn what goes wrong while a model is loaded into one ModelError; a hub out of reach is asked only once."""
    unreached = out_of_reach() if directory is None else ""
    try:
        with cached_only(bool(unreached)):
            yield
    except _LOADING_ERRORS as error:
        if directory is None:
            raise _not_found(name, unreached if isinstance(error, OSError) and unreached else reason(error)) from error
        raise ModelError(f"{name}: {failure} ({reason(error)}); {remedy}") from error


def _check_directory(directory: Path) -> None:
    """Refuse what can never load, before anything is read."""
    if not (directory / "config.json").is_file():
        raise ModelError(f"{directory}: no config.json; name the directory that `save_pretrained` wrote")
    if any(directory.glob("*.safetensors")):
        return
    pickles = _pickles(directory)
    if pickles:
        raise ModelError(
            f"{directory}: only pickle weights ({', '.join(pickles)}), which can run code when they are loaded; "
            "convert them in a place you trust: AutoModelForCausalLM.from_pretrained(DIR)"
            ".save_pretrained(NEW_DIR) writes safetensors"
        )
    raise ModelError(f"{directory}: no weights; put model.safetensors beside config.json")


def _pickles(directory: Path) -> list[str]:
    names = {path.name for pattern in _PICKLES for path in directory.glob(pattern)} - _NOT_WEIGHTS
    return [inert_line(name, 80) for name in sorted(names)[:5]]


def _check_kind(name: str, config: Any) -> None:
    """Refuse models that do not write text left to right, some of which would load with a random head."""
    kinds = getattr(config, "architectures", None) or []
    other = kinds and all(kind.endswith(_OTHER_KINDS) for kind in kinds)
    if other or getattr(config, "is_encoder_decoder", False):
        what = inert_line(", ".join(kinds), 100) or config.model_type
        raise ModelError(f"{name}: {what} is not a causal language model; give one that continues text")


def _check_complete(name: str, loading: dict[str, Any]) -> None:
    """Refuse weights that left part of the model at random."""
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


def _is_adapter(directory: Path) -> bool:
    return (directory / "adapter_config.json").is_file() and not (directory / "config.json").is_file()


def _base_of(adapter: Path) -> str:
    """The base model that an adapter's config names."""
    path = adapter / "adapter_config.json"
    try:
        base = json.loads(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: cannot be read ({reason(error)}); save the adapter again") from error
    if not isinstance(base, str) or not base:
        raise ModelError(f'{path}: field "base_model_name_or_path" names no base model; write its directory there')
    try:
        _local(base)
    except ModelError as error:
        raise ModelError(f'{path}: field "base_model_name_or_path": {error}') from error
    return base


def _with_adapter(base: PreTrainedModel, directory: Path) -> PreTrainedModel:
    from peft import PeftModel

    if not (directory / "adapter_model.safetensors").is_file():
        pickles = _pickles(directory)
        found = f"only pickle weights ({', '.join(pickles)})" if pickles else "no weights"
        raise ModelError(f"{directory}: {found} of the adapter; save it again as adapter_model.safetensors")
    try:
        with warnings.catch_warnings():
            # PEFT 0.21 asks for a property that Transformers 5 has renamed.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            merged = PeftModel.from_pretrained(base, str(directory)).merge_and_unload(safe_merge=True)
    except _LOADING_ERRORS as error:
        raise ModelError(
            f"{directory}: the adapter does not fit its base model {base.name_or_path} ({reason(error)})"
        ) from error
    return merged.requires_grad_(True).eval()  # PEFT froze the base


def _device(device: str | torch.device | None) -> torch.device:
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
    """The dtype to load in; the text "auto" means what the checkpoint has."""
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
        raise ConfigError("4 bit weights need bitsandbytes; install it with: pip install 'unteach[4bit]'")
    from transformers import BitsAndBytesConfig

    compute = precision if isinstance(precision, torch.dtype) else torch.float16
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )


def _moved(model: PreTrainedModel, place: torch.device) -> PreTrainedModel:
    try:
        return model.to(place)
    except torch.OutOfMemoryError as error:
        raise ModelError(f"the model does not fit on {place}; use a smaller dtype or 4 bit weights") from error


def _not_found(name: str, why: str) -> ModelError:
    return ModelError(
        f"{inert_line(name, 200)}: no directory of that name, and not to be had as a hub id ({why}); "
        "without a network, give a local directory with config.json and safetensors weights"
    )


def _file_parts(directory: Path) -> Iterator[bytes]:
    files = sorted(directory.glob("*.safetensors"))
    if not files:
        raise ModelError(f"{directory}: no safetensors files to identify the model by; check the path")
    for path in files:
        yield f"{path.name}\x1f{path.stat().st_size}\x1e".encode()
        with path.open("rb") as file:
            while part := file.read(1 << 22):
                yield part


def _tensor_parts(model: PreTrainedModel) -> Iterator[bytes]:
    for name, tensor in sorted(model.state_dict().items()):
        yield f"{name}\x1f{tensor.dtype}\x1f{tuple(tensor.shape)}\x1e".encode()
        yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
