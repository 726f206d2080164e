"""Prompt formats: how a prompt is put to a model, and how the model's reply begins, is written and ends.

Training, scoring and generation share them. The ids of a prompt are those that generation starts from; the ids of a
reply are those that generation would have to produce; the end is what the chat template writes after a reply, and
generation stops there.
"""

import datetime
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from unteach.data.chat_template import ChatTemplate
from unteach.errors import ConfigError, nearest
from unteach.models.reply import ReplyEnd, end_token_ids, thought_marks
from unteach.models.vocabulary import outside, pad_within
from unteach.prompts.turn import TEXT, Turn
from unteach.text.escape import inert_line

PROMPT_FORMATS = ("auto", "plain", "chat")


@dataclass(frozen=True)
class TemplateSettings:
    """What a user says about how prompts are put: arguments of the chat template (such as `enable_thinking`), a system
    message for dialogues that have none, and the date (YYYY-MM-DD) that a template which asks for today's date gets,
    None for today's.
    """

    arguments: Mapping[str, Any] = field(default_factory=dict)
    system: str | None = None
    date: str | None = None

    @classmethod
    def of(cls, settings: Any) -> "TemplateSettings":
        """Return what settings with `template_arg`, `system` and `template_date` say."""
        return cls(settings.template_arg or {}, settings.system, settings.template_date)

    def turns(self, turns: Sequence[Turn]) -> Sequence[Turn]:
        """Return a dialogue with the system message, unless it has its own."""
        if self.system is None or (turns and turns[0].role == "system"):
            return turns
        return (Turn("system", self.system), *turns)


class PromptFormat(Protocol):
    """Turns a prompt, and a reply to it, into token ids; `end` says where replies end and what is said in them."""

    name: str
    tokenizer: Any
    ids: "Ids"
    end: ReplyEnd
    settings: "TemplateSettings"
    """The user's, with the day that prompts name; its `date` is None where the template asks for none."""

    def prompt_ids(self, turns: Sequence[Turn]) -> list[int]:
        """Return the ids that generation starts from, BOS included where there is one."""
        ...

    def reply_ids(self, turns: Sequence[Turn], reply: str, cut: bool = False) -> list[int]:
        """Return the ids that generation would have to produce to give `reply`, its end last unless it was `cut`."""
        ...


def prompt_format(
    tokenizer: Any,
    name: str = "auto",
    eos_token_id: int | Sequence[int] | None = None,
    template: TemplateSettings | None = None,
) -> PromptFormat:
    """Make the format: "plain" (### Question / ### Answer), "chat" (the tokenizer's template) or "auto".

    "auto" is "chat" where the tokenizer has a template. `eos_token_id` comes from the model's generation config or
    config and counts beside the tokenizer's own EOS. Raises ConfigError for a template that cannot be used.
    """
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if name == "auto":
        name = "chat" if has_template else "plain"
    if name == "plain":
        return PlainFormat(tokenizer, eos_token_id, template)
    if name != "chat":
        raise ConfigError(
            f"--prompt-format {name}: unknown{nearest(name, PROMPT_FORMATS)} (known: {', '.join(PROMPT_FORMATS)})"
        )
    if isinstance(tokenizer.chat_template, dict) and "default" not in tokenizer.chat_template:
        named = ", ".join(sorted(tokenizer.chat_template))
        raise ConfigError(
            f"the tokenizer has chat templates for other uses ({inert_line(named, 100)}) and none that is the default; "
            "save one of them as chat_template.jinja beside the tokenizer, or use --prompt-format plain"
        )
    if not has_template:
        raise ConfigError("--prompt-format chat: the tokenizer has no chat template; use plain")
    return ChatFormat(tokenizer, eos_token_id, template)


class Ids:
    """Tokenisation of text, with whichever special tokens the tokenizer has.

    `eos_id` is put after a reply: the tokenizer's EOS, else the first one that the model names, else the separator,
    else the pad token; None where there is none of them, and replies then end with their last token. `eos_ids` are all
    ids that end a reply. `rows` is how many tokens the model knows, None where that cannot be told. `start` begins
    every prompt: BOS where the tokenizer adds one or has one that is neither its EOS nor the mark of a turn, else
    nothing. `text_start` begins running text, which needs a token to be predicted from: BOS, or the token that
    separates texts.
    """

    def __init__(self, tokenizer: Any, eos_token_id: int | Sequence[int] | None) -> None:
        own = tokenizer.eos_token_id
        named = end_token_ids(tokenizer, eos_token_id)
        last = next((i for i in (tokenizer.sep_token_id, tokenizer.pad_token_id) if i is not None), None)
        self.tokenizer = tokenizer
        self.eos_id: int | None = next((i for i in (own, *named, last) if i is not None), None)
        self.eos_ids = frozenset(i for i in (self.eos_id, *named) if i is not None)
        self.rows: int | None = getattr(tokenizer, "embedding_rows", None)
        bos = tokenizer.bos_token_id
        adds_bos = bos is not None and tokenizer("a", verbose=False)["input_ids"][:1] == [bos]
        begins = bos is not None and (adds_bos or (bos != own and not _marks_turns(tokenizer)))
        self.start: list[int] = [bos] if begins else []
        self.space = _reply_space(self.of)
        separator = tokenizer.get_vocab().get("<|endoftext|>")
        self.text_start = self.start or [i for i in (separator, bos, self.eos_id) if i is not None][:1]

    @property
    def pad_id(self) -> int:
        """The pad token, EOS where the tokenizer has none that the model knows, else 0."""
        return pad_within(self.tokenizer, self.rows, self.eos_id)

    def of(self, text: str) -> list[int]:
        """Return the ids of a piece of text, nothing added. Raises ConfigError for a token that the model lacks."""
        ids = list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
        if self.rows is not None and ids and max(ids) >= self.rows:
            raise ConfigError(outside(self.tokenizer.convert_ids_to_tokens(max(ids)), max(ids), self.rows))
        return ids

    def after(self, before: str, text: str) -> list[int] | None:
        """Return the ids that go on from the ids of `before` to give `text`; None where there are no such ids.

        They are those of the joint text. Where a token of the joint text spans the place between the two, as one of
        two line breaks does, they are those of `text` alone, if both together read as the joint text.
        """
        start, whole = self.of(before), self.of(before + text)
        if whole[: len(start)] == start:
            return whole[len(start) :]
        alone = self.of(text)
        return alone if self._read(start + alone) == self._read(whole) else None

    def _read(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def text_prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Return the ids of a prompt of running text, or of an empty prompt, with what a text begins with."""
        return [*self.text_start, *(self.of(turns[0].content) if turns else ())]

    def text_reply(self, turns: Sequence[Turn], reply: str, cut: bool = False) -> list[int]:
        """Return the ids of a reply that continues running text: a whole text ends in EOS, a passage does not."""
        if not turns:
            return self.end(self.of(reply), cut)
        if not turns[0].content:
            return self.of(reply)
        if reply.startswith(" ") and not self.space:
            return self.of(reply[1:])  # the tokenizer puts this space back
        return self.of(reply if reply[:1].isspace() else self.space + reply)

    def end(self, ids: list[int], cut: bool = False, ends: Collection[int] = ()) -> list[int]:
        """Cut reply ids after their first end, one of `ends` or EOS; or add EOS unless the reply was `cut`."""
        for position, token in enumerate(ids):
            if token in self.eos_ids or token in ends:
                return ids[: position + 1]
        return ids if self.eos_id is None or cut else [*ids, self.eos_id]


def is_running_text(turns: Sequence[Turn]) -> bool:
    """Tell whether a prompt is running text, or empty: no question and no chat."""
    return not turns or turns[0].role == TEXT


class _Format:
    """What all formats share: running text is no question and no chat, and is put to the model as it is."""

    def __init__(
        self,
        tokenizer: Any,
        eos_token_id: int | Sequence[int] | None = None,
        template: TemplateSettings | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.ids = Ids(tokenizer, eos_token_id)
        self.settings = template or TemplateSettings()
        self.end = self._settle()

    def _settle(self) -> ReplyEnd:
        """Check and complete the settings, and return how replies end."""
        raise NotImplementedError

    def prompt_ids(self, turns: Sequence[Turn]) -> list[int]:
        """Return the prompt's ids, BOS included where there is one, ending where the reply begins."""
        return self.ids.text_prompt(turns) if is_running_text(turns) else self._prompt(self.settings.turns(turns))

    def reply_ids(self, turns: Sequence[Turn], reply: str, cut: bool = False) -> list[int]:
        """Return what generation adds to the prompt for `reply`, up to and with the end unless it was cut."""
        if is_running_text(turns):
            return self.ids.text_reply(turns, reply, cut)
        return self._reply(self.settings.turns(turns), reply, cut)

    def _prompt(self, turns: Sequence[Turn]) -> list[int]:
        raise NotImplementedError

    def _reply(self, turns: Sequence[Turn], reply: str, cut: bool) -> list[int]:
        raise NotImplementedError


class PlainFormat(_Format):
    """`### Question: {q}\\n### Answer:`, then ` {a}` and EOS; dialogues repeat the pair, a system turn comes first.

    A longer dialogue begins with exactly the ids of the shorter one and its reply. A text without a prompt stands alone
    after BOS (after EOS where there is no BOS).
    Source: arXiv 2310.10683, section 4. Differs: no blank before the second mark.
    """

    name = "plain"

    def _settle(self) -> ReplyEnd:
        if self.settings.arguments or self.settings.date:
            raise ConfigError("--template-arg and --template-date are for chat templates; leave them out, or use chat")
        return ReplyEnd(self.ids.eos_ids, thought=thought_marks(self.tokenizer))

    def _prompt(self, turns: Sequence[Turn]) -> list[int]:
        ids, text = list(self.ids.start), ""
        for turn in turns:
            if turn.role == "assistant":
                ids += self.ids.of(text + "### Answer:") + self._reply((), turn.content)
                text = ""
            elif turn.role == "system":
                text += f"{turn.content}\n"
            else:
                text += f"### Question: {turn.content}\n"
        return ids + self.ids.of(text + "### Answer:")

    def _reply(self, turns: Sequence[Turn], reply: str, cut: bool = False) -> list[int]:
        """Return the reply's ids; the space before it belongs to it."""
        return self.ids.end(self.ids.of(self.ids.space + reply), cut)


def _marks_turns(tokenizer: Any) -> bool:
    """Tell whether the tokenizer's BOS begins every turn of a chat, and so says nothing about the start of a text."""
    template = getattr(tokenizer, "chat_template", None)
    return bool(template) and ChatTemplate(tokenizer).count_in_dialogue(tokenizer.bos_token) > 1


def _reply_space(ids_of: Callable[[str], list[int]]) -> str:
    """Return what goes before a reply: a space, or nothing where the tokenizer itself adds one to a text.

    A tokenizer adds one if the first word of a text has the same ids as that word after a space.
    """
    return "" if ids_of("yes yes") == ids_of("yes") * 2 else " "


class ChatFormat(_Format):
    """The tokenizer's own chat template: prompts as it renders them, replies with the end that it writes after them.

    The ids of a reply go on from those of its prompt, so prompt and reply together are what generation would have
    produced; a thought that the template invents is no part of it. Text without a prompt is no chat and is tokenised
    as in `PlainFormat`. Raises ConfigError where the template loses a reply or refuses a dialogue.
    """

    name = "chat"

    def _settle(self) -> ReplyEnd:
        given = self.settings
        day = given.date or datetime.date.today().isoformat()
        self._template = ChatTemplate(self.tokenizer, given.arguments, day)
        if given.date and not self._template.asks_date:
            raise ConfigError(f"--template-date {given.date}: the model's chat template asks for no date; leave it out")
        self.settings = replace(given, date=day if self._template.asks_date else None)
        if given.system and given.system.strip() not in self._template.prompt(given.turns((Turn("user", "?"),))):
            raise ConfigError("--system: the model's chat template does not show a system message; leave it out")
        return self._template.reply_end(self.ids.eos_ids)

    def _prompt(self, turns: Sequence[Turn]) -> list[int]:
        return self.ids.of(self._template.prompt(turns))

    def _reply(self, turns: Sequence[Turn], reply: str, cut: bool) -> list[int]:
        before, opening, end = self._template.around_reply(turns)
        if any(mark in reply for mark in self.end.thought or ()) or (cut and self.end.in_thought):
            opening = ""  # the reply brings its thought
        ids = self.ids.after(before, opening + reply + ("" if cut else end))
        if ids is None:
            raise ConfigError(
                "the tokenizer gives other tokens for a prompt alone than for the prompt with its reply, so the reply "
                "cannot be told apart; use --prompt-format plain"
            )
        if self.end.text and not cut:
            return ids
        return self.ids.end(ids, cut, self.end.tokens)
