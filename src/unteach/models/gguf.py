"""GGUF files, as runtimes for laptops have them: dequantised once into the user's cache, then like any model."""

import hashlib
import importlib.util
import io
import shutil
from collections.abc import Sequence
from contextlib import redirect_stderr
from functools import cache
from pathlib import Path
from typing import Any

from unteach.disk.cache import FIX, Cache, cache_directory, sha256_of
from unteach.disk.files import writing
from unteach.disk.lock import FileLock
from unteach.errors import ModelError
from unteach.models.hub import cached_only, reason
from unteach.progress import track
from unteach.text.escape import inert_line

ENDING = ".gguf"
MOST_BYTES = 64 * 2**30
"""Largest size of all dequantised models together."""


def dequantised(files: Sequence[Path]) -> Path:
    """Return the directory of a GGUF file's model as float32 safetensors; `files` are its pieces, in order.

    It is made once and kept in the user's cache; another process that makes it is waited for. Values are those of the
    GGUF file, rounding included: no more precise, only in a form that can be trained.

    Raises ModelError for a file that is no GGUF or of a family that transformers does not dequantise, and OutputError.
    """
    return _dequantised(tuple((path.resolve(), path.stat().st_size, path.stat().st_mtime_ns) for path in files))


@cache
def _dequantised(files: tuple[tuple[Path, int, int], ...]) -> Path:
    paths = [path for path, _, _ in files]
    digest = hashlib.sha256("".join(map(sha256_of, paths)).encode())
    home = cache_directory() / "dequantised"
    key = f"{inert_line(paths[0].name.partition(ENDING)[0], 60)}-{digest.hexdigest()[:12]}"
    with writing(home, FIX):
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = Cache(home, MOST_BYTES)
    with FileLock(home / f".{key}.lock"):
        return kept.find(key) or kept.make(key, lambda directory: _fill(directory, paths))


def _fill(directory: Path, paths: Sequence[Path]) -> None:
    """Write config, weights and tokenizer of a GGUF file into a directory."""
    need_package(paths[0])
    joined = directory / "joined.gguf"
    if len(paths) > 1:
        with joined.open("wb") as whole:
            for path in paths:
                with path.open("rb") as piece:
                    shutil.copyfileobj(piece, whole)
    with track(f"dequantising {inert_line(paths[0].name, 80)}, once"):
        model, tokenizer = read_gguf(joined if len(paths) > 1 else paths[0], paths[0])
        with redirect_stderr(io.StringIO()):
            model.save_pretrained(directory)
            tokenizer.save_pretrained(directory)
    joined.unlink(missing_ok=True)


def need_package(path: Path) -> None:
    """Raise ModelError where the package that reads and writes GGUF files is not installed."""
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(f"{path}: GGUF files are read by the package gguf; install it with: pip install gguf")


def read_gguf(source: Path, named: Path | None = None) -> tuple[Any, Any]:
    """Return the model of a GGUF file in float32, as if it had never been quantised, and its tokenizer.

    `named` stands for the file in messages. Raises ModelError for a file that cannot be dequantised.
    """
    need_package(named or source)
    with redirect_stderr(io.StringIO()):
        try:
            return _load(source)
        except Exception as error:  # files of strangers, read by libraries that raise anything
            raise ModelError(
                f"{named or source}: cannot be dequantised ({reason(error)}); give a whole GGUF file of a family that "
                "transformers reads, such as Llama, Qwen, Gemma or Phi"
            ) from error


def _load(source: Path) -> tuple[Any, Any]:
    """Return the model of a GGUF file, as if it had never been quantised, and its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where: dict[str, Any] = {"gguf_file": source.name}
    with cached_only(True):
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **where)
        model = AutoModelForCausalLM.from_pretrained(source.parent, **where, dtype=torch.float32)
    config = model.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # saving refuses what is marked as quantised
    plain = type(model)(config)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    return plain, tokenizer
