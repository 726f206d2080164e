"""A reply as a model writes it: where it ends, and which part of it is said.

A model ends a reply with a token (or a text) that its chat template writes after a reply. A reply without that end was
cut: by the longest length that was allowed, or by the model's context. A model that thinks writes its thought between
two marks first; what is said is what follows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

THOUGHT_MARKS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    ("to=self<|message|>", "to=user<|message|>"),
)
"""The marks that begin and end a thought, by family of models."""


@dataclass(frozen=True)
class Reply:
    """What a model wrote after a prompt.

    `text` is what it says, without its thought, special tokens and surrounding white space. `ids` are all its tokens,
    the end included where the model wrote it; where it did not, the reply is `cut`. `written` is the text with the
    thought in its marks; without a thought it is `text`. `unsaid` says that the reply was cut inside a thought, before
    anything was said.
    """

    text: str
    ids: tuple[int, ...]
    cut: bool
    written: str
    unsaid: bool = False


@dataclass(frozen=True)
class ReplyEnd:
    """How a model ends its replies: with one of `tokens`, or with `text` where the end mark is no token of its own.

    `opening` is what is written before what is said, such as the name of a channel. `thought` are the marks around a
    thought, None for a model that has none. `in_thought` says that prompts end inside a thought, so that replies begin
    in one.
    """

    tokens: frozenset[int]
    text: str = ""
    opening: str = ""
    thought: tuple[str, str] | None = None
    in_thought: bool = False

    def reached(self, tokenizer: Any, ids: Sequence[int]) -> bool:
        """Tell whether the new tokens hold the end."""
        if any(token in self.tokens for token in ids):
            return True
        return bool(self.text) and self.text in _decoded(tokenizer, ids)

    def read(self, tokenizer: Any, ids: Sequence[int]) -> Reply:
        """Return the reply that the new tokens of a model make; tokens after the end are dropped."""
        stop = next((place for place, token in enumerate(ids) if token in self.tokens), None)
        body = ids if stop is None else ids[:stop]
        kept = ids if stop is None else ids[: stop + 1]
        cut = stop is None
        shown = tokenizer.decode(body, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        raw = _decoded(tokenizer, body) if self.thought or self.text or self.opening else shown
        if self.text and self.text in raw:
            raw, cut = raw.partition(self.text)[0], False
            shown = shown.partition(self.text)[0]
            kept = kept[: _tokens_up_to(tokenizer, kept, self.text)]
        if self.opening and raw.lstrip().startswith(self.opening):
            said = without_special(tokenizer, raw.lstrip().removeprefix(self.opening))
            return Reply(said, tuple(kept), cut, said)
        if self.thought is None or (not self.in_thought and not any(mark in raw for mark in self.thought)):
            return Reply(shown.strip(), tuple(kept), cut, shown.strip())
        said = without_special(tokenizer, self.said(raw, cut))
        return Reply(said, tuple(kept), cut, raw.strip(), unsaid=cut and not said and self.thought[1] not in raw)

    def said(self, written: str, cut: bool = False) -> str:
        """Return what a written reply says: what follows its last thought.

        A thought that is not closed hides all the rest if the reply was cut there. If the model ended it nevertheless,
        its text is all that a user gets to see, and counts as said.
        """
        if self.thought is None:
            return written.strip()
        opened, closed = self.thought
        if closed in written:
            return written.rpartition(closed)[2].strip()
        if opened in written:
            before, _, inside = written.partition(opened)
            return before.strip() if cut else f"{before}{inside}".strip()
        return "" if cut and self.in_thought else written.strip()


def thought_marks(tokenizer: Any, template: str = "") -> tuple[str, str]:
    """Return the marks around a model's thoughts: those that its template or its added tokens have, else <think>."""
    added = set(tokenizer.get_added_vocab()) if hasattr(tokenizer, "get_added_vocab") else set()
    known = (marks for marks in THOUGHT_MARKS if any(mark in template for mark in marks) or set(marks) <= added)
    return next(known, THOUGHT_MARKS[0])


def special_ids(tokenizer: Any) -> set[int]:
    """Return the ids of all tokens that are no ordinary text."""
    return set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))


def end_token_ids(tokenizer: Any, named: int | Sequence[int] | None) -> list[int]:
    """Return the tokens that end a reply: the tokenizer's EOS, then special tokens that the model itself names.

    `named` comes from the model's generation config or config. Chat models often end a turn with a second token that
    only these name. Ids named there that are not special to the tokenizer are leftovers of a default config and would
    cut replies at an ordinary word.
    """
    listed = [named] if isinstance(named, int) else list(named or [])
    own = tokenizer.eos_token_id
    if own is None:
        return listed
    special = special_ids(tokenizer)
    return [own, *(token for token in dict.fromkeys(listed) if token in special and token != own)]


def named_end(model: Any) -> int | Sequence[int] | None:
    """Return the tokens that a model names as ends, in its generation config or else in its config."""
    named: int | Sequence[int] | None = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    return named if named is not None else getattr(getattr(model, "config", None), "eos_token_id", None)


def without_special(tokenizer: Any, text: str) -> str:
    """Return a text without the special tokens in it and without surrounding white space."""
    for mark in _special_texts(tokenizer):
        text = text.replace(mark, "")
    return text.strip()


def _special_texts(tokenizer: Any) -> Collection[str]:
    return [token for token in getattr(tokenizer, "all_special_tokens", []) if token]


def _decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _tokens_up_to(tokenizer: Any, ids: Sequence[int], text: str) -> int:
    """Return how many of the tokens it takes until their text holds `text`."""
    return next(count for count in range(1, len(ids) + 1) if text in _decoded(tokenizer, ids[:count]))
