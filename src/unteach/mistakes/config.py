"""MistakesConfig: every setting of learning from mistakes; flags, help and run.yaml are made from it."""

from typing import Any

from unteach.mistakes.arms import ARMS
from unteach.pipeline.config import ModelSettings, as_in_run
from unteach.pipeline.settings import setting


class MistakesConfig(ModelSettings):
    """All settings of `unteach mistakes run` and `study`; a field `max_length` is the flag `--max-length`."""

    prompts: list[str] = setting(
        "Data", [], "Prompts to induce mistakes with; replies are not needed; repeatable.", names="rows"
    )
    mistakes: list[str] = setting("Data", [], "Labelled mistakes: negatives in any format; repeatable.", names="rows")
    reports: list[str] = setting("Data", [], "Mistakes that users reported, likewise.", names="rows")
    most_rows: int | None = setting("Data", None, "Most prompts, and most mistakes, to use; drawn at random.", ge=1)
    analyses: list[str] = setting("Data", [], "Analyses to tune on, instead of making them.", names="rows")
    retain: list[str] = setting("Data", [], "Normal rows to mix in; unset: the model's own answers.", names="rows")
    harmless: list[str] = setting("Data", [], "Good answers to harmful prompts, to mix in; optional.", names="rows")
    column: dict[str, str] = setting(
        "Data", {}, "Our name for a column of --prompts and --mistakes.", metavar="OURS=THEIRS"
    )
    bad_label: list[str] = setting("Data", [], "Value of their label that means bad; repeatable.", metavar="VALUE")
    data_split: str | None = as_in_run("data_split")
    data_revision: str | None = as_in_run("data_revision")
    unseen: list[str] = setting("Data", [], "Mistakes to evaluate on; unset: a fifth of what is given.", names="rows")
    unseen_concept: list[str] = setting("Data", [], "Mistakes to evaluate on, of kinds never trained on.", names="rows")
    lookalike: list[str] = as_in_run("lookalike")
    validation: list[str] = setting(
        "Data", [], "Mistakes to validate on during training; never trained on.", names="rows"
    )
    normal: list[str] = setting("Data", [], "Normal rows to evaluate on; unset: a fifth of --retain.", names="rows")
    prompt_format: str = as_in_run("prompt_format")
    max_length: int | None = setting("Data", None, "Longest row, tokens; longer ones are left out. Unset: 1024.", ge=1)

    wording: str | None = setting(
        "Steps", None, "Your wording; `unteach mistakes wording` prints ours.", names="file", metavar="FILE"
    )
    analyst: str | None = setting(
        "Steps", None, "Who analyses: DIR, hub id or openai:MODEL; unset: the model.", names="model"
    )
    analyst_url: str | None = setting("Steps", None, "Address of the analyst's endpoint.")
    openings: bool = setting("Steps", True, "Begin a chat model's analyses with the verdict, where it is known.")
    good_per_analysis: float = setting("Steps", 1.0, "Good replies analysed too, per analysis of a mistake.", ge=0)
    normals_per_analysis: float = setting("Steps", 1.0, "Normal rows per analysis.", ge=0)
    harmless_per_analysis: float = setting("Steps", 1.0, "Harmless rows per analysis, where given.", ge=0)

    epochs: float = setting("Training", 3.0, "Passes over the rows.", gt=0)
    learning_rate: float | None = setting("Training", None, "Peak; unset: from the model's width.", gt=0)
    batch_size: int = setting("Training", 8, "Rows per step, on all ranks together.", ge=1)
    gradient_accumulation_steps: int = setting("Training", 1, "Batches per optimizer step.", ge=1)
    save_steps: int = setting("Training", 200, "Steps between checkpoints.", ge=1)
    seed: int = setting("Training", 0, "Seed of splits, draws and sampling.", ge=0)
    trainer: dict[str, Any] = setting(
        "Training", {}, "Any field of TRL's SFTConfig; repeatable.", metavar="trainer.KEY=VALUE"
    )

    validations: int = setting("Evaluation", 12, "Times to judge replies to --validation prompts; 0: never.", ge=0)
    judge: list[str] = setting(
        "Evaluation", [], "Who calls a reply bad; the first decides. Needed with --prompts.", names="judge"
    )
    judge_url: str | None = as_in_run("judge_url")
    evaluation_prompts: int = setting("Evaluation", 200, "Most prompts per split.", ge=1, may_differ=True)
    max_new_tokens: int = setting("Evaluation", 160, "Longest reply and longest analysis, tokens.", ge=1)
    skip_evaluation: bool = as_in_run("skip_evaluation")

    arms: list[str] = setting(
        "Study",
        [],
        f"Arms of the study, with commas; unset: all of {', '.join(ARMS)}.",
        metavar="NAMES",
        choices=tuple(ARMS),
        commas=True,
    )
    seeds: int = setting("Study", 1, "Train so many seeds of each arm, from --seed on.", ge=1)

    template: str = setting(
        "Study", "I cannot assist with this request.", "Answer that the unlearning arms teach.", metavar="TEXT"
    )

    output: str = setting(
        "Output", "", "Run directory: mistakes, analyses, the model, the report.", may_differ=True, metavar="DIR"
    )
