"""The flags of `unteach run --dry-run` that name cards which are not here."""

from typing import TYPE_CHECKING, Annotated, Any

from unteach.cli.flags import option
from unteach.errors import ConfigError

if TYPE_CHECKING:
    from unteach.pipeline.config import RunConfig

GROUP = "Planning"

Nodes = Annotated[int | None, option("--nodes", "Plan for so many machines.", GROUP, "N")]
Gpus = Annotated[int | None, option("--gpus", "Plan for so many GPUs in each; loads no weights.", GROUP, "N")]
GpuMemory = Annotated[str, option("--gpu-memory", "Memory of each. \\[this machine's, or 80GB]", GROUP, "AMOUNT")]
Throughput = Annotated[
    str, option("--throughput", "FLOP/s that each reaches, such as 400TFLOP; unset: measured here.", GROUP, "AMOUNT")
]
Bandwidth = Annotated[
    str, option("--bandwidth", "Bytes/s from each. \\[400GB in a node, 50GB between nodes]", GROUP, "AMOUNT")
]


def planned_run(config: "RunConfig", dry_run: bool, *cards: Any) -> str | None:
    """Return what a dry run says; None where the run shall be made. Raises ConfigError for cards without --dry-run."""
    if not dry_run:
        if any(value not in (None, "") for value in cards):
            raise ConfigError("--nodes, --gpus, --gpu-memory, --throughput and --bandwidth plan only: add --dry-run")
        return None
    from unteach.pipeline.growth import Cards, growth_plan

    asked = Cards(*cards)
    if asked.asked:
        if config.budget:
            raise ConfigError("--budget plans for this machine; leave it out, or leave out --nodes and --gpus")
        return growth_plan(config, asked)
    from unteach.pipeline.dry_run import dry_run as told

    return told(config)
