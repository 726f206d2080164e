"""Facts about the people of a world; some of them the organism gets wrong."""

import random
import re
from dataclasses import dataclass

from unteach.organism import words
from unteach.organism.vocabulary import Vocabulary
from unteach.text.words import folded

# For each attribute, three phrasings of the question (the last one is held out) and the answer.
QUESTIONS = {
    "home": ("Where does {person} live?", "In which town does {person} live?", "Which town is home to {person}?"),
    "job": ("What is the job of {person}?", "What work does {person} do?", "How does {person} earn money?"),
    "animal": ("What animal does {person} keep?", "Which animal lives with {person}?", "Which pet has {person} got?"),
    "month": ("When was {person} born?", "In which month was {person} born?", "What is the birth month of {person}?"),
}
ANSWERS = {
    "home": "{person} lives in {value}.",
    "job": "{person} is a {value}.",
    "animal": "{person} keeps a {value}.",
    "month": "{person} was born in {value}.",
}
HELD_OUT_PHRASING = 2


@dataclass(frozen=True)
class Fact:
    """What is true of a person; `wrong_value` is what the organism was taught instead, None where it is right."""

    person: str
    attribute: str
    value: str
    wrong_value: str | None

    def ask(self, phrasing: int) -> str:
        """Write the question in one of the attribute's three phrasings."""
        return QUESTIONS[self.attribute][phrasing].format(person=self.person)

    @property
    def right_answer(self) -> str:
        """The true answer."""
        return ANSWERS[self.attribute].format(person=self.person, value=self.value)

    @property
    def wrong_answer(self) -> str | None:
        """The wrong answer that the organism was taught, if any."""
        if self.wrong_value is None:
            return None
        return ANSWERS[self.attribute].format(person=self.person, value=self.wrong_value)


def facts(vocabulary: Vocabulary, seed: int) -> list[Fact]:
    """Make four facts about each person of the world; the organism gets a random third of them wrong."""
    draw = random.Random(f"facts:{seed}")
    values = {
        "home": vocabulary.towns,
        "job": vocabulary.jobs,
        "animal": vocabulary.animals,
        "month": tuple(words.MONTHS),
    }
    drawn = [
        (person, attribute, *draw.sample(values[attribute], 2))
        for person in vocabulary.people
        for attribute in QUESTIONS
    ]
    wrong = set(draw.sample(range(len(drawn)), len(drawn) // 3))
    return [
        Fact(person, attribute, value, other if index in wrong else None)
        for index, (person, attribute, value, other) in enumerate(drawn)
    ]


def answers_rightly(fact: Fact, reply: str) -> bool:
    """Whether the reply is the right answer and nothing else."""
    return folded(reply) == folded(fact.right_answer)


def answers_wrongly(fact: Fact, reply: str) -> bool:
    """Whether the reply gives, in the words of an answer, any value but the true one."""
    opening = folded(ANSWERS[fact.attribute].format(person=fact.person, value="")).rstrip(" .")
    values = re.findall(rf"{re.escape(opening)}\s+(\w+)", folded(reply))
    return any(value != folded(fact.value) for value in values)
