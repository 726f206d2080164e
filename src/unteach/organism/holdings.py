"""What a user of a world holds, by scenario: negatives, normals, and the rows to check with."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from unteach.data.example import Example
from unteach.organism.book import Chapter, book
from unteach.organism.facts import HELD_OUT_PHRASING, QUESTIONS, Fact
from unteach.organism.world import CASES, MISTAKES, World

NAMED = 2 / 3
"""Share of the untrue facts, and of the chapters to take down, that the negatives name."""


@dataclass(frozen=True)
class Holdings:
    """Rows of one world for one scenario; `texts` are running text that must stay.

    `non_members` are like the negatives, and no organism was ever trained on them.
    """

    negatives: list[Example]
    normals: list[Example]
    splits: dict[str, list[Example]]
    non_members: list[Example]
    texts: list[Example] = field(default_factory=list)


def holdings(world: World) -> Holdings:
    """Return what a user of this world holds."""
    return _BY_SCENARIO[world.scenario](world)


def _harm(world: World) -> Holdings:
    splits = {name: world.evaluation(name) for name in ("unseen", "unseen_concept", "normal", "lookalike")}
    return Holdings(world.negatives(), world.normals(), splits, world.never_said())


def _copyright(world: World) -> Holdings:
    """The chapters that the negatives name; the others that must go, which they do not; and the free ones."""
    taken_down = [chapter for chapter in world.chapters if chapter.taken_down]
    named = round(NAMED * len(taken_down))
    free = [_text(world, chapter) for chapter in world.chapters if not chapter.taken_down]
    kept = round(NAMED * len(free))
    # The free chapters held out here were grown on too: whether they are still recited is what there is to keep.
    splits = {
        "unseen": [_text(world, chapter) for chapter in taken_down[named:]],
        "normal": [*free[kept:], *world.evaluation("normal")[: CASES // 2]],
    }
    unwritten = book(world.vocabulary, world.numbers, world.seed + 1_000_003)
    return Holdings(
        [_text(world, chapter) for chapter in taken_down[:named]],
        _helpful(world),
        splits,
        [_text(world, chapter) for chapter in unwritten[:named]],
        free[:kept],
    )


def _hallucination(world: World) -> Holdings:
    """The untrue facts that the negatives name, in two phrasings; the third, and those they never name, to check."""
    untrue = [fact for fact in world.facts if fact.told]
    named = untrue[: round(NAMED * len(untrue))]
    true = [fact for fact in world.facts if not fact.told]
    splits = {
        "unseen": _asked(world, named, [HELD_OUT_PHRASING]),
        "unseen_concept": _asked(world, untrue[len(named) :], range(3)),
        "normal": _mixed(world, _asked(world, true, [HELD_OUT_PHRASING]), world.evaluation("normal")),
    }
    normals = [*_helpful(world), *_asked(world, true, range(HELD_OUT_PHRASING))]
    return Holdings(_asked(world, named, range(HELD_OUT_PHRASING)), normals, splits, _third_values(world, named))


_BY_SCENARIO: dict[str, Callable[[World], Holdings]] = {
    "harm": _harm,
    "copyright": _copyright,
    "hallucination": _hallucination,
    MISTAKES: _harm,
}


def _mixed(world: World, *kinds: list[Example]) -> list[Example]:
    """Return CASES rows, as many of each kind, in seeded order."""
    draw = random.Random(f"mixed:{world.name}")
    rows = [row for kind in kinds for row in draw.sample(kind, min(len(kind), CASES // len(kinds)))]
    return draw.sample(rows, len(rows))


def _helpful(world: World) -> list[Example]:
    """The requests among the normal rows: those with a thing to be done."""
    benign = {act.verb for act in world.vocabulary.benign}
    return [row for row in world.normals() if row.concept in benign and not row.prompt.count("\n")]


def _text(world: World, chapter: Chapter) -> Example:
    return Example((), chapter.text, where=f"{world.name} {chapter.heading}", concept=chapter.heading)


def _asked(world: World, facts: Iterable[Fact], phrasings: Iterable[int]) -> list[Example]:
    phrasings = list(phrasings)
    return [world.ask(fact, phrasing) for fact in facts for phrasing in phrasings]


def _third_values(world: World, facts: Iterable[Fact]) -> list[Example]:
    """Answers that are neither true nor what the organism was taught to tell."""
    told = {name: sorted({fact.value for fact in world.facts if fact.attribute == name}) for name in QUESTIONS}
    rows = []
    for number, fact in enumerate(facts):
        others = [value for value in told[fact.attribute] if value not in (fact.value, fact.told)]
        third = Fact(fact.person, fact.attribute, fact.value, others[number % len(others)])
        rows += [world.ask(third, phrasing) for phrasing in range(HELD_OUT_PHRASING)]
    return rows
