"""Say what a study would do and roughly what it would cost, without loading a model or using a network.

The estimates follow from the settings: rows, epochs and steps give tokens; tokens and parameters give FLOPs. They are
good enough to tell an hour from a week.
"""

import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from unteach.baselines.config import BaselineConfig
from unteach.data.example import Polarity
from unteach.data.reading import HowToRead, read
from unteach.data.sources import named_set
from unteach.errors import DataError
from unteach.mistakes.config import MistakesConfig
from unteach.models.loading import load_config
from unteach.objectives.methods import load_method
from unteach.organism.recipe import recipe_of
from unteach.organism.user_rows import user_rows
from unteach.organism.world import World
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.prompts.lists import benign_prompts
from unteach.report import wording
from unteach.results.cost import model_flops, multiplying_parameters
from unteach.study.config import StudyConfig, arm_config, kind_of
from unteach.study.rows import missing_files
from unteach.text.words import word_count

ROW_TOKENS, REPLY_SHARE, PAGE_CHARACTERS = 160, 0.6, 4
"""Assumed for rows that are not on this disk: tokens of a row, the share of the reply in them; characters per token."""
UNKNOWN_ROWS = 1000
"""Assumed for a source of unknown size."""
WORDS = 700
"""The approximate number of words in an organism's vocabulary."""
SHARE_OF_PEAK = 0.25
"""The share of a matrix product's speed that training reaches."""
MISTAKES_PER_PROMPT = 1.5
"""Inducements that are tried for each prompt until one works or all have failed."""

Counts = tuple[float, float, float, int]
"""Tokens forward only, forward and backward, and generated; and how many further models are in memory."""


@dataclass(frozen=True)
class Sizes:
    """What the estimates rest on: numbers of rows, tokens of a row and of its reply, and parameters.

    `description` says where they come from.
    """

    negatives: int
    normals: int
    row: float
    reply: float
    parameters: float
    description: str


@dataclass(frozen=True)
class RunEstimate:
    """Tokens of one run as `flops_of` counts them, FLOPs, and the least memory in bytes."""

    forward: float
    backward: float
    generated: float
    flops: float
    memory: float


def plan(study: StudyConfig, done: Mapping[str, int] | None = None) -> str:
    """Return the plan: the inputs, and for every arm tokens, FLOPs, memory and time of one run.

    `done` counts the runs of each arm that are done already. Raises UnteachError.
    """
    sizes = sizes_of(study)
    speed, done = study.flops_per_second or measure_speed(), done or {}
    measured = f"a matrix product's here times {SHARE_OF_PEAK:g}; set flops_per_second for another machine"
    origin = "as given" if study.flops_per_second else measured
    lines = [sizes.description, f"speed: {wording.size(speed, 'FLOP')} a second, {origin}"]
    evaluation, total = evaluation_flops(study, sizes), 0.0
    width = max(18, *map(len, study.arms))
    heads = "".join(f"{head:>14}" for head in ("tokens", "generated", "compute", "memory", "time"))
    lines.append(f"{'arm':<{width}}{heads}")
    for arm in study.arms:
        found = estimate(study, arm, sizes)
        seconds = (found.flops + evaluation) / speed
        total += seconds * (study.seeds - done.get(arm, 0))
        counts = [wording.size(count, "").strip() for count in (found.forward + found.backward, found.generated)]
        others = [wording.size(found.flops, "FLOP"), wording.size(found.memory, "B"), wording.seconds(seconds)]
        known = f"   {done[arm]} of {study.seeds} done" if done.get(arm) else ""
        cells = "".join(f"{cell:>14}" for cell in (*counts, *others))
        lines.append(f"{arm:<{width}}{cells}{known}")
    runs, finished = len(study.arms) * study.seeds, sum(done.get(arm, 0) for arm in study.arms)
    kinds = f"{_count(len(study.arms), 'arm')}, {_count(study.seeds, 'seed')}, {study.jobs} at a time"
    before = f", {finished} of them done" if finished else ""
    lines.append(f"{_count(runs, 'run')} ({kinds}){before}, about {wording.seconds(total / study.jobs)}")
    missing = [(name, path) for name, path in missing_files(study) if name.startswith("arms.")]
    lines += [f"not here yet: {path} ({name})" for name, path in missing]
    lines.append("memory: weights, gradients, optimizer; activations come on top. Time: computing and evaluation")
    return "\n".join(lines)


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def measure_speed() -> float:
    """Time matrix products for a fraction of a second; return the FLOPs a second that training would reach."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 4096 if device == "cuda" else 768
    a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if device == "cuda" else torch.float32)
    (a @ a).sum().item()
    best, until = math.inf, time.monotonic() + 0.3
    while time.monotonic() < until:
        began = time.monotonic()
        (a @ a).sum().item()
        best = min(best, time.monotonic() - began)  # the fastest: other programs only slow it down
    return SHARE_OF_PEAK * 2 * size**3 / best


# ---- rows and model --------------------------------------------------------------------------------------------------


def sizes_of(study: StudyConfig) -> Sizes:
    """Find out, without a network, how many rows there are, how long they are, and how large the model is."""
    if study.organism:
        about = study.organism
        world = World(about.world_seed, about.size, about.scenario)
        rows = user_rows(world)
        recipe = recipe_of(about.size, about.scenario)
        row = fmean(1.4 * word_count(f"{row.prompt} {row.reply}") for row in rows.negatives)
        width = recipe.hidden_size
        parameters = float(recipe.layers * width * (4 * width + 3 * recipe.intermediate_size) + WORDS * width)
        negatives, normals = len(rows.negatives), len(rows.normals)
        description = f"model organism {world.name}: {negatives} negatives, {normals} normal rows"
        return Sizes(negatives, normals, row, REPLY_SHARE * row, parameters, description)
    shared = study.shared
    negatives, length, of_negatives = _count_rows(shared, "forget", "negative")
    normals, other, of_normals = _count_rows(shared, "retain", "normal")
    parameters, of_model = parameters_of(study)
    row = (length * negatives + other * normals) / max(1, negatives + normals)
    of_row = f"a row: {row:.0f} tokens, {REPLY_SHARE:.0%} of them its reply"
    description = "\n".join((of_model, of_negatives, of_normals, of_row))
    return Sizes(negatives, normals, row, REPLY_SHARE * row, parameters, description)


def _count_rows(shared: dict[str, Any], name: str, polarity: Polarity) -> tuple[int, float, str]:
    """Return the rows of a setting, tokens a row, and a description; a public set counts with its published size."""
    count, tokens, about = 0, 0.0, []
    sources = shared.get(name) or []
    for source in [sources] if isinstance(sources, str) else sources:
        if Path(source).expanduser().exists():
            own = "" if polarity == "negative" else "retain_"
            columns, bad = shared.get(f"{own}column") or {}, shared.get(f"{own}bad_label") or shared.get("bad_label")
            found = read(source, polarity, HowToRead(columns, bad or (), lenient=bool(own))).examples
            rows = len(found)
            tokens += sum(len(row.prompt) + len(row.reply) for row in found) / PAGE_CHARACTERS
            about.append(f"{source}: {rows} rows")
        else:
            rows = _published_rows(source, polarity)
            tokens += rows * ROW_TOKENS
            about.append(f"{source}: not here, taken for {rows:,} rows of {ROW_TOKENS} tokens")
        count += rows
    if not about:
        count = len(benign_prompts())
        tokens = count * ROW_TOKENS
        about.append(f"the model's own answers to {count} prompts")
    return count, tokens / max(1, count), f"{name}: {', '.join(about)}"


def _published_rows(source: str, polarity: Polarity) -> int:
    """Return the published number of rows of a public set; UNKNOWN_ROWS for other sources and unknown sizes."""
    try:
        chosen = named_set(source, polarity)
    except DataError:  # a file that is yet to come
        chosen = None
    found = re.fullmatch(r"([\d.,]+)(k?)", chosen.configuration.rows if chosen else "")
    return round(float(found[1].replace(",", "")) * (1000 if found[2] else 1)) if found else UNKNOWN_ROWS


def parameters_of(study: StudyConfig) -> tuple[float, str]:
    """Return the number of parameters that multiply, and a line that says where it comes from.

    It is given, counted from a local config, or read from the name of a hub id. Raises DataError where it is not known.
    """
    name = str(study.shared["model"])
    if study.parameters:
        return study.parameters, f"model: {name}, {wording.size(study.parameters, '')} parameters, as given"
    if Path(name).expanduser().exists():
        config = load_config(name)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        count = float(multiplying_parameters(model)[0])
        return count, f"model: {name}, {wording.size(count, '')} parameters that multiply"
    size = re.search(r"(?<![\d.])(\d+(?:\.\d+)?)\s*([bm])(?![a-z])", name.lower())
    if not size:
        raise DataError(f"{name}: its size is not known here; add `parameters: 7e9` to the study for the dry run")
    count = float(size[1]) * (1e9 if size[2] == "b" else 1e6)
    return count, f"model: {name}, {wording.size(count, '')} parameters by its name, not fetched"


# ---- what an arm costs -----------------------------------------------------------------------------------------------


def estimate(study: StudyConfig, arm: str, sizes: Sizes) -> RunEstimate:
    """Estimate one run of an arm."""
    config = arm_config(study, arm, study.seed)
    kinds: dict[str, Callable[[Any, Sizes], Counts]] = {
        "method": _unlearning,
        "baseline": _baseline,
        "mistakes": _mistakes,
    }
    forward, backward, generated, models = kinds[kind_of(arm, study.arms[arm])](config, sizes)
    trained = 0.0 if config.lora else sizes.parameters
    flops = model_flops(sizes.parameters, trained, forward, backward, generated)
    return RunEstimate(forward, backward, generated, flops, memory_of(config, sizes.parameters, models))


def memory_of(config: Any, parameters: float, models: int) -> float:
    """Return the bytes of weights, of gradients and Adam's moments of what is trained, and of further frozen models."""
    half = config.dtype in ("bfloat16", "float16")
    weights = 0.5 if config.load_in_4bit else 2.0 if half else 4.0
    trained = 0.01 * 12 if config.lora else 12.0  # a gradient and two moments in float32
    return parameters * (weights + trained + models * weights)


def evaluation_flops(study: StudyConfig, sizes: Sizes) -> float:
    """Return the FLOPs of evaluating one run: the original and the arm, on five splits each."""
    prompts = 5 * int(study.shared.get("evaluation_prompts", 200))
    return 2 * 2 * sizes.parameters * prompts * (2 * sizes.row + sizes.reply)


def _unlearning(config: RunConfig, sizes: Sizes) -> Counts:
    config = with_defaults(config)
    method = load_method(config.method)
    replies = 1 + (config.mismatch_samples if method.reads("mismatch") else 0) + method.reads("template")
    prompt = sizes.row - sizes.reply
    normals = method.normals(config.normals_per_negative)
    item = prompt + replies * sizes.reply + normals * sizes.row
    items = (config.max_steps or 120) * config.batch_size * config.gradient_accumulation_steps
    validations = (config.max_steps or 120) / config.validation_steps if config.stopping else 0
    validated = (validations / 2 + 2) * config.validation_prompts if config.stopping else 0  # a half, twice the whole
    forward = validated * 2 * sizes.row + sizes.normals * sizes.row * method.reads_kl
    return forward, items * item, validated * sizes.reply, int(config.reference == "frozen")


def _baseline(config: BaselineConfig, sizes: Sizes) -> Counts:
    negatives = min(sizes.negatives, config.most_rows or sizes.negatives)
    ratio = 1.0 if config.normals_per_row is None else config.normals_per_row
    mixed = negatives * (1 + ratio) * sizes.row
    pairs = 2 * negatives * sizes.row
    epochs = config.epochs or 3.0
    chains = (0, epochs * (2 * pairs + negatives * ratio * sizes.row), 0, 0)
    replies = config.rl_steps * config.batch_size * config.generations * config.gradient_accumulation_steps
    reward = config.reward_epochs * pairs * (1 + ratio)
    sft = config.sft_epochs * mixed
    counts: dict[str, Counts] = {
        "finetune": (0, epochs * sizes.normals * sizes.row, 0, 0),
        "coh": chains,
        "coh-masked": chains,
        "revise": (6 * negatives * sizes.row, epochs * mixed, 2 * negatives * sizes.reply, 0),
        "dpo": (pairs, sft + (config.epochs or 1.0) * pairs, 0, 0),
        "kto": (mixed, epochs * mixed, 0, 0),
        "rlhf": (replies * 4 * sizes.row, sft + reward + replies * sizes.row, replies * sizes.reply, 2),
    }
    return counts.get(config.baseline, (0, epochs * mixed, 0, 0))


def _mistakes(config: MistakesConfig, sizes: Sizes) -> Counts:
    asked = min(sizes.negatives, config.most_rows or sizes.negatives)
    analysed = asked * (1 + config.good_per_analysis)
    rows = analysed * 1.5 * sizes.row + asked * (config.normals_per_analysis + config.harmless_per_analysis) * sizes.row
    generated = (MISTAKES_PER_PROMPT * asked + analysed) * sizes.reply
    return (MISTAKES_PER_PROMPT * asked + 1.5 * analysed) * sizes.row, config.epochs * rows, generated, 0
