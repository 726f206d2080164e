"""Examples as token ids that fit a model's context."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from unteach.data.example import Example
from unteach.data.prompt_format import PromptFormat
from unteach.errors import ConfigError, DataError


@dataclass(frozen=True)
class Encoded:
    """An example with the ids of its prompt and of its reply, EOS last unless `truncated`."""

    example: Example
    prompt_ids: tuple[int, ...]
    reply_ids: tuple[int, ...]
    truncated: bool

    @property
    def ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The ids of the prompt and of the reply."""
        return self.prompt_ids, self.reply_ids

    @property
    def length(self) -> int:
        """Tokens of prompt and reply together."""
        return len(self.prompt_ids) + len(self.reply_ids)


def digest_of(*sets: Sequence[Encoded]) -> str:
    """Identify the token ids of encoded rows, in their order."""
    ids = [[row.ids for row in rows] for rows in sets]
    return hashlib.sha256(repr(ids).encode()).hexdigest()[:16]


def encode_all(
    examples: Sequence[Example], prompt_format: PromptFormat, max_length: int, name: str
) -> tuple[list[Encoded], list[str]]:
    """Tokenise all examples of the set `name` for a context of `max_length` tokens.

    A row whose prompt leaves no room for one token of reply is left out. A reply that does not fit is cut, without an
    end. A reply that holds an end mark ends there, since generation would. The messages count them and name the first
    row of each. Raises DataError for an empty reply and where no row is left, ConfigError where the chat template
    cannot be used.
    """
    kept: list[Encoded] = []
    left_out: list[tuple[Example, int]] = []
    for example in examples:
        prompt, reply = _ids(example, prompt_format)
        room = max_length - len(prompt)
        if room < 1:
            left_out.append((example, len(prompt)))
        else:
            most = 1 if example.prompt_only else room
            kept.append(Encoded(example, prompt, reply[:most], example.cut or len(reply) > room))
    if not kept:
        raise DataError(_nothing_left(left_out, max_length, name))
    messages = []
    if left_out:
        first, tokens = left_out[0]
        messages.append(
            f"{name}: left out {len(left_out)} of {len(examples)} rows whose prompt fills the {max_length} "
            f"tokens of --max-length (first: {first.where or 'row 1'}, {tokens} tokens)"
        )
    found = {
        f"were cut at {max_length} tokens": [row for row in kept if row.truncated and not row.example.cut],
        "hold an end mark and were cut there": _holding_an_end(kept, prompt_format),
    }
    for what, rows in found.items():
        if rows:
            first = rows[0].example
            messages.append(f"{name}: {len(rows)} of {len(examples)} replies {what} (first: {first.where or 'row 1'})")
    return kept, messages


def _holding_an_end(rows: Sequence[Encoded], prompt_format: PromptFormat) -> list[Encoded]:
    """Return the rows whose reply has text after an end mark."""
    ends, ids = prompt_format.end.tokens, prompt_format.ids
    marks = [mark for token in ends if (mark := prompt_format.tokenizer.decode([token]).strip())]
    return [
        row
        for row in rows
        if not row.example.is_passage
        and any(mark in row.example.reply for mark in marks)
        and any(token in ends for token in ids.of(row.example.reply)[:-1])
    ]


def _ids(example: Example, prompt_format: PromptFormat) -> tuple[tuple[int, ...], tuple[int, ...]]:
    where = example.where or "a row"
    if not example.reply.strip():
        raise DataError(f"{where}: the reply is empty; remove the row or give it a reply")
    try:
        prompt = prompt_format.prompt_ids(example.turns)
        reply = prompt_format.reply_ids(example.turns, example.reply, example.cut)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    if not prompt:  # the tokenizer has neither BOS nor EOS: a text then follows its own first token
        prompt, reply = reply[:1], reply[1:]
    if all(token in prompt_format.end.tokens for token in reply):
        raise DataError(f"{where}: the reply gives no tokens but its end; remove the row or give it a reply")
    return tuple(prompt), tuple(reply)


def _nothing_left(left_out: Sequence[tuple[Example, int]], max_length: int, name: str) -> str:
    if not left_out:
        return f"{name}: there are no rows in this set; give it at least one"
    first, tokens = left_out[0]
    return (
        f"{name}: no row is left: the prompts alone fill the {max_length} tokens of --max-length (first: "
        f"{first.where or 'row 1'}, {tokens} tokens); raise --max-length if the model's context allows, or "
        "give shorter rows"
    )
