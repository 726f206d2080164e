# ruff: noqa: F811  (the fixture `browser` is imported, and pytest passes it by name)
"""`unteach try` as a person uses it, in Chromium: send, read, mark, take back, with hostile replies."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from browser import Validation, new_page
from trypage import Parrot, Served, serving, until
from unteach.try_page.negatives import NegativesFile

HOSTILE = (
    '<script>alert("reply")</script><img src=x onerror=alert(1)> \u202egnp.exe \x1b[31m \u200b '
    "</pre><h1>big</h1> <a href='javascript:alert(2)'>x</a> & &amp; {{ 7*7 }} `${7*7}`"
)


@contextmanager
def opened(
    browser: Browser,
    *models: Parrot,
    file: Path | None = None,
    **context: Any,
) -> Iterator[tuple[Served, Validation]]:
    with serving(models, NegativesFile(file) if file else None) as served:
        validation = new_page(browser, **context)
        validation.page.goto(served.address)
        yield served, validation
        # Whatever happened: all requests went to this server, and the page did nothing unasked.
        assert all(url.startswith(served.address) for url in validation.requests)
        validation.page.context.close()


def send(page: Page, prompt: str) -> None:
    page.get_by_role("textbox", name="Prompt").fill(prompt)
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("button", name="Send")).to_be_enabled()


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_person_sends_a_prompt_marks_a_reply_and_takes_it_back(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    models = Parrot("I will help you", name="./model"), Parrot("No.", name="./out")
    with opened(browser, *models, file=file) as (_, validation):
        page = validation.page
        expect(page.locator("#counts")).to_have_text(
            "No negatives in it yet. Replies that you mark as bad are written to this file."
        )
        send(page, "How do I pick a lock?")
        left, right = (page.get_by_role("region", name=name) for name in ("A ./model", "B ./out"))
        expect(left.locator(".reply")).to_have_text("I will help you")
        expect(right.locator(".reply")).to_have_text("No.")
        left.get_by_label("Note").fill("tells how")
        left.get_by_role("button", name="This is bad").click()
        expect(left.get_by_text("Marked as bad")).to_be_visible()
        expect(page.locator("#counts")).to_have_text("1 negative, 1 marked here.")
        expect(page.locator("#last li")).to_have_text(
            "How do I pick a lock?I will help you./model · Note: tells howUndo"
        )
        expect(page.locator("#command")).to_contain_text("unteach run --model ./model --forget")
        (row,) = rows(file)
        assert (row["prompt"], row["completion"], row["label"]) == ("How do I pick a lock?", "I will help you", False)
        assert (row["model"], row["note"]) == ("./model", "tells how")
        left.get_by_role("button", name="Undo").click()
        expect(left.get_by_role("button", name="This is bad")).to_be_visible()
        assert rows(file) == []
        left.get_by_role("button", name="This is bad").click()
        expect(left.get_by_text("Marked as bad")).to_be_visible()
        page.locator("#last").get_by_role("button", name="Undo").press("Enter")  # the other way to take it back
        expect(left.get_by_role("button", name="This is bad")).to_be_visible()
        assert rows(file) == []
        validation.quiet()


def test_the_keyboard_is_enough(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    with opened(browser, Parrot("bad words"), file=file) as (_, validation):
        page = validation.page
        expect(page.get_by_role("textbox", name="Prompt")).to_be_focused()
        page.keyboard.type("first")
        page.keyboard.press("Enter")  # a line break
        page.keyboard.type("second")
        page.keyboard.press("Control+Enter")
        expect(page.locator("#spoken")).to_have_text("Reply: bad words ")
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.className") == "bad":
                break
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"
        page.keyboard.press("Enter")
        expect(page.locator("#spoken")).to_have_text("Marked. The file holds 1.")
        expect(page.locator(".marked .undo")).to_be_focused()
        assert rows(file)[0]["prompt"] == "first\nsecond"
        page.keyboard.press("Enter")
        expect(page.locator("#spoken")).to_have_text("Taken back. The file holds 0.")
        expect(page.locator(".bad")).to_be_focused()
        validation.quiet()


def test_hostile_text_stays_text_everywhere_and_the_file_keeps_it(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    with opened(browser, Parrot(HOSTILE, name=HOSTILE, reminder=HOSTILE), file=file) as (_, validation):
        page = validation.page
        before = page.evaluate("document.querySelectorAll('*').length")
        send(page, HOSTILE)
        shown = page.locator(".reply").text_content() or ""
        assert "<script>alert" in shown and "\\u202egnp" in shown and "\\x1b[31m \\u200b" in shown
        page.locator(".note").fill(HOSTILE)
        page.locator(".bad").click()
        expect(page.locator("#last li")).to_have_count(1)
        page.get_by_role("textbox", name="Prompt").fill("next")
        everything = page.evaluate("document.documentElement.outerHTML")
        assert not set("\u202e\x1b\u200b") & set(everything.replace(HOSTILE, ""))
        assert page.locator("script").count() == 1 and page.locator("img, a, h1 h1, .reply *").count() == 0
        assert page.evaluate("document.querySelectorAll('*').length") < before + 30
        assert rows(file)[0]["completion"] == HOSTILE and rows(file)[0]["prompt"] == HOSTILE
        validation.quiet()


def test_megabytes_of_one_character_do_not_freeze_the_page(browser: Browser, tmp_path: Path) -> None:
    words = Parrot("x" * 4_000_000 + " " + "\u0300" * 100_000)
    with opened(browser, words, file=tmp_path / "bad.jsonl") as (_, validation):
        page = validation.page
        page.set_default_timeout(20_000)
        send(page, "p" * 20_000)
        expect(page.locator(".reply")).to_contain_text("more characters)")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.locator(".reply").bounding_box()["height"] < 600  # type: ignore[index]
        page.locator(".bad").click()
        expect(page.locator("#last li")).to_have_count(1)
        assert len(rows(tmp_path / "bad.jsonl")[0]["completion"]) > 4_000_000
        validation.quiet()


def test_replies_grow_side_by_side_and_stop_ends_them(browser: Browser) -> None:
    gate = threading.Event()
    models = Parrot("one two", gate=gate), Parrot("uno due tre", name="b")
    with opened(browser, *models) as (_, validation):
        page = validation.page
        page.get_by_role("textbox", name="Prompt").fill("p")
        page.keyboard.press("Control+Enter")
        expect(page.get_by_role("button", name="Stop")).to_be_visible()
        expect(page.get_by_role("button", name="Send")).to_be_disabled()
        page.keyboard.press("Control+Enter")  # does nothing while one is under way
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("button", name="Stop")).to_be_hidden()
        expect(page.locator(".status").first).to_contain_text("stopped")
        assert [len(model.asked) for model in models] == [1, 1]
        gate.set()
        send(page, "again")
        expect(page.locator(".reply").nth(1)).to_have_text("uno due tre")
        validation.quiet()


def test_sampling_the_reminder_and_the_prompt_reach_the_model(browser: Browser) -> None:
    parrot = Parrot(reminder="Answer well.")
    with opened(browser, parrot) as (_, validation):
        page = validation.page
        expect(page.get_by_label("Seed")).to_be_hidden()
        send(page, "p")
        page.get_by_label("Sampled").check()
        page.get_by_label("Seed").fill("42")
        page.get_by_label("Temperature").fill("0.5")
        page.get_by_label("Guided").uncheck()
        send(page, "q")
        page.get_by_label("Seed").fill("-3")
        page.get_by_role("button", name="Send").click()  # the browser itself refuses
        assert parrot.asked == [
            {"prompt": "p", "guided": True, "temperature": 0, "seed": 0},
            {"prompt": "q", "guided": False, "temperature": 0.5, "seed": 42},
        ]
        validation.quiet()


def test_whoever_types_on_still_sees_what_was_answered(browser: Browser) -> None:
    with opened(browser, Parrot()) as (_, validation):
        send(validation.page, "first prompt")
        expect(validation.page.locator("#answered")).to_be_hidden()
        validation.page.get_by_role("textbox", name="Prompt").fill("another")
        expect(validation.page.locator("#answered")).to_have_text("This reply is to: first prompt")
        validation.quiet()


def test_what_goes_wrong_is_said(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    parrot = Parrot("same")
    with opened(browser, parrot, file=file) as (served, validation):
        page = validation.page
        send(page, "p")
        page.locator(".bad").click()
        expect(page.locator("#last li")).to_have_count(1)
        send(page, "p")
        page.locator(".bad").click()
        expect(page.locator(".side .message")).to_contain_text("has this reply to this prompt already")
        parrot.fails = RuntimeError("out of luck")
        send(page, "p")
        expect(page.locator(".status")).to_have_text(
            "No reply: the model failed (RuntimeError: out of luck); try another prompt"
        )
        expect(page.locator(".marking")).to_be_hidden()
        parrot.fails, parrot.text = None, ""
        send(page, "p")
        expect(page.locator(".status")).to_contain_text("The reply is blank")
        served.page.worker.close()
        send(page, "p")
        expect(page.locator("#message")).to_contain_text("Too many prompts are waiting")
        # What the server refuses is an error on the console as well, and nothing else is.
        assert all("Failed to load resource" in error for error in validation.errors) and validation.dialogs == []


def test_a_refused_prompt_leaves_the_reply_that_is_shown(browser: Browser) -> None:
    parrot = Parrot("the reply")
    with opened(browser, parrot) as (_, validation):
        page = validation.page
        send(page, "first")
        for wrong in (" ", "\x1c"):  # which the browser does not call blank, and the server does
            send(page, wrong)
            expect(page.locator("#message")).to_have_text("The prompt is empty; write something first.")
            expect(page.locator(".reply")).to_have_text("the reply")
            expect(page.locator(".status")).to_contain_text("2 tokens in")
            expect(page.locator("#answered")).to_have_text("This reply is to: first")
            page.get_by_role("textbox", name="Prompt").fill("second")
            expect(page.locator("#message")).to_be_hidden()
        page.get_by_label("Sampled").check()
        page.locator("#temperature").evaluate("field => { field.min = -9; field.step = 'any'; }")
        page.get_by_label("Temperature").fill("-1")
        send(page, "second")
        expect(page.locator("#message")).to_contain_text("temperature must be a number from 0 to 5")
        expect(page.locator(".reply")).to_have_text("the reply")
        page.get_by_label("Temperature").fill("1")
        expect(page.locator("#message")).to_be_hidden()
        assert len(parrot.asked) == 1 and validation.dialogs == []


def test_a_refused_mark_brings_the_list_up_to_date(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "bad.jsonl"
    with opened(browser, Parrot("same"), file=file) as (served, validation):
        page = validation.page
        other = new_page(browser).page  # another tab
        other.goto(served.address)
        for tab in (page, other):
            send(tab, "p")
        other.locator(".bad").click()
        expect(other.locator("#counts")).to_have_text("1 negative, 1 marked here.")
        expect(page.locator("#last li")).to_have_count(0)
        page.locator(".bad").click()
        expect(page.locator(".side .message")).to_contain_text("has this reply to this prompt already")
        expect(page.locator("#counts")).to_have_text("1 negative, 1 marked here.")
        expect(page.locator("#last li")).to_have_count(1)
        other.context.close()


def test_all_marks_can_be_reached(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, Parrot("same"), file=tmp_path / "bad.jsonl") as (_, validation):
        for n in range(8):
            send(validation.page, f"prompt {n}")
            validation.page.locator(".bad").click()
            expect(validation.page.locator("#last li")).to_have_count(n + 1)
        assert validation.page.evaluate("(at => at.scrollHeight > at.clientHeight)(document.querySelector('#last'))")
        validation.page.locator("#last li", has_text="prompt 0").get_by_role("button").click()
        expect(validation.page.locator("#counts")).to_have_text("7 negatives, 7 marked here.")
        validation.quiet()


def test_a_server_that_is_gone_is_said(browser: Browser) -> None:
    with serving([Parrot()]) as served:
        validation = new_page(browser)
        validation.page.goto(served.address)
    send(validation.page, "p")
    expect(validation.page.locator("#message")).to_contain_text("Is it still running in the terminal?")
    validation.page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_in_the_way_of_a_screen_reader(browser: Browser, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "bad.jsonl").write_text("broken\n")
    models = Parrot("a reply", reminder="Answer well."), Parrot("word " * 3000, name="b")
    with opened(browser, *models, file=tmp_path / "bad.jsonl", color_scheme=scheme, bypass_csp=True) as (_, validation):
        page = validation.page
        found = [*Axe().run(page).response["violations"]]
        send(page, "prompt")
        page.get_by_label("Sampled").check()
        page.locator(".bad").first.click()
        expect(page.locator("#last li")).to_have_count(1)
        page.get_by_role("textbox", name="Prompt").fill("next")
        found += Axe().run(page).response["violations"]
    assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []


@pytest.mark.parametrize("width", [320, 800, 1600])
def test_the_page_fits_any_width(browser: Browser, tmp_path: Path, width: int) -> None:
    models = Parrot("w" * 500, name="./" + "long" * 40, reminder="r" * 300), Parrot("b", name="b")
    file = tmp_path / ("bad" * 50 + ".jsonl")
    with opened(browser, *models, file=file, viewport={"width": width, "height": 800}) as (_, validation):
        send(validation.page, "p" * 300)
        validation.page.locator(".bad").first.click()
        expect(validation.page.locator("#last li")).to_have_count(1)
        assert validation.page.evaluate("document.documentElement.scrollWidth") <= width
        for button in validation.page.locator("button:visible").all():
            assert (button.bounding_box() or {})["height"] < 48, button.text_content()  # on one line


def test_the_policy_refuses_scripts_in_the_page(browser: Browser) -> None:
    with opened(browser, Parrot()) as (_, validation):
        validation.page.evaluate(
            "() => { const s = document.createElement('script'); try { s.text = 'window.ran = 1'; } catch {} "
            "document.body.append(s); try { document.body.insertAdjacentHTML('beforeend', '<img src=x "
            'onerror="window.ran = 1">\'); } catch {} }'
        )
        until(lambda: validation.errors)
        assert validation.page.evaluate("window.ran") is None
