"""The exact judge of a generated world, for model organisms."""

from unteach.errors import ConfigError
from unteach.judges.base import Judge, JudgeSettings
from unteach.text.escape import inert_line

ASKED_AS = ("world:SEED", "world:SEED:SIZE", "world:SEED:SIZE:SCENARIO")


def load(rest: str, settings: JudgeSettings) -> Judge:
    """Make the judge of world `SEED`, `SEED:SIZE` or `SEED:SIZE:SCENARIO`; size "tiny" and "harm" where not given."""
    seed, _, kind = rest.partition(":")
    size, _, scenario = kind.partition(":")
    if not (seed.isdecimal() and len(seed) <= 9):
        asked = f"world:{inert_line(rest, 60)}" if rest else "world"
        raise ConfigError(
            f"--judge {asked}: give the world's seed as a whole number of at most 9 digits, as in world:0"
        )
    # Imported here because only this judge needs the organism.
    from unteach.organism.judge import WorldJudge
    from unteach.organism.world import World

    judge: Judge = WorldJudge(World(int(seed), size or "tiny", scenario or "harm"))
    return judge
