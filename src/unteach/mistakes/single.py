"""Single steps that write one file: collect, induce and analyse."""

import os
from dataclasses import replace
from pathlib import Path

from unteach.errors import ConfigError, OutputError
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.prepare import named_judges, prepare
from unteach.mistakes.records import Records, write_analyses, write_mistakes
from unteach.mistakes.rows import MistakeRows
from unteach.mistakes.steps import collect, find_analyses, find_mistakes, make_analyst
from unteach.models.ranks import by_first_rank


def induce_file(config: MistakesConfig) -> str:
    """Induce mistakes on all prompts and write them to the file `config.output`; returns what to tell the user."""
    path = _output_file(config)
    if not config.prompts:
        raise ConfigError("--prompts is missing; see unteach mistakes induce --help")
    prepared = prepare(config, single_step=True)
    records = find_mistakes(prepared)
    write_mistakes(path, records.mistakes)
    return "\n".join([*prepared.rows.notes, *records.notes, f"{len(records.mistakes)} mistakes are in {path}"])


def collect_file(config: MistakesConfig) -> str:
    """Ask a model all prompts as they stand, and write its bad replies to the file `config.output`.

    Without `config.prompts` the shipped harmful prompts are asked. Returns what to tell the user. Raises ConfigError
    where no reply is bad.
    """
    path = _output_file(config)
    prepared = prepare(config.model_copy(update={"judge": named_judges(config)}), single_step=True)
    records = collect(prepared)
    write_mistakes(path, records.mistakes)
    return "\n".join([*prepared.rows.notes, *records.notes, f"{len(records.mistakes)} negatives are in {path}"])


def analyse_file(config: MistakesConfig) -> str:
    """Analyse the mistakes of --mistakes and --reports and write the analyses to the file `config.output`."""
    path = _output_file(config)
    if not (config.mistakes or config.reports):
        raise ConfigError("--mistakes is missing; see unteach mistakes analyse --help")
    prepared = prepare(config, single_step=True)
    prepared = replace(prepared, records=Records(prepared.rows.labelled), rows=MistakeRows())
    records = find_analyses(prepared, make_analyst(prepared))
    write_analyses(path, records.analyses)
    return "\n".join([*records.notes, f"{len(records.analyses)} analyses are in {path}"])


@by_first_rank
def _output_file(config: MistakesConfig) -> Path:
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
