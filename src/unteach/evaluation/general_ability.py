"""General ability, on request: tasks of lm-eval (the extra `lm-eval`), run in this process on the model as it is.

The tasks are loaded before training, so that an unknown name or missing rows end the run at once. A task file of your
own is YAML that names local rows; like any task of lm-eval it may name Python functions beside it, which are run.
"""

import contextlib
import copy
import importlib.util
import io
import logging
import math
import random
import statistics
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unteach.errors import ConfigError, nearest
from unteach.results.measurement import Measurement
from unteach.stats import wilson
from unteach.text.escape import inert_line
from unteach.training.restored import only_weights_change

SPLIT = "general"
BATCH_ROWS = 16
BOOTSTRAPS = 1000
"""Resamplings for the metrics whose standard error has no formula."""
SHARES = frozenset({"acc", "acc_norm", "acc_bytes", "exact_match", "f1", "em", "brier_score", "contains"})
"""Metrics that are fractions from 0 to 1; others are shown as they are."""
Z95 = 1.96


@dataclass
class GeneralAbility:
    """Loaded tasks and the metrics of every arm on them. `most_items` limits the items of a task; None takes all."""

    tasks: dict[str, Any]
    most_items: int | None = None
    measurements: list[Measurement] = field(default_factory=list)

    def evaluate(self, arm: str, model: Any, tokenizer: Any, *, chat: bool) -> None:
        """Measure an arm on all tasks; `chat` puts the questions into the tokenizer's chat template.

        The model, its modes, the tokenizer and all random states stay as they were.
        """
        self.measurements += read_results(arm, self._results(model, tokenizer, chat))

    def _results(self, model: Any, tokenizer: Any, chat: bool) -> dict[str, Any]:
        from lm_eval.evaluator import evaluate
        from lm_eval.models.huggingface import HFLM

        with _as_before(model), _quietly():
            lm = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=BATCH_ROWS)
            return evaluate(
                lm=lm,
                task_dict=self.tasks,
                limit=self.most_items,
                bootstrap_iters=BOOTSTRAPS,
                apply_chat_template=chat,
                log_samples=True,
            )


def load_tasks(names: Sequence[str], most_items: int | None = None) -> GeneralAbility | None:
    """Load tasks, groups or tags by name, or task files by path; None where none are named.

    Raises ConfigError where lm-eval is not installed, where a name is unknown, and where a task cannot be loaded.
    """
    if not names:
        return None
    if importlib.util.find_spec("lm_eval") is None:
        raise ConfigError("--lm-eval: lm-eval is not installed; install it with: pip install 'unteach[lm-eval]'")
    with _quietly():
        from lm_eval.tasks import TaskManager

        files = [name for name in names if _is_file(name)]
        manager = TaskManager(include_defaults=len(files) < len(names))  # lm-eval's list takes seconds to read
    for name in names:
        if name in files:
            if not Path(name).expanduser().is_file():
                raise ConfigError(f"--lm-eval {inert_line(name, 200)}: no such task file; check the path")
        elif name not in manager.task_index:
            known = nearest(name, manager.all_tasks) or "; `lm-eval ls tasks` lists them"
            raise ConfigError(f"--lm-eval {inert_line(name, 80)}: lm-eval knows no such task{known}")
    loaded: dict[str, Any] = {"tasks": {}, "groups": {}, "group_map": {}}
    for name in names:
        try:
            with _quietly():
                found = manager.load([str(Path(name).expanduser()) if name in files else name])
        except KeyboardInterrupt:
            raise
        except Exception as error:  # a task is foreign code and rows: it may raise anything
            reason = inert_line(f"{type(error).__name__}: {error}", 300)
            shown = inert_line(name, 200)
            raise ConfigError(f"--lm-eval {shown}: cannot be loaded ({reason}); fix it or leave it out") from error
        for part in loaded:
            loaded[part] |= found.get(part, {})
    for task in loaded["tasks"].values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=1234)  # lm-eval's own, so that metrics compare with published ones
    return GeneralAbility(loaded, most_items)


def read_results(arm: str, results: dict[str, Any]) -> list[Measurement]:
    """Turn lm-eval's results into measurements `lm_eval:TASK:METRIC` (`METRIC@FILTER` where a filter was used).

    `values` are those of single cases where their mean is the metric, for paired differences. The interval of a share
    of right answers is Wilson's. That of other metrics is 1.96 of lm-eval's standard errors to each side, and missing
    where lm-eval gives none.
    """
    found = []
    for task, metrics in results["results"].items():
        direction = results.get("higher_is_better", {}).get(task, {})
        count = results.get("n-samples", {}).get(task, {}).get("effective", metrics.get("sample_len", 0))
        for key, value in metrics.items():
            metric, comma, kind = key.partition(",")
            if not comma or metric.endswith("_stderr") or isinstance(value, bool | str):
                continue
            error = metrics.get(f"{metric}_stderr,{kind}")
            value, share = float(value), metric in SHARES
            cases = _cases(results.get("samples", {}).get(task, []), metric, kind, value)
            low, high = _interval(value, cases, error, share)
            found.append(
                Measurement(
                    name=f"lm_eval:{task}:{metric}" + ("" if kind == "none" else f"@{kind}"),
                    split=SPLIT,
                    arm=arm,
                    value=value if math.isfinite(value) else None,
                    low=low,
                    high=high,
                    n=int(count),
                    unit="fraction" if share else metric,
                    better="lower" if direction.get(metric) is False else "higher",
                    values=cases,
                )
            )
    return found


def _interval(
    value: float, cases: Sequence[float | None], error: Any, share: bool
) -> tuple[float | None, float | None]:
    """Return the 95 % interval: Wilson's for 0s and 1s, where a standard error may be 0 for a few right answers."""
    if cases and set(cases) <= {0.0, 1.0}:
        return wilson(sum(case == 1.0 for case in cases), len(cases))[1:]
    if not isinstance(error, int | float) or not math.isfinite(error) or not math.isfinite(value):
        return None, None
    low, high = value - Z95 * error, value + Z95 * error
    return (max(0.0, low), min(1.0, high)) if share else (low, high)


def _cases(samples: Sequence[dict[str, Any]], metric: str, kind: str, value: float) -> tuple[float | None, ...]:
    """Return the metrics of single cases in the order of their rows; empty where their mean is not the metric."""
    chosen = sorted((s for s in samples if s.get("filter") == kind and metric in s), key=lambda s: s["doc_id"])
    each = [s[metric] for s in chosen]
    if not each or not all(isinstance(one, int | float | np.number) for one in each):
        return ()
    cases = tuple(float(one) for one in each)
    return cases if math.isclose(statistics.fmean(cases), value, rel_tol=1e-6, abs_tol=1e-9) else ()


def _is_file(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


@contextlib.contextmanager
def _as_before(model: Any) -> Iterator[None]:
    """Put the model and all random states back, so that training goes on as if nothing had been measured."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with only_weights_change(model), torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep lm-eval's log lines and bars off the terminal; errors still raise exceptions."""
    log = logging.getLogger("lm_eval")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stderr(io.StringIO()),
            contextlib.redirect_stdout(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
