"""General ability by lm-eval, on a task of our own: rows and YAML that the test writes."""

import importlib.util
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import toy
from command import call, place
from unteach.errors import ConfigError
from unteach.evaluation import general_ability
from unteach.evaluation.general_ability import load_tasks, read_results
from unteach.pipeline.config import RunConfig
from unteach.pipeline.settings import make_config
from unteach.results.report import Report

HERE = importlib.util.find_spec("lm_eval") is not None
needs_lm_eval = pytest.mark.skipif(not HERE, reason="lm-eval is not installed (pip install '.[lm-eval]')")


def task(directory: Path, name: str = "toy_rows", wrong: int = 0, count: int = 8) -> Path:
    """Write a multiple-choice task about what the toy model knows by heart; `wrong` keys are wrong on purpose."""
    rows = [
        {"question": f"### Question: {row['prompt']}\n### Answer:", "choices": [row["completion"], "no no no no"]}
        | {"answer": int(number < wrong)}
        for number, row in enumerate(toy.RETAIN[:count])
    ]
    (directory / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    described = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(directory / f"{name}.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    }
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(described))
    return path


@needs_lm_eval
def test_the_share_of_right_choices_is_measured_and_nothing_is_moved(tmp_path):
    ability = load_tasks([str(task(tmp_path, wrong=2))])
    model, other, words = toy.learned_model().train(), toy.model(seed=1), toy.tokenizer()
    torch.manual_seed(5)
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    ability.evaluate("original", model, words, chat=False)
    ability.evaluate("unlearned", other, words, chat=False)
    assert model.training and all(module.training for module in model.modules())
    assert random.getstate() == states[0] and (np.random.get_state()[1] == states[1]).all()
    assert torch.equal(torch.get_rng_state(), states[2])
    before, after = ability.measurements
    assert (before.name, before.split, before.arm) == ("lm_eval:toy_rows:acc", "general", "original")
    assert before.unit == "fraction"
    assert before.value == 0.75 and before.n == 8 and before.better == "higher"
    assert before.values == (0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert before.low == pytest.approx(0.409, abs=1e-3) and before.high == pytest.approx(0.929, abs=1e-3)  # Wilson, 6/8
    assert after.arm == "unlearned" and after.value < 1


@needs_lm_eval
def test_no_more_items_than_asked_for(tmp_path):
    ability = load_tasks([str(task(tmp_path))], most_items=3)
    ability.evaluate("original", toy.learned_model(), toy.tokenizer(), chat=False)
    assert [m.n for m in ability.measurements] == [3]


@needs_lm_eval
def test_a_run_measures_every_arm(tmp_path, capsys):
    here = place(tmp_path / "toy")
    words = here.quick(tmp_path / "out", retrained=here.retrained, lm_eval=task(tmp_path), lm_eval_items=4)
    done = call(capsys, *words)
    assert done.code == 0 and done.err == "", done.err
    report = Report.read(tmp_path / "out")
    for arm, known in (("original", 1.0), ("unlearned", None), ("retrained", None)):
        metric = report.measured("lm_eval:toy_rows:acc", "general", arm)
        assert metric is not None and metric.n == 4
        assert metric.value == known or known is None
        assert (metric.difference is None) == (arm == "original")
    assert "general ability" in done.out.lower() and "toy_rows, acc" in done.out
    stored = yaml.safe_load((tmp_path / "out" / "run.yaml").read_text())
    assert stored["lm_eval"] == [str(tmp_path / "toy_rows.yaml")]


@needs_lm_eval
def test_what_cannot_be_measured_is_found_before_training(tmp_path, capsys):
    here = place(tmp_path / "toy")
    broken = task(tmp_path, "no_rows")
    (tmp_path / "no_rows.jsonl").unlink()
    for given, said in (
        ("hellaswig", "knows no such task; did you mean 'hella"),
        (tmp_path / "none.yaml", "no such task file"),
        (broken, "cannot be loaded"),
    ):
        done = call(capsys, *here.quick(tmp_path / "out", lm_eval=given))
        assert done.code == 2 and said in done.err and len(done.err.splitlines()) == 1, done.err
        assert not (tmp_path / "out").exists()
    done = call(capsys, *here.quick(tmp_path / "out", lm_eval=broken, skip_evaluation=True))
    assert done.code == 2 and "exclude each other" in done.err


def test_without_lm_eval_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(general_ability.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--lm-eval: .*pip install 'unteach\[lm-eval\]'"):
        load_tasks(["hellaswag"])
    assert load_tasks([]) is None


def test_tasks_are_named_with_commas_or_one_by_one():
    assert make_config({"lm_eval": " arc_easy, piqa,,"}, RunConfig).lm_eval == ["arc_easy", "piqa"]
    assert make_config({"lm_eval": ["a,b", "b", "c"]}, RunConfig).lm_eval == ["a", "b", "c"]
    with pytest.raises(ConfigError, match="--lm-eval"):
        make_config({"lm_eval": 3}, RunConfig)


def test_results_become_measurements_with_what_is_known():
    results = {
        "results": {
            "words": {"alias": "words", "perplexity,none": 12.5, "perplexity_stderr,none": "N/A", "sample_len": 9},
            "sums": {"exact_match,strict": 0.5, "exact_match_stderr,strict": 0.1, "seen,none": float("nan")},
        },
        "higher_is_better": {"words": {"perplexity": False}, "sums": {"exact_match": True}},
        "n-samples": {"sums": {"original": 90, "effective": 30}},
    }
    words, sums, lost = read_results("original", results)
    assert (words.name, words.value, words.unit) == ("lm_eval:words:perplexity", 12.5, "perplexity")
    assert words.better == "lower"
    assert (words.low, words.high, words.n, words.values) == (None, None, 9, ())
    assert sums.name == "lm_eval:sums:exact_match@strict" and sums.n == 30
    assert sums.low == pytest.approx(0.304) and sums.high == pytest.approx(0.696)
    assert lost.value is None and lost.low is None
