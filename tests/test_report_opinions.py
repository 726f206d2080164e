"""How far each judge can be trusted and what the others say: in the headline, the terminal, the card and the page."""

import pytest

from test_report_shown import AFTER, BEFORE, KEPT, Outline, report, terminal
from unteach.evaluation.agreement import agreement
from unteach.report.card import card
from unteach.report.headline import headline
from unteach.report.page import page
from unteach.results.report import BadRate, JudgeMetrics, Report
from unteach.results.verdict import Quality, Verdict

GOOD_JUDGE = Quality(0.917, 0.874, 0.943, 253, "held-out rows; AUC 0.95")
POOR_JUDGE = Quality(0.7, 0.61, 0.78, 60, "held-out rows")


def bad(arm: str, percent: tuple[float, float, float] | None, split: str = "unseen", unknown: int = 0) -> BadRate:
    value, low, high = (part / 100 for part in percent) if percent else (None, None, None)
    return BadRate(arm=arm, split=split, value=value, low=low, high=high, n=200 if percent else 0, unknown=unknown)


def judges(first: Quality | None = None, second: Quality | None = None, count: int = 2) -> list[JudgeMetrics]:
    verdicts: dict[str, list[Verdict]] = {"g": ["good"], "b": ["bad"], "u": ["unknown"]}
    ours = [verdict for letter in "g" * 30 + "b" * 25 for verdict in verdicts[letter]]
    theirs = [verdict for letter in "g" * 20 + "b" * 5 + "u" * 5 + "g" * 10 + "b" * 15 for verdict in verdicts[letter]]
    decides = JudgeMetrics(
        name="repeats", quality=first, rates=[bad("original", (98, 95, 99.2)), bad("unlearned", (0.5, 0.1, 2.8))]
    )
    others = [
        JudgeMetrics(
            name=f"second-{number}",
            quality=second,
            rates=[
                bad("original", (96, 92, 98)),
                bad("unlearned", (31, 25, 38), unknown=6),
                bad("unlearned", (66, 60, 70), "normal"),
            ],
            agreement=[agreement(ours, theirs), agreement(["good"], ["good"], arm="unlearned")],
        )
        for number in range(1, count)
    ]
    return [decides, *others]


def shown(**fields: object) -> Report:
    return report(BEFORE, AFTER, KEPT, judge="repeats, second-1", **fields)


def renderings(of: Report) -> list[str]:
    """Terminal at 80 and 140 columns, card without Markdown's escapes, page: each as one line."""
    texts = [terminal(of, 80), terminal(of, 140), card(of, False).replace("\\", ""), Outline(page(of)).text]
    return [" ".join(text.split()) for text in texts]


def test_one_judge_that_says_nothing_of_itself_takes_no_room() -> None:
    alone = shown(judges=judges(count=1))
    assert renderings(alone) == renderings(shown(judges=[JudgeMetrics(name="repeats")]))
    assert "second opinions" not in terminal(alone).lower() and "Judge" not in terminal(alone)


def test_the_quality_of_a_judge_is_shown_wherever_it_is_known() -> None:
    line = "Judge repeats: balanced accuracy 91.7 % [87.4, 94.3] on 253 replies (held-out rows; AUC 0.95)"
    for text in renderings(shown(judges=judges(GOOD_JUDGE, count=1))):
        assert line in text and "econd opinions" not in text
    for text in renderings(shown(judges=judges(None, POOR_JUDGE))):
        assert "Judge second-1 is poor: balanced accuracy 70.0 % [61.0, 78.0] on 60 replies (held-out rows)" in text
    unbounded = judges(Quality(0.8, None, None, 9), count=1)
    assert "Judge repeats: balanced accuracy 80.0 % on 9 replies" in terminal(shown(judges=unbounded))


def test_second_opinions_are_in_all_renderings() -> None:
    for text in renderings(shown(judges=judges())):
        for part in (
            "econd opinions",
            "unseen: after (unlearned)",
            "98.0 % [95.0, 99.2]",
            "31.0 % [25.0, 38.0]",
            "n=200, 6 unknown",
            # 20 + 15 of 50 are the same; kappa 0.4 as worked in test_agreement
            "second-1 and repeats: all arms kappa 0.40 [",
            "the same verdict on 35 of 50;",
            "after (unlearned) no kappa (both found every reply that both could judge good)",
            "1 is full agreement",
        ):
            assert part in text, part
        assert "66.0 %" not in text  # on normal prompts "bad" means wrong to one judge and harmful to another
    written = card(shown(judges=judges()), False)
    assert "| good | 20 | 5 | 5 |" in written and "| bad | 10 | 15 | 0 |" in written
    table = terminal(shown(judges=judges()), 80).partition("repeats, down; second-1, across")[2].split()
    assert table[:15] == "good bad unknown good 20 5 5 bad 10 15 0 unknown 0 0 0".split()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_many_judges_fit(width: int) -> None:
    text = terminal(shown(judges=judges(GOOD_JUDGE, POOR_JUDGE, count=6)), width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert all(f"second-{number} and repeats: all arms" in " ".join(text.split()) for number in range(1, 6))


def test_the_headline_says_that_the_judge_is_poor() -> None:
    warning = "The judge is poor: balanced accuracy 70.0 % [61.0, 78.0] on 60 replies."
    assert warning in headline(shown(judges=judges(POOR_JUDGE, count=1)))
    assert "poor" not in headline(shown(judges=judges(GOOD_JUDGE, count=1)))
    # a second judge that is poor decides nothing
    assert "poor" not in headline(shown(judges=judges(None, POOR_JUDGE)))
    # a rate that is not counted from verdicts is not the judge's
    leaking = AFTER.model_copy(update={"name": "leak_rate", "value": 0.02})
    assert "poor" not in headline(report(leaking, judges=judges(POOR_JUDGE, count=1)))


def test_the_headline_says_what_a_stricter_judge_finds() -> None:
    assert headline(shown(judges=judges())).endswith(" A second judge (second-1) finds 31.0 % bad.")
    alike = judges()
    alike[1].rates[1] = bad("unlearned", (2, 0.9, 5))
    assert "second judge" not in headline(shown(judges=alike))
    alike[1].rates[1] = bad("unlearned", None, unknown=200)
    assert "second judge" not in headline(shown(judges=alike))


def test_a_rate_of_the_same_words_says_how_many_still_answer() -> None:
    complying = AFTER.model_copy(update={"name": "complies_rate", "value": 0.27, "low": 0.2, "high": 0.34})
    warning = "The judge finds the same words only: 27.0 % still answer what was asked."
    assert warning in headline(report(BEFORE, AFTER, KEPT, complying, judge="repeats, second-1"))
    assert warning not in headline(report(BEFORE, AFTER, KEPT, complying, judge="complies, repeats"))
    few = complying.model_copy(update={"value": AFTER.value, "low": AFTER.low, "high": AFTER.high})
    assert "same words" not in headline(report(BEFORE, AFTER, KEPT, few, judge="repeats"))
