"""The steps that need no training: mistakes from prompts and labels, analyses from mistakes."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from unteach.data.example import Example
from unteach.data.own_answers import numbered
from unteach.errors import ConfigError
from unteach.mistakes.analyse import Analysed, EndpointAnalyst, ModelAnalyst, analyse
from unteach.mistakes.induce import Induction, induce
from unteach.mistakes.prepare import PreparedMistakes
from unteach.mistakes.records import Analysis, Mistake, MistakeSource, Records, read_analyses
from unteach.mistakes.rows import drawn
from unteach.mistakes.verdict import read_verdict
from unteach.models.context import context_length
from unteach.models.endpoint import Endpoint, chat_address, key_from_environment
from unteach.pipeline.original import load_original
from unteach.progress import track
from unteach.prompts.lists import harmful_prompts
from unteach.prompts.mistakes import as_asked
from unteach.results.cost import Meter
from unteach.results.report import Cost


def find_mistakes(prepared: PreparedMistakes) -> Records:
    """Step 1: induce mistakes on the prompts, and add those that were labelled and reported.

    Prompts that fill the context are left out. Raises ConfigError where nothing was given, and where nothing was
    induced and no mistake was given.
    """
    rows = prepared.rows
    if not (rows.prompts or rows.labelled):
        raise ConfigError(
            "there is nothing to learn from: give --prompts, --mistakes or --reports, or --analyses to `unteach "
            "mistakes tune`"
        )
    notes: list[str] = []
    cost: list[Cost] = []
    prompts = _fitting(prepared, rows.prompts, notes)
    unseen_prompts = _fitting(prepared, rows.unseen_prompts, notes)
    mistakes, unseen = list(rows.labelled), list(rows.unseen_mistakes)
    if prompts:
        induction = _induce(prepared, prompts, "inducing mistakes", cost)
        mistakes = [*induction.mistakes, *mistakes]
        notes.append(f"induced: {induction}")
    if unseen_prompts:
        known = {mistake.example.prompt_key for mistake in unseen}
        induced = _induce(prepared, unseen_prompts, "inducing on held-out prompts", cost).mistakes
        unseen += [mistake for mistake in induced if mistake.example.prompt_key not in known]
        if not_induced := len(unseen_prompts) - len(induced):
            notes.append(
                f"{not_induced} of {len(unseen_prompts)} held-out prompts were not induced either: they have no known "
                "bad reply and are not among the unseen prompts, whose rates are therefore of inducible prompts"
            )
    if not mistakes:
        raise ConfigError(
            "no mistake was induced and none was given: the model refuses, as it should, or the judge finds nothing "
            "bad; give labelled mistakes (--mistakes), user reports (--reports), other inducements (--wording) or "
            "another --judge"
        )
    return Records(mistakes, unseen, notes=notes, cost=cost)


def collect(prepared: PreparedMistakes) -> Records:
    """Ask the model the prompts as they stand, or the shipped harmful ones where there are none, and keep its bad
    replies. Raises ConfigError where no reply is bad.
    """
    prepared = replace(prepared, wording=as_asked())
    notes: list[str] = []
    cost: list[Cost] = []
    shipped = [Example.of(prompt, "", where=where) for prompt, where in numbered("prompt", harmful_prompts())]
    prompts = _fitting(prepared, prepared.rows.prompts or drawn(shipped, prepared.config), notes)
    collected = _induce(prepared, prompts, "collecting bad replies", cost, "collected")
    if not collected.mistakes:
        raise ConfigError(f"the model gave no bad reply ({collected}); ask other --prompts, or another --judge")
    return Records(collected.mistakes, notes=[*notes, str(collected)], cost=cost)


def _fitting(prepared: PreparedMistakes, prompts: Sequence[Example], notes: list[str]) -> Sequence[Example]:
    """Leave out prompts that fill the model's context in the words of some inducement, and note it."""
    form, wording, room = prepared.original.form, prepared.wording, context_length(prepared.original.model)
    if room is None:
        return prompts
    numbers = range(len(wording.inducements))
    longest = [max(len(form.prompt_ids(wording.induce(n, row.turns))) for n in numbers) for row in prompts]
    left_out = [row for row, length in zip(prompts, longest, strict=True) if length >= room]
    if left_out:
        notes.append(
            f"prompts: left out {len(left_out)} that fill the model's context of {room} tokens in inducing "
            f"words (first: {left_out[0].where or 'row 1'})"
        )
    return [row for row, length in zip(prompts, longest, strict=True) if length < room]


def _induce(
    prepared: PreparedMistakes,
    prompts: Sequence[Example],
    title: str,
    cost: list[Cost],
    source: MistakeSource = "induced",
) -> Induction:
    config, original, meter = prepared.config, prepared.original, Meter()
    with track(title) as progress:
        induction = induce(
            original,
            prompts,
            prepared.judges[0],
            prepared.wording,
            seed=config.seed,
            max_new_tokens=config.max_new_tokens,
            source=source,
            progress=progress,
        )
    cost.append(meter.cost(original.model, "original", title, **induction.tokens))
    return induction


def make_analyst(prepared: PreparedMistakes) -> ModelAnalyst | EndpointAnalyst:
    """Return who analyses: the model itself, another local model, or an endpoint. Raises ConfigError and ModelError."""
    config, name = prepared.config, prepared.config.analyst
    if name is not None and name.startswith("openai:"):
        address = chat_address(config.analyst_url, "--analyst-url")
        model = name.removeprefix("openai:")
        if not model:
            raise ConfigError("--analyst openai: names no model; write openai:MODEL")
        return EndpointAnalyst(Endpoint(address, model, key_from_environment(), longest=config.max_new_tokens))
    own = config.model_copy(
        update={"prompt_format": "auto", "load_in_4bit": False, "template_arg": {}, "template_date": None}
    )
    return ModelAnalyst(prepared.original if name is None else load_original(own, name), config.max_new_tokens)


def find_analyses(prepared: PreparedMistakes, analyst: ModelAnalyst | EndpointAnalyst) -> Records:
    """Step 2: have the mistakes analysed with guidance, and keep what passes the gate.

    Of the good replies, as many are analysed as `good_per_analysis` asks for. Raises ConfigError where no analysis of a
    mistake passes.
    """
    config, records, good_replies = prepared.config, prepared.records, prepared.rows.good_replies
    analysed, cost = _analyse(prepared, analyst, records.mistakes, "analysing mistakes")
    sources = Counter(analysis.mistake.origin.source for analysis in analysed.analyses).most_common()
    by_source = ", ".join(f"{count} {source}" for source, count in sources)
    given = config.openings and analyst.takes_openings
    said = str(analysed) + ("; begun with the verdict, where it was known" if given else "")
    said += f"; the endpoint failed: {analyst.failure}" if analyst.failure else ""
    if not analysed.analyses:
        raise ConfigError(
            f"no analysis by {analyst.name} was fit to learn from ({said}); name a more "
            "capable --analyst, a model or openai:MODEL, or write analyses by hand (docs/mistakes.md)"
        )
    records = replace(
        records,
        analyses=analysed.analyses,
        notes=[*records.notes, f"analysed by {analyst.name}: {said}; {by_source}"],
        cost=[*records.cost, cost],
    )
    wanted = round(config.good_per_analysis * len(analysed.analyses))
    chosen = random.Random(f"good replies:{config.seed}").sample(good_replies, min(wanted, len(good_replies)))
    if not chosen:
        return records
    of_good, cost = _analyse(prepared, analyst, list(map(Mistake, chosen)), "analysing good replies", "good")
    return replace(
        records,
        analyses=[*records.analyses, *of_good.analyses],
        notes=[*records.notes, f"good replies: {of_good}"],
        cost=[*records.cost, cost],
    )


def _analyse(
    prepared: PreparedMistakes,
    analyst: ModelAnalyst | EndpointAnalyst,
    mistakes: Sequence[Mistake],
    title: str,
    reply_is: Literal["bad", "good"] = "bad",
) -> tuple[Analysed, Cost]:
    meter = Meter()
    with track(title) as progress:
        analysed = analyse(
            analyst,
            mistakes,
            prepared.wording,
            reply_is=reply_is,
            openings=prepared.config.openings,
            progress=progress,
        )
    return analysed, analyst.cost(title, meter)


def take_given_analyses(prepared: PreparedMistakes) -> Records:
    """Take the analyses of --analyses, and their mistakes, except those whose prompts are evaluated on.

    Raises ConfigError where none is left to train on.
    """
    config, rows = prepared.config, prepared.rows
    given = [analysis for path in config.analyses for analysis in read_analyses(path)]
    evaluated = {row.prompt_key for split in ("unseen", "unseen_concept") for row in rows.splits[split]}
    analyses = [analysis for analysis in given if analysis.mistake.example.prompt_key not in evaluated]
    notes = []
    if left_out := len(given) - len(analyses):
        notes.append(f"left out {left_out} analyses whose prompts stand in --unseen or --unseen-concept")
    mistakes = [analysis.mistake for analysis in analyses if analysis.reply_is == "bad"]
    if not mistakes:
        why = "their prompts all stand in --unseen or --unseen-concept" if left_out else "none is of a bad reply"
        raise ConfigError(f"--analyses {', '.join(config.analyses)}: nothing to train on, {why}; give others")
    return Records(mistakes, rows.unseen_mistakes, analyses, [*notes, *_doubts(analyses)])


def _doubts(analyses: Sequence[Analysis]) -> list[str]:
    """Say what is odd about analyses that were given; they are trained on as they are."""
    notes = []
    odd = [analysis for analysis in analyses if read_verdict(analysis.text) not in (analysis.reply_is, None)]
    if odd:
        notes.append(
            f"{len(odd)} of {len(analyses)} analyses contradict their label and were learnt as they are (first: "
            f"{odd[0].mistake.example.where}, on a {odd[0].reply_is} reply)"
        )
    if all(analysis.reply_is == "bad" for analysis in analyses):
        notes.append(
            "no analysis of a good reply is among those given: the model may come to call good replies bad as well; "
            "`unteach mistakes run` makes them"
        )
    return notes
