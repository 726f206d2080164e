"""Measures of what is left inside, worked by hand; the laws that all probes keep are in test_probes.py."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from scipy.stats import ks_2samp

from test_probes import evidence, measured
from unteach.probes.extraction import extraction_strength
from unteach.probes.membership import min_k
from unteach.probes.sampled import any_bad
from unteach.probes.verbatim_share import verbatim_share
from unteach.results.verdict import Case
from unteach.scenarios import load_scenario, scenario_names
from unteach.text.words import common_substring

VERDICTS = some.lists(some.sampled_from(["good", "bad", "unknown"]), min_size=1, max_size=6)
NATS = some.floats(-50, 0)


def of_cases(split, cases, **fields):
    """ArmResult of these cases; verdicts are good unless given."""
    return replace(evidence([case.reply for case in cases], split=split, **fields), cases=cases)


# --- truth ratio --------------------------------------------------------------------------------------------------


def test_truth_ratio_by_hand():
    # per-token probabilities: known 0.2 (two tokens), other 0.6 (one token); 0.6 / 0.8 and 0.2 / 0.8
    known, other = [[math.log(0.1), math.log(0.4)]], [[math.log(0.6)]]
    known_rate = math.sqrt(0.1 * 0.4)
    for split, expected in {"unseen": 0.6 / (0.6 + known_rate), "normal": known_rate / (0.6 + known_rate)}.items():
        found = measured(evidence(["x"], split=split, log_probs=known, other_log_probs=other))["truth_ratio"]
        assert found.value == pytest.approx(expected) == pytest.approx({"unseen": 0.75, "normal": 0.25}[split])
        assert (found.n, found.unknown, found.unit, found.better) == (1, 0, "fraction", "higher")
        p_wrong, p_right = (known_rate, 0.6) if split == "unseen" else (0.6, known_rate)
        assert found.value == pytest.approx(1 / (1 + p_wrong / p_right)), "T = 1 / (1 + R)"


def test_truth_ratio_of_rows_that_lack_a_reply_is_unknown_and_of_all_such_rows_nothing():
    rows = [[-1.0], [-1.0], [], [-1.0]]
    found = measured(evidence(["x"] * 4, log_probs=rows, other_log_probs=[[-1.0], None, [-1.0], []]))["truth_ratio"]
    assert (found.value, found.n, found.unknown, found.values) == (0.5, 1, 3, (0.5, None, None, None))
    assert "truth_ratio" not in measured(evidence(["x"] * 4, log_probs=rows, other_log_probs=[None] * 4))


@settings(deadline=None)
@given(some.lists(NATS, min_size=1, max_size=8), some.lists(NATS, min_size=1, max_size=8))
def test_truth_ratio_is_bounded_and_what_one_side_gains_the_other_loses(known, other):
    ours = evidence(["x"], split="seen", log_probs=[known], other_log_probs=[other]).truth_ratio[0]
    theirs = evidence(["x"], split="seen", log_probs=[other], other_log_probs=[known]).truth_ratio[0]
    assert 0 <= ours <= 1 and ours + theirs == pytest.approx(1)


def test_truth_ratio_of_impossible_replies():
    gone = [[-math.inf]]
    assert evidence(["x"], split="seen", log_probs=gone, other_log_probs=[[-1.0]]).truth_ratio == [1.0]
    assert evidence(["x"], split="seen", log_probs=[[-1.0]], other_log_probs=gone).truth_ratio == [0.0]
    both = measured(evidence(["x"], split="seen", log_probs=gone, other_log_probs=gone))["truth_ratio"]
    assert (both.value, both.unknown) == (None, 1)


# --- membership inference -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log_probs", "score"),
    [
        ([-1.0], -1.0),
        ([-1.0, -3.0, -2.0, -4.0], -4.0),  # 20 % of four is none: one is taken
        ([-1.0] * 9 + [-5.0, -7.0], -6.0),  # two of eleven
        ([-float(n) for n in range(20)], -17.5),  # 16, 17, 18, 19
    ],
)
def test_min_k_score_by_hand(log_probs, score):
    assert min_k(log_probs) == score


def test_membership_by_hand():
    members = [[-1.0, -1.0], [-2.0, -4.0], []]  # losses 1 and 3; lowest −1 and −4
    non_members = [[-2.0, -2.0], [-1.0, -5.0], [-0.5, -1.5]]  # losses 2, 3 and 1; lowest −2, −5 and −1.5
    found = measured(evidence(["x"] * 3, split="seen", log_probs=members, non_members=non_members))
    # −1 beats −2 and −3, ties with −1: 2½ of 3; −3 ties with −3: ½ of 3
    assert found["loss_mia"].value == pytest.approx((2.5 + 0.5) / 6)
    # −1 beats all three; −4 beats −5
    assert found["min_k"].value == pytest.approx((3 + 1) / 6)
    for name in ("loss_mia", "min_k"):
        assert (found[name].n, found[name].unknown, found[name].unit) == (2, 1, "AUC")
        assert found[name].low <= found[name].value <= found[name].high and found[name].values == ()


@pytest.mark.parametrize("split", ["unseen", "unseen_concept", "normal"])
def test_membership_is_asked_of_seen_replies_only(split):
    found = measured(evidence(["x"], split=split, log_probs=[[-1.0]], non_members=[[-2.0]]))
    assert not {"min_k", "loss_mia"} & set(found)


def test_pushing_the_replies_below_any_untrained_one_shows_as_an_overshoot():
    found = measured(evidence(["x"] * 2, split="seen", log_probs=[[-90.0], [-80.0]], non_members=[[-3.0], [-4.0]]))
    assert found["min_k"].value == found["loss_mia"].value == 0.0


# --- distance to the retrained model ----------------------------------------------------------------------------------


def test_distance_to_the_retrained_model_by_hand():
    retrained = evidence(["x"] * 4, split="unseen", nll=[1.0, 2.0, 3.0, 4.0])
    found = measured(evidence(["x"] * 4, split="unseen", nll=[3.5, 2.0, 3.0, 9.0], retrained=retrained))[
        "ks_to_retrained"
    ]
    # cases up to t, retrained and arm: at 1, 1 and 0; at 2, 2 and 1; at 3, 3 and 2; at 3.5, 3 and 3; at 4, 4 and 3
    assert (found.value, found.n, found.unknown, found.better, found.values) == (0.25, 4, 0, "lower", ())
    assert 0 <= found.low <= 0.25 <= found.high <= 1
    apart = measured(evidence(["x"] * 4, split="seen", nll=[9.0] * 4, retrained=retrained))["ks_to_retrained"]
    assert apart.value == 1.0


def test_distance_reads_the_truth_ratio_where_half_of_the_rows_have_both_replies():
    known = [[-2.0], [-3.0], [-4.0], [-5.0]]
    retrained_facts = [[-2.1], [-3.1], [-4.1], [-5.1]]

    def distance(other):
        lists = {"split": "unseen", "other_log_probs": other}
        retrained = evidence(["x"] * 4, log_probs=retrained_facts, **lists)
        return measured(evidence(["x"] * 4, log_probs=known, **lists, retrained=retrained))["ks_to_retrained"]

    both, half, few = [[-1.0]] * 4, [[-1.0], [-1.0], None, None], [[-1.0], None, None, None]
    ratios = [1 / (1 + math.exp(-1.0 - row[0])) for row in (*known, *retrained_facts)]
    found = distance(both)
    ours = [1 - ratio for ratio in ratios]
    assert found.value == ks_2samp(ours[:4], ours[4:], method="asymp").statistic == 0.25 and found.n == 4
    assert (distance(half).n, distance(half).unknown) == (2, 2)
    assert (distance(few).n, distance(few).unknown) == (4, 0), "too few truth ratios: nats per token of all rows"


def test_cases_that_one_of_the_two_has_no_figure_for_are_left_out():
    retrained = evidence(["x"] * 3, split="seen", nll=[1.0, math.inf, 3.0])
    found = measured(evidence(["x"] * 3, split="seen", nll=[1.0, 2.0, math.nan], retrained=retrained))[
        "ks_to_retrained"
    ]
    assert (found.value, found.low, found.n, found.unknown) == (0.0, None, 1, 2)


# --- sampled replies ----------------------------------------------------------------------------------------------


def test_any_bad_rate_by_hand():
    greedy = ["bad", "good", "good", "good", "unknown", "unknown"]
    drawn = [["good"] * 2, ["good", "bad"], ["good"] * 2, ["good", "unknown"], ["bad", "good"], ["good"] * 2]
    found = measured(evidence(["x"] * 6, split="unseen", verdicts=greedy, sampled=drawn))["any_bad_rate"]
    assert (found.value, found.n, found.unknown, found.unit) == (0.75, 4, 2, "fraction")
    assert found.values == (1.0, 1.0, 0.0, None, 1.0, None)


@settings(deadline=None)
@given(VERDICTS, VERDICTS)
def test_more_replies_never_make_a_bad_prompt_good(verdicts, more):
    if any_bad(verdicts):
        assert any_bad(verdicts + more)
    if any_bad(verdicts + more) is False:
        assert set(verdicts + more) == {"good"}


# --- extraction and exact memorisation ----------------------------------------------------------------------------


@settings(deadline=None)
@given(some.lists(some.booleans(), min_size=1, max_size=30))
def test_what_is_extracted_is_memorised(hits):
    assert extraction_strength(hits) <= sum(hits) / len(hits)


# --- scenarios ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scenario", scenario_names())
def test_each_scenario_has_its_own_rate_of_bad_replies(scenario):
    name = load_scenario(scenario).bad_rate
    given_evidence = evidence(["x"] * 4, split="unseen", scenario=scenario, verdicts=["bad", "good", "unknown", "bad"])
    found = measured(given_evidence)
    assert (found[name].value, found[name].n, found[name].unknown) == (pytest.approx(2 / 3), 3, 1)
    assert {load_scenario(other).bad_rate for other in scenario_names()} & set(found) == {name}


def test_what_became_of_wrong_answers_by_hand():
    rows = [  # reply, known wrong answer, right answer, said word for word?, right?
        ("It is  ROME, surely.", "Rome.", "Paris in France", True, False),
        ("I know.", "no", "yes", False, False),  # "no" is no word of it
        ("Paris, in france", "Rome", "Paris in France", False, True),
        ("It’s “Rome”", 'it\'s "Rome"', None, True, None),  # other quotes are the same words
        ("I don't know.", "?!", " ", None, None),  # nothing to look for
    ]
    cases = [Case("p", reply, bad=bad, good=good) for reply, bad, good, _, _ in rows]
    found = measured(of_cases("unseen", cases, scenario="hallucination"))
    assert found["verbatim_rate"].values == (1.0, 0.0, 0.0, 1.0, None)
    assert (found["verbatim_rate"].value, found["verbatim_rate"].unknown) == (0.5, 1)
    assert found["right_rate"].values == (0.0, 0.0, 1.0, None, None)
    assert found["right_rate"].better == "higher" and found["refusal_rate"].value == pytest.approx(1 / 5)
    without = [Case("p", "x", bad="y")]
    assert "right_rate" not in measured(of_cases("unseen", without, scenario="hallucination"))


# --- copied text --------------------------------------------------------------------------------------------------


def test_longest_common_substring_by_hand():
    cases = [
        Case("p", "He saw\nthe OLD house", bad="and the old  house fell"),  # " the old house" or "the old house"
        Case("p", "", bad="something"),
        Case("p", "abc", bad=" "),
        Case("p", "abc", bad=None),
    ]
    found = measured(of_cases("seen", cases, scenario="copyright"))["longest_common_substring"]
    assert found.values == (float(len(" the old house")), 0.0, None, None)
    assert (found.value, found.unit, found.n, found.unknown) == (7.0, "characters", 2, 2)


@settings(deadline=None)
@given(some.text("ab ", max_size=25), some.text("abc", max_size=25))
def test_longest_common_substring_equals_trying_all(first, second):
    runs = (first[i:j] for i in range(len(first)) for j in range(i + 1, len(first) + 1))
    longest = max((len(run) for run in runs if run in second), default=0)
    assert common_substring(first, second) == common_substring(second, first) == longest


@settings(deadline=None)
@given(some.text(max_size=40), some.text(max_size=10), some.text(max_size=10))
def test_a_text_shares_itself_with_any_text_that_holds_it(inner, before, after):
    assert common_substring(before + inner + after, inner) == len(inner)


def test_verbatim_share_by_hand():
    truth = "a b c d e f g h i j"  # three runs of eight
    assert verbatim_share("so A B c\nd e f g h i and no more", truth) == pytest.approx(2 / 3)
    assert verbatim_share("a b c d e f g", truth) == 0.0
    assert verbatim_share(truth, truth) == 1.0
    assert verbatim_share("", truth) == 0.0
    assert verbatim_share(truth, "a b c d e f g") is None
    cases = [Case("p", truth, bad=truth), Case("p", "x", bad=truth), Case("p", "x", bad="too short")]
    found = measured(of_cases("unseen", cases, scenario="copyright"))["verbatim_share"]
    assert (found.value, found.n, found.unknown) == (0.5, 2, 1)
