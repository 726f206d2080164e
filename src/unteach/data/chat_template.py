"""A tokenizer's chat template, asked what it writes before and after a reply."""

import datetime
import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any

from unteach.data.rendering import TemplateRefusal, render
from unteach.errors import ConfigError, nearest
from unteach.models.reply import ReplyEnd, special_ids, thought_marks
from unteach.prompts.turn import Turn
from unteach.text.escape import inert_line

_TODAY = re.compile(r"""strftime_now\(\s*(?:"([^"\\]*)"|'([^'\\]*)')\s*\)""")
_KEPT = 256
"""Renderings that are kept, since a row's prompt is asked for several times in a row."""
_REPLY, _QUESTION = "unteachprobereply", "unteachprobequestion"


class ChatTemplate:
    """The chat template of a tokenizer, with the arguments and the date (YYYY-MM-DD) that every rendering gets.

    Templates are programs, written for other purposes; so it is probed with a reply that stands nowhere else, and what
    comes before and after it is taken from there. Messages are text or, where a template reads only these, lists of
    content parts.
    """

    def __init__(self, tokenizer: Any, arguments: Mapping[str, Any] | None = None, date: str | None = None) -> None:
        self.tokenizer = tokenizer
        self._arguments = dict(arguments or {})
        words = set(re.findall(r"[A-Za-z_]\w*", self._source))
        for name in self._arguments:
            if name not in words:
                raise ConfigError(
                    f"--template-arg {name}: the model's chat template reads nothing of that name"
                    f"{nearest(name, words) or '; leave it out'}"
                )
        self._rendered = lru_cache(_KEPT)(self._rendered_anew)
        self._fixed: str | None = None
        if date is not None and self.asks_date:
            day = datetime.datetime.fromisoformat(date)
            self._fixed = _TODAY.sub(lambda asked: json.dumps(day.strftime(asked[1] or asked[2])), self._source)

    def prompt(self, turns: Sequence[Turn]) -> str:
        """Return a dialogue as text that ends where the assistant's reply begins."""
        return self._rendered(tuple(turns), generation=True)

    def around_reply(self, turns: Sequence[Turn]) -> tuple[str, str, str]:
        """Return what stands before a reply to a dialogue: its prompt, and what is written between the prompt and the
        reply; and the end, which is what the template writes after the reply up to its first end token.

        Between the two the template's words stand, but no empty thought, which the model would not write. Where the
        prompt opens a thought, it is closed there: a reply is what is said.

        Raises ConfigError where the template does not show the reply.
        """
        prompt = self.prompt(turns)
        whole = self._rendered((*turns, Turn("assistant", _REPLY)), generation=False)
        before, found, after = whole.rpartition(_REPLY)
        if not found:
            raise ConfigError(
                "the chat template does not show the text of a reply (is it for pictures, or broken?), so nothing can "
                "be learned or measured with it; use --prompt-format plain, or give the model another chat_template"
            )
        opening = self._without_empty_thought(before[len(prompt) :]) if before.startswith(prompt) else ""
        if self._opens_thought(prompt) and self._thought[1] not in opening:
            opening = f"\n{self._thought[1]}\n\n"
        return prompt, opening, self._end_of(after)

    def reply_end(self, eos: frozenset[int]) -> ReplyEnd:
        """Return how replies end; `eos` are tokens that end them in any case."""
        prompt, opening, end = self.around_reply((Turn("user", _QUESTION),))
        token = self._end_tokens.get(self._first_end_token(end))
        return ReplyEnd(
            eos if token is None else eos | {token},
            text="" if token is not None else end.strip(),
            opening=opening.strip(),
            thought=self._thought,
            in_thought=self._opens_thought(prompt),
        )

    def count_in_dialogue(self, text: str) -> int:
        """Return how often a text stands in a dialogue of two turns without a reply; 0 if the template refuses it."""
        try:
            turns = (Turn("user", _QUESTION), Turn("assistant", _REPLY), Turn("user", _QUESTION))
            return self._rendered(turns, generation=True).count(text)
        except ConfigError:
            return 0

    @property
    def asks_date(self) -> bool:
        """Whether what the template writes depends on the day."""
        return _TODAY.search(self._source) is not None

    @cached_property
    def _source(self) -> str:
        """The template that dialogues are rendered with."""
        template = self.tokenizer.chat_template
        return template if isinstance(template, str) else template.get("default", "")

    @cached_property
    def _thought(self) -> tuple[str, str]:
        """The marks around a thought."""
        return thought_marks(self.tokenizer, self._source)

    def _opens_thought(self, prompt: str) -> bool:
        """Tell whether a prompt ends inside a thought, so that the model goes on with it."""
        opened, closed = self._thought
        return prompt.rfind(opened) > prompt.rfind(closed)

    @cached_property
    def _end_tokens(self) -> dict[str, int]:
        """Special tokens by their text, without the marks of a thought."""
        texts = {self.tokenizer.convert_ids_to_tokens(number): number for number in special_ids(self.tokenizer)}
        return {text: number for text, number in texts.items() if text and text not in self._thought}

    @cached_property
    def _reads_text(self) -> bool:
        """Whether messages are text to this template; otherwise they are lists of content parts."""
        turns = (Turn("user", _QUESTION), Turn("assistant", _REPLY))
        return _shows(lambda: self._render(turns, text=True)) or not _shows(lambda: self._render(turns, text=False))

    def _first_end_token(self, after: str) -> str:
        """Return the special token that comes first in what follows a reply; empty where there is none."""
        there = [(after.find(token), -len(token), token) for token in self._end_tokens if token in after]
        return min(there)[2] if there else ""

    def _end_of(self, after: str) -> str:
        """Return the end within what follows a reply: up to its first special token, else its text."""
        token = self._first_end_token(after)
        return after[: after.find(token) + len(token)] if token else after.rstrip()

    def _without_empty_thought(self, opening: str) -> str:
        """Return what stands before a reply, without an empty thought, which a model never writes."""
        opened, closed = self._thought
        before, found, rest = opening.partition(opened)
        inside, closing, after = rest.partition(closed) if found else ("", "", "")
        return before + after.lstrip() if closing and not inside.strip() else opening

    def _rendered_anew(self, turns: tuple[Turn, ...], generation: bool) -> str:
        try:
            return self._render(turns, self._reads_text, generation)
        except TemplateRefusal as error:
            roles = ", ".join(turn.role for turn in turns)
            reason = inert_line(str(error), 200)
            raise ConfigError(
                f"the chat template refuses a dialogue with the roles {roles} ({reason}); change the rows, "
                "or use --prompt-format plain"
            ) from None

    def _render(self, turns: Sequence[Turn], text: bool, generation: bool = False) -> str:
        messages = [
            {"role": turn.role, "content": turn.content if text else [{"type": "text", "text": turn.content}]}
            for turn in turns
        ]
        return render(self.tokenizer, self._fixed or self._source, messages, self._arguments, generation=generation)


def _shows(render: Callable[[], str]) -> bool:
    """Tell whether a rendering succeeds and shows the reply."""
    try:
        return _REPLY in render()
    except TemplateRefusal:
        return False
