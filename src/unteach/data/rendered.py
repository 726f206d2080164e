"""Text that already carries a chat template: it is parsed back into turns, so that it is not put in a template again.

`MARKS` lists the marks of the well-known templates, the most specific first; a new template is one more entry. A text
is taken for a rendered dialogue only where turns cover the whole of it in an order that a dialogue has, so text that
merely speaks of marks stays as it is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from unteach.prompts.turn import Turn

Rendered = tuple[tuple[Turn, ...], str | None]
"""The turns of a prompt and the reply to it; None where the text ends with the prompt."""

_BEGINS = (
    r"<s>|<bos>|<BOS_TOKEN>|<\|begin_of_text\|>|<\|startoftext\|>|<\|endoftext\|>|\[gMASK\]|<sop>"
    r"|<[|｜]begin▁of▁sentence[|｜]>"
)
_TURN_ENDS = (
    r"<\|im_end\|>|<\|eot_id\|>|<\|eom_id\|>|<\|eot\|>|<\|end\|>|<\|return\|>|<\|end_of_text\|>|<\|end_of_turn\|>"
    r"|<end_of_turn>|<end_of_utterance>|<turn\|>|<\|END_RESPONSE\|>|<\|END_OF_TURN_TOKEN\|>|<\|EOT\|>|<[|｜]end▁of▁sentence[|｜]>"
)
_BEGIN = re.compile(rf"(?:\s|{_BEGINS})+")
_END = re.compile(rf"(?:{_TURN_ENDS}|{_BEGINS}|<eos>|</s>)\Z")
_INSIDE = re.compile(_TURN_ENDS)
_ANY = re.compile(r"<[|｜]|[|｜]>|<(?:start|end)_of_turn>|\[/?INST\]|###|(?:USER|User|Human|Instruct):")
_EMPTY_THOUGHT = re.compile(r"<think>\s*(?:</think>\s*|\Z)")
"""What some templates begin every reply with."""
_OWN_SYSTEM = re.compile(
    r"Cutting Knowledge Date: .*\nToday Date: .*\n*"
    r"|You are ChatGPT, a large language model[\s\S]*# Valid channels: .*\Z"
    r"|# Instructions\n\n"
)
"""What the templates of Llama 3.1 and later, and of gpt-oss, write by themselves in a system prompt."""
_PREAMBLE = re.compile(
    r"Below is an instruction that describes a task.*completes the request\.|"
    r"A chat between a curious (?:user|human) and an artificial intelligence assistant\..*questions\.|"
    r"BEGINNING OF CONVERSATION:",
    re.DOTALL,
)
"""What Alpaca's and Vicuna's templates write before every dialogue."""


@dataclass(frozen=True)
class Marks:
    """The marks of a template.

    `opening` matches what begins a turn; its named groups are the roles, and "input", which continues a user's turn.
    With `closed`, every turn but a last reply must end in an end mark. With `title`, the marks are words of the text,
    not tokens that prose does not hold by chance, so both sides must speak. With `turns`, they must take turns.
    A text without `word` has none of the marks; it spares the search for them.
    """

    name: str
    opening: re.Pattern[str]
    closed: bool = False
    title: bool = False
    turns: bool = False
    word: str = ""


def _tagged(name: str, before: str, after: str, roles: Sequence[str] = (), closed: bool = True) -> Marks:
    """Marks that name the role between two tokens; `roles` are the patterns for system, user and assistant."""
    system, user, assistant = roles or ("system|developer", "user", "assistant")
    words = rf"(?:(?P<system>{system})|(?P<user>{user})|(?P<assistant>{assistant}))"
    word = "im_" if name == "Kimi" else re.sub(r"\\s\*|\\", "", before)
    return Marks(name, re.compile(before + words + after), closed, word=word)


def _titled(name: str, user: str, assistant: str, before: str, more: str = "", turns: bool = True) -> Marks:
    """Marks that are titles in the text, such as "USER:"."""
    roles = rf"(?:(?P<user>{user})|(?P<assistant>{assistant}){more}):"
    return Marks(name, re.compile(before + roles), title=True, turns=turns, word=f"{assistant}:")


_LINE_END = r"[ \t]*(?:\r?\n|\Z)"
_HEADING, _LINE, _PARAGRAPH = r"###[ \t]*", r"(?:\A|(?<=\n))", r"(?:\A|(?<=\n\n)|(?<=\n\r\n))"

MARKS: tuple[Marks, ...] = (
    _tagged("Phi-4", r"<\|im_start\|>", r"<\|im_sep\|>"),
    _tagged("Kimi", r"<\|im_(?:system|user|assistant)\|>", r"<\|im_middle\|>"),
    _tagged("ChatML", r"<\|im_start\|>\s*", _LINE_END),
    _tagged("Llama 3", r"<\|start_header_id\|>", r"<\|end_header_id\|>"),
    _tagged("Llama 4", r"<\|header_start\|>", r"<\|header_end\|>"),
    _tagged("Granite", r"<\|start_of_role\|>", r"<\|end_of_role\|>"),
    _tagged("Gemma", r"<start_of_turn>", _LINE_END, ("system", "user", "model")),
    _tagged("Gemma 4", r"<\|turn>", _LINE_END, ("system", "user", "model")),
    _tagged(
        "Cohere",
        r"<\|START_OF_TURN_TOKEN\|>",
        r"(?:<\|START_RESPONSE\|>)?",
        (r"<\|SYSTEM_TOKEN\|>", r"<\|USER_TOKEN\|>", r"<\|CHATBOT_TOKEN\|>"),
    ),
    _tagged("gpt-oss", r"<\|start\|>", r"(?: to=user)?(?:<\|channel\|>final)?(?:<\|message\|>|\Z)"),
    _tagged("Zephyr", r"<\|", rf"\|>{_LINE_END}", closed=False),
    _tagged("Phi-3", r"<\|", r"\|>", ("system", "user|prompter", "assistant")),
    _tagged("OpenChat", "GPT4 Correct ", ":", ("System", "User", "Assistant")),
    Marks("DeepSeek", re.compile(r"<[|｜](?:(?P<user>User)|(?P<assistant>Assistant))[|｜]>"), word="Assistant"),
    Marks(
        "Llama 2 or Mistral",
        re.compile(
            r"(?P<system>\[INST\]\s*<<SYS>>|\[SYSTEM_PROMPT\])"
            r"|(?P<user><</SYS>>|(?:\[/SYSTEM_PROMPT\]\s*)?\[INST\])|(?P<assistant>\[/INST\])"
        ),
        turns=True,
        word="INST]",
    ),
    _titled("Alpaca", "Instruction", "Response", _HEADING, "|(?P<input>Input)|(?P<system>System)"),
    _titled("### Question", "Question", "Answer", _HEADING),
    _titled("Guanaco", "Human", "Assistant", _HEADING, "|(?P<system>System)"),
    _titled("### User", "User", "Assistant", _HEADING, "|(?P<system>System)"),
    _titled("Vicuna", "USER", "ASSISTANT", r"(?:\A|(?<=\s)|(?<=</s>))", "|(?P<system>SYSTEM)"),
    _titled("hh-rlhf", "Human", "Assistant", _PARAGRAPH, turns=False),
    _titled("Human and Assistant", "Human", "Assistant", _LINE),
    _titled("User and Assistant", "User", "Assistant", _LINE, "|(?P<system>System)"),
    _titled("Instruct and Output", "Instruct", "Output", _LINE),
)


def parse_rendered(text: str) -> Rendered | None:
    """Return the turns of a prompt, and the reply where the text goes on after the last mark of the assistant.

    None for a text that is no rendered dialogue. Marks of begin and end are removed, and contents are stripped.
    """
    if not _ANY.search(text):
        return None
    return next((parsed for marks in MARKS if (parsed := _parse(text, marks)) is not None), None)


def parse_pair(prompt: str, reply: str) -> Rendered | None:
    """Parse a prompt whose text carries marks, and the reply to it; None where the prompt's marks cannot be parsed.

    The assistant's mark may end the prompt or begin the reply. The reply may also be the whole dialogue again.
    """
    if not _ANY.search(prompt) and not _ANY.search(reply):
        return None
    before, whole = parse_rendered(prompt), parse_rendered(reply)
    if whole is not None and whole[0] and whole[1] is not None:
        asked = before[0] if before is not None else (Turn("user", prompt.strip()),)
        if not prompt.strip() or whole[0][-len(asked) :] == asked:
            return whole
    if before is not None and before[1] is not None:  # the prompt is a whole dialogue
        return before if before[1] == bare_reply(reply).strip() else None
    joint = parse_rendered(prompt + reply) or parse_rendered(f"{prompt}\n\n{reply}")
    if joint is not None and joint[1] is not None and (before is None or before[0] == joint[0]):
        return joint
    return None if before is None else (before[0], bare_reply(reply))


def bare_reply(text: str) -> str:
    """Remove the assistant's mark before a reply and the end marks after it; a reply that speaks of marks keeps all."""
    parsed = parse_rendered(text)
    if parsed is not None and not parsed[0] and parsed[1] is not None:
        return parsed[1]
    rest, ended = _without_ends(text)
    speaks = _INSIDE.search(rest) or any(marks.opening.search(rest) for marks in MARKS if not marks.title)
    return rest if ended and not speaks else text


def marks_seen(text: str) -> str | None:
    """Name the template whose marks stand in a text, whether or not they can be parsed; None where there are none."""
    if not _ANY.search(text):
        return None
    for marks in MARKS:
        roles = {match.lastgroup for match in marks.opening.finditer(text)}
        heading = text.lstrip().startswith("###") and marks.opening.match(text.lstrip())
        if heading or (roles if not marks.title else {"user", "assistant"} <= roles):
            return marks.name
    return "a turn's end" if _INSIDE.search(text) else None


def _parse(text: str, marks: Marks) -> Rendered | None:
    begin = _BEGIN.match(text)
    text = text[begin.end() if begin else 0 :].rstrip()
    found = list(marks.opening.finditer(text)) if marks.word in text else []
    if not found:
        return None
    turns: list[Turn] = []
    for number, opening in enumerate(found, start=1):
        last = number == len(found)
        role = opening.lastgroup or ""
        content, ended = _without_ends(text[opening.end() : None if last else found[number].start()])
        if marks.closed and not ended and not (last and role == "assistant"):
            return None
        if _INSIDE.search(content):
            return None
        if role == "assistant":
            content = content[thought.end() :] if (thought := _EMPTY_THOUGHT.match(content)) else content
        elif role == "system":
            content = content[own.end() :] if (own := _OWN_SYSTEM.match(content)) else content
        elif role == "input":
            if not turns or turns[-1].role != "user":
                return None
            role, content = "user", "\n".join(filter(None, (turns.pop().content, content)))
        if content or role != "system":
            turns.append(Turn(role, content))
    before = text[: found[0].start()].strip()
    system = _lead(before, marks, bool(begin and begin[0].strip()), turns)
    if system is None or not _is_dialogue(turns, marks):
        return None
    turns = [*system, *turns]
    if len(turns) > 1 and turns[-1] == Turn("user", ""):  # GLM ends a reply with the user's mark
        turns.pop()
    if turns[-1].role != "assistant":
        return tuple(turns), None
    return tuple(turns[:-1]), turns[-1].content or None


def _lead(text: str, marks: Marks, begun: bool, turns: Sequence[Turn]) -> tuple[Turn, ...] | None:
    """Return the system turn that stands before the first mark, or none; None where the text is no system prompt.

    Prose that goes on to speak of marks is told from a system prompt by what follows: the text must end with the
    assistant's mark, or, where the template has no mark for it, start with the token that begins texts (`begun`).
    """
    if not text or (marks.title and _PREAMBLE.fullmatch(text)):
        return ()
    asks = marks.title and bool(turns) and turns[-1] == Turn("assistant", "") and marks_seen(text) is None
    return (Turn("system", text),) if asks or (marks.name == "DeepSeek" and begun) else None


def _is_dialogue(turns: Sequence[Turn], marks: Marks) -> bool:
    """Tell whether roles come in an order that a dialogue of this template has."""
    roles = [turn.role for turn in turns]
    if not marks.title and not marks.turns:
        return "assistant" in roles or (marks.closed and "user" in roles)
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    if "system" in spoken or "assistant" not in spoken or (marks.title and spoken[0] != "user"):
        return False
    return not marks.turns or all(one != two for one, two in zip(spoken, spoken[1:], strict=False))


def _without_ends(text: str) -> tuple[str, bool]:
    """Remove the marks that a turn ends in, and say whether there was one. `<s>…</s>` is a text struck through."""
    ended, text = False, text.strip()
    while (end := _END.search(text)) and not (end[0] == "</s>" and "<s>" in text):
        ended, text = True, text[: end.start()].rstrip()
    return text, ended
