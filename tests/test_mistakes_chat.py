"""The terminal chat: what the model is asked, what is shown, and that nothing a person types breaks it."""

import io
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from rich.console import Console

import toy
from test_data_prompt_format import LIKE_CHATML, MARKS, byte_level, chatty
from unteach.data.prompt_format import prompt_format
from unteach.errors import ConfigError, DataError, Interrupted
from unteach.mistakes import chat as module
from unteach.mistakes.chat import Dialogue, chat
from unteach.mistakes.guide import export_guidance, guided_format

SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
REMINDER = "Mind it."


class Screen(Console):
    """A terminal that remembers, and the person before it, who types these lines and then leaves."""

    def __init__(self, *lines: str | type[BaseException], encoding: str = "utf-8") -> None:
        self.bytes = io.BytesIO()
        stream = io.TextIOWrapper(self.bytes, encoding=encoding, write_through=True)
        super().__init__(file=stream, width=40, highlight=False, color_system=None)
        self.lines: Iterator[str | type[BaseException]] = iter(lines)
        self.asked: list[str] = []

    def read(self, shown: str) -> str:
        self.asked.append(shown)
        line = next(self.lines, EOFError)
        if isinstance(line, str):
            return line
        raise line

    @property
    def text(self) -> str:
        return self.bytes.getvalue().decode(str(self.encoding))


class Answers:
    """Stands for the model: remembers every prompt and how it was asked, and gives these replies in turn."""

    def __init__(self, *replies: str | BaseException) -> None:
        self.replies = iter(replies)
        self.prompts: list[str] = []
        self.settings: list[dict[str, Any]] = []

    def __call__(self, model: Any, tokenizer: Any, prompts: list[list[int]], **settings: Any) -> list[Any]:
        self.prompts.append(tokenizer.decode(prompts[0]))
        self.settings.append(settings)
        reply = next(self.replies, "no")
        if isinstance(reply, BaseException):
            raise reply
        return toy.replies([reply])


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answers]:
    def given(*replies: str | BaseException) -> Answers:
        made = Answers(*replies)
        monkeypatch.setattr(module, "generate", made)
        return made

    return given


def talk(screen: Screen, tokenizer: Any = None, context: int = 4000, **settings: Any) -> None:
    model = toy.model(max_position_embeddings=context)
    read = settings.pop("read", screen.read)
    settings = {"reminder": REMINDER} | settings
    chat(Dialogue(model, tokenizer or byte_level(**SPECIAL), **settings), screen, read)


def pipe(text: str, monkeypatch: pytest.MonkeyPatch, screen: Screen, **settings: Any) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    talk(screen, read=input, **settings)


def test_the_dialogue_is_kept_and_the_reminder_comes_and_goes(answers: Callable[..., Answers]) -> None:
    asked = answers("a cat", "yes", "be it")
    screen = Screen("what is it", "", "/guided", "  is it  ", "/guided", "no", "/new", "yes", "/quit", "never")
    talk(screen)
    assert asked.prompts == [
        "<s>Mind it.\n### Question: what is it\n### Answer:",
        "<s>### Question: what is it\n### Answer: a cat</s>### Question: is it\n### Answer:",
        "<s>Mind it.\n### Question: what is it\n### Answer: a cat</s>"
        "### Question: is it\n### Answer: yes</s>### Question: no\n### Answer:",
        "<s>Mind it.\n### Question: yes\n### Answer:",
    ]
    on, off = "[guided] you: ", "[unguided] you: "
    assert screen.asked == [on, on, on, off, off, on, on, on, on]
    shown = screen.text.splitlines()
    assert shown[0] == "reminder: Mind it."
    assert shown[2:] == [
        "[guided] model: a cat",
        "the reminder is off; what was said before stays",
        "[unguided] model: yes",
        "the reminder is on; what was said before stays",
        "[guided] model: be it",
        "the dialogue is forgotten",
        "[guided] model: no",
    ]


def test_without_a_reminder_there_is_none_even_in_the_template(answers: Callable[..., Answers]) -> None:
    asked = answers()
    tokenizer = guided_format(chatty(LIKE_CHATML, **MARKS), "Carried.").tokenizer
    screen = Screen("/guided", "what is it")
    talk(screen, tokenizer, reminder=None)
    assert asked.prompts == ["<|im_start|>user\nwhat is it<|im_end|>\n<|im_start|>assistant\n"]
    shown = screen.text.splitlines()
    assert shown[0] == shown[2] == "there is no reminder to turn on"
    assert shown[3] == "[unguided] model: no"
    assert screen.asked == ["[unguided] you: "] * 3


def test_a_model_that_was_exported_with_the_reminder_has_it_once(
    answers: Callable[..., Answers], tmp_path: Any
) -> None:
    asked = answers()
    tokenizer = chatty(LIKE_CHATML, **MARKS)
    tokenizer.save_pretrained(tmp_path)
    export_guidance(tmp_path, tokenizer, REMINDER)
    loaded = type(tokenizer).from_pretrained(tmp_path)
    talk(Screen("what is it", "/guided", "/new", "what is it"), loaded)
    assert [prompt.count(REMINDER) for prompt in asked.prompts] == [1, 0]


def test_replies_are_shown_inertly_and_in_letters_that_the_console_has(answers: Callable[..., Answers]) -> None:
    answers("\x1b[2J[red]a\u202eb[/red]\nwhat is it what is it what is it", "é 😀", "")
    screen = Screen("a", "b", "c", encoding="latin-1")
    talk(screen)
    assert screen.text.splitlines()[2:] == [
        "[guided] model: \\x1b[2J[red]a\\u202eb[/red]",
        "what is it what is it what is it",
        "[guided] model: é \\U0001f600",
        "[guided] model: (blank)",
        "",
    ]


def test_ctrl_c_ends_it_while_reading_and_while_replying(answers: Callable[..., Answers]) -> None:
    screen = Screen(KeyboardInterrupt)
    talk(screen)
    assert len(screen.asked) == 1 and screen.text.endswith("\n\n")
    answers(KeyboardInterrupt())
    screen = Screen("what", "is")
    talk(screen)
    assert len(screen.asked) == 1 and screen.text.endswith("\n\n")


@pytest.mark.parametrize("max_new_tokens", [4, 256])
def test_the_oldest_turns_go_when_the_context_is_full_and_the_reminder_stays(
    max_new_tokens: int, answers: Callable[..., Answers]
) -> None:
    asked = answers()
    words = toy.tokenizer()
    screen = Screen(*[f"how to a{number}" for number in range(5)])
    # BOS and the reminder are 3 tokens, a question with its marks 9, a reply with EOS 2: 3 + 9 + 11 + 11 leave room for
    # a reply, of 4 tokens or of a quarter of the context; a fourth question would leave 1.
    talk(screen, words, context=46, max_new_tokens=max_new_tokens, reminder="take no")
    lengths = [len(words(prompt, add_special_tokens=False)["input_ids"]) for prompt in asked.prompts]
    assert lengths == [12, 23, 34, 34, 34]
    assert all("take no" in prompt for prompt in asked.prompts)
    assert "a0" in asked.prompts[2] and "a0" not in asked.prompts[3] and "a1" in asked.prompts[3]
    assert "a1" not in asked.prompts[4] and "a2" in asked.prompts[4]
    assert screen.text.count("the context of 46 tokens is full: forgot the oldest 2 turns") == 2


def test_a_prompt_that_is_too_long_changes_nothing(answers: Callable[..., Answers]) -> None:
    asked = answers("go")
    screen = Screen("how to", "how " * 40, "take")
    talk(screen, toy.tokenizer(), context=40, max_new_tokens=4, reminder=None)
    assert len(asked.prompts) == 2
    assert "the model's context is 40, which leaves no room for a reply; shorten it" in screen.text
    assert "how to" in asked.prompts[1] and asked.prompts[1].endswith("take ### Answer :")


def test_unknown_commands_are_named_and_sentences_and_paths_are_prompts(answers: Callable[..., Answers]) -> None:
    asked = answers()
    screen = Screen("/guide", "/bin/x", "/new it is")
    talk(screen)
    assert "/guide: no such command; did you mean '/guided'? There are /guided, /new, /quit" in screen.text
    assert [prompt.rsplit("Question: ")[-1] for prompt in asked.prompts] == [
        "/bin/x\n### Answer:",
        "/new it is\n### Answer:",
    ]


def test_every_reply_has_its_own_seed_and_the_settings_arrive(answers: Callable[..., Answers]) -> None:
    asked = answers()
    talk(Screen("a", "/new", "a"), seed=5, temperature=0.7, max_new_tokens=9)
    ends = [settings.pop("end") for settings in asked.settings]
    assert asked.settings == [{"max_new_tokens": 9, "temperature": 0.7, "seed": seed} for seed in (5, 6)]
    assert ends == [prompt_format(byte_level(**SPECIAL)).end] * 2


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_new_tokens=0"):
        talk(Screen("what"), max_new_tokens=0)
    with pytest.raises(ConfigError, match="no chat template"):
        talk(Screen("what"), format_name="chat")


def test_too_little_memory_is_said(answers: Callable[..., Answers]) -> None:
    answers(torch.OutOfMemoryError("CUDA out of memory"), "yes")
    screen = Screen("a", "b")
    talk(screen)
    assert "the dialogue does not fit into memory; /new forgets it" in screen.text
    assert screen.text.endswith("[guided] model: yes\n\n")


def test_half_characters_from_a_terminal_are_replaced(answers: Callable[..., Answers]) -> None:
    asked = answers()
    talk(Screen("is \udce9 it"), reminder=None)
    assert asked.prompts == ["<s>### Question: is ? it\n### Answer:"]


def test_piped_lines_give_a_line_each(
    answers: Callable[..., Answers], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = answers("a\ncat " + "it " * 30, "\x1b", "", "no")
    screen = Screen()
    pipe("what is it\n\n/guided\nis it\n/new\nbe kind\nyes\n/quit\nnever\n", monkeypatch, screen)
    assert screen.text == "a ⏎ cat " + " ".join(["it"] * 30) + "\n\\x1b\n\nno\n"
    assert asked.prompts[1] == "<s>### Question: is it\n### Answer:"  # a prompt of its own, the reminder off
    assert asked.prompts[2] == "<s>### Question: be kind\n### Answer:"
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "the reminder is off; what was said before stays\nthe dialogue is forgotten\n"


def test_a_piped_line_that_cannot_be_answered_is_named(
    answers: Callable[..., Answers], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers("go", KeyboardInterrupt())
    screen = Screen()
    with pytest.raises(DataError, match="standard input, line 3: the prompt has .* shorten it"):
        pipe("how\n\n" + "how " * 40, monkeypatch, screen, tokenizer=toy.tokenizer(), context=40, max_new_tokens=4)
    assert screen.text == "go\n"
    with pytest.raises(Interrupted, match="line 1: stopped by Ctrl-C"):
        pipe("how\n", monkeypatch, screen)
    with pytest.raises(DataError, match="line 2: /old: no such command"):
        pipe("\n/old\n", monkeypatch, screen)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\n"), encoding="utf-8"))
    with pytest.raises(DataError, match="line 1: not UTF-8 text"):
        talk(screen, read=input)


def test_a_real_model_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen()
    monkeypatch.setattr(sys, "stdin", io.StringIO("how to a1 b2\n/new\nwhere is e3 f0\n"))
    chat(Dialogue(toy.learned_model(), toy.tokenizer(), None, max_new_tokens=8), screen)
    assert screen.text == "take c1 and d2\ngo g3 then h0\n"
