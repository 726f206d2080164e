"""Chat templates rendered in a process of their own, within bounds of time, memory and size."""

import atexit
import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unteach.data.render_worker import SECONDS
from unteach.errors import ConfigError

WORKER = Path(__file__).with_name("render_worker.py")
MOST_CHARACTERS = 2**24
"""Most characters that a template may write besides eight times what it was given."""


class TemplateRefusal(ValueError):
    """A chat template that raised an error: it refuses the dialogue, or it is broken."""


class _Renderer:
    """The process, made at the first dialogue, and again after one that ended it; one dialogue at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._endless: set[str] = set()

    def render(self, template: str, arguments: Mapping[str, Any], most: int) -> str:
        """Return what a template writes. Raises TemplateRefusal, and ConfigError where it oversteps its bounds."""
        request = {"arguments": dict(arguments, chat_template=template), "most": most}
        line = json.dumps(request, default=_placeholder).encode() + b"\n"
        with self._lock:
            answer = b"" if template in self._endless else self._ask(line)
            if not answer:
                self._endless.add(template)  # a template is asked many times before a run begins
                raise ConfigError(
                    f"the model's chat template does not end: a dialogue took over {SECONDS} s, or ended the process "
                    "that rendered it; give the model another chat_template, or use --prompt-format plain"
                )
        said = json.loads(answer)
        if "error" in said:
            raise TemplateRefusal(said["error"])
        return str(said["text"])

    def _ask(self, line: bytes) -> bytes:
        """Return the answer to a request; empty where the process has ended over it."""
        try:
            process = self._running()
            assert process.stdin and process.stdout
            process.stdin.write(line)
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        except BaseException:  # Ctrl-C: the answer would be taken for the next one
            self.close()
            raise
        if not answer.endswith(b"\n"):
            self.close()
            return b""
        return answer

    def _running(self) -> subprocess.Popen[bytes]:
        """Return the process, started if need be; a fork of ours starts its own."""
        if self._process is None or self._owner != os.getpid():
            # In a session of its own: Ctrl-C in the terminal is for us.
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            self._owner = os.getpid()
            assert self._process.stdout
            if not self._process.stdout.readline():
                self.close()
                raise ConfigError(f"{WORKER}: the process that renders chat templates did not start; reinstall unteach")
        return self._process

    def close(self) -> None:
        """End the process, if it is ours and runs."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
            process.wait()


_renderer = _Renderer()
atexit.register(_renderer.close)


def render(
    tokenizer: Any,
    template: str,
    messages: Sequence[Mapping[str, Any]],
    arguments: Mapping[str, Any] | None = None,
    *,
    generation: bool = False,
) -> str:
    """Return what a chat template writes for a dialogue: what `tokenizer.apply_chat_template` would, within bounds.

    `arguments` are read by the template beside the special tokens; `generation` asks for the beginning of a reply.
    Raises TemplateRefusal where the template fails, and ConfigError where it takes too long or ends its process.
    """
    given = sum(len(json.dumps(message)) for message in messages)
    request = {
        **tokenizer.special_tokens_map,
        **(arguments or {}),
        "conversations": [list(messages)],
        "add_generation_prompt": generation,
    }
    return _renderer.render(template, request, MOST_CHARACTERS + 8 * given)


def _placeholder(value: Any) -> str:
    """Return what stands for a value that is not JSON, as in Transformers."""
    return f"<{type(value).__name__}>"
