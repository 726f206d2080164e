"""Settings: the fields of a config with all facts about them, read from YAML and written to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from unteach.disk.files import write_whole
from unteach.errors import ConfigError, DataError, OutputError, nearest
from unteach.models.ranks import by_first_rank
from unteach.pipeline.directory import SETTINGS, beginning
from unteach.text.bounded import YamlFault, read_yaml
from unteach.text.escape import inert_line

FILE_NAME = SETTINGS
LARGEST = 2**31 - 1
"""Largest whole number of a setting."""
Config = TypeVar("Config", bound=BaseModel)

Place = Literal["rows", "model", "judge", "file"]
"""What a setting may name on this disk: row sources, models, judges (KIND:PLACE) or other files."""


@dataclass(frozen=True)
class Facts:
    """What is known of a setting beside its type, default, help and bounds.

    `group` is the panel of its flag in the help, and `metavar` stands for its value there. `names` says what it may
    name on this disk. `may_differ` says whether a resumed run may change it, because it does not affect training.
    `choices` are the values that it may have, or a function where listing them takes an import. `commas` marks a list
    that may also be written as one text with commas.
    """

    group: str
    names: Place | None = None
    may_differ: bool = False
    metavar: str | None = None
    choices: Sequence[str] | Callable[[], Sequence[str]] = ()
    commas: bool = False


def setting(
    group: str,
    default: Any,
    text: str,
    *,
    names: Place | None = None,
    may_differ: bool = False,
    metavar: str | None = None,
    choices: Sequence[str] | Callable[[], Sequence[str]] = (),
    commas: bool = False,
    **bounds: Any,
) -> Any:
    """Make a field of a config: `text` is its help, `bounds` are pydantic's (ge, gt, …), the rest are its `Facts`."""
    facts: Any = {"facts": Facts(group, names, may_differ, metavar, choices, commas)}
    return Field(default=default, description=text, json_schema_extra=facts, **bounds)


def facts_of(kind: type[BaseModel], name: str) -> Facts:
    """Return the facts about a field that `setting` has made."""
    extra: Any = kind.model_fields[name].json_schema_extra
    facts: Facts = extra["facts"]
    return facts


class CheckedModel(BaseModel):
    """A pydantic model whose constructor raises ConfigError, which names the flag, the fault and the nearest name."""

    def __init__(self, **values: Any) -> None:
        known = type(self).model_fields
        for name in values:
            if name not in known:
                raise ConfigError(f"unknown setting '{inert_line(name, 60)}'{nearest(name, known)}")
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name, given = flag(str(first["loc"][0])), inert_line(str(first["input"]), 60)
            raise ConfigError(f"{name} {given}: {_reason(first)}") from None


class Settings(CheckedModel):
    """Base of every config whose fields are made by `setting`; it refuses unknown fields and choices."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _split_at_commas(cls, value: Any, info: ValidationInfo) -> Any:
        if not facts_of(cls, str(info.field_name)).commas:
            return value
        parts = [value] if isinstance(value, str) else value
        if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
            return value  # pydantic refuses it
        return list(dict.fromkeys(name.strip() for part in parts for name in part.split(",") if name.strip()))

    @field_validator("*")
    @classmethod
    def _bound(cls, value: Any) -> Any:
        """Refuse whole numbers that torch and numpy do not take as a seed or a count, and names that no file has."""
        if any(isinstance(part, str) and "\0" in part for part in (value if isinstance(value, list) else [value])):
            raise ValueError("holds a null character; leave it out")
        if isinstance(value, int) and abs(value) > LARGEST:
            raise ValueError(f"must be at most {LARGEST}")
        return value

    @field_validator("*")
    @classmethod
    def _refuse_unknown(cls, value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        choices = facts_of(cls, name).choices
        if not choices or value == cls.model_fields[name].default:  # without listing the choices, which may be slow
            return value
        known = choices() if callable(choices) else choices
        for chosen in value if isinstance(value, list) else filter(None, [value]):
            if chosen not in known:
                which = f" '{chosen}'" if isinstance(value, list) else ""
                raise ValueError(f"unknown{which}{nearest(chosen, known)} (known: {', '.join(known)})")
        return value


def settings_naming(kind: type[BaseModel], place: Place) -> list[str]:
    """Return the fields of a config that name such a place, in order."""
    return [name for name in kind.model_fields if facts_of(kind, name).names == place]


def inputs_of(config: Settings) -> list[str]:
    """Return every model, row source and file that a run with this config may read."""
    inputs = []
    for name in type(config).model_fields:
        place, value = facts_of(type(config), name).names, getattr(config, name)
        if place is not None:
            inputs += [_split_at_path(place, text)[1] for text in (value if isinstance(value, list) else [value or ""])]
    return [path for path in inputs if path]


def flag(name: str) -> str:
    """Return the flag of a field."""
    return "--" + name.replace("_", "-")


def make_config(values: dict[str, Any], kind: type[Config]) -> Config:
    """Make a config from values by field, as a file has them. Raises ConfigError."""
    return kind(**{str(name): value for name, value in values.items()})


def _reason(error: Any) -> str:
    """Put pydantic's complaint about one field into our words."""
    bounds = error.get("ctx", {})
    if error["type"] == "less_than_equal":
        return f"must be at most {bounds['le']:g}"
    if error["type"] == "greater_than_equal":
        return f"must be at least {bounds['ge']:g}"
    if error["type"] == "greater_than":
        return f"must be more than {bounds['gt']:g}"
    if error["type"] == "list_type":
        return "must be a list, even of one"
    if error["type"] == "finite_number":
        return "must be a finite number"
    return str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")


def read_config(path: str | Path) -> dict[str, Any]:
    """Read the fields that a YAML file sets. Raises DataError that names file and line."""
    try:
        values = read_yaml(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a file such as a run's {FILE_NAME}") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not valid YAML (not UTF-8 text); fix it or write it anew") from None
    except YamlFault as fault:
        where = f" line {fault.line}" if fault.line else ""
        raise DataError(f"{path}{where}: {inert_line(str(fault), 200)}; fix it or write it anew") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: holds no settings; write lines such as `method: ga-mismatch`")
    return values


@by_first_rank
def write_config(
    config: Settings,
    directory: Path,
    command: str = "unteach run --config run.yaml --output another-directory",
    *,
    overwrite: bool = False,
) -> None:
    """Write run.yaml, with absolute local paths, so that `command` repeats the run from any directory.

    With `overwrite`, an earlier run in the directory is removed first. Raises OutputError.
    """
    values = {name: absolute(type(config), name, value) for name, value in config.model_dump().items()}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    with beginning(directory, overwrite=overwrite):
        write_whole(directory / FILE_NAME, f"# Replays this run: {command}\n{text}")


@by_first_rank
def resumed(config: Config, directory: Path) -> Config:
    """Return the settings of the run in `directory`; those set in `config` must be equal to them.

    Settings that may differ are taken from `config`. Raises OutputError where there is no run, and ConfigError that
    names a setting which differs.
    """
    kind = type(config)
    if not (directory / FILE_NAME).is_file():
        raise OutputError(f"--resume: there is no run in {directory} (no {FILE_NAME}); leave --resume out to start one")
    stored = make_config(read_config(directory / FILE_NAME), kind)
    given = {name: getattr(config, name) for name in config.model_fields_set if getattr(config, name) is not None}
    free = {name: value for name, value in given.items() if facts_of(kind, name).may_differ}
    for name, value in given.items():
        before = getattr(stored, name)
        if name not in free and absolute(kind, name, value) != absolute(kind, name, before):
            raise ConfigError(
                f"{flag(name)} {value}: the run in {directory} was started with {before}; leave it out to go on with "
                "that run, or replace the run with --overwrite instead of --resume"
            )
    return stored.model_copy(update=free)


def absolute(kind: type[BaseModel], name: str, value: Any) -> Any:
    """Return a value with its local path made absolute; a value that names nothing on this disk stays as it is."""
    place = facts_of(kind, name).names
    if place is None or not value:
        return value
    if isinstance(value, list):
        return [absolute(kind, name, part) for part in value]
    before, at = _split_at_path(place, value)
    path = Path(at).expanduser().resolve()  # a pipe of the shell has no path of its own
    return f"{before}{path}" if at and path.exists() else value


def _split_at_path(place: Place, value: str) -> tuple[str, str]:
    """Split a value into what precedes its path, and the path: "rule:" and "rules.yaml" for a judge."""
    kind, colon, path = value.partition(":")
    if place == "judge" and kind in ("openai", "guard"):
        return value, ""  # a name on the server, though a directory here may have the same name
    return (kind + colon, path) if place == "judge" else ("", value)
