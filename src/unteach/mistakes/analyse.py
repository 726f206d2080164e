"""Step 2: an analyst, mostly the model itself, is told that a reply may be bad, and says why."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from unteach.mistakes.ask import ask
from unteach.mistakes.gate import first_part, why_unfit, without_rest
from unteach.mistakes.records import Analysis, Mistake
from unteach.models.endpoint import Endpoint
from unteach.models.ranks import on_first_rank
from unteach.pipeline.original import Original
from unteach.progress import OnProgress
from unteach.prompts.mistakes import MistakeWording
from unteach.prompts.turn import Turn
from unteach.results.cost import Meter
from unteach.results.report import Cost
from unteach.stats import Interval, wilson

OPENED = 48
"""Most tokens that are written after an opening: the rest of its sentence is all that is kept."""


class Analyst(Protocol):
    """Whoever answers requests to assess a reply; None where no answer came.

    `takes_openings` says whether an answer can be made to begin with an `opening`, which is then part of it.
    """

    name: str
    takes_openings: bool

    def __call__(
        self, requests: Sequence[str], progress: OnProgress | None = None, opening: str = ""
    ) -> list[str | None]: ...


class ModelAnalyst:
    """A local model: the one under alignment, as in the paper, or another that no training changes."""

    failure = ""

    def __init__(self, original: Original, max_new_tokens: int) -> None:
        self.name = original.name
        self._original, self._longest = original, max_new_tokens
        self._tokens: Counter[str] = Counter()
        form = original.form
        # Text completers go on from anything, and a prompt that ends inside a thought has no place for an opening.
        self.takes_openings = form.name == "chat" and not form.end.in_thought

    def __call__(
        self, requests: Sequence[str], progress: OnProgress | None = None, opening: str = ""
    ) -> list[str | None]:
        dialogues = [(Turn("user", request),) for request in requests]
        model, form, key = self._original.model, self._original.form, self._original.key
        longest = min(self._longest, OPENED) if opening else self._longest
        answers = ask(model, form, dialogues, key=key, max_new_tokens=longest, opening=opening, progress=progress)
        self._tokens += answers.tokens
        return [None if reply is None else without_rest(reply.text, reply.cut) for reply in answers.replies]

    def cost(self, stage: str, meter: Meter) -> Cost:
        """Return the cost of everything since the last call."""
        tokens, self._tokens = self._tokens, Counter()
        return meter.cost(self._original.model, "original", stage, **tokens)


class EndpointAnalyst:
    """A model behind an OpenAI-compatible endpoint. `failure` says why the first missing answer did not come."""

    takes_openings = False

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = f"openai:{endpoint.model}"
        self.failure = ""
        self._endpoint = endpoint

    def __call__(
        self, requests: Sequence[str], progress: OnProgress | None = None, opening: str = ""
    ) -> list[str | None]:
        done = 0

        def count(place: int, answer: Any) -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, len(requests))

        put = [[{"role": "user", "content": request}] for request in requests]
        answers = on_first_rank(self._endpoint.ask, put, count)
        self.failure = next((answer.failure for answer in answers if answer.text is None), self.failure)
        return [answer.text for answer in answers]

    def cost(self, stage: str, meter: Meter) -> Cost:
        """Return the time, which is all that is known."""
        return Cost(arm="original", stage=stage, wall_seconds=meter.seconds)


@dataclass(frozen=True)
class Analysed:
    """The analyses that passed the gate, and the mistakes whose analysis did not, each with the reason."""

    analyses: Sequence[Analysis] = ()
    dropped: Sequence[tuple[Mistake, str]] = ()

    @property
    def reasons(self) -> Counter[str]:
        """How many were dropped, by reason."""
        return Counter(reason for _, reason in self.dropped)

    @property
    def rate(self) -> Interval:
        """The share of mistakes whose analysis was kept, with its Wilson interval."""
        return wilson(len(self.analyses), len(self.analyses) + len(self.dropped))

    def __str__(self) -> str:
        rate, low, high = self.rate
        if rate is None or low is None or high is None:
            return "there was no mistake to analyse"
        count = len(self.analyses) + len(self.dropped)
        text = f"{len(self.analyses)} of {count} analyses kept, {rate:.1%} [{100 * low:.1f}, {100 * high:.1f}]"
        reasons = ", ".join(f"{number} {reason}" for reason, number in self.reasons.most_common())
        return f"{text} (dropped: {reasons})" if reasons else text


def analyse(
    analyst: Analyst,
    mistakes: Sequence[Mistake],
    wording: MistakeWording,
    *,
    hint: str = "guided",
    reply_is: Literal["bad", "good"] = "bad",
    openings: bool = True,
    progress: OnProgress | None = None,
) -> Analysed:
    """Have every mistake analysed under a hint, and keep the analyses that are fit to be learnt.

    `reply_is` "good" has good replies analysed in the same words: learnt beside the others, they keep the model from
    calling everything bad. With `openings`, an analyst that takes them is given the verdict as the beginning of its
    answer, with one opening after the other until an analysis is fit; not where nobody could say that a reply is bad.
    Source: arXiv 2310.10477, section 4 (guided analysis). Differs: the gate, the openings and the analyses of good
    replies are ours.
    """
    known = (wording.openings(reply_is) if openings and analyst.takes_openings else ()) or ("",)
    fit: dict[int, Analysis] = {}
    reasons: dict[int, str] = {}
    asked = wording.assess(hint, "", "")
    for opening in dict.fromkeys((*known, "")):
        begun = [opening in (known if mistake.origin.verdict != "unknown" else ("",)) for mistake in mistakes]
        left = [n for n in range(len(mistakes)) if begun[n] and n not in fit]
        examples = [mistakes[n].example for n in left]
        requests = [wording.assess(hint, example.prompt, example.reply) for example in examples]
        texts = analyst(requests, progress, opening) if requests else []
        for n, example, text in zip(left, examples, texts, strict=True):
            said = None if text is None else first_part(text, opening)
            reason = why_unfit(said, example.prompt, example.reply, reply_is, asked)
            if said is not None and reason is None:
                fit[n] = Analysis(mistakes[n], said, analyst.name, wording.version, reply_is)
            else:
                reasons[n] = reason or "no answer"
    dropped = [(mistakes[n], reasons[n]) for n in range(len(mistakes)) if n not in fit]
    return Analysed([fit[n] for n in sorted(fit)], dropped)
