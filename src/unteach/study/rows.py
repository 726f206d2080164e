"""What the arms of a study share: a model organism where the study asks for one, and one split of the rows."""

from pathlib import Path
from typing import Any

from unteach.baselines.config import BaselineConfig
from unteach.data.readers import ending_of
from unteach.data.written import write_examples
from unteach.disk.cache import keep_private
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


def shared_settings(study: StudyConfig) -> dict[str, Any]:
    """Return the settings that all arms share; a model organism is grown first, or taken from the cache."""
    return (_organism_settings(study.organism) if study.organism else {}) | study.shared


def missing_files(study: StudyConfig) -> list[tuple[str, str]]:
    """Return each row source that has the ending of a file and does not exist, as (setting, path)."""
    found = []
    for place, settings in {"shared": study.shared, **{f"arms.{arm}": own for arm, own in study.arms.items()}}.items():
        for name in sorted(ROWS & settings.keys()):
            value = settings[name]
            for source in map(str, value if isinstance(value, list) else [value]):
                if ending_of(Path(source)) and not Path(source).expanduser().exists():
                    found.append((f"{place}.{name}", source))
    return found


def _organism_settings(asked: Organism) -> dict[str, Any]:
    """Grow a model organism, write its world's rows beside it, and return the settings that name both."""
    world = World(asked.world_seed, asked.size, asked.scenario)
    model = grow_cached(world)
    rows, directory = user_rows(world), rows_directory(world)
    rows.write(directory)
    keep_private(directory)
    return rows.files(directory) | settings_of(world) | {"model": str(model)}


def mistakes_rows(shared: dict[str, Any], seed: int, directory: Path) -> dict[str, Any]:
    """Split the rows as `unteach run` does, write them, and return the settings of `unteach mistakes run` for them.

    So all arms train on the same negatives and are validated and evaluated on the same prompts. Raises DataError.
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
    for name, rows in parts.items():
        if name != "mistakes":
            rows = [row for row in rows if row.turns]
        if rows:
            write_examples(directory / f"{name}.jsonl", rows)
            named[name] = [str(directory / f"{name}.jsonl")]
    return named | {"prompts": named["mistakes"]}
