"""Organisms that are kept between runs, in the user's cache."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

from unteach.disk.cache import FIX, Cache, cache_directory
from unteach.disk.files import remove_whole, writing
from unteach.disk.lock import FileLock
from unteach.organism.grow import FINISHED, grow
from unteach.organism.recipe import recipe_of
from unteach.organism.world import MISTAKES, World
from unteach.progress import track

MOST_BYTES = 8 * 2**30
"""Largest size of all kept organisms and their worlds' rows together."""


def organism_directory(world: World, taught: bool, seed: int = 0) -> Path:
    """Return the directory of an organism in the user's cache; it need not exist.

    Its name ends in a digest of the recipe and of every row that the organism is grown on. When a new version of this
    package changes either of them, the organism is grown again.
    """
    recipe = json.dumps([asdict(recipe_of(world.size, world.scenario)), seed])
    digest = hashlib.sha256(recipe.encode())
    for row in world.training_rows(taught):
        digest.update(f"{row.prompt}\x1f{row.reply}\x1e".encode())
    kind = "taught" if taught else "never-taught"
    about = "" if world.scenario == "harm" else f"-{world.scenario}"
    return cache_directory() / "organisms" / f"{world.size}{about}-{world.seed}-{kind}-{digest.hexdigest()[:12]}"


def rows_directory(world: World, seed: int = 0) -> Path:
    """Return the directory for the rows of a world: beside the organism that was grown with this seed."""
    home = organism_directory(world, True, seed=seed)
    return home.with_name(f"{home.name}-rows")


def grow_cached(world: World, *, taught: bool = True, seed: int = 0, fresh: bool = False) -> Path:
    """Grow an organism in the user's cache, unless it is there already, and return its directory.

    With `fresh`, or where its files do not check, it is grown again. Another process that grows it is waited for.
    Raises ModelError and OutputError, see `grow`.
    """
    home = organism_directory(world, taught, seed=seed)
    cache, lock = Cache(home.parent, MOST_BYTES), FileLock(home.with_name(f".{home.name}.lock"))
    with writing(home.parent, FIX):
        home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with lock:
        kept = cache.find(home.name)
        if fresh or (kept is None and (home / FINISHED).exists()):
            with writing(home, FIX):
                remove_whole(home)
        original = "a model that takes hints" if world.scenario == MISTAKES else "a model that misbehaves"
        with track(f"growing {original if taught else 'the retrained model'}") as progress:
            grow(world, home, taught=taught, seed=seed, progress=progress)
        if kept is None or fresh:
            cache.seal(home.name)
    return home
