"""Several ranks: the same report as of one, one error for all, and what happens where one of them is stopped or killed.

`make test-distributed` runs all of it, `make test` a small part; docs/many-gpus.md says what is promised. Each rank is
a fork of one process that has imported everything.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
os.environ |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200", "TORCH_CPP_LOG_LEVEL": "ERROR"}  # before they are read

from distributed_verbs import attacked, baselined, learned, mistaken, rescaled  # noqa: E402
from fault_commands import Command  # noqa: E402
from fault_kinds import World, prepare, result  # noqa: E402
from ranked import Ranks, interrupt_at, on_ranks, one_line  # noqa: E402
from ranked_reports import Asked, apart, far, on_each, plain, report_of, told, trained_alike  # noqa: E402
from unteach.models import zero  # noqa: E402
from unteach.models.sharding import PARTED, STRATEGIES  # noqa: E402


def small_batches() -> None:
    """Make batches of few rows, so that there are several for each rank; every fork from here on has them."""
    from unteach.models import generate
    from unteach.scoring import likelihood

    generate.BATCH_TOKENS, likelihood.CPU_BATCH_TOKENS = 120, 60


# ---- the same on any number of ranks ---------------------------------------------------------------------------------


def pieces(world: World, place: Path, asked: Asked) -> str:
    """What the ranks share comes back whole and in order, and an error of any comes to all."""
    from unteach.disk.cache import Cache
    from unteach.errors import DataError
    from unteach.models import fingerprint, ranks
    from unteach.models.loading import load_model
    from unteach.scoring.reference import CachedStates
    from unteach.scoring.trees import reply_trees

    def shared() -> Any:
        inside = ranks.on_first_rank(lambda: (ranks.rank(), ranks.world()))
        mine = list(ranks.shared_over_ranks(lambda part: (part, ranks.rank()), range(7)))
        took = ranks.first_rank_takes(list, ranks.shared_over_ranks(str.split, ["a b", "c"]))
        any_is = ranks.any_rank(ranks.rank() == 2), ranks.any_rank(False)
        return inside, mine, took, ranks.totals(1, ranks.rank()), *any_is

    expected = ((0, 1), [(n, n % 3) for n in range(7)], [["a", "b"], ["c"]], [3, 3], True, False)
    assert on_ranks(3, shared, place) == [expected] * 3

    def refused() -> Any:
        def work(part: int) -> int:
            if part == 4:
                raise DataError("row 4: is wrong; mend it")
            return part

        return list(ranks.shared_over_ranks(work, range(6)))

    assert on_ranks(2, refused, place) == ["DataError: row 4: is wrong; mend it"] * 2
    other = on_ranks(2, lambda: ranks.require_same({"model": f"m{ranks.rank()}"}), place)
    assert len(set(other)) == 1 and other[0].startswith("ConfigError: rank 1 has another model than rank 0 (m1 and m0)")

    model = load_model(str(world.home / "model"), device="cpu")

    def given() -> list[str]:
        before = fingerprint.model_fingerprint(model)
        next(model.parameters()).data += ranks.rank()
        ranks.weights_of_first_rank(model)
        return [before, fingerprint.model_fingerprint(model)]

    first, second = on_ranks(2, given, place)
    assert first == second and first[0] == first[1], "all have the weights of the first"
    rows = reply_trees("rows", [((1, 8 + n), tuple(range(8, 10 + n))) for n in range(9)])

    def states() -> bytes:
        kept = CachedStates.build(model, rows, Cache(place / f"states-{ranks.world()}", 2**30), "key", batch_tokens=12)
        return (kept.directory / "states.bin").read_bytes() + (kept.directory / "index.json").read_bytes()

    alone = states()
    assert on_ranks(2, states, place) == [alone] * 2 and on_ranks(3, states, place) == [alone] * 3
    return "results, errors and cached states of 2 and 3 ranks are those of one"


def evaluated(world: World, place: Path, asked: Asked) -> str:
    """`unteach evaluate` gives the same report on any number of ranks, to the last bit."""

    outputs = on_each((1, *asked.ranks), partial(_evaluated, world), place)
    reports = {count: plain(report_of(output)) for count, output in outputs.items()}
    for count in asked.ranks:
        assert not (differing := apart(reports[1], reports[count])), differing[:5]
    numbers, several = len(reports[1]["measurements"]), " and ".join(map(str, asked.ranks))
    return f"{numbers} measurements and all samples of {several} ranks are those of one, bit for bit"


def trained(world: World, place: Path, asked: Asked) -> str:
    """`unteach run` gives the same report up to rounding, and before training to the last bit."""
    largest = 0.0
    for kind in asked.tuned:
        (there := place / kind).mkdir()
        outputs = on_each((1, *asked.ranks), lambda output, kind=kind: _tuned(world, output, kind), there)
        largest = max(largest, _alike(outputs))
    return f"before training bit for bit, after it no number differs by more than {largest:.1g}"


def sharded(world: World, place: Path, asked: Asked) -> str:
    """`unteach run --shard` gives the same report up to rounding, and a run that goes on the same bytes."""
    largest, tried = 0.0, [shard for shard in STRATEGIES if zero.installed() or not shard.startswith("zero")]
    zero.PERSISTENT, zero.BUCKET = 100, 3000  # so that nearly all of a small model is parted
    for kind in asked.tuned:
        alone = dict[int, Path]()
        for shard in tried:
            if (kind, shard) == ("lora", "zero3"):  # refused
                continue
            (there := place / f"{kind}-{shard}").mkdir()

            def words(output: Path, kind: str = kind) -> list[object]:
                return [*_tuned(world, output, kind), "--no-preconditioning"]  # which needs whole weights

            several = ("--shard", shard)
            outputs = on_each((2,) if alone else (1, 2), words, there, several)
            alone = alone or {1: outputs[1]}
            largest = max(largest, _alike(alone | outputs))
            output, cache = there / "stopped", there / "cache-2"
            ended = Ranks([*words(output), *several], cache, before={1: partial(interrupt_at, 12)}).wait()
            assert {end.code for end in ended} == {130}, told(ended)
            ended = Ranks(["run", "--output", output, "--resume"], cache).wait()
            assert {end.code for end in ended} == {0}, told(ended)
            whole, found = result(outputs[2]), result(output)
            assert not (differing := [name for name in whole if whole[name] != found[name]]), (shard, kind, differing)
    skipped = "" if len(tried) == len(STRATEGIES) else " (DeepSpeed is not installed: without zero2, zero3)"
    return f"{', '.join(tried)}: within {largest:.1g} of one rank; the same bytes after Ctrl-C and --resume{skipped}"


def evaluated_in_parts(world: World, place: Path, asked: Asked) -> str:
    """`unteach evaluate --shard` gives the report of one rank up to rounding."""
    largest, tried = 0.0, [shard for shard in PARTED if zero.installed() or shard != "zero3"]
    zero.PERSISTENT, zero.BUCKET = 100, 3000
    alone = on_each((1,), partial(_evaluated, world), place)
    for shard in tried:
        (there := place / shard).mkdir()
        outputs = on_each((2,), partial(_evaluated, world), there, ("--shard", shard))
        reports = [plain(report_of(output)) for output in (alone[1], outputs[2])]
        furthest, wrong = far(apart(*reports))
        assert not wrong and furthest < 1e-5, (shard, furthest, wrong[:5])
        largest = max(largest, furthest)
    return f"{', '.join(tried)}: no measurement differs by more than {largest:.1g} from one rank's"


def _evaluated(world: World, output: Path) -> list[object]:
    """Return the words of an evaluation of two models."""
    models = ["--model", world.home / "retrained", "--original", world.home / "model", "--device", "cpu"]
    rows = ["--forget", world.home / "forget.jsonl", "--retain", world.home / "retain.jsonl", "--samples", 2]
    return ["evaluate", *models, *rows, "--max-new-tokens", 8, "--output", output]


def _tuned(world: World, output: Path, kind: str) -> list[object]:
    """Return the words of a run that trains all weights or an adapter."""
    return world.words(output, "--batch-size", 4, *(["--lora"] if kind == "lora" else []))


def _alike(outputs: dict[int, Path]) -> float:
    """Compare the reports of runs that are finished; return the largest difference between numbers."""
    for output in outputs.values():
        result(output)  # all files are there, and no others
    return trained_alike(outputs)


# ---- one end for all -------------------------------------------------------------------------------------------------


def refused(world: World, place: Path, asked: Asked) -> str:
    """Whatever is wrong is said once, by one rank, and all end with code 2, and nothing is written."""
    from unteach.errors import DataError
    from unteach.models import fingerprint, rank_watch
    from unteach.pipeline import prepare as prepared

    output, home = place / "out", world.home
    words = world.words(output)
    without = [word for word in words if word != "--retain" and word != home / "retain.jsonl"]
    cases: dict[str, tuple[Any, ...]] = {
        "unknown flag --nonsense": (["run", "--nonsense"],),
        "no such model directory": (["run", "--model", "/nowhere", *words[3:]],),
        "cannot be parted evenly between 2 ranks": (world.words(output, "--batch-size", 3),),
        "rank 1 has another command": (words, {1: without}),
        "try: is done by one process": (["try", "--model", home / "model"],),
        "mistakes study: is done by one process": (["mistakes", "study", "--model", home / "model"],),
        "study: starts a process for each of its runs": (["study", "--config", home / "study.yaml"],),
        "--endpoint: is done by one process": (["evaluate", "--model", "m", "--endpoint", "http://localhost:1/v1"],),
        "--dry-run: is done by one process": ([*words, "--dry-run"],),
        "rank 1 has another version of unteach": (words, None, {1: partial(_give, rank_watch, "version", "2.0")}),
        "rank 1 has another code": (words, None, {1: partial(_give, rank_watch, "_code", "other")}),
        "rank 1 has another model": (words, None, {1: partial(_give, fingerprint, "model_fingerprint", "other")}),
        "broke on rank 1": (words, None, {1: partial(_give, prepared, "check_settings", DataError("broke on rank 1"))}),
    }
    for said, case in cases.items():
        ended = Ranks(case[0], place / "cache", 2, *case[1:]).wait()
        assert [end.code for end in ended] == [2, 2], (said, told(ended))
        assert said in one_line(ended), (said, one_line(ended))
        assert not output.exists() or not list(output.iterdir()), (said, list(output.iterdir()))
    bug = partial(_give, prepared, "check_settings", ValueError("a bug"))
    ended = Ranks(words, place / "cache", 2, None, {1: bug}).wait()
    assert [end.code for end in ended] == [1, 1] and "ValueError: a bug" in ended[0].said, told(ended)
    assert Command(words, place / "cache").wait().code == 0
    (output / "README.md").unlink()
    (output / "report.json").unlink()
    said = one_line(Ranks(["run", "--resume", "--output", output], place / "cache").wait())
    assert "is of a run of 1 process, and this is one of 2; go on with as many" in said, said
    return f"{len(cases) + 1} wrong starts: one line each, code 2 on both ranks, nothing written"


SRUN = """#!/bin/bash
# as srun --kill-on-bad-exit=0 WORDS with two tasks: the exit code is the highest of any
shift
for n in 0 1; do SLURM_PROCID=$n SLURM_LOCALID=$n SLURM_NTASKS=2 "$@" & tasks+=($!); done
code=0
for task in "${tasks[@]}"; do wait $task; ended=$?; [ $ended -gt $code ] && code=$ended; done
exit $code
"""


def started(world: World, place: Path, asked: Asked) -> str:
    """Torchrun, accelerate launch and the recipe for Slurm (with an srun of ours) start ranks that make one page."""
    for name, text in (("srun", SRUN), ("scontrol", "#!/bin/bash\necho localhost\n")):
        (place / name).write_text(text)
        (place / name).chmod(0o755)
    home, recipes = world.home, Path(__file__).parents[1] / "recipes" / "multinode"
    environment = os.environ | {"PATH": f"{place}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    environment |= {"SLURM_JOB_NODELIST": "localhost", "SLURM_CPUS_PER_TASK": "1", "UNTEACH_TMPDIR": str(place)}
    environment |= {"XDG_CACHE_HOME": str(place / "cache"), "ACCELERATE_USE_CPU": "true"}
    two = ["--num_processes", "2", "--module", "unteach"]
    ways = {
        "torchrun": ["torchrun", "--standalone", "--nproc-per-node", "2", "-m", "unteach"],
        "accelerate": ["accelerate", "launch", "--config_file", str(recipes / "accelerate.yaml"), *two],
        "srun": ["bash", str(recipes / "run.sbatch")],
    }
    for way, start in ways.items():
        for model, code in ((home / "model", 0), ("/nowhere", 2)):
            output = place / f"{way}-{code}"
            words = ["evaluate", "--model", model, "--forget", home / "forget.jsonl", "--output", output]
            words += ["--device", "cpu", "--max-new-tokens", 4]
            done = subprocess.run(
                [*start, *map(str, words)], env=environment, capture_output=True, text=True, timeout=300
            )
            assert done.returncode == (code if way == "srun" else min(code, 1)), (way, done.stdout, done.stderr)
            assert done.stdout.count("Page: ") == 1 - code // 2, (way, done.stdout)
            assert done.stderr.count("/nowhere: no such model directory") == code // 2, (way, done.stderr)
            assert output.exists() is not bool(code), (way, list(place.iterdir()))
    return "torchrun, accelerate launch and the Slurm recipe make one page, and say an error once"


def _give(module: Any, name: str, result: Any) -> None:
    """Let a function of a module return something, or raise it."""

    def function(*arguments: Any) -> Any:
        if isinstance(result, Exception):
            raise result
        return result

    setattr(module, name, function)


def interrupted(world: World, place: Path, asked: Asked) -> str:
    """Ctrl-C on one rank ends all in order; `--resume` gives the bytes of a run that was never stopped."""
    draw, whole = random.Random(f"{asked.seed}:signals"), undisturbed(world, place)
    for number in range(asked.signals):
        output = place / f"signal-{number}"
        step, rank = draw.randint(1, 20), draw.randrange(2)
        ended = Ranks(world.words(output), place / "cache", before={rank: partial(interrupt_at, step)}).wait()
        assert {end.code for end in ended} == {130}, told(ended)
        assert "checkpoint written; go on with --resume" in one_line(ended), one_line(ended)
        resume(world, output, place, whole)
    return f"{asked.signals} times: code 130 on both ranks, a checkpoint, and the same bytes after --resume"


def killed(world: World, place: Path, asked: Asked) -> str:
    """A rank that is killed at a random moment ends the others soon, and `--resume` gives the same bytes."""
    draw, whole, slowest = random.Random(f"{asked.seed}:kills"), undisturbed(world, place), 0.0
    took = max(end.seconds for end in whole["ended"])
    for number in range(asked.kills):
        output, rank = place / f"kill-{number}", draw.randrange(2)
        run = Ranks(world.words(output), place / "cache")
        time.sleep(draw.uniform(0.2, 0.9) * took)
        run.ranks[rank].kill()
        began = time.monotonic()
        ended = run.wait()
        slowest = max(slowest, time.monotonic() - began)
        if ended[rank].code == 0:  # it had ended before
            continue
        other = ended[1 - rank]
        assert other.code == 2 and f"rank {rank} (process" in other.error, (other.code, other.said[-3000:])
        resume(world, output, place, whole)
    return f"{asked.kills} times: the other rank ended within {slowest:.1f} s, and --resume gave the same bytes"


def stopped(world: World, place: Path, asked: Asked) -> str:
    """A rank that stands still for a while is waited for."""
    whole, output = undisturbed(world, place), place / "stopped"
    run = Ranks(world.words(output), place / "cache")
    until(lambda: steps(output) >= 3, run)
    os.kill(run.ranks[1].pid, signal.SIGSTOP)
    time.sleep(asked.stopped)
    os.kill(run.ranks[1].pid, signal.SIGCONT)
    assert {end.code for end in run.wait()} == {0}
    assert result(output) == whole["result"]
    return f"a rank that stood still for {asked.stopped:g} s was waited for"


def undisturbed(world: World, place: Path) -> dict[str, Any]:
    """Return the result of a run on two ranks that nothing disturbs."""
    if not hasattr(world, "on_two"):
        run = Ranks(world.words(world.home / "on-two"), place / "cache")
        ended = run.wait()
        assert {end.code for end in ended} == {0}, told(ended)
        world.on_two = {"result": result(world.home / "on-two"), "ended": ended}  # type: ignore[attr-defined]
    return world.on_two  # type: ignore[attr-defined, no-any-return]


def resume(world: World, output: Path, place: Path, whole: dict[str, Any]) -> None:
    """Go on with a run on two ranks, or begin it where it had not begun; raise unless its result is the same."""
    finished = (output / "README.md").exists()
    if not finished:
        ended = Ranks(["run", "--output", output, "--resume"], place / "cache").wait()
        if ended[0].code == 2 and "there is no run" in one_line(ended):
            ended = Ranks(world.words(output), place / "cache").wait()
        assert {end.code for end in ended} == {0}, told(ended)
    found = result(output, held=finished)
    differing = [name for name, part in whole["result"].items() if found[name] != part]
    assert not differing, f"another result: {differing}"


def steps(output: Path) -> int:
    """Return how many steps the log of a run names."""
    log = output / "log.jsonl"
    return len(log.read_text().splitlines()) if log.exists() else 0


def until(true: Callable[[], bool], run: Ranks) -> None:
    """Wait until something is true of a run that goes on."""
    end = time.monotonic() + 120
    while not true():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


REPORTS = (pieces, evaluated, evaluated_in_parts, trained, sharded)
VERBS = (attacked, rescaled, mistaken, learned, baselined)
KINDS = {kind.__name__: kind for kind in (*REPORTS, *VERBS, refused, started, interrupted, stopped, killed)}


def main() -> int:
    """Check each kind; print a line for it; return how many failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", default="2,4", help="numbers of ranks to compare with one")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--signals", type=int, default=4)
    parser.add_argument("--stopped", type=float, default=30.0, help="seconds for which a rank stands still")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tuned", default="full,lora", help="what is trained: all weights, an adapter")
    parser.add_argument("--small", action="store_true", help="a part of each of the kinds in distributed_verbs.py")
    parser.add_argument("--only", default=",".join(KINDS), help="kinds, with commas")
    said = parser.parse_args()
    asked = Asked(
        [int(n) for n in said.ranks.split(",")],
        said.kills,
        said.signals,
        said.stopped,
        said.seed,
        said.tuned.split(","),
        said.small,
    )
    home, failures = Path(tempfile.mkdtemp(prefix="unteach-ranks-")), 0
    world = prepare(home)
    small_batches()
    for name in said.only.split(","):
        place, began = home / name, time.monotonic()
        place.mkdir()
        Command.logs = place
        try:
            outcome = f"ok      {KINDS[name](world, place, asked)}"
        except Exception as error:
            failures += 1
            outcome = f"FAILED  {error if isinstance(error, AssertionError) else traceback.format_exc()}"
        print(f"{name:<12} {time.monotonic() - began:5.0f} s  {outcome}", flush=True)
    if not failures:
        shutil.rmtree(home, ignore_errors=True)
    return failures


if __name__ == "__main__":
    sys.exit(main())
