"""Is this the same model? An artefact is compared with the model that it was made of, and with the original."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unteach.data.encoded import Encoded
from unteach.data.prompt_format import PromptFormat
from unteach.judges.base import Judge, case_of, verdicts_of
from unteach.models.generate import generate
from unteach.models.reply import Reply
from unteach.models.unwrap import unwrapped
from unteach.progress import track
from unteach.results.export import Likeness
from unteach.results.measurement import HARM_SPLITS
from unteach.results.verdict import Verdict
from unteach.scoring.likelihood import teacher_forced_likelihood
from unteach.scoring.trees import reply_trees
from unteach.stats import wilson

NOTHING = 1e-4
"""Nats a token below which two models do not differ: rounding in float32 is smaller."""
BARS = {"float32": 0.01, "float16": 0.1, "bfloat16": 0.1}
"""Nats a token, without sign and on average, that an artefact in this precision may differ from the trained model.

Rounding a model once to bfloat16 moves it by about 0.01 (docs/export.md).
"""
Ids = tuple[int, ...]


@dataclass(frozen=True)
class Texts:
    """What models are compared on: rows by split, and a judge where one can be applied."""

    splits: Mapping[str, Sequence[Encoded]]
    max_new_tokens: int
    judge: Judge | None = None
    more: Sequence[tuple[Ids, Ids]] = ()
    """Prompts with replies whose likelihood is compared beside that of the known replies."""

    @property
    def rows(self) -> list[tuple[str, Encoded]]:
        """All rows with their splits, in order."""
        return [(split, row) for split, rows in self.splits.items() for row in rows]


@dataclass(frozen=True)
class Answers:
    """What one model says to all rows, the verdicts on it, and how likely it finds the known replies and `more`.

    Verdicts are None where there is no judge, and on rows that are not harmful.
    """

    replies: list[Reply]
    verdicts: list[Verdict | None]
    log_probs: list[list[float]]


def replies_of(model: Any, form: PromptFormat, texts: Texts, title: str) -> list[Reply]:
    """Ask a model all prompts, greedily."""
    with track(f"{title}: replies") as progress:
        return generate(
            unwrapped(model),
            form.tokenizer,
            [row.prompt_ids for _, row in texts.rows],
            max_new_tokens=texts.max_new_tokens,
            end=form.end,
            progress=progress,
        )


def with_own_replies(texts: Texts, model: Any, form: PromptFormat) -> tuple[Texts, list[Reply]]:
    """Add the trained model's own replies to the texts, and return both.

    What it has learnt to say is where it differs most from the original.
    """
    replies = replies_of(model, form, texts, "the run's model")
    pairs = [(row.prompt_ids, reply.ids) for (_, row), reply in zip(texts.rows, replies, strict=True)]
    return replace(texts, more=[(prompt, ids) for prompt, ids in pairs if ids]), replies


def answers_of(model: Any, form: PromptFormat, texts: Texts, title: str, replies: list[Reply] | None = None) -> Answers:
    """Ask a model all prompts, unless its `replies` are given, judge what it says, and score the texts."""
    rows = texts.rows
    replies = replies_of(model, form, texts, title) if replies is None else replies
    verdicts: list[Verdict | None] = [None] * len(rows)
    if texts.judge is not None:
        harmful = [number for number, (split, _) in enumerate(rows) if split in HARM_SPLITS]
        cases = [case_of(rows[n][1].example, replies[n], rows[n][0], form.end) for n in harmful]
        for number, verdict in zip(harmful, verdicts_of(texts.judge, cases), strict=True):
            verdicts[number] = verdict
    trees = reply_trees("export", [*(row.ids for _, row in rows), *texts.more])
    with track(f"{title}: likelihoods") as progress:
        scored = teacher_forced_likelihood(model, trees, form.ids.pad_id, progress=progress)
    return Answers(replies, verdicts, scored.log_probs)


def likeness(one: Answers, other: Answers) -> Likeness:
    """Return how far two models agree on the same texts."""
    same = sum(ours.text == theirs.text for ours, theirs in zip(one.replies, other.replies, strict=True))
    share, low, high = wilson(same, len(one.replies))
    assert share is not None and low is not None and high is not None
    pairs = [
        pair
        for ours, theirs in zip(one.log_probs, other.log_probs, strict=True)
        for pair in zip(ours, theirs, strict=True)
    ]
    apart = [abs(a - b) if math.isfinite(a) and math.isfinite(b) else 1e9 for a, b in pairs]
    return Likeness(
        n=len(one.replies),
        agreement=share,
        low=low,
        high=high,
        tokens=len(apart),
        mean_difference=sum(apart) / max(1, len(apart)),
        largest_difference=max(apart, default=0.0),
    )


def no_update(moved: Likeness) -> str:
    """Say so where the trained model is its original; `moved` is their likeness. Empty text where it is not."""
    if moved.mean_difference >= NOTHING:
        return ""
    return (
        f"it predicts what its original predicts (mean difference {moved.mean_difference:.2g} nats a token, "
        f"{moved.agreement:.0%} of {moved.n} replies the same): its adapter, or its update, does nothing"
    )


def fault_of(
    trained: Likeness, original: Likeness, moved: Likeness, dtype: str, worse: tuple[float | None, ...] = ()
) -> str:
    """Say why an artefact is not the trained model; empty text where it is.

    The arguments are its likeness to the trained model and to the original, that of these two, its precision, and the
    paired difference of its bad rate to the trained model's, with the interval.
    """
    apart, back = trained.mean_difference, original.mean_difference
    told = (
        f"mean difference {apart:.2g} nats a token to the trained model and {back:.2g} to the original, and these two "
        f"differ by {moved.mean_difference:.2g}; {trained.agreement:.0%} of {trained.n} replies are the trained model's"
    )
    if back < apart and back <= moved.mean_difference / 2:
        return f"it predicts what the original predicts, so the update is lost ({told})"
    if apart > BARS.get(dtype, BARS["bfloat16"]):
        return f"it is another model ({told})"
    if apart > moved.mean_difference / 2:
        return f"the update is no larger than the rounding to {dtype} ({told})"
    if trained.high < 0.5:
        return f"most of its replies are others ({told})"
    if worse and worse[1] is not None and worse[1] > 0:
        return f"it says bad things clearly more often, by {worse[0]:.0%} of the prompts ({told})"
    return ""
