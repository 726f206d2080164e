"""How the command line shows its help; verbs and groups of verbs are made of these classes."""

from typing import Any

import typer.core


class _QuietHelp:
    """Leaves --help out of the list of flags: it is what the reader has just typed."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]
        if option is not None:
            option.hidden = True
        return option


class Command(_QuietHelp, typer.core.TyperCommand):
    """A verb."""


class Group(_QuietHelp, typer.core.TyperGroup):
    """Several verbs under one word."""
