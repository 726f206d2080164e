"""How metrics are put into words and numbers: one way for the terminal, the model card and the page."""

import math
from typing import Literal

from unteach.results.arms import ARMS, in_order, title_of
from unteach.results.measurement import HARM_SPLITS, Measurement
from unteach.results.report import OWN_ANSWERS, BadRate, Report, Sample
from unteach.results.verdict import Quality
from unteach.scenarios import bad_rate_of
from unteach.text.escape import inert_line

Change = Literal["better", "worse", "moved", "unclear"]
DESCRIBES_REFUSALS = ("fluency", "reply_tokens", "diversity")
"""How replies look: on forget prompts no fault, where a short refusal that the original would not give is wanted."""

BAD_RATES = {
    "harmful_rate": "harmful replies",
    "leak_rate": "leaking replies",
    "hallucination_rate": "hallucinated replies",
}
LEAST_KAPPA = 0.4
"""Agreement from which on a second judge's rate is worth a sentence in the headline."""
SAFEGUARDS = ("blank_rate", "gibberish_rate")
BESIDE = (*SAFEGUARDS, "reply_tokens")  # beside every rate above: silence, nonsense and brevity look safe too
METRICS = {
    **BAD_RATES,
    "any_bad_rate": "bad in any of several replies",
    "blank_rate": "blank replies",
    "gibberish_rate": "gibberish replies",
    "refusal_rate": "refusals",
    "template_rate": "the taught answer",
    "helpful_rate": "not bad, and on the subject",
    "right_rate": "right answers",
    "verbatim_rate": "wrong answer word for word",
    "kept_rate": "answers kept",
    "reply_tokens": "reply length",
    "similarity": "like the original's reply",
    "fluency": "fluency",
    "diversity": "unique tokens",
    "longest_common_substring": "longest copied run",
    "verbatim_share": "text copied in runs of 8 words",
    "extraction_strength": "extraction strength",
    "exact_memorisation": "exact memorisation",
    "truth_ratio": "right reply over wrong one",
    "min_k": "told from untrained, Min-K %",
    "loss_mia": "told from untrained, loss",
    "ks_to_retrained": "unlike the never-taught model",
    "nll": "NLL of the known reply",
    "right_nll": "NLL of the right reply",
    "kl": "KL to the original",
}
SPLITS = {
    "seen": "Seen: prompts it trained on",
    "unseen": "Unseen: prompts it never trained on",
    "unseen_concept": "Unseen concepts: the negatives never name them",
    "normal": "Normal prompts",
    "lookalike": "Lookalikes: benign prompts that resemble harmful ones",
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
_AGAINST_ORIGINAL = ("kept_rate", "similarity", "kl")  # a difference to the original would say the same again
_FEWEST_PAIRS = 6  # with fewer, pairs that all moved one way may be chance: 2 · 0.5⁵ is over 5 %
_ON_SPLIT = {
    "unseen": "on prompts it never trained on",
    "unseen_concept": "on concepts the negatives never name",
    "seen": "on prompts it trained on (no others were measured)",
}
TESTED = ("unlearned", "tuned+reminder", "analysis+reminder", "analysis-labelled+reminder")
"""The arms that a headline is about: the first of them that there is, else the first that is not the original."""


def splits(report: Report) -> list[str]:
    """Every split that has a metric, in reading order."""
    return in_order((metric.split for metric in report.measurements), SPLITS)


def metric_names(report: Report, split: str) -> list[str]:
    """The metrics to show for a split; a bad rate always brings those along that look safe as well."""
    names = [metric.name for metric in report.measurements if metric.split == split]
    if any(name in BAD_RATES for name in names):
        names += BESIDE
    return in_order(names, METRICS)


def label(name: str, known: dict[str, str], limit: int = 60) -> str:
    """The name in plain words, or itself, made inert, where we do not know it."""
    return known.get(name) or inert_line(name.replace("_", " "), limit)


def arm_label(report: Report, arm: str, limit: int = 60) -> str:
    """What a reader calls an arm; a model that was measured alone is before and after nothing."""
    if report.method == "none" and (arm == "unlearned" or "unlearned" not in report.arms() and arm == "original"):
        return "this model"
    if report.method == "none" and arm == "original":
        return "the original"
    if arm == report.method and is_baseline(report):
        return f"after ({inert_line(arm, limit)})"
    of_study = title_of(arm) if report.method == "mistakes-study" else None
    return of_study or label(arm, ARMS, limit)


def is_baseline(report: Report) -> bool:
    """Whether the run trained something to compare unlearning with."""
    return report.command.startswith("unteach baseline ")


def how_it_ended(report: Report) -> str:
    """Why training ended, or an empty string where nothing was trained."""
    if report.method in ("none", "mistakes-study"):
        return ""
    if report.stop is None:
        return "Training ended at --max-steps; no stopping rule was met before."
    return f"Training ended at step {report.stop.step} ({report.stop.rule}): {report.stop.message}."


def metric_label(report: Report, name: str) -> str:
    """A metric's name in plain words, with its unit unless it is a percentage."""
    unit = next((metric.unit for metric in report.measurements if metric.name == name), "fraction")
    if name.startswith("lm_eval:"):  # lm_eval:TASK:METRIC, names that others chose
        return inert_line(name.removeprefix("lm_eval:").replace(":", ", "), 60)
    words = bad_words(report) if name == "harmful_rate" else label(name, METRICS)
    return words if unit == "fraction" else f"{words} ({inert_line(unit, 30)})"


def bad_words(report: Report) -> str:
    """What the replies are called that the judge finds bad: harmful ones only where harm is what must stop."""
    other = bad_rate_of(report.scenario) != "harmful_rate"
    return "bad replies" if other else BAD_RATES["harmful_rate"]


def rate_words(report: Report, name: str) -> str:
    """What the replies are called that a bad rate counts."""
    return bad_words(report) if name == "harmful_rate" else BAD_RATES[name]


def number(value: float | None, unit: str, with_sign: bool = True) -> str:
    """A value for reading: fractions as percentages with one decimal, all else with three digits."""
    if value is None or value != value:
        return "–"
    if unit == "fraction":
        return f"{100 * value:.1f}" + (" %" if with_sign else "")
    if value and not 0.001 <= abs(value) < 100_000:
        return f"{value:.2e}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def interval(metric: Measurement) -> str:
    """The 95 % interval as "[8.2, 17.3]", or an empty string where there is none."""
    if metric.low is None or metric.high is None:
        return ""
    return f"[{number(metric.low, metric.unit, False)}, {number(metric.high, metric.unit, False)}]"


def counted(metric: Measurement | BadRate) -> str:
    """How many cases the metric rests on, how many got no verdict, and its least and greatest value over seeds."""
    parts = [f"n={metric.n}"]
    if metric.unknown:
        parts.append(f"{metric.unknown} unknown")
    known = [value for value in metric.seeds or [] if value is not None] if isinstance(metric, Measurement) else []
    if isinstance(metric, Measurement) and known:
        ends = (number(min(known), metric.unit, False), number(max(known), metric.unit, False))
        parts.append(f"{len(known)} seeds {'–'.join(dict.fromkeys(ends))}")
    return ", ".join(parts)


def difference(metric: Measurement) -> str:
    """The paired difference to the original, "−47.2 points [−56, −38]" for rates; empty where there is none.

    It is empty as well where no case differs, and for metrics that are taken against the original anyway.
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
    """A difference with its sign: so many digits as show the largest of the three, `size`, and no more decimals.

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


def change(before: Measurement | None, after: Measurement | None) -> Change:
    """Better or worse than the original, said only where it is clear.

    Clear is a paired difference whose interval leaves out 0; without one, intervals that do not touch. `moved` where
    neither good nor bad can be said: how long or how likely a refusal is.
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
    """Whether a metric clearly rose; None where it is not clear."""
    low, high = after.difference_low, after.difference_high
    if before.arm == "original" and low is not None and high is not None and after.n >= _FEWEST_PAIRS:
        return True if low > 0 else False if high < 0 else None
    return _apart(before, after)


def _apart(before: Measurement, after: Measurement) -> bool | None:
    """Whether the second interval lies above the first, or below it; None where they touch."""
    if before.low is None or before.high is None or after.low is None or after.high is None:
        return None
    return True if after.low > before.high else False if after.high < before.low else None


def arrow(before: Measurement | None, after: Measurement | None) -> str:
    """▲ or ▼ where a metric clearly moved, for readers without colours; else an empty string."""
    if before is None or after is None or change(before, after) == "unclear":
        return ""
    return "▲" if (after.value or 0.0) > (before.value or 0.0) else "▼"


def headline(report: Report) -> str:
    """The result in one or two plain sentences, with intervals; says what was not measured."""
    tested = tested_arm(report)
    found = leading_rate(report, tested)
    kept = report.measured("kept_rate", "normal", tested)
    if found is None and kept is None:
        return "Nothing was measured: this report does not show what the model says."
    if found is None:
        return f"Bad replies were not measured; {_kept_words(kept, _are_own_answers(report))}."
    name, split = found
    before, after = report.measured(name, split, "original"), report.measured(name, split, tested)
    assert after is not None
    words = rate_words(report, name)
    first = f"{_harm_words(words, before, after)} {_ON_SPLIT[split]}"
    if tested not in ("original", "unlearned"):
        name = ARMS[tested].capitalize() if tested in ARMS else inert_line(tested, 40)
        first = f"{name}: {first[0].lower()}{first[1:]}"
    second = "" if tested == "original" else f"; {_kept_words(kept, _are_own_answers(report))}"
    rest = (_safeguard_words(report, split, tested), _trust(report, before, after), damage(report, tested))
    return f"{first}{second}. {''.join(rest)}"


def tested_arm(report: Report) -> str:
    """The arm that a headline is about; the original where there is no other."""
    others = [arm for arm in report.arms() if arm not in ("original", "retrained")]
    return next((arm for arm in TESTED if arm in others), next(iter(others), "original"))


def leading_rate(report: Report, arm: str) -> tuple[str, str] | None:
    """Name and split of the bad rate that says most about an arm: the scenario's own, on unseen prompts first."""
    return next(
        (
            (name, split)
            for split in ("unseen", "unseen_concept", "seen")
            for name in in_order(BAD_RATES, [bad_rate_of(report.scenario)])
            if report.measured(name, split, arm)
        ),
        None,
    )


def handful(report: Report, count: int) -> list[Sample]:
    """A few samples, taken in turns from the splits that matter most."""
    order = ("unseen", "normal", "unseen_concept", "lookalike", "seen")
    by_split: dict[str, list[Sample]] = {}
    for sample in report.samples:
        by_split.setdefault(sample.split, []).append(sample)
    queues = [by_split[split] for split in in_order(by_split, order)]
    rounds = max((len(queue) for queue in queues), default=0)
    turns = [queue[index] for index in range(rounds) for queue in queues if index < len(queue)]
    return turns[:count]


def seconds(value: float | None) -> str:
    """A duration for reading: 12.3 s, 4 min 05 s, 2 h 03 min."""
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60):02d} s"
    return f"{int(value // 3600)} h {int(value % 3600 // 60):02d} min"


def size(value: float | None, unit: str = "B") -> str:
    """A large count for reading: 1.2 GB, 3.4 TFLOP."""
    if value is None:
        return "–"
    prefixes = ["", "k", "M", "G", "T", "P", "E", "Z"]
    power = min(int(math.log10(value) // 3), len(prefixes) - 1) if value >= 1 else 0
    return f"{value / 1000**power:.3g} {prefixes[power]}{unit}"


def _harm_words(words: str, before: Measurement | None, after: Measurement) -> str:
    words = words.capitalize()
    if after.value is None:
        return f"{words} could not be judged (none of {after.unknown} got a verdict)"
    unknown = f", {after.unknown} more got no verdict" if after.unknown else ""
    reached = f"{number(after.value, after.unit)} {interval(after)}".strip() + f" (n={after.n}{unknown})"
    if before is None or before.value is None or before is after:
        return f"{words} were {reached}"
    start = number(before.value, before.unit)
    verb = {"better": "fell", "worse": "rose"}.get(change(before, after))
    if verb is None:
        return f"{words} did not clearly change, from {start} to {reached},"
    return f"{words} {verb} from {start} to {reached}"


def _trust(report: Report, before: Measurement | None, after: Measurement) -> str:
    """Warn where most verdicts are missing, the judge whose verdicts the rate counts is poor, or another finds more."""
    text = ""
    if any(metric and metric.value is not None and metric.unknown > metric.n for metric in (before, after)):
        text += " Most replies got no verdict: the rate tells little."
    judge = report.judges[0] if report.judges else None
    counted_by_it = judge and (rate := judge.rate(after.arm, after.split)) and rate.value == after.value
    if judge and judge.quality and judge.quality.poor and counted_by_it:
        text += f" The judge is poor: {accuracy(judge.quality)}."
    for other in report.judges[1:]:
        rate = other.rate(after.arm, after.split)
        together = next((found.kappa for found in other.agreement if found.arm is None), None)
        if together is None or together < LEAST_KAPPA:  # it agrees hardly more than chance would: its rate is no news
            continue
        if rate and rate.low is not None and after.high is not None and rate.low > after.high:
            text += f" A second judge ({inert_line(other.name, 40)}) finds {number(rate.value, 'fraction')} bad."
    return text


def accuracy(quality: Quality) -> str:
    """How often a judge is right, with its interval: "balanced accuracy 84.0 % [80.1, 87.2] on 250 replies"."""
    bounds = (quality.low, quality.high)
    shown = f" [{', '.join(number(bound, 'fraction', False) for bound in bounds)}]" if None not in bounds else ""
    return f"balanced accuracy {number(quality.accuracy, 'fraction')}{shown} on {quality.n} replies"


def _are_own_answers(report: Report) -> bool:
    return any(source.name == "normals" and source.source.startswith(OWN_ANSWERS) for source in report.data)


def _kept_words(kept: Measurement | None, own_answers: bool) -> str:
    if kept is None:
        return "normal prompts were not measured"
    if kept.value is None:
        return "of the normal prompts the original answered none rightly, so there was nothing to keep"
    metric = f"{number(kept.value, kept.unit)} {interval(kept)}".rstrip()
    if own_answers:
        return f"its own answers to general prompts kept {metric}, and no others were measured (see --retain)"
    return f"normal prompts kept {metric}"


def damage(report: Report, arm: str) -> str:
    """Warn where blank or gibberish replies are clearly more frequent than the original's, on any split."""
    worse = [
        (metric.value or 0.0, name, split)
        for split in splits(report)
        for name in SAFEGUARDS
        if (metric := report.measured(name, split, arm))
        and (before := report.measured(name, split, "original"))
        and _apart(before, metric)
    ]
    if not worse:
        return ""
    value, name, split = max(worse)
    return f" The model is damaged: {METRICS[name]} at {number(value, 'fraction')} on the split {split}."


def _safeguard_words(report: Report, split: str, arm: str) -> str:
    shown = []
    for name, word in zip(SAFEGUARDS, ("blank", "gibberish"), strict=True):
        metric = report.measured(name, split, arm)
        shown.append(f"{word} {number(metric.value, metric.unit)}" if metric else f"{word} not measured")
    return f"{', '.join(shown)}.".capitalize()
