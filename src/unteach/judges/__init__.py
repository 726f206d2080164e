"""Judges: each file of this folder is one, and its name opens the spec by which a user asks for it."""

import inspect
import pkgutil
import re
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from unteach.errors import ConfigError, nearest
from unteach.judges.base import Judge, JudgeSettings


def judge_names() -> list[str]:
    """Return the name of every judge in this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")


def load_judge(spec: str, settings: JudgeSettings | None = None) -> Judge:
    """Make the judge that a spec asks for.

    "repeats", "rule:FILE.yaml", "classifier:DIR_OR_ID" (options: "?bad=toxic,insult&threshold=0.5"),
    "verbatim?words=8", "trained", "openai:MODEL" (with `JudgeSettings.url`), "world:SEED:SIZE" and others, see
    `judge_list`. What stands before the first colon or question mark is the name of a file of this folder. Its `load`
    gets the rest (with the question mark, without the colon; empty text where there is none) and the `settings`.

    Raises ConfigError for an unknown judge, or for a rest that the judge cannot use.
    """
    name = re.split("[:?]", spec.strip(), maxsplit=1)[0]
    rest = spec.strip()[len(name) :].removeprefix(":")
    known = judge_names()
    if name not in known:
        raise ConfigError(
            f"--judge {spec}: no judge is called '{name}'{nearest(name, known)}; there are {', '.join(known)}"
        )
    judge: Judge = _module(name).load(rest, settings or JudgeSettings())
    return judge


def load_judges(specs: Sequence[str], settings: JudgeSettings | None = None) -> list[Judge]:
    """Make several judges, each with a name of its own. Raises ConfigError where one is named twice."""
    judges = [load_judge(spec, settings) for spec in specs]
    twice = next((spec for spec in specs if specs.count(spec) > 1), None)
    if twice:
        raise ConfigError(f"--judge {twice}: named twice; name each judge once")
    names = [judge.name for judge in judges]
    for judge, spec in zip(judges, specs, strict=True):
        if names.count(judge.name) > 1:
            judge.name = spec
    return judges


def judge_list() -> str:
    """Return all judges, each with the first line of its docstring and the words that ask for it."""
    lines = []
    for name in judge_names():
        module = _module(name)
        lines.append(f"{name:<11} {inspect.cleandoc(module.__doc__ or '').partition(chr(10))[0]}")
        lines += [f"{'':<11} --judge {words}" for words in _asked_as(name, module)]
    return "\n".join(lines)


def judge_page(name: str) -> str:
    """Return all that a judge's file says of itself: its docstrings, how to ask for it, and what its `shown` adds.

    Raises ConfigError for an unknown judge.
    """
    known = judge_names()
    if name not in known:
        raise ConfigError(f"judges show {name}: no such judge{nearest(name, known)}; there are {', '.join(known)}")
    module = _module(name)
    made = inspect.get_annotations(module.load, eval_str=True).get("return")
    documented = [module, made if getattr(made, "__module__", "") == module.__name__ else None, module.load]
    parts = [name, "\n".join(f"--judge {words}" for words in _asked_as(name, module))]
    parts += [text for item in documented if item is not None and (text := inspect.getdoc(item))]
    if hasattr(module, "shown"):
        parts.append(module.shown())
    return "\n\n".join(parts)


def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")


def _asked_as(name: str, module: ModuleType) -> Sequence[str]:
    """The words after --judge, from a judge's `ASKED_AS`; its name alone where it has none."""
    words: Sequence[str] = getattr(module, "ASKED_AS", (name,))
    return words
