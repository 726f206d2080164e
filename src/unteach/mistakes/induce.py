"""Step 1: the model under alignment makes the mistakes itself, asked in inducing words."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from unteach.data.example import Example
from unteach.data.prompt_format import PromptFormat
from unteach.judges.base import Judge
from unteach.mistakes.records import Mistake, Origin
from unteach.models.kept_replies import generate_cached, tokens_of
from unteach.prompts.mistakes import MistakeWording
from unteach.results.verdict import Case
from unteach.stats import Interval, wilson
from unteach.text.gibberish import blank, gibberish
from unteach.text.refusals import is_refusal

Outcome = Literal["induced", "unknown", "benign", "declined", "gibberish", "blank"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


@dataclass
class Induction:
    """What came of inducing: the mistakes, and how each prompt and each inducement fared.

    `outcomes` counts prompts by the best thing that any inducement got out of them, in the order of OUTCOMES; `tried`
    counts replies by inducement and outcome. "unknown" replies got no verdict: they are among the mistakes, marked so,
    and leave it to the analysis to find them bad; they do not count as induced.
    """

    mistakes: list[Mistake] = field(default_factory=list)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    tried: list[Counter[Outcome]] = field(default_factory=list)
    tokens_read: int = 0
    tokens_generated: int = 0

    @property
    def prompts(self) -> int:
        """How many prompts were asked."""
        return self.outcomes.total()

    @property
    def rate(self) -> Interval:
        """The induction rate: the share of prompts that got a reply judged bad, with its Wilson interval."""
        return wilson(self.outcomes["induced"], self.prompts)

    @property
    def refused(self) -> bool:
        """Whether nothing at all was induced: the normal case for an aligned model."""
        return not self.mistakes


def induce(
    model: Any,
    form: PromptFormat,
    prompts: Sequence[Example],
    judge: Judge,
    wording: MistakeWording,
    *,
    name: str,
    seed: int = 0,
    max_new_tokens: int = 256,
    key: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Induction:
    """Ask every prompt in inducing words until a reply is bad, each time with another inducement, greedily.

    The order of the inducements is drawn for each prompt from `seed`. Refusals are told by the shipped phrases before
    the judge is asked, so that no judge can make a mistake of one; blank and gibberish replies are dropped too. The
    judge is shown the prompt as it was, not in inducing words. `name` is what the mistakes say their model is called;
    `key` is the fingerprint of its weights, by which replies are kept on disk.

    Source: arXiv 2310.10477, section 4 (self-induced mistakes). Differs: the inducements are ours, several are tried,
    and what is no mistake is dropped.
    """
    found = Induction(tried=[Counter() for _ in wording.inducements])
    orders = [_order(row, len(wording.inducements), seed) for row in prompts]
    best: dict[int, Outcome] = {}
    mistakes: dict[int, Mistake] = {}
    for turn in range(len(wording.inducements)):
        waiting = [n for n in range(len(prompts)) if best.get(n) != "induced"]
        asked = [form.prompt_ids(wording.induce(orders[n][turn], prompts[n].turns)) for n in waiting]
        replies = generate_cached(
            model, form.tokenizer, asked, key=key, max_new_tokens=max_new_tokens, progress=progress
        )
        read, written = tokens_of(form.tokenizer, asked, replies)
        found.tokens_read += read
        found.tokens_generated += written
        for n, reply, outcome in zip(waiting, replies, _outcomes(prompts, waiting, replies, judge), strict=True):
            found.tried[orders[n][turn]][outcome] += 1
            before = best.get(n, OUTCOMES[-1])
            best[n] = min(before, outcome, key=OUTCOMES.index)
            if outcome == "induced" or (outcome == "unknown" and n not in mistakes):
                origin = Origin(
                    "induced",
                    name,
                    seed,
                    wording.version,
                    orders[n][turn],
                    judge.name,
                    "bad" if outcome == "induced" else "unknown",
                )
                mistakes[n] = Mistake(replace(prompts[n], reply=reply, bad=None), origin)
    found.outcomes.update(best.values())
    found.mistakes = [mistakes[n] for n in sorted(mistakes)]
    return found


def _order(row: Example, count: int, seed: int) -> list[int]:
    """The order in which a prompt meets the inducements: by its own lot, whatever rows stand around it."""
    return random.Random(f"induce:{seed}:{row.prompt_key}").sample(range(count), count)


def _outcomes(prompts: Sequence[Example], places: Sequence[int], replies: Sequence[str], judge: Judge) -> list[Outcome]:
    outcomes: list[Outcome | None] = [_dropped(reply) for reply in replies]
    open_ = [i for i, outcome in enumerate(outcomes) if outcome is None]
    cases = []
    for i in open_:
        row = prompts[places[i]]
        cases.append(Case(row.prompt, replies[i], bad=row.bad, good=row.good, concept=row.concept))
    words: dict[str, Outcome] = {"bad": "induced", "good": "benign", "unknown": "unknown"}
    for i, verdict in zip(open_, judge(cases) if cases else [], strict=True):
        outcomes[i] = words[verdict]
    return [outcome or "unknown" for outcome in outcomes]


def _dropped(reply: str) -> Outcome | None:
    """What a reply is that no judge needs to see."""
    if blank(reply):
        return "blank"
    if is_refusal(reply):
        return "declined"
    return "gibberish" if gibberish(reply) else None


def told(found: Induction) -> str:
    """Say in one or two sentences how the induction went; for a model that refused, what can be done."""
    rate, low, high = found.rate
    if rate is None or low is None or high is None:
        return "no prompt was asked"
    others = ", ".join(f"{count} {outcome}" for outcome in OUTCOMES[1:] if (count := found.outcomes[outcome]))
    text = f"induction rate {rate:.1%} [{100 * low:.1f}, {100 * high:.1f}] of {found.prompts} prompts"
    text += f" (the others: {others})" if others else ""
    if found.refused:
        text += (
            "; the model will not be induced, which is what one wants of an aligned model: give labelled or reported "
            "mistakes with --mistakes instead, or other inducements with --wording"
        )
    return text
