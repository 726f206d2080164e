"""The file map of the README is true: it lists what is there, all of it, once.

In the section "## File map" stands one fenced block. Each of its lines that are not blank is a path relative to
src/unteach, two spaces or more, and what it is for. A path that ends in "/" stands for everything below it.
`__init__.py` and `py.typed` need no line.
"""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "unteach"
UNLISTED = {"__init__.py", "py.typed"}


def lines_of(readme: str) -> list[str]:
    section = re.search(r"^## File map\n(.*?)(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    assert section, 'README.md has no section "## File map"'
    block = re.search(r"^```\w*\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)
    assert block, "the section File map has no fenced block"
    return [line for line in block[1].splitlines() if line.strip()]


def mistakes(lines: list[str], files: set[str]) -> list[str]:
    """Say what is wrong with a map of these files."""
    found = []
    covered: dict[str, str] = {}
    for line in lines:
        parts = re.fullmatch(r"(\S+) {2,}(\S.*)", line)
        if not parts:
            found.append(f"not 'path  description': {line}")
            continue
        path = parts[1]
        below = {file for file in files if file == path or path.endswith("/") and file.startswith(path)}
        if not below:
            found.append(f"listed and not there: {path}")
        found += [f"listed twice: {file}, by {covered[file]} and {path}" for file in sorted(below & covered.keys())]
        covered |= dict.fromkeys(below, path)
    return found + [f"there and not listed: {file}" for file in sorted(files - covered.keys())]


def test_the_readme_lists_every_file_of_the_package() -> None:
    every = (path for path in SOURCE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    files = {str(path.relative_to(SOURCE)) for path in every if path.name not in UNLISTED}
    assert mistakes(lines_of((ROOT / "README.md").read_text(encoding="utf-8")), files) == []


def test_a_false_map_is_noticed() -> None:
    block = "a.py  one\n\nb/    all\nb/c.py  twice\nd.py\ne.py  gone"
    readme = f"# x\n## File map\nWhat is where:\n```text\n{block}\n```\n## More\n"
    files = {"a.py", "b/c.py", "d.py"}
    assert mistakes(lines_of(readme), files) == [
        "listed twice: b/c.py, by b/ and b/c.py",
        "not 'path  description': d.py",
        "listed and not there: e.py",
        "there and not listed: d.py",
    ]
    assert mistakes(["a.py  one", "b/  all", "d.py  more"], files) == []
