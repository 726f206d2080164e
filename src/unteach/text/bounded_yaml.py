"""YAML that people wrote, read within bounds: what nests too deeply, repeats itself or holds a monster is refused."""

from typing import Any

import yaml

MOST_CHARACTERS = 2**24
DEEPEST = 100
"""Most lists and mappings inside each other."""
MOST_VALUES = 10**6
"""Most values, with those counted again that an alias (`*name`) repeats: nine lines of aliases can stand for 10**9."""
LARGEST = 2**64
"""Whole numbers beyond this are refused: Python cannot even print those of over 4,300 digits."""


class YamlFault(ValueError):
    """Text that cannot be used as YAML: why, in a few words, and in which line where that is known."""

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why)
        self.line = line


def read_yaml(text: str) -> Any:
    """Return what a YAML text holds, as `yaml.safe_load` does. Raises YamlFault for all that cannot be used."""
    if len(text) > MOST_CHARACTERS:
        raise YamlFault(f"longer than {MOST_CHARACTERS:,} characters")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise YamlFault(f"not valid YAML{_problem(error)}", mark.line + 1 if mark else None) from None
    except RecursionError:
        raise YamlFault(f"nested more than {DEEPEST} deep") from None
    except ValueError as error:  # a date that is none, or a number that Python does not read
        digits = "digits" in str(error)
        raise YamlFault("a number of over 4,300 digits" if digits else f"not valid YAML ({error})") from None
    _count(value, {}, 0)
    return value


def _problem(error: yaml.YAMLError) -> str:
    problem = getattr(error, "problem", None)
    return f" ({problem})" if problem else ""


def _count(value: Any, counted: dict[int, int], depth: int) -> int:
    """Return how many values stand in a value, itself included; `counted` has those of lists and mappings seen."""
    if isinstance(value, int) and abs(value) >= LARGEST:
        raise YamlFault(f"a whole number of {value.bit_length()} bits")
    if not isinstance(value, list | dict):
        return 1
    if depth >= DEEPEST:
        raise YamlFault(f"nested more than {DEEPEST} deep")
    if id(value) not in counted:
        counted[id(value)] = MOST_VALUES  # for one that holds itself
        parts = value if isinstance(value, list) else [*value, *value.values()]
        counted[id(value)] = 1 + sum(_count(part, counted, depth + 1) for part in parts)
    if counted[id(value)] > MOST_VALUES:
        raise YamlFault(f"more than {MOST_VALUES:,} values, with those that aliases repeat")
    return counted[id(value)]
