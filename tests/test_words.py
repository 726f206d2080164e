"""Retired words stay away: one word for each idea, in code, flags, messages, pages and docs (docs/design.md)."""

import re
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser
from typer.main import get_command

from unteach.cli.app import app

ROOT = Path(__file__).resolve().parents[1]
CLASSES = "(?-i:Looks?|Checked|Evidence|Known|Outsiders|Bill|Twin|Watched)"
MODULES = (
    "arguments|bill|check|cli_[a-z]+|comparable|config|curve|decoding|directory|endpoint|energy|escape|"
    "general_ability|generate|gibberish|hub|interrupt|items|known|loss|matched|measurement|models/load|original|pairs|"
    "preflight|reference|refusals|replies|run_rows|seeds|sparing|stopping|trainer|training_rows|tuning|validation|words"
)
"""Files that once lay at the top level."""
PLACES = ("src", "docs", "recipes", "benchmarks", "tests", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "Makefile")
ENDINGS = {".py", ".md", ".yaml", ".txt", ".jinja", ".js", ".css", ""}

RETIRED = {
    r"--never-taught|(?<!was_)(?<!were_)never_taught|never-taught(?=[`'\"])": "retrained",
    r"outsiders?": "non-members",
    r"sparing": "preconditioning",
    r"check[_-](?:prompts|steps|patience|new_tokens)": "validation_prompts, validation_steps, patience",
    r"--templates|mistakes templates": "--wording, mistakes wording",
    r"--looks|--watched|--normal-check|normal_check|--no-twin": "--validations, --validation, --normal, --no-retrained",
    r"(?-i:BREAK_OFF)|(?<=[`'\"\[=.])break_off|break-off(?=[`'\"|])": "rto",
    r"ks_to_twin": "ks_to_retrained",
    r"(?<=[`'\"])checking": "evaluation, evaluating",
    r"behaviour check": "behaviour target",
    r"held_mistakes": "unseen_mistakes",
    r"twins?": "retrained model",
    r"bill(?:s|ed|ing)?": "cost",
    r"watched": "validation",
    r"known replies' scores|score_known": "teacher-forced likelihood",
    r"final[ _]states?": "last hidden states",
    r"figures(?= = |: |\[)|(?<=\.)figures": "metrics",
    rf"class {CLASSES}|(?<!\.){CLASSES}(?=[(\[])|import (?:\w+, )*{CLASSES}": "ArmResult, Evaluation, Likelihood",
    rf"unteach[./](?-i:{MODULES})(?=\.py|[\s`'\"]|$)": "the path in a room, such as unteach.training.trainer",
}
"""Each pattern is a retired word, matched as a whole word and in any case, and stands beside the word to use."""

ALLOWED = (
    ("CHANGELOG.md", r"^\| .* \|$", "the table of old and new names"),
    ("tests/test_words.py", "", "this file"),
    ("src/unteach/organism/cache.py", '"never-taught"', "names a cache directory; another name would grow it anew"),
    ("src/unteach/text/subject.py", "amount bill bottom", "scikit-learn's list of stop words"),
    ("src/unteach/report/*", "figures", "plots, as matplotlib calls them"),
    ("tests/test_report_page.py", r"\.figures", "plots, as matplotlib calls them"),
    ("docs/objectives.md", "XDG_CACHE_HOME", "a directory of the user's cache"),
)
"""Places where such a word is history, a name of someone else's, or ordinary English, and why."""


@cache
def lines() -> list[tuple[str, int, str]]:
    found = []
    for place in PLACES:
        root = ROOT / place
        for path in sorted(root.rglob("*")) if root.is_dir() else [root]:
            if path.is_file() and path.suffix in ENDINGS and "__pycache__" not in path.parts:
                text = path.read_text(encoding="utf-8").splitlines()
                found += [(str(path.relative_to(ROOT)), number, line) for number, line in enumerate(text, 1)]
    return found


def is_allowed(path: str, line: str) -> bool:
    return any(fnmatch(path, place) and re.search(pattern, line) for place, pattern, _ in ALLOWED)


def hits(pattern: str, among: list[tuple[str, int, str]]) -> list[str]:
    """Return the places where the pattern stands as a whole word."""
    whole = re.compile(rf"(?<![A-Za-z])(?:{pattern})(?![A-Za-z])", re.IGNORECASE)
    return [f"{path}:{number}: {line.strip()}" for path, number, line in among if whole.search(line)]


@pytest.mark.parametrize("pattern", RETIRED, ids=RETIRED.values())
def test_retired_words_are_gone(pattern: str) -> None:
    among = [(path, number, line) for path, number, line in lines() if not is_allowed(path, line)]
    assert hits(pattern, among) == [], f"use {RETIRED[pattern]}"


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("the never_taught arm, --never-taught DIR", True),
        ("a model that was never taught them, the never-taught acts", False),
        ("no_check_steps: 3", True),
        ("its twin was grown without them", True),
        ("the method `break-off`", True),
        ("replies break off at once; BREAK_OFF = 1", True),
        ("replies break off at once; a break-off point", False),
        ("figures = measure(arm)", True),
        ("figurative; the figures in the table", False),
        ("def of(evidence: Known) -> Looks: return Looks(3)", True),
        ("Known replies are looked at. Evidence for that", False),
        ("from unteach.run_rows import x", True),
        ("src/unteach/escape.py", True),
        ("src/unteach/text/escape.py, unteach.evaluate(config)", False),
    ],
)
def test_the_patterns_tell_retired_words_from_english(line: str, found: bool) -> None:
    assert any(hits(pattern, [("x.md", 1, line)]) for pattern in RETIRED) is found


def flags_of(command: Any) -> set[str]:
    """Return the flags of a command and of all commands below it."""
    own = {word for option in command.params for word in (*option.opts, *option.secondary_opts)}
    return own.union(*(flags_of(below) for below in getattr(command, "commands", {}).values()))


def test_flags_of_docs_exist() -> None:
    known = flags_of(get_command(app)) | {"--help"}
    for parser in (get_args_parser(), launch_command_parser()):  # torchrun and accelerate launch
        known |= {flag for action in parser._actions for flag in action.option_strings}
    scripts = [*(ROOT / "benchmarks").glob("*.py"), ROOT / "tests" / "faults.py", ROOT / "tests" / "distributed.py"]
    for path in scripts:
        known |= set(re.findall(r"--[a-z][a-z-]+", path.read_text(encoding="utf-8")))
    told = [place for place in lines() if place[0].endswith(".md") and not is_allowed(place[0], place[2])]
    unknown = {
        f"{path}:{number}: {flag}"
        for path, number, line in told
        for flag in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", line)
        if flag not in known
    }
    assert unknown == set()
