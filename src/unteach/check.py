"""Look at a model on every split: its replies, their verdicts, and how likely it finds the known replies."""

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from unteach.data.encoded import Encoded
from unteach.data.layout import lay_out
from unteach.data.prompt_format import PromptFormat
from unteach.generate import generate
from unteach.judges.base import Case, Judge, Verdict
from unteach.measurement import HARM_SPLITS, Measurement
from unteach.probes import all_probes
from unteach.probes.base import Evidence
from unteach.progress import track
from unteach.reference import Reference, one_branch
from unteach.report.schema import Cost, Sample
from unteach.scoring import answers, greedy_hits, score, unwrapped

Splits = Mapping[str, Sequence[Encoded]]
BATCH_TOKENS = 4096


@dataclass
class Look:
    """One arm on one split: parallel lists, one entry a row. `reply_nll` comes later, from the original model."""

    cases: list[Case]
    verdicts: list[Verdict]
    reply_ids: list[list[int]]
    nll: list[float]
    hits: list[list[bool]]
    kl: list[float] | None = None
    reply_nll: list[float | None] | None = None


@dataclass
class Checked:
    """All looks so far, by arm and split, and what they cost."""

    splits: Splits
    looks: dict[str, dict[str, Look]] = field(default_factory=dict)
    cost: list[Cost] = field(default_factory=list)


def look_at(
    checked: Checked,
    arm: str,
    model: Any,
    prompt_format: PromptFormat,
    judge: Judge,
    max_new_tokens: int,
    reference: Reference | None = None,
) -> None:
    """Measure an arm on all splits and add it to `checked`.

    The rows are encoded for the original, so every arm must have its tokenizer. `reference` gives the original's
    answers for KL; without it no KL is taken.
    """
    began, tokens = time.monotonic(), 0
    looks: dict[str, Look] = {}
    key = 0
    for split, rows in checked.splits.items():
        with track(f"checking {arm}: {split}") as progress:
            prompts = [row.prompt_ids for row in rows]
            replies = generate(
                unwrapped(model), prompt_format.tokenizer, prompts, max_new_tokens=max_new_tokens, progress=progress
            )
        cases = [case_of(row, reply, split) for row, reply in zip(rows, replies, strict=True)]
        reply_ids = [prompt_format.reply_ids(row.example.turns, r) for row, r in zip(rows, replies, strict=True)]
        nll, hits, kl = _known_replies(model, rows, prompt_format, key, reference)
        looks[split] = Look(cases, judge(cases), reply_ids, nll, hits, kl)
        tokens += sum(len(ids) for ids in reply_ids) + sum(len(r.prompt_ids) * 2 + len(r.reply_ids) for r in rows)
        key += len(rows)
    checked.looks[arm] = looks
    checked.cost.append(cost_of(model, arm, "checking", time.monotonic() - began, tokens, backward=False))


def case_of(row: Encoded, reply: str, split: str) -> Case:
    """Return what a judge is shown: the known bad reply on harmful splits, the right one on normal splits."""
    example = row.example
    if split in HARM_SPLITS:
        return Case(example.prompt, reply, bad=example.reply, concept=example.concept)
    return Case(example.prompt, reply, good=example.reply, concept=example.concept)


def known_trees(splits: Splits) -> list[Any]:
    """Return all rows of all splits as one-branch trees, keyed by their place: the rows a reference must know."""
    rows = [row for split in splits.values() for row in split]
    return one_branch([(row.prompt_ids, row.reply_ids) for row in rows], "normal")


@torch.no_grad()
def _known_replies(
    model: Any, rows: Sequence[Encoded], prompt_format: PromptFormat, first_key: int, reference: Reference | None
) -> tuple[list[float], list[list[bool]], list[float] | None]:
    """Score the known replies: nats per token, greedy hits per token, and KL per token where there is a reference."""
    nll, kl = [0.0] * len(rows), [0.0] * len(rows)
    hits: list[list[bool]] = [[] for _ in rows]
    trees = one_branch([(row.prompt_ids, row.reply_ids) for row in rows], "normal")
    device = next(unwrapped(model).parameters()).device
    for numbers in _batches([len(row.prompt_ids) + len(row.reply_ids) for row in rows]):
        keyed = [type(trees[n])(trees[n].prompt_ids, trees[n].branches, first_key + n) for n in numbers]
        batch = lay_out(keyed, prompt_format.ids.pad_id).to(device)
        original = reference(batch) if reference else None
        live = answers(model, batch)
        scores = score(live, batch.targets, original)
        greedy = greedy_hits(live, batch.targets)
        for place, number in enumerate(numbers):
            own = batch.branches == place
            nll[number] = -float(scores.log_probs[own].mean())
            hits[number] = greedy[own].tolist()
            if scores.kl is not None:
                kl[number] = max(0.0, float(scores.kl[own].mean()))
    return nll, hits, kl if reference else None


@torch.no_grad()
def add_fluency(checked: Checked, original: Any, prompt_format: PromptFormat) -> None:
    """Score every arm's own replies under the original model, in nats per token."""
    began, tokens = time.monotonic(), 0
    device = next(unwrapped(original).parameters()).device
    for looks in checked.looks.values():
        for split, look in looks.items():
            rows = checked.splits[split]
            values: list[float | None] = [None] * len(rows)
            spoken = [n for n, case in enumerate(look.cases) if case.reply.strip()]
            trees = one_branch([(rows[n].prompt_ids, tuple(look.reply_ids[n])) for n in spoken], "normal")
            for places in _batches([len(tree.prompt_ids) + len(tree.branches[0].reply_ids) for tree in trees]):
                batch = lay_out([trees[place] for place in places], prompt_format.ids.pad_id).to(device)
                log_probs = score(answers(original, batch), batch.targets).log_probs
                for number, place in enumerate(places):
                    values[spoken[place]] = -float(log_probs[batch.branches == number].mean())
                tokens += batch.token_count
            look.reply_nll = values
    checked.cost.append(cost_of(original, "original", "fluency", time.monotonic() - began, tokens, backward=False))


def measure(checked: Checked) -> list[Measurement]:
    """Ask every probe about every arm on every split it is for."""
    found: list[Measurement] = []
    for arm, looks in checked.looks.items():
        for split, look in looks.items():
            original = checked.looks["original"][split]
            evidence = Evidence(
                arm=arm,
                split=split,
                cases=look.cases,
                verdicts=look.verdicts,
                original_replies=[case.reply for case in original.cases],
                original_verdicts=original.verdicts,
                reply_tokens=[len(ids) for ids in look.reply_ids],
                nll=look.nll,
                kl=look.kl,
                argmax_hits=look.hits,
                reply_nll=look.reply_nll,
            )
            for probe in all_probes():
                if split in probe.splits:
                    found += probe(evidence)
    return found


def samples(checked: Checked) -> list[Sample]:
    """Return every prompt with all arms' replies and verdicts."""
    return [
        Sample(
            split=split,
            prompt=row.example.prompt,
            replies={arm: looks[split].cases[n].reply for arm, looks in checked.looks.items()},
            verdicts={arm: looks[split].verdicts[n] for arm, looks in checked.looks.items()},
        )
        for split, rows in checked.splits.items()
        for n, row in enumerate(rows)
    ]


def cost_of(model: Any, arm: str, stage: str, seconds: float, tokens: int, backward: bool) -> Cost:
    """Return one line of the bill: model FLOPs are 2 a parameter and token forward, 6 with backward."""
    parameters = sum(p.numel() for p in unwrapped(model).parameters())
    flops = float((6 if backward else 2) * parameters * tokens)
    return Cost(arm=arm, stage=stage, wall_seconds=seconds, tokens=tokens, flops=flops, peak_bytes=peak_bytes())


def peak_bytes() -> int:
    """Return the most memory held so far: on the GPU where there is one, else by the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _batches(lengths: Sequence[int]) -> list[list[int]]:
    """Group row numbers by length so that a batch, padded, holds about BATCH_TOKENS tokens."""
    ordered = sorted(range(len(lengths)), key=lambda n: lengths[n])
    batches: list[list[int]] = [[]]
    for number in ordered:
        if batches[-1] and (len(batches[-1]) + 1) * lengths[number] > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(number)
    return [batch for batch in batches if batch]
