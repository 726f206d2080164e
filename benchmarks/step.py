"""Time one optimizer step of ours against the same losses done plainly and against a plain SFT step.

    python benchmarks/step.py                                        a 23M Llama on the CPU, B = 2 and 4
    python benchmarks/step.py --shape llama-1b --dtype bfloat16 --device cuda --compile layers flex

The arms see the same rows in the same order, one step each in turn, so that a noisy machine slows all alike:

    ours      prompt trees, packed, head at reply tokens, KL from cached last hidden states
    unpacked  the same with one tree a row
    kept      ours on the upper half of the layers alone; what enters them was kept from an earlier meeting of the row
    plain     padded rows for negatives, mismatches and normals, full logits, a second model for the KL
    sft       next-token cross entropy over the same distinct tokens: a prompt and its replies as one row, and normals

`--compile` adds arms: ours with what `unteach run --compile` of that name compiles. Their first step, which compiles,
is timed by itself.

Loss: `ga-mismatch` (arXiv 2310.10683, eq. 3) with K mismatched replies and one normal row per forget prompt. Peak
memory is what a fresh process needs for one step beyond the loaded model: gradients and AdamW's state are in it.
"""

import argparse
import copy
import json
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from unteach.data.encoded import encode_all
from unteach.data.example import Example
from unteach.data.prompt_format import prompt_format
from unteach.data.reading import read_examples
from unteach.disk.cache import Cache
from unteach.models.layers import freeze_below, upper_layers
from unteach.objectives.loss import method_loss
from unteach.objectives.methods import Method, load_method
from unteach.scoring.compiled import Compiled
from unteach.scoring.lower import LowerStates
from unteach.scoring.reference import MOST_BYTES, CachedStates, Reference
from unteach.scoring.trees import Branch, Tree, lay_out, reply_trees
from unteach.training.settings import COMPILED

Row = tuple[tuple[int, ...], tuple[int, ...]]
ARMS = ("ours", "unpacked", "kept", "plain", "sft")
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
VOCABULARY = 32_000


@dataclass(frozen=True)
class Shape:
    """A Llama's size."""

    vocabulary: int
    width: int
    inner: int
    layers: int
    heads: int
    kv_heads: int

    def model(self, dtype: torch.dtype, device: str) -> LlamaForCausalLM:
        """Build the model with seeded random weights, in float32 first so that every dtype starts alike."""
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.inner,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
        )
        return LlamaForCausalLM(config).to(device=device, dtype=dtype).eval()


SHAPES = {
    "tiny": Shape(512, 32, 64, 2, 2, 1),
    "llama-23m": Shape(VOCABULARY, 384, 1024, 6, 6, 6),
    "llama-1b": Shape(128_256, 2048, 8192, 16, 32, 8),
}


@dataclass(frozen=True)
class Item:
    """One forget prompt with its bad reply and K mismatched ones, and the place of its normal row."""

    tree: Tree
    normal: int


@dataclass(frozen=True)
class Material:
    """Tokenised rows, and in words where they came from."""

    negatives: list[Row]
    normals: list[Row]
    source: str

    def batches(self, count: int, size: int, mismatches: int) -> list[list[Item]]:
        """Draw `count` batches of `size` items, seeded; decoys are replies of other normal rows."""
        rng = random.Random(0)
        return [[self._item(rng, mismatches) for _ in range(size)] for _ in range(count)]

    def _item(self, rng: random.Random, mismatches: int) -> Item:
        prompt, bad = rng.choice(self.negatives)
        decoys = rng.sample(self.normals, mismatches)
        branches = (Branch("negative", bad), *(Branch("mismatch", reply) for _, reply in decoys))
        return Item(Tree(prompt, branches), rng.randrange(len(self.normals)))


def real_rows(vocabulary: int, max_length: int) -> Material:
    """Tokenise hh negatives and TruthfulQA and instruction normals with a byte-level BPE trained on them."""
    negatives = read_examples(str(DATA / "hh_harmless.jsonl"), "negative")
    names = ("truthfulqa.jsonl", "instructions.jsonl")
    normals = [example for name in names for example in read_examples(str(DATA / name), "normal")]
    tokenizer = trained_tokenizer([*negatives, *normals], min(vocabulary, VOCABULARY))
    encoded = [encode_all(rows, prompt_format(tokenizer), max_length, "rows")[0] for rows in (negatives, normals)]
    rows = [[(row.prompt_ids, row.reply_ids) for row in some] for some in encoded]
    source = f"hh_harmless, truthfulqa, instructions; byte-level BPE of {len(tokenizer)} tokens trained on them"
    return Material(rows[0], rows[1], source)


def trained_tokenizer(examples: Sequence[Example], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on the examples' text: nothing is fetched."""
    trainer = ByteLevelBPETokenizer()
    texts = [text for example in examples for text in (example.prompt, example.reply)]
    trainer.train_from_iterator(texts, vocabulary, show_progress=False, special_tokens=["<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=trainer._tokenizer, bos_token="<s>", eos_token="</s>")


def random_rows(vocabulary: int, max_length: int) -> Material:
    """Make rows of random ids with about the lengths of the real ones, for machines without them."""
    rng = random.Random(0)

    def row(prompt: float, reply: float) -> Row:
        lengths = [max(2, int(rng.lognormvariate(0, 0.8) * mean)) for mean in (prompt, reply)]
        head, tail = min(lengths[0], max_length - 2), lengths[1]
        ids = [rng.randrange(2, vocabulary) for _ in range(min(head + tail, max_length))]
        return tuple(ids[:head]), tuple(ids[head:])

    rows = [[row(*means) for _ in range(500)] for means in ((100, 40), (25, 15))]
    return Material(rows[0], rows[1], f"random ids (no rows at {DATA})")


class Ours:
    """This project's step."""

    def __init__(
        self,
        model: Any,
        reference: Reference,
        packed: bool = True,
        lower: LowerStates | None = None,
        compiled: Compiled | None = None,
    ) -> None:
        self.model, self.reference, self.packed, self.lower, self.compiled = model, reference, packed, lower, compiled
        self.method: Method = load_method("ga-mismatch")

    def loss(self, items: Sequence[Item], material: Material) -> Tensor:
        forget = lay_out([item.tree for item in items], packed=self.packed).to(self.model.device)
        normals = lay_out(normal_trees(items, material), packed=self.packed).to(self.model.device)
        return method_loss(self.model, self.method, forget, normals, self.reference, self.lower).value

    def meet(self, items: Sequence[Item], material: Material) -> None:
        """Keep the states of rows that a run has met before."""
        if self.lower is not None:
            for trees in ([item.tree for item in items], normal_trees(items, material)):
                self.lower(lay_out(trees, packed=self.packed).to(self.model.device))


class Plain:
    """The same three losses as one writes them down first; shares no code with ours."""

    def __init__(self, model: Any, original: Any) -> None:
        self.model, self.original = model, original

    def loss(self, items: Sequence[Item], material: Material) -> Tensor:
        bad = [(item.tree.prompt_ids, item.tree.branches[0].reply_ids) for item in items]
        mismatched = [(item.tree.prompt_ids, b.reply_ids) for item in items for b in item.tree.branches[1:]]
        normals = [material.normals[item.normal] for item in items]
        return -0.5 * self.cross_entropy(bad) + self.cross_entropy(mismatched) + self.kl(normals)

    def cross_entropy(self, rows: Sequence[Row]) -> Tensor:
        inputs, mask = padded_rows(rows, self.model.device)
        logits, targets = self.model(**inputs).logits[:, :-1].float(), inputs["input_ids"][:, 1:]
        each = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
        return ((each * mask).sum(1) / mask.sum(1)).mean()

    def kl(self, rows: Sequence[Row]) -> Tensor:
        inputs, mask = padded_rows(rows, self.model.device)
        with torch.no_grad():
            before = self.original(**inputs).logits[:, :-1].float().log_softmax(-1)
        after = self.model(**inputs).logits[:, :-1].float().log_softmax(-1)
        each = F.kl_div(after, before, log_target=True, reduction="none").sum(-1)
        return ((each * mask).sum(1) / mask.sum(1)).mean()


class Sft:
    """Plain supervised fine-tuning over the distinct tokens of the same items."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def loss(self, items: Sequence[Item], material: Material) -> Tensor:
        trees = [(i.tree.prompt_ids, sum((b.reply_ids for b in i.tree.branches), ())) for i in items]
        normals = [material.normals[item.normal] for item in items]
        losses = []
        for rows in (trees, normals):  # two batches: long and short rows in one would pad more and flatter us
            inputs, mask = padded_rows(rows, self.model.device)
            labels = inputs["input_ids"].masked_fill(~F.pad(mask, (1, 0)), -100)
            losses.append(self.model(**inputs, labels=labels).loss)
        return torch.stack(losses).mean()


def normal_trees(items: Sequence[Item], material: Material) -> list[Tree]:
    """Return the items' normal rows as trees that the reference knows by their keys."""
    rows = [(item.normal, *material.normals[item.normal]) for item in items]
    return [Tree(prompt, (Branch("normal", reply),), ("normals", key)) for key, prompt, reply in rows]


def padded_rows(rows: Sequence[Row], device: torch.device | str) -> tuple[dict[str, Any], Tensor]:
    """Pad prompt + reply rows on the right; returns the model's inputs and which next tokens are of a reply."""
    width = max(len(prompt) + len(reply) for prompt, reply in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    attended, scored = torch.zeros_like(ids), torch.zeros(len(rows), width - 1, dtype=torch.bool)
    for place, (prompt, reply) in enumerate(rows):
        length = len(prompt) + len(reply)
        ids[place, :length] = torch.tensor(prompt + reply)
        attended[place, :length] = 1
        scored[place, len(prompt) - 1 : length - 1] = True
    inputs = {"input_ids": ids.to(device), "attention_mask": attended.to(device), "use_cache": False}
    return inputs, scored.to(device)


def make_arm(name: str, model: Any, material: Material, needed: Sequence[int], cache: Path) -> Ours | Plain | Sft:
    """Make an arm that trains `model`; the reference is the model as it is now, the normal rows `needed` only."""
    if name in ("ours", "unpacked", "kept", *COMPILED):
        trees = reply_trees("normals", material.normals, "normal")
        reference = CachedStates.build(model, [trees[key] for key in needed], Cache(cache, MOST_BYTES), "normals")
        if name == "kept":
            freeze_below(model, upper_layers(model, 0.5).start)
        compiled = Compiled(model, flex=name == "flex") if name in COMPILED else None
        return Ours(model, reference, name != "unpacked", LowerStates.of(model), compiled)
    return Plain(model, copy.deepcopy(model).requires_grad_(False)) if name == "plain" else Sft(model)


def step(arm: Ours | Plain | Sft, optimizer: torch.optim.Optimizer, items: Sequence[Item], material: Material) -> float:
    """Take one optimizer step; returns its seconds."""
    if isinstance(arm, Ours):
        arm.meet(items, material)
    wait = torch.cuda.synchronize if arm.model.device.type == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    with running(arm):
        arm.loss(items, material).backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    wait()
    return time.perf_counter() - start


def running(arm: Ours | Plain | Sft) -> AbstractContextManager[None]:
    """Hold a forward and its backward pass, compiled where the arm is."""
    return arm.compiled.on() if isinstance(arm, Ours) and arm.compiled else nullcontext()


def adamw(model: Any) -> torch.optim.Optimizer:
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-5, fused=True)


def peak_bytes(
    name: str, model: Callable[[], Any], items: Sequence[Item], material: Material, threads: int, cache: str
) -> int:
    """Return the bytes that one step of an arm needs beyond the loaded model. Runs in a process of its own."""
    torch.set_num_threads(threads)
    live = model()
    cuda = live.device.type == "cuda"
    before = torch.cuda.memory_allocated() if cuda else process_bytes("VmRSS")
    arm = make_arm(name, live, material, [item.normal for item in items], Path(cache))
    step(arm, adamw(live), items, material)
    return (torch.cuda.max_memory_allocated() if cuda else process_bytes("VmHWM")) - before


def process_bytes(field: str) -> int:
    """Return this process's memory by Linux's own count: VmRSS now, VmHWM at its highest.

    Not getrusage: its peak includes the parent's size at the time of the spawn.
    """
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def peaks(names: Sequence[str], model: Callable[[], Any], items: Sequence[Item], material: Material) -> dict[str, int]:
    """Measure each arm's peak in a fresh process, one after the other.

    They are forked from a server that has imported the libraries and nothing else: no tokenizer, no model, no CUDA.
    """
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(
        ["transformers.models.llama.modeling_llama", "unteach.objectives.loss", "unteach.data.layouts"]
    )
    found = {}
    for name in names:
        with tempfile.TemporaryDirectory() as cache, server.Pool(1) as pool:
            found[name] = pool.apply(peak_bytes, (name, model, items, material, torch.get_num_threads(), cache))
    return found


def differences(
    shape: Shape, device: str, items: Sequence[Item], material: Material, name: str = "ours"
) -> tuple[float, float]:
    """Return the relative differences of loss and of gradients between ours (or the arm `name`) and plain, in float32.

    The live model is moved off the original first, so that the KL has a gradient. A gradient's difference is its
    largest element's, over the largest element of the plain gradient; the worst parameter counts.
    """
    live = shape.model(torch.float32, device)
    found = []
    with tempfile.TemporaryDirectory() as cache:
        needed = [item.normal for item in items]
        arms = [make_arm(name, live, material, needed, Path(cache)) for name in (name, "plain")]
        torch.manual_seed(1)
        with torch.no_grad():
            for weight in live.parameters():
                weight += 0.1 * weight.abs().mean() * torch.randn_like(weight)
        for arm in arms:
            with running(arm):
                loss = arm.loss(items, material)
                loss.backward()
            gradients = {name: p.grad.clone() for name, p in live.named_parameters() if p.grad is not None}
            found.append((loss.item(), gradients))
            live.zero_grad(set_to_none=True)
    (ours, our_gradients), (plain, plain_gradients) = found
    worst = max(
        float((our_gradients[name] - gradient).abs().max() / gradient.abs().max())
        for name, gradient in plain_gradients.items()
    )
    return abs(ours - plain) / abs(plain), worst


def timed(
    names: Sequence[str], model: Callable[[], Any], batches: Sequence[Sequence[Item]], material: Material
) -> dict[str, list[float]]:
    """Return the seconds of each arm's steps over the same batches, taken in turn; the first batch warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as cache:
        needed = sorted({item.normal for batch in batches for item in batch})
        arms = {name: make_arm(name, model(), material, needed, Path(cache)) for name in names}
        optimizers = {name: adamw(arm.model) for name, arm in arms.items()}
        for batch in batches:
            for name, arm in arms.items():
                seconds[name].append(step(arm, optimizers[name], batch, material))
    return seconds


def metrics(arguments: argparse.Namespace, material: Material, size: int) -> dict[str, Any]:
    """Measure everything at one batch size."""
    shape, dtype = SHAPES[arguments.shape], getattr(torch, arguments.dtype)
    model = partial(shape.model, dtype, arguments.device)
    batches = material.batches(arguments.rounds + 1, size, arguments.mismatches)
    names = (*ARMS, *arguments.compile)
    seconds = timed(names, model, batches, material)
    first = {name: values.pop(0) for name, values in seconds.items()}
    trees = [[*(item.tree for item in batch), *normal_trees(batch, material)] for batch in batches]
    tokens = [lay_out(rows).token_count for rows in trees]
    median = {name: statistics.median(values) for name, values in seconds.items()}
    paired = {
        name: statistics.median(other / ours for other, ours in zip(seconds[name], seconds["ours"], strict=True))
        for name in names[1:]
    }
    loss, gradient = differences(shape, arguments.device, batches[0], material)
    return {
        "batch": size,
        "distinct_tokens": statistics.median(tokens[1:]),
        "seconds": median,
        "tokens_per_second": {name: sum(tokens[1:]) / sum(values) for name, values in seconds.items()},
        "faster_than_plain": paired["plain"],
        "faster_than_unpacked": paired["unpacked"],
        "times_sft": 1 / paired["sft"],
        "kept_times_sft": paired["kept"] / paired["sft"],
        "peak_bytes": peaks(names, model, max(batches, key=lambda b: sum(len(i.tree.prompt_ids) for i in b)), material),
        "loss_difference": loss,
        "gradient_difference": gradient,
        "compiled": {
            name: {
                "faster_than_ours": 1 / paired[name],
                "first_step_seconds": first[name],
                "differences": differences(shape, arguments.device, batches[0], material, name),
            }
            for name in arguments.compile
        },
    }


def show(result: dict[str, Any]) -> None:
    """Print one batch size's metrics for people."""
    print(f"\nB = {result['batch']}: {result['distinct_tokens']:.0f} distinct tokens a step (median)")
    for name in result["seconds"]:
        print(
            f"  {name:9s}{result['seconds'][name] * 1e3:10.1f} ms a step"
            f"{result['tokens_per_second'][name]:10.0f} tokens/s{result['peak_bytes'][name] / 2**20:9.0f} MiB peak"
        )
    faster, times = result["faster_than_plain"], result["times_sft"]
    packing = result["faster_than_unpacked"]
    print(f"  {faster:.2f} times as fast as plain, {packing:.2f} times as fast as unpacked, ", end="")
    print(f"{times:.2f} times an SFT step, with kept states {result['kept_times_sft']:.2f} times (medians of pairs)")
    loss, gradient = result["loss_difference"], result["gradient_difference"]
    print(f"  fp32 difference to plain: loss {loss:.1e}, worst gradient {gradient:.1e}")
    for name, compiled in result["compiled"].items():
        loss, gradient = compiled["differences"]
        print(f"  compiled ({name}): {compiled['faster_than_ours']:.2f} times as fast as ours; ", end="")
        print(f"first step {compiled['first_step_seconds']:.0f} s; loss {loss:.1e}, worst gradient {gradient:.1e}")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama-23m")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], default="float32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, nargs="+", default=[2, 4], metavar="B")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mismatches", type=int, default=5, metavar="K")
    parser.add_argument("--max-length", type=int, default=512, help="tokens of prompt and reply")
    parser.add_argument("--random-rows", action="store_true", help="random ids, also where the real rows are at hand")
    parser.add_argument("--compile", choices=COMPILED, nargs="+", default=[], help="arms to add; flex needs a GPU")
    parser.add_argument("--json", action="store_true", help="print the metrics as one last line")
    arguments = parser.parse_args(argv)
    make = random_rows if arguments.random_rows or not DATA.exists() else real_rows
    material = make(SHAPES[arguments.shape].vocabulary, arguments.max_length)
    device = f"{arguments.device}, {torch.get_num_threads()} threads"
    print(f"{arguments.shape}, {arguments.dtype}, {device}, K = {arguments.mismatches}")
    print(f"rows: {material.source}\nreference of ours: cached states; of plain: a second model")
    results = [metrics(arguments, material, size) for size in arguments.batch]
    for result in results:
        show(result)
    if arguments.json:
        settings = {key: value for key, value in vars(arguments).items() if key != "json"}
        settings |= {"rows": material.source, "sizes": asdict(SHAPES[arguments.shape])}
        print(json.dumps({"settings": settings, "results": results}))


if __name__ == "__main__":
    main()
