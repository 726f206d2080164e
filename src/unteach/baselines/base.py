"""What a baseline is, what it is given, and the ways to train that several of them share."""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig

from unteach.baselines.config import BaselineConfig
from unteach.baselines.rows import Rows
from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.data.prompt_format import PromptFormat
from unteach.errors import ConfigError, DataError
from unteach.judges.base import Judge
from unteach.models.adapter import lora_config
from unteach.progress import track
from unteach.results.cost import Meter
from unteach.results.report import Cost, Waypoint
from unteach.text.escape import inert_line
from unteach.training.curve import ValidationCurve, waypoints
from unteach.training.log_file import LogFile
from unteach.training.rows import TrainingRow, fitting, repeated_to
from unteach.training.stopping import Behaviour
from unteach.training.supervised import RowsTrainer, StepsShown, TuneSettings, fields_of, tuner
from unteach.training.validation import behaviour_of


@dataclass
class Bench:
    """What a baseline is given: its settings and rows, the original in memory, and where notes and costs go.

    `validation` are held-out negatives, as the arm is asked, whose replies are judged on the way (`curve`). `key` is the
    fingerprint of the original's weights. `directory` is where trainers may write and where log.jsonl is;
    it is there only once training begins.
    """

    arm: str
    config: BaselineConfig
    rows: Rows
    model: Any
    form: PromptFormat
    key: str
    max_length: int
    judge: Judge
    directory: Path
    notes: list[str] = field(default_factory=list)
    cost: list[Cost] = field(default_factory=list)
    validation: list[Encoded] = field(default_factory=list)
    curve: list[Waypoint] = field(default_factory=list)

    def normals_per_row(self, default: float) -> float:
        """How many normal rows go with each row of the baseline's own."""
        given = self.config.normals_per_row
        return default if given is None else given

    def behaviour(self, model: Any) -> Behaviour:
        """Ask a model the validation prompts and judge its replies."""
        return behaviour_of(model, self.form.tokenizer, self.validation, self.judge, self.config.max_new_tokens)

    def epochs(self, default: float = 3.0) -> float:
        """How many passes over the rows are made."""
        return self.config.epochs or default


@dataclass(frozen=True)
class Trained:
    """The model that came out, an adapter still on it, and in words what it was trained on."""

    model: Any
    steps: int
    message: str


class Baseline(Protocol):
    """One way to make a model behave, to compare with.

    `needs` says in a few words what data it asks for. `check` refuses rows that it cannot use before any model is
    loaded; `prepare` makes what it trains on, before anything is written, and may ask the model; `train` changes
    `bench.model` in place (or an adapter on it). `phrase` is what goes before every prompt of the trained model, if
    anything. All raise DataError and ConfigError. `trl_config` has the fields that `--set` may name.
    """

    name: str
    summary: str
    source: str
    needs: str
    trl_config: type

    def check(self, rows: Rows, config: BaselineConfig) -> None: ...

    def prepare(self, bench: Bench) -> Any: ...

    def train(self, bench: Bench, material: Any) -> Trained: ...

    def phrase(self, config: BaselineConfig) -> str | None: ...


class Plain:
    """What most baselines have in common: rows are checked for good answers, prompts go as they are."""

    name = summary = source = needs = ""
    trl_config: type = SFTConfig
    positives = True
    """Whether the negatives must have a good answer."""
    pairs = False
    """Whether a good answer is of use only beside the bad one."""

    def check(self, rows: Rows, config: BaselineConfig) -> None:
        """Raise DataError where there are no good answers and some are needed."""
        if self.positives and not rows.with_good and not (rows.answered and not self.pairs):
            first = rows.negatives[0].where or "row 1"
            raise DataError(
                f"baseline {self.name}: none of the {len(rows.negatives)} negatives has a good answer (first: {first})"
                "; give rows with `chosen` beside `rejected`, a column `good`, or --good with answers to these prompts"
            )

    def phrase(self, config: BaselineConfig) -> str | None:
        """Nothing goes before a prompt."""
        return None


@dataclass(frozen=True)
class Pair:
    """A prompt with a better and a worse reply, as token ids."""

    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens of both sequences, the prompt in each."""
        return 2 * len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)


def pairs_of(examples: Sequence[Example], form: PromptFormat, max_length: int, notes: list[str]) -> list[Pair]:
    """Encode (prompt, good, reply) of negatives; a pair with a row that is too long is left out whole, and counted.

    Raises DataError where none is left.
    """
    made = []
    for row in examples:
        prompt, chosen = form.prompt_ids(row.turns), form.reply_ids(row.turns, row.good or "")
        made.append(Pair(tuple(prompt), tuple(chosen), tuple(form.reply_ids(row.turns, row.reply))))
    fit = [p for p in made if len(p.prompt_ids) + max(len(p.chosen_ids), len(p.rejected_ids)) <= max_length]
    if not fit:
        raise DataError(f"no pair of replies fits into {max_length} tokens; raise --max-length")
    if len(fit) < len(made):
        notes.append(f"pairs: left out {len(made) - len(fit)} of {len(made)} that are longer than {max_length} tokens")
    return fit


def learnt_rows(bench: Bench, examples: Sequence[Example], kind: str) -> list[TrainingRow]:
    """Encode rows whose whole reply is learnt; rows that are too long are left out, and named. Raises DataError."""
    if not examples:
        return []
    encoded = fitting(kind, examples, bench.form, bench.max_length, bench.notes)
    if not encoded:
        raise DataError(f"no {kind} row fits into {bench.max_length} tokens; raise --max-length")
    return [TrainingRow(kind, row, (False,) * len(row.prompt_ids) + (True,) * len(row.reply_ids)) for row in encoded]


def with_normals(bench: Bench, rows: Sequence[TrainingRow], ratio: float) -> list[TrainingRow]:
    """Add normal rows, `ratio` of them per row, each once before any comes twice; the order comes later."""
    normals = learnt_rows(bench, bench.rows.normals, "normal")
    wanted = round(ratio * len(rows))
    drawn: list[TrainingRow] = []
    for turn in range(wanted // max(len(normals), 1) + 1 if normals else 0):
        order = random.Random(f"normals:{bench.config.seed}:{turn}").sample(normals, len(normals))
        drawn += order[: wanted - len(drawn)]
    return [*rows, *drawn]


def passes(bench: Bench, rows: Sequence[TrainingRow], epochs: float | None = None) -> list[TrainingRow]:
    """Lay out so many passes over the rows (None: `--epochs`), each in an order of its own."""
    tokens = sum(len(row.input_ids) for row in rows)
    return repeated_to(rows, round((epochs or bench.epochs()) * tokens), bench.config.seed)


def good_rows(bench: Bench) -> list[TrainingRow]:
    """Return the good answers as rows to learn: those of the negatives, then those to other prompts."""
    answers = [replied(row, row.good or "") for row in bench.rows.with_good]
    return learnt_rows(bench, [*answers, *bench.rows.answered], "good")


def sft_first(bench: Bench, rows: Sequence[TrainingRow]) -> tuple[Any, Any]:
    """Tune on rows for `--sft-epochs` passes; returns the model and the adapter still to be put on it, or None."""
    if not bench.config.sft_epochs:
        return bench.model, peft_of(bench)
    return tuned(bench, passes(bench, rows, bench.config.sft_epochs), "sft", last=False).model, None


def without_copy(trainer: Any) -> Any:
    """Take the copy of an adapter off that TRL made for its reference; returns the model."""
    if "ref" in getattr(trainer.model, "peft_config", {}):
        trainer.model.delete_adapter("ref")
    return trainer.model


def settings_of(bench: Bench, stage: str, rate: float | None, last: bool = True) -> TuneSettings:
    """Say how a stage is trained; `--set` fields and `--learning-rate` are those of the last one."""
    config = bench.config
    return TuneSettings(
        bench.directory / "checkpoints" / stage.replace(" ", "-"),
        config.batch_size,
        config.gradient_accumulation_steps,
        (config.learning_rate if last else None) or rate,
        None,
        config.seed,
        cpu=(config.device or "").startswith("cpu"),
        trainer=config.trainer if last else {},
    )


def peft_of(bench: Bench) -> Any:
    """The adapter to train, or None for all weights."""
    config = bench.config
    if not config.lora:
        return None
    return lora_config(config.lora_rank, config.lora_alpha, 0.0, config.lora_targets, bench.model)


def tuned(bench: Bench, rows: Sequence[TrainingRow], stage: str = "tuning", last: bool = True) -> RowsTrainer:
    """Tune on rows in their order, with loss where they say, and put the cost in the cost."""
    settings = settings_of(bench, stage, None, last)
    trainer: RowsTrainer = ran(
        bench,
        stage,
        lambda callbacks: tuner(
            bench.model,
            bench.form.tokenizer,
            bench.form.ids.pad_id,
            rows,
            settings,
            peft_config=peft_of(bench),
            callbacks=callbacks,
        ),
        lambda done: {"backward": sum(len(row.input_ids) for row in rows[: rows_seen(done)])},
    )
    return trainer


def trl_fields(settings: TuneSettings, model: Any, *, lora: bool, **fields: Any) -> dict[str, Any]:
    """Return the arguments of a TRL config: ours, the stage's own, and those of `--set` over both."""
    return fields_of(settings, model, lora=lora) | fields | settings.trainer


def ran(
    bench: Bench,
    stage: str,
    make: Callable[[list[TrainerCallback]], Any],
    tokens: Callable[[Any], dict[str, int]],
    watch: bool = True,
) -> Any:
    """Make a trainer, train it under a progress bar and log it; its cost, making it included, goes in the cost.

    `tokens` tells of the trainer what it took so far, by the names of `flops_of`. With `watch`, replies to the validation
    prompts are judged on the way. Raises ConfigError for a field of `--set` that does not exist or does not fit.
    """
    meter = Meter()
    watching = ValidationCurve(bench.config.validations, bench.behaviour, meter, lambda step: tokens(trainer))
    with track(f"{bench.arm}: {stage}") as progress, quiet_trl():
        callbacks: list[TrainerCallback] = [LogFile(bench.directory / "log.jsonl", stage)]
        callbacks += [StepsShown(progress)] if progress else []
        callbacks += [watching] if watch and bench.validation and bench.config.validations else []
        try:
            trainer = make(callbacks)
        except (TypeError, ValueError, ImportError) as error:
            if not bench.config.trainer:
                raise
            raise ConfigError(f"--set {', '.join(bench.config.trainer)}: {inert_line(str(error), 200)}") from error
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    _without_empty(bench.directory / "checkpoints")
    bench.curve += waypoints(watching.curve, trainer.model, bench.arm, stage, bench.config.seed, bench.cost)
    bench.cost.append(meter.cost(trainer.model, bench.arm, stage, **tokens(trainer)))
    return trainer


def _without_empty(directory: Path) -> None:
    """Remove the directories that trainers make whether or not they save."""
    for path in sorted((directory, *directory.rglob("*")), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def rows_seen(trainer: Any) -> int:
    """How many rows the steps of a trainer have taken, the last batch of a pass counted as a whole one."""
    args = trainer.args
    return int(trainer.state.global_step * args.per_device_train_batch_size * args.gradient_accumulation_steps)


@contextmanager
def quiet_trl() -> Iterator[None]:
    """Keep TRL's own bars off the terminal: some can be switched off by an environment variable only."""
    before, bars = os.environ.get("TQDM_DISABLE"), not are_progress_bars_disabled()
    os.environ["TQDM_DISABLE"] = "1"
    disable_progress_bars()
    try:
        yield
    finally:
        if bars:
            enable_progress_bars()
        if before is None:
            del os.environ["TQDM_DISABLE"]
        else:
            os.environ["TQDM_DISABLE"] = before


def needed(bench: Bench, **counts: int) -> None:
    """Note what data the arm was trained on: how many rows of which kind; kinds of which there were none are said."""
    listed = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counts.items())
    bench.notes.append(f"data that {bench.arm} needed: {listed}")


def replied(row: Example, reply: str) -> Example:
    """Return the same prompt with another reply."""
    return replace(row, reply=reply, good=None, bad=None)
