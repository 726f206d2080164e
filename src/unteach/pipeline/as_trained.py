"""What a run directory that is named as a model says about how its model is asked and judged."""

from typing import Any

from unteach.errors import ConfigError
from unteach.models.directory import run_file
from unteach.models.ranks import by_first_rank
from unteach.objectives.methods import load_method
from unteach.pipeline.config import RunConfig
from unteach.pipeline.settings import Config, flag, make_config, read_config
from unteach.scenarios import load_scenario
from unteach.text.escape import inert_line

ASKED = ("prompt_format", "template_arg", "system", "template_date")
MEASURED = ("scenario", *ASKED, "template", "judge", "judge_url", "max_new_tokens")
"""Settings of a run that its model is asked with, and those that it was measured with."""


def settings_of_run(model: str, names: tuple[str, ...] = ASKED) -> dict[str, Any]:
    """Return these settings of the run whose directory, or whose model/, is named; nothing for other models.

    A judge that learns from the rows of training is left out, and so is an answer that the run did not teach. Raises
    DataError where run.yaml cannot be read.
    """
    file = run_file(model) if model else None
    if file is None:
        return {}
    said = read_config(file)
    found = {name: said[name] for name in names if said.get(name) not in (None, "", [])}
    if "judge" in found:
        found["judge"] = [spec for spec in found["judge"] if str(spec).partition(":")[0] != "trained"]
    if "template" in found and not _teaches_template(said.get("method")):
        del found["template"]
    return {name: value for name, value in found.items() if value}


@by_first_rank
def as_trained(config: Config, model: str, names: tuple[str, ...] = ASKED) -> tuple[Config, list[str]]:
    """Fill in what the user left open with the settings of the run that `model` names; also return a note of them."""
    given = {name: getattr(config, name) for name in config.model_fields_set}
    taken = {name: value for name, value in settings_of_run(model, names).items() if name not in given}
    filled = make_config(given | taken, type(config))
    told = [name for name in taken if taken[name] != getattr(config, name)]
    if not told:
        return config, []
    words = ", ".join(f"{flag(name)} {inert_line(str(_shown(taken[name])), 80)}" for name in told)
    return filled, [f"as in {run_file(model)}, since nothing else was asked for: {words}"]


def method_note(config: RunConfig, asked: RunConfig) -> list[str]:
    """Return a note where the user's own template, and not the scenario, has chosen the method."""
    if asked.method or config.method == load_scenario(config.scenario).usual(config.lora)["method"]:
        return []
    return [f"--template asks for a method that teaches it: {config.method} was chosen"]


def _shown(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _teaches_template(method: Any) -> bool:
    try:
        return load_method(str(method or "")).reads("template")
    except ConfigError:
        return False
