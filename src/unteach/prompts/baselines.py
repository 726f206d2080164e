"""The words that Chain of Hindsight and Critique-Revise put to the model."""

from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from unteach.errors import ConfigError, nearest

SHIPPED = Path(__file__).with_name("baselines.yaml")


@dataclass(frozen=True)
class Templates:
    """What goes before a good and a bad answer, and the requests to criticise and to revise."""

    version: str
    good: str
    bad: str
    critique: str
    revision: str


def load_templates(path: str | None) -> Templates:
    """Return the user's templates, or the shipped ones where no file is named. Raises ConfigError naming the field."""
    place = Path(path) if path else SHIPPED
    try:
        content = yaml.safe_load(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"--templates {path}: no such file; copy {SHIPPED}") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as problem:
        raise ConfigError(f"--templates {path}: not readable as YAML ({' '.join(str(problem).split())})") from None
    known = [field.name for field in fields(Templates)]
    if not isinstance(content, dict):
        raise ConfigError(f"--templates {path}: holds no fields; it needs {', '.join(known)}")
    for name in content:
        if name not in known:
            raise ConfigError(f"--templates {path}: unknown field '{name}'{nearest(str(name), known)}")
    for name in known:
        text = content.get(name)
        if not isinstance(text, str) or not text.strip():
            raise ConfigError(f"--templates {path}: field '{name}' must be text (put numbers in quotes)")
    return Templates(**{name: text.strip() for name, text in content.items()})
