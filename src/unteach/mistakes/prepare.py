"""Prepare a run, a study or a single step: settings, rows and the model, and everything that can be wrong with them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unteach.data.prompt_format import PromptFormat
from unteach.errors import ConfigError
from unteach.judges import load_judges
from unteach.judges.base import Judge, JudgeSettings, LearningJudge
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.guide import guided_format
from unteach.mistakes.records import Records
from unteach.mistakes.rows import MistakeRows, gather_rows
from unteach.models.ranks import on_first_rank
from unteach.models.reply import named_end
from unteach.pipeline.original import Original, check_adapter_settings, load_original
from unteach.prompts.mistakes import MistakeWording, load_wording
from unteach.scenarios import load_scenario
from unteach.training.data import longest_row
from unteach.training.supervised import TuneSettings, arguments_of


@dataclass(frozen=True)
class PreparedMistakes:
    """What the second route has before it trains; `records` is empty until the steps have filled it."""

    config: MistakesConfig
    judges: Sequence[Judge]
    wording: MistakeWording
    rows: MistakeRows
    original: Original
    records: Records = field(default_factory=Records)

    @property
    def max_length(self) -> int:
        """The most tokens that a row to train on may have."""
        return longest_row(self.config.max_length, self.original.model)

    @property
    def reminding(self) -> PromptFormat:
        """The format that puts the reminder before every prompt. Raises ConfigError where the template cannot."""
        form, eos = self.original.form, named_end(self.original.model)
        return guided_format(form.tokenizer, self.wording.reminder, form.name, eos, form.settings)


def prepare(config: MistakesConfig, *, single_step: bool = False) -> PreparedMistakes:
    """Read the rows and load the model; nothing is written.

    For a `single_step` no prompts are held out. Otherwise the settings of the training are checked too, before hours of
    induction. Raises UnteachError for whatever is wrong with settings, rows or model.
    """
    judges = make_judges(config)
    wording = on_first_rank(load_wording, config.wording)
    rows = gather_rows(config, hold_out=not single_step)
    check_adapter_settings(config)
    original = load_original(config, trained=True)
    config = config.model_copy(update={"template_date": original.form.settings.date})
    prepared = PreparedMistakes(config, judges, wording, rows, original)
    if not single_step:
        longest_row(config.max_length, original.model)
        arguments_of(original.model, tune_settings(config, Path(config.output) / "checkpoints"), lora=config.lora)
    return prepared


def named_judges(config: MistakesConfig) -> list[str]:
    """Return the judges that the user named, or those of the scenario harm."""
    return config.judge or list(load_scenario("harm").defaults["judge"])


def make_judges(config: MistakesConfig) -> list[Judge]:
    """Make the judges. Raises ConfigError for missing ones, and for those that learn from rows of `unteach run`."""
    check_complete(config)
    judges = load_judges(named_judges(config), JudgeSettings("harm", config.judge_url, config.seed))
    for judge in judges:
        if isinstance(judge, LearningJudge):
            raise ConfigError(f"--judge {judge.name}: it learns from the rows of `unteach run`; choose another judge")
    return judges


def check_complete(config: MistakesConfig) -> None:
    """Raise ConfigError where there is no model, or no judge although replies must be judged that nobody labelled."""
    if not config.model:
        raise ConfigError("--model is missing; see unteach mistakes run --help")
    if config.prompts and not config.judge:
        raise ConfigError(
            "--judge is missing: who says which induced replies are bad? Give openai:MODEL with --judge-url, "
            "classifier:MODEL or rule:FILE (`unteach judges list`)"
        )


def tune_settings(
    config: MistakesConfig, directory: Path, seed: int | None = None, checkpoints: bool = True
) -> TuneSettings:
    """Return how to tune, in this directory, with or without checkpoints."""
    return TuneSettings(
        directory,
        config.batch_size,
        config.gradient_accumulation_steps,
        config.learning_rate,
        config.save_steps if checkpoints else None,
        config.seed if seed is None else seed,
        cpu=(config.device or "").startswith("cpu"),
        trainer=config.trainer,
    )
