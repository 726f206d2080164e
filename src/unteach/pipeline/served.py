"""unteach evaluate --endpoint: measure a model as it is served, by what it replies."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unteach.data.example import Example
from unteach.data.prompt_format import TemplateSettings
from unteach.errors import ConfigError
from unteach.evaluation.evaluation import Evaluation
from unteach.evaluation.served import ServedFormat, as_asked, evaluate_served
from unteach.models.endpoint import Endpoint, chat_address, key_from_environment, warn_of_readable_key
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.directory import check_inputs, output_directory
from unteach.pipeline.judging import judges_of, trusted_judges, with_judges
from unteach.pipeline.measure import make_report, write_report
from unteach.pipeline.rows import read_evaluation_rows
from unteach.pipeline.settings import flag, inputs_of, write_config
from unteach.results.report import Report
from unteach.text.escape import inert_line

KEY_NAME = "UNTEACH_ENDPOINT_API_KEY"
"""The variable with the key of the server that is measured. The judge has another one: keys go nowhere else."""
OF_WEIGHTS = (
    "retrained",
    "lm_eval",
    "lm_eval_items",
    "samples",
    "non_members",
    "revision",
    "dtype",
    "device",
    "load_in_4bit",
    "trust_remote_code",
    "template_arg",
    "template_date",
    "prompt_format",
    "max_length",
    "evaluation_max_length",
)
"""Settings about weights or tokens, which a server keeps to itself."""


@dataclass(frozen=True)
class Server:
    """Where the model is served, and how to ask: requests at a time, and seconds for each of them."""

    url: str
    concurrency: int = 8
    timeout: float = 120.0

    def endpoint(self, config: RunConfig) -> Endpoint:
        """Return the endpoint of a model. Raises ConfigError for an address that cannot be."""
        endpoint = Endpoint(
            chat_address(self.url, "--endpoint", KEY_NAME),
            config.model,
            key_from_environment((KEY_NAME,)),
            concurrency=self.concurrency,
            timeout=self.timeout,
            longest=config.max_new_tokens,
            takes_cut=True,
            key_name=KEY_NAME,
        )
        warn_of_readable_key(endpoint, "--endpoint")
        return endpoint


def evaluate_endpoint(config: RunConfig, server: Server, *, overwrite: bool = False) -> Report:
    """Return the measurements of `config.model` as a server answers for it: those that replies alone can tell.

    Rows, splits and judges are those of `evaluate`; the model is the arm "original". Raises UnteachError.
    """
    if not config.model or not (config.forget or config.retain):
        raise ConfigError(f"{'--forget or --retain' if config.model else '--model'} is missing; see --help")
    for name in OF_WEIGHTS:
        if name in config.model_fields_set and getattr(config, name) != type(config).model_fields[name].default:
            raise ConfigError(f"{flag(name)}: is about weights that are loaded here; leave it out with --endpoint")
    with output_directory(config.output, overwrite=overwrite) if config.output else nullcontext() as directory:
        return _evaluate(config, server, directory, overwrite)


def _evaluate(config: RunConfig, server: Server, directory: Path | None, overwrite: bool) -> Report:
    template, config = config.template, with_defaults(config)
    if directory:
        check_inputs(directory, inputs_of(config.model_copy(update={"model": ""})), overwrite=overwrite)
    endpoint = server.endpoint(config)
    judges = judges_of(config)
    sets = read_evaluation_rows(config)
    splits = {name: _chats(name, rows, config, sets.notes) for name, rows in sets.evaluation.items() if rows}
    if not any(splits.values()):
        raise ConfigError("--endpoint: all rows are running text, which no chat asks for; measure the weights instead")
    trusted = trusted_judges(judges, sets.evaluation["unseen"], sets.evaluation["normal"], sets.notes, judged=True)
    config = with_judges(config, judges, trusted)
    form: Any = ServedFormat(TemplateSettings(system=config.system))
    evaluation = Evaluation(
        {name: as_asked(rows) for name, rows in splits.items() if rows},
        form,
        trusted,
        config.max_new_tokens,
        config.scenario,
        seed=config.seed,
        template=template,
    )
    notes = evaluate_served(evaluation, "original", endpoint, form)
    report = make_report(
        evaluation,
        scenario=config.scenario,
        method="none",
        model=config.model,
        judges=config.judge,
        seed=config.seed,
        sources=sets.sources,
        notes=[*sets.notes, *notes],
    )
    report.weights = ""
    report.command = (
        f"unteach evaluate --config run.yaml --endpoint {server.url} --model {config.model} --output another-directory"
    )
    if directory:
        write_config(config.model_copy(update={"template": template}), directory, report.command, overwrite=overwrite)
        write_report(report, directory)
    return report


def _chats(name: str, rows: list[Example], config: RunConfig, notes: list[str]) -> list[Example]:
    """Return the rows that a chat can ask for, as many as are evaluated."""
    chats = [row for row in rows if not row.is_passage and row.turns]
    if len(chats) < len(rows):
        left = len(rows) - len(chats)
        notes.append(f"{inert_line(name)}: left out {left} of {len(rows)} rows of running text, which no chat asks for")
    return chats[: config.evaluation_prompts]
