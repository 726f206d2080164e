"""The judges of a run: made as its settings name them, taught where they learn, and left out where not trusted."""

from collections.abc import Sequence

from unteach.data.example import Example
from unteach.errors import ConfigError
from unteach.judges import load_judges
from unteach.judges.base import Judge, JudgeSettings, LearningJudge
from unteach.models.ranks import on_first_rank
from unteach.pipeline.config import RunConfig


def judges_of(config: RunConfig) -> list[Judge]:
    """Make the judges of a run; the first decides."""
    return load_judges(config.judge, JudgeSettings(config.scenario, config.judge_url, config.seed, config.template))


def trusted_judges(
    judges: list[Judge], negatives: list[Example], normals: list[Example], notes: list[str], judged: bool = False
) -> list[Judge]:
    """Let judges that learn see these rows, and return the judges that can be trusted.

    With `judged`, the rows are not those of training but those that will be judged; a judge with `own_rows` may not
    learn from these. Raises ConfigError where the first judge, which decides, cannot be trusted; any other that cannot
    be trusted is left out with a note.
    """
    trusted = []
    for judge in judges:
        try:
            if isinstance(judge, LearningJudge):
                if judged and judge.own_rows:
                    raise ConfigError(
                        f"--judge {judge.name}: it learns from the training rows of `unteach run`, and here all rows "
                        "are judged; choose another judge"
                    )
                on_first_rank(judge.learn, negatives, normals)
            trusted.append(judge)
        except ConfigError as error:
            if judge is judges[0]:
                raise
            notes.append(f"no second opinion: {error}")
    return trusted


def with_judges(config: RunConfig, judges: Sequence[Judge], trusted: Sequence[Judge]) -> RunConfig:
    """Return the config without the judges that cannot be trusted."""
    kept = [spec for spec, judge in zip(config.judge, judges, strict=True) if judge in trusted]
    return config.model_copy(update={"judge": kept})
