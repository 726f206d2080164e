"""Files of wording: YAML with the texts that are put to a model, one for each field of a dataclass."""

import string
from dataclasses import Field, field, fields
from pathlib import Path
from typing import Any, TypeVar

from unteach.errors import ConfigError, nearest
from unteach.text.bounded import read_yaml
from unteach.text.escape import inert_line

Wording = TypeVar("Wording")


def text_with(*holes: str, several: bool = False, **more: Any) -> Any:
    """Declare a field of a wording whose text has exactly these holes; with `several`, a list of such texts.

    Two braces in it stand for one. A field that is not declared so is taken as it is written. `more` goes to the field,
    such as a default for wordings made in code; a file must have every field.
    """
    return field(metadata={"holes": frozenset(holes), "several": several}, **more)


def fill(text: str, **values: str) -> str:
    """Put the values into the holes of a text; braces inside a value are left as they are."""
    parts = string.Formatter().parse(text)
    return "".join(literal + (values[hole] if hole else "") for literal, hole, _, _ in parts)


def read_wording(kind: type[Wording], path: Path, remedy: str) -> Wording:
    """Read a file of wording into the dataclass `kind`; `remedy` says where to get a complete file.

    Raises ConfigError that names the file and the field.
    """
    try:
        content: Any = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--wording {path}: no such file; {remedy}") from None
    except (OSError, ValueError) as problem:  # ValueError: no UTF-8, or no YAML
        reason = inert_line(str(problem), 200)
        raise ConfigError(f"--wording {path}: not readable as YAML ({reason}); fix it") from None
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    if not isinstance(content, dict):
        raise ConfigError(f"--wording {path}: holds no fields; it needs {', '.join(known)}")
    for name in content:
        if name not in known:
            raise ConfigError(f"--wording {path}: unknown field '{name}'{nearest(str(name), known)}")
    for name in known:
        if name not in content:
            raise ConfigError(f"--wording {path}: field '{name}' is missing; {remedy}")
    return kind(**{name: _read_field(path, field, content[name]) for name, field in known.items()})


def _read_field(path: Path, declared: Field[Any], value: Any) -> str | tuple[str, ...]:
    """Return the text, or the texts, of a field. Raises ConfigError for anything else and for wrong holes."""
    several = declared.metadata.get("several", False)
    texts = value if several else [value]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        wanted = "a list of texts" if several else "text (put numbers in quotes)"
        raise ConfigError(f"--wording {path}: field '{declared.name}' must be {wanted}, and not be empty")
    texts = [text.strip() for text in texts]
    wanted_holes = declared.metadata.get("holes")
    if wanted_holes is not None:
        for text in texts:
            _check_holes(f"--wording {path}: field '{declared.name}'", text, wanted_holes)
        if not wanted_holes:  # there is nothing to wait for
            texts = [fill(text) for text in texts]
    return tuple(texts) if several else texts[0]


def _check_holes(place: str, text: str, wanted: frozenset[str]) -> None:
    try:
        holes = _holes(text)
    except ValueError as error:
        raise ConfigError(f"{place}: {error}; write a brace as two braces") from None
    if holes != wanted:
        needed = " and ".join(f"{{{hole}}}" for hole in sorted(wanted)) or "no braces"
        found = " and ".join(f"{{{hole}}}" for hole in sorted(holes)) or "none"
        raise ConfigError(f"{place} needs {needed}, and has {found}")


def _holes(text: str) -> set[str]:
    """Name the holes as they are written, with "!r" or ":>9" where such are asked for, which no hole may have."""
    parts = [part for part in string.Formatter().parse(text) if part[1] is not None]
    return {f"{hole}{'!' if how else ''}{how or ''}{':' if spec else ''}{spec}" for _, hole, spec, how in parts}
