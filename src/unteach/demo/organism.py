"""Organisms to keep, for `unteach organism`."""

from pathlib import Path

from unteach.organism.grow import grow
from unteach.organism.user_rows import user_rows
from unteach.organism.world import World
from unteach.pipeline.directory import output_directory
from unteach.progress import track


def grow_organism(
    output: Path, *, size: str, world_seed: int, seed: int, retrained: bool, scenario: str = "harm"
) -> None:
    """Grow an organism into `output/original` and the retrained model into `output/retrained`, unless not wanted.

    The rows of their world go to `output/data`. Raises UnteachError.
    """
    with output_directory(str(output), overwrite=False, resume=True):
        world = World(world_seed, size, scenario)
        for name in ("original", "retrained") if retrained else ("original",):
            with track(f"growing {name}") as progress:
                grow(world, output / name, taught=name == "original", seed=seed, progress=progress)
        user_rows(world).write(output / "data")
