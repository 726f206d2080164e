"""Text that carries a chat template is parsed back into the turns that it was rendered from; other text never is."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unteach.data.rendered import MARKS, bare_reply, marks_seen, parse_pair, parse_rendered
from unteach.prompts.turn import Turn

CASES = Path("/work/shared/cases/data")
Render = Callable[[Sequence[Turn]], str]
"""Renders turns, which end with the reply or with the user's turn; then the mark that asks for the reply ends them."""


def tagged(begin: str, user: str, assistant: str, end: str, system: str = "") -> Render:
    """A template whose every turn is `begin`, the role's mark, the content and `end`."""
    marks = {"system": system, "user": user, "assistant": assistant}

    def render(turns: Sequence[Turn]) -> str:
        text = begin + "".join(marks[turn.role] + turn.content + end for turn in turns)
        return text if turns[-1].role == "assistant" else text + assistant

    return render


def llama2(turns: Sequence[Turn]) -> str:
    text, system = "", ""
    for turn in turns:
        if turn.role == "system":
            system = f"<<SYS>>\n{turn.content}\n<</SYS>>\n\n"
        elif turn.role == "user":
            text, system = f"{text}<s>[INST] {system}{turn.content} [/INST]", ""
        else:
            text += f" {turn.content} </s>"
    return text


def deepseek(turns: Sequence[Turn]) -> str:
    marks = {"system": "{}", "user": "<｜User｜>{}", "assistant": "<｜Assistant｜>{}<｜end▁of▁sentence｜>"}
    text = "<｜begin▁of▁sentence｜>" + "".join(marks[turn.role].format(turn.content) for turn in turns)
    return text if turns[-1].role == "assistant" else text + "<｜Assistant｜>"


def alpaca(turns: Sequence[Turn]) -> str:
    preamble = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    )
    marks = {"system": "### System:\n", "user": "### Instruction:\n", "assistant": "### Response:\n"}
    parts = [preamble, *(marks[turn.role] + turn.content for turn in turns)]
    return "\n\n".join(parts if turns[-1].role == "assistant" else [*parts, "### Response:"])


TEMPLATES: dict[str, Render] = {
    "ChatML": tagged("", "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n", "<|im_start|>system\n"),
    "Phi-4": tagged(
        "",
        "<|im_start|>user<|im_sep|>",
        "<|im_start|>assistant<|im_sep|>",
        "<|im_end|>",
        "<|im_start|>system<|im_sep|>",
    ),
    "Llama 3": tagged(
        "<|begin_of_text|>",
        "<|start_header_id|>user<|end_header_id|>\n\n",
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
        "<|eot_id|>",
        "<|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
    ),
    "Gemma": tagged("<bos>", "<start_of_turn>user\n", "<start_of_turn>model\n", "<end_of_turn>\n"),
    "Zephyr": tagged("", "<|user|>\n", "<|assistant|>\n", "</s>\n", "<|system|>\n"),
    "Tulu": tagged("<|endoftext|>", "<|user|>\n", "<|assistant|>\n", "\n", "<|system|>\n"),
    "Phi-3": tagged("", "<|user|>", "<|assistant|>", "<|end|>", "<|system|>"),
    "Granite": tagged(
        "",
        "<|start_of_role|>user<|end_of_role|>",
        "<|start_of_role|>assistant<|end_of_role|>",
        "<|end_of_text|>\n",
        "<|start_of_role|>system<|end_of_role|>",
    ),
    "Cohere": tagged(
        "<BOS_TOKEN>",
        "<|START_OF_TURN_TOKEN|><|USER_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
        "<|END_OF_TURN_TOKEN|>",
        "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>",
    ),
    "Llama 2 or Mistral": llama2,
    "DeepSeek": deepseek,
    "Alpaca": alpaca,
    "### Question": tagged("", "### Question: ", "### Answer: ", "\n"),
    "Guanaco": tagged("", "### Human: ", "### Assistant: ", "", "### System: "),
    "### User": tagged("", "### User:\n", "### Assistant:\n", "\n\n", "### System:\n"),
    "Vicuna": tagged(
        "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
        "detailed, and polite answers to the user's questions. ",
        "USER: ",
        "ASSISTANT: ",
        " ",
    ),
    "hh-rlhf": tagged("", "\n\nHuman: ", "\n\nAssistant: ", ""),
    "User and Assistant": tagged("", "User: ", "Assistant: ", "\n", "System: "),
    "OpenChat": tagged("<s>", "GPT4 Correct User: ", "GPT4 Correct Assistant: ", "<|end_of_turn|>"),
}
NO_SYSTEM = {"Gemma", "### Question", "Vicuna", "hh-rlhf", "OpenChat"}

WORDS = (
    st.text(st.sampled_from("ab \n.,'\"é鍵:#-<|>[]"), min_size=1, max_size=30)
    .map(str.strip)
    .filter(lambda text: text and marks_seen(text) is None and "###" not in text and not set(text) <= set("<|>[]#"))
)


@st.composite
def dialogues(draw: st.DrawFn, system: bool) -> tuple[Turn, ...]:
    turns = [Turn("system", draw(WORDS))] if system and draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        turns += [Turn("user", draw(WORDS)), Turn("assistant", draw(WORDS))]
    return tuple(turns)


@pytest.mark.parametrize("name", TEMPLATES)
@given(data=st.data())
def test_what_a_template_renders_is_parsed_back(name: str, data: st.DataObject) -> None:
    render, turns = TEMPLATES[name], data.draw(dialogues(name not in NO_SYSTEM))
    assert parse_rendered(render(turns)) == (turns[:-1], turns[-1].content)
    prompt = render(turns[:-1])
    assert parse_rendered(prompt) == (turns[:-1], None)
    assert parse_pair(prompt, f" {turns[-1].content}") == (turns[:-1], turns[-1].content)


@given(dialogue=dialogues(system=False))
def test_every_template_of_the_table_is_among_these_or_looks_like_one(dialogue: tuple[Turn, ...]) -> None:
    assert parse_rendered("\n".join(turn.content for turn in dialogue)) is None
    rendered = {marks.name for marks in MARKS} & set(TEMPLATES)
    assert {marks.name for marks in MARKS} - rendered <= {
        "Kimi", "Llama 4", "Gemma 4", "gpt-oss", "Human and Assistant", "Instruct and Output"
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "Human: beings are odd.",
        "USER: is a role, and ASSISTANT",
        "A turn of ChatML starts with <|im_start|>user and ends with <|im_end|>.",
        "Write <|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi<|im_end|> and you are done.",
        "<|im_start|> is a token.",
        "<|user|> and <|assistant|> are the tokens of Zephyr.",
        "In Vicuna's format it reads USER: Hello ASSISTANT: Hi there",
        "First the question.\n### Question: Why?\n### Answer: Because.",
        "### Answer: 12\n### Question: 13",
        "Assistant: a person who helps.",
        "Meeting notes\n\nHuman: the cat sat\nAssistant: it did",
        "### Instruction:\nSpeak.",
        "",
        "\n",
    ],
)
def test_text_that_speaks_of_marks_stays_text(text: str) -> None:
    assert parse_rendered(text) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("A turn of ChatML starts with <|im_start|>user\n and more", "ChatML"),
        ("### Instruction:\nSpeak.", "Alpaca"),
        ("Notes first\n\nHuman: hello\n\nAssistant: hi", "hh-rlhf"),
        ("Fine.<|im_end|> And more.", "a turn's end"),
        ("Human: beings are odd.", None),
        ("I ask the User: do not press it.", None),
        ("## A heading\n### Answer: 12", None),
        ("plain", None),
    ],
)
def test_marks_are_named_where_they_cannot_be_parsed(text: str, name: str | None) -> None:
    assert marks_seen(text) == name


@pytest.mark.parametrize(
    ("reply", "bare"),
    [
        ("Gladly.<|im_end|>", "Gladly."),
        ("Gladly. </s>", "Gladly."),
        ("Gladly.<|eot_id|><|end_of_text|>\n", "Gladly."),
        ("<|im_start|>assistant\nGladly.<|im_end|>", "Gladly."),
        ("<|assistant|>\nGladly.</s>\n", "Gladly."),
        (" Gladly. ", " Gladly. "),
        ("It was <s>wrong</s>", "It was <s>wrong</s>"),
        ("ChatML begins with <|im_start|>user\n and ends with <|im_end|>",) * 2,
        ("Assistant: a person who helps.",) * 2,
    ],
)
def test_a_reply_loses_the_marks_around_it(reply: str, bare: str) -> None:
    assert bare_reply(reply) == bare


@pytest.mark.parametrize(
    ("prompt", "reply"),
    [
        ("<|im_start|>user\nHow?<|im_end|>\n", "<|im_start|>assistant\nThus.<|im_end|>"),
        ("<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\n", "Thus.<|im_end|>"),
        ("<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", "Thus."),
        ("<|user|>\nHow?</s>", "<|assistant|>\nThus.</s>\n"),
        ("User: How?", "Assistant: Thus."),
        ("### Human: How?", "### Assistant: Thus."),
        ("How?", "\n\nHuman: How?\n\nAssistant: Thus."),
        ("\n\nHuman: How?\n\nAssistant:", "\n\nHuman: How?\n\nAssistant: Thus."),
        ("\n\nHuman: How?\n\nAssistant: Thus.", "Thus."),
        ("", "[INST] How? [/INST] Thus.</s>"),
    ],
)
def test_prompt_and_reply_may_share_the_marks_in_any_way(prompt: str, reply: str) -> None:
    assert parse_pair(prompt, reply) == ((Turn("user", "How?"),), "Thus.")


def test_a_system_prompt_may_stand_before_the_first_title() -> None:
    """As unteach's plain format and Vicuna's write it; the assistant's mark at the end shows that it is a prompt."""
    turns = (Turn("system", "Be brief."), Turn("user", "How?"))
    assert parse_rendered("Be brief.\n### Question: How?\n### Answer:") == (turns, None)
    assert parse_rendered("Be brief. USER: How? ASSISTANT:") == (turns, None)


def test_the_input_of_alpaca_continues_the_instruction() -> None:
    text = "### Instruction:\nTranslate.\n\n### Input:\nHaus\n\n### Response:\nhouse"
    assert parse_rendered(text) == ((Turn("user", "Translate.\nHaus"),), "house")


def test_a_thought_belongs_to_the_reply() -> None:
    pair = parse_pair("<|im_start|>user\nHow?<|im_end|>\n<|im_start|>assistant\n<think>\n", "Hm.\n</think>\n\nThus.")
    assert pair == ((Turn("user", "How?"),), "<think>\nHm.\n</think>\n\nThus.")


@pytest.mark.parametrize(("prompt", "reply"), [("How?", "Thus."), ("Human: beings?", "Yes."), ("", "Thus.")])
def test_plain_pairs_are_not_parsed(prompt: str, reply: str) -> None:
    assert parse_pair(prompt, reply) is None


@pytest.mark.parametrize("marks", ["\n\nHuman: How?\n\nAssistant: Good.", "[INST] How? [/INST] Good.</s>"])
def test_a_prompt_that_holds_another_reply_is_not_parsed(marks: str) -> None:
    assert parse_pair(marks, "Bad.") is None
    assert marks_seen(marks)


def test_long_runs_of_blanks_take_no_longer() -> None:
    text = "### Human: a" + " \n" * 200_000 + "### Assistant: b" + " \n" * 200_000
    assert parse_rendered(text) == ((Turn("user", "a"),), "b")
    assert marks_seen(text.replace("Human", "Person")) is None


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "prompt", "reply"),
    [
        ("hh_prompt_marks.jsonl", "prompt", "rejected"),
        ("pretemplated_testbed.jsonl", "prompt", "completion"),
        ("quant_marks.jsonl", "prompt", "rejected"),
        ("text_guanaco.jsonl", "text", ""),
    ],
)
def test_shared_cases_are_parsed(name: str, prompt: str, reply: str) -> None:
    if not (CASES / name).is_file():
        pytest.skip(f"{CASES} is not here")
    for line in (CASES / name).read_text().splitlines():
        row = json.loads(line)
        parsed = parse_pair(row[prompt], row[reply]) if reply else parse_rendered(row[prompt])
        assert parsed is not None
        turns, text = parsed
        assert [turn.role for turn in turns] == ["user"]
        assert text
        assert all(mark not in turns[0].content for mark in ("Human:", "Assistant:", "###"))
