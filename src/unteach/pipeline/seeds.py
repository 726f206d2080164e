"""The same run with several seeds: a run directory for each, and one report of means and their intervals."""

import statistics
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from unteach.disk.files import remove_whole
from unteach.errors import ConfigError
from unteach.models.ranks import by_first_rank, on_first_rank
from unteach.pipeline.config import RunConfig
from unteach.pipeline.directory import SETTINGS, output_directory
from unteach.pipeline.measure import is_finished, write_report
from unteach.pipeline.run import run
from unteach.pipeline.settings import resumed, write_config
from unteach.results.measurement import Measurement
from unteach.results.report import Cost, Report

SUMMED = ("wall_seconds", "tokens", "tokens_forward", "tokens_backward", "tokens_generated", "flops", "energy_joules")
"""The fields of a `Cost` that are added up over seeds."""


def run_seeds(config: RunConfig, count: int, *, resume: bool = False, overwrite: bool = False) -> Report:
    """Run with seeds `config.seed` to `config.seed + count - 1`, each in `output/seed-N`, and report on all.

    With `resume`, finished runs are kept, and the others are resumed or started. Raises ConfigError for a
    count below 2, and whatever a run raises.
    """
    if count < 2:
        raise ConfigError(f"--seeds {count}: must be at least 2; leave it out for one run")
    with output_directory(config.output, overwrite=overwrite, resume=resume) as directory:
        reports = []
        for seed in range(config.seed, config.seed + count):
            place = directory / f"seed-{seed}"
            own = config.model_copy(update={"seed": seed, "output": str(place)})
            if resume and is_finished(place):
                resumed(own, place)  # the same settings?
                reports.append(on_first_rank(Report.read, place))
                continue
            begun = on_first_rank((place / SETTINGS).exists)
            reports.append(run(own, resume=resume and begun, overwrite=overwrite and begun))
        if overwrite:
            _remove_others(directory, keep=range(config.seed, config.seed + count))
        report = pooled(reports)
        report.command = f"unteach run --config run.yaml --seeds {count} --output another-directory"
        report.weights = f"seed-{config.seed}/model"
        write_config(config, directory, report.command)
        write_report(report, directory)
    return report


def pooled(reports: Sequence[Report]) -> Report:
    """Return one report of runs that differ in their seed: the mean of every metric, with its interval over seeds.

    Samples, data and stop are those of the first run; costs are added up.
    """
    first = reports[0]
    keys = [(m.name, m.split, m.arm) for m in first.measurements]
    metrics = [[report.measured(*key) for report in reports] for key in keys]
    seeds = ", ".join(str(report.environment.get("seed")) for report in reports)
    notes = [f"{len(reports)} runs, seeds {seeds}: metrics are means; samples and the end of training are the first's"]
    return first.model_copy(
        update={
            "measurements": [over_seeds([m for m in found if m is not None]) for found in metrics],
            "cost": _add_up([cost for report in reports for cost in report.cost]),
            "curve": [point for report in reports for point in report.curve],
            "notes": list(dict.fromkeys([*notes, *(note for report in reports for note in report.notes)])),
        }
    )


def over_seeds(metrics: Sequence[Measurement]) -> Measurement:
    """Return the mean of one metric over seeds, with Student's 95 % interval of that mean; `seeds` holds the values.

    The interval covers the variation between seeds alone (draws, splits, sampling). It is clipped to 0 and 1 where the
    unit ends there, and to 0 where no value lies below. Where all values are equal, which proves nothing, it is the
    interval of one seed over its prompts. `n` and `unknown` are those of all runs together.
    """
    known = [metric.value for metric in metrics if metric.value is not None]
    mean = statistics.fmean(known) if known else None
    first = next((metric for metric in metrics if metric.value is not None), metrics[0])
    low, high = first.low, first.high  # over its prompts
    if mean is not None and len(known) > 1 and min(known) < max(known):
        from scipy.stats import t

        reach = float(t.ppf(0.975, len(known) - 1)) * statistics.stdev(known) / len(known) ** 0.5
        low, high = mean - reach, mean + reach
        if metrics[0].unit in ("fraction", "AUC", "KS distance"):
            low, high = max(0.0, low), min(1.0, high)
        elif min(known) >= 0:
            low = max(0.0, low)
    differences = [metric.difference for metric in metrics if metric.difference is not None]
    return metrics[0].model_copy(
        update={
            "value": mean,
            "low": low,
            "high": high,
            "n": sum(metric.n for metric in metrics),
            "unknown": sum(metric.unknown for metric in metrics),
            "difference": statistics.fmean(differences) if differences else None,
            "difference_low": None,
            "difference_high": None,
            "seeds": [metric.value for metric in metrics],
        }
    )


def _add_up(costs: Sequence[Cost]) -> list[Cost]:
    """Add up the costs of each stage of each arm; peak memory is the largest of any run."""
    stages: dict[tuple[str, str], list[Cost]] = {}
    for cost in costs:
        stages.setdefault((cost.arm, cost.stage), []).append(cost)

    added = []
    for (arm, stage), parts in stages.items():
        totals: dict[str, Any] = {}
        for name in SUMMED:
            known = [value for part in parts if (value := getattr(part, name)) is not None]
            totals[name] = sum(known) if known else None
        peaks = [part.peak_bytes for part in parts if part.peak_bytes is not None]
        flops = [part.flops for part in parts]
        added.append(Cost(arm=arm, stage=stage, peak_bytes=max(peaks, default=None), seed_flops=flops, **totals))
    return added


@by_first_rank
def _remove_others(directory: Path, keep: Collection[int]) -> None:
    """Remove runs of other seeds that a replaced run has left."""
    for place in directory.glob("seed-*"):
        number = place.name.removeprefix("seed-")
        if number.isdecimal() and int(number) not in keep and (place / SETTINGS).exists():
            remove_whole(place)
