"""The forms that a trained model is exported in: each is written to a directory, and loaded from there afresh."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from unteach.data.ollama import modelfile, ollama_template, plain_template, runtime_adds_bos
from unteach.data.prompt_format import PromptFormat, prompt_format
from unteach.disk.files import is_partial, write_whole
from unteach.errors import ConfigError, nearest
from unteach.models.adapter import attach_adapter
from unteach.models.directory import base_of, is_adapter
from unteach.models.gguf import need_package, read_gguf
from unteach.models.gguf_file import check_writable, convert, converter, write_gguf
from unteach.models.gguf_words import gguf_words, split_as
from unteach.models.loading import DTYPES, load_config, load_model, load_tokenizer
from unteach.models.reply import named_end
from unteach.models.saving import save_model
from unteach.pipeline.config import RunConfig
from unteach.pipeline.finished import FinishedRun

FORMS = ("merged", "adapter", "gguf", "ollama")
GUIDANCE = "guidance.json"
"""What a model directory of the mistake route says of its reminder; it goes with the weights."""
WEIGHTS = "model.gguf"


@dataclass(frozen=True)
class Subject:
    """The trained model of a run, in float32 with its adapter merged, and how it is asked."""

    run: FinishedRun
    config: RunConfig
    model: Any
    tokenizer: Any
    form: PromptFormat

    @property
    def adapter(self) -> bool:
        """Whether the run has trained an adapter."""
        return is_adapter(self.run.model)

    @property
    def dtype(self) -> torch.dtype:
        """The precision that the original came in."""
        came = getattr(self.model, "as_it_came", None)
        return getattr(came, "dtype", None) or torch.float32


def read_forms(words: Sequence[str]) -> list[str]:
    """Return the forms that are asked for, each once; ollama brings its GGUF file. Raises ConfigError."""
    names = list(dict.fromkeys(name.strip() for word in words for name in word.split(",") if name.strip()))
    for name in names:
        if name not in FORMS:
            raise ConfigError(f"--as {name}: unknown{nearest(name, FORMS)} (known: {', '.join(FORMS)})")
    return [name for name in names if name != "gguf" or "ollama" not in names] or ["merged"]


def check_forms(forms: Sequence[str], run: FinishedRun, config: RunConfig) -> None:
    """Raise ConfigError for forms that a run cannot be exported in, and ModelError where a converter is not there."""
    adapter = is_adapter(run.model)
    if "adapter" in forms and not adapter:
        raise ConfigError(f"--as adapter: {run.directory} has trained all weights, so there is none; use --as merged")
    whole = [form for form in forms if form != "adapter"]
    if not whole:
        return
    base = base_of(run.model) if adapter else str(run.model)
    kind = "4-bit weights (--load-in-4bit)" if config.load_in_4bit else ""
    if not kind and getattr(load_config(base, trust_remote_code=config.trust_remote_code), "quantization_config", None):
        kind = "quantised weights"
    if kind:
        raise ConfigError(
            f"--as {whole[0]}: {run.directory} was trained and measured on {kind}, and merged into whole weights its "
            "adapter makes another model; use --as adapter, and serve it on the same weights"
        )
    if any(form in ("gguf", "ollama") for form in forms):
        need_package(run.model)
        converter()


def check_subject(forms: Sequence[str], subject: Subject) -> None:
    """Raise ModelError or ConfigError for a model that cannot be written in one of the forms, before any is."""
    if not any(form in ("gguf", "ollama") for form in forms):
        return
    if converter() is None:
        name = str(subject.run.model)
        check_writable(name, subject.model.config)
        gguf_words(name, subject.tokenizer, subject.model.get_input_embeddings().num_embeddings)
        if "ollama" in forms:
            ollama_template(subject.form, runtime_adds_bos(subject.form))


def write_form(form: str, subject: Subject, place: Path, dtype: str) -> str:
    """Write one form into an empty directory; return its precision. Raises UnteachError."""
    if form == "merged":
        save_model(subject.model.save_pretrained, subject.model, subject.tokenizer, place)
        _copy_guidance(subject, place)
        if _lacks_template(subject):  # a chat server would refuse the model, or ask it in a form of its own
            write_whole(place / "chat_template.jinja", plain_template(subject.form))
        return _name_of(subject.dtype)
    if form == "adapter":
        hidden = shutil.ignore_patterns(".*")
        shutil.copytree(subject.run.model, place, dirs_exist_ok=True, ignore=hidden)
        weights = load_file(place / "adapter_model.safetensors")
        return _name_of(next(iter(weights.values())).dtype)
    chosen = DTYPES.get(dtype, subject.dtype)
    _write_gguf(subject, place / WEIGHTS, chosen)
    if form == "ollama":
        template = ollama_template(subject.form, bool(_said(place / WEIGHTS, "tokenizer.ggml.add_bos_token")))
        stops = [
            text for token in sorted(subject.form.end.tokens) if (text := subject.tokenizer.decode([token]).strip())
        ]
        system = subject.form.settings.system
        write_whole(place / "Modelfile", modelfile(WEIGHTS, template, stops, system))
    return _name_of(chosen)


def load_form(form: str, place: Path, subject: Subject, device: Any) -> tuple[Any, PromptFormat]:
    """Load an artefact afresh, as others would: whole weights, an adapter on its base, or a GGUF file dequantised."""
    config = subject.config
    if form == "adapter":
        model, tokenizer = attached(config, place, device), load_tokenizer(place)
        return model, _format(tokenizer, config.prompt_format, model, subject)
    if form == "merged":
        remote = config.trust_remote_code
        model = load_model(place, dtype="float32", device=device, trust_remote_code=remote)
        name = "auto" if _lacks_template(subject) else config.prompt_format
        return model, _format(load_tokenizer(place, trust_remote_code=remote), name, model, subject)
    model, tokenizer = read_gguf(place / WEIGHTS)
    split_as(tokenizer, str(_said(place / WEIGHTS, "tokenizer.ggml.pre")))
    return model.to(device).eval(), _format(tokenizer, "auto", model, subject)


def attached(config: RunConfig, directory: Path, device: Any) -> Any:
    """Return the base of an adapter with the adapter on it, unmerged; the base in 4 bits where the run had it so."""
    four = config.load_in_4bit
    base = load_model(
        base_of(directory),
        dtype=config.dtype if four else "float32",
        device=device,
        load_in_4bit=four,
        trust_remote_code=config.trust_remote_code,
    )
    return attach_adapter(base, directory)


def _write_gguf(subject: Subject, path: Path, dtype: torch.dtype) -> None:
    """Write the GGUF file, by llama.cpp's converter where there is one."""
    script, form = converter(), subject.form
    template = subject.tokenizer.chat_template if form.name == "chat" else plain_template(form)
    template = template.get("default") if isinstance(template, dict) else template
    if script is None:
        write_gguf(
            path,
            subject.model,
            subject.tokenizer,
            dtype,
            chat_template=template,
            ends=form.end.tokens,
            adds_bos=runtime_adds_bos(form),
        )
        return
    whole = path.with_name(".whole")
    try:
        save_model(subject.model.save_pretrained, subject.model, subject.tokenizer, whole)
        if template:
            write_whole(whole / "chat_template.jinja", template)
        convert(script, whole, path, dtype)
    finally:
        shutil.rmtree(whole, ignore_errors=True)


def _format(tokenizer: Any, name: str, model: Any, subject: Subject) -> PromptFormat:
    """Return how an artefact is asked: by its own tokenizer and template, with the settings of the run."""
    return prompt_format(tokenizer, name, named_end(model), subject.form.settings)


def _lacks_template(subject: Subject) -> bool:
    """Whether the model has no chat template, so that the run asked it in the plain format."""
    return subject.form.name == "plain" and not getattr(subject.tokenizer, "chat_template", None)


def _copy_guidance(subject: Subject, place: Path) -> None:
    if (subject.run.model / GUIDANCE).is_file():
        shutil.copyfile(subject.run.model / GUIDANCE, place / GUIDANCE)


def _said(path: Path, key: str) -> Any:
    """Return a field of a GGUF file; None where it has none."""
    from gguf import GGUFReader

    found = GGUFReader(path).get_field(key)
    return None if found is None else found.contents()


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def bytes_of(place: Path) -> int:
    """Return the size of all files of an artefact."""
    return sum(path.stat().st_size for path in place.rglob("*") if path.is_file() and not is_partial(path))
