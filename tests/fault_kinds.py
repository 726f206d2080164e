"""The kinds of faults, and what every try shares: the inputs and an undisturbed run to compare with."""

import gc
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fault_commands import Command
from fault_inputs import broken_input
from unteach import signals

TMPFS = 48 * 2**20
"""Bytes of the disk that fills up."""
REFUSALS = ("there is no run", "is finished", "was started with")
"""What `--resume` says where there is nothing to go on with."""


# ---- what a run leaves -----------------------------------------------------------------------------------------------


def result(directory: Path, held: bool = False) -> dict[str, Any]:
    """Return all of a finished run that must not differ, whatever happened on the way. Raises for a missing part.

    A killed process may have `held` the directory: then its lock file is still there.
    """
    report = json.loads((directory / "report.json").read_text())
    lines = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    timing = ("second", "runtime", "flos", "train_loss")  # the last one is the mean since the run went on
    for name in ("report.html", "README.md", "run.yaml"):
        assert (directory / name).stat().st_size > 100, f"{name} is missing or empty"
    model = directory / "model"
    hidden = [path.name for path in directory.iterdir() if path.name.startswith(".")]
    assert held or not hidden, f"left behind: {hidden}"
    return {
        "model": {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(model.iterdir())},
        "measurements": [{k: v for k, v in m.items() if k != "seconds"} for m in report["measurements"]],
        "samples": report["samples"],
        "stop": report["stop"],
        "log": [
            {k: v for k, v in line.items() if not any(t in k for t in timing)}
            for line in lines
            if "train_runtime" not in line  # the Trainer's summary, which a run killed before it never writes
        ],
    }


@dataclass
class World:
    """What all tries share: the inputs, an undisturbed run with its cache, and how long it takes."""

    home: Path
    whole: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    operations: int = 0
    peak: int = 0

    def words(self, output: Path, *more: object) -> list[object]:
        """The run that all tries make."""
        flags = {"model": "model", "forget": "forget.jsonl", "retain": "retain.jsonl"}
        words: list[object] = ["run"]
        for name, file in flags.items():
            words += [f"--{name}", self.home / file]
        words += ["--output", output, "--max-steps", 30, "--save-steps", 5, "--evaluation-prompts", 12]
        words += ["--max-new-tokens", 16, "--batch-size", 2, "--mismatch-samples", 2, "--device", "cpu"]
        words += ["--harmful-share", 0, "--lookalike-share", 0, "--judge", "repeats", *more]  # a run of few seconds
        return words

    def same(self, output: Path, held: bool = False) -> None:
        """Raise unless a run ended as the undisturbed one."""
        found = result(output, held)
        differing = [name for name in self.whole if found[name] != self.whole[name]]
        assert not differing, f"another result: {', '.join(differing)}"


def prepare(home: Path) -> World:
    """Write the inputs, import all that a run imports, and make the undisturbed runs."""
    if not (child := os.fork()):  # training here would leave threads that a fork does not get
        code = 1
        try:
            from command import place

            place(home)
            code = 0
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the inputs could not be made"
    os.environ["MPLCONFIGDIR"] = str(home / "matplotlib")
    world = World(home)
    modules = home / "modules.json"
    code = (
        "import sys, json, atexit\n"
        f"atexit.register(lambda: open({str(modules)!r}, 'w').write(json.dumps(list(sys.modules))))\n"
        "from unteach.cli.app import main; main()"
    )
    subprocess.run(
        [sys.executable, "-c", code, *map(str, world.words(home / "first"))],
        env=os.environ | {"XDG_CACHE_HOME": str(home / "warm")},
        check=True,
        capture_output=True,
    )
    for name in json.loads(modules.read_text()):
        if name != "__main__":
            with suppress(Exception):
                importlib.import_module(name)
    import torch

    from unteach.text.refusals import refusal_of

    refusal_of("compiles its phrases, which every fork would do again")
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what is imported is no garbage: every fork would look through it, and so copy it
    (home / "whole").mkdir()
    Command.logs = home
    ended = Command(world.words(home / "whole" / "out"), home / "whole" / "cache").wait()
    assert ended.code == 0, ended.said
    world.whole, world.operations, world.seconds = result(home / "whole" / "out"), ended.operations, ended.seconds
    world.same(home / "first")
    world.peak = round(1.5 * sum(path.stat().st_size for path in (home / "first").rglob("*")))
    finished = home / "finished"
    ended = Command(world.words(finished, "--seed", 1), home / "whole" / "cache").wait()
    assert ended.code == 0, ended.said
    return world


# ---- tries -----------------------------------------------------------------------------------------------------------


def remedy(world: World, output: Path, cache: Path, draw: random.Random) -> None:
    """Do what the docs say after a fault: `--resume`, or the plain command where it says that there is no run."""
    if draw.random() < 0.25:
        ended = Command(world.words(output, "--overwrite"), cache).wait()
        assert ended.code == 0, f"--overwrite: {ended.said[-1500:]}"
    else:
        ended = Command(["run", "--output", output, "--resume"], cache).wait()
        if ended.code == 2 and any(word in ended.error for word in REFUSALS):
            begun = (output / "run.yaml").exists()
            ended = Command(world.words(output, *(["--overwrite"] if begun else [])), cache).wait()
        assert ended.code == 0, f"neither resumes nor begins: {ended.said[-1500:]}"
    world.same(output)


def killed(world: World, place: Path, draw: random.Random, number: int) -> None:
    """Kill a run at a random time or before a random file operation, also while it replaces another run."""
    output, cache = place / "out", place / "cache"
    replacing = number % 4 == 3
    if replacing:
        shutil.copytree(world.home / "finished", output)
    if draw.random() < 0.5:
        shutil.copytree(world.home / "whole" / "cache", cache)
    words = world.words(output, *(["--overwrite"] if replacing else []))
    if number % 20 == 0:
        Command(words, cache, anew=True).wait(draw.uniform(0, 6))
    elif number % 2:
        most = 150 if replacing else world.operations
        Command(words, cache, kill_at=draw.randint(1, most)).wait()
    else:
        Command(words, cache).wait(draw.uniform(0, 1.1 * world.seconds))
    if draw.random() < 0.2:  # and again, while it goes on
        Command(["run", "--output", output, "--resume"], cache).wait(draw.uniform(0, world.seconds))
    if (output / "README.md").exists() and not replacing:
        world.same(output, held=True)  # the last file to be written says that all others are there
    remedy(world, output, cache, draw)


def full_disk(world: World, place: Path, draw: random.Random, number: int) -> None:
    """Let the disk of the run directory, or of the cache, fill up at a random moment; then free it and go on."""
    mounted = place / "disk"
    mounted.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={TMPFS}", "tmpfs", str(mounted)], check=True)
    try:
        of_cache = number % 3 == 2
        (mounted / "a").mkdir()
        output, cache = (
            (place / "out", mounted / "a" / "cache") if of_cache else (mounted / "a" / "out", place / "cache")
        )
        free = draw.randint(0, 400_000 if of_cache else world.peak)
        filler = mounted / "filler"
        with filler.open("wb") as file, suppress(OSError):
            file.truncate(0)
            os.posix_fallocate(file.fileno(), 0, TMPFS - free - 12 * 4096)
        ended = Command(world.words(output), cache).wait()
        assert ended.code in (0, 2), ended.said[-1500:]
        if ended.code == 2:
            assert "is full" in ended.error or "No space left" in ended.error, ended.error
        filler.unlink()
        if ended.code == 0:
            world.same(output)
        else:
            remedy(world, output, cache, draw)
    except AssertionError:
        shutil.copytree(mounted / "a", place / "of-the-disk")
        raise
    finally:
        subprocess.run(["umount", "-l", str(mounted)], check=False)


DAMAGE: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda content, draw: bytes(len(content)),
    lambda content, draw: _flipped(content, draw.randrange(max(1, len(content)))),
    lambda content, draw: content[: len(content) // 2],
    lambda content, draw: b"",
    lambda content, draw: b"[]",
    lambda content, draw: b"null",
    lambda content, draw: b'{"content": [1], "files": 7, "rows": {"a": null}, "tokens": "x", "sha256": 3}',
    lambda content, draw: draw.randbytes(len(content)),
    lambda content, draw: b"[" * 100_000,
    lambda content, draw: content[::-1],
)


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] if content else b"?"


def damaged_cache(world: World, place: Path, draw: random.Random, number: int) -> None:
    """Damage one file of a warm cache, or all of one kind, and run with it: the same result, and nothing said."""
    output, cache = place / "out", place / "cache"
    shutil.copytree(world.home / "whole" / "cache", cache)
    files = sorted(path for path in (cache / "unteach").rglob("*") if path.is_file())
    kinds = [[path for path in files if path.name == name] for name in ("states.bin", "index.json", "checksums.json")]
    kinds.append([path for path in files if "replies" in path.parts])
    chosen = kinds[number % 4] if number % 8 < 4 else [draw.choice(files)]
    damage = DAMAGE[number % len(DAMAGE)] if number < 2 * len(DAMAGE) else draw.choice(DAMAGE)
    for path in chosen:
        path.write_bytes(damage(path.read_bytes(), draw))
    ended = Command(world.words(output), cache).wait()
    assert ended.code == 0, f"{[str(path.relative_to(cache)) for path in chosen]}: {ended.said[-1500:]}"
    world.same(output)


def pair(world: World, place: Path, draw: random.Random, number: int) -> None:
    """Start two commands: on one directory one of them is refused by name, and on two directories both end well."""
    output, cache = place / "out", place / "cache"
    shutil.copytree(world.home / "whole" / "cache", cache)
    run, resume, overwrite = (world.words(output, *more) for more in ((), ("--resume",), ("--overwrite",)))
    evaluate = ["evaluate", *run[1:7], "--output", output, "--device", "cpu", "--overwrite"]
    first, second = [(run, run), (run, resume), (run, overwrite), (run, evaluate), (overwrite, overwrite)][number % 5]
    wait = draw.uniform(0.2, 0.8) * world.seconds if first is not second else draw.uniform(0, 0.2)
    if number % 10 == 9:  # two directories, one cold cache
        shutil.rmtree(cache)
        both = [Command(world.words(place / name), cache) for name in ("out", "other")]
        assert [command.wait().code for command in both] == [0, 0]
        world.same(place / "other")
    else:
        if first is overwrite:
            shutil.copytree(world.home / "finished", output)
        ahead = Command(first, cache)
        time.sleep(wait)
        behind = Command(second, cache)
        ended = sorted((ahead.wait(), behind.wait()), key=lambda one: one.code)
        assert [one.code for one in ended] == [0, 2], [one.said[-700:] for one in ended]
        told = ended[1].error
        assert any(
            f"in use by process {pid} on host {os.uname().nodename}" in told for pid in (ahead.pid, behind.pid)
        ), told
    world.same(output)


def signalled(world: World, place: Path, draw: random.Random, number: int) -> None:
    """Send Ctrl-C or SIGTERM at a random time: one line, the right code, within the grace time; then go on."""
    output, cache = place / "out", place / "cache"
    shutil.copytree(world.home / "whole" / "cache", cache)
    asked, anew = (signal.SIGINT, signal.SIGTERM)[number % 2], number % 5 == 4
    command = Command(world.words(output), cache, anew=anew)
    time.sleep(draw.uniform(2, 10) if anew else draw.uniform(0.1, world.seconds))  # Python's own start takes no signal
    with suppress(ProcessLookupError):
        os.kill(command.pid, asked)
    sent = time.monotonic()
    ended = command.wait()
    assert time.monotonic() - sent < signals.GRACE_SECONDS + 5, "longer than the grace time"
    assert ended.code in (0, 128 + asked), f"{ended.code}: {ended.said[-1500:]}"
    if ended.code == 0:
        world.same(output)
        return
    assert ended.error.startswith("Interrupted: "), ended.error
    if "checkpoint written" in ended.error:
        step = ended.error.split("stopped at step ")[1].split(",")[0]
        assert (output / "checkpoints" / f"checkpoint-{step}" / "unteach.json").exists()
    remedy(world, output, cache, draw)


def hostile(world: World, place: Path, draw: random.Random, number: int) -> None:
    """Give a run an input that was made to break it: one line that names it, exit code 2, and nothing is written."""
    output = place / "out"
    ended = Command(world.words(output, *broken_input(world.home, place, draw, number)), place / "cache").wait()
    assert ended.code == 2, f"{ended.code}: {ended.said[-1500:]}"
    assert ended.error.startswith("Error: "), ended.error
    assert not output.exists(), "something was written"


KINDS: dict[str, Callable[[World, Path, random.Random, int], None]] = {
    "kills": killed,
    "full": full_disk,
    "damaged": damaged_cache,
    "pairs": pair,
    "signals": signalled,
    "hostile": hostile,
}
