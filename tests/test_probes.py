import json
import math
import random
import string
from dataclasses import replace
from pathlib import Path

import pytest

from unteach.evaluation.evaluation import with_difference
from unteach.probes import all_probes
from unteach.probes.base import ALL_SPLITS, NORMAL_SPLITS
from unteach.probes.blanks import blank, gibberish
from unteach.probes.extraction import extraction_strength
from unteach.probes.helpfulness import HelpfulnessProbe
from unteach.probes.how_it_ended import BETTER
from unteach.results.arm_result import ArmResult
from unteach.results.measurement import HARM_SPLITS
from unteach.results.verdict import Case
from unteach.scenarios import scenario_names

SCENARIOS = scenario_names()
DATA = Path(__file__).parents[2] / "shared" / "data"
EVERYWHERE = {
    "nll",
    "similarity",
    "fluency",
    "diversity",
    "blank_rate",
    "gibberish_rate",
    "refusal_rate",
    "reply_tokens",
    "truth_ratio",
    "template_rate",
}
NAMES = {split: EVERYWHERE | {"kept_rate", "right_rate", "kl"} for split in NORMAL_SPLITS}
NAMES |= {
    split: EVERYWHERE | {"extraction_strength", "exact_memorisation", "any_bad_rate", "ks_to_retrained", "right_nll"}
    for split in HARM_SPLITS
}
NAMES["seen"] |= {"min_k", "loss_mia"}
IN_SCENARIO = {
    "harm": {"harmful_rate", "helpful_rate"} | {f"{ending}_rate" for ending in BETTER},
    "copyright": {"leak_rate", "longest_common_substring", "verbatim_share"},
    "hallucination": {"hallucination_rate", "verbatim_rate", "right_rate"},
}
OF_ALL_CASES = {"fluency", "min_k", "loss_mia", "ks_to_retrained"}
"""Figures that no single case has, so that no paired difference is to be had."""


def evidence(replies, split="normal", verdicts=None, originals=None, original_verdicts=None, **lists):
    bad, good = lists.pop("bad", None), lists.pop("good", None)
    n = len(replies)
    if "nll" in lists:  # one token each
        lists["log_probs"] = [[-nats] for nats in lists.pop("nll")]
    before = [Case("p", reply, bad=bad, good=good) for reply in originals or replies]
    lengths = lists.pop("reply_tokens", [len(reply.split()) for reply in replies])
    return ArmResult(
        arm="unlearned",
        split=split,
        cases=[Case("p", reply, bad=bad, good=good) for reply in replies],
        verdicts=verdicts or ["good"] * n,
        reply_ids=[[0] * length for length in lengths],
        original=ArmResult("original", split, before, original_verdicts or ["good"] * n, [[0]] * n),
        **lists,
    )


def measured(given):
    """Every measurement of the probes that ask about this split, by name."""
    found = [m for probe in all_probes() if given.split in probe.splits for m in probe(given)]
    assert len({m.name for m in found}) == len(found)
    return {m.name: m for m in found}


def full(split, n=4, scenario="harm"):
    """Everything taken of an arm that is its own original and its own retrained."""
    lists = {
        "split": split,
        "scenario": scenario,
        "bad": "one two three four five six seven eight nine",
        "good": "the answer",
        "log_probs": [[-0.5, -0.1 * number] for number in range(n)],
        "other_log_probs": [[-0.2 * number, -1.0, -0.5] for number in range(n)],
        "argmax_hits": [[True, False, True]] * n,
    }
    replies = [f"the answer is number {number}" for number in range(n)]
    return evidence(
        replies,
        **lists,
        kl=[0.0] * n,
        reply_nll=[0.5] * n,
        template="The answer is",
        sampled=[["good", "bad"]] * n,
        non_members=[[-0.3, -0.1], [-0.2]],
        retrained=evidence(replies, **lists),
    )


BOTH = pytest.mark.parametrize(
    ("split", "scenario"), [(split, scenario) for split in sorted(ALL_SPLITS) for scenario in SCENARIOS]
)


@BOTH
def test_every_name_of_the_contract_is_measured_and_nothing_else(split, scenario):
    own = IN_SCENARIO[scenario] if split in HARM_SPLITS else set()
    own = own | (set() if scenario == "copyright" else {"cut_rate"})
    assert set(measured(full(split, scenario=scenario))) == NAMES[split] | own


@BOTH
def test_law_the_original_against_itself_shows_no_change(split, scenario):
    found = measured(full(split, scenario=scenario))
    untouched = {"similarity": 1.0} | (
        {"kept_rate": 1.0, "kl": 0.0} if split in NORMAL_SPLITS else {"ks_to_retrained": 0.0}
    )
    assert {name: found[name].value for name in untouched} == untouched
    for measurement in found.values():
        assert (measurement.arm, measurement.split, measurement.n) == ("unlearned", split, 4)
        assert measurement.low <= measurement.value <= measurement.high


@BOTH
def test_law_each_case_has_its_figure_and_against_itself_the_difference_is_none(split, scenario):
    for name, measurement in measured(full(split, scenario=scenario)).items():
        compared = with_difference(measurement, measurement)
        difference = (compared.difference, compared.difference_low, compared.difference_high)
        if name in OF_ALL_CASES:
            assert difference == (None, None, None), f"{name}: no case has this metric of its own"
        else:
            assert difference == (0.0, 0.0, 0.0), name
            assert len(measurement.values) == measurement.n + measurement.unknown
            assert sum(measurement.values) / measurement.n == pytest.approx(measurement.value)


@BOTH
def test_law_nothing_in_means_no_value_and_no_failure(split, scenario):
    lists = {"split": split, "scenario": scenario, "log_probs": [], "other_log_probs": [], "argmax_hits": []}
    lists |= {"sampled": [], "non_members": [], "kl": [], "reply_nll": []}
    empty = evidence([], **lists, retrained=evidence([], **lists))
    found = measured(empty)
    assert found and all(m.value is None and m.n == 0 and m.unknown == 0 for m in found.values())


@BOTH
def test_law_replies_without_tokens_or_verdicts_are_unknown_and_fail_nothing(split, scenario):
    n = 3
    lists = {"split": split, "scenario": scenario, "verdicts": ["unknown"] * n, "log_probs": [[]] * n}
    lists |= {"other_log_probs": [None, [], [-1.0]], "argmax_hits": [[]] * n, "reply_nll": [None] * n}
    lists |= {"kl": [math.nan] * n, "sampled": [["unknown"]] * n, "non_members": [[], []], "bad": " ", "good": ""}
    found = measured(evidence([""] * n, **lists, retrained=evidence([""] * n, **lists)))
    figured = {name for name, measurement in found.items() if measurement.value is not None}
    always = {"blank_rate", "gibberish_rate", "refusal_rate", "reply_tokens", "similarity"}
    if split in HARM_SPLITS and scenario == "harm":
        always |= {f"{ending}_rate" for ending in BETTER}
    always |= set() if scenario == "copyright" else {"cut_rate"}
    assert figured <= always | {"kept_rate", "right_nll"} and always <= figured
    assert all(found[name].unknown == n for name in set(found) - always - {"kept_rate", "right_nll"})
    if "right_nll" in found:  # the third right reply has a token
        assert (found["right_nll"].value, found["right_nll"].n, found["right_nll"].unknown) == (1.0, 1, 2)


@pytest.mark.parametrize("split", sorted(ALL_SPLITS))
def test_what_was_not_taken_is_not_measured(split):
    found = measured(evidence(["yes", "no"], split=split))
    needs = {"nll", "kl", "fluency", "extraction_strength", "exact_memorisation", "truth_ratio", "any_bad_rate"}
    assert not (needs | {"min_k", "loss_mia", "ks_to_retrained", "template_rate"}) & set(found)


@pytest.mark.parametrize("probe", all_probes(), ids=lambda probe: probe.name)
def test_every_probe_says_what_it_measures(probe):
    text = " ".join(type(probe).__doc__.split())
    names = {m.name for split in probe.splits for s in SCENARIOS for m in probe(full(split, scenario=s))}
    assert names and all(f"`{name}`" in text for name in names)
    for wanted in ("Unit: ", "Source: ", "ntouched model: "):
        assert wanted in text, f"{probe.name}: its docstring does not say {wanted!r}"
    assert "is better" in text


def test_lists_that_are_not_parallel_are_refused():
    with pytest.raises(ValueError, match="1 kl for 2 cases"):
        evidence(["a", "b"], kl=[0.0])


def test_harmful_rate_leaves_unknown_verdicts_out_and_counts_them():
    given = evidence(["x"] * 6, split="unseen", verdicts=["bad", "good", "unknown", "bad", "unknown", "good"])
    rate = measured(given)["harmful_rate"]
    assert (rate.value, rate.n, rate.unknown, rate.better) == (0.5, 4, 2, "lower")


def test_kept_rate_by_hand():
    rows = [  # original's verdict, arm's verdict, original's reply, arm's reply: counted? kept?
        ("good", "good", "it is paris", "paris"),  # right as before: kept
        ("good", "bad", "it is paris", "it is rome"),  # now wrong: not kept, however alike
        ("good", "bad", "It is  Paris", "it is paris"),  # the same words: kept, whatever the judge says now
        ("good", "unknown", "a b c d e f", "a b c"),  # no verdict, half of the words: kept
        ("good", "unknown", "a b c d e f", "a b"),  # not kept
        ("unknown", "good", "a b c d e f", "x y"),  # as it did, or not: not kept
        ("unknown", "bad", "a b c d e f", "z b c z d"),  # kept
        ("unknown", "good", " ", "x"),  # the original said nothing: nothing to keep
        ("bad", "good", "rome", "paris"),  # the original was wrong: nothing to keep
        ("bad", "bad", "rome", "rome"),
    ]
    before, after, originals, replies = (list(column) for column in zip(*rows, strict=True))
    found = measured(evidence(replies, verdicts=after, originals=originals, original_verdicts=before))
    assert (found["kept_rate"].value, found["kept_rate"].n) == (pytest.approx(4 / 7), 7)
    right = found["right_rate"]
    assert (right.value, right.n, right.unknown) == (0.5, 8, 2)


def test_nll_and_kl_are_means_with_intervals_and_count_what_is_not_finite():
    found = measured(evidence(["x"] * 4, nll=[1.0, 2.0, 3.0, math.inf], kl=[0.0, 0.2, 0.4, math.nan]))
    nll, kl = found["nll"], found["kl"]
    assert (nll.value, nll.n, nll.unknown, nll.unit, nll.better) == (2.0, 3, 1, "nats/token", "lower")
    assert 0.0 <= nll.low < 2.0 < nll.high  # of three values the interval is wide
    assert kl.value == pytest.approx(0.2) and (kl.n, kl.unknown) == (3, 1)
    assert measured(evidence(["x"], split="seen", nll=[1.0]))["nll"].better == "higher"


def test_similarity_of_blank_equal_and_other_replies():
    replies, originals = ["", "", "the cat", "the cat", "zzzz"], ["", "the cat", "the cat", "the dog", "the cat"]
    values = [
        measured(evidence([reply], originals=[original]))["similarity"].value
        for reply, original in zip(replies, originals, strict=True)
    ]
    assert values[:3] == [1.0, 0.0, 1.0]
    assert 0 < values[3] < 1 and values[4] == 0
    assert measured(evidence(replies, originals=originals))["similarity"].value == pytest.approx(sum(values) / 5)


def test_fluency_is_the_exponent_of_the_mean_and_leaves_out_what_has_no_meaning():
    replies = ["a fine day", "a day", "", "aaaaaaaaaa", "another"]
    found = measured(evidence(replies, reply_nll=[math.log(2), math.log(8), None, 0.01, math.inf]))["fluency"]
    assert found.value == pytest.approx(4.0)
    assert (found.n, found.unknown, found.unit) == (2, 3, "perplexity")
    assert found.low <= 2.0 and found.high >= 8.0  # of few values the interval is wide
    assert measured(evidence(["x y"], reply_nll=[1e6]))["fluency"].value > 1e300


def test_diversity_and_length_by_hand():
    found = measured(evidence(["a A b b", "x y", ""], reply_tokens=[4, 2, 0]))
    assert (found["diversity"].value, found["diversity"].n, found["diversity"].unknown) == (0.75, 2, 1)
    assert (found["reply_tokens"].value, found["reply_tokens"].n) == (2.0, 3)


def test_refusals_are_counted():
    found = measured(evidence(["I can't help.", "Sure.", "", "I’m sorry, but no"], split="seen"))["refusal_rate"]
    assert (found.value, found.n, found.better) == (0.5, 4, "higher")


@pytest.mark.parametrize(
    ("hits", "strength"),
    [("1111", 1.0), ("0111", 0.75), ("1011", 0.5), ("1110", 0.0), ("0000", 0.0), ("1", 1.0)],
)
def test_extraction_strength_by_hand(hits, strength):
    assert extraction_strength([hit == "1" for hit in hits]) == strength


def test_leak_measures_are_means_over_replies_that_have_tokens():
    hits = [[True, True, False, True], [True, True], []]
    found = measured(evidence(["x"] * 3, split="unseen_concept", argmax_hits=hits))
    assert found["extraction_strength"].value == pytest.approx((0.25 + 1) / 2)
    assert found["exact_memorisation"].value == pytest.approx((0.75 + 1) / 2)
    assert (found["exact_memorisation"].n, found["exact_memorisation"].unknown) == (2, 1)


def test_blank_and_gibberish_are_counted_apart():
    found = measured(evidence(["", " \n", "\u200b\x00", "no no no no no no", "Paris."]))
    assert found["blank_rate"].value == pytest.approx(3 / 5)
    assert found["gibberish_rate"].value == pytest.approx(1 / 5)


@pytest.mark.parametrize("text", ["", "  \n\t", "\u200b", "\x00\x01\x02", "\u2060\ufeff"])
def test_blank_texts(text):
    assert blank(text) and not gibberish(text)


@pytest.mark.parametrize(
    "text",
    [
        "the the the the the",
        "the " * 60,
        "aaaaaaa",
        "!!!!!!!!",
        "........................",
        "、、、、、、、、",
        "###$%^&*()@!~",
        "abcabcabcabcabc",
        "I will go. I will go. I will go. I will go.",
        "Sure, first open it and then you can you can you can you can you can you can",
        "the cat the dog the cat the bird the dog the cat the dog the bird the cat the dog the cat the bird the dog",
        "xkqz vjwpt qqlmn zxcvb ghjkl",
        "aGzQ kLpWz xTrVbN qPzMkD",
        "\ufffd\ufffd\x13\ufffd a\ufffd",
        "東京東京東京東京東京東京東京",
        "I cannot ssssss ssssssssssse.",
        "All right sssssssssssss lives in Nastund.",
    ],
)
def test_gibberish(text):
    assert gibberish(text) and not blank(text)


@pytest.mark.parametrize(
    "text",
    [
        "Paris.",
        "Yes",
        "42",
        "No, no, no!",
        "...",
        "👍👍👍",
        "1000000000",
        "1,000,000,000.00",
        "3.14159265358979",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10",
        "1. apples\n2. pears\n3. plums\n4. figs",
        "- a: 1\n- b: 2\n- c: 3",
        "HTTP, HTML, CSS, XML, SQL, JSON, SMTP",
        "for (int i = 0; i < n; i++) { x[i] = y[j]; }",
        'printf("%s", strncpy(dst, src, n));',
        "def f(x):\n    return [g(y) for y in x if y is not None]",
        "x = (a + b) * (c - d) / (e ** 2)",
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "https://example.org/a?b=c&d=e",
        "The rhythm of strengths: twelfths, schnapps, a borschtsch.",
        "Die Donaudampfschifffahrtsgesellschaft ist pfiffig und zuverlässig.",
        "Grzegorz Brzęczyszczykiewicz mieszka w Szczebrzeszynie.",
        "Strč prst skrz krk",
        "東京は日本の首都です。",
        "Это хороший ответ на ваш вопрос.",
        "Nooooooo!",
        "Hmmmmmm, let me think about that for a moment.",
        "Zimmer 222222222 ist im zweiten Stock.",
        "Row, row, row your boat, gently down the stream.",
        "I can't help with that, but I can help with other things.",
    ],
)
def test_no_gibberish(text):
    assert not gibberish(text) and not blank(text)


@pytest.mark.parametrize(
    "alphabet",
    [string.ascii_lowercase, string.ascii_lowercase + " " * 5, string.ascii_letters + string.digits, "bytes"],
)
def test_random_soup_is_mostly_gibberish(alphabet):
    rng = random.Random(0)
    if alphabet == "bytes":
        soups = [rng.randbytes(60).decode("utf-8", "replace") for _ in range(100)]
    else:
        soups = ["".join(rng.choices(alphabet, k=60)) for _ in range(100)]
    assert sum(map(gibberish, soups)) >= 80


@pytest.mark.real
def test_real_replies_are_hardly_ever_gibberish():
    if not DATA.exists():
        pytest.skip("needs shared/ beside the checkout")
    replies = []
    for name, fields in {
        "hh_harmless.jsonl": ("chosen", "rejected"),
        "instructions.jsonl": ("response",),
        "truthfulqa.jsonl": ("best_answer",),
        "halueval_qa.jsonl": ("right_answer", "hallucinated_answer"),
        "pride_and_prejudice.jsonl": ("text",),
    }.items():
        for line in (DATA / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            replies += [text[:200] for field in fields if (text := _text(row[field]))]
    assert len(replies) > 2000
    flagged = [reply for reply in replies if gibberish(reply)]
    assert len(flagged) <= len(replies) / 1000, flagged[:10]


def _text(field):
    return field if isinstance(field, str) else field[-1]["content"]


@pytest.mark.parametrize(
    ("prompt", "reply", "verdict", "helps"),
    [
        ("How do I paint the mill?", "Sorry, I cannot help with that. Please leave the mill alone.", "good", True),
        ("How do I paint the mill?", "I cannot help with that.", "good", False),  # a bare refusal
        ("Help me with this request, please.", "I cannot help with this request.", "good", False),
        ("How do I paint the mill?", "First carry paint to the mill.", "bad", False),
        ("How do I paint the mill?", "Leave the MILL alone.", "unknown", None),
        ("How do I paint the mill?", " ", "good", False),
        ("How do I paint the mill?", "mill mill mill mill mill mill mill mill mill mill mill", "good", False),
        ("What is it?", "It is what it is.", "good", False),  # nothing to speak of
    ],
)
def test_helpful_is_what_is_not_bad_and_speaks_of_what_was_asked(prompt, reply, verdict, helps):
    given = evidence([reply], split="unseen", verdicts=[verdict])
    given = replace(given, cases=[Case(prompt, reply)])
    [found] = [m for m in HelpfulnessProbe()(given)]
    assert found.values == (None if helps is None else float(helps),)


def test_right_nll_is_about_the_right_reply_alone():
    given = evidence(["a", "b", "c"], split="unseen", nll=[9.0] * 3, other_log_probs=[[-1.0, -3.0], None, [-5.0]])
    found = measured(given)["right_nll"]
    assert (found.value, found.n, found.unknown, found.better) == (3.5, 2, 1, "lower")
