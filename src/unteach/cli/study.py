"""The verb `unteach study`."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from unteach.cli.flags import option, switch
from unteach.errors import ConfigError
from unteach.text.escape import inert_line, terminal_text

ConfigFile = Annotated[str, option("--config", "The study: a YAML file; recipes/ has some.", "Options", "FILE")]
Output = Annotated[
    str, option("--output", "Directory of all its runs; a study begun there is continued.", "Options", "DIR")
]
Arms = Annotated[str, option("--arms", "Only these of its arms, with commas.", "Options", "NAMES")]
Seeds = Annotated[int | None, option("--seeds", "Runs of each arm, in place of the file's.", "Options", "N")]
Jobs = Annotated[
    int | None, option("--jobs", "Runs at a time; cores and GPUs are shared among them. \\[1]", "Options", "N")
]
DryRun = Annotated[bool, switch("--dry-run", "Say what would be done and what it would cost.", "Options")]


def study_command(
    config: ConfigFile = "",
    output: Output = "",
    arms: Arms = "",
    seeds: Seeds = None,
    jobs: Jobs = None,
    dry_run: DryRun = False,
) -> None:
    """Run many arms with several seeds, and lay them beside each other.

    [bold]Examples[/bold]
      unteach study --config recipes/organism-harm-quick.yaml --output ./quick-study
      unteach study --config recipes/opt-1.3b-harm.yaml --dry-run

    Each arm and seed is a run of its own in DIR/ARM/seed-N, with its settings
    and its log beside it. Given again, the command skips what is done and does
    the rest; a run that fails does not stop the others. At the end DIR holds
    report.html, compared.json and results.md.
    """
    if not config:
        raise ConfigError("--config is missing; name a study, such as recipes/organism-harm-quick.yaml")
    from unteach.report.comparison_table import PIPE_WIDTH
    from unteach.study.config import read_study
    from unteach.study.plan import plan
    from unteach.study.runs import done_runs, run_study, write_results

    names = [name.strip() for name in arms.split(",") if name.strip()]
    study = read_study(config, names, seeds=seeds, jobs=jobs)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    if dry_run:
        print(plan(study, done=done_runs(study, Path(output)) if output else None))
        return
    if not output:
        raise ConfigError("--output is missing; name a directory for the runs")
    compared = run_study(study, output, lambda line: console.print(terminal_text(line)))
    for path in write_results(compared, Path(output), console):
        print(f"Written: {inert_line(str(path))}")
    if compared.failed:
        raise typer.Exit(1)
