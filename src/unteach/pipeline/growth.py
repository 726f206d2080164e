"""unteach run --dry-run --nodes 2 --gpus 8: what a run would take on many cards, without loading weights."""

import re
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unteach.data.example import Example
from unteach.data.prompt_format import TemplateSettings, prompt_format
from unteach.errors import ConfigError, ModelError
from unteach.models.adapter import add_adapter
from unteach.models.loading import load_tokenizer
from unteach.models.outline import Outline, model_outline, outline_of
from unteach.models.reply import named_end
from unteach.models.sharding import STRATEGIES
from unteach.objectives.methods import Method, load_method
from unteach.pipeline.cards import (
    ALLOWED,
    FREE,
    REFUSED,
    TUNINGS,
    Choice,
    Cluster,
    Tuning,
    choose,
    memory_of,
    step_time,
    traffic_of,
)
from unteach.pipeline.config import RunConfig, trainer_arguments, with_defaults
from unteach.pipeline.original import Original, adapter_settings
from unteach.pipeline.own_rows import own_tokens
from unteach.pipeline.prepare import check_given, check_settings, prepare
from unteach.pipeline.rows import read_sets
from unteach.pipeline.stages import Stage, Unasked, in_flops, stages_of
from unteach.progress import track
from unteach.report.wording import seconds, size
from unteach.text.escape import inert_line
from unteach.training.config import choose_method

LETTERS = 4
"""Characters of a token, where there is no tokenizer to ask; that of English text."""
CARD, IN_NODE, BETWEEN = 80e9, 400e9, 50e9
"""Bytes of a card, bytes/s between cards of a node (NVLink), and between nodes (a link of 400 Gbit/s for each card)."""
WIDEST, MEASURED = 2048, 256
"""Widest layer, and tokens, with which the speed of this machine is measured."""
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?) ?([kMGTPE]?)(B|FLOP|FLOPs|FLOP/s|B/s)?", re.IGNORECASE)


@dataclass(frozen=True)
class Cards:
    """The cards that the user named; None and empty is what was left open."""

    nodes: int | None = None
    gpus: int | None = None
    memory: str = ""
    throughput: str = ""
    bandwidth: str = ""

    @property
    def asked(self) -> bool:
        """Whether any of it was named."""
        return self != Cards()


@dataclass(frozen=True)
class Work:
    """Tokens and FLOPs of an optimizer step of `items` negatives, and of the whole run; `told` is how they were got."""

    step_tokens: float
    items: int
    step_flops: float
    run_tokens: float
    run_flops: float
    steps: int
    told: str


def read_amount(name: str, text: str) -> float:
    """Read `80GB` or `400TFLOP`. Raises ConfigError."""
    found = _AMOUNT.fullmatch(text.strip())
    value = float(found[1]) * 1000.0 ** " kMGTPE".index(_prefix(found[2]) or " ") if found else 0.0
    if not 0 < value < 1e30:
        example = {"--gpu-memory": "80GB", "--throughput": "400TFLOP", "--bandwidth": "50GB"}[name]
        raise ConfigError(f"{name} {inert_line(text, 40)}: write a number and a unit, such as {example}")
    return value


def _prefix(letter: str) -> str:
    return "k" if letter in "kK" and letter else letter.upper()


def growth_plan(config: RunConfig, cards: Cards) -> str:
    """Say what a run would take on these cards: memory by strategy, which one, whether it can be run, tokens and time.

    The model is built from its config alone. Its tokens are counted on the rows where a tokenizer lies beside the
    config, and else estimated from their letters. Raises what is wrong with settings, rows or the config.
    """
    check_given(config)
    config = with_defaults(config)
    check_settings(config)
    cluster, measured = _cluster(cards)
    with track("planning for many cards"):
        outlines, models = {}, {}
        for tuning in TUNINGS:
            models[tuning] = _as_trained(config, tuning)
            outlines[tuning] = outline_of(models[tuning])
        asked: Tuning = "qlora" if config.load_in_4bit else "lora" if config.lora else "full"
        work = _work(config, models[asked])
    each = -(-work.items // cluster.cards)  # a card has one item at least
    tokens = work.step_tokens / work.items * each
    held = _memory(config, outlines, cluster, tokens)
    choices = [choose(outlines[tuning], tuning, cluster, tokens, config.reference == "frozen") for tuning in TUNINGS]
    chosen = next(choice for choice in choices if choice.tuning == asked)
    parts = [
        _model(config, outlines[asked], cluster),
        [work.told, *_items(work, each, cluster, config)],
        held,
        _decision(chosen, choices, cluster),
        _time(config, outlines[asked], chosen, cluster, work, measured),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _cluster(cards: Cards) -> tuple[Cluster, str]:
    """Return the cards with what was left open filled in, and how their speed is known."""
    for name, value in (("--nodes", cards.nodes), ("--gpus", cards.gpus)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} {value}: must be at least 1")
    memory = read_amount("--gpu-memory", cards.memory) if cards.memory else _memory_here()
    nodes = cards.nodes or 1
    between = IN_NODE if nodes == 1 else BETWEEN
    bandwidth = read_amount("--bandwidth", cards.bandwidth) if cards.bandwidth else between
    if cards.throughput:
        speed, told = read_amount("--throughput", cards.throughput), "as given"
    else:
        speed, told = (
            measured_throughput(),
            "measured here on dense layers alone, so at best; or give --throughput",
        )
    return Cluster(nodes, cards.gpus or 1, memory, speed, bandwidth), told


def _memory_here() -> float:
    return float(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else CARD


def measured_throughput(width: int = WIDEST, tokens: int = MEASURED) -> float:
    """Return the FLOP/s of this machine in the forward and backward pass of two dense layers: the best of three."""
    on_gpu = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if on_gpu else ("cpu", torch.float32)
    tokens = 16 * tokens if on_gpu else tokens
    layers = nn.Sequential(nn.Linear(width, width, bias=False), nn.ReLU(), nn.Linear(width, width, bias=False))
    layers.to(device, dtype)
    states = torch.randn(tokens, width, device=device, dtype=dtype, requires_grad=True)
    took = []
    for _ in range(4):
        began = time.monotonic()
        layers(states).sum().backward()
        if on_gpu:
            torch.cuda.synchronize()
        took.append(time.monotonic() - began)
    return 6.0 * 2 * width * width * tokens / min(took[1:])


# ---- what there is to do ---------------------------------------------------------------------------------------------


def _as_trained(config: RunConfig, tuning: Tuning) -> Any:
    """Return the model on the meta device, with the adapter of the settings unless all weights are trained."""
    model = model_outline(config.model, trust_remote_code=config.trust_remote_code)
    if tuning == "full":
        return model
    adapter = adapter_settings(config.model_copy(update={"lora": True}), model)
    return add_adapter(model, adapter, config.seed)


def _work(config: RunConfig, model: Any) -> Work:
    """Return the tokens and FLOPs of a run, counted on its rows or, without a tokenizer, estimated."""
    directory = Path(config.model).expanduser()
    where = directory.parent if directory.is_file() else directory
    beside = [where, where / "model"] if where.is_dir() else []
    has = not beside or any((place / name).is_file() for place in beside for name in _TOKENIZERS)
    return _counted(config, model) if has and not directory.is_file() else _estimated(config, model)


_TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")


def _counted(config: RunConfig, model: Any) -> Work:
    """Count as `--dry-run` does, with a model that has no weights."""
    try:
        tokenizer = load_tokenizer(config.model, revision=config.revision, trust_remote_code=config.trust_remote_code)
    except ModelError:
        return _estimated(config, model)
    form = prompt_format(tokenizer, config.prompt_format, named_end(model), TemplateSettings.of(config))
    unasked = Unasked()
    original = Original(config.model, model, tokenizer, form, "outline")
    with tempfile.TemporaryDirectory() as place:
        prepared = prepare(config, Path(place), unasked, original, counting=True)
        method = choose_method(prepared.arguments, adapter=config.lora)
        stages = [*unasked.stages, *stages_of(prepared, model, method)]
    rates, steps = in_flops(model), prepared.arguments.max_steps
    training = [stage for stage in stages if stage.name.startswith("training, ")]
    tokens, flops = sum(stage.tokens for stage in training), sum(map(rates.of, training))
    whole, every = sum(stage.tokens for stage in stages), sum(map(rates.of, stages))
    told = (
        f"tokens: {_count(tokens / steps)} a step, {_count(tokens)} in {steps} steps, {_count(whole)} with "
        "preparing, validation and evaluation; counted on the rows, at most"
    )
    batch = prepared.arguments.per_device_train_batch_size
    return Work(tokens / steps, batch, flops / steps, whole, every, steps, told)


def _estimated(config: RunConfig, model: Any) -> Work:
    """Estimate the tokens of the steps from the letters of the rows."""
    sets, method = read_sets(config), load_method(config.method)
    negatives, normals = sets.negatives["train"], sets.normals.get("train", [])
    prompt, reply = _mean_tokens(negatives)
    item = prompt + _replies(method, config, reply)
    asked, said = _mean_tokens(normals) if normals else (prompt, float(own_tokens(config)))
    item += method.normals(config.normals_per_negative) * (asked + said)
    arguments = trainer_arguments(config, Path(config.output))
    steps, batch = config.max_steps or arguments.max_steps, config.batch_size
    step, again = item * batch, method.normals(config.normals_per_negative) * (asked + said) * batch
    read = again if method.reads_kl and config.lora else 0.0
    flops = in_flops(model).of(Stage("a step", backward=round(step), within=round(read)))
    told = (
        f"tokens: about {_count(step)} a step, {_count(step * steps)} in {steps} steps; there is no tokenizer "
        f"beside the config, so {LETTERS} characters are taken for a token, and preparing, validation and evaluation "
        "are not counted"
    )
    return Work(step, batch, flops, steps * (step + read), steps * flops, steps, told)


def _replies(method: Method, config: RunConfig, reply: float) -> float:
    """Return the tokens of all replies in an item, roughly."""
    template = len(config.template or "") / LETTERS
    known = reply if method.reads_bad_replies else min(reply, 4.0)
    mismatches = config.mismatch_samples * reply if method.reads("mismatch") else 0.0
    return known + mismatches + (template if method.reads("template") else 0.0)


def _mean_tokens(rows: list[Example]) -> tuple[float, float]:
    count = max(1, len(rows)) * LETTERS
    return sum(len(row.prompt) for row in rows) / count, sum(len(row.reply) for row in rows) / count


# ---- what is said ----------------------------------------------------------------------------------------------------


def _count(value: float) -> str:
    return size(value, "").rstrip()


def _model(config: RunConfig, outline: Outline, cluster: Cluster) -> list[str]:
    how = f"{_count(outline.trained)} trained by LoRA of rank {config.lora_rank}" if config.lora else "all trained"
    return [
        f"{inert_line(config.model, 120)}: {size(outline.parameters, '')} parameters ({how}), {outline.layers} layers, "
        f"{outline.width} wide; built from its config, nothing was loaded",
        f"cards: {cluster.nodes} x {cluster.gpus} with {size(cluster.memory)} each",
    ]


def _items(work: Work, each: int, cluster: Cluster, config: RunConfig) -> list[str]:
    tokens = _count(work.step_tokens / work.items * each)
    lines = [f"on a card: {each} of the {work.items} negatives of a batch, {tokens} tokens"]
    if work.items % cluster.cards:
        fit = each * cluster.cards
        lines.append(
            f"--batch-size {work.items} cannot be parted between {cluster.cards} cards; give {fit}, as planned"
        )
    return lines


def _memory(config: RunConfig, outlines: dict[Tuning, Outline], cluster: Cluster, tokens: float) -> list[str]:
    """Return a table of what a card would hold by tuning and strategy."""
    columns = ("weights", "gradients", "Adam", "gathered", "activations", "logits", "in all", "checkpointed")
    lines = [f"{'on a card':<14}" + "".join(f"{name:>13}" for name in columns)]
    room, names = (1 - FREE) * cluster.memory, {"full": "full", "lora": "LoRA", "qlora": "QLoRA"}
    for tuning in TUNINGS:
        for strategy in ALLOWED[tuning]:
            held = memory_of(outlines[tuning], strategy, tuning, cluster.cards, tokens, config.reference == "frozen")
            kept = (held.weights + held.reference, held.gradients, held.optimizer, held.gathered, held.activations)
            cells = [size(value) for value in (*kept, held.logits)]
            for checkpointing in (False, True):
                whole = held.whole(checkpointing)
                cells.append(size(whole) + (" *" if whole <= room else "  "))
            lines.append(f"{names[tuning] + ' ' + strategy:<14}" + "".join(f"{cell:>13}" for cell in cells))
    lines.append(f"* fits, with {FREE:.0%} of the card left free; validation decodes when no gradients are held")
    return lines


def _decision(chosen: Choice, choices: list[Choice], cluster: Cluster) -> list[str]:
    """Say which strategy would be taken and why, and whether it can be run."""
    with_ = " with activation checkpointing (--set trainer.gradient_checkpointing=true)" if chosen.checkpointing else ""
    runs = [choice for choice in choices if choice.strategy == "DDP"]
    if chosen.strategy is None:
        said = "strategy: none fits; take more cards, a smaller batch or --max-length, or"
        others = [choice for choice in choices if choice.strategy]
        fix = " or ".join(f"{_flags(one.tuning)} ({one.strategy})" for one in others)
        return [f"{said} {fix or 'a smaller model'}", _by_ddp(runs, cluster)]
    if chosen.strategy == "DDP":
        why = "the whole model fits on a card" if cluster.cards > 1 else "it fits on the card"
        name = "DDP" if cluster.cards > 1 else "one process"
        return [f"strategy: {name}{with_}, since {why}", f"unteach runs this: {_start(cluster, chosen)}"]
    fits = "parted gradients and moments are enough" if chosen.strategy == "ZeRO-2" else "with parted weights it fits"
    said = f"strategy: {chosen.strategy}{with_}, since the whole model does not fit on a card, and {fits}"
    runs_it = f"unteach runs this: {_start(cluster, chosen)}"
    if (chosen.tuning, chosen.strategy) in REFUSED:
        runs_it = f"unteach cannot run {chosen.strategy} for {_flags(chosen.tuning)} (docs/many-gpus.md)"
    return [said, runs_it, _by_ddp(runs, cluster)]


def _by_ddp(runs: list[Choice], cluster: Cluster) -> str:
    """Say what runs on these cards with the whole model on each."""
    if not runs:
        return "with the whole model on each card (DDP): nothing fits"
    ways = "; ".join(f"{_flags(one.tuning)}: {_start(cluster, one)}" for one in runs)
    return f"with the whole model on each card (DDP): {ways}"


def _flags(tuning: Tuning) -> str:
    return {"full": "all weights", "lora": "--lora", "qlora": "--lora --load-in-4bit"}[tuning]


def _start(cluster: Cluster, choice: Choice) -> str:
    more = "" if choice.tuning == "full" else f" {_flags(choice.tuning)}"
    shard = (choice.strategy or "").lower().replace("-", "")
    more += f" --shard {shard}" if shard in STRATEGIES else ""
    nodes = f"--nnodes {cluster.nodes} --node-rank N --rdzv-endpoint HOST:PORT" if cluster.nodes > 1 else "--standalone"
    launched = f"torchrun {nodes} --nproc-per-node {cluster.gpus} -m " if cluster.cards > 1 else ""
    return f"{launched}unteach run{more} …"


def _time(
    config: RunConfig, outline: Outline, chosen: Choice, cluster: Cluster, work: Work, measured: str
) -> list[str]:
    """Say how long a step and the run would take."""
    method = load_method(config.method)
    passes = 4 + (method.reads_kl and config.lora)  # forget and normal rows, forward and backward; the original
    strategy = chosen.strategy or "FSDP2"
    sent = traffic_of(outline, strategy, chosen.tuning, cluster.cards, passes, config.gradient_accumulation_steps)
    scale = cluster.cards * -(-work.items // cluster.cards) / work.items
    step = step_time(scale * work.step_flops, sent, cluster, chosen.checkpointing)
    rest = (work.run_flops - work.steps * work.step_flops) / (cluster.cards * cluster.throughput)
    low, high = (work.steps * value + rest for value in (step.best, step.worst))
    return [
        f"a step: {size(work.step_flops * scale, 'FLOP')} at {size(cluster.throughput, 'FLOP/s')} a card ({measured}): "
        f"{seconds(step.computing)}; each card sends {size(sent)} at {size(cluster.bandwidth, 'B/s')}: "
        f"{seconds(step.sending)}" + (" (as if FSDP2 fitted)" if chosen.strategy is None else ""),
        f"{work.steps} steps and the rest that was counted: {seconds(low)} if sending hides behind computing, "
        f"{seconds(high)} if not; what decodes runs slower than that",
    ]
