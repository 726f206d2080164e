"""The public door: exactly these names, with their real types, and nothing heavy imported before it is needed.

mypy reads this file too (see pyproject.toml): an `ignore` that it does not need is an error there, so a public name
whose type it does not see fails `make types`.
"""

import subprocess
import sys
from typing import assert_type

import pytest

import unteach
from unteach.results.report import Report
from unteach.results.stress import StressCard
from unteach.results.verdict import Case, Verdict

PUBLIC = [
    "ConfigError",
    "DataError",
    "Example",
    "Interrupted",
    "Judge",
    "Method",
    "MistakesConfig",
    "ModelError",
    "OutputError",
    "Report",
    "RunConfig",
    "TrainingError",
    "Turn",
    "UnlearnConfig",
    "UnlearnTrainer",
    "UnteachError",
    "evaluate",
    "load_judge",
    "run",
    "run_mistakes",
    "stress",
]
HEAVY = {
    "accelerate",
    "datasets",
    "huggingface_hub",
    "matplotlib",
    "numpy",
    "peft",
    "scipy",
    "sklearn",
    "torch",
    "transformers",
    "trl",
}
GROUPS = {
    "judges": ["list", "show"],
    "data": ["list", "show"],
    "mistakes": ["run", "induce", "analyse", "tune", "chat", "study", "wording"],
    "baseline": ["finetune", "sft", "coh", "coh-masked", "revise", "dpo", "kto", "rlhf"],
}
VERBS = ["run", "evaluate", "stress", "export", "strength", "collect", "compare"]
VERBS += ["report", "study", "try", "demo"]
VERBS += ["organism", "methods"]
HELPS = [[verb, "--help"] for verb in [*VERBS, *GROUPS]]
HELPS += [[group, verb, "--help"] for group, verbs in GROUPS.items() for verb in verbs]
WRONG = [
    ["rnu"],
    ["run", "--lern"],
    ["run", "--batch-size", "many"],
    ["run", "--batch-size", "0"],
    ["mistakes", "study", "--arms", "none"],
    ["baseline", "sft", "--rl-steps", "3"],
    ["demo", "--route", "none"],
    ["stress"],
    ["evaluate", "--config", "nowhere.yaml"],
]
CALLS = """
import sys
from unteach.cli.app import main
for words in {calls!r}:
    sys.argv = ["unteach", *words]
    try:
        main()
    except SystemExit as ended:
        assert ended.code == {code}, (words, ended.code)
    print(words, sorted({heavy!r} & set(sys.modules)), file=sys.stderr)
"""


def test_the_public_names_are_these() -> None:
    assert unteach.__all__ == PUBLIC
    assert set(PUBLIC) <= set(dir(unteach))
    for name in PUBLIC:
        assert getattr(unteach, name).__module__.startswith("unteach."), name
        assert getattr(unteach, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Trainer'"):
        unteach.Trainer  # type: ignore[attr-defined]  # noqa: B018


def test_functions_are_not_shadowed_by_their_modules() -> None:
    """A submodule `unteach.run` would take the place of the function once somebody imports it."""
    verbs = "unteach.run, unteach.evaluate, unteach.stress"
    homes = "unteach.pipeline.run, unteach.pipeline.evaluate, unteach.pipeline.stress, unteach"
    code = f"import {homes}; assert all(map(callable, ({verbs})))"
    subprocess.run([sys.executable, "-c", code], check=True)


def typed(config: unteach.RunConfig, mistakes: unteach.MistakesConfig, case: Case) -> None:
    """mypy sees the real types; this is never called."""
    assert_type(unteach.run(config, resume=True), Report)
    assert_type(unteach.evaluate(config, original="model"), Report)
    assert_type(unteach.stress("out", preset="full"), StressCard)
    assert_type(unteach.run_mistakes(mistakes), Report)
    assert_type(unteach.load_judge("repeats")([case]), list[Verdict])
    assert_type(config.batch_size, int)
    assert_type(mistakes.arms, list[str])
    assert_type(unteach.UnlearnConfig().mismatch_samples, int)
    assert_type(unteach.Example.of("prompt", "reply").turns, tuple[unteach.Turn, ...])
    unteach.run("config")  # type: ignore[arg-type]
    unteach.run_mistakes(config)  # type: ignore[arg-type]
    unteach.Method(1)  # type: ignore[call-arg, arg-type]
    unteach.UnlearnTrainer()  # type: ignore[call-arg]
    unteach.OutputError().exit_code = "2"  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("calls", "code"),
    [([["--version"], ["--help"], *HELPS], 0), (WRONG, 2)],
    ids=["help", "wrong"],
)
def test_nothing_heavy_is_imported_before_a_verb_runs(calls: list[list[str]], code: int) -> None:
    """Help, and most errors, come at once: torch and its like take seconds to import."""
    script = CALLS.format(calls=calls, code=code, heavy=HEAVY)
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    told = [line for line in ended.stderr.splitlines() if line.startswith("[")]
    assert told == [f"{words} []" for words in calls]


def test_the_public_configs_import_nothing_heavy() -> None:
    code = f"""
import sys, unteach
unteach.RunConfig(), unteach.MistakesConfig(), unteach.Example, unteach.Judge, unteach.load_judge
import unteach.baselines.config
assert not {HEAVY!r} & set(sys.modules), {HEAVY!r} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_verb_is_asked_for_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """The lists above are whole."""
    from unteach.cli.app import app

    assert [command.name for command in app.registered_commands] == VERBS
    groups = {group.name: group.typer_instance for group in app.registered_groups}
    assert {
        name: [command.name for command in verbs.registered_commands] for name, verbs in groups.items() if verbs
    } == GROUPS
