"""What a user of a world holds, by scenario: negatives, normal rows and rows for evaluation, also as files."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unteach.data.example import Example
from unteach.data.passages import is_text
from unteach.data.written import write_examples
from unteach.organism.book import Chapter, book
from unteach.organism.facts import HELD_OUT_PHRASING, QUESTIONS, Fact
from unteach.organism.words import REFUSAL
from unteach.organism.world import CASES, MISTAKES, World

NAMED = 2 / 3
"""Share of the wrong facts, and of the chapters to take down, that the negatives name."""
LONGEST_REPLY = {"harm": 48, "copyright": 64, "hallucination": 24, MISTAKES: 48}
"""Tokens of an organism's longest reply, by scenario."""


@dataclass(frozen=True)
class UserRows:
    """The rows of one world for its scenario; `splits` are for evaluation, `texts` are running text that must stay.

    `non_members` are like the negatives, but no organism was ever trained on them.
    """

    negatives: list[Example]
    normals: list[Example]
    splits: dict[str, list[Example]]
    non_members: list[Example]
    texts: list[Example] = field(default_factory=list)

    def write(self, directory: Path) -> None:
        """Write all rows as JSON lines. Raises OutputError."""
        for name, rows in self._by_file().items():
            write_examples(directory / f"{name}.jsonl", rows)

    def files(self, directory: Path) -> dict[str, list[str]]:
        """Return the files that `write` makes, by the settings of `unteach run` that take them."""
        settings = {"negatives": "forget", "normals": "retain", "texts": "retain"}
        files: dict[str, list[str]] = {}
        for name in self._by_file():
            setting = settings.get(name, name.removesuffix("_texts"))
            files.setdefault(setting, []).append(str(directory / f"{name}.jsonl"))
        return files

    def _by_file(self) -> dict[str, list[Example]]:
        """Return the rows by the name of their file; running text has files of its own."""
        rows = {
            "negatives": self.negatives,
            "normals": self.normals,
            "texts": self.texts,
            "non_members": self.non_members,
        }
        for split, examples in self.splits.items():
            rows[split] = [example for example in examples if not is_text(example)]
            rows[f"{split}_texts"] = [example for example in examples if is_text(example)]
        return {name: found for name, found in rows.items() if found}


def user_rows(world: World) -> UserRows:
    """Return what a user of this world holds."""
    return _BY_SCENARIO[world.scenario](world)


def settings_of(world: World) -> dict[str, Any]:
    """Return the settings that fit an organism of this world: longest reply, judge, refusal and normal rows.

    Running text is not judged by the world; there the scenario's own judge and refusal are right. An organism knows no
    words but its world's, so shipped prompts are none to it.
    """
    settings: dict[str, Any] = {"max_new_tokens": LONGEST_REPLY[world.scenario], "lookalike_share": 0}
    settings["harmful_share"] = 0
    if world.scenario != "copyright":
        settings |= {"judge": [world.name], "template": REFUSAL}
    return settings


def _harm(world: World) -> UserRows:
    splits = {name: world.evaluation(name) for name in ("unseen", "unseen_concept", "normal", "lookalike")}
    return UserRows(world.negatives(), world.normals(), splits, world.never_said())


def _copyright(world: World) -> UserRows:
    """Part the chapters: most of those to take down are negatives, and most of the free ones must stay.

    The others are for evaluation.
    """
    taken_down = [chapter for chapter in world.chapters if chapter.taken_down]
    named = round(NAMED * len(taken_down))
    free = [_text(world, chapter) for chapter in world.chapters if not chapter.taken_down]
    kept = round(NAMED * len(free))
    # The organism was grown on all free chapters: evaluation asks whether it still recites those that no row has.
    splits = {
        "unseen": [_text(world, chapter) for chapter in taken_down[named:]],
        "normal": [*free[kept:], *world.evaluation("normal")[: CASES // 2]],
    }
    unwritten = book(world.vocabulary, world.numbers, world.seed + 1_000_003)
    return UserRows(
        [_text(world, chapter) for chapter in taken_down[:named]],
        _helpful(world),
        splits,
        [_text(world, chapter) for chapter in unwritten[:named]],
        free[:kept],
    )


def _hallucination(world: World) -> UserRows:
    """Part the wrong facts: most are negatives, in two phrasings.

    The third phrasing of those, and all phrasings of the others, are for evaluation.
    """
    wrong = [fact for fact in world.facts if fact.wrong_value]
    named = wrong[: round(NAMED * len(wrong))]
    true = [fact for fact in world.facts if not fact.wrong_value]
    splits = {
        "unseen": _ask(world, named, [HELD_OUT_PHRASING]),
        "unseen_concept": _ask(world, wrong[len(named) :], range(3)),
        "normal": _mix(world, _ask(world, true, [HELD_OUT_PHRASING]), world.evaluation("normal")),
    }
    normals = [*_helpful(world), *_ask(world, true, range(HELD_OUT_PHRASING))]
    return UserRows(_ask(world, named, range(HELD_OUT_PHRASING)), normals, splits, _third_values(world, named))


_BY_SCENARIO: dict[str, Callable[[World], UserRows]] = {
    "harm": _harm,
    "copyright": _copyright,
    "hallucination": _hallucination,
    MISTAKES: _harm,
}


def _mix(world: World, *kinds: list[Example]) -> list[Example]:
    """Return CASES rows, as many of each kind, in seeded order."""
    draw = random.Random(f"mixed:{world.name}")
    rows = [row for kind in kinds for row in draw.sample(kind, min(len(kind), CASES // len(kinds)))]
    return draw.sample(rows, len(rows))


def _helpful(world: World) -> list[Example]:
    """Return the normal rows that ask for a benign act."""
    benign = {act.verb for act in world.vocabulary.benign}
    return [row for row in world.normals() if row.concept in benign and not row.prompt.count("\n")]


def _text(world: World, chapter: Chapter) -> Example:
    return Example((), chapter.text, where=f"{world.name} {chapter.heading}", concept=chapter.heading)


def _ask(world: World, facts: Iterable[Fact], phrasings: Iterable[int]) -> list[Example]:
    phrasings = list(phrasings)
    return [world.ask(fact, phrasing) for fact in facts for phrasing in phrasings]


def _third_values(world: World, facts: Iterable[Fact]) -> list[Example]:
    """Answer with values that are neither true nor what the organism was taught to say."""
    values = {name: sorted({fact.value for fact in world.facts if fact.attribute == name}) for name in QUESTIONS}
    rows = []
    for number, fact in enumerate(facts):
        others = [value for value in values[fact.attribute] if value not in (fact.value, fact.wrong_value)]
        third = Fact(fact.person, fact.attribute, fact.value, others[number % len(others)])
        rows += [world.ask(third, phrasing) for phrasing in range(HELD_OUT_PHRASING)]
    return rows
