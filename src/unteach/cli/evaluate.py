"""The verb `unteach evaluate`."""

from typing import Annotated, Any

from unteach.cli.flags import ConfigFile, Overwrite, config_of, flags_from, option
from unteach.cli.outcome import print_report
from unteach.pipeline.config import RunConfig

Original = Annotated[
    str | None,
    option("--original", "Compare with this model; without it, --model alone is evaluated.", "Model", "DIR|ID"),
]


@flags_from(
    RunConfig,
    "Model",
    "Data",
    "Evaluation",
    "Output",
    without=("lora", "lora_rank", "lora_alpha", "lora_targets", "skip_evaluation"),
)
def evaluate_command(
    original: Original = None, config: ConfigFile = None, overwrite: Overwrite = False, **values: Any
) -> None:
    """Evaluate a model without changing it: --forget rows are unseen negatives, --retain rows normal ones.

    [bold]Examples[/bold]
      unteach evaluate --model ./model --forget bad.jsonl --retain good.jsonl
      unteach evaluate --model ./out/model --original ./model --forget other.jsonl --output ./after

    Values in \\[brackets] are defaults. Without --output nothing is written.
    """
    chosen = config_of(config, values, RunConfig)
    from unteach.pipeline.evaluate import evaluate

    print_report(evaluate(chosen, original=original, overwrite=overwrite), chosen.output, model="")
