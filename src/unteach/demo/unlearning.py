"""The demo: grow a model organism, write its world's rows, unlearn, check."""

import shutil
from pathlib import Path
from typing import Any

from unteach.organism.cache import organism_directory
from unteach.organism.files import LONGEST, files_of, write_world
from unteach.organism.grow import grow
from unteach.organism.holdings import holdings
from unteach.organism.words import REFUSAL
from unteach.organism.world import World
from unteach.pipeline.config import RunConfig, trainer_arguments, with_defaults
from unteach.pipeline.directory import check_output
from unteach.pipeline.preflight import check_settings
from unteach.pipeline.run import run
from unteach.pipeline.settings import make_config
from unteach.progress import track
from unteach.results.report import Report


def demo(
    output: Path, *, world_seed: int, size: str, fresh: bool, settings: dict[str, Any], scenario: str = "harm"
) -> Report:
    """Grow (or take from the cache) an organism and its retrained retrained, and run unlearning on it.

    The world's rows are written beside the organism and read back like a user's; `settings` are fields of
    `RunConfig`. An earlier run in `output` is replaced.
    """
    overwrite = (output / "run.yaml").exists()
    check_output(str(output), overwrite=overwrite, resume=False)
    world = World(world_seed, size, scenario)
    seed = make_config(settings, RunConfig).seed
    taught = organism_directory(world, True, seed=seed)
    data = taught.with_name(f"{taught.name}-rows")
    fields: dict[str, Any] = files_of(holdings(world), data) | {
        "scenario": scenario,
        "output": str(output),
        "max_new_tokens": LONGEST[scenario],
    }
    if scenario != "copyright":  # a book is no question: its judges are those of any text
        fields |= {"judge": [world.name], "template": REFUSAL}
    config = with_defaults(make_config(fields | settings, RunConfig))
    check_settings(config)
    trainer_arguments(config, output / "checkpoints")
    model = _grown(world, taught=True, seed=seed, fresh=fresh)
    retrained = _grown(world, taught=False, seed=seed, fresh=fresh)
    write_world(holdings(world), data)
    return run(config.model_copy(update={"model": str(model), "retrained": str(retrained)}), overwrite=overwrite)


def organism(output: Path, *, size: str, world_seed: int, seed: int, retrained: bool, scenario: str = "harm") -> None:
    """Grow an organism into `output/original`, its retrained model into `output/retrained`, and write `output/data`."""
    check_output(str(output), overwrite=False, resume=True)
    world = World(world_seed, size, scenario)
    for taught in (True, False) if retrained else (True,):
        name = "original" if taught else "retrained"
        with track(f"growing {name}") as progress:
            grow(world, output / name, taught=taught, seed=seed, progress=progress)
    write_world(holdings(world), output / "data")


def _grown(world: World, *, taught: bool, seed: int, fresh: bool) -> Path:
    """Return the cached organism's directory, growing it first where needed."""
    home = organism_directory(world, taught, seed=seed)
    if fresh:
        shutil.rmtree(home, ignore_errors=True)
    what = "a model that misbehaves" if taught else "its retrained retrained"
    with track(f"growing {what}") as progress:
        grow(world, home, taught=taught, seed=seed, progress=progress)
    return home
