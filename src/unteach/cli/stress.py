"""The verb `unteach stress`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from unteach.cli.flags import option, switch
from unteach.cli.outcome import page_lines
from unteach.errors import ConfigError, nearest

if TYPE_CHECKING:
    from unteach.pipeline.config import RunConfig
    from unteach.results.stress import StressCard

PRESETS = ("quick", "full")

Run = Annotated[str, typer.Argument(help="Directory of a finished `unteach run`.", metavar="RUN", show_default=False)]
Preset = Annotated[
    str, option("--preset", "quick (40 prompts) or full (100 prompts, more strengths). \\[quick]", "Options", "NAME")
]
Only = Annotated[str, option("--only", "Only these attacks, with commas; see --list.", "Options", "NAMES")]
Device = Annotated[str | None, option("--device", "cpu, cuda, cuda:0 …; unset: as the run.", "Options", "NAME")]
Again = Annotated[bool, switch("--again", "Measure anew what stress.json holds already.", "Options")]
List = Annotated[bool, switch("--list", "List the attacks, and what each asks.", "Options")]
Stress = Annotated[
    str | None,
    option("--stress", "Then try to bring it back, as `unteach stress` does: quick or full.", "Evaluation", "NAME"),
]
"""The flag of `unteach run`."""


def stress_command(
    run: Run = "",
    preset: Preset = "quick",
    only: Only = "",
    again: Again = False,
    device: Device = None,
    list_: List = False,
) -> None:
    """Try to bring back what a run has unlearned: relearning, rounded weights, other ways to ask, a look inside.

    [bold]Examples[/bold]
      unteach stress ./out
      unteach stress ./out --preset full
      unteach stress ./out --only prefilled,relearning
      unteach stress --list

    Every attack is made on the original, on the unlearned model and, where
    the run has one, on the retrained model, with unseen prompts of the run
    and its first judge. The run's model stays as it is. Each row gets a
    verdict of its own: it holds, it comes back, it is unclear, or it says
    nothing. There is no score.

    Writes RUN/stress.json after every attack, and the page and the model
    card of RUN anew at the end. After Ctrl-C, the same command goes on.
    docs/stress.md explains each attack and the rule of the verdicts.
    """
    if list_:
        from unteach.evaluation.attacks import attack_list

        print(attack_list())
        return
    if not run:
        raise ConfigError("RUN is missing; name the directory of a finished `unteach run`")
    from unteach.pipeline.stress import stress

    names = [name.strip() for name in only.split(",") if name.strip()]
    print_card(stress(run, preset=preset, only=names, again=again, device=device), run)


def check_stress(preset: str | None, seeds: int) -> None:
    """Raise ConfigError for a value of --stress that cannot be, before anything is done."""
    if preset is None:
        return
    if preset not in PRESETS:
        raise ConfigError(f"--stress {preset}: unknown{nearest(preset, PRESETS)} (known: {', '.join(PRESETS)})")
    if seeds != 1:
        raise ConfigError("--stress and --seeds exclude each other; run `unteach stress OUTPUT/seed-N` for each seed")


def stress_after(preset: str | None, config: "RunConfig") -> None:
    """Stress the run that has just ended, where that was asked for."""
    if preset is not None:
        from unteach.pipeline.stress import stress

        print_card(stress(config.output, preset=preset, device=config.device), config.output)


def print_card(card: "StressCard", run: str) -> None:
    """Print a card, and where its page is."""
    from unteach.report.stress import show_card

    show_card(card, Console(highlight=False))
    page = Path(run) / "report.html"
    if page.is_file():
        Console(highlight=False).print(f"\n{page_lines(page)}", markup=False, soft_wrap=True)
