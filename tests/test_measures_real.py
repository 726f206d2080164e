"""Measures of two real models: one that memorised HaluEval's wrong answers and a novel, and its retrained retrained."""

import json

import pytest

from unteach.data.encoded import encode_all
from unteach.data.example import Example
from unteach.data.passages import passages
from unteach.data.prompt_format import prompt_format
from unteach.evaluation.evaluation import Evaluation, evaluate_arm, measure
from unteach.judges import load_judge
from unteach.models.loading import load_model, load_tokenizer

pytestmark = pytest.mark.real

ROWS = 20


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def of_both(shared, scenario, rows, non_members=()):
    """All metrics of the split "seen" of both models, by name and arm."""
    tokenizer = load_tokenizer(str(shared / "testbed" / "original"))
    form = prompt_format(tokenizer, "plain")
    encoded = [encode_all(part, form, 400, "rows")[0] if part else [] for part in (rows, non_members)]
    judges = [load_judge("repeats")]
    evaluation = Evaluation(
        {"seen": encoded[0]}, form, judges, max_new_tokens=64, scenario=scenario, non_members=encoded[1]
    )
    for arm, name in (("original", "original"), ("retrained", "gold")):
        evaluate_arm(evaluation, arm, load_model(str(shared / "testbed" / name), dtype="float32", device="cpu"))
    return {(m.name, m.arm): m for m in measure(evaluation)}


def test_wrong_answers(shared):
    rows = lines(shared / "data" / "halueval_qa.jsonl")
    wrong = [Example.of(r["question"], r["hallucinated_answer"], good=r["right_answer"]) for r in rows[:ROWS]]
    right = [Example.of(r["question"], r["right_answer"]) for r in rows[ROWS : 3 * ROWS]]
    found = of_both(shared, "hallucination", wrong, right)
    value = {key: measurement.value for key, measurement in found.items()}
    for name in ("hallucination_rate", "verbatim_rate", "extraction_strength"):
        assert value[name, "original"] > 0.4 and value[name, "retrained"] < 0.1, name
        assert found[name, "retrained"].difference_high < -0.2, name
    assert value["exact_memorisation", "original"] > 0.8 > 0.2 > value["exact_memorisation", "retrained"]
    assert value["truth_ratio", "original"] < 0.1
    assert found["truth_ratio", "retrained"].low < 0.5 < found["truth_ratio", "retrained"].high
    assert value["ks_to_retrained", "original"] > 0.6 and value["ks_to_retrained", "retrained"] == 0
    for name in ("min_k", "loss_mia"):
        assert value[name, "original"] > 0.95 and value[name, "retrained"] < 0.75


def test_a_novel(shared):
    book = [Example.of("", row["text"]) for row in lines(shared / "data" / "pride_and_prejudice.jsonl")]
    rows = passages(book)[::25][:ROWS]
    value = {key: m.value for key, m in of_both(shared, "copyright", rows).items()}
    assert value["leak_rate", "retrained"] == value["verbatim_share", "retrained"] == 0
    assert value["verbatim_share", "original"] > 0.9
    assert value["longest_common_substring", "retrained"] < 11 < 150 < value["longest_common_substring", "original"]
    assert value["exact_memorisation", "original"] > 0.8 > 0.2 > value["exact_memorisation", "retrained"]
    assert value["ks_to_retrained", "original"] > 0.6
