"""Evaluate a model that a server answers for: what its replies tell, which is less than weights do."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.data.prompt_format import TemplateSettings
from unteach.errors import ConfigError
from unteach.evaluation.evaluation import SERVED, Evaluation
from unteach.judges.base import case_of, verdicts_of
from unteach.models.endpoint import Answer, Endpoint, Messages
from unteach.models.reply import THOUGHT_MARKS, Reply, ReplyEnd
from unteach.progress import track
from unteach.prompts.turn import Turn
from unteach.results.arm_result import ArmResult
from unteach.results.cost import Meter
from unteach.results.report import Cost
from unteach.text.escape import inert_line

LACKING = (
    "not measured, because a chat endpoint gives replies alone: all that needs the likelihood of a known reply (kl, "
    "nll, right_nll, truth_ratio, extraction, min_k, loss_mia, ks_to_retrained); fluency, which the original must "
    "score; reply_tokens, since every server counts its own. unteach evaluate --model DIR measures these on the weights"
)


@dataclass(frozen=True)
class ServedFormat:
    """The prompt format of a server: messages go to it, and it applies a chat template that is not known here."""

    settings: TemplateSettings
    name: str = SERVED
    tokenizer: Any = None
    ids: Any = None
    end: ReplyEnd = field(default_factory=lambda: ReplyEnd(frozenset(), thought=THOUGHT_MARKS[0]))

    def prompt_ids(self, turns: Sequence[Turn]) -> list[int]:
        """Return nothing: the tokens of a prompt are the server's."""
        return []

    def reply_ids(self, turns: Sequence[Turn], reply: str, cut: bool = False) -> list[int]:
        """Return nothing, likewise."""
        return []

    def messages(self, turns: Sequence[Turn]) -> Messages:
        """Return a dialogue as the messages that are sent."""
        return [{"role": turn.role, "content": turn.content} for turn in self.settings.turns(turns)]


def as_asked(rows: Sequence[Example]) -> list[Encoded]:
    """Return rows for an evaluation without tokens."""
    return [Encoded(row, (), (), row.cut) for row in rows]


def evaluate_served(evaluation: Evaluation, arm: str, endpoint: Endpoint, form: ServedFormat) -> list[str]:
    """Ask a server every prompt of all splits, judge the replies and add them as an arm; returns notes.

    A prompt without an answer is unknown, as is a reply that was cut inside a thought. Raises ConfigError where the
    first prompt brings no answer, such as for a server that is not there or does not know the model.
    """
    rows = [(split, row) for split, listed in evaluation.splits.items() for row in listed]
    meter = Meter()
    answers = _ask(endpoint, [form.messages(row.example.turns) for _, row in rows])
    results: dict[str, ArmResult] = {}
    for split, listed in evaluation.splits.items():
        mine = [answer for (of, _), answer in zip(rows, answers, strict=True) if of == split]
        replies = [_reply_of(answer, form.end) for answer in mine]
        cases = [case_of(row.example, said, split, form.end) for row, said in zip(listed, replies, strict=True)]
        results[split] = ArmResult(
            arm,
            split,
            cases,
            verdicts_of(evaluation.judges[0], cases),
            None,
            other_verdicts={judge.name: verdicts_of(judge, cases) for judge in evaluation.judges[1:]},
            scenario=evaluation.scenario,
            template=evaluation.template,
            generations=1,
        )
    evaluation.results[arm] = results
    evaluation.cost.append(Cost(arm=arm, stage="evaluation", wall_seconds=meter.seconds))
    return [LACKING, *_notes(endpoint, answers)]


def _ask(endpoint: Endpoint, conversations: Sequence[Messages]) -> list[Answer]:
    """Return an answer to each conversation. Raises ConfigError where the first one gets none."""
    shown = inert_line(endpoint.model, 80)
    with track(f"asking {shown}") as progress:
        first = replace(endpoint, attempts=2).ask(conversations[:1])
        if first[0].text is None:
            raise ConfigError(
                f"--endpoint {endpoint.base}: no answer of the model {shown} ({first[0].failure}); check that the "
                "server is up, the address, and --model"
            )
        done = [1]

        def arrived(place: int, answer: Answer) -> None:
            done[0] += 1
            if progress:
                progress(done[0], len(conversations))

        return [*first, *endpoint.ask(conversations[1:], arrived)]


def _reply_of(answer: Answer, end: ReplyEnd) -> Reply:
    """Return what a server's answer says; one that never came is unsaid."""
    if answer.text is None:
        return Reply("", (), True, "", unsaid=True)
    assert end.thought is not None
    said = end.said(answer.text, answer.cut)
    inside = answer.cut and not said and end.thought[0] in answer.text and end.thought[1] not in answer.text
    return Reply(said, (), answer.cut, answer.text.strip(), unsaid=inside)


def _notes(endpoint: Endpoint, answers: Sequence[Answer]) -> list[str]:
    """Say which prompts have no answer and why, how many replies are empty, and what the server calls its model."""
    notes = [f"asked {endpoint.base} for the model {inert_line(endpoint.model, 200)}, at temperature 0"]
    failed = Counter(answer.failure for answer in answers if answer.text is None)
    if failed:
        reasons = "; ".join(f"{count} × {inert_line(reason, 200)}" for reason, count in failed.most_common(5))
        notes.append(f"{failed.total()} of {len(answers)} prompts have no answer and count as unknown: {reasons}")
    empty = sum(answer.text is not None and not answer.text.strip() for answer in answers)
    if empty:
        notes.append(
            f"{empty} of {len(answers)} answers are empty: this is what the model says, or the server takes a part of "
            "its replies for something else (a thought, a tool call)"
        )
    called = {answer.model for answer in answers if answer.model} - {endpoint.model}
    if called:
        names = ", ".join(inert_line(name, 80) for name in sorted(called)[:3])
        notes.append(f"the server says that it answered with {names}; some servers answer for any name")
    return notes
