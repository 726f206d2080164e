"""The directory of a run that has ended: which kind of run it is, its settings, its model and its report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unteach.errors import ConfigError, DataError
from unteach.pipeline.config import ModelSettings, RunConfig, with_defaults
from unteach.pipeline.directory import SETTINGS
from unteach.pipeline.settings import make_config, read_config
from unteach.results.report import FILE_NAME as REPORT
from unteach.results.report import Report

Kind = Literal["run", "baseline", "mistakes"]
_SHARED = (*ModelSettings.model_fields, "prompt_format", "judge", "judge_url", "max_new_tokens", "seed", "scenario")
"""Settings of baselines and of the mistake route that mean what they mean in `unteach run`."""


@dataclass(frozen=True)
class FinishedRun:
    """A run directory: the fields of its run.yaml, and its report, None where it has none."""

    directory: Path
    values: Mapping[str, Any]
    report: Report | None

    @property
    def kind(self) -> Kind:
        """Which command has made it."""
        if "baseline" in self.values:
            return "baseline"
        return "mistakes" if "arms" in self.values else "run"

    @property
    def model(self) -> Path:
        """The directory of its model, or of its adapter."""
        return self.directory / "model"

    def config(self, **told: Any) -> RunConfig:
        """Return the settings, those of other kinds as far as `unteach run` has them; `told` replaces some."""
        values = self.values
        if self.kind != "run":
            values = {name: values[name] for name in _SHARED if name in values}
        return with_defaults(make_config(dict(values), RunConfig)).model_copy(update=told)


def finished_run(run: str | Path, verb: str = "", *, reported: bool = True) -> FinishedRun:
    """Return the run in a directory; `verb` is what only runs of `unteach run` can be, such as "stressed".

    With `reported`, it must have its report. Raises DataError where there is no run that has ended, and ConfigError for
    one of another kind.
    """
    directory = Path(run)
    if not (directory / SETTINGS).is_file():
        seeds = sorted(path.parent.name for path in directory.glob(f"seed-*/{SETTINGS}"))
        if seeds:
            raise DataError(f"{directory}: holds runs of {len(seeds)} seeds; name one, such as {directory / seeds[0]}")
        raise DataError(f"{directory}: no {SETTINGS}; name the directory of a finished `unteach run`")
    values = read_config(directory / SETTINGS)
    for name in ("shard", "offload_optimizer"):  # what is done with a finished run is done by one process
        values.pop(name, None)
    there = (directory / REPORT).is_file()
    report = Report.read(directory) if reported and there else None
    found = FinishedRun(directory, values, report)
    measured = report is not None and (report.is_study or report.method == "none")
    if measured or (verb and found.kind != "run"):
        only = f", whose runs alone can be {verb}" if verb else ", whose models were trained"
        raise ConfigError(f"{directory}: is not of `unteach run`{only}")
    if not found.model.is_dir() or (reported and not there):
        lacks = REPORT if found.model.is_dir() else "model/"
        again = {"run": "run", "mistakes": "mistakes run"}.get(found.kind)
        fix = f"go on with `unteach {again} --resume --output {directory}`" if again else "run it again"
        raise DataError(f"{directory}: no {lacks}, so its run has not ended; {fix}, or name a finished run")
    return found
