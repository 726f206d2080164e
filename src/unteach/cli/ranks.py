"""The command line where several processes run it together: one speaks, and all end alike."""

import os
import re
import signal
import sys
import traceback
from collections.abc import Callable

from unteach import signals
from unteach.cli.command import Ended, quiet
from unteach.errors import ConfigError, UnteachError
from unteach.progress import live_stages
from unteach.text.escape import inert_line

SHARED = (
    *("run", "evaluate", "stress", "strength", "collect", "baseline"),
    *("mistakes run", "mistakes tune", "mistakes induce", "mistakes analyse"),
)
"""The verbs that share their work over ranks."""
ALONE = ("--dry-run", "--endpoint")
"""Flags of theirs that ask for what one process does."""
WHY_ALONE = {
    "study": "starts a process for each of its runs, which share the GPUs (--jobs); start it without torchrun. A run "
    "that needs several GPUs can be started with torchrun before: the study takes it as done"
}
"""What is said of a verb that cannot be shared, where there is more to say."""
_LOST = re.compile(r"gloo|nccl|connection (closed|reset)|socket|broken pipe", re.IGNORECASE)


def run_as_rank(run: Callable[[], Ended], show: Callable[[str, bool], None]) -> int:
    """Run the command line as one rank of several; return the exit code, which is the same on all of them.

    Only the first rank prints. `show` prints why the run ended.
    """
    quiet()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # DDP warns of what the Trainer has asked for
    from unteach.models.rank_watch import Company, End

    first, errors = os.environ.get("RANK") == "0", sys.stderr
    if not first:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 (for as long as the process lives)

    def say(message: str, interrupted: bool) -> None:
        sys.stderr = errors
        for stage in list(live_stages):
            stage.end("broken off")
        if message.startswith("Traceback"):
            errors.write(message)
        elif message:
            show(message, interrupted)

    try:
        company = Company(say)
    except (ConfigError, KeyError, ValueError) as error:
        sys.stderr = errors  # no rank knows another one yet, so each speaks for itself
        show(f"the ranks cannot start: {error}", False)
        return 2
    ended, ours = _ended(lambda: _begun(company.begin, run))
    for number in signals.NUMBERS:  # it ends anyway: torchrun sends signals to ranks as soon as one of them is gone
        signal.signal(number, signal.SIG_IGN)
    if ended.code:
        return company.end(End(ended.message, ended.code, ended.interrupted), ours=ours)
    company.leave()
    return 0


def _begun(begin: Callable[[list[str]], None], run: Callable[[], Ended]) -> Ended:
    words = sys.argv[1:]
    begin(words)
    if one := _for_one_process(words):
        why = WHY_ALONE.get(one, "is done by one process; start it without torchrun")
        raise ConfigError(f"{inert_line(one, 60)}: {why} (see docs/many-gpus.md)")
    return run()


def _for_one_process(words: list[str]) -> str:
    """Return the flag or the verb that asks for what one process does; empty where the ranks share the work."""
    flags = [word for word in words if word.partition("=")[0] in ALONE]
    verbs = [" ".join(words[:count]) for count in (1, 2)]
    if flags or set(verbs) & set(SHARED):
        return flags[0] if flags else ""
    return verbs[words[:1] == ["mistakes"]]


def _ended(work: Callable[[], Ended]) -> tuple[Ended, bool]:
    """Return how it ended, and whether the reason surely lies with this rank."""
    try:
        return work(), True
    except UnteachError as error:
        return Ended(error.exit_code, str(error)), True
    except KeyboardInterrupt:
        return Ended(130, "stopped", True), True
    except Exception as error:
        if _LOST.search(str(error)):
            reason = inert_line(str(error).splitlines()[0], 200)
            fix = "give the command again, with --resume where it has that"
            return Ended(2, f"the connection to another rank was lost ({reason}); {fix}"), False
        return Ended(1, traceback.format_exc()), False
