"""The verbs `unteach data list` and `unteach data show`."""

from typing import Annotated

import typer
from rich.console import Console

from unteach.cli.command import Command, new_group

verbs = new_group()


@verbs.callback()
def data() -> None:
    """List and show the public sets that can be named.

    [bold]Examples[/bold]
      unteach data list
      unteach data show tofu:forget10
    """


@verbs.command("list", cls=Command)
def list_command() -> None:
    """List the public sets that --forget, --retain and the like take by name.

    [bold]Example[/bold]
      unteach data list
    """
    from unteach.data.catalogue import sets_table

    Console(highlight=False).print(sets_table())


@verbs.command("show", cls=Command)
def show_command(name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)]) -> None:
    """Show a public set: licence, source, fields, how to use it, and two of its rows if they are on this machine.

    [bold]Examples[/bold]
      unteach data show beavertails
      unteach data show tofu:forget10
    """
    from unteach.data.catalogue import set_page

    Console(highlight=False, soft_wrap=True).print(set_page(name))
