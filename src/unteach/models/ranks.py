"""Ranks: the processes of one distributed run. They run the same program on the same rows, and share what is slow.

Whatever runs a model over many rows calls `shared_over_ranks`, whatever reads or writes what there is one of
`on_first_rank`. Every rank must make the same calls of these in the same order. In a program of one process, and inside
`on_first_rank`, there is one rank, and all of it is a plain call.
"""

import functools
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from unteach.errors import ConfigError, OutputError, UnteachError
from unteach.models.unwrap import is_sharded, runs_alone

Part = TypeVar("Part")
Result = TypeVar("Result")
Given = ParamSpec("Given")


class _Alone:
    """Whether the first rank works alone `now`, what it has `held` for all, and the group for our own messages.

    Without a group of our own, torch's default one carries them.
    """

    now = False
    held = list[ExitStack]()
    leaving = threading.Lock()
    group: Any = None


def rank() -> int:
    """Return the number of this process, from 0 on."""
    return int(_torch().get_rank()) if world() > 1 else 0


def world() -> int:
    """Return how many processes work together now."""
    known = "torch.distributed" in sys.modules  # where nobody has loaded torch, nobody has connected ranks
    return int(_torch().get_world_size()) if known and not _Alone.now and _torch().is_initialized() else 1


def started() -> dict[str, int]:
    """Return how many processes have started together, for a report; nothing where there is one."""
    before, _Alone.now = _Alone.now, False
    try:
        return {"ranks": world()} if world() > 1 else {}
    finally:
        _Alone.now = before


def use_group(group: Any) -> None:
    """Send our messages through this process group."""
    _Alone.group = group


def shared_over_ranks(work: Callable[[Part], Result], parts: Sequence[Part], model: Any = None) -> Iterator[Result]:
    """Return the results of `work` for every part, in order and on every rank; the ranks do the parts in turn.

    A result goes through pickle, so tensors in it should lie on the CPU. Parts, and not rows, are what is shared: a
    batch is computed as one process would compute it, to the last bit, whichever rank does so. A `model` whose weights
    are spread over the ranks runs on all of them at once, so each rank does every part, unless all have `gathered`
    them. Where a rank fails, all raise its error.
    """
    count, own = world(), rank()
    together = count == 1 or (model is not None and not runs_alone(model))
    return map(work, parts) if together else _in_rounds(work, parts, count, own)


def _in_rounds(work: Callable[[Part], Result], parts: Sequence[Part], count: int, own: int) -> Iterator[Result]:
    """Yield all results; in a round, each of `count` ranks does one part."""
    for first in range(0, len(parts), count):
        place = first + own
        mine = _outcome(work, parts[place]) if place < len(parts) else None
        outcomes: list[Any] = [None] * count
        _torch().all_gather_object(outcomes, mine and _sendable(mine), group=_Alone.group)
        for outcome in outcomes[: len(parts) - first]:
            yield _value(outcome)


def on_first_rank(work: Callable[..., Result], *arguments: Any, **settings: Any) -> Result:
    """Let the first rank alone do it, while the others wait; return its result on every rank, or raise its error."""
    if world() == 1:
        return work(*arguments, **settings)
    if rank():
        return _value(_sent(None))
    with _alone():
        outcome = _outcome(work, *arguments, **settings)
    _sent(_sendable(outcome))
    return _value(outcome)


def by_first_rank(work: Callable[Given, Result]) -> Callable[Given, Result]:
    """Make a function that the first rank alone calls, for all (`on_first_rank`)."""

    @functools.wraps(work)
    def called(*arguments: Given.args, **settings: Given.kwargs) -> Result:
        return on_first_rank(work, *arguments, **settings)

    return called


def first_rank_takes(take: Callable[[Iterable[Part]], Result], shared: Iterator[Part]) -> Result:
    """Let the first rank `take` what the ranks compute together, as it comes; return its result on every rank.

    `shared` comes from `shared_over_ranks`. An error in `take` is raised on the first rank only.
    """
    if world() == 1:
        return take(shared)
    if rank():
        for _ in shared:
            pass
        return _value(_sent(None))
    with _alone():
        result = take(shared)
    _sent((result, None))
    return result


@contextmanager
def held_by_first(held: AbstractContextManager[Result]) -> Iterator[Result]:
    """Let the first rank hold a context for all; yields what it gives on every rank. All leave it together."""
    if world() == 1:
        with held as value:
            yield value
        return
    stack = ExitStack()
    _Alone.held.append(stack)
    try:
        yield on_first_rank(stack.enter_context, held)
        on_first_rank(stack.close)
    except BaseException:
        with _Alone.leaving:
            if not stack.__exit__(*sys.exc_info()):
                raise
    finally:
        _Alone.held.remove(stack)


def let_go() -> None:
    """Leave what this rank holds for all, as after an error; for a thread that is about to end the process.

    Where the main thread does so already, it is waited for.
    """
    free = _Alone.leaving.acquire(timeout=5.0)
    for stack in reversed(_Alone.held if free else []):
        with suppress(Exception, KeyboardInterrupt):
            stack.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)


def any_rank(flag: bool) -> bool:
    """Return on every rank whether the flag is set on any."""
    return totals(int(flag))[0] > 0


def totals(*counts: int) -> list[int]:
    """Return the sums of whole numbers over all ranks."""
    if world() == 1:
        return list(counts)
    everyone: list[Any] = [None] * world()
    _torch().all_gather_object(everyone, counts, group=_Alone.group)
    return [sum(parts) for parts in zip(*everyone, strict=True)]


def require_same(facts: Mapping[str, str]) -> None:
    """Raise ConfigError on every rank unless all have the same facts."""
    count = world()
    if count == 1:
        return
    everyone: list[Any] = [None] * count
    _torch().all_gather_object(everyone, dict(facts), group=_Alone.group)
    for number, theirs in enumerate(everyone):
        for name, fact in everyone[0].items():
            if theirs.get(name) != fact:
                raise ConfigError(
                    f"rank {number} has another {name} than rank 0 ({theirs.get(name)} and {fact}); start all ranks "
                    "from the same files, with the same versions and the same command"
                )


@contextmanager
def seen_by_all(path: Path) -> Iterator[None]:
    """Say what to do where a rank on another host does not see, within the block, what the first rank has written."""
    try:
        yield
    except FileNotFoundError:
        if not rank():
            raise
        fix = "let XDG_CACHE_HOME and TMPDIR name directories that all hosts see"
        raise OutputError(f"{path}: rank {rank()} on host {socket.gethostname()} does not see it; {fix}") from None


def weights_of_first_rank(model: Any) -> None:
    """Give a model on every rank the weights that it has on the first: the same steps may round otherwise on a GPU."""
    if world() > 1 and not is_sharded(model):
        for weight in model.parameters():
            _torch().broadcast(weight.data, src=0)


def share_of(count: int, name: str) -> int:
    """Return what one rank has of `count` things. Raises ConfigError where they cannot be parted evenly."""
    if count % world():
        raise ConfigError(f"{name} {count}: cannot be parted evenly between {world()} ranks; give a multiple of these")
    return count // world()


# ---- messages --------------------------------------------------------------------------------------------------------


def _torch() -> Any:
    """Return torch.distributed, which takes seconds to load."""
    import torch.distributed

    return torch.distributed


@contextmanager
def _alone() -> Iterator[None]:
    """Within the block this rank counts as the only one."""
    _Alone.now = True
    try:
        yield
    finally:
        _Alone.now = False


def _outcome(work: Callable[..., Any], *arguments: Any, **settings: Any) -> tuple[Any, Exception | None]:
    """Do it; return the result, or the error."""
    try:
        return work(*arguments, **settings), None
    except Exception as error:
        return None, error


def _sendable(outcome: tuple[Any, Exception | None]) -> tuple[Any, Exception | None]:
    """Return an outcome whose error pickle knows: without its causes, and in words where it must be."""
    result, error = outcome
    if error is None:
        return result, None
    return None, type(error)(str(error)) if isinstance(error, UnteachError) else RuntimeError(
        f"{type(error).__name__}: {error}"
    )


def _value(outcome: Any) -> Any:
    """Return the result of `_outcome`, or raise its error."""
    result, error = outcome
    if error is not None:
        raise error
    return result


def _sent(outcome: Any) -> Any:
    """Send what the first rank has to all others; returns it there."""
    box = [outcome]
    _torch().broadcast_object_list(box, src=0, group=_Alone.group)
    return box[0]
