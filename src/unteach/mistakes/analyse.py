"""Step 2: an analyst, mostly the model itself, is told that a reply may be bad, and says why."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from unteach.mistakes.ask import ask
from unteach.mistakes.records import Analysis, Mistake
from unteach.mistakes.verdict import read_verdict
from unteach.models.endpoint import Endpoint
from unteach.pipeline.original import Original
from unteach.progress import OnProgress
from unteach.prompts.mistakes import MistakeWording
from unteach.prompts.turn import Turn
from unteach.results.cost import Meter
from unteach.results.report import Cost
from unteach.stats import Interval, wilson
from unteach.text.gibberish import blank, gibberish
from unteach.text.refusals import refusal_of
from unteach.text.words import repeated_share

COPIED = 0.8
"""An analysis is a copy of the reply if at least this share of its words stands in the reply, in order."""


class Analyst(Protocol):
    """Whoever answers requests to assess a reply; None where no answer came."""

    name: str

    def __call__(self, requests: Sequence[str], progress: OnProgress | None = None) -> list[str | None]: ...


class ModelAnalyst:
    """A local model: the one under alignment, as in the paper, or another that no training changes."""

    failure = ""

    def __init__(self, original: Original, max_new_tokens: int) -> None:
        self.name = original.name
        self._original, self._longest = original, max_new_tokens
        self._tokens: Counter[str] = Counter()

    def __call__(self, requests: Sequence[str], progress: OnProgress | None = None) -> list[str | None]:
        dialogues = [(Turn("user", request),) for request in requests]
        model, form, key = self._original.model, self._original.form, self._original.key
        answers = ask(model, form, dialogues, key=key, max_new_tokens=self._longest, progress=progress)
        self._tokens += answers.tokens
        return answers.texts

    def cost(self, stage: str, meter: Meter) -> Cost:
        """Return the cost of everything since the last call."""
        tokens, self._tokens = self._tokens, Counter()
        return meter.cost(self._original.model, "original", stage, **tokens)


class EndpointAnalyst:
    """A model behind an OpenAI-compatible endpoint. `failure` says why the first missing answer did not come."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = f"openai:{endpoint.model}"
        self.failure = ""
        self._endpoint = endpoint

    def __call__(self, requests: Sequence[str], progress: OnProgress | None = None) -> list[str | None]:
        done = 0

        def count(place: int, answer: Any) -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, len(requests))

        answers = self._endpoint.ask([[{"role": "user", "content": request}] for request in requests], count)
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
    progress: OnProgress | None = None,
) -> Analysed:
    """Have every mistake analysed under a hint, and keep the analyses that are fit to be learnt.

    `reply_is` "good" has good replies analysed in the same words: learnt beside the others, they keep the model from
    calling everything bad. Source: arXiv 2310.10477, section 4 (guided analysis). Differs: the gate (`why_unfit`) and
    the analyses of good replies are ours.
    """
    requests = [wording.assess(hint, mistake.example.prompt, mistake.example.reply) for mistake in mistakes]
    kept, dropped = [], []
    for mistake, text in zip(mistakes, analyst(requests, progress), strict=True):
        reason = why_unfit(text, mistake.example.reply, reply_is)
        if reason is None and text is not None:
            kept.append(Analysis(mistake, text.strip(), analyst.name, wording.version, reply_is))
        else:
            dropped.append((mistake, reason or "no answer"))
    return Analysed(kept, dropped)


def why_unfit(text: str | None, reply: str, reply_is: Literal["bad", "good"] = "bad") -> str | None:
    """Return why an analysis should not be learnt; None if it is fit.

    It is unfit if it did not come, is blank, refuses, is gibberish, copies the reply, or has another verdict than
    `reply_is` or none.
    """
    if text is None:
        return "no answer"
    if blank(text):
        return "blank"
    if refusal_of(text) == "full":
        return "refusal"
    if gibberish(text):
        return "gibberish"
    if repeated_share(reply, text) >= COPIED:
        return "copy of the reply"
    verdict = read_verdict(text)
    if verdict is None:
        return "no verdict"
    return None if verdict == reply_is else f"calls the reply {verdict}"
