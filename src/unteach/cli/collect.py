"""The verb `unteach collect`."""

from typing import Any

from unteach.cli.flags import ConfigFile, config_of, flags_from
from unteach.mistakes.config import MistakesConfig

_OTHERS = [
    *("mistakes", "reports", "analyses", "retain", "harmless", "unseen", "unseen_concept", "lookalike", "validation"),
    *("normal", "max_length", "lora", "lora_rank", "lora_alpha", "lora_targets"),
    *("validations", "evaluation_prompts", "skip_evaluation"),
]
"""Settings of the mistake route that say nothing about asking prompts."""


@flags_from(MistakesConfig, "Model", "Data", "Output", "Evaluation", without=_OTHERS)
def collect_command(config: ConfigFile = None, **values: Any) -> None:
    """Ask a model harmful prompts, and write its own bad replies as negatives for `unteach run --forget`.

    [bold]Examples[/bold]
      unteach collect --model ./model --output negatives.jsonl
      unteach collect --model ./model --prompts risky.txt --judge openai:NAME --judge-url http://localhost:8000/v1 \\
        --output negatives.jsonl
      unteach run --model ./model --forget negatives.jsonl --lora --output ./out

    Without --prompts, 2,337 requests of this package are asked, and without --judge, complies decides. --output is a
    file: read it, and remove what is no negative. After Ctrl-C, the same command goes on where it stopped. Values in
    \\[brackets] are defaults.
    """
    chosen = config_of(config, values, MistakesConfig)
    from unteach.mistakes.single import collect_file

    print(collect_file(chosen))
