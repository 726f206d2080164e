"""The verbs `unteach data list` and `unteach data show`."""

from typing import Annotated

import typer
from rich.console import Console

from unteach.cli.command import Command, new_group
from unteach.cli.flags import key_values, option
from unteach.data.example import Polarity
from unteach.errors import ConfigError, nearest

verbs = new_group()


@verbs.callback()
def data() -> None:
    """List the public sets, and show what is made of your files.

    [bold]Examples[/bold]
      unteach data show bad.jsonl
      unteach data show tofu:forget10
      unteach data list

    docs/data.md lists the layouts that are known.
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
def show_command(
    source: Annotated[str, typer.Argument(metavar="SOURCE", show_default=False)],
    column: Annotated[
        list[str] | None, option("--column", "Our name for a column: reply=bad_answer.", "Data", "OURS=THEIRS")
    ] = None,
    bad_label: Annotated[
        list[str] | None, option("--bad-label", "Value of the label that means bad; repeatable.", "Data", "VALUE")
    ] = None,
    polarity: Annotated[str, option("--as", "Read rows as negative or normal; unset: negative.", "Data", "NAME")] = "",
    model: Annotated[
        str | None, option("--model", "Show rows in this model's template, with tokens.", "Data", "DIR|ID")
    ] = None,
    data_split: Annotated[str | None, option("--data-split", "Split of a data set.", "Data", "NAME")] = None,
) -> None:
    """Show what is made of a file, directory or public set: columns, labels, and rows as a model will see them.

    [bold]Examples[/bold]
      unteach data show bad.jsonl
      unteach data show found.csv --column reply=bad_answer --bad-label 1
      unteach data show bad.jsonl --model ./model
      unteach data show beavertails
    """
    from unteach.data.catalogue import is_set, set_page
    from unteach.data.reading import HowToRead
    from unteach.data.shown import form_of, shown_source

    known: dict[str, Polarity | None] = {"": None, "negative": "negative", "normal": "normal"}
    if polarity not in known:
        raise ConfigError(f"--as {polarity}: unknown{nearest(polarity, known)} (known: negative, normal)")
    how = HowToRead(key_values("--column", column or []), bad_label or [], data_split)
    console = Console(highlight=False)
    if is_set(source):
        console.print(set_page(source), soft_wrap=True)
    shown, error = shown_source(source, known[polarity], how, form_of(model) if model else None)
    console.print(shown)
    if error is not None:
        raise error
