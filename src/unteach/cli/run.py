"""The verb `unteach run`."""

from typing import Annotated, Any

from unteach.cli.flags import GROUPS, ConfigFile, Overwrite, Resume, config_of, flags_from, option, switch
from unteach.cli.growth import Bandwidth, GpuMemory, Gpus, Nodes, Throughput, planned_run
from unteach.cli.outcome import print_report
from unteach.cli.stress import Stress, check_stress, stress_after
from unteach.errors import ConfigError
from unteach.pipeline.config import RunConfig

Seeds = Annotated[
    int,
    option("--seeds", "Run so many seeds, from --seed on, in OUTPUT/seed-N; report means. \\[1]", "Training", "N"),
]
DryRun = Annotated[
    bool, switch("--dry-run", "Say what it would do and take, by a few measured steps; nothing is written.", "Output")
]


@flags_from(RunConfig, *GROUPS, without=("plan",))
def run_command(
    config: ConfigFile = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    seeds: Seeds = 1,
    dry_run: DryRun = False,
    nodes: Nodes = None,
    gpus: Gpus = None,
    gpu_memory: GpuMemory = "",
    throughput: Throughput = "",
    bandwidth: Bandwidth = "",
    stress: Stress = None,
    **values: Any,
) -> None:
    """Unlearn the negatives, then evaluate before and after on seen, unseen and normal prompts.

    [bold]Examples[/bold]
      unteach run --model ./model --forget bad.jsonl --output ./out
      unteach run --model org/model --forget bad.jsonl --retain good.jsonl --lora --output ./out
      unteach run --config out/run.yaml --output ./again
      unteach run --scenario copyright --model ./model --forget book.txt --retain other_books --output ./out
      unteach run --model ./model --forget bad.jsonl --dry-run
      unteach run --model ./config.json --forget bad.jsonl --lora --dry-run --nodes 2 --gpus 8
      unteach run --model org/model --forget bad.jsonl --lora --generate-with http://localhost:8000/v1 --output ./out
      unteach run --resume --output ./out

    Values in \\[brackets] are defaults.
    """
    chosen = config_of(config, values, RunConfig)
    check_stress(stress, seeds)
    if chosen.budget and (stress or seeds != 1):
        other = "--stress" if stress else "--seeds"
        raise ConfigError(f"--budget is for one run; leave out {other}, or give each its own (docs/budget.md)")
    if planned := planned_run(chosen, dry_run, nodes, gpus, gpu_memory, throughput, bandwidth):
        print(planned)
        return
    from unteach.pipeline.run import run
    from unteach.pipeline.seeds import run_seeds

    if seeds == 1:
        print_report(run(chosen, resume=resume, overwrite=overwrite), chosen.output)
        stress_after(stress, chosen)
        return
    report = run_seeds(chosen, seeds, resume=resume, overwrite=overwrite)
    print_report(report, chosen.output, model=f"seed-{chosen.seed}/model")
