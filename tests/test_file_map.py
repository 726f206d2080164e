"""What README and docs say about files is true: the rooms, and the reading order of `unteach run`."""

import re
from pathlib import Path

from test_rooms import ROOMS

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "unteach"


def listed_rooms(readme: str) -> list[str]:
    """Return the rooms that the block of the section "## Rooms" lists, a line each: `name  description`."""
    section = re.search(r"^## Rooms\n(.*?)(?=^## |\Z)", readme, re.MULTILINE | re.DOTALL)
    assert section, 'README.md has no section "## Rooms"'
    block = re.search(r"^```\w*\n(.*?)^```$", section[1], re.MULTILINE | re.DOTALL)
    assert block, "the section Rooms has no fenced block"
    rooms = []
    for line in block[1].splitlines():
        parts = re.fullmatch(r"(\w+) {2,}(\S.*)", line)
        assert parts, f"not 'room  description': {line!r}"
        rooms.append(parts[1])
    return rooms


def reading_order(page: str) -> list[str]:
    """Return the files that the numbered list of the section "## Reading order" names."""
    section = re.search(r"^## Reading order.*?\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section, 'docs/design.md has no section "## Reading order"'
    return re.findall(r"^\d+\. `([a-z_/]+\.py)`", section[1], re.MULTILINE)


def test_the_readme_lists_every_room_once_and_in_order() -> None:
    assert listed_rooms((ROOT / "README.md").read_text(encoding="utf-8")) == list(ROOMS)


def test_a_false_map_is_noticed() -> None:
    readme = "# x\n## Rooms\nWhat is where:\n```text\na  one\nb   two\n```\n## More\n```\nc  three\n```\n"
    assert listed_rooms(readme) == ["a", "b"]
    for line in ("a", "a one", "a  "):
        try:
            listed_rooms(f"## Rooms\n```\n{line}\n```\n")
        except AssertionError as error:
            assert line in str(error)
        else:
            raise AssertionError(f"{line!r} passed")


def test_following_a_run_opens_few_files() -> None:
    files = reading_order((ROOT / "docs" / "design.md").read_text(encoding="utf-8"))
    assert files[0] == "cli/run.py" and len(set(files)) == len(files)
    assert [file for file in files if not (SOURCE / file).is_file()] == []
    lines = sum(len((SOURCE / file).read_text(encoding="utf-8").splitlines()) for file in files)
    assert 15 <= len(files) <= 22 and lines <= 4500


def test_every_page_of_docs_is_in_the_index() -> None:
    page = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([a-z-]+\.md)\)", page))
    assert linked == {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}


def test_links_lead_to_files_and_sections() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", path.read_text(encoding="utf-8")):
            name, _, section = target.partition("#")
            found = path.parent / name if name else path
            assert found.exists(), f"{path.name} links to {target}"
            if section:
                heads = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
                marks = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
                assert section in marks, f"{path.name} links to {target}"
