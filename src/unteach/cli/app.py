"""The command line: its verbs, and how it says what went wrong."""

import os
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from unteach import __version__, signals
from unteach.cli import baseline, data, judges, mistakes
from unteach.cli.collect import collect_command
from unteach.cli.command import Command, Ended, ModelCommand, new_group
from unteach.cli.compare import compare_command
from unteach.cli.demo import demo_command
from unteach.cli.evaluate import evaluate_command
from unteach.cli.export import export_command
from unteach.cli.flags import switch
from unteach.cli.methods import methods_command
from unteach.cli.organism import organism_command
from unteach.cli.report import report_command
from unteach.cli.run import run_command
from unteach.cli.strength import strength_command
from unteach.cli.stress import stress_command
from unteach.cli.study import study_command
from unteach.cli.try_page import try_command
from unteach.errors import Interrupted, UnteachError, nearest
from unteach.text.escape import inert_line, terminal_text

LONGEST = 2000
"""Most characters of an error that are shown; a flag or a name may be of any length."""
UsageError: type[Exception] = typer.BadParameter.__bases__[0]

app = new_group(
    name="unteach", pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)
app.command("run", cls=ModelCommand)(run_command)
app.command("evaluate", cls=ModelCommand)(evaluate_command)
app.command("stress", cls=ModelCommand)(stress_command)
app.command("export", cls=ModelCommand)(export_command)
app.command("strength", cls=ModelCommand)(strength_command)
app.command("collect", cls=ModelCommand)(collect_command)
app.command("compare", cls=Command)(compare_command)
app.command("report", cls=Command)(report_command)
app.command("study", cls=Command)(study_command)
app.command("try", cls=ModelCommand)(try_command)
app.command("demo", cls=ModelCommand)(demo_command)
app.command("organism", cls=ModelCommand)(organism_command)
app.command("methods", cls=Command)(methods_command)
app.add_typer(judges.verbs, name="judges")
app.add_typer(data.verbs, name="data")
app.add_typer(mistakes.verbs, name="mistakes")
app.add_typer(baseline.verbs, name="baseline")


@app.callback(invoke_without_command=True)
def options(version: Annotated[bool, switch("--version", "Show the version.", "Options")] = False) -> None:
    """Make a language model stop: negatives in, checked model out.

    [bold]Examples[/bold]
      unteach demo
      unteach run --model ./model --forget bad.jsonl --output ./out

    Every verb has its own --help.
    """
    if version:
        print(f"unteach {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line and exit; an expected error is one line and its exit code."""
    with signals.handled():
        # LOCAL_RANK too, since some clusters name a world in every shell
        if os.environ.get("WORLD_SIZE", "1") != "1" and "LOCAL_RANK" in os.environ:
            from unteach.cli.ranks import run_as_rank

            sys.exit(run_as_rank(_run, _print_error))
        ended = _run()
        if ended.message:
            _print_error(ended.message, ended.interrupted)
        sys.exit(ended.code)


def _run() -> Ended:
    """Run the command line; return how it ended, with one line for what went wrong."""
    try:
        code = int(app(standalone_mode=False) or 0)
    except UsageError as error:
        return Ended(2, _usage_message(error))
    except UnteachError as error:
        interrupted = isinstance(error, Interrupted)
        return Ended((interrupted and signals.exit_code()) or error.exit_code, str(error), interrupted)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, OSError) and error.filename and not signals.exit_code():
            return Ended(2, f"{error.filename}: {error.strerror}; name another file or directory")
        if not (signals.exit_code() or isinstance(error, KeyboardInterrupt)):
            raise
        code = 130  # what a library makes of a signal
    return Ended(signals.exit_code() or code, "stopped", True) if code == 130 else Ended(code)


def _print_error(message: str, interrupted: bool = False) -> None:
    """Print an error on one line."""
    what = "Interrupted" if interrupted else "Error"
    if len(message) > LONGEST:
        message = (
            f"{message[: LONGEST // 2]} … ({len(message) - LONGEST:,} more characters) … {message[-LONGEST // 2 :]}"
        )
    Console(stderr=True, highlight=False, soft_wrap=True).print(terminal_text(f"{what}: {inert_line(message)}", "red"))


def _usage_message(error: Any) -> str:
    """Say what is wrong with the words of a command line; return nothing where the help has been shown instead."""
    verb = error.ctx.command_path if error.ctx else "unteach"
    known = getattr(error, "possibilities", None)
    message = inert_line(error.format_message(), 500).rstrip(".")
    if known is not None:
        message = f"unknown flag {error.option_name}{nearest(error.option_name, known)}"
    return f"{message} (see {verb} --help)" if message else ""
