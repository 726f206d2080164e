"""The model card: README.md of a run directory, in Markdown that any model hub shows."""

import json
import re
from pathlib import Path

import yaml

from unteach.disk.files import write_whole
from unteach.report import opinions, study, wording
from unteach.report.cells import Cell, metric_rows
from unteach.report.grid import Grid, cost_table, data_table, environment_table, markdown_table
from unteach.report.headline import headline
from unteach.report.stress import about, outcome_line, read_card, short_table
from unteach.results.arms import ARMS, RETRAINED, in_order
from unteach.results.report import Report
from unteach.results.stress import StressCard
from unteach.text.escape import markdown_block, markdown_line

FILE_NAME = "README.md"
_MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_UNTRIED = "Not tried: whether 4-bit weights or a little further tuning bring the unlearned replies back."
_SAMPLES = 4
_SAMPLE_CHARACTERS = 600


def write_card(report: Report, directory: str | Path) -> Path:
    """Write README.md into the run directory; raises OutputError where it cannot be written."""
    adapter = (Path(directory) / "model" / "adapter_config.json").is_file()
    return write_whole(Path(directory) / FILE_NAME, card(report, adapter, read_card(directory)))


def card(report: Report, adapter: bool, stress: StressCard | None = None) -> str:
    """Return the model card; `adapter` says whether model/ holds a LoRA adapter or full weights."""
    parts = [
        _front_matter(report, adapter),
        _title(report),
        f"**{markdown_line(headline(report))}**",
        _what_it_is(report, adapter),
        *(["## How to load it", markdown_block(_loading(report, adapter), "python")] if report.weights else []),
        "## What was measured",
        _metrics(report),
        *_opinions(report),
        *_stress(stress),
    ]
    if report.samples:
        parts += ["## Samples", "Replies as the models gave them; they may offend.", *_samples(report)]
    parts += ["## Limits", _limits(report, stress)]
    if report.data:
        parts += ["## Data", markdown_table(data_table(report))]
    if report.cost:
        parts += ["## Cost", markdown_table(cost_table(report))]
    parts += [
        "## How to repeat it",
        markdown_block(report.command, "sh"),
        "Beside this card, `run.yaml` holds every setting, `report.json` every metric; read `report.html`.",
        "## Environment",
        markdown_table(environment_table(report)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(report: Report) -> str:
    if report.is_study:
        return "# A study of learning from mistakes"
    if not report.weights:
        return "# A language model, measured"
    if report.is_baseline:
        return f"# A language model after a baseline, {markdown_line(report.method, 100)}"
    learnt = report.method == "mistake-analysis"
    return "# A language model that learnt from mistakes" if learnt else "# An unlearned language model"


def _front_matter(report: Report, adapter: bool) -> str:
    fields: dict[str, object] = {"library_name": "peft" if adapter else "transformers"}
    # A hub refuses a card whose base_model is a path, so local models are named in the text alone.
    if _MODEL_ID.fullmatch(report.model) and not Path(report.model).exists():
        fields["base_model"] = report.model
    learnt = report.method.startswith("mistake")
    kind = "baseline" if report.is_baseline else "learning-from-mistakes" if learnt else "unlearning"
    fields["tags"] = [kind, "unteach", *(["lora"] if adapter else [])]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---"


def _what_it_is(report: Report, adapter: bool) -> str:
    kind = "A LoRA adapter for" if adapter else "The full weights of"
    model, method = markdown_line(report.model, 300), markdown_line(report.method, 100)
    text = f"{kind} {model}, changed by the method {method}." if report.weights else f"{model} as it is: only measured."
    if ended := wording.how_it_ended(report):
        text += f" {markdown_line(ended, 900)}"
    notes = "\n".join(f"- {markdown_line(note, 400)}" for note in report.notes)
    return f"{text}\n\n{notes}" if notes else text


def _loading(report: Report, adapter: bool) -> str:
    base, weights = json.dumps(report.model), json.dumps(report.weights)
    lines = ["from transformers import AutoModelForCausalLM, AutoTokenizer", ""]
    if adapter:
        lines.insert(0, "from peft import PeftModel")
        lines.append(f"base = AutoModelForCausalLM.from_pretrained({base}, use_safetensors=True)")
        lines.append(f"model = PeftModel.from_pretrained(base, {weights})")
    else:
        lines.append(f"model = AutoModelForCausalLM.from_pretrained({weights}, use_safetensors=True)")
    return "\n".join([*lines, f"tokenizer = AutoTokenizer.from_pretrained({weights})"])


def _metrics(report: Report) -> str:
    if not report.measurements:
        return "Nothing."
    if report.is_study:
        return "\n\n".join(map(markdown_table, study.grids(report)))
    arms = report.measured_arms()
    parts = [
        "Each metric with its 95 % interval and the number of cases; Δ is the difference to the original, case by case."
    ]
    for title, rows in metric_rows(report, arms):
        cells = [[name, *map(_cell_text, found)] for name, found in rows]
        parts += [f"### {markdown_line(title)}", markdown_table(Grid(["", *wording.arm_labels(report, arms)], cells))]
    return "\n\n".join(parts)


def _cell_text(cell: Cell | None) -> str:
    if cell is None:
        return "not measured"
    return f"{cell.value} {cell.detail}" + (f"; Δ {cell.difference}" if cell.difference else "")


def _opinions(report: Report) -> list[str]:
    """Say how far the judges can be trusted and, where there are several, what each says."""
    parts = [markdown_line(line, 600) for line in opinions.quality_lines(report)]
    if not opinions.has_second_opinions(report):
        return parts
    return [
        "### Second opinions",
        *parts,
        opinions.EXPLAINED,
        markdown_table(opinions.rates_table(report)),
        "\n".join(f"- {markdown_line(line, 600)}" for line in opinions.agreement_lines(report)),
        opinions.KAPPA,
        *map(markdown_table, opinions.confusion_tables(report)),
    ]


def _stress(stress: StressCard | None) -> list[str]:
    """Return the short table of the stress card, where there is one."""
    if stress is None or not stress.arms():
        return []
    told = markdown_line(f"{outcome_line(stress)} {about(stress)}", 1000)
    return ["## Stress: attempts to bring it back", told, markdown_table(short_table(stress))]


def _samples(report: Report) -> list[str]:
    parts = []
    for sample in wording.handful(report, _SAMPLES):
        parts.append(f"**Prompt** ({markdown_line(wording.label(sample.split, wording.SPLITS))})")
        parts.append(markdown_block(sample.prompt, limit=_SAMPLE_CHARACTERS))
        for arm in in_order(sample.replies, ARMS):
            verdict = sample.verdicts.get(arm)
            judged = f", judged {verdict}" if verdict else ""
            cut = wording.cut_note(sample, arm)
            judged += f", {cut}" if cut else ""
            parts.append(f"{markdown_line(wording.arm_label(report, arm))}{judged}:")
            parts.append(markdown_block(sample.replies[arm] or wording.nothing(sample, arm), limit=_SAMPLE_CHARACTERS))
    return parts


def _limits(report: Report, stress: StressCard | None) -> str:
    measured = set(wording.splits(report))
    missing = [title.lower() for split, title in wording.SPLITS.items() if split not in measured]
    lines = []
    if report.judge:
        judge = markdown_line(report.judges[0].name if report.judges else report.judge, 100)
        lines.append(f"Verdicts are those of the judge {judge}, with whatever that judge misses.")
    if missing:
        lines.append(f"Not measured: {markdown_line('; '.join(missing))}.")
    if RETRAINED not in report.arms():
        lines.append("There was no retrained model to compare with, so the distance to one is not known.")
    lines += [
        "Replies were read as this run decoded them; sampling many replies, or prompts made to break the "
        "model, may bring more out.",
        *([] if stress else [_UNTRIED]),
        "Intervals cover the seeds of the runs."
        if any(metric.seeds for metric in report.measurements)
        else "Intervals cover the chance in the choice of prompts, not another seed of the training.",
    ]
    return "\n".join(f"- {line}" for line in lines)
