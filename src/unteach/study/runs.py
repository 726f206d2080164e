"""unteach study: every arm with every seed as a command of its own, what is done skipped, and one comparison."""

import json
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
from typing import Any

import yaml
from rich.console import Console

from unteach.comparison.compare import Compared, compare
from unteach.errors import ConfigError, DataError, Interrupted
from unteach.pipeline.directory import check_output
from unteach.pipeline.run import write_report
from unteach.pipeline.seeds import pooled
from unteach.report import wording
from unteach.report.compared import show, write
from unteach.report.comparison_page import write_comparison_page
from unteach.report.markdown import comparison_text
from unteach.report.page import FILE_NAME as PAGE
from unteach.results.files import write_whole
from unteach.results.report import FILE_NAME, Report
from unteach.scenarios import bad_rate_of, scenario_names
from unteach.study.config import StudyConfig, arm_values, kind_of
from unteach.study.rows import missing_files, mistakes_rows, shared_settings
from unteach.text.escape import inert_line

STUDY = "study.yaml"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Run:
    """One arm with one seed: the verb that makes it, and its settings; files beside `directory` bear its name."""

    arm: str
    seed: int
    verb: tuple[str, ...]
    settings: dict[str, Any]
    directory: Path

    @property
    def config(self) -> Path:
        """The settings it is called with."""
        return self.directory.with_name(f"{self.directory.name}.yaml")

    @property
    def log(self) -> Path:
        """What it said."""
        return self.directory.with_name(f"{self.directory.name}.log")

    @property
    def done(self) -> bool:
        """Whether its report is there."""
        return (self.directory / FILE_NAME).exists()

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.arm}, seed {self.seed}"


def run_study(study: StudyConfig, output: str, say: Say = print) -> Compared:
    """Run what is not done yet, then lay the arms beside each other; returns the comparison.

    In `output` each arm has a directory with a run directory a seed (`seed-0`), its settings and its log beside it, and
    a report of all seeds. Whatever fails is named in the comparison's `failed`, and the others go on. Runs that are
    done are kept; one that was broken off goes on where its verb can. Raises ConfigError where a run that is there
    had other settings, and where no arm came to a result; `Interrupted` after Ctrl-C.
    """
    directory = Path(output)
    if not (directory / STUDY).exists():
        check_output(output, overwrite=False, resume=False)
    _check_files(study)
    shared = shared_settings(study)
    runs = planned(study, shared, directory)
    _write(study, directory)
    failed = _run_all([run for run in runs if not run.done], len(runs), study.jobs, say)
    return summarised(study, directory, runs, failed)


def done_runs(study: StudyConfig, directory: Path) -> dict[str, int]:
    """Count the runs of each arm that are done in a study's directory."""
    return {
        arm: sum((_place(directory, arm, seed) / FILE_NAME).exists() for seed in study.every_seed) for arm in study.arms
    }


def _place(directory: Path, arm: str, seed: int) -> Path:
    return directory / arm / f"seed-{seed}"


def _check_files(study: StudyConfig) -> None:
    """Raise DataError for rows that are not there, before hours of other runs."""
    for about, settings in (("shared", study.shared), *((f"arms.{arm}", own) for arm, own in study.arms.items())):
        for name, path in missing_files(settings):
            raise DataError(f"{about}.{name}: {path}: no such file; name another, or put it there")


def planned(study: StudyConfig, shared: dict[str, Any], directory: Path) -> list[Run]:
    """List all runs, seed after seed, and write their settings. Raises ConfigError for a run with other settings."""
    runs = []
    for seed in study.every_seed:
        for arm, own in study.arms.items():
            kind = kind_of(arm, own)
            given = dict(shared)
            if kind == "mistakes":
                given |= mistakes_rows(shared, seed, directory / "rows" / f"seed-{seed}")
                given.setdefault("judge", ["repeats"])
            settings = arm_values(study, arm, seed, given)
            run = Run(arm, seed, verb_of(kind, own), settings, _place(directory, arm, seed))
            _write_settings(run)
            runs.append(run)
    return runs


def verb_of(kind: str, own: dict[str, Any]) -> tuple[str, ...]:
    """Return the words after `unteach` that make such an arm."""
    return {"method": ("run",), "mistakes": ("mistakes", "run")}.get(kind) or ("baseline", str(own["baseline"]))


def _write_settings(run: Run) -> None:
    text = yaml.safe_dump(run.settings, sort_keys=True, allow_unicode=True)
    known = run.config.read_text(encoding="utf-8") if run.config.exists() else None
    if known is not None and known != text:
        if run.done:
            changed = sorted(name for name, _ in set(_items(known)) ^ set(_items(text)))
            raise ConfigError(
                f"{run.directory} was made with other settings ({', '.join(dict.fromkeys(changed))}); remove "
                f"{run.directory.parent}, or name another --output"
            )
        if run.directory.exists():
            raise ConfigError(f"{run.directory} was begun with other settings; remove it, or name another --output")
    run.config.parent.mkdir(parents=True, exist_ok=True)
    write_whole(run.config, text)


def _items(text: str) -> list[tuple[str, str]]:
    return [(name, json.dumps(value, sort_keys=True)) for name, value in yaml.safe_load(text).items()]


def _write(study: StudyConfig, directory: Path) -> None:
    values = study.model_dump(exclude_defaults=True)
    text = f"# unteach study --config {STUDY} --output another-directory\n" + yaml.safe_dump(values, sort_keys=False)
    write_whole(directory / STUDY, text)


# ---- running ---------------------------------------------------------------------------------------------------------


def _run_all(runs: Sequence[Run], total: int, jobs: int, say: Say) -> dict[str, str]:
    """Run all, `jobs` at a time; returns what failed, with the last line that it said."""
    failed: dict[str, str] = {}
    done, stop, lock = total - len(runs), threading.Event(), threading.Lock()
    started = time.monotonic()
    if done:
        say(f"{done} of {total} runs are done already")

    def one(number: int) -> None:
        nonlocal done
        run = runs[number]
        if stop.is_set():
            return
        began = time.monotonic()
        say(f"{run.name} begins; what it says is in {run.log}")
        code = _called(run, number % jobs, jobs)
        with lock:
            if stop.is_set():
                return
            done += 1
            head = f"[{done}/{total}] {run.name}: "
            each = (time.monotonic() - started) / (done - total + len(runs))
            left = f"; about {wording.seconds(each * (total - done))} left" if done < total else ""
            if code == 130:
                stop.set()
            elif code == 0 and run.done:
                say(head + f"{_told(run)} ({time.monotonic() - began:.0f} s{left})")
            else:
                failed[run.name] = _last_words(run)
                say(head + f"failed: {failed[run.name]} (all of it: {run.log})")

    with ThreadPoolExecutor(jobs) as pool:
        try:
            list(pool.map(one, range(len(runs))))
        except KeyboardInterrupt:
            stop.set()
    if stop.is_set():
        raise Interrupted("stopped; the same command goes on with what is left")
    return failed


def _called(run: Run, worker: int, jobs: int) -> int:
    """Call a run's command and wait for it; returns its exit code. Its words go to its log."""
    command = [sys.executable, "-m", "unteach", *run.verb, "--config", str(run.config), "--output", str(run.directory)]
    if (run.directory / "run.yaml").exists():
        command.append("--overwrite" if run.verb[0] == "baseline" else "--resume")
    with run.log.open("ab") as log:
        log.write(f"$ {shlex.join(command)}\n".encode())
        log.flush()
        # Ctrl-C reaches it too, from the terminal: it writes a checkpoint and ends.
        return subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=_environment(worker, jobs)).returncode


def _environment(worker: int, jobs: int) -> dict[str, str]:
    """Share processor cores, or GPUs, among runs at a time."""
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


def _told(run: Run) -> str:
    """Say in a few words what came of a run."""
    report = Report.read(run.directory)
    said = []
    for name in map(bad_rate_of, scenario_names()):
        metrics = [m for m in report.measurements if (m.name, m.split) == (name, "unseen") and m.arm != "retrained"]
        for metric in metrics:
            if metric.value is not None and not metric.arm.startswith("original"):
                said.append(f"{inert_line(metric.arm, 40)} {100 * metric.value:.1f} % {name.split('_')[0]}")
    return ", ".join(said) or "done"


def _last_words(run: Run) -> str:
    """Return the last line of a run's log that says something."""
    try:
        lines = run.log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "nothing was said"
    return next((inert_line(line, 300) for line in reversed(lines) if line.strip()), "nothing was said")


# ---- afterwards ------------------------------------------------------------------------------------------------------


def summarised(study: StudyConfig, directory: Path, runs: Sequence[Run], failed: dict[str, str]) -> Compared:
    """Pool each arm's seeds into one report in its directory, and compare the arms. Raises ConfigError without any.

    An arm of which some seeds failed is compared with the others; notes name them.
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
        notes.append(f"{study.jobs} runs were made at a time: seconds are those of a shared machine")
    labels = {str(place): place.name for place in places}
    compared = compare(places, relative_to=study.relative_to, target=study.target, labels=labels, alone=True)
    return compared.model_copy(update={"failed": list(failed), "notes": [*notes, *compared.notes]})


def write_results(compared: Compared, directory: Path, console: Console) -> list[Path]:
    """Show a comparison, and write it as a page, as JSON and as Markdown; returns the files. Raises OutputError."""
    show(compared, console)
    write(compared, directory / "compared.json")
    text = write_whole(directory / "results.md", comparison_text(compared))
    return [write_comparison_page(compared, directory / PAGE), directory / "compared.json", text]
