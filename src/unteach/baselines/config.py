"""BaselineConfig: every setting of `unteach baseline`, once; flags, help and run.yaml are made from it."""

from typing import Any

from unteach.pipeline.config import ModelSettings, RunConfig, as_in_run
from unteach.pipeline.settings import make_config, setting


class BaselineConfig(ModelSettings):
    """All settings of `unteach baseline NAME`; a field `max_length` is the flag `--max-length`.

    Settings that `unteach run` has under the same name mean the same, so that both split the same rows in the same way
    and evaluate on the same prompts.
    """

    baseline: str = setting("Baseline", "", "Which baseline; the word after `unteach baseline`.")
    scenario: str = as_in_run("scenario")

    forget: list[str] = as_in_run("forget")
    retain: list[str] = as_in_run("retain")
    good: list[str] = setting(
        "Data", [], "Good answers to prompts of --forget; unset: those in its rows.", names="rows"
    )
    most_rows: int | None = setting("Data", None, "Most negatives to train on; drawn at random.", ge=1)
    column: dict[str, str] = as_in_run("column")
    retain_column: dict[str, str] = setting(
        "Data", {}, "Our name for a column of --retain and --good.", metavar="OURS=THEIRS"
    )
    bad_label: list[str] = as_in_run("bad_label")
    retain_bad_label: list[str] = as_in_run("retain_bad_label")
    allow_refusals: bool = as_in_run("allow_refusals")
    data_split: str | None = as_in_run("data_split")
    data_revision: str | None = as_in_run("data_revision")
    unseen: list[str] = as_in_run("unseen")
    unseen_concept: list[str] = as_in_run("unseen_concept")
    normal: list[str] = as_in_run("normal")
    lookalike: list[str] = as_in_run("lookalike")
    prompt_format: str = as_in_run("prompt_format")
    max_length: int | None = as_in_run("max_length", "Longest row, tokens; longer ones are left out. Unset: 1024.")

    normals_per_row: float | None = setting(
        "Method", None, "Normal rows to each row of its own; unset: by baseline.", ge=0
    )
    beta: float | None = setting("Method", None, "Pull to the reference: KL or log-ratio; unset: by baseline.", gt=0)
    wording: str | None = setting(
        "Method", None, "Your phrases and requests, in place of ours.", names="file", metavar="FILE"
    )
    sft_epochs: float = setting("Method", 1.0, "Passes of SFT on good answers before DPO or RLHF.", ge=0)
    reward_epochs: float = setting("Method", 3.0, "Passes of the reward model over the pairs.", gt=0)
    rl_steps: int = setting("Method", 100, "Steps of reinforcement learning.", ge=1)
    generations: int = setting("Method", 4, "Replies sampled for each prompt of a step.", ge=2)

    epochs: float | None = setting("Training", None, "Passes over the rows; unset: 3, for DPO 1.", gt=0)
    learning_rate: float | None = setting("Training", None, "Peak; unset: from the model's width.", gt=0)
    batch_size: int = setting("Training", 8, "Rows, pairs or prompts per step, on all ranks together.", ge=1)
    gradient_accumulation_steps: int = setting("Training", 1, "Batches per optimizer step.", ge=1)
    seed: int = as_in_run("seed")
    trainer: dict[str, Any] = setting(
        "Training", {}, "Any field of TRL's config of the last stage; repeatable.", metavar="trainer.KEY=VALUE"
    )

    judge: list[str] = as_in_run("judge")
    judge_url: str | None = as_in_run("judge_url")
    retrained: str | None = as_in_run("retrained")
    validations: int = setting(
        "Evaluation", 12, "Times per stage to judge replies to validation prompts; 0: never.", ge=0
    )
    evaluation_prompts: int = as_in_run("evaluation_prompts")
    samples: int = as_in_run("samples")
    max_new_tokens: int = as_in_run("max_new_tokens", "Longest reply, in the evaluation and in training, tokens.")
    evaluation_max_length: int | None = as_in_run("evaluation_max_length")
    skip_evaluation: bool = as_in_run("skip_evaluation")

    output: str = as_in_run("output")


_SAME_WORD_OTHER_MEANING = {"beta", "learning_rate", "batch_size", "gradient_accumulation_steps", "trainer"}
SHARED = frozenset(BaselineConfig.model_fields) & frozenset(RunConfig.model_fields) - _SAME_WORD_OTHER_MEANING
"""Settings that mean what they mean in `unteach run`."""


def as_run(config: BaselineConfig) -> RunConfig:
    """Return the settings of a run on the same rows, which decide how these are split and evaluated.

    Raises ConfigError that names the flag.
    """
    return make_config({name: getattr(config, name) for name in SHARED}, RunConfig)
