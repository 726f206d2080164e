"""The verb `unteach strength`."""

from typing import Annotated

import typer

from unteach.cli.flags import Overwrite, option
from unteach.cli.outcome import print_report

Run = Annotated[str, typer.Argument(help="Directory of a finished run.", metavar="RUN", show_default=False)]
Scale = Annotated[
    float, option("--scale", "How strongly: 1 is the update as trained, 0.5 half of it.", "Options", "NUMBER")
]
Output = Annotated[str, option("--output", "Run directory for the model and the report.", "Options", "DIR")]


def strength_command(run: Run, scale: Scale, output: Output, overwrite: Overwrite = False) -> None:
    """Apply the update of a finished run more or less strongly, without training again, and evaluate the result.

    [bold]Examples[/bold]
      unteach strength ./out --scale 0.7 --output ./milder
      unteach strength ./out --scale 1.25 --output ./stronger

    The page of a run that searched its strength (unteach run --strength auto) shows what other scales do.
    """
    from unteach.errors import ConfigError
    from unteach.pipeline.rescale import rescale
    from unteach.results.strength import read_strength

    try:
        scale = float(read_strength(f"{scale:g}"))
    except ValueError as error:
        raise ConfigError(f"--scale {scale:g}: {error}") from None
    print_report(rescale(run, scale, output, overwrite=overwrite), output)
