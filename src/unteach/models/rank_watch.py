"""How the ranks of a distributed run begin together and end together, whatever happens to one of them.

Ranks that wait for each other cannot tell each other of an error: the one that failed is not where the others wait. So
every rank has a thread that looks, twice a second, into the store through which the ranks have met. Who fails writes
there why; the first rank says it, once, and all end with the same exit code. A rank that was killed cannot write:
others on its host see that its process is gone, those on other hosts that its signs of life have stopped.
"""

import contextlib
import datetime
import hashlib
import json
import os
import platform
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from unteach.errors import ConfigError
from unteach.models.ranks import let_go, require_same, use_group

LOOK = 0.5
"""Seconds between two looks into the store."""
BEAT, PATIENCE = 5.0, 120.0
"""Seconds between two signs of life, and without one after which a rank on another host counts as dead. A rank on the
same host may be stopped for as long as one likes."""
MEETING = 300.0
"""Seconds within which all ranks must have started."""
FOREVER = datetime.timedelta(days=30)
"""How long ranks wait for each other: while the first one asks a slow judge, nothing is wrong."""

Show = Callable[[str, bool], None]
"""Says why a run has ended; the second argument tells whether it was interrupted."""


@dataclass(frozen=True)
class End:
    """Why a run ends: what is said, whether a signal was the reason, and the exit code of every rank.

    `lost` is the rank that is gone, where that is the reason. The first rank speaks, or the second where it is gone.
    """

    message: str
    code: int
    interrupted: bool = False
    lost: int | None = None


class Company:
    """The ranks of this run, seen from one of them.

    `show` is called on one rank only, and in a thread of its own where that rank is busy.
    """

    def __init__(self, show: Show) -> None:
        self.rank, self.world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self._show = show
        self._store = _met(self.rank, self.world)
        self._own = self._store.clone()  # a thread that waits holds a store up
        self._lock, self._left = threading.Lock(), threading.Event()
        self._code = 0
        self._beats: dict[int, tuple[bytes, float]] = {}
        here = {"host": socket.gethostname(), "pid": os.getpid(), "space": _process_space()}
        self._store.set(f"who/{self.rank}", json.dumps(here))
        self._who = [json.loads(self._store.get(f"who/{number}")) for number in range(self.world)]
        self._near = [
            number
            for number, who in enumerate(self._who)
            if number != self.rank and (who["host"], who["space"]) == (here["host"], here["space"])
        ]
        self._thread = threading.Thread(target=self._watch, name="ranks", daemon=True)
        self._thread.start()

    def begin(self, words: Sequence[str]) -> None:
        """Connect the ranks. Raises ConfigError where one has other versions or another command (`words`)."""
        gpu = torch.cuda.is_available() and not {"cpu", "--device=cpu"} & set(words)
        if gpu and (local := int(os.environ.get("LOCAL_RANK") or 0)) < torch.cuda.device_count():
            torch.cuda.set_device(local)
        kind = "cpu:gloo,cuda:nccl" if gpu else "gloo"
        dist.init_process_group(kind, store=self._store, rank=self.rank, world_size=self.world, timeout=FOREVER)
        self._group = dist.new_group(backend="gloo", timeout=FOREVER)
        use_group(self._group)
        versions = {f"version of {name}": version(name) for name in ("unteach", "torch", "transformers", "peft")}
        command = hashlib.sha256("\0".join(words).encode()).hexdigest()[:12]
        require_same(versions | {"code": _code(), "Python": platform.python_version(), "command": command})

    def leave(self) -> None:
        """Wait until every rank is done; the first one, which holds the store, leaves last."""
        dist.barrier(group=self._group)
        self._left.set()
        self._thread.join(5.0)  # a thread that is inside of torch when Python ends would abort the process
        with contextlib.suppress(RuntimeError):
            self._store.set(f"left/{self.rank}", "")
            if self.rank == 0:  # a rank that still looks into the store would take its end for that of this rank
                others = [f"left/{number}" for number in range(1, self.world)]
                self._until(lambda: bool(self._store.check(others)), 10.0)
            dist.destroy_process_group()

    def end(self, end: End, *, ours: bool) -> int:
        """End the run on all ranks; returns the exit code. Of several reasons, the first to be written counts.

        `ours` says that the reason surely lies with this rank. Otherwise it may be that another one is gone, which
        libraries put into words of their own.
        """
        until = time.monotonic() + (0.0 if ours else 2.0)
        with contextlib.suppress(RuntimeError):  # the store is gone
            while not self._written():
                if gone := self._gone():
                    self._write(gone)
                elif time.monotonic() >= until:
                    self._write(end)
                else:
                    time.sleep(0.1)
        code = self._finish()
        self._thread.join(5.0)
        return code

    # ---- the thread --------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        beaten = 0.0
        while not self._left.wait(LOOK):
            try:
                if time.monotonic() - beaten >= BEAT:
                    beaten = time.monotonic()
                    self._own.set(f"beat/{self.rank}", str(beaten))
                if not self._written() and (gone := self._gone() or self._silent()):
                    self._write(gone)
                if self._written():
                    self._exit(self._finish())
            except RuntimeError:  # the store is gone
                if not self._left.is_set():
                    self._exit(self._finish())

    def _exit(self, code: int) -> NoReturn:
        """End this process, whatever its main thread waits for."""
        let_go()
        with contextlib.suppress(Exception):
            sys.stdout.flush()
        os._exit(code)

    def _gone(self) -> End | None:
        """Return the end that a rank of this host makes whose process is no more."""
        for number in self._near:
            if not _runs(self._who[number]["pid"]) and not self._own.check([f"left/{number}"]):
                return _lost(number, self._named(number) + " was killed, perhaps for want of memory")
        return None

    def _silent(self) -> End | None:
        """Return the end where a rank of another host gives no sign of life; the first rank watches all others."""
        for number in range(1, self.world) if self.rank == 0 else [0]:
            if number in self._near or self._own.check([f"left/{number}"]):
                continue
            beat = self._own.get(f"beat/{number}") if self._own.check([f"beat/{number}"]) else b""
            before, since = self._beats.get(number, (None, 0.0))
            if beat != before:
                self._beats[number] = beat, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                return _lost(number, f"{self._named(number)} has given no sign of life for {PATIENCE:.0f} s")
        return None

    def _named(self, number: int) -> str:
        return f"rank {number} (process {self._who[number]['pid']} on host {self._who[number]['host']})"

    # ---- the end -----------------------------------------------------------------------------------------------------

    def _written(self) -> bool:
        return bool(self._own.check(["end"]))

    def _write(self, end: End) -> None:
        self._own.compare_set("end", "", json.dumps(asdict(end)))

    def _finish(self) -> int:
        """Say what was written, on one rank, and wait until all know; returns the exit code."""
        with self._lock:
            if self._left.is_set():  # the other thread has said it
                return self._code
            end = _lost(0, f"{self._named(0)}, or what started the ranks, is gone")  # where the store is gone
            with contextlib.suppress(RuntimeError):
                end = End(**json.loads(self._own.get("end")))
            self._left.set()
            self._code = end.code
            speaks = self.rank == (1 if end.lost == 0 else 0)
            if speaks:
                self._show(end.message, end.interrupted)
            with contextlib.suppress(RuntimeError):
                if speaks:
                    self._own.set("said", "")
                    others = self.world - (1 if end.lost is None else 2)
                    self._until(lambda: self._own.add("know", 0) >= others, 5.0)
                else:
                    self._own.add("know", 1)
                    self._until(lambda: bool(self._own.check(["said"])), 10.0)
            return end.code

    @staticmethod
    def _until(true: Callable[[], bool], seconds: float) -> None:
        end = time.monotonic() + seconds
        while not true() and time.monotonic() < end:
            time.sleep(0.05)


def _met(rank: int, world: int) -> Any:
    """Return the store through which the ranks meet. Raises ConfigError where they do not."""
    place = f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=datetime.timedelta(seconds=MEETING)))
        kept = dist.PrefixStore(f"unteach/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        kept.set_timeout(datetime.timedelta(seconds=MEETING))
        return kept
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ConfigError(
            f"rank {rank} of {world} could not reach the others at MASTER_ADDR:MASTER_PORT {place} ({reason}); start "
            "the ranks with torchrun, accelerate launch or srun, see docs/many-gpus.md"
        ) from None


def _lost(number: int, what: str) -> End:
    return End(f"{what}; the command has ended: give it again, with --resume where it has that", 2, lost=number)


def _code() -> str:
    """Return a digest of this package's source, since a version may name several states of it."""
    digest, home = hashlib.sha256(), Path(__file__).parents[1]
    for path in sorted(home.rglob("*.py")):
        digest.update(path.relative_to(home).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _process_space() -> str:
    """Return what tells whether two processes of one host see the same process numbers."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _runs(pid: int) -> bool:
    """Return whether a process of this host is there, and not dead and only waited for."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except (OSError, IndexError):  # no right to ask, or no /proc
        return True
    return state not in ("Z", "X")
