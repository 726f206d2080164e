"""Chat templates in their own process: what good ones write is what Transformers writes; bad ones end in one line."""

import copy
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import toy
from command import Place, call, place, save
from unteach.data import rendering
from unteach.data.chat_template import ChatTemplate
from unteach.data.rendering import TemplateRefusal, render
from unteach.errors import ConfigError
from unteach.prompts.turn import Turn

Capture = pytest.CaptureFixture[str]
TURNS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "Hello\n  there "}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "ünï 𝒜 \ud800 {{ 7*7 }} <s>"}],
    [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
    [{"role": "user", "content": [{"type": "text", "text": "part"}]}],
]
GOOD = {
    "plain": "{% for m in messages %}[{{ m.role }}] {{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}",
    "namespace": "{%- set ns = namespace(n=0) -%}\n{%- for m in messages -%}\n{%- set ns.n = ns.n + 1 -%}\n"
    "{{ ns.n }}:{{ m['content'] | tojson }}\n{% endfor %}{{ bos_token }}",
    "loop controls": "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.role }}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}",
    "refuses": "{% if messages[0].role == 'system' %}{{ raise_exception('no system, please') }}{% endif %}ok",
    "today": "{{ strftime_now('%Y') }}{{ tools is none }}{{ style | default('none') }}",
    "macro": "{% macro say(m) %}<{{ m.role | upper }}>{% endmacro %}{% for m in messages %}{{ say(m) }}{% endfor %}",
}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return toy.tokenizer()


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("generation", [True, False])
def test_it_writes_what_transformers_writes(name: str, generation: bool, tokenizer: Any) -> None:
    for messages in TURNS:
        settings: dict[str, Any] = {"tokenize": False, "add_generation_prompt": generation, "style": "terse"}
        try:
            expected = tokenizer.apply_chat_template(messages, chat_template=GOOD[name], **settings)
        except Exception as error:
            with pytest.raises(TemplateRefusal, match=str(error)):
                render(tokenizer, GOOD[name], messages, {"style": "terse"}, generation=generation)
            continue
        assert render(tokenizer, GOOD[name], messages, {"style": "terse"}, generation=generation) == expected


BROKEN = {
    "a range without end": "{% for i in range(10**12) %}x{% endfor %}",
    "a text without end": "{{ 'a' * 10**11 }}",
    "doubling": "{% set n = namespace(x='aa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "a wide format": "{{ '%1000000000d' % 1 }}",
    "a wide filter": "{{ 'a' | center(10**11) }}",
    "more than it was given": "{{ 'a' * 10**8 }}",
    "another file": "{% include 'other.jinja' %}",
    "itself": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "brackets": "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
    "nested lists": "{{ " + "[" * 5_000 + "]" * 5_000 + " }}",
    "half a tag": "{% for %}",
    "nothing there": "{{ messages[9].content.x }}",
    "the sandbox": "{{ ''.__class__.__mro__ }}{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "division": "{{ 1 // 0 }}",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_template_that_fails_refuses_and_the_next_dialogue_is_rendered(name: str, tokenizer: Any) -> None:
    with pytest.raises(TemplateRefusal) as refusal:
        render(tokenizer, BROKEN[name], TURNS[0])
    assert len(str(refusal.value)) <= 1000
    with pytest.raises(ConfigError, match="the chat template"):
        ChatTemplate(with_template(tokenizer, BROKEN[name])).prompt((Turn("user", "a"),))
    assert render(tokenizer, "{{ messages[0].role }}", TURNS[0]) == "user"


ENDLESS = {
    "loops": "{% for a in range(99999) %}{% for a in range(99999) %}{% for a in range(99999) %}{% endfor %}{% endfor %}"
    "{% endfor %}",
    "much text": "{% for a in range(99999) %}{% for a in range(99999) %}{{ lipsum(n=9) }}{% endfor %}{% endfor %}",
    "one long call": "{{ lipsum(n=10**9) }}",
}


def with_template(tokenizer: Any, template: str) -> Any:
    other = copy.copy(tokenizer)
    other.chat_template = template
    return other


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A renderer whose clock stands at one second."""
    worker = tmp_path / "worker.py"
    worker.write_text(rendering.WORKER.read_text().replace("SECONDS = 10\n", "SECONDS = 1\n"))
    monkeypatch.setattr(rendering, "WORKER", worker)
    made = rendering._Renderer()
    monkeypatch.setattr(rendering, "_renderer", made)
    yield made
    made.close()


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_without_end_is_ended_and_not_tried_again(name: str, hurried: Any, tokenizer: Any) -> None:
    render(tokenizer, "x", TURNS[0])  # the start takes its time
    began = time.monotonic()
    with pytest.raises(ConfigError, match="does not end.*--prompt-format plain"):
        render(tokenizer, ENDLESS[name], TURNS[0])
    assert time.monotonic() - began < 8
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(ConfigError, match="does not end"):
            render(tokenizer, ENDLESS[name], TURNS[1])
    assert time.monotonic() - began < 1
    assert render(tokenizer, "{{ messages[0].role }}", TURNS[0]) == "user"


def test_threads_get_their_own_answers(tokenizer: Any) -> None:
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        for _ in range(20):
            messages = [{"role": "user", "content": str(number)}]
            found[number] = found.get(number, "") + render(tokenizer, "{{ messages[0].content }},", messages)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: f"{number}," * 20 for number in range(8)}


def test_an_interruption_takes_no_answer_for_the_next_one(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    render(tokenizer, "x", TURNS[0])
    process = rendering._renderer._running()
    os.kill(process.pid, signal.SIGSTOP)  # no answer comes before the interruption
    timer = threading.Timer(0.3, signal.pthread_kill, [threading.main_thread().ident, signal.SIGINT])
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        render(tokenizer, "first", TURNS[0])
    timer.join()
    assert render(tokenizer, "second", TURNS[0]) == "second"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize("template", [ENDLESS["loops"], *list(BROKEN.values())[:4]])
def test_on_the_command_line(
    template: str, here: Place, tmp_path: Path, hurried: Any, tokenizer: Any, capsys: Capture
) -> None:
    model = save(toy.model(), tmp_path / "model", with_template(tokenizer, template))
    outcome = call(capsys, *here.quick(tmp_path / "out", model=model))
    assert outcome.code == 2 and outcome.err.startswith("Error: ") and outcome.err.count("\n") == 1, outcome.err
    assert "chat template" in outcome.err and "--prompt-format plain" in outcome.err
    assert not (tmp_path / "out").exists()
