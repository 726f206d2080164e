"""The verb `unteach compare`."""

from pathlib import Path
from typing import Annotated

import typer

from unteach.cli_flags import plain

Runs = Annotated[list[str], typer.Argument(help="Run directories, two or more.", metavar="RUN…", show_default=False)]
RelativeTo = Annotated[
    str | None,
    typer.Option("--relative-to", help="Give costs as shares of this arm's. \\[rlhf, where there is one]",
                 rich_help_panel="Options", metavar="NAME", show_default=False),
]  # fmt: skip
JsonFile = Annotated[
    str | None,
    typer.Option("--json", help="Write it all to this file as well, every pair of arms with it.",
                 rich_help_panel="Options", metavar="FILE", show_default=False),
]  # fmt: skip
Anyway = Annotated[bool, plain("--anyway", "Compare runs about different things too, and say so.", "Options")]


def compare_command(
    runs: Runs, relative_to: RelativeTo = None, json_file: JsonFile = None, anyway: Anyway = False
) -> None:
    """Lay runs beside each other: rates on the same prompts, cost, and which arms cannot be told apart.

    [bold]Examples[/bold]
      unteach compare ./unlearned ./sft ./kto ./rlhf
      unteach compare ./seed-0 ./seed-1 --relative-to seed-0 --json compared.json

    Takes directories of `unteach run`, `baseline`, `mistakes run` and `evaluate`. They must have the same scenario,
    original model, judge and checked prompts: give them the same files and seed. An arm's name is its method's or
    "unlearned"; where two runs share one, it is their directory's. Cost is preparation and training, not checking.
    """
    from unteach.compare import compare
    from unteach.report.compared import show

    compared = compare(runs, relative_to=relative_to, anyway=anyway)
    show(compared)
    if json_file:
        compared.write(Path(json_file))
        print(f"\nWritten: {json_file}")
