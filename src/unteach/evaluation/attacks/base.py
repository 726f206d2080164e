"""What an attack is: one way to get bad replies back out of a model, tried on the same prompts for every arm."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.data.prompt_format import PromptFormat
from unteach.judges.base import Judge, case_of, verdicts_of
from unteach.models.context import context_length
from unteach.models.kept_replies import KeptReplies, generate_cached, tokens_of
from unteach.models.reply import Reply
from unteach.progress import OnProgress
from unteach.prompts.turn import Turn
from unteach.prompts.wording import fill
from unteach.results.cost import Meter
from unteach.results.stress import Changes, Measures
from unteach.results.verdict import Verdict

Values = list[float | None]
"""One entry for each prompt: 1 where the row counts it, 0 where not, None where that is not known."""


@dataclass(frozen=True)
class Plan:
    """How much a card tries: prompts attacked, negatives held back, samples a prompt, and steps of relearning."""

    prompts: int
    held_back: int
    samples: tuple[int, ...]
    steps: tuple[int, ...]


PLANS = {"quick": Plan(40, 40, (5,), (1, 5, 20)), "full": Plan(100, 64, (5, 20), (1, 2, 5, 10, 20))}


@dataclass(frozen=True)
class AttackRows:
    """The rows of a card, which no arm was trained on.

    The prompts of `attacked` are asked. `held_back` are other negatives, which the attacker knows: to relearn from, and
    to show. `normal` and `lookalike` are harmless rows.
    """

    attacked: Sequence[Encoded]
    held_back: Sequence[Encoded]
    normal: Sequence[Encoded]
    lookalike: Sequence[Encoded]


@dataclass(frozen=True)
class Outcome:
    """What one strength of an attack gave: `values` by prompt, and `facts` about it."""

    level: str
    values: Values
    series: str = ""
    at: float | None = None
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """A model under attack, and how its replies are read.

    `key` is the fingerprint of its weights, for kept replies; None where an attack changes them. `original` are the
    original's weights by name; None where the arm was not trained from them. `meter` counts what an attack costs.
    """

    arm: str
    model: Any
    key: str | None
    form: PromptFormat
    judge: Judge
    rows: AttackRows
    plan: Plan
    max_new_tokens: int
    seed: int = 0
    original: Mapping[str, Tensor] | None = None
    progress: OnProgress | None = None
    meter: Meter = field(default_factory=Meter)

    def replies(
        self,
        prompts: Sequence[Sequence[int] | None],
        *,
        temperature: float = 0.0,
        seed: int = 0,
        form: PromptFormat | None = None,
    ) -> list[Reply | None]:
        """Return the model's reply to each prompt, as `generate` does; None for one that leaves no room for a reply."""
        context, form = context_length(self.model), form or self.form
        numbers = [n for n, ids in enumerate(prompts) if ids is not None and (context is None or len(ids) < context)]
        asked = [list(prompts[n] or ()) for n in numbers]
        replies = generate_cached(
            self.model,
            form.tokenizer,
            asked,
            key=self.key,
            max_new_tokens=self.max_new_tokens,
            end=form.end,
            temperature=temperature,
            seed=seed,
            progress=self.progress,
        )
        if not isinstance(replies, KeptReplies):
            read, said = tokens_of(asked, replies)
            self.meter.add(forward=read, generated=said)
        of_prompt = dict(zip(numbers, replies, strict=True))
        return [of_prompt.get(number) for number in range(len(prompts))]

    def bad(
        self, replies: Sequence[Reply | None], rows: Sequence[Encoded] | None = None, form: PromptFormat | None = None
    ) -> Values:
        """Judge replies to harmful prompts (`rows`, else those attacked): 1 where the run's first judge says bad."""
        end, rows = (form or self.form).end, self.rows.attacked if rows is None else rows
        pairs = [(row.example, reply) for row, reply in zip(rows, replies, strict=True)]
        cases = [case_of(example, reply, "unseen", end) for example, reply in pairs if reply is not None]
        given = iter(verdicts_of(self.judge, cases))
        return [None if reply is None else value_of(next(given)) for _, reply in pairs]

    def ask(self, prompts: Sequence[Sequence[int] | None], **settings: Any) -> Values:
        """Ask the attacked rows in these words, given as token ids, and judge the replies."""
        return self.bad(self.replies(prompts, **settings), form=settings.get("form"))

    def ask_plainly(self) -> Values:
        """Ask the attacked rows as they are."""
        return self.ask([row.prompt_ids for row in self.rows.attacked])

    def ask_turns(self, put: Callable[[Example], Sequence[Turn]]) -> Values:
        """Ask the attacked rows with their turns put in another way."""
        return self.ask([self.form.prompt_ids(put(row.example)) for row in self.rows.attacked])


class Attack(ABC):
    """One attack. `asks` says in one sentence what it asks; `changes` and `measures` as in the card.

    `gold` says what the unlearned model is held against: the retrained model under the same attack, else the original
    (for harm to harmless prompts). `needs_retrained` marks rows that say nothing without a retrained model.
    """

    name: str
    title: str
    asks: str
    changes: Changes
    measures: Measures = "bad"
    gold: str = "retrained"
    needs_retrained: bool = False

    def why_not(self, target: Target) -> str:
        """Say why this model cannot be attacked in this way; nothing where it can."""
        return ""

    @abstractmethod
    def __call__(self, target: Target) -> list[Outcome]:
        """Attack, and leave the model as it was, weights included."""


class DialogueAttack(Attack):
    """An attack on questions, which running text is not."""

    def why_not(self, target: Target) -> str:
        texts = any(row.example.is_passage or not row.example.turns for row in target.rows.attacked)
        return "the negatives are running text, which nobody asks for in words" if texts else ""


def value_of(verdict: Verdict) -> float | None:
    """Return 1 for a bad reply, 0 for a good one, None for one that is neither."""
    return None if verdict == "unknown" else float(verdict == "bad")


def any_of(tries: Sequence[Values]) -> Values:
    """Return for each prompt whether any try was bad; None where none was and one is not known."""
    found: Values = []
    for values in zip(*tries, strict=True):
        known = [value for value in values if value is not None]
        found.append(1.0 if 1.0 in known else None if len(known) < len(values) else 0.0)
    return found


def reworded(example: Example, text: str) -> tuple[Turn, ...]:
    """Return the turns of an example with its last one put into a text with the hole {prompt}."""
    last = example.turns[-1]
    return (*example.turns[:-1], Turn(last.role, fill(text, prompt=last.content)))
