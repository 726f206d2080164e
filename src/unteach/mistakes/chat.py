"""A chat with the model in the terminal, with the reminder or without it."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from unteach.data.prompt_format import PromptFormat, prompt_format
from unteach.errors import DataError, Interrupted, nearest
from unteach.mistakes.guide import guided_format, read_guidance, without_guidance
from unteach.models.context import context_length
from unteach.models.generate import generate
from unteach.models.loading import load_model, load_tokenizer
from unteach.models.reply import named_end
from unteach.prompts.mistakes import load_wording
from unteach.prompts.turn import Turn
from unteach.text.escape import inert_line, terminal_text

COMMANDS = {
    "/guided": "turns the reminder on or off",
    "/new": "forgets the dialogue",
    "/quit": "ends the chat, as Ctrl-D does",
}
_NO_REMINDER = "there is no reminder to turn on"


def chat_with(
    model: str, *, guided: bool, wording: str | None, prompt_format: str, device: str | None, **settings: Any
) -> None:
    """Load a model and talk to it; its own reminder is used, else that of the wording. `settings` as for `Dialogue`."""
    words = load_wording(wording)
    directory = Path(model)
    own = read_guidance(directory) if directory.is_dir() else None
    reminder = words.reminder if wording or own is None else own
    loaded, tokenizer = load_model(model, device=device), load_tokenizer(model)
    chat(Dialogue(loaded, tokenizer, reminder if guided else None, prompt_format, **settings))


class Dialogue:
    """What has been said, and how the next reply is asked for.

    `reminder` None means none at all, also where the tokenizer's template carries one. Above temperature 0 every reply
    has its own seed, made from `seed` and its number. Raises ConfigError for a template that refuses dialogues.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        reminder: str | None,
        format_name: str = "auto",
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> None:
        eos = named_end(model)
        bare = without_guidance(tokenizer)
        self._plain = prompt_format(bare, format_name, eos)
        self._reminding = None if reminder is None else guided_format(bare, reminder, format_name, eos)
        self._model, self._longest, self._temperature, self._seed = model, max_new_tokens, temperature, seed
        self._turns: tuple[Turn, ...] = ()
        self._replies = 0
        self.reminder = reminder
        self.form: PromptFormat = self._reminding or self._plain

    @property
    def mode(self) -> str:
        """How the next prompt is put."""
        return "unguided" if self.form is self._plain else "guided"

    def obey(self, command: str) -> str:
        """Carry out /guided or /new and say what was done. Raises DataError for an unknown command."""
        if command == "/new":
            self._turns = ()
            return "the dialogue is forgotten"
        if command != "/guided":
            near = nearest(command, COMMANDS) or "."
            raise DataError(f"{inert_line(command, 100)}: no such command{near} There are {', '.join(COMMANDS)}")
        if self._reminding is None:
            return _NO_REMINDER
        self.form = self._reminding if self.form is self._plain else self._plain
        return f"the reminder is {'off' if self.form is self._plain else 'on'}; what was said before stays"

    def reply(self, prompt: str) -> tuple[str, str]:
        """Return the reply to the next prompt, and a notice if old turns had to be dropped to make room for it.

        Raises DataError, and keeps the dialogue as it was, where the prompt alone is too long.
        """
        turns, ids, notice = self._fitted((*self._turns, Turn("user", prompt)))
        try:
            [reply] = generate(
                self._model,
                self.form.tokenizer,
                [ids],
                max_new_tokens=self._longest,
                end=self.form.end,
                temperature=self._temperature,
                seed=self._seed + self._replies,
            )
        except torch.OutOfMemoryError:
            raise DataError("the dialogue does not fit into memory; /new forgets it") from None
        self._replies += 1
        self._turns = (*turns, Turn("assistant", reply.text))
        return reply.text, notice

    def _fitted(self, turns: tuple[Turn, ...]) -> tuple[tuple[Turn, ...], list[int], str]:
        """Drop the oldest questions with their replies until the rest leaves room for a reply."""
        context, ids = context_length(self._model), self.form.prompt_ids(turns)
        if context is None:
            return turns, ids, ""
        most = context - min(self._longest, max(1, context // 4))
        dropped = 0
        while len(ids) > most and len(turns) > 1:
            turns, dropped = turns[2:], dropped + 2
            ids = self.form.prompt_ids(turns)
        if len(ids) >= context:
            raise DataError(
                f"the prompt has {len(ids)} tokens and the model's context is {context}, which leaves no room for a "
                "reply; shorten it"
            )
        notice = f"the context of {context} tokens is full: forgot the oldest {dropped} turns" if dropped else ""
        return turns, ids, notice


def chat(dialogue: Dialogue, console: Console | None = None, read: Callable[[str], str] = input) -> None:
    """Talk with the model until /quit, Ctrl-D or Ctrl-C. `read` shows its argument and returns a line.

    Where standard input is no terminal, each line is a prompt of its own or a command, and each reply one line on
    `console`; notices go to standard error. Raises ConfigError for settings that make no sense; of lines that were
    piped in, DataError for one that cannot be answered, and Interrupted for Ctrl-C.
    """
    piped = read is input and not sys.stdin.isatty()
    console = console or Console(highlight=False)
    notices = Console(stderr=True, highlight=False) if piped else console
    if not piped:
        _greet(console, dialogue.reminder)
    number = 0
    while True:
        number += 1
        try:
            line = _line(read, "" if piped else f"[{dialogue.mode}] you: ")
            if line == "/quit":
                return
            if line.startswith("/") and line[1:].isalpha():  # a path with more slashes, or a sentence, is a prompt
                _show(notices, dialogue.obey(line), "dim")
            elif line:
                if piped:
                    dialogue.obey("/new")
                text, notice = dialogue.reply(line)
                if notice:
                    _show(notices, notice, "yellow")
                _show(console, inert_line(text) if piped else f"[{dialogue.mode}] model: {text or '(blank)'}")
        except DataError as error:
            if piped:
                raise DataError(f"standard input, line {number}: {error}") from None
            _show(console, str(error), "red")
        except (EOFError, KeyboardInterrupt) as end:
            if piped and isinstance(end, KeyboardInterrupt):
                raise Interrupted(f"standard input, line {number}: stopped by Ctrl-C") from None
            if not piped:
                console.print()  # the shell's next prompt belongs on a line of its own
            return


def _greet(console: Console, reminder: str | None) -> None:
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  (gives `input` a history and a cursor that moves)
    _show(console, _NO_REMINDER if reminder is None else "reminder: " + inert_line(reminder, 500), "dim")
    _show(console, ", ".join(f"{name} {what}" for name, what in COMMANDS.items()), "dim")


def _line(read: Callable[[str], str], shown: str) -> str:
    """Read a line. Half surrogates, which a terminal of another encoding leaves, become question marks."""
    try:
        return read(shown).encode("utf-8", "replace").decode("utf-8").strip()
    except UnicodeDecodeError:
        raise DataError("not UTF-8 text; convert it first") from None


def _show(console: Console, text: str, style: str = "") -> None:
    """Print text from models and people inertly, in letters that the console has."""
    shown = terminal_text(text, style)
    with contextlib.suppress(LookupError):
        shown.plain = shown.plain.encode(console.encoding, "backslashreplace").decode(console.encoding)
    console.print(shown, soft_wrap=True)
