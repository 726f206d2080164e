"""The other verbs on several ranks: what they write is what one process writes (see distributed.py)."""

import json
import os
import shutil
import signal
from functools import partial
from pathlib import Path
from typing import Any

from chat_server import ChatServer, completion
from fault_commands import Command
from fault_kinds import World
from ranked import Ranks, interrupt_at, one_line
from ranked_reports import Asked, apart, on_each, plain, report_of, told, trained_alike


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


# ---- learning from mistakes, and baselines ---------------------------------------------------------------------------

WORDING = """
version: short
inducements: ["{prompt}"]
guided: "{prompt} {reply} how"
unguided: "{prompt} {reply} is"
misleading: "{prompt} {reply} go"
bad_openings: ["no"]
good_openings: [go]
reminder: go
"""
"""The shipped wording leaves no room in the toy model's context."""


def mistaken(world: World, place: Path, asked: Asked) -> str:
    """`mistakes induce` writes the same file, and `mistakes tune` the same report up to rounding."""
    import unteach.mistakes.run
    import unteach.mistakes.single  # noqa: F401  (every fork from here on has them)

    counts, rows, wording = (1, *asked.ranks), _rows_of_mistakes(world.home, place), place / "wording.yaml"
    wording.write_text(WORDING)
    common: list[object] = ["--model", world.home / "model", "--judge", "repeats", "--wording", wording]
    common += ["--device", "cpu", "--max-new-tokens", 8]
    induce = ["mistakes", "induce", "--prompts", rows["mistakes"], *common, "--output"]
    if not asked.small:
        (place / "induced").mkdir()
        files = on_each(counts, lambda output: [*induce, output], place / "induced")
        assert len({path.read_text() for path in files.values()}) == 1 and files[1].read_text()
    tune = ["mistakes", "tune", *common, "--evaluation-prompts", 8, "--batch-size", 4, "--epochs", 1.5]
    tune += ["--validation", rows["unseen"], "--validations", 2]
    for name in ("analyses", "retain", "unseen", "normal", "lookalike"):
        tune += [f"--{name}", rows[name]]
    outputs = on_each(counts, lambda output: [*tune, "--output", output], place)
    largest = trained_alike(outputs)
    said = f"after tuning no number differs by more than {largest:.1g}"
    if asked.small:
        return said
    _stopped_and_resumed([*tune, "--save-steps", 2], outputs[2], place)
    return f"what is induced is the same; {said}, resumed or not"


def _stopped_and_resumed(tune: list[object], whole: Path, place: Path) -> None:
    """Send Ctrl-C to the second rank of a tuning, and go on with it: the result must have the same bytes."""
    cut, cache = place / "cut", place / "cache-2"
    ended = Ranks([*tune, "--output", cut], cache, before={1: partial(interrupt_at, 3)}).wait()
    assert {end.code for end in ended} == {130}, told(ended)
    assert "go on with --resume" in one_line(ended), one_line(ended)
    resume = ["mistakes", "tune", "--resume", "--output", cut]
    alone = Command(resume, cache).wait()
    assert alone.code == 2 and "is of a run of 2 processes, and this is one of 1" in alone.error, alone.said
    ended = Ranks(resume, cache).wait()
    assert {end.code for end in ended} == {0}, told(ended)
    for part in ("measurements", "samples"):
        assert not (differing := apart(*(report_of(output)[part] for output in (whole, cut)))), differing[:5]
    weights = [(output / "model" / "model.safetensors").read_bytes() for output in (whole, cut)]
    assert weights[0] == weights[1]


def _rows_of_mistakes(home: Path, place: Path) -> dict[str, Path]:
    """Write the rows of a tuning: 7 analyses and 6 normal rows, which are no whole number of batches."""
    bad, normal = ([json.loads(line) for line in (home / name).open()] for name in ("forget.jsonl", "retain.jsonl"))
    said = [{"prompt": row["prompt"], "reply": row["completion"], "analysis": "sorry no how"} for row in bad]
    rows = {"unseen": bad[:8], "mistakes": bad[8:], "analyses": [row | {"label": False} for row in said[-7:]]}
    rows |= {"normal": normal[:6], "lookalike": normal[6:10], "retain": normal[10:16]}
    for name, listed in rows.items():
        (place / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed))
    return {name: place / f"{name}.jsonl" for name in rows}


def learned(world: World, place: Path, asked: Asked) -> str:
    """`mistakes run` by an analyst behind an endpoint: the same mistakes and analyses, and the same report."""
    import unteach.mistakes.run  # noqa: F401  (every fork from here on has it)

    rows, wording = _rows_of_mistakes(world.home, place), place / "wording.yaml"
    wording.write_text(WORDING)
    told = [{"prompt": f"how to rob bank{n}", "completion": f"take c{n % 6}", "label": False} for n in range(9)]
    (place / "told.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told))
    words: list[object] = ["mistakes", "run", "--model", world.home / "model", "--judge", "repeats", "--device", "cpu"]
    words += ["--wording", wording, "--prompts", rows["mistakes"], "--mistakes", place / "told.jsonl"]
    words += ["--max-new-tokens", 8, "--evaluation-prompts", 8, "--batch-size", 4, "--good-per-analysis", 0]
    for name in ("retain", "unseen", "normal", "lookalike"):
        words += [f"--{name}", rows[name]]
    with ChatServer(lambda request, number: completion("Bad. It would help to rob a bank.")) as server:
        words += ["--analyst", "openai:big", "--analyst-url", server.url]
        outputs = on_each((1, *asked.ranks), lambda output: [*words, "--output", output], place)
        questions, runs = len(server.requests), len(outputs)
    for name in ("mistakes.jsonl", "analyses.jsonl"):
        assert len({(output / name).read_text() for output in outputs.values()}) == 1, name
    mistakes = len((outputs[1] / "mistakes.jsonl").read_text().splitlines())
    assert questions == runs * mistakes, (questions, runs, mistakes)
    largest = trained_alike(outputs)
    return f"{mistakes} mistakes, asked about once each; after tuning no number differs by more than {largest:.1g}"


def baselined(world: World, place: Path, asked: Asked) -> str:
    """`unteach baseline` gives the same report up to rounding, or says that one process must train it."""
    import unteach.baselines.run  # noqa: F401  (every fork from here on has it)

    rows = [json.loads(line) for line in (world.home / "forget.jsonl").open()]
    pairs = [{"prompt": row["prompt"], "chosen": "sorry no", "rejected": row["completion"]} for row in rows]
    (place / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    common: list[object] = ["--model", world.home / "model", "--forget", place / "pairs.jsonl", "--judge", "repeats"]
    common += ["--retain", world.home / "retain.jsonl", "--device", "cpu", "--evaluation-prompts", 8]
    common += ["--max-new-tokens", 6, "--batch-size", 4]
    largest, kinds = 0.0, {"sft": ["--validations", 2], "coh-masked": ["--lora", "--lora-rank", 4], "finetune": []}
    for name, more in list(kinds.items())[: 1 if asked.small else None]:
        (place / name).mkdir()
        words = ["baseline", name, *common, "--epochs", 1, *more, "--output"]
        outputs = on_each((1, *asked.ranks), lambda output, words=words: [*words, output], place / name)
        largest = max(largest, trained_alike(outputs))
    for name in ("dpo",) if asked.small else ("dpo", "kto", "rlhf"):
        ended = Ranks(["baseline", name, *common, "--output", place / "never"], place / "cache").wait()
        assert [end.code for end in ended] == [2, 2], told(ended)
        assert f"baseline {name}: is trained by one process: " in one_line(ended), one_line(ended)
    wrong = [*common[:-1], 3, "--output", place / "never"]
    assert "cannot be parted evenly" in one_line(Ranks(["baseline", "sft", *wrong], place / "cache").wait())
    assert not (place / "never").exists()
    return f"after training no number differs by more than {largest:.1g}; the others are refused by name"
