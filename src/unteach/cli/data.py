"""The verbs `unteach data list` and `unteach data show`."""

from typing import Annotated

import typer
from rich.console import Console

from unteach.cli.help import Command, Group

app = typer.Typer(cls=Group, no_args_is_help=True, add_completion=False, rich_markup_mode="rich")


@app.callback()
def data() -> None:
    """List and show the public sets that have a name here.

    [bold]Examples[/bold]
      unteach data list
      unteach data show tofu:forget10
    """


@app.command(name="list", cls=Command)
def list_command() -> None:
    """List the public sets that --forget, --retain and the like take by name.

    [bold]Example[/bold]
      unteach data list
    """
    from unteach.data.catalogue import sets_table

    Console(highlight=False).print(sets_table())


@app.command(name="show", cls=Command)
def show_command(name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)]) -> None:
    """Show a public set: licence, source, fields, how to use it, and two of its rows if they are on this machine.

    [bold]Examples[/bold]
      unteach data show beavertails
      unteach data show tofu:forget10
    """
    from unteach.data.catalogue import set_page

    Console(highlight=False, soft_wrap=True).print(set_page(name))
