"""Examples as files that `read_examples` reads back."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unteach.data.example import Example
from unteach.disk.files import write_whole


def write_examples(path: Path | str, examples: Iterable[Example]) -> None:
    """Write prompt–completion JSONL that `read_examples` reads back as the same examples, except for `where`.

    A dialogue is written as messages, and examples none of which has a prompt as `text`. Raises OutputError.
    """
    examples = list(examples)
    texts = not any(example.turns for example in examples)
    rows = (json.dumps(written_row(example, texts), ensure_ascii=False) + "\n" for example in examples)
    write_whole(Path(path), "".join(rows))


def written_row(example: Example, texts: bool = False) -> dict[str, Any]:
    """Return an example as `write_examples` writes it; with `texts`, one without a prompt becomes `text`."""
    row: dict[str, Any]
    turns = example.turns
    if not turns:
        row = {"text": example.reply} if texts else {"prompt": "", "completion": example.reply}
    elif len(turns) == 1 and turns[0].role == "user" and turns[0].content.strip():
        row = {"prompt": turns[0].content, "completion": example.reply}
    else:
        row = {
            "prompt": [{"role": turn.role, "content": turn.content} for turn in turns],
            "completion": [{"role": "assistant", "content": example.reply}],
        }
    extras = {"good": example.good, "bad": example.bad, "concept": example.concept, "cut": example.cut or None}
    return row | {name: value for name, value in extras.items() if value is not None}
