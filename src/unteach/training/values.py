"""Settings of a Trainer that the user sets by name (`--set trainer.KEY=VALUE`)."""

import dataclasses
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from unteach.errors import ConfigError, nearest
from unteach.text.escape import inert_line
from unteach.training.config import UnlearnConfig


def trainer_values(given: dict[str, Any], kind: Any, own: dict[str, str]) -> dict[str, Any]:
    """Return the `trainer` settings with the types of the fields of `kind`, the Trainer's config.

    `own` maps fields that have a setting of ours to that setting. Raises ConfigError for these, for unknown fields, and
    for values that do not fit.
    """
    kinds = get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind) if field.init}
    values = {}
    for key, value in given.items():
        if key not in known:
            where = "TrainingArguments" if kind is UnlearnConfig else kind.__name__
            raise ConfigError(f"--set trainer.{key}: {where} has no such field{nearest(key, known)}")
        if key in own:
            raise ConfigError(f"--set trainer.{key}: it has a flag of its own; use --{own[key].replace('_', '-')}")
        try:
            values[key] = TypeAdapter(kinds[key]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Input ")
            raise ConfigError(f"--set trainer.{key}={inert_line(str(value), 60)}: {reason}") from None
    return values
