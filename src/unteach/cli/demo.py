"""The verb `unteach demo`."""

from pathlib import Path
from typing import Annotated, Any

from unteach.cli.flags import flags_from, option, switch
from unteach.cli.organism import Scenario, Size, WorldSeed
from unteach.cli.outcome import print_report
from unteach.errors import ConfigError, nearest
from unteach.pipeline.config import RunConfig

ROUTES = ("unlearning", "mistakes")
GROUP = "Organism"

Fresh = Annotated[bool, switch("--fresh", "Grow it anew, though it is cached.", GROUP)]
Output = Annotated[str, option("--output", "Run directory; a demo in it is replaced. \\[demo-run]", GROUP, "DIR")]
Route = Annotated[str, option("--route", "unlearning, or mistakes: learn from them. \\[unlearning]", GROUP, "NAME")]
Attack = Annotated[
    str,
    option("--attack", "On the route mistakes: harm, or hijack (goal hijacking). \\[harm]", GROUP, "NAME"),
]
Arms = Annotated[
    str | None, option("--arms", "On the route mistakes: which arms of the study; unset: all.", GROUP, "NAMES")
]
Real = Annotated[
    bool, switch("--real", "Not on an organism, but on SmolLM2-135M-Instruct, which a package brings.", GROUP)
]
Lora = Annotated[bool, switch("--lora", "Train a LoRA adapter instead of all weights.", "Method")]


@flags_from(RunConfig, "Method", "Training", "Stopping", "Strength")
def demo_command(
    world_seed: WorldSeed = 0,
    size: Size = "tiny",
    fresh: Fresh = False,
    output: Output = "demo-run",
    scenario: Scenario = "harm",
    route: Route = "unlearning",
    attack: Attack = "harm",
    arms: Arms = None,
    real: Real = False,
    lora: Lora = False,
    **values: Any,
) -> None:
    """Grow a small model that misbehaves in known ways, make it unlearn or learn from its mistakes, and prove it.

    [bold]Examples[/bold]
      unteach demo
      unteach demo --scenario copyright
      unteach demo --route mistakes
      unteach demo --real
      unteach demo --world-seed 7 --method npo --output ./demo-npo

    Nothing is downloaded; --real says which package to install. Values in \\[brackets] are defaults.
    """
    if route not in ROUTES:
        raise ConfigError(f"--route {route}: unknown{nearest(route, ROUTES)}")
    grown: dict[str, Any] = {"world_seed": world_seed, "size": size, "fresh": fresh}
    chosen = values | ({"lora": True} if lora else {})
    if real:
        if route != "unlearning" or scenario != "harm":
            raise ConfigError("--real: is for harm by unlearning; leave --route and --scenario out")
        from unteach.demo.real import demo_real

        print_report(demo_real(Path(output), chosen), output)
        return
    if route == "mistakes":
        _show_mistakes(output, attack, grown, chosen | ({"arms": [arms]} if arms else {}))
        return
    from unteach.demo.unlearning import demo_unlearning

    print_report(demo_unlearning(Path(output), **grown, settings=chosen, scenario=scenario), output)


def _show_mistakes(output: str, attack: str, grown: dict[str, Any], chosen: dict[str, Any]) -> None:
    """Show the four steps of learning from mistakes, and the study, on an organism."""
    from rich.console import Console

    from unteach.demo.mistakes import demo_mistakes, show_steps

    report = demo_mistakes(Path(output), **grown, attack=attack, settings=chosen)
    show_steps(Path(output), report, Console(highlight=False))
    print_report(report, output, model="", samples=0)
