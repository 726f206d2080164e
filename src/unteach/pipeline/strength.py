"""Choose how strongly a finished update is applied: the stage between training and evaluating."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.models.generate import generate
from unteach.models.kept_replies import tokens_of
from unteach.models.unwrap import unwrapped
from unteach.pipeline.config import RunConfig
from unteach.pipeline.prepare import Prepared
from unteach.pipeline.rows import language_of_rows
from unteach.progress import track
from unteach.prompts.lists import validation_prompts
from unteach.prompts.turn import Turn
from unteach.results.cost import Meter
from unteach.results.report import Cost
from unteach.results.strength import AUTO, Strength, StrengthPoint
from unteach.text.refusals import before_breaking_off, declines
from unteach.training.original import validation_rows
from unteach.training.strength import Budgets, search
from unteach.training.trainer import UnlearnTrainer
from unteach.training.update import Update
from unteach.training.validation import behaviour_of, kl_on

AS_TRAINED = ("", "1")
"""Settings of --strength that leave the update as it is."""
MOST_PROMPTS = 64
"""Prompts of each kind that are asked at every scale."""
DECIDING_TOKENS = 24
"""Longest reply to them where the judge looks for refusals, tokens: these stand at a reply's beginning."""


@dataclass(frozen=True)
class Asked:
    """What is asked at every scale: prompts of negatives, harmless prompts that sound harmful, normal rows for the KL.

    `lookalikes` are token ids. `most` is the longest reply in tokens.
    """

    negatives: Sequence[Encoded]
    lookalikes: Sequence[tuple[int, ...]]
    most: int


class Weights:
    """The weights of a model before training, from which its update is made afterwards."""

    def __init__(self, config: RunConfig, model: Any) -> None:
        self._before = None
        if config.strength not in AS_TRAINED and not config.lora:
            named = unwrapped(model).named_parameters()
            self._before = {name: weight.detach().clone() for name, weight in named}

    def update(self, model: Any) -> Update:
        """Return what training has changed in a model, or in its adapter."""
        if self._before is None:
            return Update.of_adapter(model)
        after = dict(unwrapped(model).named_parameters())
        return Update.of(self._before, after)


def apply_strength(trainer: UnlearnTrainer, prepared: Prepared, before: Weights) -> tuple[Strength | None, list[Cost]]:
    """Apply the update of a run that has ended at the scale that its settings ask for, or at the one that is found.

    Leaves the model as trained where that is 1. Returns what was found, where a scale was searched for, and its cost.
    """
    asked, model = prepared.config.strength, trainer.model
    if asked in AS_TRAINED:
        return None, []
    update = before.update(model)
    if asked != AUTO:
        update.apply(model, float(asked))
        return None, []
    meter = Meter()
    with track("strength") as progress:
        scales: list[float] = []

        def measure(scale: float) -> StrengthPoint:
            update.apply(model, scale)
            scales.append(scale)
            if progress:
                progress(len(scales), max(len(scales), 8))
            return _measured(trainer, prepared, what, scale, meter)

        what = what_to_ask(prepared)
        config = prepared.config
        budgets = Budgets(config.target_rate, config.kl_budget, config.broken_limit, config.declined_limit)
        found = search(measure, budgets)
    update.apply(model, found.scale)
    return found, [meter.cost(model, "unlearned", "searching the strength")]


def what_to_ask(prepared: Prepared) -> Asked:
    """Return what to ask at every scale: rows that were held out to validate on and, on harm, prompts of ours."""
    config, form, data = prepared.config, prepared.original.form, prepared.data
    negatives = list(data.validation_negatives)[:MOST_PROMPTS]
    by_refusal = config.judge[:1] == ["complies"]
    most = prepared.arguments.validation_new_tokens
    if not by_refusal:
        return Asked(negatives, (), most)
    language = language_of_rows([row.example for row in negatives])
    harmful, lookalikes = (prompts[:MOST_PROMPTS] for prompts in validation_prompts(language))
    for prompt in harmful if config.harmful_share else ():
        ids = tuple(form.prompt_ids((Turn("user", prompt),)))
        negatives.append(Encoded(Example.of(prompt, ""), ids, (), False))
    alike = lookalikes if config.lookalike_share else ()
    asked = [tuple(form.prompt_ids((Turn("user", prompt),))) for prompt in alike]
    return Asked(negatives, asked, min(most, DECIDING_TOKENS))


def _measured(trainer: UnlearnTrainer, prepared: Prepared, asked: Asked, scale: float, meter: Meter) -> StrengthPoint:
    """Ask a model everything, with its update at a scale, and count the cost."""
    model, form, config = trainer.model, prepared.original.form, prepared.config
    seen = behaviour_of(model, form, asked.negatives, prepared.evaluation.judges[0], asked.most)
    meter.add(forward=seen.read, generated=seen.said)
    alike = asked.lookalikes
    replies = generate(unwrapped(model), form.tokenizer, alike, max_new_tokens=asked.most, end=form.end)
    read, said_tokens = tokens_of(alike, replies)
    meter.add(forward=read, generated=said_tokens)
    told = [reply.text for reply in replies]
    rows, reference, kl = validation_rows(prepared.data), trainer.reference, None
    if rows and reference is not None and reference.knows(rows):
        kl = kl_on(model, rows, reference, form.ids.pad_id)
        meter.add(forward=sum(row.tokens for row in rows))
    return StrengthPoint(
        scale=scale,
        bad=seen.bad,
        judged=seen.judged,
        asked=seen.n,
        broken=seen.broken_share,
        declined=sum(declines(said) or before_breaking_off(said, config.template) is not None for said in told),
        lookalikes=len(replies),
        kl=kl,
    )
