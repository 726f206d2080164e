"""The verb `unteach compare`."""

from pathlib import Path
from typing import Annotated

import typer

from unteach.cli.flags import option, switch
from unteach.cli.outcome import page_lines
from unteach.text.escape import inert_line

Runs = Annotated[list[str], typer.Argument(help="Run directories, two or more.", metavar="RUN", show_default=False)]
RelativeTo = Annotated[
    str | None,
    option("--relative-to", "Give costs as shares of this arm's. \\[rlhf, where there is one]", "Options", "NAME"),
]
JsonFile = Annotated[
    str | None, option("--json", "Write it all to this file as well, every pair of arms with it.", "Options", "FILE")
]
HtmlFile = Annotated[str | None, option("--html", "Write it as a page, with plots, to this file.", "Options", "FILE")]
Target = Annotated[
    float,
    option("--target", "Match costs where so few validation replies are bad. \\[0.05]", "Options", "X", min=0, max=1),
]
Anyway = Annotated[bool, switch("--anyway", "Compare runs about different things too, and say so.", "Options")]


def compare_command(
    runs: Runs,
    relative_to: RelativeTo = None,
    target: Target = 0.05,
    json_file: JsonFile = None,
    html_file: HtmlFile = None,
    anyway: Anyway = False,
) -> None:
    """Lay runs beside each other: rates on the same prompts, cost, and which arms cannot be told apart.

    [bold]Examples[/bold]
      unteach compare ./unlearned ./sft ./kto ./rlhf
      unteach compare ./npo ./ga --relative-to npo --json compared.json
      unteach compare ./unlearned ./sft --html compared.html

    Takes directories of `unteach run`, `baseline`, `mistakes run` and `evaluate`
    with the same scenario, original model, judge and evaluation prompts, as runs
    over the same files and seed have. An arm has its name in the report, or the
    name of its run's directory where two runs have an arm of one name. Cost is
    preparation and training, without the evaluation.
    """
    from unteach.comparison.compare import compare
    from unteach.report.comparison_table import show, write

    compared = compare(runs, relative_to=relative_to, anyway=anyway, target=target)
    show(compared)
    if json_file:
        write(compared, Path(json_file))
        print(f"\nWritten: {inert_line(json_file)}")
    if html_file:
        from unteach.report.comparison_page import write_comparison_page

        print(page_lines(write_comparison_page(compared, Path(html_file))))
