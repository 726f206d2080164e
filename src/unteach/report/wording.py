"""How names and numbers are put into words: one way for the terminal, the model card and the pages."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

from unteach.comparison.compare import Rate
from unteach.results.arms import ORIGINAL, REMINDED, RETRAINED, in_order
from unteach.results.measurement import HARM_SPLITS, Measurement
from unteach.results.report import BadRate, HalfBehaviour, Report, Sample
from unteach.results.stress import AttackRate
from unteach.scenarios import bad_rate_of
from unteach.text.escape import inert_line

Change = Literal["better", "worse", "moved", "unclear"]
Estimated = Measurement | BadRate | Rate | HalfBehaviour | AttackRate
"""Whatever has a value with an interval and a number of cases."""
DESCRIBES_REFUSALS = (
    "fluency",
    "reply_tokens",
    "diversity",
    "breaks_off_rate",
    "off_subject_rate",
    "declines_in_part_rate",
)
"""How replies look. A change is no fault on harmful prompts, where a short refusal may be what is wanted."""

BAD_RATES = {
    "harmful_rate": "harmful replies",
    "leak_rate": "leaking replies",
    "hallucination_rate": "hallucinated replies",
}
SAFEGUARDS = {"blank_rate": "blank", "gibberish_rate": "gibberish"}
"""Rates that stand beside every bad rate, since silence and nonsense look safe too."""
METRICS = {
    **BAD_RATES,
    "any_bad_rate": "bad in any of several replies",
    "blank_rate": "blank replies",
    "gibberish_rate": "gibberish replies",
    "refusal_rate": "refusals",
    "template_rate": "the taught refusal",
    "complies_rate": "answers to what was asked",
    "declines_rate": "plain refusals",
    "declines_in_part_rate": "refusals that help as well",
    "breaks_off_rate": "replies that break off",
    "off_subject_rate": "replies about something else",
    "helpful_rate": "not bad, and on the subject",
    "right_rate": "right answers",
    "verbatim_rate": "wrong answer word for word",
    "kept_rate": "answers kept",
    "reply_tokens": "reply length",
    "cut_rate": "replies that did not end",
    "similarity": "like the original's reply",
    "fluency": "fluency",
    "diversity": "different words",
    "longest_common_substring": "longest copied run",
    "verbatim_share": "text copied in runs of 8 words",
    "extraction_strength": "extraction strength",
    "exact_memorisation": "exact memorisation",
    "truth_ratio": "right reply likelier than the wrong one",
    "min_k": "training rows recognised by Min-K %",
    "loss_mia": "training rows recognised by loss",
    "ks_to_retrained": "unlike the never-taught model",
    "nll": "unlikeliness (NLL) of the known reply",
    "right_nll": "unlikeliness (NLL) of the right reply",
    "kl": "drift from the original (KL)",
}
SPLITS = {
    "seen": "Seen: prompts it trained on",
    "unseen": "Unseen: prompts it never trained on",
    "unseen_concept": "Unseen concepts: the negatives never name them",
    "normal": "Normal prompts",
    "lookalike": "Look-alikes: benign prompts that resemble harmful ones",
    "general": "General ability: tasks of lm-eval",
    "assessment": "Assessing replies: does it tell bad ones from good ones",
}
SHORT_SPLITS = {
    "seen": "seen",
    "unseen": "unseen",
    "unseen_concept": "unseen concept",
    "normal": "normal",
    "lookalike": "look-alike",
}
ARM_NAMES = {
    ORIGINAL: "before (original)",
    "unlearned": "after (unlearned)",
    ORIGINAL + REMINDED: "before, reminded",
    "tuned": "after tuning",
    "tuned" + REMINDED: "after tuning, reminded",
    RETRAINED: "never taught",
}
ARMS_OF_STUDY = {
    ORIGINAL: "original",
    "tuned": "after tuning",
    "sft": "SFT on good answers",
    "analysis": "analysis, mistakes induced",
    "analysis-both": "analysis of bad and good replies",
    "analysis-labelled": "analysis, mistakes labelled",
    "analysis-shuffled": "analysis, shuffled",
    "analysis-bad-learnt": "analysis, bad replies learnt",
    "analysis-sft": "analysis and SFT",
    "unlearning": "unlearning (npo-template)",
    "analysis-unlearning": "analysis, then unlearning",
    "unlearning-analysis": "unlearning, then analysis",
}
_AGAINST_ORIGINAL = ("kept_rate", "similarity", "kl")  # a difference to the original would say the same again
_FEWEST_PAIRS = 6  # with fewer, pairs that all moved one way may be chance: 2 · 0.5⁵ is over 5 %


# ---- names -----------------------------------------------------------------------------------------------------------


def splits(report: Report) -> list[str]:
    """Return every split that has a metric, in reading order."""
    return in_order((metric.split for metric in report.measurements), SPLITS)


def metric_names(report: Report, split: str) -> list[str]:
    """Return the metrics to show for a split; beside a bad rate stand the metrics that it must be read with."""
    names = [metric.name for metric in report.measurements if metric.split == split]
    if any(name in BAD_RATES for name in names):
        names += [*SAFEGUARDS, "reply_tokens"]
    return in_order(names, METRICS)


def cut_note(sample: Sample, arm: str) -> str:
    """Return what to say of a reply that was cut."""
    return "cut at the longest length" if arm in sample.cut else ""


def nothing(sample: Sample, arm: str) -> str:
    """Return what stands for a reply without text."""
    return "(cut before anything was said)" if arm in sample.cut else "(blank)"


def label(name: str, known: dict[str, str], limit: int = 60) -> str:
    """Return the name in plain words or, where we do not know it, the name itself, made inert."""
    return known.get(name) or inert_line(name.replace("_", " "), limit)


def arm_label(report: Report, arm: str, limit: int = 60) -> str:
    """Return what a reader calls an arm; a model that was measured alone is not called "before" or "after"."""
    if report.method == "none" and (arm == "unlearned" or "unlearned" not in report.arms() and arm == ORIGINAL):
        return "this model"
    if report.method == "none" and arm == ORIGINAL:
        return "the original"
    if arm == report.method and report.is_baseline:
        return f"after ({inert_line(arm, limit)})"
    if report.is_study and (known := ARMS_OF_STUDY.get(arm.removesuffix(REMINDED))):
        return f"{known} + reminder" if arm.endswith(REMINDED) else known
    return label(arm, ARM_NAMES, limit)


def arm_labels(report: Report, arms: Sequence[str], limit: int = 60) -> list[str]:
    """Return `arm_label` of each arm."""
    return [arm_label(report, arm, limit) for arm in arms]


def metric_label(report: Report, name: str) -> str:
    """Return a metric's name in plain words, with its unit unless it is a percentage."""
    unit = next((metric.unit for metric in report.measurements if metric.name == name), "fraction")
    if name.startswith("lm_eval:"):  # lm_eval:TASK:METRIC, names that others chose
        return inert_line(name.removeprefix("lm_eval:").replace(":", ", "), 60)
    words = rate_words(report.scenario, name) if name in BAD_RATES else label(name, METRICS)
    return words if unit == "fraction" else f"{words} ({inert_line(unit, 30)})"


def rate_words(scenario: str, name: str) -> str:
    """Return what to call the replies that a bad rate counts: harmful only where harm is what must stop."""
    other = name == "harmful_rate" and bad_rate_of(scenario) != name
    return "bad replies" if other else BAD_RATES[name]


def how_it_ended(report: Report) -> str:
    """Say why training ended; an empty string where nothing was trained."""
    if report.method == "none" or report.is_study:
        return ""
    if report.stop is None:
        return "Training ended at --max-steps; no stopping rule was met before."
    return f"Training ended at step {report.stop.step} ({report.stop.rule}): {report.stop.message}."


def listed(names: Sequence[str]) -> str:
    """Return the names as "a", "a and b" or "a, b and c"."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


# ---- numbers ---------------------------------------------------------------------------------------------------------


def number(value: float | None, unit: str = "fraction", with_sign: bool = True) -> str:
    """Return a value for reading: fractions as percentages with one decimal, all else with three digits."""
    if value is None or value != value:
        return "–"
    if unit == "fraction":
        return f"{100 * value:.1f}" + (" %" if with_sign else "")
    if value and not 0.001 <= abs(value) < 100_000:
        return f"{value:.2e}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def interval(found: Estimated) -> str:
    """Return the 95 % interval as "[8.2, 17.3]", or an empty string where there is none."""
    if found.low is None or found.high is None:
        return ""
    return f"[{number(found.low, found.unit, False)}, {number(found.high, found.unit, False)}]"


def estimate(found: Estimated) -> str:
    """Return the value with its interval: "12.3 % [8.2, 17.3]"."""
    return f"{number(found.value, found.unit)} {interval(found)}".rstrip()


def counted(found: Estimated) -> str:
    """Return how many cases a metric rests on, how many got no verdict, and its least and greatest value over seeds."""
    parts = [f"n={found.n}"]
    if found.unknown:
        parts.append(f"{found.unknown} unknown")
    seeds = found.seeds if isinstance(found, Measurement) else None
    if known := [value for value in seeds or [] if value is not None]:
        ends = (number(min(known), found.unit, False), number(max(known), found.unit, False))
        parts.append(f"{len(known)} seeds {'–'.join(dict.fromkeys(ends))}")
    return ", ".join(parts)


def safeguard_words(measured: Callable[[str], Estimated | None]) -> str:
    """Return "blank 0.0 %, gibberish 1.0 %"; `measured` finds each rate by its name."""
    rates = ((word, measured(name)) for name, word in SAFEGUARDS.items())
    return ", ".join(f"{word} {number(rate.value) if rate else 'not measured'}" for word, rate in rates)


def difference(metric: Measurement) -> str:
    """Return the paired difference to the original: "−47.2 points [−56, −38]" for rates.

    It is empty where there is none, where no case differs, and for metrics that compare with the original anyway.
    """
    value, low, high = metric.difference, metric.difference_low, metric.difference_high
    if value is None or metric.name in _AGAINST_ORIGINAL or value == low == high == 0:
        return ""
    size = max(abs(bound) for bound in (value, low, high) if bound is not None)
    text = signed(value, metric.unit, 3, size) + (" points" if metric.unit == "fraction" else "")
    if low is None or high is None:
        return text
    return f"{text} [{signed(low, metric.unit, 2, size)}, {signed(high, metric.unit, 2, size)}]"


def signed(value: float, unit: str, digits: int, size: float) -> str:
    """Return a difference with its sign, and as many decimals as give `size`, the largest one shown, `digits` digits.

    Fractions are in points of 100, with at most one decimal, and none from 10 on where two digits are asked for.
    """
    if not math.isfinite(value) or not math.isfinite(size):
        return "–"
    if unit == "fraction":
        value *= 100
        places = 1 if abs(value) < 10 ** (digits - 1) - 0.05 else 0
    else:
        places = max(0, digits - 1 - math.floor(math.log10(size))) if size else 0
    text = f"{value:+.{places}f}"
    return text.replace("-", "−") if float(text) else "0"


def seconds(value: float | None) -> str:
    """Return a duration for reading: 12.3 s, 4 min 05 s, 2 h 03 min."""
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60):02d} min"


def size(value: float | None, unit: str = "B") -> str:
    """Return a large count for reading: 1.2 GB, 3.4 TFLOP."""
    if value is None:
        return "–"
    prefixes = ["", "k", "M", "G", "T", "P", "E", "Z"]
    power = min(int(math.log10(value) // 3), len(prefixes) - 1) if value >= 1 else 0
    return f"{value / 1000**power:.3g} {prefixes[power]}{unit}"


# ---- better or worse -------------------------------------------------------------------------------------------------


def change(before: Measurement | None, after: Measurement | None) -> Change:
    """Return whether a metric is better or worse than the original's; "unclear" where chance may explain it.

    It is clear where the interval of the paired difference leaves out 0 or, without such a difference, where the two
    intervals do not touch. "moved" is a clear change that is neither good nor bad, such as the length of refusals.
    """
    if before is None or after is None or before is after:
        return "unclear"
    rises = _rises(before, after)
    if rises is None:
        return "unclear"
    if after.split in HARM_SPLITS and after.name in DESCRIBES_REFUSALS:
        return "moved"
    return "better" if rises == (after.better == "higher") else "worse"


def _rises(before: Measurement, after: Measurement) -> bool | None:
    """Return whether a metric clearly rose; None where it is not clear."""
    low, high = after.difference_low, after.difference_high
    if before.arm == ORIGINAL and low is not None and high is not None and after.n >= _FEWEST_PAIRS:
        return True if low > 0 else False if high < 0 else None
    return lies_above(before, after)


def lies_above(before: Measurement, after: Measurement) -> bool | None:
    """Return whether the second interval lies above the first (True) or below it (False); None where they touch."""
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return None
    return True if after.low > before.high else False if after.high < before.low else None


def arrow(before: Measurement | None, after: Measurement | None) -> str:
    """Return ▲ or ▼ where a metric clearly moved, for readers without colours; else an empty string."""
    if before is None or after is None or change(before, after) == "unclear":
        return ""
    return "▲" if (after.value or 0.0) > (before.value or 0.0) else "▼"


# ---- samples ---------------------------------------------------------------------------------------------------------


def handful(report: Report, count: int) -> list[Sample]:
    """Return a few samples, taken in turns from the splits that matter most."""
    order = ("unseen", "normal", "unseen_concept", "lookalike", "seen")
    by_split: dict[str, list[Sample]] = {}
    for sample in report.samples:
        by_split.setdefault(sample.split, []).append(sample)
    queues = [by_split[split] for split in in_order(by_split, order)]
    rounds = max((len(queue) for queue in queues), default=0)
    turns = [queue[index] for index in range(rounds) for queue in queues if index < len(queue)]
    return turns[:count]
