"""The stages of a baseline's training, by trainers of TRL: SFT on rows, and what all of them are told."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import PrinterCallback

from unteach.baselines.baseline_run import BaselineRun
from unteach.baselines.material import lay_out_passes
from unteach.errors import ConfigError
from unteach.pipeline.original import adapter_settings
from unteach.progress import track
from unteach.results.cost import Meter
from unteach.text.escape import inert_line
from unteach.training.config import default_learning_rate
from unteach.training.curve import ValidationCurve, waypoints
from unteach.training.log_file import LogFile
from unteach.training.rows import TrainingRow
from unteach.training.supervised import RowsTrainer, StepsShown, TuneSettings, fields_of, tuner

REPEATS_ROWS = "where the last batch is not full, TRL gives rows to two ranks, so more ranks would learn something else"
"""Why a trainer that shuffles its own rows is for one process."""


def train_stage(
    run: BaselineRun,
    stage: str,
    make: Callable[[], Any],
    tokens: Callable[[Any], dict[str, int]],
    validated: bool = True,
) -> Any:
    """Make a trainer, train it under a progress bar, log it and add its cost, making it included; return the trainer.

    `tokens` says what a trainer has taken so far, by the names of `flops_of`. If `validated`, replies to the validation
    prompts are judged during training. Raises ConfigError for a field of `--set` that does not exist or does not fit.
    """
    meter = Meter()
    validation = ValidationCurve(run.config.validations, run.behaviour, meter, lambda step: tokens(trainer))
    with track(f"{run.arm}: {stage}") as progress, quiet_trl():
        try:
            trainer = make()
        except (TypeError, ValueError, ImportError) as error:
            if not run.config.trainer:
                raise
            raise ConfigError(f"--set {', '.join(run.config.trainer)}: {inert_line(str(error), 200)}") from error
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(LogFile(run.directory / "log.jsonl", stage))
        if progress:
            trainer.add_callback(StepsShown(progress))
        if validated and run.validation and run.config.validations:
            trainer.add_callback(validation)
        trainer.train()
    directory = Path(trainer.args.output_dir)
    for made in (directory, directory.parent):  # trainers make it whether or not they save
        with suppress(OSError):
            made.rmdir()
    run.curve += waypoints(validation.curve, trainer.model, run.arm, stage, run.config.seed, run.cost)
    run.cost.append(meter.cost(trainer.model, run.arm, stage, **tokens(trainer)))
    return trainer


def tune(run: BaselineRun, rows: Sequence[TrainingRow], stage: str, last: bool = True) -> RowsTrainer:
    """Tune on rows in their order, with loss on the tokens that each row says."""
    trainer: RowsTrainer = train_stage(
        run,
        stage,
        lambda: tuner(
            run.original.model,
            run.original.tokenizer,
            run.original.form.ids.pad_id,
            rows,
            _stage_settings(run, stage, last),
            peft_config=adapter_settings(run.config, run.original.model),
        ),
        lambda trainer: {"backward": sum(len(row.input_ids) for row in rows[: _rows_taken(trainer)])},
    )
    return trainer


def tune_first(run: BaselineRun, rows: Sequence[TrainingRow]) -> tuple[Any, Any]:
    """Tune on rows for `--sft-epochs` passes; return the model and the adapter still to be put on it, or None."""
    if not run.config.sft_epochs:
        return run.original.model, adapter_settings(run.config, run.original.model)
    return tune(run, lay_out_passes(run, rows, run.config.sft_epochs), "sft", last=False).model, None


def _rows_taken(trainer: Any) -> int:
    """Return how many rows the steps of a trainer have taken; the last batch of a pass counts as a whole one."""
    args = trainer.args
    per_step = args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps
    return int(trainer.state.global_step * per_step)


class TakesIds:
    """Keeps a trainer of TRL from tokenising: its rows are token ids already."""

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset


def make_trainer(
    run: BaselineRun,
    stage: str,
    trainer: Callable[..., Any],
    arguments: type,
    rows: Sequence[dict[str, Any]],
    *,
    model: Any,
    peft: Any,
    rate: float = 1.0,
    last: bool = True,
    **fields: Any,
) -> Any:
    """Make a trainer of TRL for one stage, without dropout.

    `arguments` is the class of its config, which gets `fields`; those of `--set` win in the last stage. `rate` is the
    peak learning rate, times that of fine-tuning.
    """
    settings = _stage_settings(run, stage, last, rate)
    own = fields_of(settings, run.original.model, lora=run.config.lora) | {"disable_dropout": True}
    return trainer(
        model=model,
        args=arguments(**(own | fields | settings.trainer)),
        train_dataset=Dataset.from_list(list(rows)),
        processing_class=run.original.tokenizer,
        peft_config=peft,
    )


def _stage_settings(run: BaselineRun, stage: str, last: bool, rate: float = 1.0) -> TuneSettings:
    """Return how a stage is trained; fields of `--set` and `--learning-rate` are those of the last one."""
    config = run.config
    usual = rate * default_learning_rate(run.original.model, config.lora)
    return TuneSettings(
        run.directory / "checkpoints" / stage.replace(" ", "-"),
        config.batch_size,
        config.gradient_accumulation_steps,
        (config.learning_rate if last else None) or usual,
        None,
        config.seed,
        cpu=(config.device or "").startswith("cpu"),
        trainer=config.trainer if last else {},
    )


@contextmanager
def quiet_trl() -> Iterator[None]:
    """Switch off the bars of TRL's preference trainers, which ask an environment variable alone."""
    before = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        yield
    finally:
        del os.environ["TQDM_DISABLE"]
        if before is not None:
            os.environ["TQDM_DISABLE"] = before
