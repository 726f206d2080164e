"""Flags made from the fields of a config: type, help, default and group are said once, there."""

import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Annotated, Any, get_args, get_origin

import typer
from rich.markup import escape

from unteach.errors import ConfigError
from unteach.pipeline.settings import LARGEST, Config, Settings, facts_of, flag, make_config, read_config
from unteach.text.bounded import YamlFault, read_yaml
from unteach.text.escape import inert_line

GROUPS = (
    "Model",
    "Data",
    "Output",
    "Budget",
    "Steps",
    "Study",
    "Method",
    "Training",
    "Stopping",
    "Strength",
    "Evaluation",
    "Planning",
)
"""The panels of settings in the help, in their order; panels of a verb's own flags stand above them."""

Verb = Callable[..., None]


def option(name: str, text: str, group: str, metavar: str, **more: Any) -> Any:
    """Make a flag that takes a value; `more` is typer's, such as bounds."""
    return typer.Option(name, help=text, rich_help_panel=group, metavar=metavar, show_default=False, **more)


def switch(name: str, text: str, group: str) -> Any:
    """Make a flag that is given or not, and takes no value."""
    return option(name, text, group, " ")


def seed_of(text: Any) -> int:
    """Read the value of a flag that is a seed, for typer's `parser`."""
    try:
        seed = int(text)
    except ValueError:
        seed = -1
    if not 0 <= seed <= LARGEST:
        raise typer.BadParameter(f"{inert_line(str(text), 40)} must be a whole number from 0 to {LARGEST}")
    return seed


ConfigFile = Annotated[str | None, option("--config", "Settings from a YAML file; flags win.", "Output", "FILE")]
Resume = Annotated[bool, switch("--resume", "Go on with the run in --output from its last checkpoint.", "Output")]
Overwrite = Annotated[bool, switch("--overwrite", "Replace the run in --output.", "Output")]


def flags_from(config: type[Settings], *groups: str, without: Collection[str] = ()) -> Callable[[Verb], Verb]:
    """Give a verb one flag for each field of a config in these groups, but for the fields in `without`.

    The verb gets the flags that the user gave, as values for `config_of`.
    """
    assert set(without) <= set(config.model_fields), without
    names = [name for name in config.model_fields if facts_of(config, name).group in groups and name not in without]

    def decorate(verb: Verb) -> Verb:
        own = [p for p in inspect.signature(verb).parameters.values() if p.kind is not p.VAR_KEYWORD]

        def with_flags(**values: Any) -> None:
            arguments = {p.name: values.pop(p.name) for p in own}
            verb(**arguments, **_given(config, values))

        made = [_parameter(config, name) for name in names]
        shown = sorted([*made, *(p.replace(kind=p.KEYWORD_ONLY) for p in own)], key=_rank)
        with_flags.__doc__ = verb.__doc__
        with_flags.__name__ = verb.__name__
        with_flags.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        with_flags.__annotations__ = {p.name: p.annotation for p in shown}
        return with_flags

    return decorate


def config_of(path: str | None, values: dict[str, Any], kind: type[Config]) -> Config:
    """Make a config from a file, if one is named, and the flags that the user gave, which win."""
    return make_config((read_config(path) if path else {}) | values, kind)


def _rank(parameter: inspect.Parameter) -> int:
    """Return where a flag stands in the help: by its group, groups of a verb's own first."""
    group = parameter.annotation.__metadata__[0].rich_help_panel
    return GROUPS.index(group) if group in GROUPS else -1


def _parameter(config: type[Settings], name: str) -> inspect.Parameter:
    """Make the flag of one field. Fields that hold several values are flags that may be repeated."""
    field, facts = config.model_fields[name], facts_of(config, name)
    default = field.default
    kind = next(k for k in (*get_args(field.annotation), field.annotation) if k is not type(None))
    if get_origin(field.annotation) in (list, dict):
        kind = list[str]
    shown = "" if default in (None, "", [], {}) or isinstance(default, bool) else f" \\[{default}]"
    made = option(
        _flag_of(config, name), f"{escape(str(field.description))}{shown}", facts.group, _metavar(config, name, kind)
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, made]
    )


def _flag_of(config: type[Settings], name: str) -> str:
    """Return the flag of a field as typer reads it: a switch may have a form that is off."""
    field = config.model_fields[name]
    on, off = flag(name), f"--no-{flag(name)[2:]}"
    if _is_free(config, name):
        return "--set"
    if field.default is True:
        return f" /{off}"
    return f"{on}/{off}" if field.default is None and bool in get_args(field.annotation) else on


def _is_free(config: type[Settings], name: str) -> bool:
    """Whether a field takes any names and values, as `trainer` does: it is set by --set NAME.KEY=VALUE."""
    annotation = config.model_fields[name].annotation
    return get_origin(annotation) is dict and get_args(annotation)[1] is Any


def _metavar(config: type[Settings], name: str, kind: Any) -> str:
    """Return what stands for the value in the help."""
    if kind is bool:
        return " "
    facts = facts_of(config, name)
    by_place = {"rows": "SOURCE", "model": "DIR|ID", "file": "FILE"}.get(str(facts.names))
    return facts.metavar or by_place or {int: "N", float: "X"}.get(kind, "NAME")


def _given(config: type[Settings], values: dict[str, Any]) -> dict[str, Any]:
    """Keep the flags that were given; those of KEY=VALUE become dictionaries."""
    given = {name: value for name, value in values.items() if value not in (None, [])}
    for name, value in given.items():
        if _is_free(config, name):
            given[name] = _free_values(name, value)
        elif get_origin(config.model_fields[name].annotation) is dict:
            given[name] = key_values(flag(name), value)
    return given


def _free_values(name: str, texts: list[str]) -> dict[str, Any]:
    """Read what --set gives to a field. Raises ConfigError for settings that have flags."""
    pairs = key_values("--set", texts)
    wrong = next((key for key in pairs if not key.startswith(f"{name}.")), None)
    if wrong:
        raise ConfigError(f"--set {wrong}: only {name}.KEY=VALUE can be set; other settings have flags")
    return {key.removeprefix(f"{name}."): _value(key, text) for key, text in pairs.items()}


def _value(key: str, text: str) -> Any:
    """Read lists and mappings as YAML; other text stays text until its field's type is known: `no` may be a word."""
    if text == "null" or text[0] not in "[{":
        return None if text == "null" else text
    try:
        return read_yaml(text)
    except YamlFault as fault:
        shown = f"--set {key}={inert_line(text, 60)}: not a list or mapping in YAML"
        raise ConfigError(f"{shown} ({inert_line(str(fault), 100)}); check brackets and quotes") from None


def key_values(name: str, texts: Iterable[str]) -> dict[str, str]:
    """Read what a flag of KEY=VALUE was given. Raises ConfigError."""
    return dict(_pair(name, text) for text in texts)


def _pair(name: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise ConfigError(f"{name} {text}: write it as KEY=VALUE")
    return key, value
