"""RunConfig: every setting of a run, once. The flags, their help, run.yaml and the documentation are made from it."""

import dataclasses
from pathlib import Path
from typing import Any, TypeVar, get_type_hints, overload

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo, field_validator

from unteach.arguments import REFERENCES, UnlearnConfig
from unteach.data.prompt_format import FORMATS
from unteach.errors import ConfigError, DataError, OutputError, nearest
from unteach.escape import inert_line
from unteach.models import DTYPES
from unteach.objectives.methods import method_names
from unteach.scenarios import load_scenario, scenario_names

FILE_NAME = "run.yaml"
Config = TypeVar("Config", bound=BaseModel)


def setting(group: str, default: Any, text: str, **bounds: Any) -> Any:
    """Make a field of a config: its group and text are those of its flag; `bounds` are pydantic's (ge, gt …)."""
    return Field(default=default, description=text, json_schema_extra={"group": group}, **bounds)


def _trainers(group: str, name: str, text: str | None = None) -> Any:
    """A setting that `UnlearnConfig` has too, with its default and, unless given, its help."""
    found = next(field for field in dataclasses.fields(UnlearnConfig) if field.name == name)
    return setting(group, found.default, text or found.metadata["help"])


class RunConfig(BaseModel):
    """All settings of `unteach run`; a field `max_steps` is the flag `--max-steps`.

    The settings in TRAINER_FIELDS go to `UnlearnConfig` unchanged; `trainer` holds any other field of
    `transformers.TrainingArguments`.
    """

    model_config = ConfigDict(extra="forbid", validate_default=True)

    scenario: str = setting("Data", "harm", "What must stop: harm, copyright or hallucination.")

    model: str = setting("Model", "", "Model to change: a directory or a hub id.")
    revision: str | None = setting("Model", None, "Revision of a hub model.")
    dtype: str = setting("Model", "auto", "Precision: auto, float32, bfloat16 or float16.")
    device: str | None = setting("Model", None, "cpu, cuda, cuda:0 …; the GPU where there is one.")
    load_in_4bit: bool = setting("Model", False, "QLoRA: frozen 4-bit weights; goes with --lora.")
    trust_remote_code: bool = setting("Model", False, "Run Python code that comes with the model.")
    lora: bool = setting("Model", False, "Train a LoRA adapter instead of all weights.")
    lora_rank: int = setting("Model", 16, "Rank of the adapter.")
    lora_alpha: float = setting("Model", 32.0, "Scale of the adapter, divided by its rank.")
    lora_targets: str = setting("Model", "all-linear", "Modules: all-linear, or names with commas.")

    forget: list[str] = setting("Data", [], "What must go: file, directory, public set or hub id; repeatable.")
    retain: list[str] = setting("Data", [], "What must stay, likewise; unset: the model's own answers.")
    column: dict[str, str] = setting("Data", {}, "Our name for a column of --forget: reply=bad_answer.")
    retain_column: dict[str, str] = setting("Data", {}, "Our name for a column of --retain.")
    data_split: str | None = setting("Data", None, "Split of hub data sets, such as train.")
    data_revision: str | None = setting("Data", None, "Revision of hub data sets.")
    unseen: list[str] = setting("Data", [], "Negatives to check on; unset: a fifth of --forget.")
    unseen_concept: list[str] = setting("Data", [], "Negatives of concepts that --forget never names.")
    normal: list[str] = setting("Data", [], "Normal rows to check on; unset: a fifth of --retain.")
    lookalike: list[str] = setting("Data", [], "Benign rows that look like negatives.")
    outsiders: list[str] = setting("Data", [], "Rows like --forget that no model was trained on: for inference tests.")
    prompt_format: str = _trainers("Data", "prompt_format", "Prompt format: auto, plain or chat.")
    max_length: int | None = _trainers("Data", "max_length", "Longest prompt + reply, tokens; unset: 1024 at most.")

    method: str = setting("Method", "", "Which loss, see `unteach methods`; unset: the scenario's.")
    forget_weight: float | None = _trainers("Method", "forget_weight")
    mismatch_weight: float | None = _trainers("Method", "mismatch_weight")
    retain_weight: float | None = _trainers("Method", "retain_weight")
    mismatch_samples: int = _trainers("Method", "mismatch_samples")
    normals_per_negative: int | None = _trainers(
        "Method", "normals_per_negative", "Normal rows to each forget row (R); unset: by method, 3 or 8."
    )
    template: str | None = setting("Method", None, "The answer to give instead; unset: the scenario's.")
    beta: float | None = _trainers("Method", "beta")
    delta: float = _trainers("Method", "delta")
    reference: str = _trainers("Method", "reference", "The original: auto, adapter_off, cached or frozen.")
    sparing: bool | None = _trainers(
        "Method", "sparing", "Steps that spare what normal rows use; unset: by method, in full tuning."
    )

    max_steps: int | None = setting("Training", None, "Most optimizer steps; unset: by scenario, 120 to 500.")
    learning_rate: float | None = _trainers("Training", "learning_rate", "Peak; unset: from the model's width.")
    batch_size: int = setting("Training", 8, "Forget rows per device and step.")
    gradient_accumulation_steps: int = setting("Training", 1, "Batches per optimizer step.")
    save_steps: int = _trainers("Training", "save_steps", "Steps between checkpoints.")
    seed: int = setting("Training", 0, "Seed of splits, draws and sampling.")
    trainer: dict[str, Any] = setting("Training", {}, "Any field of TrainingArguments; repeatable.")

    stopping: bool = _trainers("Stopping", "stopping", "Three rules end the run; without them, --max-steps does.")
    target_rate: float = _trainers("Stopping", "target_rate")
    kl_budget: float = _trainers("Stopping", "kl_budget")
    check_steps: int = _trainers("Stopping", "check_steps")
    check_prompts: int = _trainers("Stopping", "check_prompts")
    broken_limit: float = _trainers("Stopping", "broken_limit")
    cooldown: float = _trainers("Stopping", "cooldown")
    check_patience: int = _trainers("Stopping", "check_patience")
    forget_bound: float | None = _trainers("Stopping", "forget_bound", "Forgotten: loss over this, nats; unset: ln(V).")
    forget_hold: int = _trainers("Stopping", "forget_hold")
    forget_tail: float = _trainers("Stopping", "forget_tail")

    judge: list[str] = setting("Checking", [], "Who calls a reply bad, see `unteach judges list`; the first decides.")
    judge_url: str | None = setting("Checking", None, "Address of the endpoint that a judge asks.")
    never_taught: str | None = setting("Checking", None, "A model that never saw the negatives, to compare with.")
    evaluation_prompts: int = setting("Checking", 200, "Most prompts per split.")
    samples: int = setting("Checking", 0, "Sampled replies to each harmful prompt, beside the greedy one.")
    max_new_tokens: int = setting("Checking", 96, "Longest reply when checking, tokens.")
    evaluation_max_length: int | None = setting("Checking", None, "Check only on rows of at most this many tokens.")
    lm_eval: list[str] = setting("Checking", [], "Tasks of lm-eval, or task files (YAML), with commas.")
    lm_eval_items: int | None = setting("Checking", None, "Most items per lm-eval task; unset: all.")
    skip_evaluation: bool = setting("Checking", False, "Train only; measure nothing.")

    output: str = setting("Output", "", "Run directory: the model, the report, the log.")

    @field_validator("max_steps", "batch_size", "gradient_accumulation_steps", "save_steps", "check_steps",
                     "check_prompts", "evaluation_prompts", "max_new_tokens", "lora_rank", "normals_per_negative",
                     "check_patience", "forget_hold", "mismatch_samples", "max_length",
                     "evaluation_max_length", "lm_eval_items")  # fmt: skip
    @classmethod
    def _at_least_one(cls, value: int | None) -> int | None:
        if value is not None and value < 1:
            raise ValueError("must be at least 1")
        return value

    @field_validator("forget_weight", "mismatch_weight", "retain_weight", "kl_budget", "target_rate", "learning_rate",
                     "seed", "forget_tail", "delta", "samples")  # fmt: skip
    @classmethod
    def _not_negative(cls, value: float | None) -> float | None:
        if value is not None and not 0 <= value < float("inf"):
            raise ValueError("must be 0 or more, and finite")
        return value

    @field_validator("lora_alpha", "beta", "forget_bound")
    @classmethod
    def _positive(cls, value: float | None) -> float | None:
        if value is not None and not 0 < value < float("inf"):
            raise ValueError("must be more than 0, and finite")
        return value

    @field_validator("lm_eval", mode="before")
    @classmethod
    def _parted_by_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
            return value  # refused as what it is
        return list(dict.fromkeys(name.strip() for part in value for name in part.split(",") if name.strip()))

    @field_validator("method", "reference", "dtype", "prompt_format", "scenario")
    @classmethod
    def _known(cls, value: str, info: ValidationInfo) -> str:
        choices = {"method": method_names(), "reference": REFERENCES, "dtype": ("auto", *DTYPES),
                   "scenario": scenario_names()}  # fmt: skip
        known = choices.get(str(info.field_name), FORMATS)
        if value and value not in known:
            raise ValueError(f"unknown{nearest(value, known)} (known: {', '.join(known)})")
        return value


def as_in_run(name: str, text: str | None = None, **bounds: Any) -> Any:
    """Make a field that `unteach run` has too, with its default, group and, unless given, its help."""
    field = RunConfig.model_fields[name]
    extra: Any = field.json_schema_extra
    return setting(extra["group"], field.default, text or str(field.description), **bounds)


TRAINER_FIELDS = frozenset(RunConfig.model_fields) & {field.name for field in dataclasses.fields(UnlearnConfig)}


MAY_DIFFER = frozenset({"output", "never_taught", "skip_evaluation", "evaluation_prompts", "evaluation_max_length",
                        "samples", "outsiders", "lm_eval", "lm_eval_items"})  # fmt: skip
"""What a resumed run may change: where it stands and how it is measured."""
PATHS = frozenset({"model", "never_taught", "judge", "forget", "retain", "unseen", "unseen_concept", "normal",
                   "lookalike", "outsiders", "lm_eval", "prompts", "mistakes", "reports", "analyses", "harmless",
                   "normal_check", "watched", "templates", "analyst", "good"})  # fmt: skip
"""What may name something on this disk."""


def flag(name: str) -> str:
    """Return the flag of a field."""
    return "--" + name.replace("_", "-")


@overload
def make_config(values: dict[str, Any]) -> RunConfig: ...
@overload
def make_config(values: dict[str, Any], kind: type[Config]) -> Config: ...
def make_config(values: dict[str, Any], kind: Any = RunConfig) -> Any:
    """Make a config from fields; raises ConfigError that names the flag, what is wrong, and the nearest known name."""
    for name in map(str, values):
        if name not in kind.model_fields:
            raise ConfigError(f"unknown setting '{name}'{nearest(name, kind.model_fields)}")
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ").removeprefix("Input ")
        raise ConfigError(f"{flag(str(first['loc'][0]))} {inert_line(str(first['input']), 60)}: {reason}") from None


def with_defaults(config: RunConfig) -> RunConfig:
    """Fill in what the scenario decides where the user did not."""
    scenario = load_scenario(config.scenario)
    unset = {name: value for name, value in scenario.defaults.items() if getattr(config, name) in (None, "", [])}
    if config.template is not None:
        unset.pop("template", None)  # an empty one is an error, not a wish for the default
    if "method" in unset and config.template:
        unset["method"] = scenario.template_method
    return config.model_copy(update=unset)


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


def write_config(
    config: BaseModel, directory: Path, command: str = "unteach run --config run.yaml --output another-directory"
) -> None:
    """Write run.yaml; local paths are made absolute, so that `command` replays the run from anywhere."""
    values = {name: _absolute(name, value) for name, value in config.model_dump().items()}
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    (directory / FILE_NAME).write_text(f"# Replays this run: {command}\n{text}", encoding="utf-8")


def resumed(config: Config, directory: Path) -> Config:
    """Return the settings of the run that `directory` holds, which those given in `config` must equal.

    Raises OutputError where there is no run, ConfigError that names a setting which differs. What is only about
    measuring may differ, and wins.
    """
    if not (directory / FILE_NAME).is_file():
        raise OutputError(f"--resume: there is no run in {directory} (no {FILE_NAME}); leave --resume out to start one")
    stored = make_config(read_config(directory / FILE_NAME), type(config))
    given = {name: getattr(config, name) for name in config.model_fields_set if getattr(config, name) is not None}
    for name, value in given.items():
        before = getattr(stored, name)
        if name not in MAY_DIFFER and _absolute(name, value) != _absolute(name, before):
            raise ConfigError(
                f"{flag(name)} {value}: the run in {directory} was started with {before}; leave it out to go on with "
                "that run, or replace the run with --overwrite instead of --resume"
            )
    return stored.model_copy(update={name: value for name, value in given.items() if name in MAY_DIFFER})


def _absolute(name: str, value: Any) -> Any:
    """Make what names something on this disk absolute; other values stay as they are."""
    if name not in PATHS or not value:
        return value
    if isinstance(value, list):
        return [_absolute(name, part) for part in value]
    named = name in ("judge", "analyst")  # rule:FILE, classifier:MODEL, openai:MODEL
    kind, colon, place = value.partition(":") if named else ("", "", value)
    if kind == "openai":
        return value  # a name on the server, though a directory here may be called the same
    path = Path(place).expanduser()
    return f"{kind}{colon}{path.resolve()}" if place and path.exists() else value


def trainer_arguments(config: RunConfig, checkpoints: Path) -> UnlearnConfig:
    """Return the trainer's arguments. Raises ConfigError for a `trainer` key that does not exist or does not fit."""
    config = with_defaults(config)
    values = {name: getattr(config, name) for name in TRAINER_FIELDS}
    values |= {"per_device_train_batch_size": config.batch_size, "output_dir": str(checkpoints)}
    if (config.device or "").startswith("cpu"):
        values["use_cpu"] = True
    try:
        own = {name: name for name in TRAINER_FIELDS}
        own |= {"per_device_train_batch_size": "batch_size", "output_dir": "output"}
        return UnlearnConfig(**(values | trainer_values(config.trainer, UnlearnConfig, own)))
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"--set: {inert_line(str(error), 200)}") from None


def trainer_values(given: dict[str, Any], kind: Any, own: dict[str, str]) -> dict[str, Any]:
    """Check names and types of the `trainer` settings, fields of `kind`; `own` are those that have a setting of ours.

    Raises ConfigError.
    """
    kinds = get_type_hints(kind)
    known = {field.name for field in dataclasses.fields(kind) if field.init}
    values = {}
    for key, value in given.items():
        if key not in known:
            where = "TrainingArguments" if kind is UnlearnConfig else kind.__name__
            raise ConfigError(f"--set trainer.{key}: {where} has no such field{nearest(key, known)}")
        if key in own:
            raise ConfigError(f"--set trainer.{key}: it has a flag of its own; use {flag(own[key])}")
        try:
            values[key] = TypeAdapter(kinds[key]).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].removeprefix("Input ")
            raise ConfigError(f"--set trainer.{key}={inert_line(str(value), 60)}: {reason}") from None
    return values
