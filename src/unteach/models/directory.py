"""Directories of models and adapters: which one is meant, and whether its files can be loaded safely."""

from pathlib import Path

from unteach.errors import ModelError, nearest
from unteach.models.gguf import ENDING, dequantised
from unteach.models.hub import is_hub_id, reason
from unteach.models.packaged import is_packaged, licence_note, packaged_directory
from unteach.text.bounded import read_json
from unteach.text.escape import inert_line

_RUN_FILE = "run.yaml"
_ADAPTER_CONFIG = "adapter_config.json"
_CONFIGS = ("config.json", _ADAPTER_CONFIG)
_MOST_ADAPTERS = 16
"""Most adapters that may be put on each other."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_NOT_WEIGHTS = {"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt"}  # a Trainer leaves these


def local_directory(path_or_id: str | Path) -> Path | None:
    """Return the directory that is meant; None for a hub id, which is owner/name and does not exist here.

    A run directory stands for its model/. A GGUF file, and a model of a package (`packaged:NAME`), stand for what they
    are dequantised to. Raises ModelError for a path that is no directory, and for a run without a model.
    """
    text = str(path_or_id)
    if not text.strip():
        raise ModelError("the model's name is empty; give a directory or a hub id")
    if is_packaged(text):
        return packaged_directory(text)
    path = Path(path_or_id).expanduser()
    if path.is_dir():
        return _with_weights(path)
    if path.is_file() and path.suffix.lower() == ENDING:
        return dequantised([path])
    if path.exists():
        raise ModelError(
            f"{text}: is a file, not a model directory; name the directory that holds config.json, or a .gguf file"
        )
    if isinstance(path_or_id, Path) or not is_hub_id(text):
        near = nearest(path.name, _models_beside(path)) or "; check the path"
        raise ModelError(f"{inert_line(text, 200)}: no such model directory{near} (a hub id is written owner/name)")
    return None


def _with_weights(path: Path) -> Path:
    inside = path / "model"
    if any((path / name).is_file() for name in _CONFIGS):
        return path
    if any((inside / name).is_file() for name in _CONFIGS):
        return inside  # even if run.yaml is gone
    if (path / _RUN_FILE).is_file():
        raise ModelError(
            f"{path}: a run directory without model/; finish the run with `unteach run --resume --output {path}`, or "
            "name the model directory itself"
        )
    return path


def run_file(path_or_id: str | Path) -> Path | None:
    """Return the settings of the run whose directory is meant, or whose model/ is; None where there are none."""
    path = Path(path_or_id).expanduser()
    for directory in (path, path.absolute().parent if path.absolute().name == "model" else path):
        if (directory / _RUN_FILE).is_file():
            return directory / _RUN_FILE
    return None


def _models_beside(path: Path) -> list[str]:
    try:
        return [entry.parent.name for entry in path.parent.glob("*/*config.json")]
    except OSError:
        return []


def check_directory(directory: Path) -> None:
    """Raise ModelError for a directory that can never be loaded, before anything is read."""
    if not (directory / "config.json").is_file():
        raise ModelError(f"{directory}: no config.json; name the directory that `save_pretrained` wrote")
    safe = sorted(path.name for path in directory.glob("*.safetensors"))
    pickles = pickled_weights(directory)
    if safe and not (pickles and not any(name.startswith("model") for name in safe)):
        return
    if pickles:
        raise ModelError(
            f"{directory}: only pickle weights ({', '.join(pickles)}), which can run code when they are loaded; "
            "convert them in a place you trust: AutoModelForCausalLM.from_pretrained(DIR)"
            ".save_pretrained(NEW_DIR) writes safetensors"
        )
    raise ModelError(f"{directory}: no weights; put model.safetensors beside config.json")


def pickled_weights(directory: Path) -> list[str]:
    """Name a few files of weights that are pickles, without those a Trainer leaves beside the weights."""
    names = {path.name for pattern in _PICKLES for path in directory.glob(pattern)} - _NOT_WEIGHTS
    return [inert_line(name, 80) for name in sorted(names)[:5]]


def is_adapter(directory: Path) -> bool:
    """Tell whether a directory holds an adapter without whole weights; a config.json may lie beside it."""
    return (directory / _ADAPTER_CONFIG).is_file() and not _has_whole_weights(directory)


def notes_on(path_or_id: str | Path) -> list[str]:
    """Say what a user should know of a model: its licence if a package brought it, and files that play no part."""
    if is_packaged(str(path_or_id)):
        return [licence_note(str(path_or_id))]
    directory = local_directory(path_or_id)
    if directory is None or not (directory / _ADAPTER_CONFIG).is_file() or is_adapter(directory):
        return []
    return [
        f"{inert_line(str(directory), 200)}: holds whole weights and an adapter; the weights were taken as "
        "they are, and the adapter, which they may hold already, was left alone (to have it put on its base, move it "
        "to a directory of its own)"
    ]


def _has_whole_weights(directory: Path) -> bool:
    names = [path.name for pattern in ("*.safetensors", "pytorch_model*.bin") for path in directory.glob(pattern)]
    return any(not name.startswith("adapter_") for name in names)


def base_of(adapter: Path) -> str:
    """Return the base model that an adapter's config names; it may be another adapter.

    Raises ModelError where it names none, and where one adapter leads to another without end.
    """
    first = base = _named_base(adapter)
    below = [adapter.resolve()]
    while (directory := local_directory(base)) is not None and is_adapter(directory):
        if directory.resolve() in below or len(below) >= _MOST_ADAPTERS:
            raise ModelError(
                f'{adapter / _ADAPTER_CONFIG}: field "base_model_name_or_path" leads from adapter to adapter '
                f"({'back to ' + str(directory) if directory.resolve() in below else f'over {_MOST_ADAPTERS} of them'})"
                "; write the directory of whole weights there"
            )
        below.append(directory.resolve())
        base = _named_base(directory)
    return first


def _named_base(adapter: Path) -> str:
    """Return what the config of one adapter names as its base."""
    path = adapter / _ADAPTER_CONFIG
    try:
        base = read_json(path.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"{path}: cannot be read ({reason(error)}); save the adapter again") from error
    if not isinstance(base, str) or not base:
        raise ModelError(f'{path}: field "base_model_name_or_path" names no base model; write its directory there')
    try:
        local_directory(base)
    except ModelError as error:
        raise ModelError(f'{path}: field "base_model_name_or_path": {error}') from error
    return base
