"""The verb `unteach organism`, and the flags that say which organism."""

from pathlib import Path
from typing import Annotated

from unteach.cli.flags import option, seed_of, switch

GROUP = "Organism"

WorldSeed = Annotated[int, option("--world-seed", "Which world. \\[0]", GROUP, "N", parser=seed_of)]
Size = Annotated[
    str,
    option("--size", "tiny (1M parameters), small (10M) or medium (100M). \\[tiny]", GROUP, "NAME"),
]
Scenario = Annotated[str, option("--scenario", "harm, copyright or hallucination. \\[harm]", GROUP, "NAME")]
Output = Annotated[str, option("--output", "Directory to save it in.", GROUP, "DIR")]
Seed = Annotated[int, option("--seed", "Seed of the weights and the order of rows. \\[0]", GROUP, "N", parser=seed_of)]
NoRetrained = Annotated[bool, switch("--no-retrained", "Leave the retrained model out.", GROUP)]


def organism_command(
    output: Output,
    size: Size = "tiny",
    world_seed: WorldSeed = 0,
    seed: Seed = 0,
    scenario: Scenario = "harm",
    no_retrained: NoRetrained = False,
) -> None:
    """Grow a model organism, its retrained model and the rows of their world, to keep.

    [bold]Examples[/bold]
      unteach organism --output ./organism
      unteach organism --size small --world-seed 7 --output ./organism

    It makes original/, retrained/ and data/. Values in \\[brackets] are defaults.
    """
    from unteach.demo.organism import grow_organism

    grow_organism(
        Path(output), size=size, world_seed=world_seed, seed=seed, retrained=not no_retrained, scenario=scenario
    )
    what = "organism and its rows" if no_retrained else "organism, its retrained model and their rows"
    print(f"The {what} are in {output}")
