"""A bench of toy rows for tests of baselines: a learned toy model in memory, with pairs of a good and a bad reply."""

from dataclasses import replace
from pathlib import Path

import toy
from unteach.baselines.baseline_run import BaselineRun
from unteach.baselines.config import BaselineConfig
from unteach.baselines.rows import BaselineRows
from unteach.data.example import Example
from unteach.data.prompt_format import prompt_format
from unteach.judges import load_judge
from unteach.pipeline.original import Original
from unteach.pipeline.rows import Sets

GOOD = "sorry no"


def negatives(start=0, stop=24):
    rows = toy.FORGET[start:stop]
    return [Example.of(row["prompt"], row["completion"], good=GOOD, where=f"row {n}") for n, row in enumerate(rows, 1)]


def normals(start=0, stop=24):
    return [Example.of(row["prompt"], row["completion"]) for row in toy.RETAIN[start:stop]]


def rows_of(bad=None, kept=None, validation=None):
    kept = normals(0, 20) if kept is None else kept
    sets = Sets({}, {"train": kept, "validation": normals(20, 24)}, {}, [], [])
    validation = negatives(20, 24) if validation is None else validation
    return BaselineRows(sets, negatives(0, 20) if bad is None else bad, validation)


def bench(directory: Path, name="sft", model=None, rows=None, tokenizer=None, **settings) -> BaselineRun:
    (directory / "out").mkdir(exist_ok=True)
    quick = {"baseline": name, "device": "cpu", "max_new_tokens": 6, "learning_rate": 3e-3}
    model = model or toy.learned_model()
    form = prompt_format(tokenizer or toy.tokenizer(), "auto", 2)
    config = BaselineConfig(**(quick | settings))
    original = Original("toy", model, form.tokenizer, form, "key")
    return BaselineRun(config, rows or rows_of(), original, 64, load_judge("repeats"), directory / "out")


def ids(bench, row, reply=None):
    """The ids of a prompt and of a reply to it."""
    reply = row.reply if reply is None else reply
    return tuple(bench.original.form.prompt_ids(row.turns)), tuple(bench.original.form.reply_ids(row.turns, reply))


def log_prob(model, prompt, reply):
    """The log-probability of a reply, by a plain forward."""
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *reply]])).logits[0].log_softmax(-1)
    places = range(len(prompt) - 1, len(prompt) + len(reply) - 1)
    return float(sum(logits[place, token] for place, token in zip(places, reply, strict=True)))


def mean_log_prob(bench, model, examples, reply=None):
    values = [log_prob(model, *ids(bench, row, reply)) for row in examples]
    return sum(values) / len(values)


def without_answers(rows):
    return [replace(row, good=None) for row in rows]
