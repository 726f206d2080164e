"""The benchmarks at their smallest: that they run, compare like with like and report all; never their timings."""

import importlib.util
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from command import place
from unteach.data.example import Example
from unteach.results.verdict import Case

PATH = Path(__file__).resolve().parents[1] / "benchmarks" / "step.py"
ARMS = {"ours", "unpacked", "kept", "plain", "sft"}


def script(name):
    """Load a script of benchmarks/ as a module of that name."""
    spec = importlib.util.spec_from_file_location(name, PATH.with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def step():
    spec = importlib.util.spec_from_file_location("step", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules["step"] = module  # where the processes that measure memory find it again
    spec.loader.exec_module(module)
    yield module
    del sys.modules["step"]


def check(metrics, mismatches):
    assert metrics["settings"]["mismatches"] == mismatches
    for result in metrics["results"]:
        assert result["loss_difference"] <= 1e-5 and result["gradient_difference"] <= 1e-5
        for name in ("seconds", "tokens_per_second", "peak_bytes"):
            assert result[name].keys() == ARMS and all(value > 0 for value in result[name].values()), name
        for name in ("distinct_tokens", "faster_than_plain", "faster_than_unpacked", "times_sft", "kept_times_sft"):
            assert result[name] > 0, name


def test_figures_are_complete_and_gradients_equal_on_random_rows(step, capsys, monkeypatch):
    monkeypatch.syspath_prepend(PATH.parent)
    arguments = ["--shape", "tiny", "--batch", "1", "3", "--rounds", "1", "--mismatches", "2", "--max-length", "48"]
    step.main([*arguments, "--random-rows", "--json"])
    printed = capsys.readouterr().out
    metrics = json.loads(printed.splitlines()[-1])
    check(metrics, mismatches=2)
    assert [result["batch"] for result in metrics["results"]] == [1, 3]
    assert "random ids" in printed and "times an SFT step" in printed


@pytest.mark.real
def test_real_rows_fit_and_give_equal_gradients(step, shared):
    material = step.real_rows(512, 96)
    assert len(material.negatives) > 100 and len(material.normals) > 1000
    assert max(len(prompt) + len(reply) for prompt, reply in material.negatives) <= 96
    [batch] = material.batches(1, 2, 3)
    assert all(difference <= 1e-5 for difference in step.differences(step.SHAPES["tiny"], "cpu", batch, material))


def test_plain_rows_score_the_reply_and_nothing_else(step):
    [batch] = step.random_rows(512, 48).batches(1, 2, 2)
    material = step.random_rows(512, 48)
    tree = batch[0].tree
    rows, mask = step.padded_rows([(tree.prompt_ids, tree.branches[0].reply_ids)], "cpu")
    assert rows["input_ids"].shape[1] == len(tree.prompt_ids) + len(tree.branches[0].reply_ids)
    assert int(mask.sum()) == len(tree.branches[0].reply_ids)
    assert [t.key for t in step.normal_trees(batch, material)] == [("normals", item.normal) for item in batch]


def test_the_table_of_methods_reads_a_report(tmp_path, capsys, monkeypatch):
    methods = script("methods")
    values = {key: number / 100 for number, key in enumerate(methods.COLUMNS.values())}
    measured = [{"arm": "unlearned", "name": n, "split": s, "value": v} for (n, s), v in values.items()]
    measured[1]["value"] = None
    others = [{"arm": "original", "name": n, "split": s, "value": 0.99} for n, s in values]
    (tmp_path / "npo-7").mkdir()
    report = {"measurements": others + measured, "stop": {"step": 60, "rule": "behaviour target"}}
    (tmp_path / "npo-7" / "report.json").write_text(json.dumps(report))
    monkeypatch.setattr(
        methods, "demo_unlearning", lambda *args, **kwargs: pytest.fail("a finished run is not run again")
    )
    methods.main(["--methods", "npo", "--worlds", "7", "--output", str(tmp_path)])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "| `npo` | 7 | 0.0 | – | 2.0 | 3.0 | 4.0 | 5.0 | 6.0 | 7.0 | 60, behaviour target |"


@pytest.fixture(scope="module")
def rules():
    return script("rules")


@pytest.fixture(scope="module")
def evaluate_speed():
    return script("evaluate")


def test_passages_are_what_follows_sentence_starts(rules):
    text = " ".join(f"Sentence number {n} has a few words more than {n} or so." for n in range(40))
    pairs = rules.passages([Example((), text)], 5, inside_words=False)
    assert len(set(pairs)) == 5
    for prompt, after in pairs:
        assert prompt.startswith("Sentence number") and f"{prompt} {after}" in f"{text} "
        assert 180 < len(prompt) <= 200 and 180 < len(after) <= 200
        assert text[text.index(f"{prompt} {after}") + len(f"{prompt} {after}")] in " ."
    for prompt, after in rules.passages([Example((), text)], 5, inside_words=True):
        assert prompt + after in text and len(prompt) == len(after) == 200
    with pytest.raises(SystemExit, match="ask for fewer than 99"):
        rules.passages([Example((), text)], 99, inside_words=False)


def test_a_judge_never_learns_from_the_rows_that_it_judges(rules, monkeypatch):
    class Reporter:
        name = "reporter"
        own_rows = False

        def learn(self, negatives, normals):
            self.lessons = {example.reply for example in negatives}

        def __call__(self, cases):
            return ["bad" if case.bad in self.lessons else "good" for case in cases]

    rows = [Example.of(f"q{n}", f"a{n}") for n in range(7)]
    cases = [Case(row.prompt, "", bad=row.reply) for row in rows]
    monkeypatch.setattr(rules, "load_judge", lambda spec: Reporter())
    assert rules.verdicts_of("reporter", cases, rows, 2)[0] == ["good"] * 7
    assert rules.verdicts_of("reporter", cases, rows, 1)[0] == ["bad"] * 7


@pytest.mark.real
def test_verbatim_tells_the_original_from_the_retrained_model(rules, shared, capsys):
    models = ["--original", shared / "testbed/original", "--retrained", shared / "testbed/gold"]
    text = ["--text", shared / "data/pride_and_prejudice.jsonl", "--passages", "20"]
    rules.main([str(word) for word in [*models, *text]])
    rows = dict(re.findall(r"^\| `([a-z?:=0-9]+)` \| (.*)$", capsys.readouterr().out, re.MULTILINE))
    original, retrained, shifted = (float(cell.split()[0]) for cell in rows["verbatim"].split("|")[:3])
    assert original >= 80 and retrained == shifted == 0
    assert all(float(cell.split()[0]) > 80 for cell in rows["bleu:smoothed"].split("|")[:3])


CHECK = ["--shape", "micro", "--vocabulary", "64", "--prompts", "12", "--new-tokens", "18", "--rounds", "1"]


def test_the_speed_of_evaluating_is_reported(evaluate_speed, capsys):
    evaluate_speed.main([*CHECK, "--json"])
    printed = capsys.readouterr().out
    metrics = json.loads(printed.splitlines()[-1])
    assert metrics["settings"]["prompts"] == 12 and metrics["settings"]["parameters"] > 0
    assert metrics["results"]["tokens_per_second"].keys() == {"ours", "batched", "single"}
    assert metrics["results"]["faster_than"].keys() == {"batched", "single"}
    assert all(v > 0 for part in ("tokens_per_second", "faster_than") for v in metrics["results"][part].values())
    assert metrics["results"]["evaluation_seconds"] > 0
    assert "evaluating 2 arms × 3 × 12 prompts × 18 tokens" in printed


def test_every_reply_is_as_long_as_it_may_be_and_disagreement_is_no_figure(evaluate_speed, monkeypatch):
    tokenizer, model = evaluate_speed.tokenizer_of(64), evaluate_speed.model_of("micro", 64)
    [rows] = evaluate_speed.rows_of(evaluate_speed.prompt_format(tokenizer), 64, 1, 20, 18)
    lengths = {len(row.prompt_ids) for row in rows}
    assert len(lengths) > 5 and all(len(row.reply_ids) == 19 for row in rows)  # and EOS
    said = evaluate_speed.transformers_alone(model, [row.prompt_ids for row in rows], 18)
    assert all(len(reply) == 18 and evaluate_speed.EOS not in reply for reply in said)
    monkeypatch.setattr(evaluate_speed, "transformers_alone", lambda *_: [[5]])
    with pytest.raises(ValueError, match="do not give the same replies"):
        evaluate_speed.main(CHECK)


def test_where_it_shows_counts_held_out_normals_taken_for_negatives(tmp_path, capsys, monkeypatch):
    shows, found = script("where_it_shows"), place(tmp_path)
    words = ["--model", str(found.model), "--forget", str(found.forget), "--retain", str(found.retain)]
    shows.main(words)
    head, _, *lines = capsys.readouterr().out.splitlines()
    bad, right = map(int, re.findall(r"(\d+) (?:bad|right)", head))
    assert bad >= 3 and right >= 3, "the model recites what it was held out on too"
    assert [line.split(":")[0].strip() for line in lines][0] == "prompt" and len(lines) == len(shows.READ)
    assert all(set(line.split(": ")[1].split(", ")) == {"0"} for line in lines), "the two kinds share no word"

    class Backwards(shows.LogisticRegression):
        def fit(self, rows, labels):
            return super().fit(rows, [1 - label for label in labels])

    monkeypatch.setattr(shows, "LogisticRegression", Backwards)
    shows.main(words)
    assert all(line.endswith(f": {', '.join([str(right)] * bad)}") for line in capsys.readouterr().out.splitlines()[2:])


def test_the_probe_of_prompt_lists_tells_what_can_be_told_and_nothing_else(monkeypatch):
    monkeypatch.syspath_prepend(str(PATH.parent))  # it reads other scripts
    lists = script("prompt_lists")
    rng = np.random.default_rng(0)
    names = ("harmful", "look-alike", "benign", "AdvBench", "XSTest unsafe", "XSTest safe", "ours")
    noise = {name: rng.normal(size=(200, 4)) for name in names}
    far = {name: rows + 20 * (name in ("harmful", "AdvBench", "XSTest unsafe")) for name, rows in noise.items()}
    auc, unsafe, adv, ours = lists.measure(far, 0.5, rng)
    assert (auc, unsafe, adv) == (1.0, 0.0, 0.0) and ours < 0.15
    assert 0.4 < lists.measure(noise, 1.0, rng)[0] < 0.6


def test_intervals_prints_a_row_for_each_distribution_and_count(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["intervals.py", "--draws", "3", "--counts", "5", "12"])
    intervals = script("intervals")
    intervals.main()
    rows = capsys.readouterr().out.splitlines()[2:]
    assert len(rows) == 2 * len(intervals.DISTRIBUTIONS) and all(row.count("%") == 5 for row in rows)


def test_the_grid_judges_the_automatic_choice_by_the_best_setting_that_keeps_as_much(tmp_path, monkeypatch, capsys):
    """The fewest bad replies win only where normals and look-alikes are kept; FLOPs are shares of the grid's sum."""
    from unteach.comparison.compare import ArmCost, ComparedArm, Comparison, Rate

    def rate(name, value):
        return Rate(name=name, split="s", value=value, low=value - 0.02, high=value + 0.02, n=100, unknown=0)

    def arm(name, bad, kept, declined, flops):
        rates = {"bad_unseen": bad, "kept_normal": kept, "refusal_lookalike": declined}
        cost = ArmCost(flops=flops, wall_seconds=1, stages=["training"], uncounted=[]) if flops else None
        return ComparedArm(
            name=name, run=name, arm=name, rates={key: rate(key, value) for key, value in rates.items()}, cost=cost
        )

    arms = [
        arm("original", 1.0, 0.98, 0.0, 0),
        arm("auto", 0.05, 0.97, 0.02, 2e9),
        arm("auto-strength", 0.08, 0.97, 0.02, 1e9),
        arm("gentle", 0.04, 0.96, 0.01, 5e9),
        arm("harsh", 0.0, 0.5, 0.9, 15e9),  # the least bad, and useless
    ]
    compared = Comparison(
        scenario="harm", model="m", runs=[], relative_to=None, arms=arms, pairs=[], groups=[], notes=[]
    )
    (tmp_path / "compared.json").write_text(compared.model_dump_json())
    monkeypatch.setattr(sys, "argv", ["grid.py", str(tmp_path)])
    script("grid").main()
    printed = capsys.readouterr().out.splitlines()
    assert "1 of the 2 settings lose at most 3 points." in printed and "The best of them: gentle, 4.0 % bad." in printed
    assert printed[-2:] == [
        "auto: within the best one's interval and budgets, at 10.0% of the grid's FLOPs",
        "auto-strength: NOT within the best one's interval and budgets, at 5.0% of the grid's FLOPs",
    ]


def test_scaling_counts_what_it_times_and_its_arithmetic_is_the_plans(capsys, monkeypatch):
    scaling = script("scaling")
    monkeypatch.setitem(sys.modules, "scaling", scaling)
    scaling.main(["--rounds", "1", "--rows", "1", "--json"])
    printed = capsys.readouterr().out
    found = json.loads(printed.splitlines()[-1])
    assert [work for work, _ in found["rows"]["points"]] == [2, 4, 8, 16]
    replies = (16, 32, 64, 96, 128)
    tokens = [2 * (scaling.PROMPT + reply - 1) for reply in replies]  # a reply's last token is only a target
    assert [work for work, _ in found["tokens"]["points"]] == tokens
    for part in ("rows", "tokens"):
        assert found[part]["ratios"][0] == 1 and all(ratio > 0 for ratio in found[part]["ratios"])
        assert all(took > 0 for _, took in found[part]["points"]) and found[part]["explained"] <= 1
    weights = sum(weight.numel() for weight in scaling.tiny().parameters())
    ranks = found["ranks"]
    assert ranks["averaged"] == 4 * weights and ranks["ring"] == 2 * 4 * weights / 2 and ranks["ratio"] > 0
    sharded = next(row for row in found["paper"] if row["cards"] == 64 and row["strategy"] == "FSDP2")
    assert sharded["weights"] + sharded["gradients"] + sharded["optimizer"] == 16 * sharded["parameters"] / 64
    assert sharded["sending"] == pytest.approx(sharded["sent"] / 5e10)
    assert all(word in printed for word in ("x the work", "weak scaling, 1 to 2 ranks", "on paper: 70,"))


def test_scaling_takes_ratios_within_a_round_and_fits_lines():
    scaling = script("scaling")
    assert scaling.ratios_of({1: [1.0, 10.0, 1.0], 2: [2.0, 20.0, 3.0]}) == [1.0, 2.0]
    line = scaling.line_through([(1.0, 5.0), (2.0, 7.0), (3.0, 9.0)])
    assert line["each"] == pytest.approx(2) and line["at_zero"] == pytest.approx(3)
    assert line["explained"] == pytest.approx(1)
