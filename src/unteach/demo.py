"""The demo: grow a model organism, write its world's rows, unlearn, check."""

import shutil
from pathlib import Path
from typing import Any

from unteach.config import make_config, trainer_arguments, with_defaults
from unteach.data.example import Example
from unteach.data.formats import write_examples
from unteach.data.passages import is_text
from unteach.directory import check_output
from unteach.organism.cache import organism_directory
from unteach.organism.grow import grow
from unteach.organism.holdings import Holdings, holdings
from unteach.organism.words import REFUSAL
from unteach.organism.world import World
from unteach.preflight import check_method
from unteach.progress import track
from unteach.report.schema import Report
from unteach.run import run

LONGEST = {"harm": 48, "copyright": 64, "hallucination": 24}
"""Tokens of the longest reply, by scenario: an organism's replies are short."""


def demo(
    output: Path, *, world_seed: int, size: str, fresh: bool, settings: dict[str, Any], scenario: str = "harm"
) -> Report:
    """Grow (or take from the cache) an organism and its never-taught twin, and run unlearning on it.

    The world's rows are written beside the organism and read back like a user's; `settings` are fields of
    `RunConfig`. An earlier run in `output` is replaced.
    """
    overwrite = (output / "run.yaml").exists()
    check_output(str(output), overwrite=overwrite, resume=False)
    world = World(world_seed, size, scenario)
    seed = make_config(settings).seed
    taught = organism_directory(world, True, seed=seed)
    data = taught.with_name(f"{taught.name}-rows")
    fields: dict[str, Any] = files_of(holdings(world), data) | {
        "scenario": scenario,
        "output": str(output),
        "max_new_tokens": LONGEST[scenario],
    }
    if scenario != "copyright":  # a book is no question: its judges are those of any text
        fields |= {"judge": [world.name], "template": REFUSAL}
    config = with_defaults(make_config(fields | settings))
    check_method(config)
    trainer_arguments(config, output / "checkpoints")
    model = _grown(world, taught=True, seed=seed, fresh=fresh)
    twin = _grown(world, taught=False, seed=seed, fresh=fresh)
    write_world(holdings(world), data)
    return run(config.model_copy(update={"model": str(model), "never_taught": str(twin)}), overwrite=overwrite)


def organism(
    output: Path, *, size: str, world_seed: int, seed: int, twin: bool, scenario: str = "harm"
) -> None:
    """Grow an organism into `output/original`, its twin into `output/never_taught`, and write `output/data`."""
    check_output(str(output), overwrite=False, resume=True)
    world = World(world_seed, size, scenario)
    for taught in (True, False) if twin else (True,):
        name = "original" if taught else "never_taught"
        with track(f"growing {name}") as progress:
            grow(world, output / name, taught=taught, seed=seed, progress=progress)
    write_world(holdings(world), output / "data")


def write_world(held: Holdings, directory: Path) -> None:
    """Write what a user of a world would have, and the rows to check with, as JSON lines."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in _rows(held).items():
        write_examples(directory / f"{name}.jsonl", rows)


def _rows(held: Holdings) -> dict[str, list[Example]]:
    """All rows of a world by the file they go to; running text has files of its own."""
    rows = {"negatives": held.negatives, "normals": held.normals, "texts": held.texts, "outsiders": held.outsiders}
    for split, examples in held.splits.items():
        texts = [example for example in examples if is_text(example)]
        rows[split] = [example for example in examples if not is_text(example)]
        rows[f"{split}_texts"] = texts
    return {name: found for name, found in rows.items() if found}


def files_of(held: Holdings, directory: Path) -> dict[str, list[str]]:
    """Return the settings that name the files of a world."""
    named = {"negatives": "forget", "normals": "retain", "texts": "retain"}
    files: dict[str, list[str]] = {}
    for name in _rows(held):
        files.setdefault(named.get(name, name.removesuffix("_texts")), []).append(str(directory / f"{name}.jsonl"))
    return files


def _grown(world: World, *, taught: bool, seed: int, fresh: bool) -> Path:
    """Return the cached organism's directory, growing it first where needed."""
    home = organism_directory(world, taught, seed=seed)
    if fresh:
        shutil.rmtree(home, ignore_errors=True)
    what = "a model that misbehaves" if taught else "its never-taught twin"
    with track(f"growing {what}") as progress:
        grow(world, home, taught=taught, seed=seed, progress=progress)
    return home
