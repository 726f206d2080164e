"""The hub that models and data sets come from: the form of its names, and whether it can be reached.

The libraries that we use ask an unreachable hub five times, which takes half a minute and prints a warning each time.
We ask once; if the hub does not answer, they are told to use the cache, and then fail at once and without noise.
"""

import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import get_session, validate_repo_id

from unteach.text.escape import inert_line

PATIENCE_SECONDS = 3.0


def is_hub_id(text: str) -> bool:
    """Tell whether a name is written as the hub's names are: owner/name."""
    try:
        validate_repo_id(text)
    except HFValidationError:
        return False
    return text.count("/") == 1


def out_of_reach() -> str:
    """Return why the hub cannot be asked, in a few words; empty where it answers within `PATIENCE_SECONDS`."""
    if constants.is_offline_mode():
        return "offline (HF_HUB_OFFLINE is set), and not in the cache"
    answers: queue.Queue[bool] = queue.Queue()
    # In a thread of its own, because looking up a host's name has no time limit.
    threading.Thread(target=lambda: answers.put(_answers()), daemon=True).start()
    try:
        reached = answers.get(timeout=PATIENCE_SECONDS)
    except queue.Empty:
        reached = False
    return "" if reached else "the hub does not answer, and not in the cache"


def _answers() -> bool:
    try:
        answer = get_session().head(constants.ENDPOINT, timeout=PATIENCE_SECONDS, follow_redirects=False)
    except Exception:  # no route, no such name, a proxy's refusal, a bad certificate: the libraries would retry all
        return False
    return answer.status_code < 500


@contextmanager
def cached_only(wanted: bool) -> Iterator[None]:
    """Within this block, if `wanted`, models and data sets come from the cache and the network is not used."""
    if not wanted:
        yield
        return
    switches = [(constants, "HF_HUB_OFFLINE")]
    if "datasets" in sys.modules:
        switches.append((sys.modules["datasets"].config, "HF_HUB_OFFLINE"))
    before = [getattr(module, name) for module, name in switches]
    for module, name in switches:
        setattr(module, name, True)
    try:
        yield
    finally:
        for (module, name), value in zip(switches, before, strict=True):
            setattr(module, name, value)


def reason(error: Exception) -> str:
    """Return the start of a library's message on one line, fit to be shown and without web addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    shown = 2 if lines and lines[0].endswith(":") else 1
    words = [word for word in " ".join(lines[:shown]).split() if "://" not in word]
    return inert_line(" ".join(words), 200).rstrip(".") or type(error).__name__
