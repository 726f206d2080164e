"""MistakesConfig: every setting of learning from mistakes, once; flags, help and run.yaml are made from it."""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from unteach.config import RunConfig
from unteach.errors import nearest
from unteach.mistakes.arms import ARMS


def _setting(group: str, default: Any, text: str, **bounds: Any) -> Any:
    return Field(default=default, description=text, json_schema_extra={"group": group}, **bounds)


def _as_in_run(name: str, text: str | None = None) -> Any:
    """A setting that `unteach run` has too, with its default, group and, unless given, its help."""
    field = RunConfig.model_fields[name]
    extra: Any = field.json_schema_extra
    return _setting(extra["group"], field.default, text or str(field.description))


class MistakesConfig(BaseModel):
    """All settings of `unteach mistakes run` and `study`; a field `max_length` is the flag `--max-length`."""

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    model: str = _as_in_run("model")
    revision: str | None = _as_in_run("revision")
    dtype: str = _as_in_run("dtype")
    device: str | None = _as_in_run("device")
    load_in_4bit: bool = _as_in_run("load_in_4bit")
    trust_remote_code: bool = _as_in_run("trust_remote_code")
    lora: bool = _as_in_run("lora")
    lora_rank: int = _as_in_run("lora_rank")
    lora_alpha: float = _as_in_run("lora_alpha")
    lora_targets: str = _as_in_run("lora_targets")

    prompts: list[str] = _setting("Data", [], "Prompts to induce mistakes with; replies are not needed; repeatable.")
    mistakes: list[str] = _setting("Data", [], "Labelled mistakes: negatives in any format; repeatable.")
    reports: list[str] = _setting("Data", [], "Mistakes that users reported, likewise.")
    most_rows: int | None = _setting("Data", None, "Most prompts, and most mistakes, to use; by lot.", ge=1)
    analyses: list[str] = _setting("Data", [], "Analyses to tune on, instead of making them.")
    normal: list[str] = _setting("Data", [], "Ordinary rows to mix in; unset: the model's own answers.")
    harmless: list[str] = _setting("Data", [], "Good answers to prompts like these, to mix in; optional.")
    column: dict[str, str] = _setting("Data", {}, "Our name for a column of --prompts and --mistakes.")
    data_split: str | None = _as_in_run("data_split")
    data_revision: str | None = _as_in_run("data_revision")
    unseen: list[str] = _setting("Data", [], "Mistakes to check on; unset: a fifth of what is given.")
    unseen_concept: list[str] = _setting("Data", [], "Mistakes to check on, of kinds never trained on.")
    lookalike: list[str] = _as_in_run("lookalike")
    normal_check: list[str] = _setting("Data", [], "Normal rows to check on; unset: a fifth of --normal.")
    prompt_format: str = _as_in_run("prompt_format")
    max_length: int | None = _setting("Data", None, "Longest row, tokens; longer ones are left out. Unset: 1024.", ge=1)

    templates: str | None = _setting("Steps", None, "Your templates; `unteach mistakes templates` prints ours.")
    analyst: str | None = _setting("Steps", None, "Who analyses: DIR, hub id or openai:MODEL; unset: the model.")
    analyst_url: str | None = _setting("Steps", None, "Address of the analyst's endpoint.")
    good_per_analysis: float = _setting("Steps", 1.0, "Good replies analysed too, per analysis of a mistake.", ge=0)
    normals_per_analysis: float = _setting("Steps", 1.0, "Ordinary rows per analysis.", ge=0)
    harmless_per_analysis: float = _setting("Steps", 1.0, "Harmless rows per analysis, where given.", ge=0)

    epochs: float = _setting("Training", 3.0, "Passes over the rows.", gt=0)
    learning_rate: float | None = _setting("Training", None, "Peak; unset: from the model's width.", gt=0)
    batch_size: int = _setting("Training", 8, "Rows per device and step.", ge=1)
    gradient_accumulation_steps: int = _setting("Training", 1, "Batches per optimizer step.", ge=1)
    save_steps: int = _setting("Training", 200, "Steps between checkpoints.", ge=1)
    seed: int = _setting("Training", 0, "Seed of splits, draws and sampling.", ge=0)
    trainer: dict[str, Any] = _setting("Training", {}, "Any field of TRL's SFTConfig; repeatable.")

    judge: list[str] = _setting("Checking", [], "Who calls a reply bad; the first decides. Needed with --prompts.")
    judge_url: str | None = _as_in_run("judge_url")
    evaluation_prompts: int = _setting("Checking", 200, "Most prompts per split.", ge=1)
    max_new_tokens: int = _setting("Checking", 160, "Longest reply and longest analysis, tokens.", ge=1)
    skip_evaluation: bool = _as_in_run("skip_evaluation")

    arms: list[str] = _setting("Study", [], f"Arms of the study, with commas; unset: all of {', '.join(ARMS)}.")
    seeds: int = _setting("Study", 1, "Train so many seeds of each arm, from --seed on.", ge=1)

    template: str = _setting("Study", "I cannot assist with this request.", "Answer that the unlearning arms teach.")

    output: str = _setting("Output", "", "Run directory: mistakes, analyses, the model, the report.")

    @field_validator("arms", mode="before")
    @classmethod
    def _parted_by_commas(cls, value: Any) -> Any:
        listed = [value] if isinstance(value, str) else value
        if not isinstance(listed, list) or not all(isinstance(part, str) for part in listed):
            return value  # refused as what it is
        names = list(dict.fromkeys(name.strip() for part in listed for name in part.split(",") if name.strip()))
        for name in names:
            if name not in ARMS:
                raise ValueError(f"unknown arm '{name}'{nearest(name, ARMS)} (known: {', '.join(ARMS)})")
        return names
