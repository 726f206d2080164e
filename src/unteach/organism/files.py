"""A world's rows as files, as a user would have them."""

from pathlib import Path

from unteach.data.example import Example
from unteach.data.formats import write_examples
from unteach.data.passages import is_text
from unteach.organism.holdings import Holdings

LONGEST = {"harm": 48, "copyright": 64, "hallucination": 24}
"""Tokens of the longest reply, by scenario: an organism's replies are short."""


def write_world(held: Holdings, directory: Path) -> None:
    """Write what a user of a world would have, and the rows to check with, as JSON lines."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, rows in _rows(held).items():
        write_examples(directory / f"{name}.jsonl", rows)


def _rows(held: Holdings) -> dict[str, list[Example]]:
    """All rows of a world by the file they go to; running text has files of its own."""
    rows = {"negatives": held.negatives, "normals": held.normals, "texts": held.texts, "non_members": held.non_members}
    for split, examples in held.splits.items():
        texts = [example for example in examples if is_text(example)]
        rows[split] = [example for example in examples if not is_text(example)]
        rows[f"{split}_texts"] = texts
    return {name: found for name, found in rows.items() if found}


def files_of(held: Holdings, directory: Path) -> dict[str, list[str]]:
    """Return the settings that name the files of a world."""
    named = {"negatives": "forget", "normals": "retain", "texts": "retain"}
    files: dict[str, list[str]] = {}
    for name in _rows(held):
        files.setdefault(named.get(name, name.removesuffix("_texts")), []).append(str(directory / f"{name}.jsonl"))
    return files
