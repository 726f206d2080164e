"""The reminder of guided generation: in every prompt, once, and in the model that is handed on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trl
from transformers import AutoTokenizer

from test_data_prompt_format import CHANGING, LIKE_CHATML, MARKS, SPECIAL, TALK, USER, byte_level, chatty, word_level
from unteach.data.prompt_format import PromptFormat, prompt_format
from unteach.errors import ConfigError, DataError
from unteach.mistakes.guide import carried_reminder, export_guidance, guided_format, read_guidance, without_guidance
from unteach.prompts.mistakes import shipped_wording
from unteach.prompts.turn import TEXT, Turn

REMINDER = shipped_wording().reminder
OWN = (Turn("system", "be kind"), *USER)
DIALOGUES = {"question": USER, "talk": TALK, "own system": OWN, "talk with own system": (OWN[0], *TALK)}

TURNS = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<u>{{ m['content'] }}{% elif m['role'] == "
    "'assistant' %}<a>{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
REFUSES = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TURNS
DROPS = TURNS
TAKES_FOR_ASSISTANT = TURNS.replace("elif m['role'] == 'assistant'", "else")
# As in some of Mistral's: the system text stands before the last message, and is gone once that is a reply.
LAST_ONLY = (
    "{% set own = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}{% for m in messages %}"
    "{% if m['role'] == 'user' %}<u>{% if loop.last and own %}{{ own }} {% endif %}{{ m['content'] }}"
    "{% elif m['role'] == 'assistant' %}<a>{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<a>{% endif %}"
)
HAS_DEFAULT = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nbe it<|im_end|>\n{% endif %}" + LIKE_CHATML
INDENTED = (
    "\n  {% set x = messages %}\n  {{- bos_token }}{% for m in x %}<{{ m['role'] }}> {{ m['content'] }}{% endfor %}"
)
BY_MACRO = (
    "{% macro all() %}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% endmacro %}{{ all() }}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
WITHOUT_SYSTEM = {"refuses": REFUSES, "drops": DROPS, "for assistant": TAKES_FOR_ASSISTANT, "last only": LAST_ONLY}
WITH_SYSTEM = {"chatml": LIKE_CHATML, "default": HAS_DEFAULT, "indented": INDENTED, "macro": BY_MACRO}
PARTS_ONLY = "{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}"

NASTY = [
    "Say \"no\", don't say 'yes'.",
    "back\\slash \\n \\u0041 at the end \\",
    "{{ messages }} {% raw %} {# note #} }} %} #}",
    "{#- unteach guidance ends -#}\n",
    "two\nlines\r\n\tand\x0b a \x7f",
    "{% generation %}",
    "Réponds 正確に, без обид 😀\u2028\u202e",
]


def text_of(form: PromptFormat, turns: Sequence[Turn]) -> str:
    return str(form.tokenizer.decode(form.prompt_ids(turns)))


def exported(directory: Path, tokenizer: Any, reminder: str) -> Any:
    tokenizer.save_pretrained(directory)
    export_guidance(directory, tokenizer, reminder)
    return AutoTokenizer.from_pretrained(directory)


def rendered(tokenizer: Any, messages: list[dict[str, Any]], **settings: Any) -> str:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, **settings)
    assert isinstance(text, str)
    return text


def of(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


@pytest.mark.parametrize("turns", [USER, TALK])
def test_a_template_with_a_system_role_gets_a_system_message(turns: tuple[Turn, ...]) -> None:
    tokenizer = chatty(LIKE_CHATML, **MARKS)
    form = guided_format(tokenizer, REMINDER)
    assert form.name == "chat"
    assert form.prompt_ids(turns) == prompt_format(tokenizer).prompt_ids((Turn("system", REMINDER), *turns))
    assert REMINDER in text_of(form, turns)


def test_the_own_system_text_comes_after_the_reminder() -> None:
    assert text_of(guided_format(chatty(LIKE_CHATML, **MARKS), "Mind it."), OWN) == (
        "<|im_start|>system\nMind it.\n\nbe kind<|im_end|>\n<|im_start|>user\nwhat is it<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_default_system_text_of_a_template_stays() -> None:
    tokenizer = chatty(HAS_DEFAULT, **MARKS)
    start = "<|im_start|>system\nMind it.\n\n"
    assert text_of(guided_format(tokenizer, "Mind it."), USER).startswith(f"{start}be it<|im_end|>\n")
    assert text_of(guided_format(tokenizer, "Mind it."), OWN).startswith(f"{start}be kind<|im_end|>\n")
    dated = HAS_DEFAULT.replace("be it", "{{ strftime_now('%Y') }}")
    assert text_of(guided_format(chatty(dated, **MARKS), "Mind it."), USER).startswith(
        "<|im_start|>system\nMind it.<|im_end|>\n"
    )


@pytest.mark.parametrize("kind", WITHOUT_SYSTEM)
def test_a_template_without_a_system_role_gets_it_in_the_first_user_turn(kind: str) -> None:
    form = guided_format(chatty(WITHOUT_SYSTEM[kind], **SPECIAL), "Mind it.")
    bos = "" if kind == "last only" else "<s>"
    assert text_of(form, USER) == f"{bos}<u>Mind it.\n\nwhat is it<a>"
    assert text_of(form, TALK) == (f"{bos}<u>Mind it.\n\nwhat is it<a>it is a cat</s><u>yes ### Answer: no<a>")
    assert form.tokenizer.decode(form.reply_ids(USER, "no")) == "no</s>"


def test_an_own_system_turn_fares_as_without_the_reminder() -> None:
    assert text_of(guided_format(chatty(DROPS, **SPECIAL), "Mind it."), OWN) == "<s><u>Mind it.\n\nwhat is it<a>"
    with pytest.raises(ConfigError, match="roles system, user .no system role."):
        guided_format(chatty(REFUSES, **SPECIAL), "Mind it.").prompt_ids(OWN)


def test_the_plain_format_has_a_line_before_the_prompt() -> None:
    tokenizer = byte_level(**SPECIAL)
    form = guided_format(tokenizer, "Mind it.")
    assert form.name == "plain"
    assert text_of(form, USER) == "<s>Mind it.\n### Question: what is it\n### Answer:"
    assert text_of(form, OWN) == "<s>Mind it.\nbe kind\n### Question: what is it\n### Answer:"
    short = form.prompt_ids(USER) + form.reply_ids(USER, "it is a cat")
    assert form.prompt_ids(TALK)[: len(short)] == short
    assert text_of(guided_format(chatty(LIKE_CHATML, **MARKS), "Mind it.", "plain"), USER) == text_of(form, USER)


@pytest.mark.parametrize("template", [None, LIKE_CHATML])
@pytest.mark.parametrize("turns", [(), (Turn(TEXT, "it is"),)])
def test_running_text_gets_no_reminder(template: str | None, turns: tuple[Turn, ...]) -> None:
    tokenizer = chatty(template, **MARKS) if template else byte_level(**SPECIAL)
    form, bare = guided_format(tokenizer, REMINDER), prompt_format(tokenizer)
    assert form.prompt_ids(turns) == bare.prompt_ids(turns)
    assert form.reply_ids(turns, "a cat") == bare.reply_ids(turns, "a cat")


@pytest.mark.parametrize("kind", [*WITH_SYSTEM, *WITHOUT_SYSTEM])
@pytest.mark.parametrize("reminder", [REMINDER, *NASTY])
def test_a_loaded_export_renders_what_the_format_renders(kind: str, reminder: str, tmp_path: Path) -> None:
    tokenizer = chatty((WITH_SYSTEM | WITHOUT_SYSTEM)[kind], **MARKS)
    form = guided_format(tokenizer, reminder)
    loaded = exported(tmp_path, tokenizer, reminder)
    assert carried_reminder(loaded) == reminder == read_guidance(tmp_path)
    # Other programs search templates for tags such as {% generation %}: a reminder must never look like one.
    assert "{{ messages" not in loaded.chat_template and "note #}" not in loaded.chat_template
    for name, turns in DIALOGUES.items():
        if kind == "refuses" and "system" in name:
            continue
        ids = form.prompt_ids(turns)
        text = rendered(loaded, of(turns))
        assert text.count(reminder) == 1, name
        assert loaded(text, add_special_tokens=False)["input_ids"] == ids, name
        assert prompt_format(loaded).prompt_ids(turns) == ids, name


@pytest.mark.parametrize("kind", [*WITH_SYSTEM, *WITHOUT_SYSTEM])
def test_nothing_but_the_reminder_is_added(kind: str) -> None:
    tokenizer = chatty((WITH_SYSTEM | WITHOUT_SYSTEM)[kind], **MARKS)
    turns = DIALOGUES["talk with own system" if kind in WITH_SYSTEM else "talk"]
    text = text_of(guided_format(tokenizer, REMINDER), turns)
    assert text.replace(f"{REMINDER}\n\n", "") == text_of(prompt_format(tokenizer), turns) != text


def test_exporting_again_replaces_and_taking_away_restores(tmp_path: Path) -> None:
    tokenizer = chatty(INDENTED, **MARKS)
    first = exported(tmp_path, tokenizer, "One.").chat_template
    assert exported(tmp_path, tokenizer, "One.").chat_template == first
    loaded = exported(tmp_path, AutoTokenizer.from_pretrained(tmp_path), "Two.")
    assert rendered(loaded, of(OWN)) == "\n<s><system> Two.\n\nbe kind<user> what is it"
    assert (carried_reminder(loaded), read_guidance(tmp_path)) == ("Two.", "Two.")
    bare = without_guidance(loaded)
    assert bare.chat_template == tokenizer.chat_template == INDENTED
    assert carried_reminder(loaded) == "Two." and carried_reminder(bare) is None
    assert without_guidance(tokenizer) is tokenizer


@pytest.mark.parametrize("template", [LIKE_CHATML, DROPS])
def test_a_template_that_carries_a_reminder_gets_no_second_one(template: str, tmp_path: Path) -> None:
    tokenizer = chatty(template, **MARKS)
    loaded = exported(tmp_path, tokenizer, "One.")
    for reminder in ("One.", "Two."):
        assert guided_format(loaded, reminder).prompt_ids(TALK) == guided_format(tokenizer, reminder).prompt_ids(TALK)
    assert prompt_format(without_guidance(loaded)).prompt_ids(TALK) == prompt_format(tokenizer).prompt_ids(TALK)


def test_the_given_tokenizer_stays_as_it_was() -> None:
    tokenizer = chatty(LIKE_CHATML, **MARKS)
    form = guided_format(tokenizer, REMINDER)
    form.reply_ids(USER, "no")
    assert tokenizer.chat_template == LIKE_CHATML and carried_reminder(form.tokenizer) == REMINDER


def test_content_in_parts_and_other_fields_of_a_message_are_kept(tmp_path: Path) -> None:
    parts = "{% for m in messages %}{{ m['role'] }}{{ m['name'] }}:{% if m['content'] is string %}{{ m['content'] }}"
    parts += "{% else %}{% for p in m['content'] %}({{ p['text'] }}){% endfor %}{% endif %};{% endfor %}"
    message = {"content": [{"type": "text", "text": "be kind"}], "name": "!"}
    loaded = exported(tmp_path / "a", chatty(parts, **SPECIAL), "One.")
    asked = {"role": "user", "content": "it"}
    assert rendered(loaded, [{"role": "system", **message}, asked]) == "system!:(One.\n\n)(be kind);user:it;"
    assert rendered(loaded, [{"role": "developer", "content": "a"}, asked]) == "developer:One.\n\na;user:it;"
    assert rendered(loaded, [{"role": "system", "content": ""}, asked]) == "system:One.;user:it;"
    only_users = parts.replace("messages %}", "messages if m['role'] != 'system' %}", 1)
    loaded = exported(tmp_path / "b", chatty(only_users, **SPECIAL), "One.")
    assert rendered(loaded, [{"role": "user", **message}, asked]) == "user!:(One.\n\n)(be kind);user:it;"


def test_every_named_template_carries_it(tmp_path: Path) -> None:
    tokenizer = chatty(LIKE_CHATML, **MARKS)
    tokenizer.chat_template = {"default": LIKE_CHATML, "tool_use": "tools " + DROPS}
    loaded = exported(tmp_path, tokenizer, "One.")
    assert guided_format(tokenizer, "One.").prompt_ids(USER) == prompt_format(loaded).prompt_ids(USER)
    assert rendered(loaded, of(OWN)).startswith("<|im_start|>system\nOne.\n\nbe kind")
    assert rendered(loaded, of(OWN), chat_template="tool_use") == "tools <s><u>One.\n\nwhat is it<a>"
    assert without_guidance(loaded).chat_template == tokenizer.chat_template


def test_a_template_inside_the_config_does_not_stay_behind(tmp_path: Path) -> None:
    tokenizer = chatty(LIKE_CHATML, **MARKS)
    tokenizer.save_pretrained(tmp_path, save_jinja_files=False)
    assert "chat_template" in json.loads((tmp_path / "tokenizer_config.json").read_text())
    export_guidance(tmp_path, tokenizer, "One.")
    assert "chat_template" not in json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert carried_reminder(AutoTokenizer.from_pretrained(tmp_path)) == "One."


def test_a_template_that_can_show_no_reminder_is_named(tmp_path: Path) -> None:
    tokenizer = chatty(PARTS_ONLY, **SPECIAL)
    with pytest.raises(ConfigError, match="cannot carry the reminder .*; use --prompt-format plain"):
        guided_format(tokenizer, "One.")
    tokenizer.save_pretrained(tmp_path)
    assert export_guidance(tmp_path, tokenizer, "One.").startswith('Put the line "One." before every prompt')
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == PARTS_ONLY


def test_a_reply_goes_on_from_its_guided_prompt_though_the_template_writes_dialogues_otherwise() -> None:
    form = guided_format(chatty(CHANGING, **SPECIAL), REMINDER)
    assert form.tokenizer.decode(form.reply_ids(USER, "no")) == "no</s>"


def test_the_export_says_how_to_prompt(tmp_path: Path) -> None:
    chat, plain = chatty(LIKE_CHATML, **MARKS), word_level(**SPECIAL)
    chat.save_pretrained(tmp_path / "chat")
    plain.save_pretrained(tmp_path / "plain")
    assert export_guidance(tmp_path / "chat", chat, 'Be "kind".\nNow.') == (
        'The chat template puts the reminder "Be \\"kind\\".\\nNow." into every dialogue by itself; '
        "a prompt written without the template lacks it."
    )
    assert export_guidance(tmp_path / "plain", plain, REMINDER) == (
        f'Put the line "{REMINDER}" before every prompt: the model was evaluated with it, and nothing else adds it.'
    )
    assert json.loads((tmp_path / "chat/guidance.json").read_text()) == {
        "reminder": 'Be "kind".\nNow.',
        "where": "chat_template",
    }
    assert json.loads((tmp_path / "plain/guidance.json").read_text()) == {"reminder": REMINDER, "where": "preamble"}
    assert not (tmp_path / "plain/chat_template.jinja").exists()
    assert AutoTokenizer.from_pretrained(tmp_path / "plain").chat_template is None


def test_reminders_that_are_none_are_refused(tmp_path: Path) -> None:
    tokenizer = chatty(LIKE_CHATML, **MARKS)
    for reminder, message in ((" \n", "the reminder is empty"), ("a\ud83d", "half a surrogate pair")):
        with pytest.raises(ConfigError, match=message):
            guided_format(tokenizer, reminder)
        with pytest.raises(ConfigError, match=message):
            export_guidance(tmp_path, tokenizer, reminder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Invalid JSON"),
        (b'{"reminder": ', "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[]", "Input should be an object"),
        (b'{"reminder": "One.", "where": "above"}', "field \"where\": Input should be 'chat_template' or 'preamble'"),
        (b'{"reminder": "One.", "where": []}', 'field "where": Input should be'),
        (b'{"where": "preamble"}', 'field "reminder": Field required'),
        (b'{"reminder": 3, "where": "preamble"}', 'field "reminder": Input should be a valid string'),
        (b'{"reminder": " ", "where": "preamble"}', 'field "reminder": the reminder is empty'),
        (b'{"reminder": "\\ud83d", "where": "preamble"}', "Invalid JSON"),
    ],
)
def test_a_broken_guidance_file_is_named(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "guidance.json").write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_guidance(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path / 'guidance.json'}: ") and message in str(caught.value)


def test_no_guidance_file_is_no_guidance(tmp_path: Path) -> None:
    assert read_guidance(tmp_path) is None
    (tmp_path / "guidance.json").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read_guidance(tmp_path)


PUBLISHED = Path(trl.__file__).parent / "chat_templates"
BY_USER = {"gemma"}


@pytest.mark.parametrize("name", ["gemma", "gemma3", "llama3", "llama3_2", "phi3", "qwen2_5", "qwen3", "cohere"])
def test_published_templates(name: str) -> None:
    """Templates of real models, as TRL ships them: the reminder once, and nothing else changes."""
    path = PUBLISHED / f"{name}.jinja"
    if not path.is_file():
        pytest.skip(f"this TRL has no {path.name}")
    tokenizer = chatty(path.read_text(encoding="utf-8"), **MARKS)
    form, bare = guided_format(tokenizer, REMINDER), prompt_format(tokenizer)
    for turns in (USER, TALK) if name in BY_USER else (OWN, (OWN[0], *TALK)):
        text = text_of(form, turns)
        assert text.count(REMINDER) == 1
        assert text.replace(f"{REMINDER}\n\n", "") == text_of(bare, turns)
        assert form.reply_ids(turns, "no") == bare.reply_ids(turns, "no")
    assert text_of(form, USER).count(REMINDER) == 1
