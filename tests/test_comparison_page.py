"""The page of a comparison: what it says, that it is valid for axe, and that hostile names do nothing in it."""

from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser

from browser import new_page
from command import call
from test_compare import BAD, GOOD, RLHF, UNLEARNED, report, saved
from test_escape import HOSTILE
from unteach.comparison.compare import Matched, compare
from unteach.errors import ConfigError
from unteach.report.comparison_page import comparison_page, write_comparison_page
from unteach.results.report import Waypoint
from unteach.text.escape import inert_line

Capture = pytest.CaptureFixture[str]


def waypoint(arm: str, step: int, flops: float, value: float) -> Waypoint:
    return Waypoint(
        arm=arm,
        seed=0,
        stage="training",
        step=step,
        wall_seconds=float(step),
        flops=flops,
        value=value,
        low=max(0.0, value - 0.1),
        high=min(1.0, value + 0.1),
        n=50,
    )


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Unlearning that ends at 0 of 10 bad, with its curve, and RLHF that ends at 1 of 10."""
    curve = [waypoint("unlearned", step, step * 1e11, value) for step, value in ((10, 0.6), (20, 0.02))]
    ours = report({"unlearned": GOOD}, UNLEARNED).model_copy(update={"curve": curve})
    return saved(tmp_path, ours=ours, rlhf=report({"rlhf": "b" + "g" * 9}, RLHF, method="rlhf"))


def test_it_says_who_is_where(runs: list[str]) -> None:
    text = comparison_page(compare(runs))
    for part in (
        "In no arm are harmful replies surely at 5 % or less",
        "harmful replies, unseen prompts (n=10)",
        "[0.0, 27.8]",
        "blank not measured, gibberish not measured",
        "cannot be told apart: unlearned and rlhf",
        "Harmful replies during training, against cost",
        "unlearned ends at 2.0 %",
        "2 TFLOP",
        "of rlhf&#39;s",
        "10 %",
        ">unlearned</text>",
    ):
        assert part in text, part
    assert 'style="' not in text and "<script" not in text


def test_the_summary_names_the_cheapest_that_stayed_whole(tmp_path: Path) -> None:
    many = [report({arm: GOOD}, costs, method=arm) for arm, costs in (("unlearned", UNLEARNED), ("rlhf", RLHF))]
    compared = compare(saved(tmp_path, one=many[0], two=many[1]))
    for row in compared.arms:
        if (rate := row.rates["bad_unseen"]) and row.arm != "original":
            rate.high = 0.04
    text = comparison_page(compared)
    assert "in 2 of 2 trained arms: unlearned and rlhf. The one that took least compute is unlearned: " in text


def test_costs_at_a_matched_outcome_and_failures_are_shown(runs: list[str]) -> None:
    compared = compare(runs)
    compared.failed = ["dpo, seed 1: out of memory"]
    compared.arms[1].matched = Matched(
        reached=1,
        runs=2,
        flops=2e12,
        flops_low=None,
        flops_high=None,
        wall_seconds=3.0,
        relative_flops=0.1,
        message="reached in 1 of 2 runs",
    )
    text = comparison_page(compared)
    for part in ("compute until 5 % bad", "reached in 1 of 2 runs", "<b>Failed:</b> dpo, seed 1: out of memory"):
        assert part in text, part


def test_the_flag_writes_it(runs: list[str], tmp_path: Path, capsys: Capture) -> None:
    done = call(capsys, "compare", *runs, "--html", tmp_path / "page.html")
    assert done.code == 0 and (tmp_path / "page.html").as_uri() in "".join(done.out.split())
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == comparison_page(compare(runs))


def test_it_replaces_no_report(runs: list[str]) -> None:
    with pytest.raises(ConfigError, match="--html .*is the page of a run that is compared"):
        write_comparison_page(compare(runs), Path(runs[0]) / "report.html")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(browser: Browser, runs: list[str], tmp_path: Path, scheme: str) -> None:
    path = write_comparison_page(compare(runs), tmp_path / "page.html")
    visit = new_page(browser, color_scheme=scheme, bypass_csp=True)
    visit.page.goto(path.as_uri())
    results = Axe().run(visit.page)
    assert results.violations_count == 0, results.generate_report()
    visit.page.context.close()


def test_hostile_names_do_nothing(browser: Browser, tmp_path: Path) -> None:
    names = [text.encode("utf-8", "replace").decode()[:90] for text in HOSTILE.values()]
    whole = saved(tmp_path, one=report({name: GOOD for name in names[:30]}), two=report(dict.fromkeys(names[30:], BAD)))
    compared = compare(whole)
    curves = {row.name: [waypoint(row.arm, step, step * 1e11, 0.5) for step in (1, 2)] for row in compared.arms}
    for row in compared.arms:
        row.curve = curves[row.name]
    compared.notes += names
    path = write_comparison_page(compared, tmp_path / "page.html")
    visit = new_page(browser)
    visit.page.goto(path.as_uri())
    heads = [text.strip() for text in visit.page.locator("tbody th").all_text_contents()]
    assert heads == [inert_line(row.name, 60) for row in compared.arms] and len(heads) > 50
    visit.quiet()
    assert visit.requests == [path.as_uri()]
    visit.page.context.close()


def test_many_arms_have_a_plot_each_beside_the_one_they_are_compared_with(tmp_path: Path) -> None:
    made = {}
    for place in range(8):
        arm = "rlhf" if place == 3 else f"arm-{place}"
        curve = [waypoint(arm, step, step * 1e11 * (place + 1), 1 / step) for step in (1, 2, 30)]
        costs = tuple(cost.model_copy(update={"arm": arm}) for cost in UNLEARNED if cost.arm == "unlearned")
        made[arm] = report({arm: GOOD}, costs, method=arm).model_copy(update={"curve": curve})
    text = comparison_page(compare(saved(tmp_path, **made)))
    chart = text.partition('aria-labelledby="on-the-way-title')[2].partition("</svg>")[0]
    assert all(f">arm-{place}</text>" in chart for place in (0, 1, 2, 4, 5, 6, 7)) and ">rlhf</text>" in chart
    assert chart.count("stroke-faint") == 7  # in all plots but its own
    assert "Grey: rlhf." in text and "arm-7 ends at 3.3 %" in text and 'style="' not in text
