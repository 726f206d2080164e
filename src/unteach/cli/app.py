"""The command line: verbs, each calling the function of the same name."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from unteach import __version__
from unteach.cli import baseline as cli_baseline
from unteach.cli import compare as cli_compare
from unteach.cli import data as cli_data
from unteach.cli import judges as cli_judges
from unteach.cli import mistakes as cli_mistakes
from unteach.cli import report as cli_report
from unteach.cli import study as cli_study
from unteach.cli import try_page as cli_try
from unteach.cli.flags import GROUPS, ConfigFile, Overwrite, Resume, config_of, plain, settings
from unteach.cli.help import Command, Group
from unteach.errors import ConfigError, UnteachError, nearest
from unteach.pipeline.config import RunConfig
from unteach.text.escape import inert_line, terminal_text

UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = typer.Typer(
    name="unteach",
    cls=Group,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(cli_judges.app, name="judges")
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_mistakes.app, name="mistakes")
app.add_typer(cli_baseline.app, name="baseline")


def main() -> None:
    """Run the command line; an expected error is one line and its exit code."""
    try:
        code = app(standalone_mode=False) or 0
    except UsageError as error:
        message = _usage(error)
        sys.exit(_failed(message, 2) if message else 2)
    except UnteachError as error:
        sys.exit(_failed(str(error), error.exit_code))
    if code == 130:
        _failed("stopped", code)
    sys.exit(code)


def _failed(message: str, code: int) -> int:
    """Print the error on one line."""
    what = "Interrupted" if code == 130 else "Error"
    Console(stderr=True, highlight=False, soft_wrap=True).print(terminal_text(f"{what}: {inert_line(message)}", "red"))
    return code


def _usage(error: Any) -> str:
    """Say what is wrong with the words of a command line; nothing where the answer was to show the help."""
    verb = error.ctx.command_path if error.ctx else "unteach"
    near = getattr(error, "possibilities", None)
    message = error.format_message().strip().rstrip(".")
    if near is not None:
        message = f"unknown flag {error.option_name}{nearest(error.option_name, near)}"
    return f"{message} (see {verb} --help)" if message else ""


Seeds = Annotated[
    int,
    typer.Option(
        "--seeds",
        help="Run so many seeds, from --seed on, each in OUTPUT/seed-N; report means. \\[1]",
        rich_help_panel="Training",
        metavar="N",
        show_default=False,
    ),
]
Scenario = Annotated[
    str,
    typer.Option(
        "--scenario",
        help="harm, copyright or hallucination. \\[harm]",
        rich_help_panel="Organism",
        metavar="NAME",
        show_default=False,
    ),
]


@app.command(name="run", cls=Command)
@settings(*GROUPS)
def run_command(
    config: ConfigFile = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    seeds: Seeds = 1,
    **values: Any,
) -> None:
    """Unlearn the negatives, then measure before and after on seen, unseen and normal prompts.

    [bold]Examples[/bold]
      unteach run --model ./model --forget bad.jsonl --output ./out
      unteach run --model org/model --forget bad.jsonl --retain good.jsonl --lora --output ./out
      unteach run --config out/run.yaml --output ./again
      unteach run --scenario copyright --model ./model --forget book.txt --retain other_books --output ./out
      unteach run --resume --output ./out

    Figures in \\[brackets] are defaults.
    """
    from unteach.pipeline.run import run
    from unteach.pipeline.seeds import run_seeds
    from unteach.report.table import show

    chosen = config_of(config, values, RunConfig)
    if seeds == 1:
        report = run(chosen, resume=resume, overwrite=overwrite)
    else:
        report = run_seeds(chosen, seeds, resume=resume, overwrite=overwrite)
    console = Console(highlight=False)
    show(report, console)
    _where(console, chosen.output, "model" if seeds == 1 else f"seed-{chosen.seed}/model")


@app.command(name="evaluate", cls=Command)
@settings(
    "Model",
    "Data",
    "Evaluation",
    "Output",
    without=("lora", "lora_rank", "lora_alpha", "lora_targets", "skip_evaluation"),
)
def evaluate_command(
    original: Annotated[
        str | None,
        typer.Option(
            help="Compare with this model; without it, --model alone is measured.",
            rich_help_panel="Model",
            metavar="DIR|ID",
        ),
    ] = None,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
    **values: Any,
) -> None:
    """Measure a model without changing it: --forget rows are unseen negatives, --retain rows normal ones.

    [bold]Examples[/bold]
      unteach evaluate --model ./model --forget bad.jsonl --retain good.jsonl
      unteach evaluate --model ./out/model --original ./model --forget other.jsonl --output ./checked

    Figures in \\[brackets] are defaults. Without --output nothing is written.
    """
    from unteach.pipeline.evaluate import evaluate
    from unteach.report.table import show

    chosen = config_of(config, values, RunConfig)
    report = evaluate(chosen, original=original, overwrite=overwrite)
    console = Console(highlight=False)
    show(report, console)
    if chosen.output:
        _page(console, chosen.output)


app.command(name="compare", cls=Command)(cli_compare.compare_command)
app.command(name="report", cls=Command)(cli_report.report_command)
app.command(name="study", cls=Command)(cli_study.study_command)
app.command(name="try", cls=Command)(cli_try.try_command)


@app.command(name="demo", cls=Command)
@settings("Method", "Training", "Stopping")
def demo_command(
    world_seed: Annotated[
        int, typer.Option(help="Which world. \\[0]", rich_help_panel="Organism", metavar="N", show_default=False)
    ] = 0,
    size: Annotated[
        str,
        typer.Option(
            help="tiny, small or medium. \\[tiny]", rich_help_panel="Organism", metavar="NAME", show_default=False
        ),
    ] = "tiny",
    fresh: Annotated[bool, plain("--fresh", "Grow it anew, though it is cached.", "Organism")] = False,
    output: Annotated[
        str,
        typer.Option(
            help="Run directory; a demo in it is replaced. \\[demo-run]",
            rich_help_panel="Organism",
            metavar="DIR",
            show_default=False,
        ),
    ] = "demo-run",
    scenario: Scenario = "harm",
    route: Annotated[
        str,
        typer.Option(
            help="unlearning, or mistakes: learn from them. \\[unlearning]",
            rich_help_panel="Organism",
            metavar="NAME",
            show_default=False,
        ),
    ] = "unlearning",
    attack: Annotated[
        str,
        typer.Option(
            help="On the route mistakes: harm, or hijack (goal hijacking). \\[harm]",
            rich_help_panel="Organism",
            metavar="NAME",
            show_default=False,
        ),
    ] = "harm",
    arms: Annotated[
        str | None,
        typer.Option(
            help="On the route mistakes: which arms of the study; unset: all.",
            rich_help_panel="Organism",
            metavar="NAMES",
            show_default=False,
        ),
    ] = None,
    lora: Annotated[bool, plain("--lora", "Train a LoRA adapter instead of all weights.", "Method")] = False,
    **values: Any,
) -> None:
    """Grow a small model that misbehaves in known ways, make it unlearn or learn from its mistakes, and prove it.

    [bold]Examples[/bold]
      unteach demo
      unteach demo --scenario copyright
      unteach demo --route mistakes
      unteach demo --world-seed 7 --method npo --output ./demo-npo

    Nothing is downloaded. Figures in \\[brackets] are defaults.
    """
    from unteach.demo.unlearning import demo_unlearning
    from unteach.report.table import show

    chosen = values | ({"lora": True} if lora else {})
    if route != "unlearning":
        chosen |= {"arms": [arms]} if arms else {}
        _demo_mistakes(route, Path(output), world_seed, size, fresh, attack, chosen)
        return
    report = demo_unlearning(
        Path(output), world_seed=world_seed, size=size, fresh=fresh, settings=chosen, scenario=scenario
    )
    console = Console(highlight=False)
    show(report, console)
    _where(console, output)


def _demo_mistakes(
    route: str, output: Path, world_seed: int, size: str, fresh: bool, attack: str, chosen: dict[str, Any]
) -> None:
    """Show the four steps and the study on an organism."""
    from unteach.demo.mistakes import demo_mistakes, show_steps
    from unteach.report.table import show

    if route != "mistakes":
        raise ConfigError(f"--route {route}: unknown{nearest(route, ['unlearning', 'mistakes'])}")
    report = demo_mistakes(output, world_seed=world_seed, size=size, fresh=fresh, attack=attack, settings=chosen)
    console = Console(highlight=False)
    show_steps(output, report, console)
    show(report, console, samples=0)
    _page(console, str(output))


@app.command(name="organism", cls=Command)
def organism_command(
    output: Annotated[str, typer.Option(help="Directory to save it in.", metavar="DIR", show_default=False)],
    size: Annotated[
        str,
        typer.Option(
            help="tiny (1M parameters), small (10M) or medium (100M). \\[tiny]", metavar="NAME", show_default=False
        ),
    ] = "tiny",
    world_seed: Annotated[int, typer.Option(help="Which world. \\[0]", metavar="N", show_default=False)] = 0,
    seed: Annotated[
        int, typer.Option(help="Seed of the weights and the order of rows. \\[0]", metavar="N", show_default=False)
    ] = 0,
    scenario: Annotated[
        str, typer.Option(help="harm, copyright or hallucination. \\[harm]", metavar="NAME", show_default=False)
    ] = "harm",
    no_retrained: Annotated[bool, plain("--no-retrained", "Leave the retrained model out.", "Options")] = False,
) -> None:
    """Grow a model organism, its retrained twin and the rows of their world, to keep.

    [bold]Examples[/bold]
      unteach organism --output ./organism
      unteach organism --size small --world-seed 7 --output ./organism

    It makes original/, retrained/ and data/.
    """
    from unteach.demo.organism import grow_organism

    grow_organism(
        Path(output), size=size, world_seed=world_seed, seed=seed, retrained=not no_retrained, scenario=scenario
    )
    print(
        f"The organism, its retrained model and their rows are in {output}"
        if not no_retrained
        else f"The organism is in {output}"
    )


@app.command(name="methods", cls=Command)
def methods_command() -> None:
    """List the methods, their terms and where they come from.

    [bold]Example[/bold]
      unteach methods

    docs/objectives.md has the equations.
    """
    from unteach.objectives.methods import load_method, method_names

    for name in method_names():
        method = load_method(name)
        terms = " + ".join(f"{t.weight:g} {type(t.objective).__name__}({t.stream})" for t in method.terms)
        print(f"{name:<13} {method.summary} ({method.source})\n{'':<13} {terms}")


@app.callback(invoke_without_command=True)
def options(
    version: Annotated[bool, plain("--version", "Show the version.", "Options")] = False,
) -> None:
    """Make a language model stop: negatives in, checked model out.

    [bold]Examples[/bold]
      unteach demo
      unteach run --model ./model --forget bad.jsonl --output ./out

    Every verb has its own --help.
    """
    quiet()
    if version:
        print(f"unteach {__version__}")
        raise typer.Exit


def quiet() -> None:
    """Silence libraries that report through their own bars and log lines."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    import warnings

    from huggingface_hub.utils.logging import set_verbosity_error
    from transformers.utils import logging

    # PEFT 0.21 asks for a property that Transformers 5 has renamed.
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    set_verbosity_error()


def _where(console: Console, output: str, model: str = "model") -> None:
    directory = Path(output)
    console.print(f"\nModel: {directory / model}", highlight=False, markup=False)
    _page(console, output, "")


def _page(console: Console, output: str, before: str = "\n") -> None:
    """Say where the page is; the address stays on one line, so that a terminal makes a link of it."""
    lines = cli_report.page_lines(Path(output) / "report.html")
    console.print(before + lines, highlight=False, markup=False, soft_wrap=True)
