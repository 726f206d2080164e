"""RunConfig: every setting of a run, once. The flags, their help, run.yaml and the documentation are made from it."""

import dataclasses
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from unteach.data.prompt_format import PROMPT_FORMATS
from unteach.errors import ConfigError, nearest
from unteach.models.loading import DTYPES
from unteach.objectives.methods import method_names
from unteach.pipeline.settings import facts_of, setting
from unteach.scenarios import load_scenario, scenario_names
from unteach.text.escape import inert_line
from unteach.training.config import REFERENCES, UnlearnConfig
from unteach.training.values import trainer_values


def _trainers(group: str, name: str, text: str | None = None, **facts: Any) -> Any:
    """A setting that `UnlearnConfig` has too, with its default and, unless given, its help."""
    found = next(field for field in dataclasses.fields(UnlearnConfig) if field.name == name)
    return setting(group, found.default, text or found.metadata["help"], **facts)


class RunConfig(BaseModel):
    """All settings of `unteach run`; a field `max_steps` is the flag `--max-steps`.

    The settings in TRAINER_FIELDS go to `UnlearnConfig` unchanged; `trainer` holds any other field of
    `transformers.TrainingArguments`.
    """

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    scenario: str = setting("Data", "harm", "What must stop: harm, copyright or hallucination.")

    model: str = setting("Model", "", "Model to change: a directory or a hub id.", names="model")
    revision: str | None = setting("Model", None, "Revision of a hub model.")
    dtype: str = setting("Model", "auto", "Precision: auto, float32, bfloat16 or float16.")
    device: str | None = setting("Model", None, "cpu, cuda, cuda:0 …; the GPU where there is one.")
    load_in_4bit: bool = setting("Model", False, "QLoRA: frozen 4-bit weights; goes with --lora.")
    trust_remote_code: bool = setting("Model", False, "Run Python code that comes with the model.")
    lora: bool = setting("Model", False, "Train a LoRA adapter instead of all weights.")
    lora_rank: int = setting("Model", 16, "Rank of the adapter.", ge=1)
    lora_alpha: float = setting("Model", 32.0, "Scale of the adapter, divided by its rank.", gt=0)
    lora_targets: str = setting("Model", "all-linear", "Modules: all-linear, or names with commas.")

    forget: list[str] = setting(
        "Data", [], "What must go: file, directory, public set or hub id; repeatable.", names="rows"
    )
    retain: list[str] = setting("Data", [], "What must stay, likewise; unset: the model's own answers.", names="rows")
    column: dict[str, str] = setting(
        "Data", {}, "Our name for a column of --forget: reply=bad_answer.", metavar="OURS=THEIRS"
    )
    retain_column: dict[str, str] = setting("Data", {}, "Our name for a column of --retain.", metavar="OURS=THEIRS")
    data_split: str | None = setting("Data", None, "Split of hub data sets, such as train.")
    data_revision: str | None = setting("Data", None, "Revision of hub data sets.")
    unseen: list[str] = setting("Data", [], "Negatives to check on; unset: a fifth of --forget.", names="rows")
    unseen_concept: list[str] = setting("Data", [], "Negatives of concepts that --forget never names.", names="rows")
    normal: list[str] = setting("Data", [], "Normal rows to check on; unset: a fifth of --retain.", names="rows")
    lookalike: list[str] = setting("Data", [], "Benign rows that look like negatives.", names="rows")
    non_members: list[str] = setting(
        "Data",
        [],
        "Rows like --forget that no model was trained on: for inference tests.",
        names="rows",
        may_differ=True,
    )
    prompt_format: str = _trainers("Data", "prompt_format", "Prompt format: auto, plain or chat.")
    max_length: int | None = _trainers(
        "Data", "max_length", "Longest prompt + reply, tokens; unset: 1024 at most.", ge=1
    )

    method: str = setting("Method", "", "Which loss, see `unteach methods`; unset: the scenario's.")
    forget_weight: float | None = _trainers("Method", "forget_weight", ge=0)
    mismatch_weight: float | None = _trainers("Method", "mismatch_weight", ge=0)
    retain_weight: float | None = _trainers("Method", "retain_weight", ge=0)
    mismatch_samples: int = _trainers("Method", "mismatch_samples", ge=1)
    normals_per_negative: int | None = _trainers(
        "Method", "normals_per_negative", "Normal rows to each forget row (R); unset: by method, 3 or 8.", ge=1
    )
    template: str | None = setting("Method", None, "The answer to give instead; unset: the scenario's.", metavar="TEXT")
    beta: float | None = _trainers("Method", "beta", gt=0)
    delta: float = _trainers("Method", "delta", ge=0)
    reference: str = _trainers("Method", "reference", "The original: auto, adapter_off, cached or frozen.")
    preconditioning: bool | None = _trainers(
        "Method", "preconditioning", "Steps that spare what normal rows use; unset: by method, in full tuning."
    )

    max_steps: int | None = setting("Training", None, "Most optimizer steps; unset: by scenario, 120 to 500.", ge=1)
    learning_rate: float | None = _trainers("Training", "learning_rate", "Peak; unset: from the model's width.", ge=0)
    batch_size: int = setting("Training", 8, "Forget rows per device and step.", ge=1)
    gradient_accumulation_steps: int = setting("Training", 1, "Batches per optimizer step.", ge=1)
    save_steps: int = _trainers("Training", "save_steps", "Steps between checkpoints.", ge=1)
    seed: int = setting("Training", 0, "Seed of splits, draws and sampling.", ge=0)
    trainer: dict[str, Any] = setting(
        "Training", {}, "Any field of TrainingArguments; repeatable.", metavar="trainer.KEY=VALUE"
    )

    stopping: bool = _trainers("Stopping", "stopping", "Three rules end the run; without them, --max-steps does.")
    target_rate: float = _trainers("Stopping", "target_rate", ge=0)
    kl_budget: float = _trainers("Stopping", "kl_budget", ge=0)
    validation_steps: int = _trainers("Stopping", "validation_steps", ge=1)
    validation_prompts: int = _trainers("Stopping", "validation_prompts", ge=1)
    broken_limit: float = _trainers("Stopping", "broken_limit")
    cooldown: float = _trainers("Stopping", "cooldown")
    patience: int = _trainers("Stopping", "patience", ge=1)
    forget_bound: float | None = _trainers(
        "Stopping", "forget_bound", "Forgotten: loss over this, nats; unset: ln(V).", gt=0
    )
    forget_hold: int = _trainers("Stopping", "forget_hold", ge=1)
    forget_tail: float = _trainers("Stopping", "forget_tail", ge=0)

    judge: list[str] = setting(
        "Evaluation", [], "Who calls a reply bad, see `unteach judges list`; the first decides.", names="judge"
    )
    judge_url: str | None = setting("Evaluation", None, "Address of the endpoint that a judge asks.")
    retrained: str | None = setting(
        "Evaluation", None, "A model that never saw the negatives, to compare with.", names="model", may_differ=True
    )
    evaluation_prompts: int = setting("Evaluation", 200, "Most prompts per split.", ge=1, may_differ=True)
    samples: int = setting(
        "Evaluation", 0, "Sampled replies to each harmful prompt, beside the greedy one.", ge=0, may_differ=True
    )
    max_new_tokens: int = setting("Evaluation", 96, "Longest reply when checking, tokens.", ge=1)
    evaluation_max_length: int | None = setting(
        "Evaluation", None, "Check only on rows of at most this many tokens.", ge=1, may_differ=True
    )
    lm_eval: list[str] = setting(
        "Evaluation",
        [],
        "Tasks of lm-eval, or task files (YAML), with commas.",
        names="file",
        may_differ=True,
        metavar="TASKS",
    )
    lm_eval_items: int | None = setting(
        "Evaluation", None, "Most items per lm-eval task; unset: all.", ge=1, may_differ=True
    )
    skip_evaluation: bool = setting("Evaluation", False, "Train only; measure nothing.", may_differ=True)

    output: str = setting(
        "Output", "", "Run directory: the model, the report, the log.", may_differ=True, metavar="DIR"
    )

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
        choices = {
            "method": method_names(),
            "reference": REFERENCES,
            "dtype": ("auto", *DTYPES),
            "scenario": scenario_names(),
        }
        known = choices.get(str(info.field_name), PROMPT_FORMATS)
        if value and value not in known:
            raise ValueError(f"unknown{nearest(value, known)} (known: {', '.join(known)})")
        return value


def as_in_run(name: str, text: str | None = None, **bounds: Any) -> Any:
    """Make a field that `unteach run` has too, with all that is said of it there and, unless given, its help."""
    field = RunConfig.model_fields[name]
    facts = facts_of(RunConfig, name)
    return setting(facts.pop("group"), field.default, text or str(field.description), **(facts | bounds))


TRAINER_FIELDS = frozenset(RunConfig.model_fields) & {field.name for field in dataclasses.fields(UnlearnConfig)}


def with_defaults(config: RunConfig) -> RunConfig:
    """Fill in what the scenario decides where the user did not."""
    scenario = load_scenario(config.scenario)
    unset = {name: value for name, value in scenario.defaults.items() if getattr(config, name) in (None, "", [])}
    if config.template is not None:
        unset.pop("template", None)  # an empty one is an error, not a wish for the default
    if "method" in unset and config.template:
        unset["method"] = scenario.template_method
    return config.model_copy(update=unset)


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
