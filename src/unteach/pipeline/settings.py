"""Settings: fields of a config with all that is said of them, read from YAML and written to it."""

from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError

from unteach.errors import ConfigError, DataError, OutputError, nearest
from unteach.text.escape import inert_line

FILE_NAME = "run.yaml"
Config = TypeVar("Config", bound=BaseModel)

Place = Literal["rows", "model", "judge", "file"]
"""What on this disk a setting may name: row sources, models, judges (KIND:PLACE), or other files."""


def setting(
    group: str,
    default: Any,
    text: str,
    *,
    names: Place | None = None,
    may_differ: bool = False,
    metavar: str | None = None,
    **bounds: Any,
) -> Any:
    """Make a field of a config.

    `group` is the panel of its flag in the help and `text` the flag's help. `names` says what on this disk it may name.
    `may_differ` says whether a resumed run may change it, since it does not change what is trained. `metavar` stands
    for the value in the help. `bounds` are pydantic's (ge, gt, …).
    """
    extra: Any = {"group": group, "names": names, "may_differ": may_differ, "metavar": metavar}
    return Field(default=default, description=text, json_schema_extra=extra, **bounds)


def facts_of(kind: type[BaseModel], name: str) -> dict[str, Any]:
    """Return what `setting` was told of a field: group, names, may_differ and metavar."""
    extra: Any = kind.model_fields[name].json_schema_extra
    return dict(extra)


def settings_naming(kind: type[BaseModel], place: Place) -> list[str]:
    """Return the fields of a config that name such a place, in their order."""
    return [name for name in kind.model_fields if facts_of(kind, name)["names"] == place]


def inputs_of(config: BaseModel) -> list[str]:
    """Return every model and row source that a run with this config reads."""
    kind = type(config)
    found: list[str] = []
    for name in [*settings_naming(kind, "model"), *settings_naming(kind, "rows")]:
        value = getattr(config, name)
        found += value if isinstance(value, list) else [value] if value else []
    return found


def flag(name: str) -> str:
    """Return the flag of a field."""
    return "--" + name.replace("_", "-")


def make_config(values: dict[str, Any], kind: type[Config]) -> Config:
    """Make a config from fields; raises ConfigError that names the flag, what is wrong, and the nearest known name."""
    for name in map(str, values):
        if name not in kind.model_fields:
            raise ConfigError(f"unknown setting '{name}'{nearest(name, kind.model_fields)}")
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name, given = flag(str(first["loc"][0])), inert_line(str(first["input"]), 60)
        raise ConfigError(f"{name} {given}: {_reason(first)}") from None


def _reason(error: Any) -> str:
    """Put pydantic's complaint about one field into our words."""
    bounds = error.get("ctx", {})
    if error["type"] == "greater_than_equal":
        return f"must be at least {bounds['ge']:g}"
    if error["type"] == "greater_than":
        return f"must be more than {bounds['gt']:g}"
    if error["type"] == "finite_number":
        return "must be a finite number"
    return str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")


def read_config(path: str | Path) -> dict[str, Any]:
    """Read the fields that a YAML file sets. Raises DataError naming file and line."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a file such as a run's {FILE_NAME}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" line {place.line + 1}" if place else ""
        raise DataError(f"{path}{where}: not valid YAML; fix it or write it anew") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: holds no settings; write lines such as `method: ga-mismatch`")
    return values


def write_config(
    config: BaseModel, directory: Path, command: str = "unteach run --config run.yaml --output another-directory"
) -> None:
    """Write run.yaml; local paths are made absolute, so that `command` replays the run from anywhere."""
    values = {name: absolute(type(config), name, value) for name, value in config.model_dump().items()}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    (directory / FILE_NAME).write_text(f"# Replays this run: {command}\n{text}", encoding="utf-8")


def resumed(config: Config, directory: Path) -> Config:
    """Return the settings of the run that `directory` holds, which those given in `config` must equal.

    Raises OutputError where there is no run, ConfigError that names a setting which differs. Settings that may differ
    are taken from `config`.
    """
    kind = type(config)
    if not (directory / FILE_NAME).is_file():
        raise OutputError(f"--resume: there is no run in {directory} (no {FILE_NAME}); leave --resume out to start one")
    stored = make_config(read_config(directory / FILE_NAME), kind)
    given = {name: getattr(config, name) for name in config.model_fields_set if getattr(config, name) is not None}
    free = {name: value for name, value in given.items() if facts_of(kind, name)["may_differ"]}
    for name, value in given.items():
        before = getattr(stored, name)
        if name not in free and absolute(kind, name, value) != absolute(kind, name, before):
            raise ConfigError(
                f"{flag(name)} {value}: the run in {directory} was started with {before}; leave it out to go on with "
                "that run, or replace the run with --overwrite instead of --resume"
            )
    return stored.model_copy(update=free)


def absolute(kind: type[BaseModel], name: str, value: Any) -> Any:
    """Make what names something on this disk absolute; other values stay as they are."""
    place = facts_of(kind, name)["names"]
    if place is None or not value:
        return value
    if isinstance(value, list):
        return [absolute(kind, name, part) for part in value]
    scheme, colon, named = value.partition(":") if place == "judge" else ("", "", value)
    if scheme == "openai":
        return value  # a name on the server, though a directory here may be called the same
    path = Path(named).expanduser()
    return f"{scheme}{colon}{path.resolve()}" if named and path.exists() else value
