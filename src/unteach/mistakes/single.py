"""Single steps on files: induce, analyse, chat."""

import os
from pathlib import Path

from rich.console import Console

from unteach.errors import ConfigError, OutputError
from unteach.mistakes.chat import chat
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.guide import read_guidance, without_guidance
from unteach.mistakes.material import gather, read_all_mistakes
from unteach.mistakes.records import write_analyses, write_mistakes
from unteach.mistakes.run import judges_of
from unteach.mistakes.steps import Found, find_analyses, find_mistakes, make_analyst
from unteach.models.loading import load_model, load_tokenizer
from unteach.pipeline.original import load_original
from unteach.prompts.mistakes import load_wording


def induce_file(config: MistakesConfig) -> str:
    """Induce mistakes on all prompts and write them to the file `config.output`; returns what to tell of it."""
    path = _file(config)
    if not config.prompts:
        raise ConfigError("--prompts is missing; see unteach mistakes induce --help")
    judges = judges_of(config)
    wording = load_wording(config.wording)
    material = gather(config, hold_out=False)
    found = Found()
    find_mistakes(config, material, load_original(config, trained=True), judges[0], wording, found)
    write_mistakes(path, found.mistakes)
    return "\n".join([*material.notes, *found.notes, f"{len(found.mistakes)} mistakes are in {path}"])


def analyse_file(config: MistakesConfig) -> str:
    """Analyse the mistakes of --mistakes and --reports and write the analyses to `config.output`."""
    path = _file(config)
    if not (config.mistakes or config.reports):
        raise ConfigError("--mistakes is missing; see unteach mistakes analyse --help")
    judges_of(config)
    wording = load_wording(config.wording)
    found = Found()
    found.mistakes = read_all_mistakes(config)
    original = load_original(config, trained=True)
    find_analyses(config, original, make_analyst(config, original), wording, found)
    write_analyses(path, found.analyses)
    return "\n".join([*found.notes, f"{len(found.analyses)} analyses are in {path}"])


def chat_with(
    model: str,
    *,
    guided: bool,
    wording: str | None,
    temperature: float,
    seed: int,
    max_new_tokens: int,
    prompt_format: str,
    device: str | None,
) -> None:
    """Talk to a model in the terminal; its own reminder is used, else that of the wording."""
    words = load_wording(wording)
    directory = Path(model)
    own = read_guidance(directory) if directory.is_dir() else None
    reminder = words.reminder if wording or own is None else own
    chat(
        load_model(model, device=device),
        without_guidance(load_tokenizer(model)),  # the loop puts the reminder in itself, so that it can be switched off
        reminder=reminder if guided else None,
        prompt_format=prompt_format,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
        console=Console(highlight=False),
    )


def _file(config: MistakesConfig) -> Path:
    """Return the file to write. Raises OutputError where there is one already, or none can be written."""
    if not config.output:
        raise OutputError("--output is missing; name a file such as mistakes.jsonl")
    path = Path(config.output)
    if path.exists():
        raise OutputError(f"--output {path}: is there already; name another file, or remove it")
    folder = next(place for place in path.absolute().parents if place.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"--output {path}: no permission to write in {folder}; name another file")
    return path
