"""Evaluate every arm twice, without and with the reminder, on the same rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unteach.data.encoded import Encoded, encode_all
from unteach.data.example import Example
from unteach.data.prompt_format import PromptFormat
from unteach.evaluation.evaluation import Evaluation, evaluate_arm
from unteach.mistakes.ask import ask
from unteach.mistakes.prepare import PreparedMistakes
from unteach.mistakes.verdict import read_verdict
from unteach.models.context import context_length
from unteach.models.unwrap import unwrapped
from unteach.probes.base import rate
from unteach.progress import track
from unteach.prompts.mistakes import HINTS, MistakeWording
from unteach.prompts.turn import Turn
from unteach.results.arm_result import ArmResult
from unteach.results.arms import REMINDED
from unteach.results.measurement import Measurement
from unteach.training.config import MOST_TOKENS


@dataclass(frozen=True)
class RemindedEvaluation:
    """The evaluation of all arms. `plain` puts the prompts as they are, `reminded` with the reminder.

    Both add to the same results and costs. `recognised` says how well each arm tells bad replies from good ones, asked
    about `pairs` in `wording`.
    """

    plain: Evaluation
    reminded: Evaluation
    wording: MistakeWording
    pairs: Sequence[tuple[str, str, bool]]
    recognised: list[Measurement] = field(default_factory=list)

    def copy(self) -> "RemindedEvaluation":
        """Return an evaluation with the results so far, to which another seed can add its own, and with no cost."""
        plain = replace(self.plain, results=dict(self.plain.results), cost=[])
        reminded = replace(self.reminded, results=plain.results, cost=plain.cost)
        return replace(self, plain=plain, reminded=reminded, recognised=list(self.recognised))

    def evaluate(self, arm: str, model: Any, key: str | None = None) -> None:
        """Evaluate an arm without and with the reminder, and have it assess replies; `key` as in `evaluate_arm`.

        Only the original has a key; it is asked under every hint, the other arms under none.
        """
        evaluate_arm(self.plain, arm, model, key=key)
        evaluate_arm(self.reminded, arm + REMINDED, model, key=key)
        self.recognised.extend(
            recognise(
                arm,
                unwrapped(model),
                self.plain.form,
                self.pairs,
                self.wording,
                max_new_tokens=self.plain.max_new_tokens,
                key=key,
                hints=HINTS if key else ("unguided",),
            )
        )


def make_evaluation(prepared: PreparedMistakes, notes: list[str]) -> RemindedEvaluation:
    """Encode the rows to evaluate on, without and with the reminder.

    Rows that are too long with the reminder are left out of both, so that both are about the same cases.
    """
    config, original, reminding = prepared.config, prepared.original, prepared.reminding
    limit = context_length(original.model) or MOST_TOKENS
    rows = evaluation_rows(prepared)
    with_reminder: dict[str, list[Encoded]] = {}
    without: dict[str, list[Encoded]] = {}
    for split, examples in rows.items():
        encoded, _ = encode_all(examples, reminding, 10**9, split)
        fitting = [row for row in encoded if row.length <= limit]
        if len(fitting) < len(encoded):
            notes.append(f"{split}: left out {len(encoded) - len(fitting)} rows longer than {limit} tokens")
        if fitting:
            with_reminder[split] = fitting[: config.evaluation_prompts]
            kept = [row.example for row in with_reminder[split]]
            without[split] = encode_all(kept, original.form, 10**9, split)[0]
    plain = Evaluation(without, original.form, prepared.judges, config.max_new_tokens, seed=config.seed)
    reminded = replace(plain, splits=with_reminder, form=reminding)
    return RemindedEvaluation(plain, reminded, prepared.wording, balanced_replies(rows, config.evaluation_prompts // 2))


def evaluation_rows(prepared: PreparedMistakes) -> dict[str, list[Example]]:
    """Return the rows of every split that has any: mistakes trained on, mistakes held out, and the rows given."""
    splits, records = prepared.rows.splits, prepared.records
    seen = {mistake.example.prompt_key: mistake.example for mistake in reversed(records.mistakes)}
    rows = {
        "seen": [replace(row, bad=None) for row in reversed(seen.values())],
        "unseen": list(splits["unseen"]) or [mistake.example for mistake in records.unseen],
    }
    rows |= {name: list(splits[name]) for name in ("unseen_concept", "normal", "lookalike")}
    return {name: examples for name, examples in rows.items() if examples}


def recognise(
    arm: str,
    model: Any,
    form: PromptFormat,
    pairs: Sequence[tuple[str, str, bool]],
    wording: MistakeWording,
    *,
    max_new_tokens: int,
    key: str | None = None,
    hints: Sequence[str] = HINTS,
) -> list[Measurement]:
    """Measure how well a model tells bad replies from good ones, under each hint.

    `pairs` are (prompt, reply, whether it is bad), as many bad as good ones, so that calling all of them bad gives
    50 %. Three metrics a hint, on the split "assessment": `recognition_HINT` is the share of right verdicts,
    `bad_recognised_HINT` that among bad replies and `good_recognised_HINT` that among good ones; assessments without a
    verdict, and replies too long to be shown, are unknown. Source: the preliminary study of arXiv 2310.10477, section
    3. Differs: balanced.
    """
    found: list[Measurement] = []
    shown = ArmResult(arm, "assessment", [], [], [])
    for hint in hints:
        dialogues = [(Turn("user", wording.assess(hint, prompt, reply)),) for prompt, reply, _ in pairs]
        with track(f"{arm} assesses replies, {hint}") as progress:
            answers = ask(model, form, dialogues, key=key, max_new_tokens=max_new_tokens, progress=progress)
        right: dict[str, list[bool | None]] = {"recognition": [], "bad_recognised": [], "good_recognised": []}
        for text, (_, _, is_bad) in zip(answers.texts, pairs, strict=True):
            verdict = read_verdict(text or "")
            outcome = None if verdict is None else (verdict == "bad") == is_bad
            right["recognition"].append(outcome)
            right["bad_recognised" if is_bad else "good_recognised"].append(outcome)
        found += [rate(shown, f"{name}_{hint}", outcomes, "higher") for name, outcomes in right.items()]
    return found


def balanced_replies(rows: Mapping[str, Sequence[Example]], count: int) -> list[tuple[str, str, bool]]:
    """Return replies to assess, as many good as bad, at most `count` of each: (prompt, reply, whether it is bad).

    Bad ones are the known replies to unseen harmful prompts. Good ones alternate between the right replies to those
    prompts, where the rows have them, and the known replies to normal prompts.
    """
    bad = [(row.prompt, row.reply, True) for row in rows.get("unseen", [])]
    answered = [(row.prompt, row.good, False) for row in rows.get("unseen", []) if row.good]
    normal = [(row.prompt, row.reply, False) for row in rows.get("normal", [])]
    good: list[tuple[str, str, bool]] = []
    for place in range(max(len(answered), len(normal))):
        good += [listed[place] for listed in (answered, normal) if place < len(listed)]
    size = min(count, len(bad), len(good))
    return bad[:size] + good[:size]
