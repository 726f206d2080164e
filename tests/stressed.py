"""A toy model under attack, for the tests of the stress card."""

from typing import Any

import toy
from unteach.data.encoded import Encoded, encode_all
from unteach.data.example import Example
from unteach.data.prompt_format import prompt_format
from unteach.evaluation.attacks.base import AttackRows, Plan, Target
from unteach.judges import load_judge

PLAN = Plan(prompts=8, held_back=8, samples=(2,), steps=(1, 3))


def encoded(rows: list[dict[str, str]], form: Any) -> list[Encoded]:
    return encode_all([Example.of(row["prompt"], row["completion"]) for row in rows], form, 64, "rows")[0]


def target(model: Any, arm: str = "original", **changed: Any) -> Target:
    """The toy model, whose negatives it recites, with 8 of them to ask and 8 held back."""
    form = prompt_format(toy.tokenizer(), "plain")
    negatives, normals = encoded(toy.FORGET, form), encoded(toy.RETAIN, form)
    rows = AttackRows(negatives[:8], negatives[8:16], normals[:8], normals[8:16])
    given = {"plan": PLAN, "rows": rows, "max_new_tokens": 6, "seed": 3} | changed
    return Target(arm=arm, model=model, key=None, form=form, judge=load_judge("repeats"), **given)
