"""A small part of `make test-distributed` (tests/distributed.py): several ranks are one run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import toy
from unteach.errors import ConfigError
from unteach.models import ranks
from unteach.models.adapter import add_adapter, lora_config

SCRIPT = Path(__file__).with_name("distributed.py")


@pytest.fixture(scope="module")
def checked() -> dict[str, str]:
    """What the script prints of each kind; preparing its inputs takes longest."""
    kinds = ["--only", "pieces,evaluated,trained,attacked,mistaken,refused,interrupted,killed"]
    counts = ["--ranks", "2", "--kills", "1", "--signals", "1", "--tuned", "lora", "--small"]
    done = subprocess.run([sys.executable, str(SCRIPT), *kinds, *counts], capture_output=True, text=True, timeout=580)
    lines = [line for line in done.stdout.splitlines() if " s  " in line]
    assert lines, done.stdout + done.stderr
    return {line.split()[0]: done.stdout for line in lines if " s  ok " in line} | {"all": done.stdout + done.stderr}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pieces", "results, errors and cached states of 2 and 3 ranks are those of one"),
        ("evaluated", "measurements and all samples of 2 ranks are those of one, bit for bit"),
        ("trained", "before training bit for bit, after it no number differs by more than"),
        ("attacked", "rates of 2 ranks are those of one, bit for bit"),
        ("mistaken", "after tuning no number differs by more than"),
        ("refused", "wrong starts: one line each, code 2 on both ranks, nothing written"),
        ("interrupted", "1 times: code 130 on both ranks, a checkpoint, and the same bytes after --resume"),
        ("killed", "--resume gave the same bytes"),
    ],
)
def test_two_ranks(checked: dict[str, str], kind: str, said: str) -> None:
    assert kind in checked, checked["all"]
    assert said in checked[kind]


def test_one_process_is_a_plain_call() -> None:
    """An error keeps its kind and its cause, and nothing is computed before it is asked for."""
    assert (ranks.rank(), ranks.world(), ranks.totals(3, 4), ranks.any_rank(True)) == (0, 1, [3, 4], True)
    shared = ranks.shared_over_ranks(lambda part: 1 // part, [1, 0])
    assert next(shared) == 1
    with pytest.raises(ZeroDivisionError):
        next(shared)
    with ranks.held_by_first(pytest.MonkeyPatch.context()) as patch:
        patch.setenv("UNTEACH_HELD", "1")
        ranks.require_same({"model": "a"})
    assert "UNTEACH_HELD" not in os.environ


def test_an_adapter_is_drawn_from_the_seed_alone() -> None:
    """Whatever was drawn before, on this rank or another."""
    drawn = []
    for seed in (0, 0, 1):
        model = toy.model()
        torch.manual_seed(len(drawn))
        weights = add_adapter(model, lora_config(4, 8.0), seed).named_parameters()
        drawn.append(torch.cat([weight.flatten() for name, weight in weights if "lora_A" in name]))
    assert drawn[0].equal(drawn[1]) and not drawn[0].equal(drawn[2])


def test_what_cannot_be_parted_evenly_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "world", lambda: 4)
    assert ranks.share_of(8, "--batch-size") == 2
    with pytest.raises(ConfigError, match=r"--batch-size 6: cannot be parted evenly between 4 ranks; give a multiple"):
        ranks.share_of(6, "--batch-size")
