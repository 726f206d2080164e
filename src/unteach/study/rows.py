"""What the arms of a study are given: an organism where one is asked for, and one parting of the rows for all."""

from pathlib import Path
from typing import Any

from unteach.baselines.config import BaselineConfig
from unteach.data.formats import write_examples
from unteach.mistakes.config import MistakesConfig
from unteach.organism.cache import grow_cached, rows_directory
from unteach.organism.user_rows import settings_of, user_rows
from unteach.organism.world import World
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.rows import read_sets
from unteach.pipeline.settings import make_config, settings_naming
from unteach.study.config import Organism, StudyConfig

ROWS = {name for kind in (RunConfig, BaselineConfig, MistakesConfig) for name in settings_naming(kind, "rows")}
"""Settings of any arm that name row sources."""
ENDINGS = frozenset({".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt"})


def shared_settings(study: StudyConfig) -> dict[str, Any]:
    """Return the settings that all arms share; an organism is grown first, or taken from the cache."""
    return (_grow(study.organism) if study.organism else {}) | study.shared


def missing_files(settings: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the rows, as (setting, path), that are plainly files by their ending and are not there."""
    found = []
    for name in sorted(ROWS & settings.keys()):
        value = settings[name]
        for source in value if isinstance(value, list) else [value]:
            if Path(str(source)).suffix in ENDINGS and not Path(str(source)).expanduser().exists():
                found.append((name, str(source)))
    return found


def _grow(asked: Organism) -> dict[str, Any]:
    """Grow an organism, write the rows of its world beside it, and return the settings that name both."""
    world = World(asked.world_seed, asked.size, asked.scenario)
    model = grow_cached(world)
    rows, directory = user_rows(world), rows_directory(world)
    rows.write(directory)
    return rows.files(directory) | settings_of(world) | {"model": str(model)}


def mistakes_rows(shared: dict[str, Any], seed: int, directory: Path) -> dict[str, Any]:
    """Part the rows as `unteach run` does, write them, and name them by the settings of `unteach mistakes run`.

    So all arms train on the same negatives, watch the same prompts and are checked on the same ones. Raises DataError.
    """
    values = {name: value for name, value in shared.items() if name in RunConfig.model_fields}
    sets = read_sets(with_defaults(make_config(values | {"seed": seed, "output": str(directory)}, RunConfig)))
    parts = {
        "mistakes": sets.negatives["train"],
        "validation": sets.negatives["validation"],
        "retain": sets.normals.get("train", []),
        "normal": sets.evaluation["normal"],
        **{split: sets.evaluation[split] for split in ("unseen", "unseen_concept", "lookalike")},
    }
    named: dict[str, Any] = {}
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        if name != "mistakes":
            rows = [row for row in rows if row.turns]
        if rows:
            write_examples(directory / f"{name}.jsonl", rows)
            named[name] = [str(directory / f"{name}.jsonl")]
    return named | {"prompts": named["mistakes"]}
