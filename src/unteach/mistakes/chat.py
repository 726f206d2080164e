"""A chat with the model in the terminal, with the reminder or without it."""

import contextlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Console

from unteach.data.prompt_format import PromptFormat
from unteach.data.prompt_format import prompt_format as unguided_format
from unteach.errors import DataError, Interrupted, nearest
from unteach.mistakes.guide import guided_format, without_guidance
from unteach.models.context import context_length
from unteach.models.generate import generate
from unteach.prompts.turn import Turn
from unteach.text.escape import inert_line, terminal_text

COMMANDS = {
    "/guided": "turns the reminder on or off",
    "/new": "forgets the dialogue",
    "/quit": "ends the chat, as Ctrl-D does",
}
_NO_REMINDER = "there is no reminder to turn on"


def chat(
    model: Any,
    tokenizer: Any,
    *,
    reminder: str | None,
    prompt_format: str = "auto",
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    console: Console | None = None,
    read: Callable[[str], str] = input,
) -> None:
    """Talk with the model until /quit, Ctrl-D or Ctrl-C; with a `reminder` it is on until /guided turns it off.

    `reminder` None means none at all, also where the tokenizer's template carries one. Above temperature 0 every reply
    has its own seed, made from `seed` and its number. `read` shows its argument and returns a line.

    Where standard input is no terminal, each line is a prompt or a command of the same dialogue, and each reply one
    line on `console`; notices go to standard error. Put /new between prompts that have nothing to do with each other.

    Raises ConfigError for settings that make no sense or a template that refuses dialogues; of lines that were piped
    in, DataError for one that cannot be answered, and Interrupted for Ctrl-C.
    """
    eos = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    bare = without_guidance(tokenizer)
    dialogue = Dialogue(
        model,
        unguided_format(bare, prompt_format, eos),
        guided_format(bare, reminder, prompt_format, eos) if reminder is not None else None,
        max_new_tokens,
        temperature,
        seed,
    )
    console = console or Console(highlight=False)
    if read is input and not sys.stdin.isatty():
        _answer_lines(dialogue, console, read)
        return
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        _talk(dialogue, console, read, reminder)
        return
    console.print()  # the shell's next prompt belongs on a line of its own


@dataclass
class Dialogue:
    """What has been said, and how the next reply is asked for."""

    model: Any
    unguided: PromptFormat
    guided: PromptFormat | None
    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0
    turns: tuple[Turn, ...] = ()
    replies: int = 0
    is_guided: bool = field(init=False)

    def __post_init__(self) -> None:
        self.is_guided = self.guided is not None

    @property
    def mode(self) -> str:
        """How the next prompt is put."""
        return "guided" if self.is_guided else "unguided"

    def obey(self, command: str) -> str:
        """Carry out /guided or /new and say what was done. Raises DataError for an unknown command."""
        if command == "/new":
            self.turns = ()
            return "the dialogue is forgotten"
        if command != "/guided":
            near = nearest(command, COMMANDS) or "."
            raise DataError(f"{inert_line(command, 100)}: no such command{near} There are {', '.join(COMMANDS)}")
        if self.guided is None:
            return _NO_REMINDER
        self.is_guided = not self.is_guided
        return f"the reminder is {'on' if self.is_guided else 'off'}; what was said before stays"

    def reply(self, prompt: str) -> tuple[str, str]:
        """Return the reply to the next prompt, and a notice where old turns had to go to make room for it.

        Raises DataError, and keeps the dialogue as it was, where the prompt alone is too long.
        """
        form = self.guided if self.is_guided and self.guided is not None else self.unguided
        turns, ids, notice = self._fitted(form, (*self.turns, Turn("user", prompt)))
        try:
            text = generate(
                self.model,
                form.tokenizer,
                [ids],
                max_new_tokens=self.max_new_tokens,
                temperature=self.temperature,
                seed=self.seed + self.replies,
            )[0]
        except torch.OutOfMemoryError:
            raise DataError("the dialogue does not fit into memory; /new forgets it") from None
        self.replies += 1
        self.turns = (*turns, Turn("assistant", text))
        return text, notice

    def _fitted(self, form: PromptFormat, turns: tuple[Turn, ...]) -> tuple[tuple[Turn, ...], list[int], str]:
        """Drop the oldest questions with their replies until the rest leaves room for an answer."""
        context = context_length(self.model)
        ids = form.prompt_ids(turns)
        if context is None:
            return turns, ids, ""
        most = context - min(self.max_new_tokens, max(1, context // 4))
        dropped = 0
        while len(ids) > most and len(turns) > 1:
            turns, dropped = turns[2:], dropped + 2
            ids = form.prompt_ids(turns)
        if len(ids) >= context:
            raise DataError(
                f"the prompt has {len(ids)} tokens and the model's context is {context}, which leaves no room for a "
                "reply; shorten it"
            )
        notice = f"the context of {context} tokens is full: forgot the oldest {dropped} turns" if dropped else ""
        return turns, ids, notice


def _talk(dialogue: Dialogue, console: Console, read: Callable[[str], str], reminder: str | None) -> None:
    """Read, reply and show, for a person at a terminal."""
    if read is input:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  (gives `input` a history and a cursor that moves)
    _show(console, "reminder: " + inert_line(reminder, 500) if reminder is not None else _NO_REMINDER, "dim")
    _show(console, ", ".join(f"{name} {what}" for name, what in COMMANDS.items()), "dim")
    while True:
        line = _line(read, f"[{dialogue.mode}] you: ")
        if line == "/quit":
            return
        try:
            if _is_command(line):
                _show(console, dialogue.obey(line), "dim")
            elif line:
                text, notice = dialogue.reply(line)
                if notice:
                    _show(console, notice, "yellow")
                _show(console, f"[{dialogue.mode}] model: {text or '(blank)'}")
        except DataError as error:
            _show(console, str(error), "red")


def _answer_lines(dialogue: Dialogue, console: Console, read: Callable[[str], str]) -> None:
    """Reply to lines that a program or a file sends, one line each."""
    notices = Console(stderr=True, highlight=False)
    number = 0
    with contextlib.suppress(EOFError):
        while True:
            number += 1
            try:
                line = _line(read, "")
                if line == "/quit":
                    return
                if _is_command(line):
                    _show(notices, dialogue.obey(line))
                elif line:
                    dialogue.obey("/new")  # lines of a file are prompts of their own
                    text, notice = dialogue.reply(line)
                    if notice:
                        _show(notices, f"line {number}: {notice}")
                    _show(console, inert_line(text))
            except DataError as error:
                raise DataError(f"standard input, line {number}: {error}") from None
            except KeyboardInterrupt:
                raise Interrupted(f"standard input, line {number}: stopped by Ctrl-C") from None


def _is_command(line: str) -> bool:
    """Whether a line is a lone word after a slash; a path with more slashes, or a sentence, is a prompt."""
    return line.startswith("/") and line[1:].isalpha()


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
