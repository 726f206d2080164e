"""The command line: verbs, each calling the function of the same name."""

import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
import yaml
from rich.console import Console

from unteach import __version__
from unteach.config import RunConfig, flag, make_config, read_config
from unteach.errors import ConfigError, UnteachError
from unteach.escape import terminal_text

app = typer.Typer(
    name="unteach",
    help="Make a language model stop: negatives in, checked model out.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
PAIRS = ("column", "retain_column")


def main() -> None:
    """Run the command line; an expected error is one line and its exit code."""
    try:
        app()
    except UnteachError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(terminal_text(f"Error: {error}", "red"))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        Console(stderr=True).print("Stopped.")
        sys.exit(130)


def settings(*groups: str, **defaults: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command one flag per field of `RunConfig` in these groups; only flags that were given arrive.

    `defaults` are fields that this command starts from other values, for the help text.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = [p for p in inspect.signature(command).parameters.values() if p.kind is not p.VAR_KEYWORD]
        made = [_option(name, defaults) for name in RunConfig.model_fields if _group(name) in groups]

        def with_settings(**values: Any) -> None:
            arguments = {p.name: values.pop(p.name) for p in own}
            command(**arguments, **_given(values))

        with_settings.__doc__ = command.__doc__
        with_settings.__name__ = command.__name__
        with_settings.__signature__ = inspect.Signature([*own, *made])  # type: ignore[attr-defined]
        with_settings.__annotations__ = {p.name: p.annotation for p in [*own, *made]}
        return with_settings

    return decorate


def _group(name: str) -> str:
    return RunConfig.model_fields[name].json_schema_extra["group"]  # type: ignore[index, return-value]


def _option(name: str, defaults: dict[str, Any]) -> inspect.Parameter:
    """Make the flag of one field: its type, help and shown default come from the field."""
    field = RunConfig.model_fields[name]
    default = defaults.get(name, field.default)
    flags = [flag(name)]
    if name == "trainer":
        kind: Any = list[str]
        flags = ["--set"]
    elif name in PAIRS or get_origin(field.annotation) is list:
        kind = list[str]
    else:
        kind = next(k for k in (*get_args(field.annotation), field.annotation) if k is not type(None))
    if kind is bool:
        flags = [f"{flag(name)}/--no-{flag(name)[2:]}"]
    shown = "" if default in (None, "", [], {}, False) else f" (default: {'on' if default is True else default})"
    text = f"{field.description}{shown}"
    option = typer.Option(*flags, help=text, rich_help_panel=_group(name), show_default=False, metavar=_metavar(name))
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
    )


def _metavar(name: str) -> str | None:
    return {"trainer": "TRAINER.KEY=VALUE", "column": "OURS=THEIRS", "retain_column": "OURS=THEIRS"}.get(name)


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
        given["trainer"] = {key.removeprefix("trainer."): yaml.safe_load(text) for key, text in pairs.items()}
    return given


def _pair(name: str, text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals and value):
        raise ConfigError(f"{name} {text}: write it as KEY=VALUE")
    return key, value


def _config(path: str | None, values: dict[str, Any]) -> RunConfig:
    """Settings from a file, overridden by flags."""
    return make_config((read_config(path) if path else {}) | values)


ConfigFile = Annotated[
    str | None, typer.Option("--config", help="Settings from a YAML file; flags win.", rich_help_panel="Output")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on from the last complete checkpoint.", rich_help_panel="Output")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace the run in the output directory.", rich_help_panel="Output")
]
ALL_GROUPS = ("Model", "Data", "Method", "Training", "Stopping", "Checking", "Output")


@app.command(name="run")
@settings(*ALL_GROUPS)
def run_command(config: ConfigFile = None, resume: Resume = False, overwrite: Overwrite = False, **values: Any) -> None:
    """Unlearn the negatives, then measure the original and the result on seen, unseen and normal prompts.

    [bold]Examples[/bold]

    unteach run --model ./model --forget bad.jsonl --output ./out

    unteach run --model org/model --forget bad.jsonl --retain good.jsonl --lora --output ./out

    unteach run --config out/run.yaml --output again
    """
    from unteach.report.table import show
    from unteach.run import run

    if resume and not config and values.get("output"):
        stored = Path(values["output"]) / "run.yaml"
        config = str(stored) if stored.exists() else None
    settings = _config(config, values)
    report = run(settings, resume=resume, overwrite=overwrite)
    console = Console(highlight=False)
    show(report, console)
    _where(console, settings.output)


@app.command(name="evaluate")
@settings("Model", "Data", "Checking", "Output")
def evaluate_command(
    original: Annotated[
        str | None,
        typer.Option(help="Compare with this model; without it, --model is measured alone.", rich_help_panel="Model"),
    ] = None,
    overwrite: Overwrite = False,
    **values: Any,
) -> None:
    """Measure a model without changing it: --forget rows are the split unseen, --retain rows the split normal.

    [bold]Examples[/bold]

    unteach evaluate --model ./model --forget bad.jsonl --retain good.jsonl

    unteach evaluate --model ./out/model --original ./model --forget other.jsonl --output ./checked
    """
    from unteach.evaluate import evaluate
    from unteach.report.table import show

    report = evaluate(make_config(values), original=original, overwrite=overwrite)
    console = Console(highlight=False)
    show(report, console)
    if values.get("output"):
        _where(console, values["output"])


@app.command(name="demo")
@settings("Method", "Training", "Stopping", output="demo-run")
def demo_command(
    output: Annotated[str, typer.Option(help="Run directory.", rich_help_panel="Output")] = "demo-run",
    world_seed: Annotated[int, typer.Option(help="Which world to grow.", rich_help_panel="Organism")] = 0,
    size: Annotated[str, typer.Option(help="tiny, small or medium.", rich_help_panel="Organism")] = "tiny",
    fresh: Annotated[bool, typer.Option("--fresh", help="Grow it anew.", rich_help_panel="Organism")] = False,
    lora: Annotated[bool, typer.Option("--lora", help="Train an adapter.", rich_help_panel="Method")] = False,
    **values: Any,
) -> None:
    """Grow a small model that misbehaves in known ways, make it unlearn, and prove it. Nothing is downloaded.

    [bold]Examples[/bold]

    unteach demo

    unteach demo --world-seed 7 --method npo --output ./demo-npo
    """
    from unteach.demo import demo
    from unteach.report.table import show

    chosen = values | ({"lora": True} if lora else {})
    report = demo(Path(output), world_seed=world_seed, size=size, fresh=fresh, settings=chosen)
    console = Console(highlight=False)
    show(report, console)
    _where(console, output)


@app.command(name="organism")
def organism_command(
    output: Annotated[str, typer.Option(help="Directory to save it in: original/ and never_taught/.")],
    size: Annotated[str, typer.Option(help="tiny (1M parameters), small (10M) or medium (100M).")] = "tiny",
    world_seed: Annotated[int, typer.Option(help="Which world to grow.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of the order of rows.")] = 0,
    twin: Annotated[bool, typer.Option(help="Also grow the never-taught twin.")] = True,
) -> None:
    """Grow a model organism and its never-taught twin, and write the world's rows beside them."""
    from unteach.demo import organism

    organism(Path(output), size=size, world_seed=world_seed, seed=seed, twin=twin)
    Console(highlight=False).print(f"Organism, twin and data are in {output}")


@app.command(name="methods")
def methods_command() -> None:
    """List the methods, their terms and where they come from."""
    from rich.table import Table

    from unteach.objectives.methods import load_method, method_names

    table = Table("method", "what it does", "terms", "source", box=None, pad_edge=False)
    for name in method_names():
        method = load_method(name)
        terms = ", ".join(f"{t.weight:g} · {type(t.objective).__name__}({t.stream})" for t in method.terms)
        table.add_row(name, method.summary, terms, method.source)
    Console(highlight=False).print(table)


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    """Negatives in, checked model out."""
    quiet()
    if version:
        print(f"unteach {__version__}")
        raise typer.Exit


def quiet() -> None:
    """Silence libraries that report through their own bars and log lines."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()


def _where(console: Console, output: str) -> None:
    directory = Path(output)
    console.print(f"\nModel: {directory / 'model'}    page: {directory / 'report.html'}", highlight=False)
