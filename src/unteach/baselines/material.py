"""What baselines train on: rows with their loss masks, passes over them, and pairs of replies."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from unteach.baselines.baseline_run import BaselineRun
from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.errors import DataError
from unteach.training.rows import TrainingRow, fitting, repeated_to


def encode_rows(run: BaselineRun, examples: Sequence[Example], kind: str) -> list[TrainingRow]:
    """Encode rows whose whole reply is learnt; rows that are too long are left out, and named. Raises DataError."""
    if not examples:
        return []
    encoded = fitting(kind, examples, run.original.form, run.max_length, run.notes)
    if not encoded:
        raise DataError(f"no {kind} row fits into {run.max_length} tokens; raise --max-length")
    return learn_replies(encoded, kind)


def learn_replies(encoded: Sequence[Encoded], kind: str) -> list[TrainingRow]:
    """Return rows with loss on the whole reply, and on nothing of the prompt."""
    return [TrainingRow(kind, row, (False,) * len(row.prompt_ids) + (True,) * len(row.reply_ids)) for row in encoded]


def encode_good_answers(run: BaselineRun) -> list[TrainingRow]:
    """Return the good answers as rows to learn: those of the negatives, then those to other prompts."""
    answers = [with_reply(row, row.good or "") for row in run.rows.with_good]
    return encode_rows(run, [*answers, *run.rows.answered], "good")


def with_reply(row: Example, reply: str) -> Example:
    """Return the same prompt with another reply."""
    return replace(row, reply=reply, good=None, bad=None)


def add_normals(run: BaselineRun, rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """Add normal rows, `--normals-per-row` of them per row, each once before any comes twice."""
    normals = encode_rows(run, run.rows.normals, "normal")
    wanted = round(run.normals_per_row * len(rows))
    drawn: list[TrainingRow] = []
    for turn in range(wanted // max(len(normals), 1) + 1 if normals else 0):
        order = random.Random(f"normals:{run.config.seed}:{turn}").sample(normals, len(normals))
        drawn += order[: wanted - len(drawn)]
    return [*rows, *drawn]


def lay_out_passes(run: BaselineRun, rows: Sequence[TrainingRow], epochs: float | None = None) -> list[TrainingRow]:
    """Lay out so many passes over the rows (None: `--epochs`, or 3), each in an order of its own."""
    tokens = sum(len(row.input_ids) for row in rows)
    return repeated_to(rows, round((epochs or run.config.epochs or 3.0) * tokens), run.config.seed)


@dataclass(frozen=True)
class ReplyPair:
    """A prompt with a better and a worse reply, as token ids."""

    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]

    @property
    def tokens(self) -> int:
        """Tokens of both sequences, the prompt in each."""
        return 2 * len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)


def encode_pairs(run: BaselineRun, examples: Sequence[Example], notes: list[str]) -> list[ReplyPair]:
    """Encode (prompt, good, reply) of negatives; pairs with a row that is too long are left out, and counted.

    Raises DataError where none is left.
    """
    form, made = run.original.form, []
    for row in examples:
        prompt, chosen = form.prompt_ids(row.turns), form.reply_ids(row.turns, row.good or "")
        made.append(ReplyPair(tuple(prompt), tuple(chosen), tuple(form.reply_ids(row.turns, row.reply, row.cut))))
    most = run.max_length
    fit = [pair for pair in made if len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids)) <= most]
    if not fit:
        raise DataError(f"no pair of replies fits into {most} tokens; raise --max-length")
    if len(fit) < len(made):
        notes.append(f"pairs: left out {len(made) - len(fit)} of {len(made)} that are longer than {most} tokens")
    return fit
