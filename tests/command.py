"""The real command line inside the test's process, and the toy model with its rows on disk to run it on."""

import json
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import toy
from unteach.cli import app as cli

PROGRESS = re.compile(
    r"note: .*\n|.* (begins( at step .*)?|\d+/\d+.*|(done( at step \d+)?|broken off) after \d+\.\d s)\n"
)


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it said; the progress of its stages stands apart from what else went to stderr."""

    code: int
    out: str
    err: str
    progress: tuple[str, ...] = ()


def call(capsys: pytest.CaptureFixture[str], *words: object) -> Outcome:
    """Run `unteach WORDS` as the shell would."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["unteach", *map(str, words)])
        patch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as ended:
            cli.main()
    said = capsys.readouterr()
    lines = said.err.splitlines(keepends=True)
    others = "".join(line for line in lines if not PROGRESS.fullmatch(line))
    progress = tuple(line.rstrip("\n") for line in lines if PROGRESS.fullmatch(line))
    return Outcome(int(ended.value.code or 0), said.out, others, progress)


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def save(model: Any, directory: Path, tokenizer: Any = None) -> Path:
    """Save a model with the toy tokenizer beside it."""
    model.save_pretrained(directory)
    (tokenizer or toy.tokenizer()).save_pretrained(directory)
    return directory


@dataclass(frozen=True)
class Place:
    """A model that recites all its rows, a retrained model that recites none, and the rows."""

    model: Path
    retrained: Path
    forget: Path
    retain: Path

    def quick(self, output: Path, **changed: object) -> list[str]:
        """Words of a run of three steps that measures four prompts a split; None takes a flag away."""
        flags = {"model": self.model, "forget": self.forget, "retain": self.retain, "output": output}
        flags |= {"max_steps": 3, "mismatch_samples": 2, "evaluation_prompts": 4, "max_new_tokens": 6}
        flags |= {"validation_prompts": 4, "validation_steps": 2, "batch_size": 2, "device": "cpu"}
        flags |= {"lookalike_share": 0, "harmful_share": 0} | changed
        words = ["run"]
        for name, value in flags.items():
            if value is not None:
                words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        return words


def place(directory: Path) -> Place:
    """Put all of it on disk."""
    return Place(
        save(toy.learned_model(), directory / "model"),
        save(toy.model(seed=1), directory / "retrained"),
        write_rows(directory / "forget.jsonl", toy.FORGET),
        write_rows(directory / "retain.jsonl", toy.RETAIN),
    )
