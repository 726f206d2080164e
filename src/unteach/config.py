"""RunConfig: every setting of a run, once. The flags, their help, run.yaml and the documentation are made from it."""

import dataclasses
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from unteach.arguments import UnlearnConfig
from unteach.errors import ConfigError, DataError, nearest

FILE_NAME = "run.yaml"


def _setting(group: str, default: Any, text: str) -> Any:
    return Field(default=default, description=text, json_schema_extra={"group": group})


def _trainers(group: str, name: str, text: str | None = None) -> Any:
    """A setting that `UnlearnConfig` has too, with its default and, unless given, its help."""
    found = next(field for field in dataclasses.fields(UnlearnConfig) if field.name == name)
    return _setting(group, found.default, text or found.metadata["help"])


class RunConfig(BaseModel):
    """All settings of `unteach run`; a field `max_steps` is the flag `--max-steps`.

    The settings in TRAINER_FIELDS go to `UnlearnConfig` unchanged; `trainer` holds any other field of
    `transformers.TrainingArguments`.
    """

    model_config = ConfigDict(extra="forbid", validate_default=True)

    model: str = _setting("Model", "", "Model to change: a directory or a hub id.")
    revision: str | None = _setting("Model", None, "Revision of a hub model.")
    dtype: str = _setting("Model", "auto", "Precision of the weights: auto, float32, bfloat16, float16.")
    device: str | None = _setting("Model", None, "Device, such as cpu or cuda:0; chosen if not given.")
    load_in_4bit: bool = _setting("Model", False, "Load weights in 4 bit (QLoRA; needs --lora and bitsandbytes).")
    trust_remote_code: bool = _setting("Model", False, "Run Python code that comes with the model.")
    lora: bool = _setting("Model", False, "Train a LoRA adapter instead of all weights.")
    lora_rank: int = _setting("Model", 16, "Rank of the adapter.")
    lora_alpha: float = _setting("Model", 32.0, "Scale of the adapter, divided by its rank.")
    lora_targets: str = _setting("Model", "all-linear", "Adapted modules: all-linear, or names with commas.")

    forget: list[str] = _setting("Data", [], "Negatives: file, datasets directory or hub id; repeatable.")
    retain: list[str] = _setting("Data", [], "Normal rows, likewise; without any, the model's own answers are used.")
    column: dict[str, str] = _setting("Data", {}, "Columns of --forget, as prompt=question or reply=bad_answer.")
    retain_column: dict[str, str] = _setting("Data", {}, "Columns of --retain, likewise.")
    data_split: str | None = _setting("Data", None, "Split of hub data sets, such as train.")
    data_revision: str | None = _setting("Data", None, "Revision of hub data sets.")
    unseen: list[str] = _setting("Data", [], "Negatives to check on; by default a fifth of --forget, by prompt.")
    unseen_concept: list[str] = _setting("Data", [], "Negatives of concepts that --forget never names.")
    normal: list[str] = _setting("Data", [], "Normal rows to check on; by default a fifth of --retain, by prompt.")
    lookalike: list[str] = _setting("Data", [], "Benign rows that resemble the negatives, to check on.")
    prompt_format: str = _trainers("Data", "prompt_format", "Prompt format: auto, plain or chat.")
    max_length: int | None = _trainers("Data", "max_length", "Longest prompt + reply in tokens; longer rows are cut.")

    method: str = _trainers("Method", "method", "Which loss: `unteach methods` lists them.")
    forget_weight: float | None = _trainers("Method", "forget_weight")
    mismatch_weight: float | None = _trainers("Method", "mismatch_weight")
    retain_weight: float | None = _trainers("Method", "retain_weight")
    mismatch_samples: int = _trainers("Method", "mismatch_samples")
    normals_per_negative: int = _trainers("Method", "normals_per_negative")
    template: str = _trainers("Method", "template", "The fixed answer of the template methods.")
    beta: float | None = _trainers("Method", "beta")
    delta: float = _trainers("Method", "delta")
    reference: str = _trainers("Method", "reference", "The original: auto, adapter_off, cached or frozen.")

    max_steps: int = _trainers("Training", "max_steps", "Most optimizer steps; the stopping rules end most runs.")
    learning_rate: float | None = _trainers("Training", "learning_rate", "Peak learning rate; chosen if not given.")
    batch_size: int = _setting("Training", 4, "Forget rows per device and step.")
    gradient_accumulation_steps: int = _setting("Training", 1, "Batches per optimizer step.")
    save_steps: int = _trainers("Training", "save_steps", "Steps between checkpoints, beside those the rules save.")
    seed: int = _setting("Training", 0, "Seed of splits, draws and sampling.")
    trainer: dict[str, Any] = _setting("Training", {}, "Any TrainingArguments field, as trainer.key=value.")

    stopping: bool = _trainers("Stopping", "stopping")
    target_rate: float = _trainers("Stopping", "target_rate")
    kl_budget: float = _trainers("Stopping", "kl_budget")
    check_steps: int = _trainers("Stopping", "check_steps")
    check_prompts: int = _trainers("Stopping", "check_prompts")
    check_patience: int = _trainers("Stopping", "check_patience")
    forget_bound: float | None = _trainers("Stopping", "forget_bound")
    forget_hold: int = _trainers("Stopping", "forget_hold")
    forget_tail: float = _trainers("Stopping", "forget_tail")

    judge: str = _setting("Checking", "repeats", "Who says what is bad: repeats, rule, rule:FILE, classifier:MODEL.")
    never_taught: str | None = _setting("Checking", None, "A twin that never saw the negatives, to compare with.")
    evaluation_prompts: int = _setting("Checking", 200, "Most prompts per split.")
    max_new_tokens: int = _setting("Checking", 96, "Longest reply when checking, tokens.")
    evaluation_max_length: int | None = _setting("Checking", None, "Check only rows of at most this many tokens.")
    skip_evaluation: bool = _setting("Checking", False, "Train only; measure nothing.")

    output: str = _setting("Output", "", "Run directory: model, report and log go there.")

    @field_validator("max_steps", "batch_size", "gradient_accumulation_steps", "save_steps", "check_steps",
                     "check_prompts", "evaluation_prompts", "max_new_tokens", "lora_rank", "normals_per_negative",
                     "check_patience", "forget_hold")  # fmt: skip
    @classmethod
    def _at_least_one(cls, value: int) -> int:
        if value < 1:
            raise ValueError("must be at least 1")
        return value

    @field_validator("forget_weight", "mismatch_weight", "retain_weight", "kl_budget", "target_rate", "learning_rate",
                     "mismatch_samples", "seed", "forget_tail")  # fmt: skip
    @classmethod
    def _not_negative(cls, value: float | None) -> float | None:
        if value is not None and not value >= 0:
            raise ValueError("must not be negative")
        return value


TRAINER_FIELDS = frozenset(RunConfig.model_fields) & {field.name for field in dataclasses.fields(UnlearnConfig)}


def flag(name: str) -> str:
    """Return the flag of a field."""
    return "--" + name.replace("_", "-")


def make_config(values: dict[str, Any]) -> RunConfig:
    """Make a config from fields; raises ConfigError that names the flag, what is wrong, and the nearest known name."""
    for name in values:
        if name not in RunConfig.model_fields:
            raise ConfigError(f"unknown setting '{name}'{nearest(name, RunConfig.model_fields)}")
    try:
        return RunConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        raise ConfigError(f"{flag(name)} {first['input']}: {first['msg'].removeprefix('Value error, ')}") from None


def read_config(path: str | Path) -> dict[str, Any]:
    """Read the fields that a YAML file sets. Raises DataError naming file and line."""
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a file such as a run's {FILE_NAME}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        where = f" line {place.line + 1}" if place else ""
        raise DataError(f"{path}{where}: not valid YAML; fix it or write it anew") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}: holds no settings; write lines such as `method: ga-mismatch`")
    return values


def write_config(config: RunConfig, directory: Path) -> None:
    """Write run.yaml; local paths are made absolute, so that it replays the run from anywhere."""
    values = config.model_dump()
    for name in ("model", "never_taught"):
        values[name] = _absolute(values[name])
    for name in ("forget", "retain", "unseen", "unseen_concept", "normal", "lookalike"):
        values[name] = [_absolute(source) for source in values[name]]
    head = "# Replays this run: unteach run --config run.yaml --output another-directory\n"
    (directory / FILE_NAME).write_text(head + yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _absolute(source: str | None) -> str | None:
    return str(Path(source).resolve()) if source and Path(source).exists() else source


def trainer_arguments(config: RunConfig, checkpoints: Path) -> UnlearnConfig:
    """Return the trainer's arguments. Raises ConfigError for a `trainer` key that does not exist or does not fit."""
    known = {field.name for field in dataclasses.fields(UnlearnConfig) if field.init}
    for key in config.trainer:
        if key not in known:
            raise ConfigError(f"--set trainer.{key}: TrainingArguments has no such field{nearest(key, known)}")
    values = {name: getattr(config, name) for name in TRAINER_FIELDS}
    values |= {"per_device_train_batch_size": config.batch_size, "output_dir": str(checkpoints)}
    if (config.device or "").startswith("cpu"):
        values["use_cpu"] = True
    try:
        return UnlearnConfig(**(values | config.trainer))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"--set: {error}") from None
