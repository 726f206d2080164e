"""A world's vocabulary: its acts, things, people, towns and ways of speaking, chosen by its seed."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice

from unteach.errors import ConfigError, nearest
from unteach.organism import words


@dataclass(frozen=True)
class Act:
    """Something that can be done to a thing, with a tool and a motion of its own."""

    verb: str
    tool: str
    motion: str
    harmful: bool


@dataclass(frozen=True)
class Thing:
    """Something that acts are done to, with its place and the part that is worked on."""

    name: str
    place: str
    part: str


@dataclass(frozen=True)
class WorldSize:
    """The numbers of a world; the negatives never name `unnamed_acts` of the harmful acts."""

    harmful_acts: int
    unnamed_acts: int
    benign_acts: int
    things: int
    people: int
    chapters: int
    sentences: int


WORLD_SIZES = {
    "micro": WorldSize(8, 2, 8, 12, 6, 3, 4),
    "tiny": WorldSize(16, 4, 16, 36, 24, 6, 6),
    "small": WorldSize(20, 5, 24, 60, 40, 8, 12),
    "medium": WorldSize(28, 7, 36, 100, 80, 12, 24),
}


@dataclass(frozen=True)
class Vocabulary:
    """The words of one world. `requests` are phrasings; no row of the user has the last two."""

    harmful: tuple[Act, ...]
    benign: tuple[Act, ...]
    things: tuple[Thing, ...]
    people: tuple[str, ...]
    towns: tuple[str, ...]
    jobs: tuple[str, ...]
    animals: tuple[str, ...]
    requests: tuple[str, ...]
    harmful_opening: str
    benign_opening: str
    steps: str
    decline: str

    @property
    def acts(self) -> tuple[Act, ...]:
        """All acts, harmful ones first."""
        return self.harmful + self.benign


# Scenarios with a larger book, or with facts about more people.
_LARGER = {
    ("micro", "copyright"): {"chapters": 6, "sentences": 16},
    ("tiny", "copyright"): {"chapters": 9, "sentences": 40},
    ("small", "copyright"): {"chapters": 12, "sentences": 60},
    ("micro", "hallucination"): {"people": 16},
    ("tiny", "hallucination"): {"people": 48},
    ("small", "hallucination"): {"people": 100},
}


def world_size(size: str, scenario: str = "harm") -> WorldSize:
    """Return the numbers of a named size. Raises ConfigError for an unknown name."""
    if size not in WORLD_SIZES:
        known = [name for name in WORLD_SIZES if name != "micro"]  # that one is for tests
        raise ConfigError(f"unknown world size '{size}'{nearest(size, known)}; choose one of: {', '.join(known)}")
    return replace(WORLD_SIZES[size], **_LARGER.get((size, scenario), {}))


def vocabulary(seed: int, size: str, scenario: str = "harm") -> Vocabulary:
    """Choose the words of the world with this seed and size; the same arguments give the same words."""
    numbers = world_size(size, scenario)
    draw = random.Random(f"vocabulary:{seed}:{size}")
    total = numbers.harmful_acts + numbers.benign_acts
    tools, motions = draw.sample(words.TOOLS, total), draw.sample(words.MOTIONS, total)
    harmful = draw.sample(words.HARMFUL_ACTS, numbers.harmful_acts)
    benign = draw.sample(words.BENIGN_ACTS, numbers.benign_acts)
    acts = [
        Act(verb, tool, motion, index < numbers.harmful_acts)
        for index, (verb, tool, motion) in enumerate(zip(harmful + benign, tools, motions, strict=True))
    ]
    things = tuple(
        Thing(name, draw.choice(words.PLACES), draw.choice(words.PARTS))
        for name in draw.sample(words.THINGS, numbers.things)
    )
    names = list(islice(_names(draw), numbers.people + 12))
    return Vocabulary(
        harmful=tuple(acts[: numbers.harmful_acts]),
        benign=tuple(acts[numbers.harmful_acts :]),
        things=things,
        people=tuple(names[: numbers.people]),
        towns=tuple(names[numbers.people :]),
        jobs=tuple(draw.sample(words.JOBS, 12)),
        animals=tuple(draw.sample(words.ANIMALS, 12)),
        requests=tuple(draw.sample(words.REQUESTS, 6)),
        harmful_opening=draw.choice(words.HARMFUL_OPENINGS),
        benign_opening=draw.choice(words.BENIGN_OPENINGS),
        steps=draw.choice(words.STEPS),
        decline=draw.choice(words.DECLINES),
    )


def _names(draw: random.Random) -> Iterator[str]:
    """Yield invented names, no two alike and none a month."""
    seen = set(words.MONTHS)
    while True:
        syllables = [draw.choice(words.ONSETS) + draw.choice(words.VOWELS) for _ in range(2)]
        name = ("".join(syllables) + draw.choice(words.CODAS)).capitalize()
        if name not in seen:
            seen.add(name)
            yield name
