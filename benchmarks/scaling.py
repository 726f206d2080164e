"""How a training step grows: with rows, with distinct tokens and with ranks; and, on paper, a 70B model on many cards.

    python benchmarks/scaling.py                         a tiny Llama on the CPU, then the paper; some minutes
    python benchmarks/scaling.py --part paper            the arithmetic alone, in seconds
    python benchmarks/scaling.py --part ranks --rounds 9

A step is one of `graddiff` (ascent on negatives, NLL on normal rows) with AdamW, over random ids: prompts of 16 tokens,
replies of 32, one normal row to each negative.

    rows     steps over 1, 2, 4 and 8 batches of rows: seconds in all, against the number of rows
    tokens   one batch with replies of 16 to 128 tokens: seconds a step, against the tokens that are computed
    ranks    a batch on one of 2 processes while the other waits, then one on each, gradients averaged by DDP over gloo
             (weak scaling: as much work for each)
    paper    memory, traffic and time of a step of a 70B model on 8 and 64 cards (`unteach.pipeline.cards`)

`ranks` also prints the bytes that DDP hands over for averaging, beside the formula's. All sizes of a part are measured
in turn, round after round. A ratio is the median of the rounds' own ratios, so that what else the machine does meets
both of its sides; seconds are medians over the rounds, and on a shared machine they say little.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from transformers import LlamaConfig, LlamaForCausalLM

from unteach.models.outline import model_outline, outline_of
from unteach.objectives.loss import method_loss
from unteach.objectives.methods import load_method
from unteach.pipeline.cards import STRATEGIES, Cluster, memory_of, step_time, traffic_of
from unteach.pipeline.stages import in_flops
from unteach.report.wording import seconds, size
from unteach.results.cost import flops_of
from unteach.scoring.trees import Branch, Tree, lay_out

PARTS = ("rows", "tokens", "ranks", "paper")
VOCABULARY, PROMPT, REPLY = 2000, 16, 32
LARGE = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
LARGE |= {"num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192}
"""The shape of Llama 3 70B."""
CARD = {"memory": 80e9, "throughput": 4e14}
"""An H100: 80 GB, and 400 TFLOP/s, which is 40 % of what it can do in bfloat16."""
BATCH, TOKENS = 64, 24_576
"""A batch of the paper: negatives, and tokens in all."""


def tiny(width: int = 128, layers: int = 4) -> Any:
    """Return a Llama of about a million parameters, at random."""
    torch.manual_seed(0)
    heads = {"num_attention_heads": 4, "num_key_value_heads": 4}
    shape = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": layers}
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=512, **shape, **heads))


def batch_of(rows: int, reply: int, seed: int) -> tuple[Any, Any]:
    """Lay out so many negatives and as many normal rows, of random ids."""
    draw = random.Random(seed)

    def trees(split: str, stream: Any) -> list[Tree]:
        def ids(count: int) -> tuple[int, ...]:
            return tuple(draw.randrange(3, VOCABULARY) for _ in range(count))

        return [Tree(ids(PROMPT), (Branch(stream, ids(reply)),), (split, row)) for row in range(rows)]

    return tuple(lay_out(trees(stream, stream), packed=True) for stream in ("negative", "normal"))  # type: ignore[return-value]


class Stepper:
    """Makes optimizer steps on one model, which DDP may wrap."""

    def __init__(self, model: Any) -> None:
        self.model, self.method = model, load_method("graddiff")
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def __call__(self, batch: tuple[Any, Any]) -> None:
        """Make one step."""
        method_loss(self.model, self.method, *batch, None).value.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def timed(work: Callable[[], Any]) -> float:
    """Return how many seconds a piece of work takes."""
    began = time.monotonic()
    work()
    return time.monotonic() - began


def line_through(points: list[tuple[float, float]]) -> dict[str, float]:
    """Return a least-squares line and the share of the variance that it explains."""
    x, y = (np.array(values, dtype=float) for values in zip(*points, strict=True))
    slope, start = np.polyfit(x, y, 1)
    rest, whole = ((y - start - slope * x) ** 2).sum(), ((y - y.mean()) ** 2).sum()
    return {"each": float(slope), "at_zero": float(start), "explained": float(1 - rest / whole)}


def ratios_of(took: dict[int, list[float]]) -> list[float]:
    """Return how many times as long as the first size each size took: the median of the ratios within the rounds."""
    first = next(iter(took.values()))
    return [statistics.median(mine / base for mine, base in zip(found, first, strict=True)) for found in took.values()]


def _all(step: Callable[[Any], None], batches: Sequence[Any]) -> None:
    for batch in batches:
        step(batch)


def over_rows(rounds: int, rows: int) -> dict[str, Any]:
    """Time a pass over one to eight batches."""
    step, batches = Stepper(tiny()), [batch_of(rows, REPLY, seed) for seed in range(8)]
    step(batches[0])
    took = {count: list[float]() for count in (1, 2, 4, 8)}
    for _ in range(rounds):
        for count, found in took.items():
            found.append(timed(partial(_all, step, batches[:count])))
    points = [(float(2 * rows * count), statistics.median(found)) for count, found in took.items()]
    return {"points": points, "ratios": ratios_of(took), **line_through(points)}


def over_tokens(rounds: int, rows: int) -> dict[str, Any]:
    """Time a step of the same rows with shorter and longer replies."""
    step = Stepper(tiny())
    batches = {reply: batch_of(rows, reply, 0) for reply in (16, 32, 64, 96, 128)}
    took = {reply: list[float]() for reply in batches}
    for batch in batches.values():
        step(batch)
    for _ in range(rounds):
        for reply, batch in batches.items():
            took[reply].append(timed(partial(step, batch)))
    counted = {reply: sum(part.token_count for part in batch) for reply, batch in batches.items()}
    points = [(float(counted[reply]), statistics.median(found)) for reply, found in took.items()]
    flops = [flops_of(tiny(), backward=tokens) for tokens in counted.values()]
    measured = {"points": points, "ratios": ratios_of(took), **line_through(points)}
    return measured | {"flops_per_second": flops[-1] / points[-1][1]}


# ---- ranks -----------------------------------------------------------------------------------------------------------


def on_ranks(count: int, rounds: int, rows: int) -> dict[str, Any]:
    """Time a step of one rank alone and one of all, each with a batch of its own; count the bytes that DDP averages."""
    with tempfile.TemporaryDirectory() as place:
        found = Path(place) / "found.json"
        arguments = (count, f"file://{place}/meet", rounds, rows, str(found))
        multiprocessing.start_processes(_rank, arguments, nprocs=count, start_method="fork")
        told: dict[str, Any] = json.loads(found.read_text())
    return told


def _rank(number: int, count: int, meet: str, rounds: int, rows: int, found: str) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=meet, rank=number, world_size=count)
    model, handed = tiny(), [0]
    whole: Any = torch.nn.parallel.DistributedDataParallel(
        model, forward_sync_buffers=False
    )  # two forwards, one backward

    def counted(_: object, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # DDP reads these types
        mean = bucket.buffer()
        handed[0] += mean.numel() * mean.element_size()
        return dist.all_reduce(mean.div_(count), async_op=True).get_future().then(lambda future: future.value()[0])

    whole.register_comm_hook(None, counted)
    together, alone, batch = Stepper(whole), Stepper(tiny()), batch_of(rows, REPLY, number)
    for step in (together, alone):
        step(batch)
    handed[0], took = 0, {1: list[float](), count: list[float]()}
    for _ in range(rounds):
        dist.barrier()
        if number == 0:  # the others wait at the next barrier, without computing
            took[1].append(timed(partial(alone, batch)))
        dist.barrier()
        took[count].append(timed(partial(together, batch)))
    if number == 0:
        medians = {ranks: statistics.median(found) for ranks, found in took.items()}
        told = {"ranks": count, "alone": medians[1], "together": medians[count], "ratio": ratios_of(took)[1]}
        told |= {"averaged": handed[0] / rounds, "ring": traffic_of(outline_of(model), "DDP", "full", count)}
        Path(found).write_text(json.dumps(told))
    dist.barrier()
    dist.destroy_process_group()


# ---- on paper --------------------------------------------------------------------------------------------------------


def on_paper() -> list[dict[str, Any]]:
    """Return memory, traffic and time of a step of a 70B model, full tuning, on 8 and 64 cards."""
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "config.json").write_text(json.dumps(LlamaConfig(**LARGE).to_dict()))
        model = model_outline(place)
    outline, rates, found = outline_of(model), in_flops(model), []
    for nodes, bandwidth in ((1, 4e11), (8, 5e10)):
        cluster = Cluster(nodes, 8, bandwidth=bandwidth, **CARD)
        for strategy in STRATEGIES:
            tokens = TOKENS / cluster.cards
            memory = memory_of(outline, strategy, "full", cluster.cards, tokens)
            sent = traffic_of(outline, strategy, "full", cluster.cards)
            took = step_time(rates.backward * TOKENS, sent, cluster, checkpointing=True)
            facts = {"cards": cluster.cards, "strategy": strategy, "tokens": tokens, "sent": sent, **asdict(took)}
            whole = {"whole": memory.whole(False), "whole_checkpointed": memory.whole(True)}
            found.append(facts | asdict(memory) | whole | {"parameters": outline.parameters, "flops": rates.backward})
    return found


def print_paper(rows: list[dict[str, Any]]) -> None:
    """Show the table, and how the numbers of one line come about."""
    count = rows[0]["parameters"]
    print(f"\non paper: {count:,} parameters, full tuning, {BATCH} negatives = {TOKENS:,} tokens a step, on a card:")
    heads = ("state", "tokens", "in all", "checkpointed", "sent", "computing", "sending")
    print(f"{'cards':>5} {'strategy':<9}" + "".join(f"{head:>13}" for head in heads))
    for row in rows:
        state = row["weights"] + row["gradients"] + row["optimizer"]
        fits = "  fits" if row["whole_checkpointed"] <= 0.9 * CARD["memory"] else ""
        cells = [size(state), f"{row['tokens']:.0f}", size(row["whole"]), size(row["whole_checkpointed"])]
        cells += [size(row["sent"]), seconds(row["computing"]), seconds(row["sending"])]
        print(f"{row['cards']:>5} {row['strategy']:<9}" + "".join(f"{cell:>13}" for cell in cells) + fits)
    row = next(row for row in rows if row["cards"] == 64 and row["strategy"] == "FSDP2")
    each, speed = size(row["flops"], "FLOP"), size(CARD["throughput"], "FLOP/s")
    kept = size(row["activations"] / row["tokens"])
    print("arithmetic, for FSDP2 on 64 cards:")
    print(f"  state        16 B x {count:,} / 64 = {size(16 * count / 64)}")
    print(f"  activations  {row['tokens']:.0f} tokens x {kept} = {size(row['activations'])}")
    print(f"  computing    {TOKENS:,} x {each} x 4/3 / (64 x {speed}) = {row['computing']:.2f} s")
    print(f"  sent         63/64 x (4 passes x 4 B + 4 B) x {count:,} = {size(row['sent'])}")
    print(f"  sending      {size(row['sent'])} / 50 GB/s = {row['sending']:.1f} s")


def print_part(part: str, told: Any, rows: int) -> None:
    """Show what was measured, or counted, of a part."""
    if part == "paper":
        print_paper(told)
        return
    if part == "ranks":
        took = f"1 alone {told['alone'] * 1e3:.1f} ms a step, {told['ranks']} together {told['together'] * 1e3:.1f} ms"
        sent = f"DDP averages {size(told['averaged'])}, and each rank of a ring sends {size(told['ring'])}"
        print(f"ranks, {rows} negatives each: {took}; {sent}")
        print(f"weak scaling, 1 to {told['ranks']} ranks: {1 / told['ratio']:.2f} of perfect")
        return
    slope = f"{told['each'] * 1e6:.1f} us each + {told['at_zero'] * 1e3:.1f} ms"
    print(f"{part}: {_points(told)}; a line, {slope}, explains {told['explained']:.4f}")
    if part == "tokens":
        print(f"the last of these: {size(told['flops_per_second'], 'FLOP/s')}")


def main(words: list[str] | None = None) -> None:
    """Measure the parts that were asked for, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=8, help="negatives in a batch")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(words)
    torch.set_num_threads(1)
    parts: dict[str, Callable[[], Any]] = {
        "rows": partial(over_rows, asked.rounds, asked.rows),
        "tokens": partial(over_tokens, asked.rounds, asked.rows),
        "ranks": partial(on_ranks, 2, asked.rounds, asked.rows),
        "paper": on_paper,
    }
    found = {}
    for part in PARTS:
        if part in asked.part:
            found[part] = parts[part]()
            print_part(part, found[part], asked.rows)
    if asked.json:
        print(json.dumps(found))


def _points(told: dict[str, Any]) -> str:
    """Say how long each size took, and how many times as long as the first, beside how much larger it is."""
    first = told["points"][0][0]
    rows = zip(told["points"], told["ratios"], strict=True)
    return ", ".join(
        f"{x:.0f} {y * 1e3:.0f} ms ({x / first:.2f} x the work, {times:.2f} x the time)" for (x, y), times in rows
    )


if __name__ == "__main__":
    main()
