"""RunConfig: every setting of a run, defined once; flags, help, run.yaml and documentation are made from it."""

import copy
import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from unteach.errors import ConfigError
from unteach.pipeline.limits import LimitSettings
from unteach.pipeline.settings import Settings, setting
from unteach.pipeline.sharding import ShardSettings, engine_of
from unteach.results.strength import read_strength
from unteach.scenarios import load_scenario, scenario_names
from unteach.text.bounded import YamlFault, read_yaml
from unteach.text.escape import inert_line
from unteach.training.settings import COMPILED, REFERENCES, UnlearnSettings

if TYPE_CHECKING:  # the command line makes its help from this file and must not wait for torch
    from unteach.training.config import UnlearnConfig


def _prompt_formats() -> Sequence[str]:
    from unteach.data.prompt_format import PROMPT_FORMATS

    return PROMPT_FORMATS


def _dtypes() -> Sequence[str]:
    from unteach.models.loading import DTYPES

    return ("auto", *DTYPES)


def _methods() -> Sequence[str]:
    from unteach.objectives.methods import method_names

    return method_names()


def _scalar(text: str) -> Any:
    """Return a text as the number or switch that it is in YAML, else as it is."""
    try:
        value = read_yaml(text)
    except YamlFault:
        return text
    return value if isinstance(value, bool | int | float) else text


def _as_in_trainer(group: str, name: str, text: str | None = None, **facts: Any) -> Any:
    """Make a setting that `UnlearnConfig` has too, with its default there and, without `text`, its help."""
    own = next(field for field in dataclasses.fields(UnlearnSettings) if field.name == name)
    default = {} if own.default is dataclasses.MISSING else own.default
    return setting(group, default, text or own.metadata["help"], **facts)


Scalar = bool | int | float | str


class ModelSettings(Settings):
    """The settings of every verb that loads a model to train or to evaluate it."""

    model: str = setting("Model", "", "Model: a directory, a run directory or a hub id.", names="model")
    revision: str | None = setting("Model", None, "Revision of a hub model.")
    dtype: str = setting("Model", "auto", "Precision: auto, float32, bfloat16 or float16.", choices=_dtypes)
    device: str | None = setting("Model", None, "cpu, cuda, cuda:0 …; the GPU where there is one.")
    load_in_4bit: bool = setting("Model", False, "QLoRA: frozen 4-bit weights; needs --lora.")
    trust_remote_code: bool = setting("Model", False, "Run Python code that comes with the model.")
    template_arg: dict[str, Scalar] = _as_in_trainer("Model", "template_arg", metavar="NAME=VALUE")
    system: str | None = _as_in_trainer("Model", "system", metavar="TEXT")
    template_date: str | None = _as_in_trainer(
        "Model", "template_date", "Day for templates that ask for it; unset: today.", metavar="YYYY-MM-DD"
    )
    lora: bool = setting("Model", False, "Train a LoRA adapter instead of all weights.")
    lora_rank: int = setting("Model", 16, "Rank of the adapter.", ge=1)
    lora_alpha: float = setting("Model", 32.0, "Scale of the adapter, divided by its rank.", gt=0)
    lora_targets: str = setting("Model", "all-linear", "Modules: all-linear, or names with commas.")

    @field_validator("template_arg", mode="before")
    @classmethod
    def _read_arguments(cls, value: Any) -> Any:
        """Read arguments that are text as YAML does: `false` is a switch and 3 a number."""
        if not isinstance(value, dict):
            return value
        return {name: _scalar(text) if isinstance(text, str) else text for name, text in value.items()}

    @field_validator("template_date")
    @classmethod
    def _read_day(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                datetime.date.fromisoformat(value)
            except ValueError:
                raise ValueError("write the day as YYYY-MM-DD") from None
        return value


class RunConfig(ShardSettings, LimitSettings, ModelSettings):
    """All settings of `unteach run`; a field `max_steps` is the flag `--max-steps`.

    Settings that `UnlearnConfig` has under the same name go to it unchanged; `trainer` holds any other field of
    `transformers.TrainingArguments`.
    """

    scenario: str = setting("Data", "harm", "What must stop: harm, copyright or hallucination.", choices=scenario_names)
    forget: list[str] = setting("Data", [], "What must go: file, directory, set or hub id; repeatable.", names="rows")
    retain: list[str] = setting("Data", [], "What must stay, likewise; unset: the model's own answers.", names="rows")
    column: dict[str, str] = setting("Data", {}, "Our name for a column of --forget.", metavar="OURS=THEIRS")
    retain_column: dict[str, str] = setting("Data", {}, "Our name for a column of --retain.", metavar="OURS=THEIRS")
    bad_label: list[str] = setting("Data", [], "Value of --forget's label that means bad; repeatable.", metavar="VALUE")
    retain_bad_label: list[str] = setting(
        "Data", [], "The same for --retain; unset: as --bad-label, where it has such values.", metavar="VALUE"
    )
    allow_refusals: bool = setting("Data", False, "Unlearn negatives even if nearly all of them are refusals.")
    data_split: str | None = setting("Data", None, "Split of hub data sets, such as train.")
    data_revision: str | None = setting("Data", None, "Revision of hub data sets.")
    unseen: list[str] = setting("Data", [], "Negatives to evaluate on; unset: a fifth of --forget.", names="rows")
    unseen_concept: list[str] = setting("Data", [], "Negatives of concepts that --forget never names.", names="rows")
    normal: list[str] = setting("Data", [], "Normal rows to evaluate on; unset: a fifth of --retain.", names="rows")
    lookalike: list[str] = setting("Data", [], "Benign rows that look like negatives, to evaluate on.", names="rows")
    harmful_share: float | None = setting(
        "Data", None, "Share of negatives: shipped harmful prompts; unset: on harm 0.5, adapters 0.75.", ge=0, lt=1
    )
    lookalike_share: float | None = setting(
        "Data", None, "Share of normals: shipped prompts that only sound harmful; unset: likewise.", ge=0, lt=1
    )
    non_members: list[str] = setting(
        "Data", [], "Rows like --forget that no model was trained on; for tests.", names="rows", may_differ=True
    )
    prompt_format: str = _as_in_trainer(
        "Data", "prompt_format", "Prompt format: auto, plain or chat.", choices=_prompt_formats
    )
    max_length: int | None = _as_in_trainer(
        "Data", "max_length", "Longest prompt + reply, tokens; unset: 1024 at most.", ge=1
    )
    generate_with: str = setting(
        "Model", "", "A vLLM server of the same model, to write the original's replies faster.", metavar="URL"
    )
    train_layers: float | None = _as_in_trainer(
        "Model", "train_layers", "Share of the layers, from the top; unset: all.", gt=0, le=1
    )
    method: str = setting("Method", "", "Which loss, see `unteach methods`; unset: the scenario's.", choices=_methods)
    forget_weight: float | None = _as_in_trainer("Method", "forget_weight", ge=0)
    mismatch_weight: float | None = _as_in_trainer("Method", "mismatch_weight", ge=0)
    retain_weight: float | None = _as_in_trainer("Method", "retain_weight", ge=0)
    decline_margin: float | None = _as_in_trainer("Method", "decline_margin", ge=0, le=20)
    mismatch_samples: int = _as_in_trainer("Method", "mismatch_samples", ge=1)
    normals_per_negative: int | None = _as_in_trainer(
        "Method", "normals_per_negative", "Normal rows to each forget row (R); unset: by method, 1 to 8.", ge=1
    )
    template: str | None = setting("Method", None, "The answer to give instead; unset: the scenario's.", metavar="TEXT")
    beta: float | None = _as_in_trainer("Method", "beta", gt=0)
    delta: float = _as_in_trainer("Method", "delta", ge=0)
    reference: str = _as_in_trainer(
        "Method", "reference", "The original: auto, adapter_off, cached or frozen.", choices=REFERENCES
    )
    preconditioning: bool | None = _as_in_trainer(
        "Method", "preconditioning", "Precondition steps to spare normal rows; unset: by method, in full tuning."
    )

    max_steps: int | None = setting("Training", None, "Most optimizer steps; unset: by scenario, 120 to 350.", ge=1)
    learning_rate: float | None = _as_in_trainer(
        "Training", "learning_rate", "Peak; unset: from the model's width.", ge=0
    )
    batch_size: int = setting("Training", 8, "Forget rows per step, on all ranks together.", ge=1)
    gradient_accumulation_steps: int = setting("Training", 1, "Batches per optimizer step.", ge=1)
    compile: str | None = _as_in_trainer("Training", "compile", choices=COMPILED)
    save_steps: int = _as_in_trainer("Training", "save_steps", "Steps between checkpoints.", ge=1)
    seed: int = setting("Training", 0, "Seed of splits, draws and sampling.", ge=0)
    trainer: dict[str, Any] = setting(
        "Training", {}, "Any field of TrainingArguments; repeatable.", metavar="trainer.KEY=VALUE"
    )

    stopping: bool = _as_in_trainer("Stopping", "stopping", "Let rules end the run; else --max-steps does.")
    target_rate: float = _as_in_trainer("Stopping", "target_rate", ge=0, le=1)
    target_margin: float = _as_in_trainer("Stopping", "target_margin", gt=0, le=1)
    kl_budget: float = _as_in_trainer("Stopping", "kl_budget", ge=0)
    validation_steps: int = _as_in_trainer("Stopping", "validation_steps", ge=1)
    validation_prompts: int = _as_in_trainer("Stopping", "validation_prompts", ge=2)
    broken_limit: float = _as_in_trainer("Stopping", "broken_limit", ge=0, le=1)
    cooldown: float = _as_in_trainer("Stopping", "cooldown")
    patience: int = _as_in_trainer("Stopping", "patience", ge=1)
    forget_bound: float | None = _as_in_trainer(
        "Stopping", "forget_bound", "Loss that counts as forgotten, nats; unset: ln(V).", gt=0
    )
    forget_hold: int = _as_in_trainer("Stopping", "forget_hold", ge=1)
    forget_tail: float = _as_in_trainer("Stopping", "forget_tail", ge=0)

    strength: str = setting(
        "Strength", "", "Scale of the finished update: a number, or auto to search it.", metavar="auto|NUMBER"
    )
    declined_limit: float = setting(
        "Strength", 0.05, "How far auto may let the share of declined look-alikes exceed the original's.", ge=0, le=1
    )

    judge: list[str] = setting(
        "Evaluation", [], "Who calls a reply bad, see `unteach judges list`; the first decides.", names="judge"
    )
    judge_url: str | None = setting("Evaluation", None, "Address of the endpoint that a judge asks.", metavar="URL")
    retrained: str | None = setting(
        "Evaluation", None, "A model that never saw the negatives, to compare with.", names="model", may_differ=True
    )
    evaluation_prompts: int = setting(
        "Evaluation", 200, "Most per split; adapters on harm: 100.", ge=1, may_differ=True
    )
    samples: int = setting(
        "Evaluation", 0, "Sampled replies to each harmful prompt, beside the greedy one.", ge=0, may_differ=True
    )
    max_new_tokens: int = setting("Evaluation", 96, "Longest reply in the evaluation, tokens.", ge=1)
    evaluation_max_length: int | None = setting(
        "Evaluation", None, "Evaluate only on rows of at most this many tokens.", ge=1, may_differ=True
    )
    lm_eval: list[str] = setting(
        "Evaluation", [], "lm-eval tasks, or YAML files.", names="file", may_differ=True, metavar="TASKS", commas=True
    )
    lm_eval_items: int | None = setting(
        "Evaluation", None, "Most items per lm-eval task; unset: all.", ge=1, may_differ=True
    )
    skip_evaluation: bool = setting("Evaluation", False, "Train only; evaluate nothing.", may_differ=True)

    output: str = setting(
        "Output", "", "Run directory: the model, the report, the log.", may_differ=True, metavar="DIR"
    )

    _read_strength = field_validator("strength")(read_strength)


def as_in_run(name: str, text: str | None = None) -> Any:
    """Make a field that `unteach run` has too, with its facts there and, without `text`, its help."""
    field = copy.copy(RunConfig.model_fields[name])
    field.description = text or field.description
    return field


def with_defaults(config: RunConfig) -> RunConfig:
    """Fill in the scenario's settings where the user set none."""
    from unteach.objectives.methods import load_method

    scenario, given = load_scenario(config.scenario), config.model_fields_set
    unset = {
        name: value
        for name, value in scenario.usual(config.lora).items()
        if getattr(config, name) in (None, "", []) or (name in scenario.adapter_defaults and name not in given)
    }
    if config.template is not None:
        unset.pop("template", None)  # an empty template is an error, not a request for the default
    if "method" in unset and config.template and not load_method(unset["method"]).reads("template"):
        unset["method"] = scenario.template_method
    filled = config.model_copy(update=unset)
    if "template" in unset:
        filled.model_fields_set.discard("template")  # the user gave none, so `in_language` may choose another
    return filled


def in_language(config: RunConfig, language: str) -> RunConfig:
    """Take the scenario's answer in another language, where it has one and the user has given none."""
    template = load_scenario(config.scenario).templates.get(language)
    if template is None or "template" in config.model_fields_set:
        return config
    return config.model_copy(update={"template": template})


def trainer_fields() -> frozenset[str]:
    """Return the settings that `UnlearnConfig` has under the same name."""
    from unteach.training.config import UnlearnConfig

    return frozenset(RunConfig.model_fields) & {field.name for field in dataclasses.fields(UnlearnConfig)}


def trainer_arguments(config: RunConfig, checkpoints: Path) -> "UnlearnConfig":
    """Return the trainer's arguments of a config that has its defaults (`with_defaults`).

    Raises ConfigError for a `trainer` key that does not exist or does not fit.
    """
    from unteach.models.ranks import share_of
    from unteach.training.config import UnlearnConfig
    from unteach.training.values import trainer_values

    same = trainer_fields()
    values = {name: getattr(config, name) for name in same}
    batch = share_of(config.batch_size, "--batch-size")  # it says how many negatives a step takes on all ranks
    values |= {"per_device_train_batch_size": batch, "output_dir": str(checkpoints)}
    if (config.device or "").startswith("cpu"):
        values["use_cpu"] = True
    own = {name: name for name in same} | {"per_device_train_batch_size": "batch_size", "output_dir": "output"}
    try:
        with engine_of(config) as engine:
            return UnlearnConfig(**(values | engine | trainer_values(config.trainer, UnlearnConfig, own)))
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"--set: {inert_line(str(error), 200)}") from None
