"""Several ranks of one program, each a fork of this process, as srun would start them: without a program above them."""

import os
import pickle
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fault_commands import Command, Ended


def meeting(count: int) -> dict[str, str]:
    """Return the variables by which `count` ranks find each other, at a port that is free."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}


def of_rank(rank: int) -> dict[str, str]:
    return {"RANK": str(rank), "LOCAL_RANK": str(rank)}


class Ranks:
    """`unteach WORDS` on `count` ranks; `changed` has other words for some, `before` what is called first in them."""

    def __init__(
        self,
        words: Sequence[object],
        cache: Path,
        count: int = 2,
        changed: Mapping[int, Sequence[object]] | None = None,
        before: Mapping[int, Callable[[], object]] | None = None,
    ) -> None:
        shared, first = meeting(count), before or {}
        self.ranks = [
            Command((changed or {}).get(rank, words), cache, also=shared | of_rank(rank), before=first.get(rank))
            for rank in range(count)
        ]

    def wait(self) -> list[Ended]:
        """Wait for the end of all ranks."""
        return [rank.wait() for rank in self.ranks]


def one_line(ended: Sequence[Ended]) -> str:
    """Return the one line that says why the run ended; a complaint where there are more, or where others speak too."""
    spoke = [end for end in ended if end.said.strip()]
    return spoke[0].error if len(spoke) == 1 else f"{len(spoke)} RANKS SPOKE: " + "\n---\n".join(e.said for e in spoke)


def on_ranks(count: int, work: Callable[[], Any], place: Path) -> list[Any]:
    """Return what `work` returns on each of `count` connected ranks; an exception comes as its text."""
    shared, children = meeting(count), []
    for rank in range(count):
        if not (child := os.fork()):
            code = 1
            try:
                os.environ |= shared | of_rank(rank)
                os.environ.setdefault("OMP_NUM_THREADS", "1")  # else accelerate warns that it chooses a number
                sys.stderr = (place / f"said-{rank}").open("w")
                from unteach.models.rank_watch import Company

                company = Company(lambda message, interrupted: print(message, file=sys.stderr))
                company.begin([])
                try:
                    found = work()
                except Exception as error:
                    found = f"{type(error).__name__}: {error}"
                (place / f"found-{rank}").write_bytes(pickle.dumps(found))
                company.leave()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert not any(codes), [(place / f"said-{rank}").read_text() for rank in range(count)]
    return [pickle.loads((place / f"found-{rank}").read_bytes()) for rank in range(count)]


def interrupt_at(step: int) -> None:
    """Let this process send itself Ctrl-C at a step; a watcher from outside may be late on a busy machine."""
    from unteach.training.log_file import LogFile

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have had it ignored for its jobs
    log = LogFile.on_log

    def on_log(self: Any, args: Any, state: Any, *others: Any, **more: Any) -> None:
        if state.global_step == step:
            os.kill(os.getpid(), signal.SIGINT)
        log(self, args, state, *others, **more)

    LogFile.on_log = on_log  # type: ignore[method-assign]
