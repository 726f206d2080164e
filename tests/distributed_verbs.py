"""The other verbs on several ranks: what they write is what one process writes (see distributed.py)."""

import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

from fault_commands import Command
from fault_kinds import World
from ranked import Ranks, one_line
from ranked_reports import Asked, apart, on_each, plain, report_of, told


def card_of(directory: Path) -> Any:
    """Return the stress card of a run, without what differs from run to run."""
    return plain(json.loads((directory / "stress.json").read_text()))


def attacked(world: World, place: Path, asked: Asked) -> str:
    """`unteach stress` writes the same card on any number of ranks, also where it was stopped and goes on."""

    def words(output: Path) -> list[object]:
        shutil.copytree(world.home / "finished", output)
        few = ["--only", "as_asked,relearning,refusal_direction,logit_lens"] if asked.small else []
        return ["stress", output, "--device", "cpu", *few]

    outputs = on_each((1, *asked.ranks), words, place)
    whole = card_of(outputs[1])
    for output in outputs.values():
        assert not (differing := apart(whole, card_of(output))), differing[:5]
    rates = sum(len(row["rates"]) for attack in whole["attacks"] for row in attack["rows"])
    said = f"{rates} rates of {' and '.join(map(str, asked.ranks))} ranks are those of one, bit for bit"
    if asked.small:
        return said
    cut = place / "cut"
    ended = Ranks(words(cut), place / "cache-cut", before={1: partial(_stop_at, "prefilled")}).wait()
    assert {end.code for end in ended} == {130}, told(ended)
    assert "go on with: unteach stress" in one_line(ended), one_line(ended)
    assert 0 < len(card_of(cut)["attacks"]) < len(whole["attacks"])
    ended = Ranks(["stress", cut, "--device", "cpu"], place / "cache-cut").wait()
    assert {end.code for end in ended} == {0}, told(ended)
    assert not (differing := apart(whole, card_of(cut))), differing[:5]
    both = place / "both"
    ended = Ranks(world.words(both, "--seed", 1, "--stress", "quick"), place / "cache-2").wait()
    assert {end.code for end in ended} == {0}, told(ended)
    cards = [_of_original(card) for card in (whole, card_of(both))]
    assert not (differing := apart(*cards)), differing[:5]
    return f"{said}; after Ctrl-C, and by run --stress, too"


def _of_original(card: Any) -> list[Any]:
    return [row["rates"].get("original") for attack in card["attacks"] for row in attack["rows"]]


def _stop_at(name: str) -> None:
    """Let this process send itself Ctrl-C when it begins an attack."""
    from unteach.evaluation.attacks import load_attacks

    signal.signal(signal.SIGINT, signal.default_int_handler)
    kind = type(load_attacks([name])[0])
    attack = kind.__call__

    def stopped(self: Any, target: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return attack(self, target)

    kind.__call__ = stopped  # type: ignore[method-assign]


def rescaled(world: World, place: Path, asked: Asked) -> str:
    """`unteach strength` trains nothing, so its report and its weights are the same to the last bit."""
    run = place / "run"
    assert Command(world.words(run, "--batch-size", 4), place / "cache").wait().code == 0
    outputs = on_each((1, *asked.ranks), lambda output: ["strength", run, "--scale", 0.5, "--output", output], place)
    reports = {count: plain(report_of(output)) for count, output in outputs.items()}
    weights = {count: (output / "model" / "model.safetensors").read_bytes() for count, output in outputs.items()}
    for count in asked.ranks:
        assert not (differing := apart(reports[1], reports[count])), differing[:5]
        assert weights[count] == weights[1]
    return f"{len(reports[1]['measurements'])} measurements and the weights are those of one process, bit for bit"
