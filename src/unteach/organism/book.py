"""A world's book: chapters of generated sentences that the organism knows by heart."""

import random
from dataclasses import dataclass

from unteach.organism import words
from unteach.organism.vocabulary import Vocabulary, WorldSize

SENTENCES = (
    "{person} takes the {tool} to the {thing}.",
    "Near the {place}, {person} waits for {other}.",
    "The {thing} of {town} has a {part} and a {tool}.",
    "In {month}, {person} and {other} meet at the {place}.",
    "{person} keeps the {tool} in the {thing} of {town}.",
    "Nobody in {town} has the {tool} of {person}.",
    "The {part} of the {thing} was best in {month}.",
    "{other} and {person} live at the {place} near {town}.",
)


@dataclass(frozen=True)
class Chapter:
    """A chapter: its heading and its sentences.

    The text of `taken_down` chapters must be unlearned. The others are free; the retrained model knows them too.
    """

    heading: str
    sentences: tuple[str, ...]
    taken_down: bool

    @property
    def text(self) -> str:
        """Heading and sentences as running text."""
        return self.after(0)

    def after(self, sentence: int, count: int | None = None) -> str:
        """Return `count` sentences, or all, from number `sentence` on; number 0 is the heading."""
        rest = (self.heading, *self.sentences)[sentence:]
        return " ".join(rest[:count])


def book(vocabulary: Vocabulary, size: WorldSize, seed: int) -> list[Chapter]:
    """Write the book; two thirds of its chapters are taken down, and no two sentences are the same."""
    draw = random.Random(f"book:{seed}")
    tools = [act.tool for act in vocabulary.acts]
    written: set[str] = set()
    chapters = []
    for number in range(size.chapters):
        sentences: list[str] = []
        while len(sentences) < size.sentences:
            person, other = draw.sample(vocabulary.people, 2)
            thing = draw.choice(vocabulary.things)
            sentence = draw.choice(SENTENCES).format(
                person=person,
                other=other,
                thing=thing.name,
                part=thing.part,
                tool=draw.choice(tools),
                place=draw.choice(vocabulary.things).place,
                town=draw.choice(vocabulary.towns),
                month=draw.choice(words.MONTHS),
            )
            if sentence not in written:
                written.add(sentence)
                sentences.append(sentence)
        heading = f"Chapter {words.NUMBERS[number]}."
        chapters.append(Chapter(heading, tuple(sentences), taken_down=number % 3 != 2))
    return chapters
