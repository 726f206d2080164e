"""The words put to the model in each step of learning from mistakes: shipped, versioned, and the user's to replace."""

import string
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from unteach.errors import ConfigError, nearest
from unteach.prompts.turn import Turn

SHIPPED = Path(__file__).with_name("mistakes.yaml")
HINTS = ("guided", "unguided", "misleading")
_HOLES = {"guided": {"prompt", "reply"}, "unguided": {"prompt", "reply"}, "misleading": {"prompt", "reply"}}


@dataclass(frozen=True)
class MistakeWording:
    """The words of all four steps; `version` goes into every mistake and analysis that they led to.

    Source: the steps of arXiv 2310.10477, section 4. Differs: the wording is ours, the paper's is not published.
    """

    version: str
    inducements: tuple[str, ...]
    guided: str
    unguided: str
    misleading: str
    reminder: str

    def induce(self, number: int, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
        """Return the dialogue with its last turn put as inducement `number` asks for it."""
        last = turns[-1]
        asked = _filled(self.inducements[number], prompt=last.content)
        return (*turns[:-1], Turn(last.role, asked))

    def assess(self, hint: str, prompt: str, reply: str) -> str:
        """Write the request to assess a reply; `hint` is one of HINTS."""
        return _filled(getattr(self, hint), prompt=prompt, reply=reply)


def _filled(template: str, **texts: str) -> str:
    """Put the texts into their holes; braces inside a text are left as they are."""
    parts = string.Formatter().parse(template)
    return "".join(literal + (texts[hole] if hole else "") for literal, hole, _, _ in parts)


def _holes(template: str) -> set[str]:
    """Name the holes as they are written, with "!r" or ":>9" where such are asked for, which no hole may be."""
    parts = [part for part in string.Formatter().parse(template) if part[1] is not None]
    return {f"{hole}{'!' if how else ''}{how or ''}{':' if spec else ''}{spec}" for _, hole, spec, how in parts}


@cache
def shipped_wording() -> MistakeWording:
    """Return the wording of this package."""
    return read_wording(SHIPPED)


def load_wording(path: str | Path | None) -> MistakeWording:
    """Return the user's wording, or the shipped ones where no file is named."""
    return read_wording(Path(path)) if path else shipped_wording()


def read_wording(path: Path) -> MistakeWording:
    """Read a file of wording. Raises ConfigError that names the file and the field."""
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--wording {path}: no such file; `unteach mistakes wording` prints one") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as problem:  # ValueError: no UTF-8, or no date
        reason = " ".join(str(problem).split())
        raise ConfigError(f"--wording {path}: not readable as YAML ({reason}); fix it") from None
    known = [field.name for field in fields(MistakeWording)]
    if not isinstance(content, dict):
        raise ConfigError(f"--wording {path}: holds no fields; it needs {', '.join(known)}")
    for name in content:
        if name not in known:
            raise ConfigError(f"--wording {path}: unknown field '{name}'{nearest(str(name), known)}")
    for name in known:
        if name not in content:
            raise ConfigError(f"--wording {path}: field '{name}' is missing; `unteach mistakes wording` shows all")
        _check(path, name, content[name])
    texts = {"inducements": tuple(content["inducements"]), "reminder": _filled(content["reminder"])}
    return MistakeWording(**content | texts)


def _check(path: Path, name: str, value: Any) -> None:
    """Refuse a field that is no text, or lacks a hole or has one too many."""
    texts = value if name == "inducements" else [value]
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
        wanted = "a list of texts" if name == "inducements" else "text (put numbers in quotes)"
        raise ConfigError(f"--wording {path}: field '{name}' must be {wanted}, and not be empty")
    if name == "version":  # the only text that is never filled in
        return
    wanted_holes = {"prompt"} if name == "inducements" else _HOLES.get(name, set())
    for text in texts:
        try:
            holes = _holes(text)
        except ValueError as error:
            raise ConfigError(f"--wording {path}: field '{name}': {error}; write a brace as two braces") from None
        if holes != wanted_holes:
            needed = " and ".join(f"{{{hole}}}" for hole in sorted(wanted_holes)) or "no braces"
            found = " and ".join(f"{{{hole}}}" for hole in sorted(holes)) or "none"
            raise ConfigError(f"--wording {path}: field '{name}' needs {needed}, and has {found}")
