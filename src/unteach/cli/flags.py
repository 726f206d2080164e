"""Flags made from the fields of a config: type, help, default and group are said once, there."""

import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any, get_args, get_origin

import typer
import yaml
from pydantic import BaseModel
from rich.markup import escape

from unteach.errors import ConfigError
from unteach.pipeline.config import RunConfig
from unteach.pipeline.settings import Config, facts_of, flag, make_config, read_config

PAIRS = ("column", "retain_column")
GROUPS = ("Model", "Data", "Output", "Steps", "Study", "Method", "Training", "Stopping", "Evaluation")


def settings(
    *groups: str, without: Collection[str] = (), of: type[BaseModel] = RunConfig
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag per field of a config in these groups; only flags that were given arrive."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = [name for name in of.model_fields if _group(of, name) in groups and name not in without]
        made = [_option(of, name) for name in names]

        def with_settings(**values: Any) -> None:
            arguments = {p.name: values.pop(p.name) for p in own}
            command(**arguments, **_given(values))

        shown = sorted([*made, *(p.replace(kind=p.KEYWORD_ONLY) for p in own)], key=_place)
        with_settings.__doc__ = command.__doc__
        with_settings.__name__ = command.__name__
        with_settings.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        with_settings.__annotations__ = {p.name: p.annotation for p in shown}
        return with_settings

    return decorate


def _group(config: type[BaseModel], name: str) -> str:
    return str(facts_of(config, name)["group"])


def _place(parameter: inspect.Parameter) -> int:
    """Where a flag stands in the help: by its group, groups that are a verb's own first."""
    panel = parameter.annotation.__metadata__[0].rich_help_panel
    return GROUPS.index(panel) if panel in GROUPS else -1


def _option(config: type[BaseModel], name: str) -> inspect.Parameter:
    """Make the flag of one field: its type, help and shown default come from the field."""
    field = config.model_fields[name]
    default = field.default
    kind = next(k for k in (*get_args(field.annotation), field.annotation) if k is not type(None))
    if name in ("trainer", *PAIRS) or get_origin(field.annotation) is list:
        kind = list[str]
    flags = ["--set"] if name == "trainer" else [flag(name)]
    if default is True:
        flags = [f" /--no-{flag(name)[2:]}"]
    elif default is None and kind is bool:
        flags = [f"{flag(name)}/--no-{flag(name)[2:]}"]
    shown = "" if default in (None, "", [], {}) or isinstance(default, bool) else f" \\[{default}]"
    option = typer.Option(
        *flags,
        help=f"{escape(str(field.description))}{shown}",
        rich_help_panel=_group(config, name),
        show_default=False,
        metavar=_metavar(config, name, kind),
    )
    place = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, place, default=None, annotation=Annotated[kind | None, option])


def _metavar(config: type[BaseModel], name: str, kind: Any) -> str | None:
    """What stands for the value in the help."""
    facts = facts_of(config, name)
    if kind is bool:
        return " "
    by_place = {"rows": "SOURCE", "model": "DIR|ID", "file": "FILE"}.get(facts["names"])
    return facts["metavar"] or by_place or {int: "N", float: "X"}.get(kind, "NAME")


def _given(values: dict[str, Any]) -> dict[str, Any]:
    """Keep the flags that were given; KEY=VALUE flags become dictionaries."""
    given = {name: value for name, value in values.items() if value not in (None, [])}
    for name in PAIRS:
        if name in given:
            given[name] = dict(_pair(flag(name), text) for text in given[name])
    if "trainer" in given:
        pairs = dict(_pair("--set", text) for text in given["trainer"])
        wrong = next((key for key in pairs if not key.startswith("trainer.")), None)
        if wrong:
            raise ConfigError(f"--set {wrong}: only trainer.KEY=VALUE can be set; other settings have flags")
        given["trainer"] = {key.removeprefix("trainer."): _value(key, text) for key, text in pairs.items()}
    return given


def _value(key: str, text: str) -> Any:
    """Read lists and mappings as YAML; the rest stays text, to become what the field is: `no` may be a word."""
    if text == "null" or text[0] not in "[{":
        return None if text == "null" else text
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"--set {key}={text}: not a list or mapping in YAML; check brackets and quotes") from None


def _pair(name: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise ConfigError(f"{name} {text}: write it as KEY=VALUE")
    return key, value


def config_of(path: str | None, values: dict[str, Any], kind: type[Config]) -> Config:
    """Settings from a file, overridden by flags."""
    return make_config((read_config(path) if path else {}) | values, kind)


def valued(name: str, text: str, group: str, metavar: str, **bounds: Any) -> Any:
    """Make a flag that takes a value; `bounds` are typer's."""
    return typer.Option(name, help=text, rich_help_panel=group, metavar=metavar, show_default=False, **bounds)


def plain(name: str, text: str, group: str) -> Any:
    """Make a flag that is there or not."""
    return valued(name, text, group, " ")


ConfigFile = Annotated[
    str | None,
    typer.Option("--config", help="Settings from a YAML file; flags win.", rich_help_panel="Output", metavar="FILE"),
]
Resume = Annotated[bool, plain("--resume", "Go on with the run in --output from its last checkpoint.", "Output")]
Overwrite = Annotated[bool, plain("--overwrite", "Replace the run in --output.", "Output")]
