"""BaselineConfig: every setting of `unteach baseline`, once; flags, help and run.yaml are made from it."""

from typing import Any

from pydantic import BaseModel, ConfigDict

from unteach.pipeline.config import RunConfig, as_in_run
from unteach.pipeline.settings import make_config, setting


class BaselineConfig(BaseModel):
    """All settings of `unteach baseline NAME`; a field `max_length` is the flag `--max-length`.

    What `unteach run` has under the same name means the same, so that both part the same rows in the same way and
    measure on the same prompts.
    """

    model_config = ConfigDict(extra="forbid", validate_default=True, allow_inf_nan=False)

    baseline: str = setting("Baseline", "", "Which baseline; the word after `unteach baseline`.")
    scenario: str = as_in_run("scenario")

    model: str = as_in_run("model")
    revision: str | None = as_in_run("revision")
    dtype: str = as_in_run("dtype")
    device: str | None = as_in_run("device")
    load_in_4bit: bool = as_in_run("load_in_4bit")
    trust_remote_code: bool = as_in_run("trust_remote_code")
    lora: bool = as_in_run("lora")
    lora_rank: int = as_in_run("lora_rank")
    lora_alpha: float = as_in_run("lora_alpha")
    lora_targets: str = as_in_run("lora_targets")

    forget: list[str] = as_in_run("forget")
    retain: list[str] = as_in_run("retain")
    good: list[str] = setting(
        "Data", [], "Good answers to prompts of --forget; unset: those its rows bring.", names="rows"
    )
    most_rows: int | None = setting("Data", None, "Most negatives to train on; by lot.", ge=1)
    column: dict[str, str] = as_in_run("column")
    retain_column: dict[str, str] = setting(
        "Data", {}, "Our name for a column of --retain and --good.", metavar="OURS=THEIRS"
    )
    data_split: str | None = as_in_run("data_split")
    data_revision: str | None = as_in_run("data_revision")
    unseen: list[str] = as_in_run("unseen")
    unseen_concept: list[str] = as_in_run("unseen_concept")
    normal: list[str] = as_in_run("normal")
    lookalike: list[str] = as_in_run("lookalike")
    prompt_format: str = as_in_run("prompt_format")
    max_length: int | None = as_in_run("max_length", "Longest row, tokens; longer ones are left out. Unset: 1024.")

    normals_per_row: float | None = setting("Method", None, "Normal rows per row of its own; unset: by kind.", ge=0)
    beta: float | None = setting("Method", None, "Pull to the reference: KL or log-ratio; unset: by kind.", gt=0)
    wording: str | None = setting(
        "Method", None, "Your phrases and requests, in place of the shipped ones.", names="file", metavar="FILE"
    )
    sft_epochs: float = setting("Method", 1.0, "Passes of SFT on good answers before DPO or RLHF.", ge=0)
    reward_epochs: float = setting("Method", 3.0, "Passes of the reward model over the pairs.", gt=0)
    rl_steps: int = setting("Method", 100, "Steps of reinforcement learning.", ge=1)
    generations: int = setting("Method", 4, "Replies sampled for each prompt of a step.", ge=2)

    epochs: float | None = setting("Training", None, "Passes over the rows; unset: 3, for DPO 1.", gt=0)
    learning_rate: float | None = setting("Training", None, "Peak; unset: from the model's width.", gt=0)
    batch_size: int = setting("Training", 8, "Rows, pairs or prompts per device and step.", ge=1)
    gradient_accumulation_steps: int = setting("Training", 1, "Batches per optimizer step.", ge=1)
    seed: int = as_in_run("seed", ge=0)
    trainer: dict[str, Any] = setting(
        "Training", {}, "Any field of TRL's config of the last stage; repeatable.", metavar="trainer.KEY=VALUE"
    )

    judge: list[str] = as_in_run("judge")
    judge_url: str | None = as_in_run("judge_url")
    retrained: str | None = as_in_run("retrained")
    validations: int = setting(
        "Evaluation", 12, "Times per stage to judge replies to validation prompts; 0: never.", ge=0
    )
    evaluation_prompts: int = as_in_run("evaluation_prompts", ge=1)
    samples: int = as_in_run("samples", ge=0)
    max_new_tokens: int = as_in_run("max_new_tokens", "Longest reply, when checking and in training, tokens.", ge=1)
    evaluation_max_length: int | None = as_in_run("evaluation_max_length")
    skip_evaluation: bool = as_in_run("skip_evaluation")

    output: str = as_in_run("output")


_SAME_WORD_OTHER_MEANING = {"beta", "learning_rate", "batch_size", "gradient_accumulation_steps", "trainer"}
SHARED = frozenset(BaselineConfig.model_fields) & frozenset(RunConfig.model_fields) - _SAME_WORD_OTHER_MEANING
"""Settings that mean what they mean in `unteach run`."""


def as_run(config: BaselineConfig) -> RunConfig:
    """Return the settings of a run on the same rows, which decide how they are parted and measured.

    Raises ConfigError that names the flag.
    """
    return make_config({name: getattr(config, name) for name in SHARED}, RunConfig)
