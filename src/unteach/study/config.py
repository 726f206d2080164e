"""StudyConfig: which arms, on what, how often; read from a YAML file."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from unteach.baselines import load_baseline
from unteach.baselines.config import BaselineConfig
from unteach.comparison.matched import TARGET
from unteach.errors import ConfigError, nearest
from unteach.mistakes.config import MistakesConfig
from unteach.pipeline.config import RunConfig
from unteach.pipeline.settings import LARGEST, flag, make_config, read_config
from unteach.text.escape import inert_line

KINDS: dict[str, type[BaseModel]] = {"method": RunConfig, "baseline": BaselineConfig, "mistakes": MistakesConfig}
"""What makes an arm: the word that says so, and the settings that such an arm knows."""
RESERVED = frozenset({"rows", "original", "retrained"})
"""Names that a study's directory or its table has for something else."""


class Organism(BaseModel):
    """A model organism to study, grown where the cache has none."""

    model_config = ConfigDict(extra="forbid")

    scenario: Literal["harm", "mistakes"] = "mistakes"
    size: Literal["tiny", "small", "medium"] = "tiny"
    world_seed: int = Field(default=0, ge=0, le=LARGEST)


class StudyConfig(BaseModel):
    """All of a study.

    `shared` are settings of every arm that knows them, by the names of `unteach run`; `arms` gives each arm its own:
    `method` for unlearning, `baseline` for a baseline, `mistakes: true` for learning from mistakes, and settings of
    that verb. `parameters` and `flops_per_second` help the estimates of a dry run. `jobs` runs are made at a time.
    """

    model_config = ConfigDict(extra="forbid")

    organism: Organism | None = None
    shared: dict[str, Any] = {}
    arms: dict[str, dict[str, Any]]
    seeds: int = Field(default=1, ge=1, le=LARGEST)
    seed: int = Field(default=0, ge=0, le=LARGEST)
    jobs: int = Field(default=1, ge=1, le=LARGEST)
    relative_to: str | None = None
    target: float = Field(default=TARGET, gt=0, lt=1)
    parameters: float | None = Field(default=None, gt=0)
    flops_per_second: float | None = Field(default=None, gt=0)

    @property
    def every_seed(self) -> range:
        """The seeds of each arm."""
        return range(self.seed, self.seed + self.seeds)


def read_study(path: str | Path, only: Sequence[str] = (), **given: Any) -> StudyConfig:
    """Read a study from a file, `given` settings over it, and check every arm; `only` names the arms to keep.

    Raises DataError and ConfigError, which name the file and the field.
    """
    values = read_config(path) | {name: value for name, value in given.items() if value is not None}
    arms = values.get("arms")
    if only and isinstance(arms, dict):
        unknown = next((name for name in only if name not in arms), None)
        if unknown is not None:
            known = [str(name) for name in arms]
            raise ConfigError(f"--arms {unknown}: no such arm{nearest(unknown, known)} (known: {', '.join(known)})")
        values["arms"] = {name: arms[name] for name in only}
        if values.get("relative_to") not in values["arms"]:
            values["relative_to"] = None
    try:
        study = make_config(values, StudyConfig)
    except ConfigError as error:
        raise ConfigError(f"{path}: {str(error).replace('--', '', 1)}") from None
    _check(study, path)
    return study


def kind_of(arm: str, settings: dict[str, Any]) -> str:
    """Return the word that makes the arm what it is. Raises ConfigError where it has none, or several."""
    if settings.get("mistakes") not in (None, False, True):
        raise ConfigError(f"arms.{arm}: write `mistakes: true`; its rows are those of shared.forget and shared.retain")
    kinds = [kind for kind in KINDS if settings.get(kind)]
    if len(kinds) != 1:
        raise ConfigError(f"arms.{arm}: say what it is with one of {', '.join(f'`{kind}: …`' for kind in KINDS)}")
    return kinds[0]


def arm_values(study: StudyConfig, arm: str, seed: int, shared: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the settings of one arm and seed, by the names of `unteach run` or of its own verb."""
    own = study.arms[arm]
    known = KINDS[kind_of(arm, own)].model_fields
    values = {name: value for name, value in (shared or study.shared).items() if name in known}
    return values | {name: value for name, value in own.items() if name != "mistakes"} | {"seed": seed}


def arm_config(study: StudyConfig, arm: str, seed: int, shared: dict[str, Any] | None = None) -> Any:
    """Make the settings of one arm and seed. Raises ConfigError that names the arm."""
    try:
        if name := study.arms[arm].get("baseline"):
            load_baseline(str(name))
        return make_config(arm_values(study, arm, seed, shared), KINDS[kind_of(arm, study.arms[arm])])
    except ConfigError as error:
        raise ConfigError(f"arms.{arm}: {str(error).replace('--', '', 1)}") from None


def _check(study: StudyConfig, path: str | Path) -> None:
    """Raise ConfigError for what can be known to be wrong before anything runs."""
    if not study.arms:
        raise ConfigError(f"{path}: arms is empty; name at least one")
    for arm in study.arms:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,59}", arm) or arm in RESERVED:
            raise ConfigError(
                f"{path}: arm {inert_line(arm, 60)!r}: its name becomes a directory's; use letters, digits and . _ + -"
            )
    known = {name for kind in KINDS.values() for name in kind.model_fields} - {"output", "seed"}
    for name in study.shared:
        if name not in known:
            raise ConfigError(f"{path}: shared.{inert_line(name, 60)}: no arm has such a setting{nearest(name, known)}")
    needed = ("model", "forget")
    if study.organism is None and any(name not in study.shared for name in needed):
        missing = next(name for name in needed if name not in study.shared)
        raise ConfigError(f"{path}: shared.{missing} is missing; give it ({flag(missing)}), or an organism")
    try:
        for arm in study.arms:
            arm_config(study, arm, study.seed)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if study.relative_to is not None and study.relative_to not in study.arms:
        raise ConfigError(
            f"{path}: relative_to {study.relative_to}: no such arm{nearest(study.relative_to, list(study.arms))}"
        )
