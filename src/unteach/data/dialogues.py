"""Dialogues as files have them: lists of messages under many names of roles, content in parts, calls of tools.

What comes out are turns of the system, the user and the assistant. A call of a tool becomes an assistant's turn in
`<tool_call>` marks and its result a user's turn in `<tool_response>` marks, as the templates of Hermes and Qwen write
them, so that a template without tools keeps the order of the dialogue.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from unteach.prompts.turn import Turn
from unteach.text.bounded import read_json

_NAMES = {
    "system": ("system", "developer"),
    "user": ("user", "human", "prompter", "customer", "client", "person", "questioner", "用户"),
    "assistant": (
        *("assistant", "gpt", "model", "bot", "ai", "llm", "agent", "chatbot", "character", "助手"),
        *("chatgpt", "gpt-4", "gpt4", "gpt-3.5", "bing", "bard", "claude", "gemini", "llama", "mistral", "vicuna"),
    ),
    "call": ("function_call", "tool_call"),
    "tool": ("tool", "function", "observation", "tool_response", "function_response", "ipython", "tool_result"),
}
ROLES = {name: role for role, names in _NAMES.items() for name in names}
"""What the names of roles mean: "system", "user", "assistant", "call" (of a tool) or "tool" (its result)."""

_ROLE_KEYS, _CONTENT_KEYS = ("role", "from", "speaker"), ("content", "value", "text")
_TEXT_PARTS = ("text", "input_text", "output_text")


class UnknownRole(ValueError):
    """A role that no known layout has."""


def is_message(value: Any) -> bool:
    """Tell whether a value is a message: an object with a role."""
    return isinstance(value, dict) and any(key in value for key in _ROLE_KEYS)


def turns_of(value: Any, field: str) -> tuple[tuple[Turn, ...], tuple[bool, ...]]:
    """Return the turns of a list of messages or of one, and of each turn whether a tool was called or answered in it.

    Raises ValueError, which names the message, for what cannot be read, and UnknownRole.
    """
    messages = [value] if isinstance(value, dict) else value
    turns: list[Turn] = []
    tools: list[bool] = []
    for number, message in enumerate(messages, start=1):
        for turn, of_tool in _turns_of_message(message, f"{field}, message {number}"):
            if of_tool and turn.role == "user" and turns and tools[-1] and turns[-1].role == "user":
                turns[-1] = Turn("user", f"{turns[-1].content}\n{turn.content}")  # several results are one turn
            else:
                turns.append(turn)
                tools.append(of_tool)
    return tuple(turns), tuple(tools)


def last_reply(turns: Sequence[Turn], tools: Sequence[bool], field: str) -> int:
    """Return the place of the last turn in which the assistant says something. Raises ValueError if there is none."""
    places = [place for place, turn in enumerate(turns) if turn.role == "assistant" and not tools[place]]
    said = [place for place in places if turns[place].content.strip()]
    if not places:
        raise ValueError(f"field '{field}' has no message of the assistant to take as the reply")
    if not said:
        raise ValueError(f"field '{field}': the assistant's messages are empty")
    return said[-1]


def _turns_of_message(message: Any, place: str) -> list[tuple[Turn, bool]]:
    if not isinstance(message, dict):
        raise ValueError(f"field '{place}' must have role and content, not be {kind(message)}")
    role = _role(message, place)
    content = _content(message, place)
    calls = message.get("tool_calls") or message.get("function_call")
    if role == "call":
        return [(Turn("assistant", _marked("tool_call", content)), True)]
    if role == "tool":
        return [(Turn("user", _marked("tool_response", content)), True)]
    if role == "assistant" and calls:
        calls = calls if isinstance(calls, list) else [calls]
        text = "\n".join(_marked("tool_call", _call(call)) for call in calls)
        return ([(Turn(role, content), False)] if content.strip() else []) + [(Turn(role, text), True)]
    if message.get(_key(message, _CONTENT_KEYS)) is None:
        raise ValueError(f"field '{place}' must be text, not nothing")
    return [(Turn(role, content), False)]


def _role(message: dict[str, Any], place: str) -> str:
    key = _key(message, _ROLE_KEYS)
    given = message.get(key)
    name = re.sub(r"[ _-]?\d+$", "", str(given).strip().casefold()) if str(given).casefold() not in ROLES else given
    role = ROLES.get(str(name).casefold())
    if given is None:
        raise UnknownRole(f"field '{place}' needs a role: system, user or assistant")
    if role is None:
        raise UnknownRole(
            f"field '{place}' needs a role: system, user or assistant, not {str(given)[:40]!r}; "
            "name the roles of your messages so"
        )
    return role


def _key(message: dict[str, Any], keys: Sequence[str]) -> str:
    return next((key for key in keys if message.get(key) is not None), keys[0])


def _content(message: dict[str, Any], place: str) -> str:
    """Return the text of a message; parts of it are lines, and null is empty."""
    value = message.get(_key(message, _CONTENT_KEYS))
    if isinstance(value, list):
        return "\n".join(_part(part, place) for part in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"field '{place}' must be text, not {kind(value)}")
    return value or ""


def _part(part: Any, place: str) -> str:
    if isinstance(part, str):
        return part
    type_ = part.get("type", "text") if isinstance(part, dict) else None
    if type_ not in _TEXT_PARTS or not isinstance(part.get("text"), str):
        found = f"a part of type {str(type_)[:40]!r}" if type_ else kind(part)
        raise ValueError(f"field '{place}' holds {found}; only text can be used")
    return str(part["text"])


def _call(call: Any) -> str:
    """Return the call of a tool as JSON of its name and arguments."""
    function = call.get("function", call) if isinstance(call, dict) else call
    if not isinstance(function, dict):
        return str(function)
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = read_json(arguments)
        except ValueError:
            pass
    return json.dumps({"name": function.get("name"), "arguments": arguments}, ensure_ascii=False)


def _marked(mark: str, text: str) -> str:
    return f"<{mark}>\n{text}\n</{mark}>"


def kind(value: Any) -> str:
    """Name the type of a JSON value in plain words, for messages."""
    names = {bool: "true or false", str: "text", list: "a list", dict: "an object", type(None): "nothing"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
