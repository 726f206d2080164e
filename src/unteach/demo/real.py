"""The demo on a real instruct model that a package brings: its own bad replies as negatives, unlearn, evaluate."""

from pathlib import Path
from typing import Any

from unteach.demo.output import check_demo_output
from unteach.disk.cache import cache_directory, keep_private
from unteach.mistakes.config import MistakesConfig
from unteach.mistakes.prepare import prepare
from unteach.mistakes.records import write_mistakes
from unteach.mistakes.steps import collect
from unteach.models.packaged import packaged_directory
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.prepare import check_settings
from unteach.pipeline.run import run
from unteach.pipeline.settings import make_config
from unteach.results.report import Report

MODEL = "packaged:smollm2"
SETTINGS: dict[str, Any] = {
    "lora": True,
    "max_steps": 400,
    "train_layers": 0.3,
    "decline_margin": 1.25,
    "validation_prompts": 40,
    "target_margin": 0.2,
    "evaluation_prompts": 40,
    "max_new_tokens": 48,
}
"""What makes the demo short, beside the defaults for an adapter: upper layers alone, whose steps are cheaper."""
ASKED = 200
"""How many of the shipped harmful prompts the negatives come from; the run itself asks others (`harmful_share`)."""


def demo_real(output: Path, settings: dict[str, Any]) -> Report:
    """Collect the real model's own replies to the shipped harmful prompts, and unlearn those that comply.

    `settings` are fields of `RunConfig`, which win over `SETTINGS`. The negatives are kept in the user's cache; an
    earlier run in `output` is replaced. Raises UnteachError, with the commands that install the model where it is
    not there.
    """
    overwrite = check_demo_output(output)
    packaged_directory(MODEL)
    negatives = cache_directory() / "real" / "negatives.jsonl"
    fields = SETTINGS | {"model": MODEL, "forget": [str(negatives)], "output": str(output)} | settings
    config = with_defaults(make_config(fields, RunConfig))
    check_settings(config)
    same = {name: getattr(config, name) for name in ("max_new_tokens", "device", "seed")}
    asking = MistakesConfig(model=MODEL, most_rows=ASKED, **same)
    records = collect(prepare(asking, single_step=True))
    write_mistakes(negatives, records.mistakes)
    keep_private(negatives.parent)
    print(f"{MODEL}: {records.notes[-1]}")
    return run(config, overwrite=overwrite)
