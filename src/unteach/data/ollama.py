"""Ollama's template of a model, found by asking the prompt format what it writes around messages.

Ollama runs no Jinja: its templates are in Go's language. Without a TEMPLATE in the Modelfile it takes the nearest of
its own by edit distance and, where none is near, sends the prompt bare (template/template.go of ollama). So the
TEMPLATE is written out. It is made from what stands before, between and after the messages of probes, and taken only
where it writes what the prompt format writes for other dialogues.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unteach.data.chat_template import ChatTemplate
from unteach.data.prompt_format import PromptFormat
from unteach.errors import ConfigError
from unteach.prompts.turn import Turn

_MARKS = ("unteachsystem", "unteachfirst", "unteachreply", "unteachsecond")
_TRIALS = (
    (("user", "How are you?\nTell me."),),
    (("system", "Be brief."), ("user", "Hi {{ .Name }}")),
    (("user", "a"), ("assistant", "b <b>"), ("user", 'c "c"')),
    (("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"), ("user", "e")),
)

Write = Callable[[Sequence[Turn]], str]


@dataclass(frozen=True)
class OllamaTemplate:
    """What is written around messages: before the first one, between them, and before a reply.

    `system` is (before, after) a system message; None where the chat template refuses one.
    """

    start: str
    system: tuple[str, str] | None
    to_reply: str
    from_reply: str
    end: str

    def write(self, turns: Sequence[Turn]) -> str:
        """Return what the Go template writes for a dialogue that ends with a user's turn."""
        text, rest = self.start, list(turns)
        if rest[0].role == "system":
            before, after = self.system or ("", "")
            text, rest = before + rest[0].content + after, rest[1:]
        for number, turn in enumerate(rest):
            if turn.role == "assistant":
                text += self.to_reply
            elif number:
                text += self.from_reply
            text += turn.content
        return text + self.end

    def source(self) -> str:
        """Return the template in Go's language."""
        start = go_text(self.start)
        if self.system:
            before, after = map(go_text, self.system)
            start = f"{{{{ if .System }}}}{before}{{{{ .System }}}}{after}{{{{ else }}}}{start}{{{{ end }}}}"
        return (
            f'{{{{ $last := "" }}}}{start}{{{{ range .Messages }}}}'
            f'{{{{ if eq .Role "user" }}}}{{{{ if $last }}}}{go_text(self.from_reply)}{{{{ end }}}}{{{{ .Content }}}}'
            f'{{{{ $last = .Role }}}}{{{{ else if eq .Role "assistant" }}}}{go_text(self.to_reply)}{{{{ .Content }}}}'
            f'{{{{ $last = .Role }}}}{{{{ end }}}}{{{{ end }}}}{{{{ if ne $last "assistant" }}}}{go_text(self.end)}'
            "{{ end }}"
        )


def runtime_adds_bos(form: PromptFormat) -> bool:
    """Tell whether a runtime should put BOS before every prompt: prompts begin with it, and it marks no turns."""
    begins = form.prompt_ids((Turn("user", "?"),))[:1] == [form.tokenizer.bos_token_id]
    return begins and bool(form.ids.start)


def ollama_template(form: PromptFormat, adds_bos: bool) -> OllamaTemplate:
    """Return Ollama's template of a prompt format; `adds_bos` says that the runtime puts BOS before every prompt.

    Raises ConfigError for a chat template that writes something else than fixed text around messages.
    """
    write = _writer(form, adds_bos)
    try:
        found = _found(write)
        trials = [[Turn(role, text) for role, text in trial] for trial in _TRIALS]
        if all(found.write(trial) == write(trial) for trial in trials if found.system or trial[0].role != "system"):
            return found
    except ValueError:
        pass
    raise ConfigError(
        "--as ollama: the chat template does more than write fixed text around messages, so Ollama's template "
        "language cannot say what it does; use --as gguf with a server that runs it, such as llama-server --jinja"
    )


def modelfile(gguf: str, template: OllamaTemplate, stops: Sequence[str], system: str | None) -> str:
    """Return the Modelfile beside a GGUF file. Raises ConfigError for a text that its syntax cannot hold."""
    lines = [f"FROM ./{gguf}", f"TEMPLATE {_quoted(template.source())}"]
    lines += [f"SYSTEM {_quoted(system)}"] if system else []
    lines += [f'PARAMETER stop "{stop}"' for stop in stops if stop.isprintable() and '"' not in stop]
    lines += ["PARAMETER repeat_penalty 1"]  # Ollama's own default changes replies, also at temperature 0
    return "\n".join(lines) + "\n"


def go_text(text: str) -> str:
    """Return a text as Go's templates take it: braces and what a Modelfile would lose are written as actions."""
    return '{{ "{{" }}'.join("".join(map(_letter, part)) for part in text.split("{{"))


def _letter(letter: str) -> str:
    return letter if letter == "\n" or letter.isprintable() else f'{{{{ "\\U{ord(letter):08x}" }}}}'


def _quoted(text: str) -> str:
    if '"""' in text:
        raise ConfigError('--as ollama: the template or the system message holds """, which a Modelfile cannot hold')
    return f'"""{text}"""'


def _writer(form: PromptFormat, adds_bos: bool) -> Write:
    """Return what writes a dialogue as text, without the BOS that the runtime adds and without --system."""
    bos = form.tokenizer.bos_token or ""
    if form.name == "chat":
        template = ChatTemplate(form.tokenizer, form.settings.arguments, form.settings.date)
        return lambda turns: template.prompt(turns).removeprefix(bos if adds_bos else "")
    start = "" if adds_bos or not form.ids.start else bos
    return lambda turns: start + _plain(turns, form.ids.space, form.tokenizer.eos_token or "")


def _plain(turns: Sequence[Turn], space: str, eos: str) -> str:
    marks = {"user": ("### Question: ", "\n"), "assistant": (f"### Answer:{space}", eos), "system": ("", "\n")}
    return "".join(marks[turn.role][0] + turn.content + marks[turn.role][1] for turn in turns) + "### Answer:"


def plain_template(form: PromptFormat) -> str:
    """Return the plain format as a chat template, for runtimes that would take one of their own otherwise."""
    bos = "{{ bos_token }}" if form.ids.start else ""
    eos = " + eos_token" if form.tokenizer.eos_token else ""
    return (
        f"{bos}{{% for message in messages %}}{{% if message['role'] == 'assistant' %}}"
        f"{{{{ '### Answer:{form.ids.space}' + message['content']{eos} }}}}{{% elif message['role'] == 'system' %}}"
        "{{ message['content'] + '\\n' }}{% else %}{{ '### Question: ' + message['content'] + '\\n' }}{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}{{ '### Answer:' }}{% endif %}"
    )


def _found(write: Write) -> OllamaTemplate:
    """Return what stands around the messages of probes. Raises ValueError where a probe does not show its messages."""
    system, first, reply, second = _MARKS
    start, end = _split(write([Turn("user", first)]), first)
    dialogue = [Turn("user", first), Turn("assistant", reply), Turn("user", second)]
    _, to_reply, from_reply, _ = _split(write(dialogue), first, reply, second)
    try:
        before, after, _ = _split(write([Turn("system", system), Turn("user", first)]), system, first)
    except ConfigError:
        return OllamaTemplate(start, None, to_reply, from_reply, end)
    return OllamaTemplate(start, (before, after), to_reply, from_reply, end)


def _split(text: str, *marks: str) -> list[str]:
    """Return what stands between the marks, which must each be there once and in order. Raises ValueError."""
    parts = []
    for mark in marks:
        if text.count(mark) != 1:
            raise ValueError
        before, _, text = text.partition(mark)
        parts.append(before)
    return [*parts, text]
