"""The rows of a baseline: split like those of `unteach run`, with good answers matched to their prompts."""

import random
from dataclasses import dataclass, field, replace

from unteach.baselines.config import BaselineConfig
from unteach.data.example import Example
from unteach.data.overlap import fingerprint
from unteach.models.ranks import by_first_rank
from unteach.pipeline.config import RunConfig
from unteach.pipeline.rows import Sets, read, read_sets
from unteach.results.report import Source
from unteach.training.draws import negative_drawn


@dataclass
class BaselineRows:
    """What a baseline may train on, and the rows of a run (`sets`), which it is measured on.

    `negatives` and `validation` (held out, never trained on) have their good answer in `good` where one is known;
    `answered` are good answers to prompts that are in no set.
    """

    sets: Sets
    negatives: list[Example]
    validation: list[Example]
    answered: list[Example] = field(default_factory=list)

    @property
    def normals(self) -> list[Example]:
        """The normal rows to train on; none until the model has answered prompts, where none were given."""
        return self.sets.normals.get("train", [])

    @property
    def with_good(self) -> list[Example]:
        """The negatives that have a good answer."""
        return [row for row in self.negatives if row.good]


@by_first_rank
def read_rows(config: BaselineConfig, shared: RunConfig) -> BaselineRows:
    """Read and split all rows as `unteach run` would, and add the good answers. Raises DataError."""
    sets = read_sets(shared)
    train = sets.negatives["train"]
    if config.most_rows and config.most_rows < len(train):
        train = random.Random(f"most:{config.seed}").sample(train, config.most_rows)
        sets.notes.append(f"trained on {len(train)} of {len(sets.negatives['train'])} negatives (--most-rows)")
    rows = BaselineRows(sets, train, sets.negatives["validation"])
    if config.good:
        _match_good_answers(config, shared, rows)
    return rows


def rows_as_met(rows: BaselineRows, shared: RunConfig, length: int) -> list[Example]:
    """Return the negatives in the order in which `unteach run` meets them in its first `length` items, once each."""
    train = rows.sets.negatives["train"]
    most = min(length, 4 * shared.evaluation_prompts)
    met = dict.fromkeys(negative_drawn(number, len(train), shared.seed) for number in range(most))
    return [train[number] for number in met]


def _match_good_answers(config: BaselineConfig, shared: RunConfig, rows: BaselineRows) -> None:
    """Give negatives the answers of --good to their prompts; answers to prompts of the evaluation are left out."""
    notes = rows.sets.notes
    given = read(shared, config.good, "normal", "good", notes)
    by_prompt = {row.prompt_key: row.reply for row in reversed(given)}
    rows.negatives = [replace(row, good=by_prompt.get(row.prompt_key, row.good)) for row in rows.negatives]
    rows.validation = [replace(row, good=by_prompt.get(row.prompt_key, row.good)) for row in rows.validation]
    evaluated = [row for split in rows.sets.evaluation.values() for row in split]
    kept_out = {row.prompt_key for row in [*evaluated, *rows.validation]}
    trained = {row.prompt_key for row in rows.sets.negatives["train"]}
    rows.answered = [row for row in given if row.prompt_key not in kept_out | trained]
    out = sum(row.prompt_key in kept_out - trained for row in given)
    if out:
        notes.append(f"good: left out {out} of {len(given)} rows, whose prompts are evaluated on")
    rows.sets.sources.append(
        Source(name="good", source=", ".join(config.good), rows=len(given), fingerprint=fingerprint(given))
    )
