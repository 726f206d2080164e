"""The rows of learning from mistakes: prompts, labelled mistakes, what is mixed in, and what is checked on."""

import random
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from unteach.data.example import Example
from unteach.data.formats import read_examples
from unteach.data.overlap import fingerprint, split_by_prompt, without_duplicates, without_known
from unteach.data.own_answers import answer_prompts, generate_lookalikes, generate_normals
from unteach.data.prompt_format import PromptFormat
from unteach.errors import ConfigError
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.records import Mistake, Source, read_mistakes, read_prompts
from unteach.pipeline.rows import cost_of_answers
from unteach.prompts.benign import benign_prompts
from unteach.results.cost import Meter
from unteach.results.report import OWN_ANSWERS, Cost
from unteach.results.report import Source as Set

Row = TypeVar("Row", Example, Mistake)
HELD_OUT = 0.2
"""Largest share of the prompts that only the check sees."""


@dataclass
class Material:
    """All rows by what they are for.

    `prompts` are asked with inducements (a known bad reply in `bad`), `labelled` are mistakes with their replies; both
    to train on. `unseen_prompts` and `unseen_mistakes` are held out; `splits` holds rows to check with that were given,
    `validation` those whose replies are judged while the model is tuned. `cost` is what making normal rows took.
    """

    prompts: list[Example] = field(default_factory=list)
    unseen_prompts: list[Example] = field(default_factory=list)
    labelled: list[Mistake] = field(default_factory=list)
    unseen_mistakes: list[Mistake] = field(default_factory=list)
    normals: list[Example] = field(default_factory=list)
    harmless: list[Example] = field(default_factory=list)
    splits: dict[str, list[Example]] = field(default_factory=dict)
    sources: list[Set] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cost: list[Cost] = field(default_factory=list)
    validation: list[Example] = field(default_factory=list)

    @property
    def good_replies(self) -> list[Example]:
        """Replies to train with that are known to be good, to harmful prompts and to normal ones."""
        return [row for row in [*self.harmless, *self.normals] if row.turns and not row.is_passage]


def gather(config: MistakesConfig, *, hold_out: bool = True) -> Material:
    """Read and part all rows; without `hold_out`, no prompts are held out.

    Raises DataError for rows that cannot be used, ConfigError where there is nothing.
    """
    found = Material()
    prompts = _unique([row for source in config.prompts for row in _prompts(config, source)], found.notes)
    labelled = read_all_mistakes(config)
    if config.most_rows:
        prompts, labelled = _by_lot(prompts, config), _by_lot(labelled, config)
    for split in ("unseen", "unseen_concept"):
        found.splits[split] = _read(config, getattr(config, split), "negative")
    found.validation = _read(config, config.validation, "negative")
    _part(found, prompts, labelled, config, hold_out and not found.splits["unseen"])
    found.splits["lookalike"] = _read(config, config.lookalike, "normal")
    normals = _unchecked("normal", _read(config, config.retain, "normal"), found)
    found.splits["normal"] = without_known(_read(config, config.normal, "normal"), normals)
    if normals and not found.splits["normal"]:
        found.normals, found.splits["normal"] = _held_out(normals, config)
    else:
        found.normals = normals
    found.harmless = _harmless(found, config)
    given = (
        ("prompts", config.prompts, prompts),
        ("mistakes", config.mistakes + config.reports, labelled),
        ("normals", config.retain, normals),
        ("harmless", config.harmless, found.harmless),
    )
    for name, paths, rows in given:
        if rows and paths:
            examples = [row.example if isinstance(row, Mistake) else row for row in rows]
            about = Set(name=name, source=", ".join(paths), rows=len(rows), fingerprint=fingerprint(examples))
            found.sources.append(about)
    return found


def add_own_answers(found: Material, model: Any, form: PromptFormat, config: MistakesConfig, key: str) -> None:
    """Where no normal rows or look-alikes were given, take the model's own answers to the shipped prompts."""
    longest = config.max_new_tokens
    if not found.normals:
        meter = Meter()
        made = generate_normals(model, form, seed=config.seed, max_new_tokens=longest, key=key)
        found.cost.append(cost_of_answers(meter, model, form, made))
        found.normals, held = _held_out(made, config)
        if not found.splits["normal"]:  # the check is greedy, and so is what there is to keep
            asked = [(row.prompt, row.where) for row in held]
            found.splits["normal"] = answer_prompts(asked, model, form, key=key, max_new_tokens=longest)
        source = f"{OWN_ANSWERS} to {len(benign_prompts())} benign prompts"
        found.sources.append(Set(name="normals", source=source, rows=len(made), fingerprint=fingerprint(made)))
        found.notes.append(f"no --retain was given: the ordinary rows are {source}")
    if not found.splits["lookalike"] and not config.skip_evaluation:
        count = config.evaluation_prompts
        found.splits["lookalike"] = generate_lookalikes(model, form, max_new_tokens=longest, count=count, key=key)


def _by_lot(rows: list[Row], config: MistakesConfig) -> list[Row]:
    """Take as many rows as are wanted at most, in the order of the file."""
    places = random.Random(f"rows:{config.seed}").sample(range(len(rows)), min(len(rows), config.most_rows or 0))
    return [rows[place] for place in sorted(places)]


def _part(
    found: Material, prompts: list[Example], labelled: list[Mistake], config: MistakesConfig, hold_out: bool
) -> None:
    """Hold prompts out of both sets together, so that no prompt is trained on in one and checked on in the other."""
    rows = [*prompts, *(mistake.example for mistake in labelled)]
    keys = {row.prompt_key for row in rows}
    share = min(HELD_OUT, config.evaluation_prompts / len(keys)) if hold_out and keys else 0.0
    held: set[str] = set()
    if share * len(keys) >= 1:
        parts = split_by_prompt(rows, {"train": 1 - share, "held": share}, config.seed)
        held = {row.prompt_key for row in parts["held"]}
    given = {row.prompt_key for split in ("unseen", "unseen_concept") for row in found.splits[split]}
    found.prompts = [row for row in prompts if row.prompt_key not in held | given]
    found.unseen_prompts = [row for row in prompts if row.prompt_key in held]
    found.labelled = [m for m in labelled if m.example.prompt_key not in held | given]
    found.unseen_mistakes = [m for m in labelled if m.example.prompt_key in held]
    used = len(found.prompts) + len(found.unseen_prompts) + len(found.labelled) + len(found.unseen_mistakes)
    if met := len(rows) - used:
        found.notes.append(f"left out {met} rows to train on whose prompts stand in --unseen or --unseen-concept")
    if rows and not found.prompts and not found.labelled:
        raise ConfigError("every prompt stands in --unseen or --unseen-concept; give others to train on")


def _harmless(found: Material, config: MistakesConfig) -> list[Example]:
    """Good answers to mix in: those given, else the right replies that the rows to train on bring with them."""
    if config.harmless:
        return _unchecked("harmless", _read(config, config.harmless, "normal"), found)
    rows = [*found.prompts, *(mistake.example for mistake in found.labelled)]
    known = [replace(row, reply=row.good, good=None, bad=None) for row in rows if row.good]
    known = without_duplicates(known)[0]
    if known and config.harmless_per_analysis:
        found.notes.append(
            f"no --harmless was given: {len(known)} right replies that the rows bring along are there to be mixed in "
            "(--harmless-per-analysis 0 leaves them out)"
        )
    return known


def _unchecked(name: str, rows: list[Example], found: Material) -> list[Example]:
    """Leave out rows to train on whose prompts are checked on."""
    held = [*found.unseen_prompts, *(mistake.example for mistake in found.unseen_mistakes)]
    kept = without_known(rows, held + found.splits["unseen"] + found.splits["unseen_concept"])
    if left_out := len(rows) - len(kept):
        found.notes.append(f"--{name}: left out {left_out} of {len(rows)} rows whose prompts are checked on")
    return kept


def _held_out(rows: list[Example], config: MistakesConfig) -> tuple[list[Example], list[Example]]:
    """Part normal rows into those to mix in and those to check on."""
    prompts = len({row.prompt_key if row.turns else row.key for row in rows})
    share = min(HELD_OUT, config.evaluation_prompts / prompts)
    if share * prompts < 1:
        return rows, []
    parts = split_by_prompt(rows, {"train": 1 - share, "held": share}, config.seed)
    return parts["train"], parts["held"]


def read_all_mistakes(config: MistakesConfig) -> list[Mistake]:
    """Read the labelled and the reported mistakes."""
    found = [m for source in config.mistakes for m in _mistakes(config, source, "labelled")]
    return found + [m for source in config.reports for m in _mistakes(config, source, "reported")]


def _prompts(config: MistakesConfig, source: str) -> list[Example]:
    return read_prompts(source, config.column, config.data_split, config.data_revision)


def _mistakes(config: MistakesConfig, source: str, default: Source) -> list[Mistake]:
    return read_mistakes(source, default, columns=config.column, split=config.data_split, revision=config.data_revision)


def _read(config: MistakesConfig, paths: list[str], polarity: Any) -> list[Example]:
    columns = config.column if polarity == "negative" else None
    rows = [
        row for path in paths for row in read_examples(path, polarity, columns, config.data_split, config.data_revision)
    ]
    return without_duplicates(rows)[0]


def _unique(rows: list[Example], notes: list[str]) -> list[Example]:
    """Keep the first of rows with the same prompt: each is asked once."""
    kept = list({row.prompt_key: row for row in reversed(rows)}.values())[::-1]
    if len(kept) < len(rows):
        notes.append(f"prompts: {len(rows) - len(kept)} of {len(rows)} stand there twice; each is asked once")
    return kept
