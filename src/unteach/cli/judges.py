"""The verbs `unteach judges list` and `unteach judges show`."""

from typing import Annotated

import typer

from unteach.cli.command import Command, new_group

verbs = new_group()


@verbs.callback()
def judges() -> None:
    """List the judges, which say whether a reply is bad, or show one with its prompts.

    [bold]Examples[/bold]
      unteach judges list
      unteach judges show openai

    docs/judges.md says what each can and cannot tell.
    """


@verbs.command("list", cls=Command)
def list_command() -> None:
    """List the judges and how to ask for them.

    [bold]Example[/bold]
      unteach judges list
    """
    from unteach.judges import judge_list
    from unteach.scenarios import load_scenario, scenario_names

    print(judge_list())
    for scenario in scenario_names():
        first, *others = load_scenario(scenario).defaults["judge"]
        print(f"--scenario {scenario}: {first} decides where no --judge is given, beside it {', '.join(others)}")


@verbs.command("show", cls=Command)
def show_command(
    name: Annotated[str | None, typer.Argument(help="Which judge; without it, all of them.", metavar="NAME")] = None,
) -> None:
    """Show what a judge does, how to ask for it, and the prompts that it sends.

    [bold]Examples[/bold]
      unteach judges show openai
      unteach judges show
    """
    from unteach.judges import judge_names, judge_page

    print("\n\n".join(judge_page(one) for one in ([name] if name else judge_names())))
