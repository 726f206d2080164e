"""JSON and YAML that people wrote, read within bounds: what nests too deeply or holds a monster is refused."""

import json
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


TOO_DEEP = f"nested more than {DEEPEST} deep"
TOO_LONG = "a number of over 4,300 digits"


def read_json(text: str) -> Any:
    """Return what a JSON text holds. Raises ValueError for what is too deep or no JSON (then a JSONDecodeError)."""
    try:
        return bounded(json.loads(text), text)
    except json.JSONDecodeError:
        raise
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    except ValueError as error:
        raise ValueError(TOO_LONG if "digits" in str(error) else str(error)) from None


def bounded(value: Any, text: str) -> Any:
    """Return what was read of a JSON text. Raises ValueError where lists and objects nest too deeply in it."""
    if text.count("[") + text.count("{") <= DEEPEST:
        return value
    level = [value]
    for _ in range(DEEPEST):
        level = [
            part
            for parts in level
            if isinstance(parts, list | dict)
            for part in (parts if isinstance(parts, list) else parts.values())
        ]
    if level:
        raise ValueError(TOO_DEEP)
    return value


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
        raise YamlFault(TOO_DEEP) from None
    except ValueError as error:  # a date that is none, or a number that Python does not read
        raise YamlFault(TOO_LONG if "digits" in str(error) else f"not valid YAML ({error})") from None
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
        raise YamlFault(TOO_DEEP)
    if id(value) not in counted:
        counted[id(value)] = MOST_VALUES  # for one that holds itself
        parts = value if isinstance(value, list) else [*value, *value.values()]
        counted[id(value)] = 1 + sum(_count(part, counted, depth + 1) for part in parts)
    if counted[id(value)] > MOST_VALUES:
        raise YamlFault(f"more than {MOST_VALUES:,} values, with those that aliases repeat")
    return counted[id(value)]
