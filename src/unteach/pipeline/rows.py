"""The rows of a run, by what they are for: read, cleaned and split."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from unteach.data.encoded import Encoded, encode_all
from unteach.data.example import Example, Polarity
from unteach.data.overlap import fingerprint, overlap, split_by_prompt, without_duplicates, without_known
from unteach.data.passages import balanced, is_text, passages, sections, shuffle_passages, windows
from unteach.data.prompt_format import PromptFormat
from unteach.data.reading import HowToRead
from unteach.data.reading import read as read_source
from unteach.data.sources import named_set
from unteach.errors import ConfigError, DataError
from unteach.models.context import context_length
from unteach.models.ranks import by_first_rank
from unteach.pipeline.config import RunConfig
from unteach.pipeline.settings import flag
from unteach.results.report import Cost, Source
from unteach.text.escape import inert_line
from unteach.text.refusals import refusal_of
from unteach.text.words import language_of
from unteach.training.config import MOST_TOKENS
from unteach.training.data import FEWEST_NEGATIVES, FEWEST_NORMALS, longest_row, validation_share

HELD_OUT = 0.2
"""Largest share of each set's prompts that is held out for evaluation."""
NEARLY_ALL_REFUSALS, MANY_REFUSALS = 0.8, 0.3
"""Shares of the negatives from which refusals among them stop a run, or are noted."""


@dataclass
class Sets:
    """All rows of a run, by what they are for.

    `negatives` and `normals` are split into train, validation and held_out. `uncut` holds the rows to train on of each
    ("negatives", "normals") before running text is cut into windows. `cost` is that of rows which the model made.
    `language` is that of the negatives (`language_of`), and the one in which prompts of ours are put.
    """

    negatives: dict[str, list[Example]]
    normals: dict[str, list[Example]]
    evaluation: dict[str, list[Example]]
    sources: list[Source]
    notes: list[str]
    non_members: list[Example] = field(default_factory=list)
    uncut: dict[str, list[Example]] = field(default_factory=dict)
    cost: list[Cost] = field(default_factory=list)
    language: str = "en"


@by_first_rank
def read_sets(config: RunConfig) -> Sets:
    """Read, clean and split all rows of a run. Raises DataError for what cannot be used."""
    notes: list[str] = []
    negatives = read(config, config.forget, "negative", "negatives", notes)
    notes += refusal_notes(negatives, stop=not config.allow_refusals)
    normals = read(config, config.retain, "normal", "normals", notes)
    contradictions, messages = overlap(negatives, normals)
    notes += messages
    contradicting = {example.key for example in contradictions}
    normals = [example for example in normals if example.key not in contradicting]
    evaluation = _read_splits(config, config.unseen, config.normal, notes)
    for name, rows in evaluation.items():
        evaluation[name] = _leave_out_known(name, rows, negatives if name.startswith("unseen") else normals, notes)
    sources = _sources(config, negatives, normals)
    non_members = read(config, config.non_members, "negative", "non_members", notes)
    texts = any(map(is_text, negatives))
    parts = split_rows(negatives, evaluation["unseen"], config, 0 if texts else FEWEST_NEGATIVES)
    sets = Sets(parts, {}, evaluation, sources, notes, passages(non_members), language=language_of_rows(negatives))
    if texts:
        evaluation["seen"] = passages(sets.negatives["train"])
    if normals:
        sets.normals = split_rows(normals, evaluation["normal"], config, FEWEST_NORMALS)
    _complete_evaluation(sets)
    _cut_texts(sets, config)
    for parts in (sets.negatives, sets.normals):
        if parts:
            parts["train"] = at_most(parts["train"], config.training_rows, config.seed)
    return sets


def refusal_notes(negatives: Sequence[Example], *, stop: bool) -> list[str]:
    """Return a note where many of the negatives are refusals.

    Raises DataError where nearly all are, with `stop`: a model that unlearns refusals is a harmful one, and mostly it
    was the columns or the labels that stood the wrong way round.
    """
    replies = [row for row in negatives if not row.is_passage]
    refusals = [row for row in replies if refusal_of(row.reply) == "full"]
    share = len(refusals) / max(1, len(replies))
    if share < MANY_REFUSALS:
        return []
    said = f"{len(refusals)} of {len(replies)} negatives are refusals"
    shown = ", ".join(f"{row.where}: “{inert_line(row.reply, 60)}”" for row in refusals[:3])
    if stop and share >= NEARLY_ALL_REFUSALS:
        raise DataError(
            f"--forget: {said} ({shown}), and training would make the model stop refusing; were good and bad replies "
            "or labels mixed up (see --column, --bad-label), or is this --retain? If refusals are what must go, add "
            "--allow-refusals"
        )
    return [f"negatives: {said} ({shown}): these teach the model not to refuse"]


def language_of_rows(rows: Sequence[Example]) -> str:
    """Return the language whose wording fits prompts and replies of these rows."""
    return language_of(text for row in rows for text in (row.prompt, row.reply))


@by_first_rank
def read_evaluation_rows(config: RunConfig) -> Sets:
    """Read the rows of `unteach evaluate`: all negatives are unseen, and all normal rows normal."""
    notes: list[str] = []
    evaluation = _read_splits(config, [*config.forget, *config.unseen], [*config.retain, *config.normal], notes)
    notes += refusal_notes(evaluation["unseen"], stop=False)
    sources = _sources(config, evaluation["unseen"], evaluation["normal"])
    rows = {split: shuffle_passages(passages(given), config.seed) for split, given in evaluation.items()}
    non_members = read(config, config.non_members, "negative", "non_members", notes)
    return Sets({}, {}, rows, sources, notes, passages(non_members))


def read(config: RunConfig, paths: list[str], polarity: Polarity, name: str, notes: list[str]) -> list[Example]:
    """Read the rows of all paths, without duplicates; `name` stands for them in the notes. Raises DataError."""
    readings = [read_source(path, polarity, _how_to_read(config, polarity)) for path in paths]
    examples = [example for reading in readings for example in reading.examples]
    for reading in readings:
        of_several = f"{inert_line(reading.source, 80)}: " if len(readings) > 1 else ""
        notes += [f"{name}: {of_several}{note}" for note in (*reading.warnings, *reading.notes)]
    if config.bad_label and set(paths) & set(config.forget) and not any(reading.labels for reading in readings):
        raise ConfigError("--bad-label: no column of --forget is read as a label; name it with --column label=NAME")
    for chosen in filter(None, (named_set(path, polarity) for path in paths)):
        about = "; ".join((chosen.set.licence, chosen.set.citation, *chosen.set.warnings))
        notes.append(f"{name}: {chosen.name} is a public set ({about})")
    kept, dropped = without_duplicates(examples)
    if dropped:
        notes.append(f"{name}: dropped {len(dropped)} duplicates of {len(examples)} rows")
    return sections(kept)


def _how_to_read(config: RunConfig, polarity: Polarity) -> HowToRead:
    split, revision = config.data_split, config.data_revision
    if polarity == "negative":
        return HowToRead(config.column, config.bad_label, split, revision)
    own = config.retain_bad_label
    return HowToRead(config.retain_column, own or config.bad_label, split, revision, lenient=not own)


def _read_splits(config: RunConfig, unseen: list[str], normal: list[str], notes: list[str]) -> dict[str, list[Example]]:
    """Read the rows of all splits to evaluate on."""
    return {
        "unseen": read(config, unseen, "negative", "unseen", notes),
        "unseen_concept": read(config, config.unseen_concept, "negative", "unseen_concept", notes),
        "normal": read(config, normal, "normal", "normal", notes),
        "lookalike": read(config, config.lookalike, "normal", "lookalike", notes),
    }


def _sources(config: RunConfig, negatives: list[Example], normals: list[Example]) -> list[Source]:
    return [
        Source(name=name, source=", ".join(paths), rows=len(rows), fingerprint=fingerprint(rows))
        for name, paths, rows in (("negatives", config.forget, negatives), ("normals", config.retain, normals))
        if rows
    ]


def _leave_out_known(name: str, rows: list[Example], known: list[Example], notes: list[str]) -> list[Example]:
    """Leave out rows of a split whose prompts are trained on. Raises DataError where no row is left."""
    new = without_known(rows, known)
    flags = f"{flag(name)} and {'--forget' if name.startswith('unseen') else '--retain'}"
    if rows and not new:
        raise DataError(f"{flags}: all {len(rows)} prompts stand in both; give {flag(name)} other rows or leave it out")
    if len(new) < len(rows):
        notes.append(f"{name}: left out {len(rows) - len(new)} of {len(rows)} rows, whose prompts stand in {flags}")
    return new


def split_rows(
    examples: list[Example], given: list[Example], config: RunConfig, fewest: int
) -> dict[str, list[Example]]:
    """Split a set into train, validation and held_out by prompt; nothing is held out where `given` is evaluated on.

    Validation gets `fewest` prompts if it can, and none for 0. No more is held out than is evaluated on, so that the
    rest can be trained on.
    """
    prompts = max(1, len({example.prompt_key if example.turns else example.key for example in examples}))
    held_out = 0.0 if given else min(HELD_OUT, config.evaluation_prompts / prompts)
    validation = validation_share(prompts, config.validation_prompts, fewest) if fewest else 0.0
    fractions = {"train": 1 - validation - held_out, "validation": validation, "held_out": held_out}
    parts = split_by_prompt(examples, fractions, config.seed)
    if not parts["train"]:
        parts["train"] = examples
    return parts


def _complete_evaluation(sets: Sets) -> None:
    """Evaluate on the rows that were held out, where none were given."""
    for split, parts in (("unseen", sets.negatives), ("normal", sets.normals)):
        sets.evaluation[split] = sets.evaluation[split] or parts.get("held_out", [])


def _cut_texts(sets: Sets, config: RunConfig) -> None:
    """Cut running text into rows: windows to train on, passages elsewhere. Other rows stay as they are."""
    for split, rows in sets.evaluation.items():
        sets.evaluation[split] = shuffle_passages(passages(rows), config.seed)
    for name, parts in (("negatives", sets.negatives), ("normals", sets.normals)):
        if parts:
            sets.uncut[name] = parts["train"]
            parts["train"] = windows(parts["train"], config.seed)
            parts |= {part: passages(parts[part]) for part in ("validation", "held_out")}
    if any(map(is_text, sets.uncut["negatives"])):  # all of a text is trained on, but only passages begin at a sentence
        sets.negatives["validation"] = shuffle_passages(passages(sets.uncut["negatives"]), config.seed)
    if any(row.is_passage for row in sets.negatives["train"]):
        if not any(row.is_passage for row in sets.normals.get("train", [])):
            sets.notes.append(
                "the negatives are running text and no normal row is: the model may stop going on with any text; "
                "add other texts with --retain"
            )
        sets.normals = {name: balanced(rows) for name, rows in sets.normals.items()}


def at_most(rows: Sequence[Any], most: int | None, seed: int) -> list[Any]:
    """Draw at most so many rows by seed, in their order; all for None."""
    if most is None or len(rows) <= most:
        return list(rows)
    return [rows[number] for number in sorted(random.Random(f"most:{seed}").sample(range(len(rows)), most))]


def longest_evaluated(config: RunConfig, model: Any) -> int:
    """Return how many tokens prompt and reply may have together in a row to evaluate on."""
    return longest_row(config.max_length, model, most=context_length(model) or MOST_TOKENS)


def encode_splits(
    splits: dict[str, list[Example]], form: PromptFormat, config: RunConfig, max_length: int, notes: list[str]
) -> dict[str, list[Encoded]]:
    """Encode at most `evaluation_prompts` rows of each split, in order, without empty splits."""
    limit = config.evaluation_max_length or max_length
    encoded: dict[str, list[Encoded]] = {}
    for name, examples in splits.items():
        if examples:
            rows, messages = encode_all(examples, form, max_length, name)
            notes += messages
            fitting = [row for row in rows if row.length <= limit]
            encoded[name] = (fitting or rows)[: config.evaluation_prompts]
    return encoded
