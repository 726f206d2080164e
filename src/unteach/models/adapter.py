"""LoRA adapters: their settings, and merging one into its base model."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from unteach.errors import ConfigError, ModelError, nearest
from unteach.models.directory import pickled_weights
from unteach.models.hub import reason
from unteach.models.layers import decoder_layers, upper_layers
from unteach.models.soundness import refuse_infinite


def lora_config(
    rank: int,
    alpha: float,
    targets: str | Sequence[str] = "all-linear",
    model: Any = None,
    train_layers: float | None = None,
) -> Any:
    """Return PEFT's LoraConfig; `targets` is "all-linear", or module names (a list, or text with commas).

    With `model`, the names are checked, and layers that store their weights transposed (GPT-2's) are set up for it.
    `train_layers` is the share of the layers of `model`, from the top, that get one. Raises ConfigError.
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
    only: dict[str, Any] = {}
    if model is not None and train_layers is not None and train_layers < 1:
        name, layers = decoder_layers(model)
        chosen = upper_layers(model, train_layers)
        only = {"layers_to_transform": list(chosen), "layers_pattern": name}
        targets = _linear_in(layers[chosen.start :]) if isinstance(targets, str) else targets
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=alpha,
        target_modules=targets if isinstance(targets, str) else list(targets),
        fan_in_fan_out=transposed,
        **only,
    )


def _linear_in(layers: Sequence[Any]) -> list[str]:
    """Return the names of the linear modules of layers, as "all-linear" would find them."""
    from transformers.pytorch_utils import Conv1D

    linear = (torch.nn.Linear, Conv1D)
    named = (pair for layer in layers for pair in layer.named_modules())
    return sorted({name.rpartition(".")[2] for name, module in named if isinstance(module, linear)})


def add_adapter(model: Any, settings: Any, seed: int = 0) -> Any:
    """Return the model with a new adapter on it, drawn from `seed`; torch's random state is left as it was.

    What PEFT warns of is dealt with where adapters are merged.
    """
    from peft import get_peft_model

    devices = [model.device] if model.device.type == "cuda" else []
    with _quiet_peft(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        return get_peft_model(model, settings)


def merge_adapter(base: Any, directory: Path) -> Any:
    """Return the base model with the adapter of a directory merged into its weights.

    The result predicts what base and adapter predict: an embedding that was resized before the adapter was trained is
    resized again, and an output layer that shares its weights with the embedding is parted from it where the adapter
    makes them differ (PEFT would put the change of one into both, its issue 2777).

    Raises ModelError where the adapter has no safe weights or does not fit.
    """
    tied = _shares_embedding(base)

    def merged_into(model: Any) -> Any:
        _part_shared_weights(model)
        return model.merge_and_unload(safe_merge=True)

    merged = _attached(base, directory, merged_into)
    if tied:
        _share_again(merged)
    merged.name_or_path = merged.config._name_or_path = str(directory.resolve())  # a new adapter has this one below it
    return merged.requires_grad_(True).eval()  # PEFT froze the base


def attach_adapter(base: Any, directory: Path) -> Any:
    """Return the base model with the adapter of a directory on it, unmerged, as PEFT and servers run it.

    Raises ModelError as `merge_adapter` does.
    """
    return _attached(base, directory, lambda model: model.eval())


def _attached(base: Any, directory: Path, finish: Callable[[Any], Any]) -> Any:
    """Put an adapter on a model and `finish` the result. Raises ModelError for an adapter that does not fit."""
    from peft import PeftModel

    weights = directory / "adapter_model.safetensors"
    if not weights.is_file():
        pickles = pickled_weights(directory)
        found = f"only pickle weights ({', '.join(pickles)})" if pickles else "no weights"
        raise ModelError(f"{directory}: {found} of the adapter; save it again as adapter_model.safetensors")
    try:
        with _quiet_peft():
            _check_weights(weights)
            _resize(base, weights)
            return finish(PeftModel.from_pretrained(base, str(directory)))
    except ModelError:
        raise
    except Exception as error:  # files of strangers, read by libraries that raise anything
        raise ModelError(
            f"{directory}: the adapter does not fit its base model {base.name_or_path} ({reason(error)})"
        ) from error


@contextmanager
def _quiet_peft() -> Iterator[None]:
    with warnings.catch_warnings():
        # PEFT 0.21 asks for a property that Transformers 5 has renamed.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        warnings.filterwarnings("ignore", message=r"(?s).*(tie_word_embeddings|tied|embedding)", category=UserWarning)
        yield


def _check_weights(weights: Path) -> None:
    """Refuse an adapter's file with a weight that is no finite number."""
    with safe_open(weights, framework="pt") as file:
        refuse_infinite(str(weights), ((key, file.get_tensor(key)) for key in file.keys()))  # noqa: SIM118


def _resize(base: Any, weights: Path) -> None:
    """Give the base as many embeddings as the adapter's own copies of embedding or output layer have."""
    ends = (base.get_input_embeddings(), base.get_output_embeddings())
    names = {path.rpartition(".")[2] for path, module in base.named_modules() if any(module is end for end in ends)}
    rows = set()
    with safe_open(weights, framework="pt") as file:
        for key in file.keys():  # noqa: SIM118 (the file is no mapping)
            rest = _after(key, names)
            shape = file.get_slice(key).get_shape()
            if rest in ("weight", "base_layer.weight", "lora_B.weight", "lora_B"):
                rows.add(shape[0])
            elif rest == "lora_embedding_A":
                rows.add(shape[1])
    if len(rows) == 1 and rows != {base.get_input_embeddings().num_embeddings}:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # rows that the adapter does not bring are random; the same ones each time
            base.resize_token_embeddings(rows.pop(), mean_resizing=False)


def _after(key: str, names: set[str]) -> str:
    """Return what follows the layer of one of these names in a tensor's name."""
    parts = key.split(".")
    place = next((number for number, part in enumerate(parts) if part in names), len(parts))
    return ".".join(parts[place + 1 :])


def _shares_embedding(model: Any) -> bool:
    head = model.get_output_embeddings()
    return head is not None and head.weight is model.get_input_embeddings().weight


def _part_shared_weights(model: Any) -> None:
    """Give every layer its own copy of weights that several share."""
    seen: set[int] = set()
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None and id(weight) in seen:
                module._parameters[name] = torch.nn.Parameter(weight.detach().clone(), weight.requires_grad)
            elif weight is not None:
                seen.add(id(weight))


def _share_again(model: Any) -> None:
    """Let output layer and embedding share their weights again where these are equal, and say in the config if not."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    same = head.weight.shape == embedding.weight.shape and torch.equal(head.weight, embedding.weight)
    if same:
        head.weight = embedding.weight
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = same
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
