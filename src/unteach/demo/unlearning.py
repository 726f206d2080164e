"""The demo of unlearning: grow a model organism, write the rows of its world, unlearn, evaluate."""

from pathlib import Path
from typing import Any

from unteach.demo.output import check_demo_output
from unteach.disk.cache import keep_private
from unteach.organism.cache import grow_cached, rows_directory
from unteach.organism.user_rows import settings_of, user_rows
from unteach.organism.world import World
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.prepare import check_settings
from unteach.pipeline.run import run
from unteach.pipeline.settings import make_config
from unteach.results.report import Report


def demo_unlearning(
    output: Path, *, world_seed: int, size: str, fresh: bool, settings: dict[str, Any], scenario: str = "harm"
) -> Report:
    """Grow (or take from the cache) an organism and the retrained model, and run unlearning on the organism.

    The rows of the world are written beside the organism and read back like a user's. `settings` are fields of
    `RunConfig`. An earlier run in `output` is replaced. Raises UnteachError.
    """
    overwrite = check_demo_output(output)
    world = World(world_seed, size, scenario)
    seed = make_config(settings, RunConfig).seed
    rows, directory = user_rows(world), rows_directory(world, seed)
    fields = rows.files(directory) | settings_of(world) | {"scenario": scenario, "output": str(output)}
    config = with_defaults(make_config(fields | settings, RunConfig))
    check_settings(config)
    model = grow_cached(world, taught=True, seed=seed, fresh=fresh)
    retrained = grow_cached(world, taught=False, seed=seed, fresh=fresh)
    rows.write(directory)
    keep_private(directory)
    return run(config.model_copy(update={"model": str(model), "retrained": str(retrained)}), overwrite=overwrite)
