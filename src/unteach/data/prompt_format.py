"""Prompt formats: the one tokenisation that training, scoring and generation share.

The ids of a prompt are those that generation starts from; the ids of a reply are those that generation would have to
produce, EOS last.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jinja2

from unteach.errors import ConfigError, nearest
from unteach.models.vocabulary import outside, pad_within
from unteach.prompts.turn import TEXT, Turn
from unteach.text.escape import inert_line

PROMPT_FORMATS = ("auto", "plain", "chat")


class PromptFormat(Protocol):
    """Turns a prompt, and a reply to it, into token ids."""

    name: str
    tokenizer: Any
    ids: "Ids"

    def prompt_ids(self, turns: Sequence[Turn]) -> list[int]:
        """Return the ids that generation starts from, BOS included where there is one."""
        ...

    def reply_ids(self, turns: Sequence[Turn], reply: str) -> list[int]:
        """Return the ids that generation would have to produce to give `reply`, EOS last."""
        ...


def prompt_format(
    tokenizer: Any,
    name: str = "auto",
    eos_token_id: int | Sequence[int] | None = None,
) -> PromptFormat:
    """Make the format: "plain" (### Question / ### Answer), "chat" (the tokenizer's template) or "auto".

    "auto" is "chat" where the tokenizer has a template. `eos_token_id` comes from the model's generation config or
    config and counts beside the tokenizer's own EOS.
    """
    has_template = bool(getattr(tokenizer, "chat_template", None))
    if name == "auto":
        name = "chat" if has_template else "plain"
    if name == "plain":
        return PlainFormat(tokenizer, eos_token_id)
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
    return ChatFormat(tokenizer, eos_token_id)


class Ids:
    """Tokenisation of text, with whichever special tokens the tokenizer has.

    `eos_id` is put after a reply: the tokenizer's EOS, else the first one that the model names, else the separator,
    else the pad token; None where there is none of them, and replies then end with their last token. `eos_ids` are all
    ids that end a reply. `rows` is how many tokens the model knows, None where that cannot be told. `start` begins
    every prompt: BOS where the tokenizer adds one or has one that is not its EOS, else nothing. `text_start` begins
    running text, which needs a token to be predicted from: BOS, or EOS as in models that separate texts by it.
    """

    def __init__(self, tokenizer: Any, eos_token_id: int | Sequence[int] | None) -> None:
        named = [eos_token_id] if isinstance(eos_token_id, int) else list(eos_token_id or ())
        own = tokenizer.eos_token_id
        last = next((i for i in (tokenizer.sep_token_id, tokenizer.pad_token_id) if i is not None), None)
        self.tokenizer = tokenizer
        self.eos_id: int | None = next((i for i in (own, *named, last) if i is not None), None)
        self.eos_ids = frozenset(i for i in (self.eos_id, *named) if i is not None)
        self.rows: int | None = getattr(tokenizer, "embedding_rows", None)
        bos = tokenizer.bos_token_id
        adds_bos = bos is not None and tokenizer("a", verbose=False)["input_ids"][:1] == [bos]
        self.start: list[int] = [bos] if bos is not None and (adds_bos or bos != own) else []
        self.space = _reply_space(self.of)
        self.text_start = self.start or [i for i in (bos, self.eos_id) if i is not None][:1]

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

    def text_prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Return the ids of a prompt of running text, or of an empty prompt, with what a text begins with."""
        return [*self.text_start, *(self.of(turns[0].content) if turns else ())]

    def text_reply(self, turns: Sequence[Turn], reply: str) -> list[int]:
        """Return the ids of a reply that continues running text: a whole text ends in EOS, a passage does not."""
        if not turns:
            return self.end(self.of(reply))
        if not turns[0].content:
            return self.of(reply)
        if reply.startswith(" ") and not self.space:
            return self.of(reply[1:])  # the tokenizer puts this space back
        return self.of(reply if reply[:1].isspace() else self.space + reply)

    def end(self, ids: list[int]) -> list[int]:
        """Cut reply ids after their first EOS, or add one."""
        for position, token in enumerate(ids):
            if token in self.eos_ids:
                return ids[: position + 1]
        return ids if self.eos_id is None else [*ids, self.eos_id]


def is_running_text(turns: Sequence[Turn]) -> bool:
    """Tell whether a prompt is running text, or empty: no question and no chat."""
    return not turns or turns[0].role == TEXT


class PlainFormat:
    """`### Question: {q}\\n### Answer:`, then ` {a}` and EOS; dialogues repeat the pair, a system turn comes first.

    A longer dialogue begins with exactly the ids of the shorter one and its reply. A text without a prompt stands alone
    after BOS (after EOS where there is no BOS).
    Source: arXiv 2310.10683, section 4. Differs: no blank before the second mark.
    """

    name = "plain"

    def __init__(self, tokenizer: Any, eos_token_id: int | Sequence[int] | None = None) -> None:
        self.tokenizer = tokenizer
        self.ids = Ids(tokenizer, eos_token_id)

    def prompt_ids(self, turns: Sequence[Turn]) -> list[int]:
        """Return the prompt's ids, ending in "### Answer:" unless it is running text."""
        if is_running_text(turns):
            return self.ids.text_prompt(turns)
        ids, text = list(self.ids.start), ""
        for turn in turns:
            if turn.role == "assistant":
                ids += self.ids.of(text + "### Answer:") + self._reply(turn.content)
                text = ""
            elif turn.role == "system":
                text += f"{turn.content}\n"
            else:
                text += f"### Question: {turn.content}\n"
        return ids + self.ids.of(text + "### Answer:")

    def reply_ids(self, turns: Sequence[Turn], reply: str) -> list[int]:
        """Return the reply's ids with EOS; the space before it belongs to it."""
        return self.ids.text_reply(turns, reply) if is_running_text(turns) else self._reply(reply)

    def _reply(self, reply: str) -> list[int]:
        return self.ids.end(self.ids.of(self.ids.space + reply))


def _reply_space(ids_of: Callable[[str], list[int]]) -> str:
    """Return what goes before a reply: a space, or nothing where the tokenizer itself adds one to a text.

    A tokenizer adds one if the first word of a text has the same ids as that word after a space.
    """
    return "" if ids_of("yes yes") == ids_of("yes") * 2 else " "


class ChatFormat:
    """The tokenizer's own chat template; the reply is what it adds for an assistant turn, up to EOS.

    Raises ConfigError where the template refuses a dialogue, or where the ids of a prompt with its reply do not begin
    with the ids of the prompt. Text without a prompt is no chat and is tokenised as in `PlainFormat`.
    """

    name = "chat"

    def __init__(self, tokenizer: Any, eos_token_id: int | Sequence[int] | None = None) -> None:
        self.tokenizer = tokenizer
        self.ids = Ids(tokenizer, eos_token_id)

    def prompt_ids(self, turns: Sequence[Turn]) -> list[int]:
        """Return the prompt's ids, ending where the assistant's turn begins."""
        if is_running_text(turns):
            return self.ids.text_prompt(turns)
        return self._ids(turns, generation=True)

    def reply_ids(self, turns: Sequence[Turn], reply: str) -> list[int]:
        """Return what the template adds to the prompt for `reply`, up to and with EOS."""
        if is_running_text(turns):
            return self.ids.text_reply(turns, reply)
        prompt = self._ids(turns, generation=True)
        whole = self._ids([*turns, Turn("assistant", reply)], generation=False)
        if whole[: len(prompt)] != prompt:
            raise ConfigError(
                "the chat template gives other tokens for a prompt alone than for the prompt with its reply, "
                "so the reply cannot be told apart; use --prompt-format plain"
            )
        return self.ids.end(whole[len(prompt) :])

    def _ids(self, turns: Sequence[Turn], generation: bool) -> list[int]:
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generation, return_dict=False
            )
        except jinja2.TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            reason = " ".join(str(error).split())
            raise ConfigError(
                f"the chat template refuses a dialogue with the roles {roles} ({reason}); change the rows, "
                "or use --prompt-format plain"
            ) from None
        return self.ids.of(text)
