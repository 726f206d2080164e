"""Guided generation: the reminder in every prompt, here and wherever the model goes.

A chat template carries the reminder as a prelude that changes `messages` before the template reads them. The formats
made here render that same prelude, so what is measured is what is deployed. Without a template the reminder is a line
before the prompt, and only `guidance.json` says so.
"""

import contextlib
import copy
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ValidationError

from unteach.data.prompt_format import PlainFormat, PromptFormat, TemplateSettings, prompt_format
from unteach.data.rendering import TemplateRefusal, render
from unteach.disk.files import write_whole, writing
from unteach.errors import ConfigError, DataError
from unteach.models.ranks import by_first_rank
from unteach.models.saving import save_tokenizer
from unteach.prompts.turn import Turn
from unteach.text.escape import inert_line

GUIDANCE = "guidance.json"

_BEGINS = "{#- unteach guidance begins: a reminder goes before every dialogue. Delete down to its end to stop that. -#}"
_PRELUDE = re.compile(r"\{#- unteach guidance begins.*?\{#- unteach guidance ends -?#\}\n", re.DOTALL)
_CARRIED = re.compile(r'set unteach_reminder = ("(?:[^"\\]|\\.)*")')

# In what follows `unteach_own` is a message's content: text, parts of text and pictures, or nothing.
_JOINED = r"""{%- if not unteach_own -%}{%- set unteach_content = unteach_reminder -%}
{%- elif unteach_own is string -%}{%- set unteach_content = unteach_reminder + "\n\n" + unteach_own -%}
{%- else -%}{%- set unteach_content = [{"type": "text", "text": unteach_reminder + "\n\n"}] + unteach_own -%}
{%- endif -%}"""
_AS_SYSTEM = f"""{{%- if messages and messages[0]["role"] in ["system", "developer"] -%}}
{{%- set unteach_own = messages[0]["content"] -%}}
{_JOINED}
{{%- set messages = [dict(messages[0], content=unteach_content)] + messages[1:] -%}}
{{%- elif messages -%}}
{{%- set unteach_own = DEFAULT -%}}
{_JOINED}
{{%- set messages = [{{"role": "system", "content": unteach_content}}] + messages -%}}
{{%- endif -%}}"""
_IN_FIRST_USER_TURN = f"""{{%- set unteach = namespace(messages=[], put=false) -%}}
{{%- for message in messages -%}}
{{%- if message["role"] == "user" and not unteach.put -%}}
{{%- set unteach_own = message["content"] -%}}
{_JOINED}
{{%- set unteach.messages = unteach.messages + [dict(message, content=unteach_content)] -%}}
{{%- set unteach.put = true -%}}
{{%- else -%}}
{{%- set unteach.messages = unteach.messages + [message] -%}}
{{%- endif -%}}
{{%- endfor -%}}
{{%- set messages = unteach.messages -%}}"""


class Guidance(BaseModel):
    """What `guidance.json` says: the reminder, and whether the chat template carries it or it is a line of its own."""

    reminder: str
    where: Literal["chat_template", "preamble"]


def guided_format(
    tokenizer: Any,
    reminder: str,
    name: str = "auto",
    eos_token_id: int | Sequence[int] | None = None,
    template: TemplateSettings | None = None,
) -> PromptFormat:
    """Make the format that puts the reminder into every prompt; running text gets none.

    In chats it is a system message, before the dialogue's own system text or the template's default one. Where the
    template has no place for a system message it begins the first user turn. In the plain format it is a line before
    the prompt. A template that carries a reminder already gets this one in its place. The format's `tokenizer` is a
    copy with the guided template; the one given stays as it was.

    Raises ConfigError for an empty reminder, an unknown format, or a template that shows the reminder nowhere.
    """
    _check_reminder(reminder)
    form = prompt_format(tokenizer, name, eos_token_id, template)
    if form.name == "plain":
        return GuidedPlainFormat(tokenizer, reminder, eos_token_id, template)
    return prompt_format(_with_templates(tokenizer, reminder), "chat", eos_token_id, template)


class GuidedPlainFormat(PlainFormat):
    """The plain format with the reminder as its first line; a dialogue's own system text is the next one."""

    def __init__(
        self,
        tokenizer: Any,
        reminder: str,
        eos_token_id: int | Sequence[int] | None = None,
        template: TemplateSettings | None = None,
    ) -> None:
        super().__init__(tokenizer, eos_token_id, template)
        self.reminder = reminder

    def _prompt(self, turns: Sequence[Turn]) -> list[int]:
        own = [turns[0].content] if turns[0].role == "system" else []
        system = Turn("system", "\n".join([self.reminder, *filter(None, own)]))
        return super()._prompt((system, *turns[len(own) :]))


def without_guidance(tokenizer: Any) -> Any:
    """Return the tokenizer as it was before any reminder: itself, or a copy whose chat template has none."""
    if carried_reminder(tokenizer) is None:
        return tokenizer
    return _with_templates(tokenizer, None)


def carried_reminder(tokenizer: Any) -> str | None:
    """Return the reminder that the tokenizer's chat template carries, or None."""
    for template in _templates(tokenizer).values():
        prelude = _PRELUDE.search(template)
        carried = prelude and _CARRIED.search(prelude[0])
        if carried:
            with contextlib.suppress(ValueError):  # no text that we wrote
                return str(json.loads(carried[1]))
    return None


@by_first_rank
def export_guidance(directory: Path, tokenizer: Any, reminder: str) -> str:
    """Save the tokenizer in the model's `directory` so that it carries the reminder.

    The saved chat template gets it, so that every library renders it; `guidance.json` says which reminder and where.
    A template that would show it nowhere stays as it is, and the reminder is then a line before the prompt. One that
    was exported before is replaced. Returns a sentence for the model card, as plain text.

    Raises OutputError, and ConfigError for an empty reminder.
    """
    _check_reminder(reminder)
    saved = tokenizer
    with contextlib.suppress(ConfigError):
        saved = _with_templates(tokenizer, reminder)
    with writing(directory):
        save_tokenizer(saved, directory, template=False)
    carried = carried_reminder(saved) == reminder
    guidance = Guidance(reminder=reminder, where="chat_template" if carried else "preamble")
    write_whole(directory / GUIDANCE, json.dumps(guidance.model_dump(), ensure_ascii=False, indent=1) + "\n")
    quoted = inert_line(json.dumps(reminder, ensure_ascii=False))
    if carried:
        return (
            f"The chat template puts the reminder {quoted} into every dialogue by itself; "
            "a prompt written without the template lacks it."
        )
    return f"Put the line {quoted} before every prompt: the model was evaluated with it, and nothing else adds it."


def read_guidance(directory: Path) -> str | None:
    """Return the reminder that a model directory says it is to be prompted with; None where it says nothing.

    Raises DataError for a broken file.
    """
    path = directory / GUIDANCE
    try:
        guidance = Guidance.model_validate_json(path.read_bytes())
        _check_reminder(guidance.reminder)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = "".join(f'field "{name}": ' for name in first["loc"])
        problem = inert_line(first["msg"], 200)
        raise DataError(f"{path}: {place}{problem}; write it again, or delete it to go without a reminder") from None
    except ConfigError as error:
        raise DataError(f'{path}: field "reminder": {error}') from None
    return guidance.reminder


def _check_reminder(reminder: str) -> None:
    if not reminder.strip():
        raise ConfigError("the reminder is empty; write a sentence into the field 'reminder' of --wording")
    if any("\ud800" <= char <= "\udfff" for char in reminder):
        raise ConfigError("the reminder holds half a surrogate pair, which no file can hold; write it anew as UTF-8")


def _templates(tokenizer: Any) -> dict[str, str]:
    """The tokenizer's chat templates by name; a single one is "default"."""
    found = getattr(tokenizer, "chat_template", None) or {}
    return {"default": found} if isinstance(found, str) else dict(found)


def _with_templates(tokenizer: Any, reminder: str | None) -> Any:
    """Copy the tokenizer with chat templates that carry this reminder instead of any other, or none.

    Raises ConfigError where the template that chats use shows the reminder nowhere.
    """
    changed = {}
    for name, template in _templates(tokenizer).items():
        bare = _PRELUDE.sub("", template)
        changed[name] = bare if reminder is None else _prelude(tokenizer, bare, reminder) + bare
        if reminder is not None and name == "default":
            probe = _prelude(tokenizer, bare, _SYSTEM) + bare
            if _SYSTEM not in _rendered(tokenizer, probe, user=_USER):
                raise ConfigError(
                    "the chat template shows neither a system message nor text before a question, so it cannot carry "
                    "the reminder (is it for pictures, or broken?); use --prompt-format plain"
                )
    other = copy.copy(tokenizer)
    if changed:
        other.chat_template = changed["default"] if isinstance(tokenizer.chat_template, str) else changed
    return other


def _prelude(tokenizer: Any, template: str, reminder: str) -> str:
    """Jinja that puts the reminder into `messages`, to go before this template."""
    if _takes_system(tokenizer, template):
        put = _AS_SYSTEM.replace("DEFAULT", _literal(_default_system(tokenizer, template)))
    else:
        put = _IN_FIRST_USER_TURN
    # Templates are compiled with trim_blocks, which drops the line break after the last tag; the dash does so in any
    # engine, but it would eat white space that the template itself begins with.
    dash = "" if template[:1].isspace() else "-"
    reminded = f"{{%- set unteach_reminder = {_literal(reminder)} -%}}"
    return f"{_BEGINS}\n{reminded}\n{put}\n{{#- unteach guidance ends {dash}#}}\n"


def _literal(text: str) -> str:
    """The text as a string in Jinja. JSON's escapes are Jinja's too; without braces nothing takes it for a tag."""
    return json.dumps(text, ensure_ascii=False).replace("{", "\\u007b").replace("}", "\\u007d")


_SYSTEM, _USER, _REPLY = "unteachprobesystem", "unteachprobeuser", "unteachprobereply"


def _rendered(tokenizer: Any, template: str, **roles: str) -> str:
    """What the template makes of one turn per role, in the order given; nothing where it refuses them."""
    messages = [{"role": role.rstrip("_"), "content": content} for role, content in roles.items()]
    try:
        return render(tokenizer, template, messages, generation=messages[-1]["role"] == "user")
    except TemplateRefusal:
        return ""  # templates are programs, and fail like programs


def _takes_system(tokenizer: Any, template: str) -> bool:
    """Whether the template shows a system message as one, also after a reply and with a second question."""
    asked = _rendered(tokenizer, template, system=_SYSTEM, user=_USER)
    answered = _rendered(tokenizer, template, system=_SYSTEM, user=_USER, assistant=_REPLY)
    again = _rendered(tokenizer, template, system=_SYSTEM, user=_USER, assistant=_REPLY, user_=_USER)
    if not all(_SYSTEM in text for text in (asked, answered, again)):
        return False
    # A template that knows only two roles may write a system message like one of them.
    return asked not in (
        _rendered(tokenizer, template, user=_SYSTEM, user_=_USER),
        _rendered(tokenizer, template, assistant=_SYSTEM, user=_USER),
    )


def _default_system(tokenizer: Any, template: str) -> str:
    """The system text that the template puts by itself where a dialogue has none; a system message would replace it.

    One that may hold today's date is not kept: it would be the date of the export for ever.
    """
    if "strftime_now" in template:
        return ""
    alone = _rendered(tokenizer, template, user=_USER)
    before, _, after = _rendered(tokenizer, template, system=_SYSTEM, user=_USER).partition(_SYSTEM)
    if not (alone.startswith(before) and alone.endswith(after)):
        return ""
    return alone[len(before) : len(alone) - len(after)]
