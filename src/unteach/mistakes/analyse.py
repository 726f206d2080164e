"""Step 2: an analyst, mostly the model itself, is told that a reply may be bad, and says why."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from unteach.data.prompt_format import PromptFormat
from unteach.mistakes.records import Analysis, Mistake
from unteach.mistakes.verdict import read_verdict
from unteach.models.context import context_length
from unteach.models.endpoint import Endpoint
from unteach.models.kept_replies import generate_cached, tokens_of
from unteach.prompts.mistakes import MistakeWording
from unteach.prompts.turn import Turn
from unteach.results.cost import Meter
from unteach.results.report import Cost
from unteach.stats import Interval, wilson
from unteach.text.gibberish import blank, gibberish
from unteach.text.refusals import is_refusal
from unteach.text.words import common_words, words

COPIED = 0.8
"""An analysis is a copy of the reply where at least this share of its words stands in it, in order."""
Progress = Callable[[int, int], None]


class Analyst(Protocol):
    """Whoever answers requests to assess a reply; None where no answer came."""

    name: str

    def __call__(self, requests: Sequence[str], progress: Progress | None = None) -> list[str | None]: ...


class ModelAnalyst:
    """A local model: the one under alignment, as in the paper, or any other. `key` keeps its answers on disk."""

    def __init__(
        self, model: Any, form: PromptFormat, name: str, *, max_new_tokens: int = 256, key: str | None = None
    ) -> None:
        self.name = name
        self._model, self._form, self._key = model, form, key
        self._longest = max_new_tokens
        self.tokens_read, self.tokens_generated = 0, 0

    def __call__(self, requests: Sequence[str], progress: Progress | None = None) -> list[str | None]:
        answers, read, written = _answers(
            self._model, self._form, requests, key=self._key, max_new_tokens=self._longest, progress=progress
        )
        self.tokens_read += read
        self.tokens_generated += written
        return answers

    def cost(self, arm: str, stage: str, meter: Meter) -> Cost:
        """Return what was done since the last bill as one line of cost."""
        cost = meter.cost(self._model, arm, stage, forward=self.tokens_read, generated=self.tokens_generated)
        self.tokens_read, self.tokens_generated = 0, 0
        return cost


def answers_of(
    model: Any,
    form: PromptFormat,
    requests: Sequence[str],
    *,
    key: str | None,
    max_new_tokens: int,
    progress: Progress | None = None,
) -> list[str | None]:
    """Have a model answer requests; None where one fills its context. `key` as in `generate_cached`."""
    return _answers(model, form, requests, key=key, max_new_tokens=max_new_tokens, progress=progress)[0]


def _answers(
    model: Any,
    form: PromptFormat,
    requests: Sequence[str],
    *,
    key: str | None,
    max_new_tokens: int,
    progress: Progress | None,
) -> tuple[list[str | None], int, int]:
    """The answers, and how many tokens were read and written for them."""
    prompts = [form.prompt_ids((Turn("user", request),)) for request in requests]
    room = context_length(model)
    fits = [n for n, prompt in enumerate(prompts) if room is None or len(prompt) < room]
    asked = [prompts[n] for n in fits]
    given = generate_cached(model, form.tokenizer, asked, key=key, max_new_tokens=max_new_tokens, progress=progress)
    answers: list[str | None] = [None] * len(requests)
    for n, answer in zip(fits, given, strict=True):
        answers[n] = answer
    return answers, *tokens_of(form.tokenizer, asked, given)


class EndpointAnalyst:
    """A model behind an OpenAI-compatible endpoint; what it does not answer stays without an analysis.

    `failure` says why it did not give the first answer that is missing.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = f"openai:{endpoint.model}"
        self.failure = ""
        self._endpoint = endpoint

    def __call__(self, requests: Sequence[str], progress: Progress | None = None) -> list[str | None]:
        done = 0

        def arrived(place: int, answer: Any) -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, len(requests))

        asked = [[{"role": "user", "content": request}] for request in requests]
        answers = self._endpoint.ask(asked, arrived)
        self.failure = next((answer.failure for answer in answers if answer.text is None), self.failure)
        return [answer.text for answer in answers]


@dataclass
class Analysed:
    """The analyses that passed the gate, and the mistakes that lost theirs, each with the reason."""

    analyses: list[Analysis] = field(default_factory=list)
    dropped: list[tuple[Mistake, str]] = field(default_factory=list)

    @property
    def reasons(self) -> Counter[str]:
        """How many were dropped, by reason."""
        return Counter(reason for _, reason in self.dropped)

    @property
    def rate(self) -> Interval:
        """The share of mistakes whose analysis was kept, with its Wilson interval."""
        return wilson(len(self.analyses), len(self.analyses) + len(self.dropped))


def analyse(
    analyst: Analyst,
    mistakes: Sequence[Mistake],
    wording: MistakeWording,
    *,
    hint: str = "guided",
    reply_is: Literal["bad", "good"] = "bad",
    progress: Progress | None = None,
) -> Analysed:
    """Have every mistake analysed under a hint, and keep the analyses that are fit to be learnt.

    Dropped is one that did not come, is blank, refuses, is gibberish or a copy of the reply, or whose verdict is not
    what the replies are. `reply_is` "good" has good replies analysed in the same words: learnt beside the others, they
    keep the model from calling everything bad. Source: arXiv 2310.10477, section 4 (guided analysis). Differs: the gate
    and the analyses of good replies are ours.
    """
    requests = [wording.assess(hint, m.example.prompt, m.example.reply) for m in mistakes]
    found = Analysed()
    for mistake, text in zip(mistakes, analyst(requests, progress), strict=True):
        reason = why_unfit(text, mistake.example.reply, reply_is)
        if reason is None and text is not None:
            found.analyses.append(Analysis(mistake, text.strip(), analyst.name, wording.version, reply_is))
        else:
            found.dropped.append((mistake, reason or "no answer"))
    return found


def why_unfit(text: str | None, reply: str, reply_is: Literal["bad", "good"] = "bad") -> str | None:
    """Return why an analysis is not to be learnt, or None for one that is fit."""
    if text is None:
        return "no answer"
    if blank(text):
        return "blank"
    if is_refusal(text):
        return "refusal"
    if gibberish(text):
        return "gibberish"
    if common_words(text, reply) >= COPIED * len(words(text)):
        return "copy of the reply"
    verdict = read_verdict(text)
    if verdict is None:
        return "no verdict"
    return None if verdict == reply_is else f"calls the reply {verdict}"


def told(found: Analysed) -> str:
    """Say in a sentence how many analyses were kept, and why the others were not."""
    count = len(found.analyses) + len(found.dropped)
    rate, low, high = found.rate
    if rate is None or low is None or high is None:
        return "there was no mistake to analyse"
    text = f"{len(found.analyses)} of {count} analyses kept, {rate:.1%} [{100 * low:.1f}, {100 * high:.1f}]"
    reasons = ", ".join(f"{number} {reason}" for reason, number in found.reasons.most_common())
    return f"{text} (dropped: {reasons})" if reasons else text
