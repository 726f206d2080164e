"""The words that Chain of Hindsight and Critique-Revise put to the model."""

from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from unteach.errors import ConfigError, nearest

SHIPPED = Path(__file__).with_name("baselines.yaml")


@dataclass(frozen=True)
class BaselineWording:
    """What goes before a good and a bad answer, and the requests to criticise and to revise."""

    version: str
    good: str
    bad: str
    critique: str
    revision: str


def load_wording(path: str | None) -> BaselineWording:
    """Return the user's wording, or the shipped ones where no file is named. Raises ConfigError naming the field."""
    place = Path(path) if path else SHIPPED
    try:
        content = yaml.safe_load(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--wording {path}: no such file; copy {SHIPPED}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as problem:
        raise ConfigError(f"--wording {path}: not readable as YAML ({' '.join(str(problem).split())})") from None
    known = [field.name for field in fields(BaselineWording)]
    if not isinstance(content, dict):
        raise ConfigError(f"--wording {path}: holds no fields; it needs {', '.join(known)}")
    for name in content:
        if name not in known:
            raise ConfigError(f"--wording {path}: unknown field '{name}'{nearest(str(name), known)}")
    for name in known:
        text = content.get(name)
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"--wording {path}: field '{name}' must be text (put numbers in quotes)")
    return BaselineWording(**{name: text.strip() for name, text in content.items()})
