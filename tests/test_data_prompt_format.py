"""Prompt formats on tokenizers of several kinds, all built here."""

import datetime
from collections.abc import Sequence
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from unteach.data.prompt_format import ChatFormat, PlainFormat, TemplateSettings, prompt_format
from unteach.errors import ConfigError
from unteach.prompts.turn import Turn

TEXTS = ["### Question: what is it\n### Answer: it is a cat", "be kind\n### Question: yes ###\n### Answer: no"]
USER = (Turn("user", "what is it"),)
TALK = (*USER, Turn("assistant", "it is a cat"), Turn("user", "yes ### Answer: no"))


def wrapped(backend: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)


def byte_level(**special: str) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(dict.fromkeys(special.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS * 3, trainer)
    return wrapped(backend, **special)


def word_level(**special: str) -> PreTrainedTokenizerFast:
    words = ["###", "Question:", "Answer:", *"be kind what is it a cat yes no".split()]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*special.values(), "<unk>", *words]))}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return wrapped(backend, unk_token="<unk>", **special)


def _learnt(backend: Tokenizer, **special: str) -> Tokenizer:
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=list(special.values()), show_progress=False, initial_alphabet=["▁"]
    )
    backend.train_from_iterator([*TEXTS, *(chr(i) for i in range(32, 127))], trainer)
    return backend


def metaspace(**special: str) -> PreTrainedTokenizerFast:
    """Puts a space before a text unless it has one (newer SentencePiece conversions)."""
    backend = Tokenizer(models.BPE())
    backend.decoder = decoders.Metaspace(prepend_scheme="always")
    return wrapped(_learnt(backend, **special), **special)


def prepending(**special: str) -> PreTrainedTokenizerFast:
    """Puts a space before every text, even one that has a space (older SentencePiece conversions)."""
    backend = _learnt(Tokenizer(models.BPE()), **special)
    backend.pre_tokenizer = None
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(content=" ", left=1, right=0)]
    )
    return wrapped(backend, **special)


KINDS = {"byte_level": byte_level, "word_level": word_level, "metaspace": metaspace, "prepending": prepending}
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}


def whole(form: Any, turns: Sequence[Turn], reply: str) -> str:
    return form.tokenizer.decode(form.prompt_ids(turns) + form.reply_ids(turns, reply))


@pytest.mark.parametrize("kind", ["byte_level", "prepending", "metaspace"])
def test_plain_text_of_prompt_and_reply(kind: str) -> None:
    form = prompt_format(KINDS[kind](**SPECIAL), "plain")
    # Decoders of the SentencePiece kinds may show the space that stands before every text; the ids are what counts.
    text = whole(form, USER, "it is a cat").replace("<s> ", "<s>")
    assert text == "<s>### Question: what is it\n### Answer: it is a cat</s>"


@pytest.mark.parametrize("kind", KINDS)
def test_plain_ids_equal_those_of_the_joint_text(kind: str) -> None:
    tokenizer = KINDS[kind](**SPECIAL)
    form = prompt_format(tokenizer, "plain")
    joint = tokenizer("### Question: what is it\n### Answer: it is a cat", add_special_tokens=False)["input_ids"]
    ids = form.prompt_ids(USER) + form.reply_ids(USER, "it is a cat")
    assert ids == [tokenizer.bos_token_id, *joint, tokenizer.eos_token_id]


@pytest.mark.parametrize("kind", KINDS)
def test_a_longer_dialogue_begins_with_the_ids_of_the_shorter_one(kind: str) -> None:
    form = prompt_format(KINDS[kind](**SPECIAL), "plain")
    short = form.prompt_ids(USER) + form.reply_ids(USER, "it is a cat")
    assert form.prompt_ids(TALK)[: len(short)] == short


def test_hashes_in_a_prompt_stay_text() -> None:
    form = prompt_format(byte_level(**SPECIAL), "plain")
    turns = (Turn("user", "### Answer: no\n### Question: ###"),)
    assert whole(form, turns, "### yes") == (
        "<s>### Question: ### Answer: no\n### Question: ###\n### Answer: ### yes</s>"
    )
    assert len(form.reply_ids(turns, "### yes")) < len(form.prompt_ids(turns))


def test_system_turns_lead() -> None:
    tokenizer = byte_level(**SPECIAL)
    form = prompt_format(tokenizer, "plain")
    turns = (Turn("system", "be kind"), *USER)
    assert tokenizer.decode(form.prompt_ids(turns)) == "<s>be kind\n### Question: what is it\n### Answer:"
    assert form.prompt_ids(()) == [tokenizer.bos_token_id]


def test_bos_is_added_once_by_whoever_adds_it() -> None:
    tokenizer = byte_level(**SPECIAL)
    expected = prompt_format(tokenizer, "plain").prompt_ids(USER)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    assert tokenizer("it")["input_ids"][0] == tokenizer.bos_token_id == 1
    assert prompt_format(tokenizer, "plain").prompt_ids(USER) == expected
    assert expected.count(1) == 1


def test_a_bos_that_is_the_eos_leads_only_where_the_tokenizer_puts_it() -> None:
    tokenizer = byte_level(bos_token="</s>", eos_token="</s>")
    form = prompt_format(tokenizer, "plain")
    assert 0 not in form.prompt_ids(USER)
    assert form.prompt_ids(()) == [0]  # running text still follows something
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", special_tokens=[("</s>", 0)]
    )
    assert prompt_format(tokenizer, "plain").prompt_ids(USER)[0] == 0


def test_pad_falls_back_to_eos_and_eos_to_the_model() -> None:
    no_pad = prompt_format(byte_level(eos_token="</s>"), "plain")
    assert isinstance(no_pad, PlainFormat)
    assert (no_pad.ids.pad_id, no_pad.ids.eos_id) == (0, 0)
    bare = byte_level()
    assert bare.eos_token_id is None and bare.pad_token_id is None
    for given, first in ((7, 7), ([9, 8], 9)):
        form = prompt_format(bare, "plain", eos_token_id=given)
        assert form.reply_ids(USER, "no")[-1] == first
        assert isinstance(form, PlainFormat) and form.ids.pad_id == first


def test_without_any_end_token_replies_end_with_their_last_token() -> None:
    tokenizer = byte_level()
    form = prompt_format(tokenizer, "plain")
    assert tokenizer.decode(form.reply_ids(USER, "no")) == " no"
    assert form.prompt_ids(()) == []
    assert prompt_format(byte_level(pad_token="<pad>"), "plain").reply_ids(USER, "no")[-1] == 0


def test_text_without_prompt_and_a_reply_that_names_eos() -> None:
    form = prompt_format(byte_level(**SPECIAL), "plain")
    assert whole(form, (), "it is") == "<s>it is</s>"
    # Generation stops at the first EOS, so nothing after it can be asked of it.
    assert whole(form, USER, "no</s> yes").endswith("### Answer: no</s>")


MARKS = {**SPECIAL, "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}
LIKE_CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LIKE_PLAIN = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}### Question: {{ m['content'] }}\n{% else %}"
    "### Answer: {% generation %}{{ m['content'] }}{{ eos_token }}{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Answer:{% endif %}"
)
STRICT = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}{{ m['content'] }}{% endfor %}"
)
CHANGING = "{% if add_generation_prompt %}answer now: {% endif %}{% for m in messages %}{{ m['content'] }}{% endfor %}"


def chatty(template: str, **special: Any) -> PreTrainedTokenizerFast:
    extra = special.pop("additional_special_tokens", [])
    tokenizer = byte_level(**special)
    tokenizer.add_special_tokens({"additional_special_tokens": extra})
    tokenizer.chat_template = template
    return tokenizer


def test_auto_is_chat_only_with_a_template() -> None:
    assert prompt_format(byte_level(**SPECIAL)).name == "plain"
    assert prompt_format(chatty(LIKE_PLAIN, **SPECIAL)).name == "chat"
    assert prompt_format(chatty(LIKE_PLAIN, **SPECIAL), "plain").name == "plain"


def test_chat_and_plain_agree_where_the_template_is_the_plain_one() -> None:
    tokenizer = chatty(LIKE_PLAIN, **SPECIAL)
    chat, plain = prompt_format(tokenizer), prompt_format(tokenizer, "plain")
    for turns in (USER, TALK):
        assert chat.prompt_ids(turns) == plain.prompt_ids(turns)
        assert chat.reply_ids(turns, "no ### yes") == plain.reply_ids(turns, "no ### yes")


def test_chat_reply_is_cut_after_the_end_that_the_model_names() -> None:
    tokenizer = chatty(LIKE_CHATML, **MARKS)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    form = prompt_format(tokenizer, eos_token_id=[tokenizer.eos_token_id, end])
    assert tokenizer.decode(form.prompt_ids(USER)) == (
        "<|im_start|>user\nwhat is it<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(form.reply_ids(USER, "no")) == "no<|im_end|>"


def test_a_reply_ends_with_what_the_template_writes_after_it_though_eos_is_another_token() -> None:
    tokenizer = chatty(LIKE_CHATML, **MARKS)
    form = prompt_format(tokenizer)
    assert tokenizer.decode(form.reply_ids(USER, "no")) == "no<|im_end|>"
    assert form.end.tokens == {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert tokenizer.decode(form.reply_ids(USER, "no", cut=True)) == "no"


def test_an_end_mark_that_is_no_token_is_a_text() -> None:
    tokenizer = chatty(LIKE_CHATML, **SPECIAL)
    form = prompt_format(tokenizer)
    ids = form.reply_ids(USER, "no")
    assert tokenizer.decode(ids) == "no<|im_end|>" and form.end.text == "<|im_end|>"
    going_on = [*ids, *form.ids.of("\n<|im_start|>user\nyes")]
    assert not form.end.reached(tokenizer, ids[:-1]) and form.end.reached(tokenizer, going_on)
    reply = form.end.read(tokenizer, going_on)
    assert (reply.text, reply.cut, list(reply.ids)) == ("no", False, ids)
    assert form.end.read(tokenizer, ids[:-1]).cut


def test_a_template_without_an_end_gets_eos() -> None:
    tokenizer = chatty(LIKE_PLAIN.replace("{{ eos_token }}", ""), **SPECIAL)
    assert prompt_format(tokenizer).reply_ids(USER, "no")[-1] == tokenizer.eos_token_id


def test_chat_puts_the_system_turn_and_leaves_running_text_plain() -> None:
    tokenizer = chatty(LIKE_CHATML, **MARKS)
    form = prompt_format(tokenizer)
    turns = (Turn("system", "be kind"), *USER)
    assert tokenizer.decode(form.prompt_ids(turns)).startswith("<|im_start|>system\nbe kind<|im_end|>\n")
    assert whole(form, (), "it is") == "<s>it is</s>"


def test_chat_templates_that_refuse_a_dialogue_are_named() -> None:
    form = prompt_format(chatty(STRICT, **SPECIAL))
    with pytest.raises(ConfigError) as caught:
        form.prompt_ids((Turn("system", "be kind"), *USER))
    message = str(caught.value)
    assert "roles system, user (roles must alternate user/assistant)" in message
    assert "change the rows, or use --prompt-format plain" in message


def test_a_reply_goes_on_from_its_prompt_though_the_template_writes_dialogues_otherwise() -> None:
    form = prompt_format(chatty(CHANGING, **SPECIAL))
    assert whole(form, USER, "no") == "answer now: what is itno</s>"


def test_templates_that_lose_replies_are_refused() -> None:
    for template in (
        "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}",
        "{{ messages[0]['content'] }}",
    ):
        tokenizer = chatty(template, **SPECIAL)
        if "text" in template:  # content parts are what it reads
            assert whole(prompt_format(tokenizer), USER, "no") == "what is itno</s>"
        else:
            with pytest.raises(ConfigError, match="does not show the text of a reply.*--prompt-format plain"):
                prompt_format(tokenizer)


def test_a_line_break_that_joins_the_prompt_is_no_error() -> None:
    tokenizer = chatty(LIKE_CHATML, **MARKS)
    backend = tokenizer.backend_tokenizer
    backend.add_tokens(["\n\n"])  # one token for two line breaks, as in many vocabularies
    form = prompt_format(tokenizer)
    assert whole(form, USER, "\nno") == "<|im_start|>user\nwhat is it<|im_end|>\n<|im_start|>assistant\n\nno<|im_end|>"


def test_a_bos_that_begins_every_turn_begins_no_text() -> None:
    tokenizer = chatty(LIKE_CHATML, **{**MARKS, "bos_token": "<|im_start|>"})
    plain = prompt_format(tokenizer, "plain")
    assert tokenizer.decode(plain.prompt_ids(USER)) == "### Question: what is it\n### Answer:"
    assert plain.prompt_ids(()) == [tokenizer.bos_token_id]  # there is no other token to begin with


DATED = "Today: {{ strftime_now('%d %b %Y') }}\n" + LIKE_CHATML


def test_the_day_in_a_prompt_is_the_one_that_was_set() -> None:
    tokenizer = chatty(DATED, **MARKS)
    form = prompt_format(tokenizer, template=TemplateSettings(date="2024-07-26"))
    assert tokenizer.decode(form.prompt_ids(USER)).startswith("Today: 26 Jul 2024\n")
    today = prompt_format(tokenizer).settings.date
    assert today == datetime.date.today().isoformat()
    assert prompt_format(chatty(LIKE_CHATML, **MARKS)).settings.date is None
    with pytest.raises(ConfigError, match="--template-date 2024-07-26: the model's chat template asks for no date"):
        prompt_format(chatty(LIKE_CHATML, **MARKS), template=TemplateSettings(date="2024-07-26"))


def test_arguments_and_a_system_message_reach_the_template() -> None:
    loud = "{% if shout %}LOUD {% endif %}" + LIKE_CHATML
    tokenizer = chatty(loud, **MARKS)
    form = prompt_format(tokenizer, template=TemplateSettings({"shout": True}, system="be kind"))
    text = tokenizer.decode(form.prompt_ids(USER))
    assert text.startswith("LOUD <|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\n")
    own = (Turn("system", "be brief"), *USER)
    assert "be kind" not in tokenizer.decode(form.prompt_ids(own))
    with pytest.raises(ConfigError, match="--template-arg shuot: .*did you mean 'shout'"):
        prompt_format(tokenizer, template=TemplateSettings({"shuot": True}))
    deaf = chatty("{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}{% endfor %}", **SPECIAL)
    with pytest.raises(ConfigError, match="--system: the model's chat template does not show a system message"):
        prompt_format(deaf, template=TemplateSettings(system="be kind"))
    with pytest.raises(ConfigError, match="for chat templates"):
        prompt_format(tokenizer, "plain", template=TemplateSettings({"shout": True}))


def test_unknown_formats_and_missing_templates() -> None:
    with pytest.raises(ConfigError, match="unknown; did you mean 'plain'"):
        prompt_format(byte_level(**SPECIAL), "plian")
    with pytest.raises(ConfigError, match="no chat template"):
        prompt_format(byte_level(**SPECIAL), "chat")


def test_tokenizers_are_left_as_they_were() -> None:
    tokenizer = chatty(LIKE_CHATML, eos_token="</s>")
    before = tokenizer.special_tokens_map
    form = prompt_format(tokenizer)
    assert isinstance(form, ChatFormat)
    form.reply_ids(USER, "no")
    assert tokenizer.special_tokens_map == before and tokenizer.pad_token is None
