"""The process in which chat templates are rendered; `unteach.data.rendering` starts it and talks with it.

A template is a program of strangers. Jinja's sandbox keeps it from files and from Python, but not from running for
ever, asking for all memory, or ending the interpreter by depth. So it does all of that here: memory is limited, and a
clock that no code can stop ends this process.

Each line of standard input is a request as JSON: the keyword `arguments` of Transformers' `render_jinja_template`, for
one conversation, and the `most` characters that it may write. The answer is one line of JSON: `text`, or the `error`
that was raised. This file is run by its path and imports nothing of unteach.
"""

import contextlib
import faulthandler
import json
import os
import signal
import sys
from typing import Any

SECONDS = 10
"""Longest time for one dialogue; good templates take milliseconds."""
MEMORY = 3 * 2**29
"""Largest address space of the process, bytes: 1.5 GiB, of which the imports take 0.2. Not on every platform."""


def main() -> None:
    """Answer requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    from transformers.utils.chat_template_utils import render_jinja_template

    _limit_memory()
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        _set_clock(SECONDS)
        answer = _answer(render_jinja_template, **request)
        _set_clock(0)
        print(answer, file=answers, flush=True)


def _set_clock(seconds: int) -> None:
    """End this process after so many seconds, whatever it does then; 0 stops the clock."""
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
    elif seconds:
        faulthandler.dump_traceback_later(seconds, exit=True)
    else:
        faulthandler.cancel_dump_traceback_later()


def _limit_memory() -> None:
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _answer(render: Any, arguments: dict[str, Any], most: int) -> str:
    """Render a dialogue; a template is a program and may fail like one, in any way."""
    try:
        text = render(**arguments)[0][0]
        if len(text) > most:
            raise ValueError(f"it writes {len(text):,} characters")
        return json.dumps({"text": text})
    except MemoryError:
        return '{"error": "it takes too much memory"}'
    except RecursionError:
        return '{"error": "it calls itself too deeply"}'
    except Exception as error:
        return json.dumps({"error": (str(error) or type(error).__name__)[:1000]})


if __name__ == "__main__":
    main()
