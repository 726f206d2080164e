"""The verb `unteach evaluate`."""

from typing import Annotated, Any

from unteach.cli.flags import ConfigFile, Overwrite, config_of, flags_from, option
from unteach.cli.outcome import print_report
from unteach.errors import ConfigError
from unteach.pipeline.config import RunConfig

Original = Annotated[
    str | None,
    option("--original", "Compare with this model; without it, --model alone is evaluated.", "Model", "DIR|ID"),
]

Endpoint = Annotated[
    str | None,
    option("--endpoint", "Measure a server instead; --model is the model's name there.", "Model", "URL"),
]
Concurrency = Annotated[int, option("--concurrency", "Requests at a time. \\[8]", "Model", "N", min=1, max=256)]
Timeout = Annotated[float, option("--timeout", "Seconds for one answer. \\[120]", "Model", "X", min=0.1, max=3600)]


@flags_from(
    RunConfig,
    "Model",
    "Data",
    "Evaluation",
    "Output",
    without=("lora", "lora_rank", "lora_alpha", "lora_targets", "skip_evaluation", "generate_with"),
)
def evaluate_command(
    original: Original = None,
    endpoint: Endpoint = None,
    concurrency: Concurrency = 8,
    timeout: Timeout = 120.0,
    config: ConfigFile = None,
    overwrite: Overwrite = False,
    **values: Any,
) -> None:
    """Evaluate a model without changing it: --forget rows are unseen negatives, --retain rows normal ones.

    [bold]Examples[/bold]
      unteach evaluate --model ./model --forget bad.jsonl --retain good.jsonl
      unteach evaluate --model ./out/model --original ./model --forget other.jsonl --output ./after
      unteach evaluate --endpoint http://localhost:8000/v1 --model NAME --forget bad.jsonl

    --endpoint asks any server that speaks OpenAI's chat protocol (vLLM,
    llama.cpp, Ollama, transformers serve); its key, if it needs one, stands
    in UNTEACH_ENDPOINT_API_KEY. docs/export.md says what that can measure.
    Values in \\[brackets] are defaults. Without --output nothing is written.
    """
    chosen = config_of(config, values, RunConfig)
    if endpoint is not None:
        if original:
            raise ConfigError("--original: is loaded here; with --endpoint, measure it apart and use unteach compare")
        from unteach.pipeline.served import Server, evaluate_endpoint

        served = evaluate_endpoint(chosen, Server(endpoint, concurrency, timeout), overwrite=overwrite)
        print_report(served, chosen.output, model="")
        return
    from unteach.pipeline.evaluate import evaluate

    print_report(evaluate(chosen, original=original, overwrite=overwrite), chosen.output, model="")
