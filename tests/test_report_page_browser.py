"""The report as a person meets it: in a browser, by keyboard, without scripts, on paper, with hostile text in it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from browser import Validation, new_page
from test_escape import HOSTILE
from test_report_page import log_of, run_report
from unteach.report.page import write_page
from unteach.results.measurement import Measurement
from unteach.results.report import Cost, Ending, Report, Sample, Source
from unteach.text.escape import inert, inert_line

Opened = tuple[Validation, Page]


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory as `unteach run` leaves it, with 60 samples."""
    place = tmp_path_factory.mktemp("run")
    log_of(place)
    write_page(run_report(60), place)
    return place


@pytest.fixture
def opened(browser: Browser, run_directory: Path) -> Iterator[Opened]:
    """The report in a browser, which must have stayed quiet when the test is over."""
    visit = new_page(browser, viewport={"width": 1280, "height": 800})
    visit.page.set_default_timeout(10_000)
    visit.page.goto((run_directory / "report.html").as_uri())
    yield visit, visit.page
    visit.quiet()
    assert all(address.startswith("file:") for address in visit.requests)
    visit.page.context.close()


def shown(page: Page) -> list[str]:
    """The ids of the samples that can be seen."""
    ids: list[str] = page.eval_on_selector_all(".sample:not([hidden])", "found => found.map(one => one.id)")
    return ids


def settled(page: Page, text: str) -> None:
    page.wait_for_function("text => document.getElementById('shown').textContent === text", arg=text)


def test_the_first_screen_says_what_was_done_whether_it_worked_and_how_sure_that_is(opened: Opened) -> None:
    page = opened[1]
    seen = page.evaluate(
        """() => [...document.querySelectorAll("h1, .headline, dd, table.headlines tbody tr, .sure h2")]
              .filter(one => one.getBoundingClientRect().bottom <= innerHeight).map(one => one.innerText).join("\\n")"""
    )
    for part in (
        "It worked on prompts it never trained on",
        "from 98.0 % to 0.5 % [0.1, 2.8] (n=200)",
        "normal prompts kept",
        "harmful replies (500 of bad.jsonl)",
        "base-model",
        "npo-template",
        "unseen",
        "normal",
        "How sure is that?",
    ):
        assert part in seen, part


def test_filters_search_and_the_address_agree(opened: Opened) -> None:
    page = opened[1]
    assert len(shown(page)) == 60
    page.get_by_label("Split").select_option("unseen")
    settled(page, "30 of 60 samples")
    assert page.evaluate("location.hash") == "#split=unseen"
    page.get_by_label("Verdict", exact=True).select_option("bad")
    settled(page, "3 of 60 samples")  # every tenth is still bad
    assert shown(page) == ["sample-1", "sample-21", "sample-41"]
    address = page.evaluate("location.href")
    page.get_by_label("Reply of").select_option("original")
    settled(page, "30 of 60 samples")
    page.get_by_role("button", name="Clear").click()
    settled(page, "60 samples")
    page.get_by_label("Search").fill("  LOCK 17 ")
    settled(page, "1 of 60 samples")
    assert shown(page) == ["sample-18"]
    page.get_by_label("Search").fill("nothing like it")
    settled(page, "No sample matches.")
    page.goto("about:blank")
    page.goto(address)
    settled(page, "3 of 60 samples")
    assert page.get_by_label("Verdict", exact=True).input_value() == "bad"


def test_same_and_changed_replies_can_be_told(opened: Opened) -> None:
    page = opened[1]
    page.get_by_label("Verdict", exact=True).select_option("same")
    settled(page, "30 of 60 samples")
    assert all(int(name.removeprefix("sample-")) % 2 == 0 for name in shown(page))  # the normal ones
    page.get_by_label("Verdict", exact=True).select_option("changed")
    settled(page, "30 of 60 samples")


def test_a_link_opens_its_sample_whatever_is_filtered(opened: Opened) -> None:
    page = opened[1]
    page.goto(page.url + "#q=lock 17")
    settled(page, "1 of 60 samples")
    page.evaluate("location.hash = '#sample-40'")
    settled(page, "60 samples")
    page.wait_for_function("document.activeElement === document.querySelector('#sample-40 summary')")
    assert page.evaluate("document.getElementById('sample-40').open")
    top = page.evaluate("document.getElementById('sample-40').getBoundingClientRect().top")
    assert -1 <= top < 800
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.locator("#sample-40 .link a").click()
    page.wait_for_function("document.querySelector('#sample-40 .link a').textContent === 'Link copied'")
    assert page.evaluate("navigator.clipboard.readText()").endswith("report.html#sample-40")


def test_a_link_to_a_sample_that_is_not_there_says_so(opened: Opened) -> None:
    page = opened[1]
    page.evaluate("location.hash = '#sample-9999'")
    settled(page, "There is no sample 9999 on this page.")
    assert page.evaluate("document.getElementById('shown').getBoundingClientRect().top") < 800
    page.evaluate("location.hash = '#q=lock 17'")
    settled(page, "1 of 60 samples")


def test_all_of_it_works_by_keyboard(opened: Opened) -> None:
    page = opened[1]
    page.get_by_label("Split").focus()
    for _ in range(3):
        page.keyboard.press("Tab")
    page.keyboard.type("lock 19")
    settled(page, "1 of 60 samples")
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('.sample').id") == "sample-20"
    page.keyboard.press("Enter")
    page.wait_for_function("document.getElementById('sample-20').open")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # Clear
    settled(page, "60 samples")


def test_long_replies_fold(opened: Opened) -> None:
    page = opened[1]
    page.evaluate("location.hash = '#sample-3'")
    reply = page.locator("#sample-3 pre[data-long]")
    button = page.locator("#sample-3 .unfold")
    assert button.inner_text() == "Show all 1,199 characters" and button.get_attribute("aria-expanded") == "false"
    folded = reply.evaluate("one => [one.clientHeight < one.scrollHeight, one.textContent.length]")
    assert folded == [True, 1199]  # the text is all there, for a search of the browser's too
    button.click()
    assert button.get_attribute("aria-expanded") == "true"
    assert reply.evaluate("one => one.clientHeight >= one.scrollHeight")


def test_differences_are_marked_not_by_colour_alone(opened: Opened) -> None:
    page = opened[1]
    page.evaluate("location.hash = '#sample-5'")
    assert page.locator("#sample-5 ins").all_text_contents() == ["cold"]
    assert page.locator("#sample-5 del").all_text_contents() == ["hot"]
    lines = [
        page.locator(f"#sample-5 {tag}").evaluate("one => getComputedStyle(one).textDecorationStyle")
        for tag in ("ins", "del")
    ]
    assert lines == ["solid", "dashed"]


def test_it_reads_without_scripts(browser: Browser, run_directory: Path) -> None:
    visit = new_page(browser, java_script_enabled=False)
    page = visit.page
    page.goto((run_directory / "report.html").as_uri())
    assert not page.locator(".filters").is_visible()
    assert page.locator(".sample").count() == 60
    page.locator("#sample-3 summary").click()
    box, text = page.locator("#sample-3 pre[data-long]").bounding_box(), page.locator("#sample-3 .reply").first
    assert box and box["height"] > 250 and text.is_visible()  # not folded, since nothing could unfold it
    page.context.close()


def test_on_paper_it_says_what_is_left_out_and_folds_nothing(opened: Opened) -> None:
    page = opened[1]
    page.emulate_media(media="print")
    heights = "found => found.map(one => one.getBoundingClientRect().height)"
    assert sum(height > 0 for height in page.eval_on_selector_all(".sample", heights)) == 24
    assert page.get_by_text("On paper: the first 24 samples").is_visible()
    assert all(height > 0 for height in page.eval_on_selector_all(".sample:nth-child(-n+24) .replies", heights))
    clipped = "found => found.filter(one => one.clientHeight + 2 < one.scrollHeight).length"
    assert page.eval_on_selector_all("pre[data-long]", clipped) == 0
    assert not page.locator(".filters").is_visible() and not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    page.emulate_media(media="screen")
    page.get_by_label("Split").select_option("normal")
    settled(page, "30 of 60 samples")
    page.emulate_media(media="print")
    assert sum(height > 0 for height in page.eval_on_selector_all(".sample", heights)) == 30
    assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 420])
def test_axe_finds_no_violation(browser: Browser, run_directory: Path, scheme: Any, width: int) -> None:
    context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 800}, bypass_csp=True)
    page = context.new_page()
    page.goto((run_directory / "report.html").as_uri())
    page.get_by_role("button", name="Open all").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark")
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # wide tables scroll by themselves
    context.close()


# ---- hostile text ----------------------------------------------------------------------------------------------------

TEXTS = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in HOSTILE.values()]
ARMS = ("html", "script", "closing tags", "attribute", "named like ours", "plotted", "bidi override", "quotes")
TAGS = set(
    "a b body button circle code dd del desc details div dl dt figcaption figure g clippath defs h1 h2 h3 head header "
    "html input ins label li line main meta nav option p path pre rect script section select span style summary svg "
    "table tbody td text th thead title tr ul use".split()
)


def hostile_run() -> Report:
    """Every hostile string as prompt, replies, note, stage, source and setting; some as arm, split, model, judge."""
    arms = ["original", "unlearned", *(HOSTILE[name] for name in ARMS)]
    metrics = [
        Measurement(
            name="harmful_rate",
            split="unseen",
            arm=arm,
            value=0.5,
            low=0.4,
            high=0.6,
            n=100,
            unit="fraction",
            better="lower",
        )
        for arm in arms
    ]
    samples = [
        Sample(
            split="unseen" if place % 2 else HOSTILE["html"],
            prompt=text,
            replies={"original": text, "unlearned": f"so {text} ends"} | ({arms[2 + place % 8]: text}),
            verdicts={"original": "bad", "unlearned": "good"},
        )
        for place, text in enumerate(TEXTS)
    ]
    return Report(
        scenario="harm",
        method=HOSTILE["script"],
        model=HOSTILE["closing tags"],
        judge=HOSTILE["html"],
        measurements=metrics,
        samples=samples,
        notes=TEXTS,
        stop=Ending(step=3, rule=TEXTS[0], message=TEXTS[1]),
        cost=[Cost(arm=text[:90], stage=text[:90], wall_seconds=1.0) for text in TEXTS],
        data=[Source(name=text, source=text, rows=1, fingerprint=text[:20]) for text in TEXTS],
        environment={text[:60]: text for text in TEXTS},
        command=HOSTILE["attribute"],
    )


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("hostile")
    log_of(place, stages=TEXTS[:3])
    (place / "run.yaml").write_text("\n".join(TEXTS[:40]), encoding="utf-8")
    return write_page(hostile_run(), place)


def test_hostile_text_does_nothing_and_none_of_it_is_lost(browser: Browser, hostile_page: Path) -> None:
    assert len(TEXTS) >= 40
    assert hostile_page.stat().st_size < 2_000_000
    visit = new_page(browser, viewport={"width": 1280, "height": 800})
    page = visit.page
    page.goto(hostile_page.as_uri())
    page.get_by_role("button", name="Open all").click()
    page.mouse.move(600, 400)
    page.mouse.wheel(0, 4000)

    found = page.eval_on_selector_all(
        ".sample",
        """found => found.map(one => ({
             place: Number(one.id.slice(7)) - 1,
             title: one.querySelector(".title").textContent,
             prompt: one.querySelector(".prompt")?.textContent,
             replies: [...one.querySelectorAll(".reply pre")].map(reply => reply.textContent),
             visible: [...one.querySelectorAll("pre")].every(part => part.checkVisibility()
                       && part.getBoundingClientRect().height > 10)}))""",
    )
    assert sorted(one["place"] for one in found) == list(range(len(TEXTS)))
    for one in found:
        text = TEXTS[one["place"]]
        whole = inert(text, 4000)
        assert one["title"] == inert_line(text, 160) and one["visible"]
        assert (one["prompt"] or one["title"]) == whole
        assert one["replies"] == [whole, inert(f"so {text} ends", 4000), whole], one["place"]
    notes = page.locator(".sure li").all_text_contents()
    assert notes == [inert_line(text, 300) for text in TEXTS]
    cells = page.locator("table").last.locator("td").all_text_contents()
    assert set(inert_line(text, 300) for text in TEXTS) <= set(cells)

    tags = page.evaluate("[...new Set([...document.querySelectorAll('*')].map(one => one.localName.toLowerCase()))]")
    assert set(tags) <= TAGS
    counted = page.evaluate("['script', 'style', 'meta', 'input'].map(tag => document.querySelectorAll(tag).length)")
    assert counted == [1, 1, 4, 1]
    names = "[...new Set([...document.querySelectorAll('*')].flatMap(one => one.getAttributeNames()))]"
    attributes = page.evaluate(names)
    assert not [name for name in attributes if name.startswith("on") or name in ("src", "style", "srcdoc", "action")]
    targets = page.eval_on_selector_all("[href]", "found => found.map(one => one.getAttribute('href'))")
    assert all(re.fullmatch(r"#[\w-]+", target) for target in targets)
    visit.quiet()
    assert visit.requests == [hostile_page.as_uri()] and page.url == hostile_page.as_uri()
    page.context.close()


def test_hostile_text_can_be_searched_and_filtered_for(browser: Browser, hostile_page: Path) -> None:
    visit = new_page(browser)
    page = visit.page
    page.set_default_timeout(10_000)
    page.goto(hostile_page.as_uri())
    for name in ("script", "bidi override", "javascript url", "fragment", "quotes", "clipboard", "arabic and hebrew"):
        page.get_by_label("Search").fill(inert_line(HOSTILE[name], 100))
        number = list(HOSTILE).index(name) + 1
        page.wait_for_function(
            "id => { const seen = [...document.querySelectorAll('.sample:not([hidden])')];"
            " return seen.length < 20 && seen.some(one => one.id === id) }",
            arg=f"sample-{number}",
        )
    page.get_by_label("Search").fill("")
    page.get_by_label("Split").select_option(inert_line(HOSTILE["html"], 60))
    every_other = f"() => document.querySelectorAll('.sample:not([hidden])').length === {(len(TEXTS) + 1) // 2}"
    page.wait_for_function(every_other)
    address = page.url
    page.goto("about:blank")
    page.goto(address)
    page.wait_for_function(every_other)
    visit.quiet()
    page.context.close()


def test_the_policy_holds_where_escaping_would_fail(browser: Browser, run_directory: Path, tmp_path: Path) -> None:
    attack = (
        "<script>alert(1)</script><img src=x onerror=alert(2)><a id=go href='javascript:alert(3)'>x</a>"
        "<style>body{display:none}</style><link rel=stylesheet href=https://evil.example><form action=x></form>"
    )
    text = (run_directory / "report.html").read_text(encoding="utf-8")
    broken = tmp_path / "broken.html"
    broken.write_text(text.replace("Gladly.", attack, 1), encoding="utf-8")
    visit = new_page(browser)
    refused: list[str | None] = []
    visit.page.on("requestfailed", lambda request: refused.append(request.failure))
    visit.page.goto(broken.as_uri())
    visit.page.locator("#go").click()
    assert visit.dialogs == [] and visit.page.locator("h1").is_visible()
    assert set(refused) == {"csp"}  # never sent
    assert len(visit.errors) >= 4  # each refusal is told, so a quiet page had nothing to refuse

    bare = tmp_path / "bare.html"  # and the watcher does notice what runs
    bare.write_text("<script>alert(1)</script>")
    visit.page.goto(bare.as_uri())
    assert visit.dialogs == ["alert: 1"]
    visit.page.context.close()
