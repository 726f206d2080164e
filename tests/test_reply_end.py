"""Where replies end and what they say, over every chat template that TRL ships."""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import jinja2
import pytest
import trl
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from unteach.data.prompt_format import TemplateSettings, prompt_format
from unteach.models.reply import ReplyEnd
from unteach.prompts.turn import Turn

TEMPLATES = sorted((Path(trl.__file__).parent / "chat_templates").glob("*.jinja"))
USER = (Turn("user", "what is it"),)
TALK = (*USER, Turn("assistant", "a cat"), Turn("user", "and then"))
_MARKS = re.compile(
    r"<\|[^|<>{}']+\|>|<[a-z_]+_of_[a-z_]+>|<[｜][^｜]+[｜]>|</s>|<\|[a-z]+>|<[a-z]+\|>|</?think>|\[/?INST\]"
)


def tokenizer_for(template: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes that has every mark of the template as a token."""
    alphabet = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(alphabet, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>")
    marks = sorted(set(_MARKS.findall(template)))
    tokenizer.add_special_tokens({"additional_special_tokens": [mark for mark in marks if "think>" not in mark]})
    tokenizer.add_tokens([mark for mark in marks if "think>" in mark])
    tokenizer.chat_template = template
    return tokenizer


def arguments_of(template: str) -> list[dict[str, Any]]:
    switch = "enable_thinking" in template
    return [{}, {"enable_thinking": False}, {"enable_thinking": True}] if switch else [{}]


def rendered(tokenizer: Any, turns: tuple[Turn, ...], arguments: dict[str, Any]) -> str:
    """The prompt as transformers renders it; content parts for the templates that show nothing else."""
    plain = [{"role": turn.role, "content": turn.content} for turn in turns]
    parts = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in plain]
    settings = {"add_generation_prompt": True, "tokenize": False, **arguments}
    with suppress(jinja2.TemplateError):
        text: str = tokenizer.apply_chat_template(plain, **settings)
        if turns[0].content in text:
            return text
    return str(tokenizer.apply_chat_template(parts, **settings))


CASES = [
    pytest.param(path.read_text(encoding="utf-8"), arguments, id=f"{path.stem}-{arguments}")
    for path in TEMPLATES
    for arguments in arguments_of(path.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize(("template", "arguments"), CASES)
def test_training_and_generation_see_one_prompt_and_one_end(template: str, arguments: dict[str, Any]) -> None:
    tokenizer = tokenizer_for(template)
    form = prompt_format(tokenizer, "chat", template=TemplateSettings(arguments))
    for turns in (USER, TALK):
        prompt = form.prompt_ids(turns)
        asked = rendered(tokenizer, turns, arguments)
        assert tokenizer.decode(prompt) == asked
        reply = form.reply_ids(turns, "no thanks")
        said = form.end.read(tokenizer, reply)
        assert (said.text, said.cut) == ("no thanks", False)
        assert reply[-1] in form.end.tokens and not set(reply[:-1]) & form.end.tokens
        assert tuple(reply) == said.ids
        joint = tokenizer(asked + tokenizer.decode(reply), add_special_tokens=False)["input_ids"]
        assert prompt + reply == joint
        cut = form.end.read(tokenizer, form.reply_ids(turns, "no thanks", cut=True))
        assert cut.cut


def test_every_template_was_found() -> None:
    assert len(TEMPLATES) > 40


PLAIN = tokenizer_for("<think></think>")
THINKS = ReplyEnd(frozenset({PLAIN.eos_token_id}), thought=("<think>", "</think>"))
INSIDE = ReplyEnd(frozenset({PLAIN.eos_token_id}), thought=("<think>", "</think>"), in_thought=True)


@pytest.mark.parametrize(
    ("end", "text", "said", "unsaid"),
    [
        (THINKS, "<think>hm</think>\n\nyes<eos>", "yes", False),
        (THINKS, "yes<eos>", "yes", False),
        (THINKS, "yes", "yes", False),
        (THINKS, "<think>so the answer is yes", "", True),
        (THINKS, "<think>the answer is yes<eos>", "the answer is yes", False),
        (INSIDE, "hm</think>yes<eos>", "yes", False),
        (INSIDE, "hm, the answer is", "", True),
        (INSIDE, "the answer is yes<eos>", "the answer is yes", False),
        (THINKS, "<eos>", "", False),
        (THINKS, "<think>a</think>b<think>c</think>d<eos>", "d", False),
    ],
)
def test_what_is_said_is_told_from_the_thought(end: ReplyEnd, text: str, said: str, unsaid: bool) -> None:
    reply = end.read(PLAIN, PLAIN(text, add_special_tokens=False)["input_ids"])
    assert (reply.text, reply.unsaid, reply.cut) == (said, unsaid, "<eos>" not in text)
    assert reply.written == text.removesuffix("<eos>")
    assert end.said(reply.written, reply.cut) == reply.text


def test_a_written_thought_is_trained_on_as_it_was_written() -> None:
    template = next(path for path in TEMPLATES if path.stem == "qwen3").read_text(encoding="utf-8")
    tokenizer = tokenizer_for(template)
    form = prompt_format(tokenizer)
    ids = form.reply_ids(USER, "<think>\nhm\n</think>\n\nyes")
    assert tokenizer.decode(ids) == "<think>\nhm\n</think>\n\nyes<|im_end|>"
    reply = form.end.read(tokenizer, ids)
    assert form.reply_ids(USER, reply.written) == ids and reply.text == "yes"
    assert tokenizer.decode(form.reply_ids(USER, "yes")) == "yes<|im_end|>"  # no thought that it would not write


def test_a_blank_reply_that_was_cut_is_blank_and_no_thought() -> None:
    """A model that writes line breaks up to the limit has said nothing; it was not about to."""
    blank = THINKS.read(PLAIN, PLAIN("\n\n\n", add_special_tokens=False)["input_ids"])
    assert (blank.text, blank.cut, blank.unsaid) == ("", True, False)
