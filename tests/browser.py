"""Chromium for tests: a page that writes down what a hostile text could make it do.

The fixture `browser` is there for every test (conftest.py has it); open pages with `new_page`. Where there is no
Chromium (`UNTEACH_CHROMIUM` names one that is not on the path), the tests that ask for it are skipped, and say why.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Dialog, Page, Playwright, Request, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")


@dataclass
class Validation:
    """A page, and all that it did without being asked: dialogs, complaints, requests and pop-ups."""

    page: Page
    dialogs: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    popups: list[str] = field(default_factory=list)

    def quiet(self) -> None:
        """Assert that the page opened no dialog and no window and complained of nothing, refusals included."""
        assert (self.dialogs, self.errors, self.popups) == ([], [], [])


def chromium() -> str | None:
    """Where Chromium is, or None."""
    named = os.environ.get("UNTEACH_CHROMIUM")
    return named or next((path for name in _NAMES if (path := shutil.which(name))), None)


def launch(playwright: Playwright, path: str) -> Browser:
    """Start that Chromium without a window; root has no sandbox to run in."""
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox"] if os.geteuid() == 0 else [])


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of a process."""
    path = chromium()
    if path is None:
        pytest.skip("no Chromium: install it (Debian: apt-get install chromium) or name it in UNTEACH_CHROMIUM")
    with sync_playwright() as playwright:
        started = launch(playwright, path)
        yield started
        started.close()


def new_page(browser: Browser, **context: Any) -> Validation:
    """Open an empty page in a context of its own; the keywords are those of Playwright's `Browser.new_context`.

    Close it with `validation.page.context.close()`; closing the browser does so too.
    """
    page = browser.new_context(**context).new_page()
    validation = Validation(page)

    def on_dialog(dialog: Dialog) -> None:
        validation.dialogs.append(f"{dialog.type}: {dialog.message}")
        dialog.dismiss()

    def on_console(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):  # a refusal of the content security policy is an error
            validation.errors.append(message.text)

    def on_request(request: Request) -> None:
        validation.requests.append(request.url)

    page.on("dialog", on_dialog)
    page.on("console", on_console)
    page.on("pageerror", lambda error: validation.errors.append(str(error)))
    page.on("request", on_request)
    page.on("popup", lambda popup: validation.popups.append(popup.url))
    return validation
