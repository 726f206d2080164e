"""Step 1: the model under alignment makes the mistakes itself, asked in words that induce them."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from unteach.data.example import Example
from unteach.judges.base import Judge, make_case, verdicts_of
from unteach.mistakes.ask import ask
from unteach.mistakes.records import Mistake, MistakeSource, Origin
from unteach.models.reply import Reply, ReplyEnd
from unteach.pipeline.original import Original
from unteach.progress import OnProgress
from unteach.prompts.mistakes import MistakeWording
from unteach.stats import Interval, wilson
from unteach.text.gibberish import blank, gibberish
from unteach.text.refusals import refusal_of

Outcome = Literal["induced", "unknown", "benign", "declined", "gibberish", "blank"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)
OUTCOME_OF: dict[str, Outcome] = {"bad": "induced", "good": "benign", "unknown": "unknown"}
"""The outcome of a reply, by the judge's verdict."""


@dataclass(frozen=True)
class Induction:
    """The mistakes that were induced, and the outcome of each prompt and of each inducement.

    `outcomes` counts prompts by their best outcome over all inducements, where OUTCOMES lists the best first; `tried`
    counts replies by inducement and outcome. "unknown" replies got no verdict: they are among the mistakes, marked as
    unknown, and the analysis decides whether they are bad; they do not count as induced.
    """

    mistakes: Sequence[Mistake] = ()
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    tried: Sequence[Counter[Outcome]] = ()
    tokens: Counter[str] = field(default_factory=Counter)
    source: MistakeSource = "induced"

    @property
    def rate(self) -> Interval:
        """The induction rate: the share of prompts that got a reply judged bad, with its Wilson interval."""
        return wilson(self.outcomes["induced"], self.outcomes.total())

    def __str__(self) -> str:
        rate, low, high = self.rate
        if rate is None or low is None or high is None:
            return "no prompt was asked"
        others = ", ".join(f"{count} {outcome}" for outcome in OUTCOMES[1:] if (count := self.outcomes[outcome]))
        name = "induction rate" if self.source == "induced" else "bad replies"
        text = f"{name} {rate:.1%} [{100 * low:.1f}, {100 * high:.1f}] of {self.outcomes.total()} prompts"
        text += f" (the others: {others})" if others else ""
        if not self.mistakes and self.source == "induced":
            text += (
                "; the model will not be induced, which is what one wants of an aligned model: give labelled or "
                "reported mistakes with --mistakes instead, or other inducements with --wording"
            )
        return text


def induce(
    original: Original,
    prompts: Sequence[Example],
    judge: Judge,
    wording: MistakeWording,
    *,
    seed: int = 0,
    max_new_tokens: int = 256,
    source: MistakeSource = "induced",
    progress: OnProgress | None = None,
) -> Induction:
    """Ask every prompt in inducing words until a reply is bad, each time with another inducement, greedily.

    With the wording `as_asked` the prompts are put as they stand, once: the model's own bad replies (`source`
    "collected").

    The order of the inducements is drawn for each prompt from `seed`. Refusals are recognised by the shipped phrases
    before the judge is asked, so no judge can take one for a mistake; blank and gibberish replies are dropped too. The
    judge is shown the prompt without the inducing words.

    Source: arXiv 2310.10477, section 4 (self-induced mistakes). Differs: the inducements are ours, several are tried,
    and replies that are no mistakes are dropped.
    """
    count = len(wording.inducements)
    orders = [_order(row, count, seed) for row in prompts]
    tried: list[Counter[Outcome]] = [Counter() for _ in range(count)]
    tokens: Counter[str] = Counter()
    best: dict[int, Outcome] = {}
    mistakes: dict[int, Mistake] = {}
    for turn in range(count):
        waiting = [n for n in range(len(prompts)) if best.get(n) != "induced"]
        dialogues = [wording.induce(orders[n][turn], prompts[n].turns) for n in waiting]
        answers = ask(
            original.model,
            original.form,
            dialogues,
            key=original.key,
            max_new_tokens=max_new_tokens,
            progress=progress,
        )
        tokens += answers.tokens
        replies = [reply or Reply("", (), False, "") for reply in answers.replies]
        outcomes = _outcomes([prompts[n] for n in waiting], replies, judge, original.form.end)
        for n, reply, outcome in zip(waiting, replies, outcomes, strict=True):
            inducement = orders[n][turn]
            tried[inducement][outcome] += 1
            best[n] = min(best.get(n, OUTCOMES[-1]), outcome, key=OUTCOMES.index)
            if outcome == "induced" or (outcome == "unknown" and n not in mistakes):
                verdict = "bad" if outcome == "induced" else "unknown"
                origin = Origin(source, original.name, seed, wording.version, inducement, judge.name, verdict)
                mistakes[n] = Mistake(replace(prompts[n], reply=reply.written, bad=None, cut=reply.cut), origin)
    return Induction([mistakes[n] for n in sorted(mistakes)], Counter(best.values()), tried, tokens, source)


def _order(row: Example, count: int, seed: int) -> list[int]:
    """Draw the order in which a prompt meets the inducements, independently of the rows around it."""
    return random.Random(f"induce:{seed}:{row.prompt_key}").sample(range(count), count)


def _outcomes(prompts: Sequence[Example], replies: Sequence[Reply], judge: Judge, end: ReplyEnd) -> list[Outcome]:
    """Return the outcome of each reply; the judge sees only those that are not dropped before."""
    outcomes = [_dropped(reply.text) for reply in replies]
    open_ = [n for n, outcome in enumerate(outcomes) if outcome is None]
    rows = [prompts[n] for n in open_]
    cases = [make_case(row, replies[n], end, bad=row.bad, good=row.good) for n, row in zip(open_, rows, strict=True)]
    for n, verdict in zip(open_, verdicts_of(judge, cases), strict=True):
        outcomes[n] = OUTCOME_OF[verdict]
    return [outcome or "unknown" for outcome in outcomes]


def _dropped(reply: str) -> Outcome | None:
    """Return the outcome of a reply that no judge needs to see."""
    if blank(reply):
        return "blank"
    if refusal_of(reply) == "full":
        return "declined"
    return "gibberish" if gibberish(reply) else None
