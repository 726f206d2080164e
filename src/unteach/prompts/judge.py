"""The questions that the judge `openai` asks a language model."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml


@cache
def judge_wording() -> dict[str, Any]:
    """Return `frame`, what surrounds every question, and `scenarios`, the questions of each with their version."""
    content: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("judge.yaml").read_text(encoding="utf-8"))
    return content
