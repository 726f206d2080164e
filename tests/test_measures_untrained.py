"""Measures of models whose answer is known: one that was never trained, and one that knows its rows by heart."""

import random

import pytest

import toy
from unteach.data.encoded import encode_all
from unteach.data.example import Example
from unteach.data.prompt_format import prompt_format
from unteach.evaluation.evaluation import Evaluation, evaluate_arm, measure, notes_of
from unteach.judges import load_judge
from unteach.probes.membership import min_k
from unteach.results.arm_result import mean_nll
from unteach.scoring.likelihood import teacher_forced_likelihood
from unteach.scoring.trees import reply_trees
from unteach.stats import auc

ROWS = 40


def nonsense(seed):
    """Rows of words drawn at random: nothing about one tells anything of another."""
    draw = random.Random(seed)

    def text(count):
        return " ".join(draw.choice(toy.NUMBERED) for _ in range(count))

    return [Example.of(f"how to {text(2)}", text(10), good=text(10), bad=text(10)) for _ in range(ROWS)]


def by_heart():
    """Rows that `toy.learned_model` knows, and non_members of their kind that contradict them."""
    rows = [Example.of(row["prompt"], row["completion"], good="go g0 then h0") for row in toy.FORGET]
    others = [Example.of(row["prompt"], f"take c{n % 6} and d{(n + 3) % 6}") for n, row in enumerate(toy.FORGET)]
    return rows, [other for other, row in zip(others, rows, strict=True) if other.reply != row.reply]


def evaluated(model, rows, non_members, scenario, retrained=None):
    form = prompt_format(toy.tokenizer(), "plain")

    def encoded(examples):
        return encode_all(examples, form, 64, "rows")[0]

    evaluation = Evaluation(
        {"seen": encoded(rows), "unseen": encoded(non_members), "normal": encoded(nonsense(9))},
        form,
        [load_judge("repeats")],
        max_new_tokens=16,
        scenario=scenario,
        samples=2,
        non_members=encoded(non_members),
    )
    evaluate_arm(evaluation, "original", model)
    evaluate_arm(evaluation, "retrained", retrained or model)
    return evaluation, {(m.name, m.split, m.arm): m for m in measure(evaluation)}


@pytest.fixture(scope="module")
def untrained():
    """All metrics of a model that was never trained, in the scenario copyright; the retrained model is another such."""
    return evaluated(toy.model(seed=1), nonsense(1), nonsense(2), "copyright", toy.model(seed=2))[1]


@pytest.mark.parametrize("split", ["seen", "unseen"])
def test_a_model_that_was_never_trained_has_memorised_nothing(untrained, split):
    metric = {name: m for (name, place, arm), m in untrained.items() if (place, arm) == (split, "original")}
    # a token in 66 is hit by chance, a whole tail of them less often
    assert metric["extraction_strength"].value < 0.02
    assert metric["exact_memorisation"].value < 0.06
    assert metric["verbatim_share"].value == 0.0
    assert metric["leak_rate"].value == 0.0
    # words of two characters; two in a row meet by chance, four hardly
    assert metric["longest_common_substring"].value < len("a1 b2 c3 d4")
    assert metric["truth_ratio"].low < 0.5 < metric["truth_ratio"].high


def test_an_attacker_learns_nothing_of_a_model_that_was_never_trained(untrained):
    for name in ("min_k", "loss_mia"):
        metric = untrained[name, "seen", "original"]
        assert metric.low <= 0.5 <= metric.high and metric.low < metric.high, name
        assert (metric.n, metric.difference) == (ROWS, None)


@pytest.mark.parametrize("score", [min_k, mean_nll])
def test_intervals_of_the_attack_hold_one_half_about_as_often_as_they_should(score):
    form, held = prompt_format(toy.tokenizer(), "plain"), 0
    for seed in range(20):
        scores = []
        for part in range(2):
            rows = encode_all(nonsense(100 + 2 * seed + part), form, 64, "rows")[0]
            known = teacher_forced_likelihood(toy.model(seed=seed), reply_trees("rows", [row.ids for row in rows]), 0)
            scores.append([score(log_probs) for log_probs in known.log_probs])
        _, low, high = auc(*scores)
        held += low <= 0.5 <= high
    assert held >= 16  # 19 are expected; 15 or fewer would come up once in 400 times


def test_the_retrained_model_is_at_no_distance_from_itself_and_another_untrained_one_is_somewhere(untrained):
    for split in ("seen", "unseen"):
        retrained, other = (untrained["ks_to_retrained", split, arm] for arm in ("retrained", "original"))
        assert (retrained.value, retrained.low, retrained.high) == (0.0, 0.0, 0.0)
        assert 0 < other.value < 1 and other.n == ROWS


def test_a_model_that_knows_its_rows_by_heart_is_found_out():
    rows, non_members = by_heart()
    evaluation, found = evaluated(toy.learned_model(), rows, non_members, "harm", toy.model())
    metric = {name: m for (name, split, arm), m in found.items() if (split, arm) == ("seen", "original")}
    assert metric["extraction_strength"].value > 0.95 and metric["exact_memorisation"].value > 0.95
    assert metric["min_k"].value > 0.95 and metric["loss_mia"].value > 0.95
    assert metric["harmful_rate"].value > 0.95 and metric["any_bad_rate"].value > 0.95
    assert metric["truth_ratio"].value < 0.1 and metric["ks_to_retrained"].value > 0.95
    assert notes_of(evaluation) == [
        "any_bad_rate asks each harmful prompt 3 times: the greedy reply and k = 2 sampled at temperature 1; it grows "
        "with k",
        f"min_k and loss_mia compare the seen replies with {len(non_members)} that no arm was trained on",
    ]


def test_hallucination_figures_of_both_models():
    rows, non_members = by_heart()
    evaluation, learned = evaluated(toy.learned_model(), rows, non_members, "hallucination")
    assert learned["verbatim_rate", "seen", "original"].value > 0.95
    assert learned["right_rate", "seen", "original"].value < 0.05
    assert notes_of(evaluation)
    _, empty = evaluated(toy.model(), rows, non_members, "hallucination")
    for name in ("hallucination_rate", "verbatim_rate", "right_rate"):
        assert empty[name, "seen", "original"].value < 0.05, name
