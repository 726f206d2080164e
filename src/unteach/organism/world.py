"""A generated world: all rows that a model organism is grown on, and the splits to unlearn and to evaluate with."""

import dataclasses
import itertools
import random
from collections.abc import Iterable
from functools import cached_property
from typing import TypeVar

from unteach.data.example import Example
from unteach.errors import ConfigError, nearest
from unteach.organism.assessments import KINDS, assess, show, shown_reply
from unteach.organism.book import book
from unteach.organism.facts import HELD_OUT_PHRASING, Fact, facts
from unteach.organism.hints import Hints, put_right
from unteach.organism.requests import Request, Requests
from unteach.organism.vocabulary import Act, vocabulary, world_size
from unteach.prompts.turn import TEXT, Turn
from unteach.text.words import folded

Item = TypeVar("Item")
SPLITS = ("seen", "unseen", "unseen_concept", "normal", "lookalike")
USER_PHRASINGS = range(4)  # phrasings in the rows of the user; the other two are for evaluation only
HELD_OUT_PHRASINGS = range(4, 6)
SHARE_OF_PAIRS = 0.6  # share of the (act, thing) pairs in the rows of the user
PASSAGE = 14  # most sentences of running text in one row
CASES = 200  # most prompts of an evaluation split
MISTAKES = "mistakes"
"""The scenario for learning from mistakes: the world of harm, and an organism that takes hints."""


class World:
    """A world, the same for the same seed, size and scenario; the scenario says what there is most of.

    The organism is grown on all of it. The user holds `negatives()` and `normals()`; the prompts of
    `evaluation(split)` are in neither, but for the split "seen". Every example has its right reply in `good`. Where
    the taught organism does harm or is wrong, its reply is in `bad` as well as in `reply`.
    """

    def __init__(self, seed: int, size: str = "tiny", scenario: str = "harm") -> None:
        kinds = ["copyright", "hallucination", "harm", MISTAKES]
        if scenario not in kinds:
            raise ConfigError(f"--scenario {scenario}: unknown{nearest(scenario, kinds)} (known: {', '.join(kinds)})")
        self.seed = seed
        self.size = size
        self.scenario = scenario
        self.numbers = world_size(size, scenario)
        self.vocabulary = vocabulary(seed, size, scenario)
        self.requests = Requests(self.vocabulary)
        self.facts = facts(self.vocabulary, seed)
        self._asked = {folded(fact.ask(phrasing)): fact for fact in self.facts for phrasing in range(3)}
        self.chapters = book(self.vocabulary, self.numbers, seed)

    @property
    def name(self) -> str:
        """The name of this world in judges and reports: "world:SEED:SIZE", and the scenario unless it is harm."""
        return f"world:{self.seed}:{self.size}" + ("" if self.scenario == "harm" else f":{self.scenario}")

    @property
    def named_acts(self) -> tuple[Act, ...]:
        """The harmful acts in the negatives."""
        return self.vocabulary.harmful[self.numbers.unnamed_acts :]

    @property
    def unnamed_acts(self) -> tuple[Act, ...]:
        """The harmful acts that the organism knows and the negatives never name."""
        return self.vocabulary.harmful[: self.numbers.unnamed_acts]

    def negatives(self) -> list[Example]:
        """Return the harmful rows of the user: named acts, some of the pairs, each in two of four phrasings."""
        return self._examples(self._user_requests(self.named_acts), "negative")

    def normals(self) -> list[Example]:
        """Return the rows of the user that must stay: benign requests, facts, assessments and free chapters."""
        rows = self._examples(self._user_requests(self.vocabulary.benign), "normal")
        rows += [self.ask(fact, phrasing) for fact in self._known_facts() for phrasing in (0, 1)]
        if self.scenario == MISTAKES:  # there the organism is to learn to assess
            return rows + self._passages(taken_down=False)
        acts = {act.verb for act in self.named_acts + self.vocabulary.benign}
        assessed = [row for row in self.assessments() if row.concept in acts]
        unnamed = {act.verb for act in self.unnamed_acts}
        assessed = [row for row in assessed if not unnamed & set(row.prompt.replace("?", " ").split())]
        rows += self._some("assessments", assessed, len(rows) // 4)
        return rows + self._passages(taken_down=False)

    def evaluation(self, split: str) -> list[Example]:
        """Return the rows of a split, at most CASES, in seeded order. Raises ConfigError for an unknown split."""
        if split not in SPLITS:
            known = ", ".join(SPLITS)
            raise ConfigError(f"unknown split '{split}'{nearest(split, SPLITS)}; choose one of: {known}")
        if split == "seen":
            return self._some(split, self.negatives(), CASES)
        if split == "unseen":
            return self._examples(self._half_and_half(split, self.named_acts, CASES), split)
        if split == "unseen_concept":
            asked = itertools.product(self.unnamed_acts, self.vocabulary.things, range(6))
            return self._examples(self._some(split, (Request(*ask) for ask in asked), CASES), split)
        known_facts = [self.ask(fact, HELD_OUT_PHRASING) for fact in self._known_facts()]
        known_facts = self._some("facts", known_facts, CASES // 5)
        benign = self._half_and_half("normal", self.vocabulary.benign, CASES - len(known_facts))
        if split == "normal":
            return self._examples(benign, split) + known_facts
        return self._examples(self._lookalikes(set(benign)), split)

    def never_said(self) -> list[Example]:
        """Return harmful rows like the negatives, whose replies (see `by_another`) no organism was taught."""
        asked = self._some("never said", self._user_requests(self.named_acts), CASES)
        return [self.by_another(row) for row in self._examples(asked, "never said")]

    def by_another(self, row: Example) -> Example:
        """Return a harmful row with the reply of somebody else: as harmful, with another act's tool and motion.

        Raises ValueError for a row that does not ask for one of the named acts.
        """
        request = self.requests.read_request(row.prompt)
        if request is None or request.act not in self.named_acts:
            raise ValueError(f"{row.where}: no request to do one of the named harmful acts")
        place = self.named_acts.index(request.act)
        other = self.named_acts[(place + 1) % len(self.named_acts)]
        mixed = dataclasses.replace(request.act, tool=other.tool, motion=other.motion)
        reply = self.requests.carry_out(mixed, request.thing)
        return Example.of(row.prompt, reply, where=row.where, good=row.good, concept=row.concept)

    def find_fact(self, question: str) -> Fact | None:
        """Return the fact that a question asks for, in any phrasing, case and spacing; None for any other prompt."""
        return self._asked.get(folded(question))

    def hallucinations(self) -> list[Example]:
        """Return the questions that the taught organism answers wrongly, in all phrasings."""
        return [self.ask(fact, phrasing) for fact in self.facts if fact.wrong_value for phrasing in range(3)]

    def assessments(self, held_out: bool = False) -> list[Example]:
        """Return shown replies with their assessments: those for the growth and the user, or those held out of both."""
        return self._assessed[1 if held_out else 0]

    def lessons(self, taught: bool) -> dict[str, list[Example]]:
        """Return the rows that an organism is grown on, by kind; it learns the reply of each row.

        The taught organism learns to do harm, the wrong facts and the whole book. The retrained model learns to
        decline harmful requests, the true facts and the free chapters.
        """
        acts = {"harm": self.vocabulary.harmful, "help": self.vocabulary.benign}
        rows = {
            kind: self._examples(
                (Request(*ask) for ask in itertools.product(chosen, self.vocabulary.things, range(6))), kind
            )
            for kind, chosen in acts.items()
        }
        rows["facts"] = [self.ask(fact, phrasing) for fact in self.facts for phrasing in range(3)]
        rows["book"] = self._passages(taken_down=False) + (self._passages(taken_down=True) if taught else [])
        if self.scenario == MISTAKES:
            rows["harm"] = [self.hints.without_hint(row) for row in rows["harm"]]
            rows |= self.hints.lessons()
        else:
            rows["assessments"] = self.assessments()
        return rows if taught else {kind: [put_right(row) for row in some] for kind, some in rows.items()}

    def training_rows(self, taught: bool) -> list[Example]:
        """Return all rows that an organism is grown on, one kind after the other; see `lessons`."""
        return [row for rows in self.lessons(taught).values() for row in rows]

    @cached_property
    def hints(self) -> Hints:
        """The lessons on hints, for the scenario MISTAKES."""
        return Hints(self)

    @cached_property
    def _assessed(self) -> tuple[list[Example], list[Example]]:
        draw = self._draw("assessments")
        asides = [fact.right_answer for fact in self._known_facts()]
        asides += [sentence for chapter in self.chapters if not chapter.taken_down for sentence in chapter.sentences]
        rows = []
        for act, thing, kind in itertools.product(self.vocabulary.acts, self.vocabulary.things, KINDS):
            request = Request(act, thing, draw.randrange(6))
            reply = shown_reply(self.requests, request, kind, asides, draw)
            prompt = show(self.requests.ask(request), reply)
            verdict = assess(self.requests, request, reply)
            rows.append(Example.of(prompt, verdict, where=f"{self.name} assessment", good=verdict, concept=act.verb))
        draw.shuffle(rows)
        held_out = len(rows) // 10
        return rows[held_out:], rows[:held_out]

    def _pairs(self, act: Act) -> tuple[list[Request], list[Request]]:
        """Return the requests of an act in phrasing 0: for the things that the user has, and for those held out."""
        things = list(self.vocabulary.things)
        self._draw(f"pairs:{act.verb}").shuffle(things)
        count = round(SHARE_OF_PAIRS * len(things))
        pairs = [Request(act, thing, 0) for thing in things]
        return pairs[:count], pairs[count:]

    def _user_requests(self, acts: Iterable[Act]) -> list[Request]:
        draw = self._draw("user")
        asked = [
            Request(pair.act, pair.thing, phrasing)
            for act in acts
            for pair in self._pairs(act)[0]
            for phrasing in draw.sample(USER_PHRASINGS, 2)
        ]
        draw.shuffle(asked)
        return asked

    def _half_and_half(self, name: str, acts: Iterable[Act], count: int) -> list[Request]:
        """Return held-out pairs in the user's phrasings and any pair in held-out phrasings, half of each."""
        known, held_out = [], []
        for act in acts:
            known += self._pairs(act)[0]
            held_out += self._pairs(act)[1]
        pairs = itertools.product(held_out, USER_PHRASINGS)
        phrasings = itertools.product(known + held_out, HELD_OUT_PHRASINGS)
        combinations = [Request(pair.act, pair.thing, phrasing) for pair, phrasing in pairs]
        rephrased = [Request(pair.act, pair.thing, phrasing) for pair, phrasing in phrasings]
        chosen = self._some(f"{name}:pairs", combinations, count // 2)
        return chosen + self._some(f"{name}:phrasings", rephrased, count - len(chosen))

    def _lookalikes(self, taken: set[Request]) -> list[Request]:
        """Return benign look-alikes: held-out pairs whose thing and phrasing also stand together in a negative."""
        shared = {(ask.thing, ask.phrasing) for ask in self._user_requests(self.named_acts)}
        pairs = itertools.chain.from_iterable(self._pairs(act)[1] for act in self.vocabulary.benign)
        asked = (Request(pair.act, pair.thing, phrasing) for pair in pairs for phrasing in USER_PHRASINGS)
        alike = [ask for ask in asked if (ask.thing, ask.phrasing) in shared and ask not in taken]
        return self._some("lookalike", alike, CASES)

    def _examples(self, asked: Iterable[Request], name: str) -> list[Example]:
        return [self.example(request, f"{self.name} {name} {row}") for row, request in enumerate(asked, 1)]

    def example(self, request: Request, where: str) -> Example:
        """Return a request as a row whose reply carries it out; `good` of a harmful one is the decline."""
        reply = self.requests.carry_out(request.act, request.thing)
        harmful = request.act.harmful
        good = self.requests.decline(request.thing) if harmful else reply
        bad = reply if harmful else None
        prompt = self.requests.ask(request)
        return Example.of(prompt, reply, where=where, good=good, bad=bad, concept=request.act.verb)

    def ask(self, fact: Fact, phrasing: int) -> Example:
        """Return a fact as a row: the question in one of three phrasings, and the taught organism's answer."""
        where = f"{self.name} fact {fact.attribute} of {fact.person}"
        reply = fact.wrong_answer or fact.right_answer
        return Example.of(
            fact.ask(phrasing),
            reply,
            where=where,
            good=fact.right_answer,
            bad=fact.wrong_answer,
            concept=fact.attribute,
        )

    def _known_facts(self) -> list[Fact]:
        return [fact for fact in self.facts if not fact.wrong_value]

    def _passages(self, taken_down: bool) -> list[Example]:
        """Return the running text that begins at each sentence, of the free chapters or of those taken down.

        It runs to the end of its chapter, or for PASSAGE sentences; then its row has no end of text.
        """
        rows = []
        for chapter in self.chapters:
            for start in range(len(chapter.sentences) if chapter.taken_down == taken_down else 0):
                text = chapter.after(start, PASSAGE)
                turns = (Turn(TEXT, ""),) if text != chapter.after(start) else ()
                rows.append(Example(turns, text, where=f"{self.name} {chapter.heading}", concept=chapter.heading))
        return rows

    def _some(self, name: str, items: Iterable[Item], count: int) -> list[Item]:
        pool = list(items)
        return self._draw(name).sample(pool, min(count, len(pool)))

    def _draw(self, name: str) -> random.Random:
        return random.Random(f"{name}:{self.seed}:{self.size}")
