"""Public sets by name: what each is, where its files are, and at which revision.

A name may be followed by a colon and a configuration: `tofu:forget10`. The sets are listed in `public.yaml`, which
names data files only, never a loading script. The revisions are commits of the hub. The list was written without a
connection to the hub; `seen` says where each revision, with its fields and files, was found instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from unteach.data.example import Polarity
from unteach.errors import DataError, nearest


@dataclass(frozen=True)
class Configuration:
    """A part of a set that is read on its own.

    `files` are paths in the hub's repository by split; the first split is read unless another is asked for. `key` is
    the field of a JSON file that holds the rows, where they are nested. `rows` counts those of the first split, as
    published; empty where we do not know.
    """

    name: str
    files: Mapping[str, tuple[str, ...]]
    rows: str = ""
    key: str | None = None


@dataclass(frozen=True)
class PublicSet:
    """A published set: its source and licence, and what its negatives and normals are.

    `usual` names the configuration that is read for each polarity where none is given; a polarity that is missing
    has none. An empty `negatives` or `normals` means that the set has no such rows.
    """

    name: str
    hub_id: str
    revision: str
    seen: str
    licence: str
    citation: str
    summary: str
    fields: str
    configurations: tuple[Configuration, ...]
    negatives: str = ""
    normals: str = ""
    usual: Mapping[Polarity, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def configuration(self, name: str) -> Configuration | None:
        """Return the configuration of that name, in whatever case; None where there is none."""
        return next((one for one in self.configurations if one.name.lower() == name.lower()), None)


@dataclass(frozen=True)
class Chosen:
    """The set and the configuration that a source names."""

    set: PublicSet
    configuration: Configuration

    @property
    def name(self) -> str:
        """The source as it is written, e.g. "tofu:forget10"."""
        several = len(self.set.configurations) > 1
        return f"{self.set.name}:{self.configuration.name}" if several else self.set.name


def is_public(source: str) -> bool:
    """Tell whether a source names a public set, with or without a configuration."""
    return source.partition(":")[0].strip().lower() in SETS


def find(source: str, polarity: Polarity | None = None) -> Chosen:
    """Return the set and configuration that a source names; `polarity` decides where no configuration is named.

    Raises DataError for an unknown set or configuration, and for a polarity that the set does not have.
    """
    name, colon, wanted = (part.strip() for part in source.partition(":"))
    known = SETS.get(name.lower())
    if known is None:
        raise DataError(f"{source}: no public set of that name{nearest(name, SETS)} (known: {', '.join(SETS)})")
    if (polarity == "negative" and not known.negatives) or (polarity == "normal" and not known.normals):
        raise DataError(
            f"{source}: this set has no {polarity}s ({known.summary}); give another set, or a local copy of its rows "
            "if you want them all the same"
        )
    if not colon:
        wanted = known.usual.get(polarity or "negative", "") or known.usual.get("normal", "")
    chosen = known.configuration(wanted)
    if chosen is None:
        names = [one.name for one in known.configurations]
        problem = f"no configuration '{wanted}'{nearest(wanted, names) or '.'}" if wanted else "which configuration?"
        raise DataError(f"{source}: {problem} Write {known.name}: and one of {', '.join(names)}")
    return Chosen(known, chosen)


def _configuration(name: str, facts: dict[str, Any]) -> Configuration:
    """Make a configuration from its entry in the table, with its name filled in."""
    files = {split: tuple(path.format(name=name) for path in paths) for split, paths in facts.get("files", {}).items()}
    return Configuration(name, files, facts.get("rows", ""), facts["key"].format(name=name) if "key" in facts else None)


def _public_set(name: str, entry: dict[str, Any]) -> PublicSet:
    each, configurations = entry.pop("each", {}), entry.pop("configurations")
    parts = tuple(_configuration(part, each | facts) for part, facts in configurations.items())
    warnings = tuple(entry.pop("warnings", ()))
    return PublicSet(name=name, configurations=parts, warnings=warnings, **entry)


_TABLE = yaml.safe_load(Path(__file__).with_name("public.yaml").read_text(encoding="utf-8"))
SETS: dict[str, PublicSet] = {name: _public_set(name, entry) for name, entry in _TABLE.items()}
