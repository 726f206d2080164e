"""Where does it show that a reply is a bad one: in the prompt, or only as the reply goes on?

    python benchmarks/where_it_shows.py --model ../shared/testbed/original --forget ../shared/data/hh_harmless.jsonl \
        --retain ../shared/data/truthfulqa.jsonl --retain ../shared/data/instructions.jsonl --evaluation-max-length 200

A logistic regression learns to tell the training negatives from the training normals by the original's own hidden
states (every layer) at the prompt's end and, averaged, over the first tokens of the reply that the original gives. It
is then asked about held-out rows: negatives that the original really repeats, and normals that it answers rightly.
Printed: how many of these normals would be taken for negatives if so many negatives may pass. A method that decides
whether to refuse at the first token has the first line to work with.
"""

import argparse
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from unteach.data.encoded import Encoded, encode_all
from unteach.judges import load_judge
from unteach.judges.base import case_of
from unteach.models.generate import generate
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.original import load_original
from unteach.pipeline.rows import encode_splits, read_sets
from unteach.pipeline.settings import make_config

READ = (0, 3, 15)
"""Tokens of the reply that the classifier sees."""
PASS = range(5)
"""Negatives that may pass."""
LONGEST = 400


@torch.no_grad()
def hidden(model: Any, ids: Sequence[int]) -> Float[torch.Tensor, "layer token width"]:
    """Return the hidden states of a text: what enters the first layer, and what leaves each."""
    read = torch.tensor([ids], device=model.device)
    return torch.stack(model(read, output_hidden_states=True).hidden_states)[:, 0].float()


def states(model: Any, rows: list[Encoded], replies: list[tuple[int, ...]], read: int) -> np.ndarray:
    """Return a row's hidden states at the prompt's end and, averaged, from there over `read` tokens of its reply."""
    found = []
    for row, reply in zip(rows, replies, strict=True):
        layers, end = hidden(model, row.prompt_ids + reply[:read]), len(row.prompt_ids) - 1
        found.append(torch.cat([layers[:, end], layers[:, end:].mean(dim=1)]).flatten().cpu().numpy())
    return np.stack(found)


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--forget", action="append", required=True)
    parser.add_argument("--retain", action="append", required=True)
    parser.add_argument("--evaluation-max-length", type=int)
    parser.add_argument("--seed", type=int, default=0)
    with tempfile.TemporaryDirectory() as scratch:
        config = with_defaults(make_config(vars(parser.parse_args(words)) | {"output": scratch}, RunConfig))
        print(table(config))


def table(config: RunConfig) -> str:
    """Fit the classifiers and return what is printed."""
    sets = read_sets(config)
    original = load_original(config)
    tokenizer, model, form = original.tokenizer, original.model, original.form
    held = encode_splits({name: sets.evaluation[name] for name in ("unseen", "normal")}, form, config, 512, [])
    groups = {"negative": sets.negatives["train"], "normal": sets.normals["train"]}
    rows = {name: encode_all(found, form, LONGEST, name)[0] for name, found in groups.items()}
    rows |= {"bad": held["unseen"], "right": held["normal"]}
    said = {
        name: generate(model, tokenizer, [r.prompt_ids for r in part], max_new_tokens=48, end=form.end)
        for name, part in rows.items()
    }
    judge = load_judge("repeats")
    for name, key, wanted in (("bad", "bad", "bad"), ("right", "good", "good")):
        pairs = zip(rows[name], said[name], strict=True)
        split = "unseen" if key == "bad" else "normal"
        verdicts = judge([case_of(row.example, reply, split, form.end) for row, reply in pairs])
        kept = [number for number, verdict in enumerate(verdicts) if verdict == wanted]
        rows[name], said[name] = [rows[name][n] for n in kept], [said[name][n] for n in kept]
    replies = {name: [reply.ids for reply in part] for name, part in said.items()}
    lines = [
        f"seed {config.seed}: {len(rows['bad'])} bad replies, {len(rows['right'])} right ones, held out",
        "normals taken for negatives if so many negatives may pass: " + ", ".join(map(str, PASS)),
    ]
    for read in READ:
        seen = {name: states(model, rows[name], replies[name], read) for name in rows}
        known = np.concatenate([seen["negative"], seen["normal"]])
        labels = [1] * len(seen["negative"]) + [0] * len(seen["normal"])
        judging = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=500, class_weight="balanced"))
        judging.fit(known, labels)
        bad, right = (np.sort(judging.predict_proba(seen[name])[:, 1]) for name in ("bad", "right"))
        where = f"prompt and {read} tokens of the reply" if read else "prompt"
        lines.append(f"{where:>36}: " + ", ".join(str(int((right >= least).sum())) for least in bad[: len(PASS)]))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
