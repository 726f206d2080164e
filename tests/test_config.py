"""Settings: one list of them makes the flags, the file and the trainer's arguments, and they agree."""

import dataclasses
import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from command import call
from unteach.baselines.config import BaselineConfig
from unteach.cli.flags import GROUPS
from unteach.errors import ConfigError
from unteach.mistakes.config import MistakesConfig
from unteach.pipeline.config import RunConfig, trainer_arguments, trainer_fields, with_defaults
from unteach.pipeline.settings import (
    Settings,
    facts_of,
    flag,
    inputs_of,
    make_config,
    read_config,
    resumed,
    settings_naming,
    write_config,
)
from unteach.results.budget import Plan
from unteach.training.config import UnlearnConfig

FIELDS = RunConfig.model_fields


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_has_a_group_and_says_what_it_is(name: str) -> None:
    description = FIELDS[name].description
    assert facts_of(RunConfig, name).group in GROUPS
    assert description and description.endswith(".") and len(description) < 80
    assert "\n" not in description


def test_every_setting_is_a_flag_of_run(capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "run", "--help").out
    assert "--plan " not in shown
    for name in set(FIELDS) - {"plan"}:  # what a run has planned is written by it, not by users
        expected = {"trainer": "--set", "stopping": "--no-stopping"}.get(name, flag(name))
        assert re.search(rf"│ +{expected} ", shown), name
    assert "--no-lora" not in shown and "--no-skip" not in shown


@pytest.mark.parametrize(
    ("name", "default"),
    [("mismatch_samples", "[5]"), ("batch_size", "[8]"), ("seed", "[0]"), ("lora_rank", "[16]")],
)
def test_help_shows_defaults(name: str, default: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = call(capsys, "run", "--help").out.partition(f"│ {flag(name)} ")[2]
    assert default in shown.partition("│ --")[0]


def test_the_trainers_settings_are_its_own_with_its_defaults() -> None:
    theirs = {field.name: field for field in dataclasses.fields(UnlearnConfig)}
    assert len(trainer_fields()) > 20
    for name in trainer_fields() - {
        "seed",
        "method",
        "template",
        "max_steps",
        "template_arg",
    }:  # our seed is 0 everywhere
        assert FIELDS[name].default == theirs[name].default, name
    assert FIELDS["template_arg"].default == UnlearnConfig().template_arg == {}
    filled = with_defaults(RunConfig())
    for name in ("method", "template", "max_steps"):
        assert getattr(filled, name) == theirs[name].default, name
    assert FIELDS["batch_size"].default == theirs["per_device_train_batch_size"].default


def test_defaults_reach_the_trainer_unchanged(tmp_path: Path) -> None:
    ours = trainer_arguments(with_defaults(RunConfig(device="cpu")), tmp_path)
    theirs = UnlearnConfig(output_dir=str(tmp_path), use_cpu=True)
    for field in dataclasses.fields(UnlearnConfig):
        if field.init and field.name not in ("seed", "logging_dir", "run_name"):
            assert getattr(ours, field.name) == getattr(theirs, field.name), field.name
    assert ours.seed == 0


def other_value(name: str, value: Any) -> Any:
    """Another value of a setting than its default."""
    others: dict[str, Any] = {
        "method": "npo",
        "reference": "frozen",
        "compile": "flex",
        "dtype": "float32",
        "prompt_format": "plain",
    }
    others |= {"template_date": "2024-07-26", "template_arg": {"enable_thinking": False, "effort": "low", "n": 3}}
    others |= {"scenario": "copyright", "shard": "fsdp2", "target_rate": 0.5, "broken_limit": 0.5, "target_margin": 0.5}
    others |= {
        "strength": "auto",
        "declined_limit": 0.5,
        "lookalike_share": 0.5,
        "harmful_share": 0.5,
        "train_layers": 0.5,
        "budget": "10m",
        "plan": Plan(budget="10m", unit="seconds", chosen={"max_steps": 40}, default={"max_steps": None}, note="ß"),
    }
    if name in others:
        return others[name]
    if isinstance(value, bool) or bool in get_args(FIELDS[name].annotation):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, list):
        return ["one.jsonl", "owner/two"]
    if isinstance(value, dict):
        return {"weight_decay": 0.1} if name == "trainer" else {"prompt": "question"}
    number = int in get_args(FIELDS[name].annotation) or float in get_args(FIELDS[name].annotation)
    return 7 if number else 'Zwölf: "a"\n- #b'


def test_a_file_holds_every_setting_exactly(tmp_path: Path) -> None:
    config = RunConfig(**{name: other_value(name, field.default) for name, field in FIELDS.items()})
    for name, field in FIELDS.items():
        assert getattr(config, name) != field.default, name
    write_config(config, tmp_path)
    assert make_config(read_config(tmp_path / "run.yaml"), RunConfig) == config
    assert set(yaml.safe_load((tmp_path / "run.yaml").read_text())) == set(FIELDS)


def test_paths_that_exist_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("rows.jsonl", "npo", "rules.yaml"):
        Path(name).touch()
    given = {"model": "owner/model", "forget": ["rows.jsonl", "owner/rows"], "judge": ["rule:rules.yaml"]}
    config = RunConfig(method="npo", **given)
    write_config(config, tmp_path)
    stored = read_config("run.yaml")
    assert stored["forget"] == [str(tmp_path / "rows.jsonl"), "owner/rows"]
    assert stored["model"] == "owner/model" and stored["method"] == "npo"
    assert stored["judge"] == [f"rule:{tmp_path / 'rules.yaml'}"]


@pytest.mark.parametrize("kind", [RunConfig, MistakesConfig, BaselineConfig])
def test_every_model_and_row_source_is_an_input(kind: type[Settings]) -> None:
    """`--overwrite` must not delete what the run reads: lists name rows, but for judges, tasks, arms and labels."""
    lists = {name for name, field in kind.model_fields.items() if field.annotation == list[str]}
    assert set(settings_naming(kind, "rows")) == lists - {"judge", "lm_eval", "arms", "bad_label", "retain_bad_label"}
    given = {name: [name] for name in settings_naming(kind, "rows")} | {"model": "model"}
    assert set(inputs_of(kind(**given))) >= {"model", *settings_naming(kind, "rows")}


class TestTrainerSettings:
    def test_numbers_as_yaml_and_people_write_them(self, tmp_path: Path) -> None:
        config = make_config({"trainer": {"weight_decay": "1e-3", "adam_beta1": 0.5, "bf16": "false"}}, RunConfig)
        arguments = trainer_arguments(with_defaults(config), tmp_path)
        assert (arguments.weight_decay, arguments.adam_beta1, arguments.bf16) == (1e-3, 0.5, False)

    @pytest.mark.parametrize("name", [*sorted(trainer_fields()), "per_device_train_batch_size", "output_dir"])
    def test_what_has_a_flag_is_set_by_it(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=rf"^--set trainer\.{name}: .* use --[a-z-]+$"):
            trainer_arguments(with_defaults(make_config({"trainer": {name: "1"}}, RunConfig)), tmp_path)


def test_resuming_takes_what_was_stored(tmp_path: Path) -> None:
    """A setting that was worked out, such as the learning rate, comes back; what is only measured may change."""
    write_config(RunConfig(model="m", forget=["f"], learning_rate=0.25, seed=3), tmp_path)
    given = RunConfig(output="elsewhere", seed=3, evaluation_prompts=7, learning_rate=None)
    config = resumed(given, tmp_path)
    assert (config.model, config.learning_rate, config.seed) == ("m", 0.25, 3)
    assert (config.output, config.evaluation_prompts) == ("elsewhere", 7)
    with pytest.raises(ConfigError, match=r"^--lora True: the run in .* was started with False"):
        resumed(RunConfig(lora=True), tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"retian": ["a"]}, r"unknown setting 'retian'; did you mean 'retain'"),
        ({"forget": "bad.jsonl"}, r"--forget bad.jsonl: must be a list, even of one"),
        ({"batch_size": 0}, r"--batch-size 0: must be at least 1"),
    ],
)
def test_a_config_made_in_python_says_what_is_wrong_in_one_line(values, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig(**values)
