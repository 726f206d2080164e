"""Ollama's template: what its source writes, read by an interpreter of our own, is what the prompt format writes."""

import re
from typing import Any

import pytest

import gguf_toy
from unteach.data.ollama import go_text, modelfile, ollama_template, plain_template, runtime_adds_bos
from unteach.data.prompt_format import TemplateSettings, prompt_format
from unteach.errors import ConfigError
from unteach.prompts.turn import Turn

CHATML = (
    "{% for m in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<s>sys\nBe kind.<|end|>\n' }}"
    "{% endif %}{{ '<s>' + m['role'] + '\n' + m['content'] + '<|end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
NO_SYSTEM = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ '{{}}' }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
DIALOGUES = (
    [("user", "a {{ .Role }}\n\nb")],
    [("system", "Be brief."), ("user", "x")],
    [("user", "x"), ("assistant", "y"), ("user", "z")],
    [("system", "s"), ("user", "x"), ("assistant", "y"), ("user", "z"), ("assistant", "y"), ("user", "last")],
)


class Go:
    """The part of Go's text/template that the source uses: if, else, range, variables, fields, eq, ne and strings."""

    def __init__(self, source: str) -> None:
        self.parts = re.split(r'(\{\{(?:"[^"]*"|[^"}])*\}\})', source)

    def run(self, messages: list[tuple[str, str]]) -> str:
        system = "\n\n".join(text for role, text in messages if role == "system")
        self.names: dict[str, Any] = {}
        text, _, end = self.block(0, {"System": system, "Messages": [{"Role": r, "Content": c} for r, c in messages]})
        assert end == len(self.parts)
        return text

    def value(self, word: str, dot: Any) -> Any:
        if word.startswith('"'):
            return re.sub(r"\\U([0-9a-f]{8})", lambda found: chr(int(found[1], 16)), word[1:-1])
        return self.names[word] if word.startswith("$") else dot[word[1:]]

    def holds(self, words: list[str], dot: Any) -> bool:
        if words[0] in ("eq", "ne"):
            return (self.value(words[1], dot) == self.value(words[2], dot)) is (words[0] == "eq")
        return bool(self.value(words[0], dot))

    def block(self, place: int, dot: Any) -> tuple[str, list[str], int]:
        """Run up to the else or the end that closes the block; return text, the words of the closing action, place."""
        text = ""
        while place < len(self.parts):
            part = self.parts[place]
            words = re.findall(r'"[^"]*"|\S+', part[2:-2]) if part.startswith("{{") else None
            place += 1
            if words is None:
                text += part
            elif words[0] in ("else", "end"):
                return text, words, place
            elif words[0] == "if":
                more, place = self.branch(place, words[1:], dot)
                text += more
            elif words[0] == "range":
                items, start = self.value(words[1], dot), place
                for item in items:
                    more, _, place = self.block(start, item)
                    text += more
            elif len(words) == 3 and words[1] in (":=", "="):
                assert (words[1] == ":=") is (words[0] not in self.names)
                self.names[words[0]] = self.value(words[2], dot)
            else:
                text += self.value(words[0], dot)
        return text, [], place

    def branch(self, place: int, condition: list[str], dot: Any) -> tuple[str, int]:
        kept, names = self.names, dict(self.names)
        holds = self.holds(condition, dot)
        if not holds:
            self.names = dict(names)
        text, closing, place = self.block(place, dot)
        if not holds:
            self.names, text = kept, ""
        if closing[0] == "end":
            return text, place
        if len(closing) > 1:
            kept = self.names
            other, place = self.branch(place, closing[2:], dot)
        else:
            kept = self.names
            self.names = dict(kept)
            other, _, place = self.block(place, dot)
            if not holds:
                kept = self.names
        if holds:
            self.names = kept
        return (text if holds else other), place


def form_of(template: str | None, **settings: Any) -> Any:
    return prompt_format(gguf_toy.words(template=template), "auto", None, TemplateSettings(**settings))


@pytest.mark.parametrize("template", [CHATML, NO_SYSTEM, gguf_toy.TEMPLATE, None])
@pytest.mark.parametrize("adds_bos", [False, True])
def test_the_source_writes_what_the_prompt_format_writes(template: str | None, adds_bos: bool) -> None:
    form = form_of(template)
    source = Go(ollama_template(form, adds_bos).source())
    for dialogue in DIALOGUES:
        if template == NO_SYSTEM and dialogue[0][0] == "system":
            continue
        turns = [Turn(role, text) for role, text in dialogue]
        wanted = form.tokenizer.decode(form.prompt_ids(turns))
        assert source.run(dialogue) == (wanted.removeprefix("<s>") if adds_bos else wanted)


def test_bos_is_left_to_the_runtime_unless_it_marks_turns() -> None:
    """SmolLM2's BOS begins every turn: a runtime that adds one would write two, or take the first turn's mark away."""
    assert [runtime_adds_bos(form_of(template)) for template in (gguf_toy.TEMPLATE, None)] == [True, True]
    assert not runtime_adds_bos(form_of(CHATML)) and not runtime_adds_bos(form_of(CHATML.replace("<s>", "")))


def test_a_reply_that_has_begun_is_gone_on_with() -> None:
    source = Go(ollama_template(form_of(CHATML), False).source())
    asked = source.run([("user", "x")])
    assert source.run([("user", "x"), ("assistant", "I ca")]) == asked + "I ca"


def test_a_template_that_does_more_is_refused() -> None:
    for template in (
        "{% for m in messages[-1:] %}{{ m.role }}{{ m.content }}<|end|>{% endfor %}{{ 'x' if add_generation_prompt }}",
        "{% for m in messages %}{{ loop.index }}{{ m.role }}{{ m.content }}<|end|>{% endfor %}"
        "{{ 'x' if add_generation_prompt }}",
    ):
        with pytest.raises(ConfigError, match=r"--as ollama: .* use --as gguf"):
            ollama_template(form_of(template), False)


def test_what_a_modelfile_would_lose_is_written_as_actions() -> None:
    text = "a{{b}}\u200b\tc\n"
    assert go_text(text) == 'a{{ "{{" }}b}}{{ "\\U0000200b" }}{{ "\\U00000009" }}c\n'
    assert Go(go_text(text)).run([]) == text
    template = ollama_template(form_of(CHATML), False)
    file = modelfile("m.gguf", template, ["<|end|>", 'odd"'], "Be kind.")
    assert file.startswith('FROM ./m.gguf\nTEMPLATE """') and 'SYSTEM """Be kind."""' in file
    assert file.count("PARAMETER stop") == 1 and 'PARAMETER stop "<|end|>"' in file
    with pytest.raises(ConfigError, match="Modelfile cannot hold"):
        modelfile("m.gguf", template, [], 'say """')


def test_the_plain_format_as_a_chat_template_makes_the_same_tokens() -> None:
    plain = form_of(None)
    chat = form_of(plain_template(plain))
    assert (plain.name, chat.name) == ("plain", "chat")
    for dialogue in DIALOGUES:
        turns = [Turn(role, text) for role, text in dialogue]
        assert chat.prompt_ids(turns) == plain.prompt_ids(turns)
        assert chat.reply_ids(turns, "yes the") == plain.reply_ids(turns, "yes the")
