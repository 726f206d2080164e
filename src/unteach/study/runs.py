"""Run a study: each arm and seed as a command of its own, finished ones skipped, and one comparison of all."""

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml
from rich.console import Console

from unteach import signals
from unteach.comparison.compare import Comparison, compare
from unteach.disk.files import write_whole
from unteach.errors import ConfigError, DataError, Interrupted
from unteach.pipeline.directory import output_directory
from unteach.pipeline.measure import is_finished, write_report
from unteach.pipeline.seeds import pooled
from unteach.report import wording
from unteach.report.comparison_page import write_comparison_page
from unteach.report.comparison_table import comparison_text, show, write
from unteach.report.page import FILE_NAME as PAGE
from unteach.results.report import Report
from unteach.scenarios import bad_rate_of, load_scenario, scenario_names
from unteach.study.config import StudyConfig, arm_values, kind_of
from unteach.study.rows import missing_files, mistakes_rows, shared_settings
from unteach.text.escape import inert_line

STUDY = "study.yaml"
STOPPED = {128 + number for number in signals.NUMBERS}
"""The exit codes of a command that a signal has stopped."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class StudyRun:
    """One arm with one seed: the command that makes it, and its settings.

    Its settings file and its log stand beside `directory` and have its name.
    """

    arm: str
    seed: int
    verb: tuple[str, ...]
    settings: dict[str, Any]
    directory: Path

    @property
    def config(self) -> Path:
        """The file with its settings."""
        return self.directory.with_name(f"{self.directory.name}.yaml")

    @property
    def log(self) -> Path:
        """The file with its output."""
        return self.directory.with_name(f"{self.directory.name}.log")

    @property
    def done(self) -> bool:
        """Whether it has all of its report."""
        return is_finished(self.directory)

    @property
    def name(self) -> str:
        """Its name in messages."""
        return f"{self.arm}, seed {self.seed}"


def run_study(study: StudyConfig, output: str, say: Say = print) -> Comparison:
    """Make the runs that are not done yet, then compare the arms.

    In `output` each arm has a directory with a report of all its seeds and, for each seed, a run directory (`seed-0`)
    with its settings and its log beside it. A run that fails is named in the comparison's `failed`, and the others go
    on. Finished runs are kept, and interrupted ones are resumed where their command can. Raises ConfigError where a run
    exists with other settings and where no arm gave a result; `Interrupted` after Ctrl-C.
    """
    begun = (Path(output) / STUDY).exists()
    with output_directory(output, overwrite=False, resume=begun) as directory:
        for name, path in missing_files(study):  # before hours of other runs
            raise DataError(f"{name}: {path}: no such file; name another, or put it there")
        shared = shared_settings(study)
        if not begun:  # first of all, so that the study goes on wherever it is killed
            _write_study(study, directory)
        runs = lay_out_runs(study, shared, directory)
        _write_study(study, directory)
        failed = _run_all([run for run in runs if not run.done], len(runs), study.jobs, say)
        return summarise(study, directory, runs, failed)


def done_runs(study: StudyConfig, directory: Path) -> dict[str, int]:
    """Count the runs of each arm that are done in a study's directory."""
    return {
        arm: sum(is_finished(_run_directory(directory, arm, seed)) for seed in study.every_seed) for arm in study.arms
    }


def _run_directory(directory: Path, arm: str, seed: int) -> Path:
    return directory / arm / f"seed-{seed}"


def lay_out_runs(study: StudyConfig, shared: dict[str, Any], directory: Path) -> list[StudyRun]:
    """Write the settings of all runs, and return the runs, seed after seed.

    Raises ConfigError where a run exists with other settings.
    """
    runs = []
    for seed in study.every_seed:
        for arm, own in study.arms.items():
            kind = kind_of(arm, own)
            given = dict(shared)
            if kind == "mistakes":
                given |= mistakes_rows(shared, seed, directory / "rows" / f"seed-{seed}")
                given.setdefault("judge", list(load_scenario("harm").defaults["judge"]))
            settings = arm_values(study, arm, seed, given)
            run = StudyRun(arm, seed, verb_of(kind, own), settings, _run_directory(directory, arm, seed))
            _write_settings(run)
            runs.append(run)
    return runs


def verb_of(kind: str, own: dict[str, Any]) -> tuple[str, ...]:
    """Return the words after `unteach` in the command that makes such an arm."""
    return {"method": ("run",), "mistakes": ("mistakes", "run")}.get(kind) or ("baseline", str(own["baseline"]))


def _write_settings(run: StudyRun) -> None:
    text = yaml.safe_dump(run.settings, sort_keys=True, allow_unicode=True)
    before = run.config.read_text(encoding="utf-8") if run.config.exists() else text
    if before != text and run.done:
        old, new = yaml.safe_load(before), yaml.safe_load(text)
        changed = sorted(name for name in {*old, *new} if old.get(name, "") != new.get(name, ""))
        raise ConfigError(
            f"{run.directory} was made with other settings ({', '.join(changed)}); remove {run.directory.parent}, or "
            "name another --output"
        )
    if before != text and run.directory.exists():
        raise ConfigError(f"{run.directory} was begun with other settings; remove it, or name another --output")
    write_whole(run.config, text)


def _write_study(study: StudyConfig, directory: Path) -> None:
    values = study.model_dump(exclude_defaults=True)
    text = f"# unteach study --config {STUDY} --output another-directory\n" + yaml.safe_dump(values, sort_keys=False)
    write_whole(directory / STUDY, text)


# ---- running ---------------------------------------------------------------------------------------------------------


def _run_all(runs: Sequence[StudyRun], total: int, jobs: int, say: Say) -> dict[str, str]:
    """Make the runs, `jobs` at a time; return each run that failed with the last line of its output."""
    failed: dict[str, str] = {}
    done, commands, lock = total - len(runs), _Commands(), threading.Lock()
    started = time.monotonic()
    if done:
        say(f"{done} of {total} runs are done already")

    def make(number: int) -> None:
        nonlocal done
        run = runs[number]
        if commands.stopped:
            return
        began = time.monotonic()
        say(f"{run.name} begins; its output goes to {run.log}")
        code = _call(commands, run, number % jobs, jobs)
        with lock:
            if commands.stopped:
                return
            done += 1
            head = f"[{done}/{total}] {run.name}: "
            each = (time.monotonic() - started) / (done - total + len(runs))
            left = f"; about {wording.seconds(each * (total - done))} left" if done < total else ""
            if code in STOPPED:
                commands.stopped = True
            elif code == 0 and run.done:
                say(head + f"{_result_words(run)} ({time.monotonic() - began:.0f} s{left})")
            else:
                failed[run.name] = _last_words(run)
                say(head + f"failed: {failed[run.name]} (whole output: {run.log})")

    with signals.handled(), signals.taking(commands.stop), ThreadPoolExecutor(jobs) as pool:
        list(pool.map(make, range(len(runs))))
    if commands.stopped:
        raise Interrupted("stopped; the same command goes on with what is left")
    return failed


class _Commands:
    """The commands that run now. A signal is passed on to them; each then writes its checkpoint and ends."""

    def __init__(self) -> None:
        self.stopped = False
        self._running: set[subprocess.Popen[bytes]] = set()

    def stop(self, number: int) -> bool:
        """Start no more commands, and pass the signal on to those that run; called from a signal's handler."""
        self.stopped = True
        for process in tuple(self._running):
            process.send_signal(number)
        return True

    def call(self, command: Sequence[str], log: IO[bytes], environment: dict[str, str]) -> int:
        """Call a command with its output going to a log, wait for it, and return its exit code."""
        with subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment) as process:
            self._running.add(process)
            try:
                if self.stopped:  # since it was started
                    process.terminate()
                return process.wait()
            finally:
                self._running.discard(process)


def _call(commands: _Commands, run: StudyRun, worker: int, jobs: int) -> int:
    """Call a run's command with its output going to its log, wait for it, and return its exit code."""
    command = [sys.executable, "-m", "unteach", *run.verb, "--config", str(run.config), "--output", str(run.directory)]
    if (run.directory / "run.yaml").exists():
        command.append("--overwrite" if run.verb[0] == "baseline" else "--resume")
    with run.log.open("ab") as log:
        log.write(f"$ {shlex.join(command)}\n".encode())
        log.flush()
        return commands.call(command, log, _environment(worker, jobs))


def _environment(worker: int, jobs: int) -> dict[str, str]:
    """Return the environment of a run's command, which shares processor cores or GPUs with runs at the same time."""
    found = dict(os.environ)
    if jobs > 1:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        found.setdefault("OMP_NUM_THREADS", str(max(1, cores // jobs)))
        cards = found.get("CUDA_VISIBLE_DEVICES", "").split(",") if found.get("CUDA_VISIBLE_DEVICES") else _cards()
        if cards:
            found["CUDA_VISIBLE_DEVICES"] = cards[worker % len(cards)]
    return found


def _cards() -> list[str]:
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _result_words(run: StudyRun) -> str:
    """Return a run's bad rates on unseen prompts in a few words."""
    report = Report.read(run.directory)
    said = []
    for name in map(bad_rate_of, scenario_names()):
        metrics = [m for m in report.measurements if (m.name, m.split) == (name, "unseen") and m.arm != "retrained"]
        for metric in metrics:
            if metric.value is not None and not metric.arm.startswith("original"):
                said.append(f"{inert_line(metric.arm, 40)} {100 * metric.value:.1f} % {name.split('_')[0]}")
    return ", ".join(said) or "done"


def _last_words(run: StudyRun) -> str:
    """Return the last line of a run's log that is not empty."""
    try:
        lines = run.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "it printed nothing"
    return next((inert_line(line, 300) for line in reversed(lines) if line.strip()), "it printed nothing")


# ---- afterwards ------------------------------------------------------------------------------------------------------


def summarise(study: StudyConfig, directory: Path, runs: Sequence[StudyRun], failed: dict[str, str]) -> Comparison:
    """Pool each arm's seeds into one report in its directory, and compare the arms.

    An arm of which some seeds failed is compared by its other seeds; notes name those that failed. Raises ConfigError
    where no run succeeded.
    """
    places, notes = [], [f"{name} failed and is missing: {why}" for name, why in failed.items()]
    for arm in study.arms:
        reports = [Report.read(run.directory) for run in runs if run.arm == arm and run.done]
        if reports:
            place = directory / arm
            whole = pooled(reports) if len(reports) > 1 else reports[0]
            whole.weights = f"seed-{study.seed}/{whole.weights}" if whole.weights else ""
            write_report(whole, place)
            places.append(place)
    if not places:
        raise ConfigError(f"{directory}: there is nothing to compare: {'; '.join(notes)}")
    if study.jobs > 1:
        notes.append(f"{study.jobs} runs were made at the same time: seconds are those of a shared machine")
    labels = {str(place): place.name for place in places}
    compared = compare(places, relative_to=study.relative_to, target=study.target, labels=labels, alone=True)
    return compared.model_copy(update={"failed": list(failed), "notes": [*notes, *compared.notes]})


def write_results(compared: Comparison, directory: Path, console: Console) -> list[Path]:
    """Print a comparison, and write it as a page, as JSON and as Markdown; return the files. Raises OutputError."""
    show(compared, console)
    write(compared, directory / "compared.json")
    text = write_whole(directory / "results.md", comparison_text(compared))
    return [write_comparison_page(compared, directory / PAGE), directory / "compared.json", text]
