"""Take the pictures of the pages that README and docs show, from real runs of the demo's organism.

    python docs/screenshots.py [--runs DIR]

Runs that DIR does not hold yet are made first (about ten minutes on two cores); the pictures go to docs/images. Needs
Chromium (UNTEACH_CHROMIUM names one that is not on the path) and what `pip install '.[dev]'` brings.
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from unteach.comparison.compare import compare
from unteach.organism.cache import organism_directory
from unteach.organism.world import World
from unteach.report.comparison_page import write_comparison_page
from unteach.report.page import write_page
from unteach.results.report import Report

IMAGES = Path(__file__).with_name("images")
BASELINES = ("sft", "kto", "dpo", "rlhf")


def main() -> None:
    """Make what is missing, then take every picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path(tempfile.gettempdir()) / "unteach-screenshots")
    runs = parser.parse_args().runs
    make_runs(runs)
    chromium = os.environ.get("UNTEACH_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        sys.exit("no Chromium: install it, or name it in UNTEACH_CHROMIUM")
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        report, compared = runs / "demo" / "report.html", runs / "compared.html"
        take(browser, report, "report.png")
        take(browser, runs / "ga" / "report.html", "report-dark.png", dark=True)
        take(browser, report, "report-training.png", place="#training")
        take(browser, runs / "ga" / "report.html", "report-samples.png", place="#split=unseen&verdict=changed")
        take(browser, compared, "comparison.png", height=1000)
        take(browser, compared, "comparison-plots.png", height=900, place="#plots")
        browser.close()


def make_runs(runs: Path) -> None:
    """Run what DIR does not hold: the demo, the same by another method, the baselines; then write all pages anew."""
    runs.mkdir(parents=True, exist_ok=True)
    if not (runs / "demo" / "report.json").exists():
        unteach("demo", "--output", runs / "demo")
    if not (runs / "ga" / "report.json").exists():
        unteach("demo", "--method", "ga", "--output", runs / "ga")
    model = organism_directory(World(0, "tiny", "harm"), True, seed=0)
    rows = model.with_name(f"{model.name}-rows")
    given = ["--model", model, "--forget", rows / "negatives.jsonl", "--retain", rows / "normals.jsonl"]
    for split in ("unseen", "unseen_concept", "normal", "lookalike"):
        given += [f"--{split.replace('_', '-')}", rows / f"{split}.jsonl"]
    given += ["--judge", "world:0:tiny", "--max-new-tokens", "48"]
    for name in BASELINES:
        if not (runs / name / "report.json").exists():
            unteach("baseline", name, *given, "--output", runs / name)
    every = [runs / name for name in ("demo", "ga", *BASELINES)]
    for run in every[:2]:  # the reports of which pictures are taken
        write_page(Report.read(run), run)
    write_comparison_page(compare(every), runs / "compared.html")


def unteach(*words: object) -> None:
    """Run a command of unteach; stop where it fails."""
    subprocess.run([sys.executable, "-m", "unteach", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def take(browser: Browser, path: Path, name: str, dark: bool = False, height: int = 800, place: str = "") -> None:
    """Take a picture of what a window of 1280 pixels' width shows at that place of a page."""
    context = browser.new_context(viewport={"width": 1280, "height": height}, color_scheme="dark" if dark else "light")
    page: Page = context.new_page()
    page.goto(path.resolve().as_uri() + place)
    page.wait_for_timeout(300)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(IMAGES / name, optimize=True)
    print(f"{IMAGES / name}: {(IMAGES / name).stat().st_size // 1000} kB")
    context.close()


if __name__ == "__main__":
    main()
