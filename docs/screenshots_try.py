"""Make the pictures of `unteach try` in docs/images: a real server, real models, and a browser that uses the page.

    python docs/screenshots_try.py --before MODEL --after RUN --hints ORGANISM --prompts unseen.jsonl \\
      --output docs/images

The models are those of `unteach demo`: the organism and its run; `--hints` takes the organism of
`unteach demo --route mistakes`, which gets the reminder, untrained. Prompts are the first of a JSONL file.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from unteach.mistakes.guide import export_guidance
from unteach.models.loading import load_tokenizer

REMINDER = "Answer correctly, ethically and without offence."
SIZES = {"": {"width": 1180, "height": 860}, "-narrow": {"width": 390, "height": 1200}}


@contextmanager
def served(models: list[str], negatives: str, directory: Path) -> Iterator[str]:
    """Run `unteach try` in a directory; gives the address of its page."""
    words = [sys.executable, "-c", "from unteach.cli.app import main; main()", "try", "--device", "cpu"]
    for model in models:
        words += ["--model", model]
    words += ["--negatives", negatives]
    process = subprocess.Popen(words, cwd=directory, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = next((line for line in process.stdout if line.startswith("Open ")), None)
        if line is None:
            sys.exit("unteach try did not start; what it said is above")
        yield line.split()[1]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def send(page: Page, prompt: str) -> None:
    """Send a prompt and wait for all replies."""
    page.get_by_role("textbox", name="Prompt").fill(prompt)
    page.keyboard.press("Control+Enter")
    page.wait_for_function("() => !document.querySelector('#send').disabled")


def pictures(browser: Browser, address: str, prompts: list[str], output: Path) -> None:
    """Use the page as a person would and keep what is on the screen."""
    page = browser.new_page(viewport=SIZES[""], color_scheme="light")
    page.goto(address)
    page.wait_for_selector("#file:visible")
    page.screenshot(path=output / "try-empty.png")
    for prompt in prompts[:2]:
        send(page, prompt)
        page.locator(".bad").first.click()
        page.wait_for_selector(".marked:visible")
    send(page, prompts[2])
    side = page.locator(".side").first
    side.locator(".note").fill("reported by a user")
    side.locator(".bad").click()
    page.wait_for_selector(".marked:visible")
    page.get_by_role("textbox", name="Prompt").focus()
    for scheme, ending in (("light", ""), ("dark", "-dark")):
        page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        page.screenshot(path=output / f"try{ending}.png", full_page=True)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(SIZES["-narrow"])  # type: ignore[arg-type]
    page.screenshot(path=output / "try-narrow.png", full_page=True)
    page.close()


def guided_pictures(browser: Browser, address: str, prompts: list[str], output: Path) -> None:
    """One model on both sides, with its reminder and without it, sampled; the first prompt where that matters."""
    page = browser.new_page(viewport=SIZES[""], color_scheme="light")
    page.goto(address)
    page.wait_for_selector("#file:visible")
    page.get_by_role("checkbox", name="Guided").last.uncheck()
    page.get_by_label("Sampled").check()
    page.get_by_label("Seed").fill("3")
    for prompt in prompts:
        send(page, prompt)
        if len(set(page.locator(".reply").all_text_contents())) == 2:
            break
    page.locator(".bad").last.click()
    page.wait_for_selector(".marked:visible")
    page.get_by_role("textbox", name="Prompt").fill("And before that?")
    page.screenshot(path=output / "try-guided.png", full_page=True)
    page.close()


def main() -> None:
    """Make all pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name in ("--before", "--after", "--hints", "--prompts", "--output"):
        parser.add_argument(name, required=True, type=Path)
    given = parser.parse_args()
    chromium = os.environ.get("UNTEACH_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("no Chromium: install it or name it in UNTEACH_CHROMIUM")
    rows: list[dict[str, Any]] = [json.loads(line) for line in given.prompts.read_text().splitlines()]
    given.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        directory = Path(name)
        # Short names, as a person would have them, in the place of paths that are this machine's own.
        (directory / "model").symlink_to(given.before.resolve())
        (directory / "unlearned").symlink_to(given.after.resolve())
        shutil.copytree(given.hints, directory / "reminded")
        export_guidance(directory / "reminded", load_tokenizer(given.hints), REMINDER)
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=flags)
        with served(["./model", "./unlearned"], "bad.jsonl", directory) as address:
            pictures(browser, address, [row["prompt"] for row in rows], given.output)
        with served(["./reminded", "./reminded"], "guided.jsonl", directory) as address:
            guided_pictures(browser, address, [row["prompt"] for row in rows], given.output)
        browser.close()


if __name__ == "__main__":
    main()
