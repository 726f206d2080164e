"""Relations between sets of examples: duplicates, overlap, splits by prompt, and fingerprints."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence

from unteach.data.example import Example
from unteach.errors import DataError


def without_duplicates(examples: Iterable[Example]) -> tuple[list[Example], list[Example]]:
    """Keep the first of examples with the same prompt and reply; return the kept and the dropped."""
    seen: set[str] = set()
    unique: list[Example] = []
    dropped: list[Example] = []
    for example in examples:
        (dropped if example.key in seen else unique).append(example)
        seen.add(example.key)
    return unique, dropped


def without_known(examples: Sequence[Example], known: Sequence[Example]) -> list[Example]:
    """Return the examples whose prompt (for running text, whose text) no known example has."""
    met = {_group(example) for example in known}
    return [example for example in examples if _group(example) not in met]


def overlap(negatives: Sequence[Example], normals: Sequence[Example]) -> tuple[list[Example], list[str]]:
    """Find what negatives and normals share; case and white space are ignored.

    Returns the normals with the prompt and the reply of a negative, which would have to go and to stay; and messages
    about these and about the prompts that have both a negative and a normal. Raises DataError for the same set twice.
    """
    bad_keys = {example.key for example in negatives}
    if bad_keys and bad_keys == {example.key for example in normals}:
        raise DataError(
            "the negative and the normal set are identical, so every reply would have to go and to stay; "
            f"give other rows with --forget or --retain (first row: {negatives[0].where or 'row 1'})"
        )
    bad_prompts = {example.prompt_key for example in negatives if example.turns}
    shared = bad_prompts & {example.prompt_key for example in normals}
    contradictions = [example for example in normals if example.key in bad_keys]
    messages = []
    if shared:
        messages.append(f"{len(shared)} prompts stand in both the negatives and the normals")
    if contradictions:
        messages.append(
            f"{len(contradictions)} normals are negatives as well, prompt and reply (first: "
            f"{contradictions[0].where or 'row 1'}); remove them from one of the sets"
        )
    return contradictions, messages


def split_by_prompt(examples: Sequence[Example], fractions: Mapping[str, float], seed: int) -> dict[str, list[Example]]:
    """Split examples into named parts that share no prompt; `fractions` of the prompts add up to 1.

    Which part a prompt falls into depends on the seed and the prompts alone, not on the order of the rows; each part
    keeps that order. A fraction above 0 gets at least one prompt where there are enough. A running text counts as its
    own prompt.
    """
    groups = {_group(example) for example in examples}
    drawn = sorted(groups, key=lambda group: hashlib.sha256(f"{seed}:{group}".encode()).digest())
    part_of: dict[str, str] = {}
    start = 0
    for name, size in _sizes(fractions, len(drawn)).items():
        part_of |= dict.fromkeys(drawn[start : start + size], name)
        start += size
    parts: dict[str, list[Example]] = {name: [] for name in fractions}
    for example in examples:
        parts[part_of[_group(example)]].append(example)
    return parts


def _group(example: Example) -> str:
    return example.prompt_key if example.turns else example.key


def _sizes(fractions: Mapping[str, float], total: int) -> dict[str, int]:
    """Divide `total` by largest remainder, then give empty parts one each, the largest fraction first."""
    sizes = {name: math.floor(fraction * total + 1e-9) for name, fraction in fractions.items()}
    by_remainder = sorted(fractions, key=lambda name: sizes[name] - fractions[name] * total)
    for name in by_remainder[: total - sum(sizes.values())]:
        sizes[name] += 1
    for name, fraction in sorted(fractions.items(), key=lambda item: -item[1]):
        largest = max(sizes, key=lambda other: sizes[other])
        if fraction > 0 and sizes[name] == 0 and sizes[largest] > 1:
            sizes[name] += 1
            sizes[largest] -= 1
    return sizes


def fingerprint(examples: Iterable[Example]) -> str:
    """Identify a set by the content and order of its examples, whichever file they come from."""
    digest = hashlib.sha256()
    for example in examples:
        turns = [[turn.role, turn.content] for turn in example.turns]
        fields = [turns, example.reply, example.good, example.bad, example.concept]
        digest.update(json.dumps(fields).encode() + b"\n")
    return digest.hexdigest()[:16]


def once(rows: Sequence[Example]) -> list[Example]:
    """Keep the first row of each prompt; running text stays as it is."""
    return list({(row.prompt_key if row.prompt.strip() else row.key): row for row in rows}.values())
