"""The steps that need no training: mistakes from prompts and labels, analyses from mistakes, and their files."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from unteach.data.example import Example
from unteach.data.prompt_format import prompt_format
from unteach.errors import ConfigError
from unteach.judges.base import Judge
from unteach.mistakes.analyse import Analysed, Analyst, EndpointAnalyst, ModelAnalyst, analyse
from unteach.mistakes.analyse import told as told_of_analyses
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.induce import Induction, induce
from unteach.mistakes.induce import told as told_of_induction
from unteach.mistakes.material import Material
from unteach.mistakes.records import (
    Analysis,
    Mistake,
    read_analyses,
    read_mistakes,
    said_by,
    write_analyses,
    write_mistakes,
)
from unteach.models.context import context_length
from unteach.models.endpoint import Endpoint, chat_address, key_from_environment
from unteach.models.fingerprint import model_fingerprint
from unteach.models.loading import load_model, load_tokenizer
from unteach.pipeline.original import Original
from unteach.progress import track
from unteach.prompts.mistakes import MistakeWording
from unteach.results.cost import Meter
from unteach.results.report import Cost

MISTAKES, HELD, ANALYSES = "mistakes.jsonl", "unseen_mistakes.jsonl", "analyses.jsonl"


@dataclass
class Found:
    """Mistakes and analyses to train on, mistakes held out, what to tell of the steps, and what they cost."""

    mistakes: list[Mistake] = field(default_factory=list)
    held: list[Mistake] = field(default_factory=list)
    analyses: list[Analysis] = field(default_factory=list)
    induction: Induction | None = None
    analysed: Analysed | None = None
    notes: list[str] = field(default_factory=list)
    cost: list[Cost] = field(default_factory=list)


def find_mistakes(
    config: MistakesConfig,
    material: Material,
    original: Original,
    judge: Judge | None,
    wording: MistakeWording,
    found: Found,
) -> None:
    """Step 1: induce on the prompts and add what was labelled and reported.

    Prompts that fill the context are left out. Raises ConfigError where nothing was given, and where nothing was
    induced and no mistake was given: an aligned model refuses, which is no failure of the run but of its input.
    """
    if not (material.prompts or material.labelled):
        raise ConfigError(
            "there is nothing to learn from: give --prompts, --mistakes or --reports, or --analyses to `unteach "
            "mistakes tune`"
        )
    material.prompts = _fitting(original, material.prompts, wording, found)
    material.unseen_prompts = _fitting(original, material.unseen_prompts, wording, found)
    induced: list[Mistake] = []
    held_out: list[Mistake] = []
    if material.prompts:
        assert judge is not None
        found.induction = _induced(config, original, material.prompts, judge, wording, "inducing mistakes", found)
        induced = found.induction.mistakes
        found.notes.append(f"induced: {told_of_induction(found.induction)}")
    if material.unseen_prompts:
        assert judge is not None
        title = "inducing on held-out prompts"
        held_out = _induced(config, original, material.unseen_prompts, judge, wording, title, found).mistakes
    found.mistakes = [*induced, *material.labelled]
    known = {mistake.example.prompt_key for mistake in material.unseen_mistakes}
    found.held = [*material.unseen_mistakes, *(m for m in held_out if m.example.prompt_key not in known)]
    unknown = len(material.unseen_prompts) - len(held_out)
    if unknown > 0:
        found.notes.append(
            f"{unknown} of {len(material.unseen_prompts)} held-out prompts were not induced either: they have no known "
            "bad reply, and are not among the unseen prompts of the check, whose rates are of inducible prompts"
        )
    if not found.mistakes:
        raise ConfigError(
            "no mistake was induced and none was given: the model refuses, as it should, or the judge finds nothing "
            "bad; give labelled mistakes (--mistakes), user reports (--reports), other inducements (--wording) or "
            "another --judge"
        )


def write_found(directory: Path, found: Found) -> None:
    """Write the mistakes, and the analyses where there are any, for people to read and edit. Raises OutputError."""
    write_mistakes(directory / HELD, found.held)
    write_mistakes(directory / MISTAKES, found.mistakes)
    if found.analyses:
        write_analyses(directory / ANALYSES, found.analyses)


def read_found(directory: Path, found: Found) -> bool:
    """Read what an earlier, broken off run has written, perhaps edited since; tells whether the mistakes were there."""
    path, held, analyses = directory / MISTAKES, directory / HELD, directory / ANALYSES
    if not (path.exists() and held.exists()):
        return False
    found.mistakes = read_mistakes(str(path))
    found.held = read_mistakes(str(held)) if held.stat().st_size else []
    found.notes.append(f"the mistakes were taken from {path.name}, which was there")
    if analyses.exists():
        found.analyses = read_analyses(str(analyses))
        found.notes.append(f"the analyses were taken from {analyses.name}, which was there")
    return True


def _fitting(original: Original, prompts: list[Example], wording: MistakeWording, found: Found) -> list[Example]:
    """Leave out prompts that fill the model's context in some inducement's words, and note it."""
    room = context_length(original.model)
    if room is None:
        return prompts
    numbers = range(len(wording.inducements))
    longest = [max(len(original.form.prompt_ids(wording.induce(n, row.turns))) for n in numbers) for row in prompts]
    kept = [row for row, length in zip(prompts, longest, strict=True) if length < room]
    if len(kept) < len(prompts):
        first = next(row for row, length in zip(prompts, longest, strict=True) if length >= room)
        found.notes.append(
            f"prompts: left out {len(prompts) - len(kept)} that fill the model's context of {room} tokens in inducing "
            f"words (first: {first.where or 'row 1'})"
        )
    return kept


def _induced(
    config: MistakesConfig,
    original: Original,
    prompts: list[Example],
    judge: Judge,
    wording: MistakeWording,
    title: str,
    found: Found,
) -> Induction:
    meter = Meter()
    with track(title) as progress:
        induction = induce(
            original.model,
            original.form,
            prompts,
            judge,
            wording,
            name=original.name,
            seed=config.seed,
            max_new_tokens=config.max_new_tokens,
            key=original.key,
            progress=progress,
        )
    read, written = induction.tokens_read, induction.tokens_generated
    found.cost.append(meter.cost(original.model, "original", title, forward=read, generated=written))
    return induction


def find_analyses(
    config: MistakesConfig,
    original: Original,
    analyst: Analyst,
    wording: MistakeWording,
    found: Found,
    good: Sequence[Example] = (),
) -> None:
    """Step 2: have the mistakes analysed with guidance, and keep what passes the gate.

    Of the good replies, as many are analysed as `good_per_analysis` asks for. Raises ConfigError where no analysis of a
    mistake passes.
    """
    meter = Meter()
    with track("analysing mistakes") as progress:
        found.analysed = analyse(analyst, found.mistakes, wording, progress=progress)
    found.cost.append(_analysing(analyst, "analysing mistakes", meter))
    found.analyses = found.analysed.analyses
    sources = said_by(found.analyses, lambda analysis: analysis.mistake.origin.source)
    by_source = ", ".join(f"{count} {source}" for source, count in sources.items())
    told = told_of_analyses(found.analysed)
    if isinstance(analyst, EndpointAnalyst) and analyst.failure:
        told += f"; the endpoint failed: {analyst.failure}"
    found.notes.append(f"analysed by {analyst.name}: {told}; {by_source or 'none kept'}")
    if not found.analyses:
        raise ConfigError(
            f"no analysis by {analyst.name} was fit to learn from ({told}); name a more "
            "capable --analyst, a model or openai:MODEL, or write analyses by hand (docs/mistakes.md)"
        )
    wanted = round(config.good_per_analysis * len(found.analyses))
    chosen = random.Random(f"good replies:{config.seed}").sample(list(good), min(wanted, len(good)))
    if chosen:
        meter = Meter()
        with track("analysing good replies") as progress:
            of_good = analyse(analyst, [Mistake(row) for row in chosen], wording, reply_is="good", progress=progress)
        found.analyses += of_good.analyses
        found.cost.append(_analysing(analyst, "analysing good replies", meter))
        found.notes.append(f"good replies: {told_of_analyses(of_good)}")


def _analysing(analyst: Analyst, stage: str, meter: Meter) -> Cost:
    """Return what the analyst took; of one behind an endpoint only the time is known."""
    if isinstance(analyst, ModelAnalyst):
        return analyst.cost("original", stage, meter)
    return Cost(arm="original", stage=stage, wall_seconds=meter.seconds)


def make_analyst(config: MistakesConfig, original: Original) -> Analyst:
    """Return who analyses: the model itself, another local model, or an endpoint. Raises ConfigError and ModelError."""
    name = config.analyst
    if name is None:
        return ModelAnalyst(
            original.model, original.form, original.name, max_new_tokens=config.max_new_tokens, key=original.key
        )
    if name.startswith("openai:"):
        address = chat_address(config.analyst_url, "--analyst-url")
        model = name.removeprefix("openai:")
        if not model:
            raise ConfigError("--analyst openai: names no model; write openai:MODEL")
        return EndpointAnalyst(Endpoint(address, model, key_from_environment(), longest=config.max_new_tokens))
    tokenizer = load_tokenizer(name, trust_remote_code=config.trust_remote_code)
    model_ = load_model(name, dtype=config.dtype, device=config.device, trust_remote_code=config.trust_remote_code)
    form = prompt_format(tokenizer, "auto", model_.generation_config.eos_token_id)
    key = model_fingerprint(model_)
    return ModelAnalyst(model_, form, name, max_new_tokens=config.max_new_tokens, key=key)


def check_rows(found: Found, material: Material) -> dict[str, list[Example]]:
    """Return the rows of every split: mistakes that were trained on, mistakes held out, and what was given."""
    seen = {m.example.prompt_key: m.example for m in reversed(found.mistakes)}
    rows = {
        "seen": [replace(row, bad=None) for row in reversed(seen.values())],
        "unseen": material.splits["unseen"] or [m.example for m in found.held],
    }
    return rows | {name: material.splits[name] for name in ("unseen_concept", "normal", "lookalike")}
