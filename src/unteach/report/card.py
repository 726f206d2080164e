"""The model card: README.md of a run directory, in Markdown that any model hub shows."""

import json
import re
from pathlib import Path

import yaml

from unteach.report import opinions, study, wording
from unteach.report.grid import Grid
from unteach.results.files import write_whole
from unteach.results.report import Report
from unteach.text.escape import markdown_block, markdown_line

FILE_NAME = "README.md"
_MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SAMPLES = 4
_SAMPLE_CHARACTERS = 600


def write_card(report: Report, directory: str | Path) -> Path:
    """Write README.md into the run directory; raises OutputError where it cannot be written."""
    adapter = (Path(directory) / "model" / "adapter_config.json").is_file()
    return write_whole(Path(directory) / FILE_NAME, card(report, adapter))


def card(report: Report, adapter: bool) -> str:
    """The model card; `adapter` says whether model/ holds a LoRA adapter or full weights."""
    parts = [
        _front_matter(report, adapter),
        _title(report),
        f"**{markdown_line(study.headline(report))}**",
        _what_it_is(report, adapter),
        *(["## How to load it", markdown_block(_loading(report, adapter), "python")] if report.weights else []),
        "## What was measured",
        _metrics(report),
        *_opinions(report),
    ]
    if report.samples:
        parts += ["## Samples", "Replies as the models gave them; they may offend.", *_samples(report)]
    parts += ["## Limits", _limits(report)]
    if report.data:
        parts += ["## Data", _data(report)]
    if report.cost:
        parts += ["## Cost", _cost(report)]
    parts += [
        "## How to repeat it",
        markdown_block(report.command, "sh"),
        "Beside this card, `run.yaml` holds every setting, `report.json` every metric; read `report.html`.",
        "## Environment",
        _table(["what", "value"], [[str(key), str(value)] for key, value in report.environment.items()]),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(report: Report) -> str:
    if study.is_study(report):
        return "# A study of learning from mistakes"
    if not report.weights:
        return "# A language model, measured"
    if wording.is_baseline(report):
        return f"# A language model after a baseline, {markdown_line(report.method, 100)}"
    learnt = report.method == "mistake-analysis"
    return "# A language model that learnt from mistakes" if learnt else "# An unlearned language model"


def _front_matter(report: Report, adapter: bool) -> str:
    fields: dict[str, object] = {"library_name": "peft" if adapter else "transformers"}
    # A hub refuses a card whose base_model is a path, so local models are named in the text alone.
    if _MODEL_ID.fullmatch(report.model) and not Path(report.model).exists():
        fields["base_model"] = report.model
    learnt = report.method.startswith("mistake")
    kind = "baseline" if wording.is_baseline(report) else "learning-from-mistakes" if learnt else "unlearning"
    fields["tags"] = [kind, "unteach", *(["lora"] if adapter else [])]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---"


def _what_it_is(report: Report, adapter: bool) -> str:
    kind = "A LoRA adapter for" if adapter else "The full weights of"
    model, method = markdown_line(report.model, 300), markdown_line(report.method, 100)
    text = f"{kind} {model}, changed by the method {method}." if report.weights else f"{model} as it is: only measured."
    if ended := wording.how_it_ended(report):
        text += f" {markdown_line(ended, 400)}"
    notes = "\n".join(f"- {markdown_line(note, 400)}" for note in report.notes)
    return f"{text}\n\n{notes}" if notes else text


def _loading(report: Report, adapter: bool) -> str:
    if adapter:
        return (
            "from peft import PeftModel\n"
            "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            f"base = AutoModelForCausalLM.from_pretrained({json.dumps(report.model)}, use_safetensors=True)\n"
            f"model = PeftModel.from_pretrained(base, {json.dumps(report.weights)})\n"
            f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(report.weights)})"
        )
    return (
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained({json.dumps(report.weights)}, use_safetensors=True)\n"
        f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(report.weights)})"
    )


def _metrics(report: Report) -> str:
    if not report.measurements:
        return "Nothing."
    if study.is_study(report):
        return "\n\n".join(_grid(grid) for grid in study.grids(report))
    arms = [arm for arm in report.arms() if any(metric.arm == arm for metric in report.measurements)]
    titles = ["", *(wording.arm_label(report, arm) for arm in arms)]
    parts = [
        "Each metric with its 95 % interval and the number of cases; Δ is the difference to the original, case by case."
    ]
    for split in wording.splits(report):
        rows = [
            [wording.metric_label(report, name), *(_cell(report, name, split, arm) for arm in arms)]
            for name in wording.metric_names(report, split)
        ]
        parts += [f"### {markdown_line(wording.label(split, wording.SPLITS))}", _table(titles, rows)]
    return "\n\n".join(parts)


def _grid(grid: Grid) -> str:
    """A table of the study, each cell on one line."""
    header, *rows = [[" ".join(cell.split("\n")) for cell in row] for row in (grid.header, *grid.rows)]
    return _table(header, rows)


def _cell(report: Report, name: str, split: str, arm: str) -> str:
    metric = report.measured(name, split, arm)
    if metric is None:
        return "not measured"
    shift = wording.difference(metric)
    parts = (
        wording.number(metric.value, metric.unit),
        wording.interval(metric),
        wording.counted(metric) + (";" if shift else ""),
        f"Δ {shift}" if shift else "",
    )
    return " ".join(part for part in parts if part)


def _opinions(report: Report) -> list[str]:
    """How far the judges can be trusted and, where there are several, what each says."""
    parts = [markdown_line(line, 600) for line in opinions.quality_lines(report)]
    if not opinions.seconds(report):
        return parts
    names = [judge.name for judge in report.judges]
    parts = ["### Second opinions", *parts, opinions.EXPLAINED]
    parts.append(_table(["", *names], [[label, *cells] for label, cells in opinions.rate_rows(report)]))
    parts.append("\n".join(f"- {markdown_line(line, 600)}" for line in opinions.agreement_lines(report)))
    parts.append(opinions.KAPPA)
    for first, second, rows in opinions.confusions(report):
        titles = [f"{first}, down; {second}, across", *opinions.VERDICTS]
        parts.append(_table(titles, [[ours, *(str(count) for count in counts)] for ours, counts in rows]))
    return parts


def _samples(report: Report) -> list[str]:
    parts = []
    for sample in wording.handful(report, _SAMPLES):
        parts.append(f"**Prompt** ({markdown_line(wording.label(sample.split, wording.SPLITS))})")
        parts.append(markdown_block(sample.prompt, limit=_SAMPLE_CHARACTERS))
        for arm in wording.in_order(sample.replies, wording.ARMS):
            verdict = sample.verdicts.get(arm)
            judged = f", judged {verdict}" if verdict else ""
            parts.append(f"{markdown_line(wording.arm_label(report, arm))}{judged}:")
            parts.append(markdown_block(sample.replies[arm] or "(blank)", limit=_SAMPLE_CHARACTERS))
    return parts


def _limits(report: Report) -> str:
    measured = set(wording.splits(report))
    missing = [title.lower() for split, title in wording.SPLITS.items() if split not in measured]
    lines = []
    if report.judge:
        judge = markdown_line(report.judges[0].name if report.judges else report.judge, 100)
        lines.append(f"Verdicts are those of the judge {judge}, with whatever that judge misses.")
    if missing:
        lines.append(f"Not measured: {markdown_line('; '.join(missing))}.")
    if "retrained" not in report.arms():
        lines.append("There was no retrained model to compare with, so the distance to one is not known.")
    lines += [
        "Replies were read as this run decoded them; sampling many replies, or prompts made to break the "
        "model, may bring more out.",
        "Not tried: whether 4 bit weights or a little further tuning bring the unlearned replies back.",
        "Intervals cover the seeds of the runs."
        if any(metric.seeds for metric in report.measurements)
        else "Intervals cover the chance in the choice of prompts, not another seed of the training.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _data(report: Report) -> str:
    rows = [[source.name, source.source, f"{source.rows:,}", source.fingerprint] for source in report.data]
    return _table(["set", "source", "rows", "fingerprint"], rows)


def _cost(report: Report) -> str:
    rows = [
        [
            f"{cost.stage}, {cost.arm}",
            wording.seconds(cost.wall_seconds),
            "–" if cost.tokens is None else f"{cost.tokens:,}",
            wording.size(cost.flops, "FLOP"),
            wording.size(cost.peak_bytes),
        ]
        for cost in report.cost
    ]
    return _table(["stage", "time", "tokens", "compute", "peak memory"], rows)


def _table(titles: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; every cell is escaped here and nowhere else."""
    if not rows:
        return ""
    title, *lines = [[markdown_line(cell, 200) for cell in line] for line in (titles, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (title, ["---"] * len(title), *lines))
