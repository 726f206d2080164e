"""The rows of a run, by what they are for: read, cleaned, parted."""

import random
from dataclasses import dataclass, field
from typing import Any

from unteach.data.encoded import Encoded, encode_all
from unteach.data.example import Example
from unteach.data.formats import Polarity, read_examples
from unteach.data.overlap import fingerprint, overlap, split_by_prompt, without_duplicates, without_known
from unteach.data.own_answers import answer_prompts, generate_lookalikes, generate_normals
from unteach.data.passages import is_text, passages, sections, windows
from unteach.data.prompt_format import PromptFormat
from unteach.data.sources import named_set
from unteach.errors import DataError
from unteach.models.context import context_length
from unteach.models.kept_replies import tokens_of
from unteach.pipeline.config import RunConfig
from unteach.pipeline.settings import flag
from unteach.progress import track
from unteach.prompts.benign import benign_prompts
from unteach.results.cost import Meter
from unteach.results.report import OWN_ANSWERS, Cost, Source
from unteach.training.config import MOST_TOKENS
from unteach.training.data import longest_row

VALIDATION, HELD_OUT = 0.1, 0.2
"""Largest shares of the prompts of each set that the stopping rules watch, and that only the check sees."""
FEWEST_WATCHED = 20
"""Prompts that the stopping rules should watch; a small set gives up to twice the share for them."""


@dataclass
class Sets:
    """All rows of a run, by what they are for."""

    negatives: dict[str, list[Example]]
    normals: dict[str, list[Example]]
    evaluation: dict[str, list[Example]]
    sources: list[Source]
    notes: list[str]
    non_members: list[Example] = field(default_factory=list)
    uncut: dict[str, list[Example]] = field(default_factory=dict)
    """The rows trained on, "negatives" and "normals", before running text is cut into windows."""
    cost: list[Cost] = field(default_factory=list)
    """What making rows took that nobody gave."""


def read_sets(config: RunConfig) -> Sets:
    """Read, clean and split all rows of a run. Raises DataError for what cannot be used."""
    notes: list[str] = []
    negatives = read(config, config.forget, "negative", config.column, "negatives", notes)
    normals = read(config, config.retain, "normal", config.retain_column, "normals", notes)
    contradictions, messages = overlap(negatives, normals)
    notes += messages
    contradicting = {example.key for example in contradictions}
    normals = [example for example in normals if example.key not in contradicting]
    evaluation = {
        "unseen": read(config, config.unseen, "negative", config.column, "unseen", notes),
        "unseen_concept": read(config, config.unseen_concept, "negative", config.column, "unseen_concept", notes),
        "normal": read(config, config.normal, "normal", config.retain_column, "normal", notes),
        "lookalike": read(config, config.lookalike, "normal", config.retain_column, "lookalike", notes),
    }
    for name, rows in evaluation.items():
        evaluation[name] = _new(name, rows, negatives if name.startswith("unseen") else normals, notes)
    sources = [
        Source(name=name, source=", ".join(paths), rows=len(rows), fingerprint=fingerprint(rows))
        for name, paths, rows in (("negatives", config.forget, negatives), ("normals", config.retain, normals))
        if rows
    ]
    non_members = read(config, config.non_members, "negative", config.column, "non_members", notes)
    texts = any(map(is_text, negatives))
    parted = _parted(negatives, evaluation["unseen"], config, validated=not texts)
    sets = Sets(parted, {}, evaluation, sources, notes, passages(non_members))
    if texts:
        evaluation["seen"] = passages(sets.negatives["train"])
    if normals:
        sets.normals = _parted(normals, evaluation["normal"], config)
    _hold_out(sets, config)
    return sets


def _hold_out(sets: Sets, config: RunConfig) -> None:
    """Check on rows that were held out where none were given, and cut running text into rows."""
    for split, parts in (("unseen", sets.negatives), ("normal", sets.normals)):
        sets.evaluation[split] = sets.evaluation[split] or parts.get("held_out", [])
    for split, rows in sets.evaluation.items():
        sets.evaluation[split] = mixed(passages(rows), config.seed)
    for name, parts in (("negatives", sets.negatives), ("normals", sets.normals)):
        if parts:
            sets.uncut[name] = parts["train"]
            parts["train"] = windows(parts["train"], config.seed)
            parts |= {part: passages(parts[part]) for part in ("validation", "held_out")}
    if any(map(is_text, sets.uncut["negatives"])):  # all of a text is trained on; only its sentence starts are not
        sets.negatives["validation"] = mixed(passages(sets.uncut["negatives"]), config.seed)
    if any(row.is_passage for row in sets.negatives["train"]):
        if not any(row.is_passage for row in sets.normals.get("train", [])):
            sets.notes.append(
                "the negatives are running text and no normal row is: the model may stop going on with any text; "
                "add other texts with --retain"
            )
        sets.normals = {name: balanced(rows) for name, rows in sets.normals.items()}


def balanced(rows: list[Example]) -> list[Example]:
    """Repeat passages of running text until they are half of the rows.

    Normal rows must look like the negatives, or the model learns to tell them by their form (arXiv 2310.10683, §4).
    """
    texts = [row for row in rows if row.is_passage]
    others = len(rows) - len(texts)
    return rows + texts * (others // len(texts) - 1) if texts else rows


def mixed(rows: list[Example], seed: int) -> list[Example]:
    """Shuffle rows cut from texts, which come in the order of the text; other rows keep theirs."""
    if not any(row.is_passage for row in rows):
        return rows
    return random.Random(f"passages:{seed}").sample(rows, len(rows))


def _new(name: str, rows: list[Example], known: list[Example], notes: list[str]) -> list[Example]:
    """Leave rows to check on out whose prompt is trained on. Raises DataError where no row is left."""
    new = without_known(rows, known)
    flags = f"{flag(name)} and {'--forget' if name.startswith('unseen') else '--retain'}"
    if rows and not new:
        raise DataError(f"{flags}: all {len(rows)} prompts stand in both; give {flag(name)} other rows or leave it out")
    if len(new) < len(rows):
        notes.append(f"{name}: left out {len(rows) - len(new)} of {len(rows)} rows, whose prompts stand in {flags}")
    return new


def read(
    config: RunConfig, paths: list[str], polarity: Polarity, columns: dict[str, str], name: str, notes: list[str]
) -> list[Example]:
    examples = [
        example
        for path in paths
        for example in read_examples(path, polarity, columns, config.data_split, config.data_revision)
    ]
    for chosen in filter(None, (named_set(path, polarity) for path in paths)):
        about = "; ".join((chosen.set.licence, chosen.set.citation, *chosen.set.warnings))
        notes.append(f"{name}: {chosen.name} is a public set ({about})")
    kept, dropped = without_duplicates(examples)
    if dropped:
        notes.append(f"{name}: dropped {len(dropped)} duplicates of {len(examples)} rows")
    return sections(kept)


def read_evaluation_rows(config: RunConfig) -> Sets:
    """Read the rows that a model is only measured on: all negatives are unseen, all normal rows normal."""
    notes: list[str] = []
    evaluation = {
        "unseen": read(config, [*config.forget, *config.unseen], "negative", config.column, "unseen", notes),
        "unseen_concept": read(config, config.unseen_concept, "negative", config.column, "unseen_concept", notes),
        "normal": read(config, [*config.retain, *config.normal], "normal", config.retain_column, "normal", notes),
        "lookalike": read(config, config.lookalike, "normal", config.retain_column, "lookalike", notes),
    }
    sources = [
        Source(name=name, source=paths, rows=len(rows), fingerprint=fingerprint(rows))
        for name, paths, rows in (
            ("negatives", ", ".join(config.forget), evaluation["unseen"]),
            ("normals", ", ".join(config.retain), evaluation["normal"]),
        )
        if rows
    ]
    rows = {split: mixed(passages(given), config.seed) for split, given in evaluation.items()}
    non_members = read(config, config.non_members, "negative", config.column, "non_members", notes)
    return Sets({}, {}, rows, sources, notes, passages(non_members))


def _parted(
    examples: list[Example], given: list[Example], config: RunConfig, validated: bool = True
) -> dict[str, list[Example]]:
    """Part a set into train, validation and held_out by prompt; nothing is held out where rows to check are given.

    No more is held out than is looked at: what could be trained on should be.
    """
    prompts = max(1, len({example.prompt_key if example.turns else example.key for example in examples}))
    held_out = 0.0 if given else min(HELD_OUT, config.evaluation_prompts / prompts)
    share = max(VALIDATION, min(2 * VALIDATION, FEWEST_WATCHED / prompts))
    validation = min(share, config.validation_prompts / prompts) if validated else 0.0
    fractions = {"train": 1 - validation - held_out, "validation": validation, "held_out": held_out}
    parts = split_by_prompt(examples, fractions, config.seed)
    if not parts["train"]:
        parts["train"] = examples
    return parts


def add_own_answers(sets: Sets, model: Any, form: PromptFormat, config: RunConfig, key: str) -> None:
    """Make normal rows from the own answers of the model with fingerprint `key` to the shipped benign prompts."""
    meter = Meter()
    with track("answering benign prompts") as progress:
        made = generate_normals(
            model,
            form,
            seed=config.seed,
            max_new_tokens=config.max_new_tokens,
            key=key,
            progress=progress,
        )
    sets.cost.append(cost_of_answers(meter, model, form, made))
    sets.normals = _parted(made, sets.evaluation["normal"], config)
    sets.uncut["normals"] = sets.normals["train"]
    if not sets.evaluation["normal"]:  # the check decodes greedily, so what there is to keep is the greedy answer
        held_out = [(row.prompt, row.where) for row in sets.normals["held_out"]]
        sets.evaluation["normal"] = answer_prompts(held_out, model, form, max_new_tokens=config.max_new_tokens, key=key)
    source = f"{OWN_ANSWERS} to {len(benign_prompts())} benign prompts"
    sets.sources.append(Source(name="normals", source=source, rows=len(made), fingerprint=fingerprint(made)))
    sets.notes.append(f"no --retain was given: the normal rows are {source}")


def cost_of_answers(meter: Meter, model: Any, form: PromptFormat, made: list[Example]) -> Cost:
    """Return what it took to have the original answer the shipped benign prompts."""
    read, said = tokens_of(form.tokenizer, [form.prompt_ids(row.turns) for row in made], [row.reply for row in made])
    return meter.cost(model, "original", "answering benign prompts", read, generated=said)


def add_lookalikes(sets: Sets, model: Any, form: PromptFormat, config: RunConfig, key: str) -> None:
    """Check for over-refusal on the shipped look-alikes: has the model's own answer to each of them changed?"""
    with track("answering prompts that sound harmful") as progress:
        made = generate_lookalikes(
            model,
            form,
            max_new_tokens=config.max_new_tokens,
            count=config.evaluation_prompts,
            key=key,
            progress=progress,
        )
    limit = longest_evaluated(config, model)
    tokens = [len(form.prompt_ids(row.turns)) + len(form.reply_ids(row.turns, row.reply)) for row in made]
    fitting = [row for row, length in zip(made, tokens, strict=True) if length <= limit]
    sets.evaluation["lookalike"] = fitting
    if fitting:
        sets.notes.append(
            "no --lookalike was given: the look-alikes are prompts of this package that sound harmful and are not, and "
            "what is kept there are the original's own answers"
        )


def longest_evaluated(config: RunConfig, model: Any) -> int:
    """Return how many tokens prompt and reply of a row to evaluate on may have together."""
    return longest_row(config.max_length, model, most=context_length(model) or MOST_TOKENS)


def encode_splits(
    splits: dict[str, list[Example]], form: PromptFormat, config: RunConfig, max_length: int, notes: list[str]
) -> dict[str, list[Encoded]]:
    """Encode at most `evaluation_prompts` rows of each split, in order; empty splits are left out."""
    limit = config.evaluation_max_length or max_length
    encoded: dict[str, list[Encoded]] = {}
    for name, examples in splits.items():
        if examples:
            rows, messages = encode_all(examples, form, max_length, name)
            notes += messages
            fitting = [row for row in rows if len(row.prompt_ids) + len(row.reply_ids) <= limit]
            encoded[name] = (fitting or rows)[: config.evaluation_prompts]
    return encoded


def encode_non_members(
    examples: list[Example], form: PromptFormat, config: RunConfig, max_length: int, notes: list[str]
) -> list[Encoded]:
    """Encode at most `evaluation_prompts` rows that no model was trained on."""
    return encode_splits({"non_members": examples}, form, config, max_length, notes).get("non_members", [])
