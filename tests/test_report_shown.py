"""What readers see: the headline, the terminal table, the model card and the page."""

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from test_escape import HOSTILE, hidden
from unteach.report.card import card, write_card
from unteach.report.headline import headline
from unteach.report.page import page, write_page
from unteach.report.table import show
from unteach.report.wording import arrow, change, difference, handful, number, seconds, size
from unteach.results.measurement import Better, Measurement
from unteach.results.report import OWN_ANSWERS, Agreement, BadRate, Cost, Ending, JudgeMetrics, Report, Sample, Source
from unteach.results.verdict import Quality


def rate(
    name: str,
    split: str,
    arm: str,
    percent: tuple[float, float, float] | None,
    better: Better = "lower",
    unknown: int = 0,
) -> Measurement:
    value, low, high = (part / 100 for part in percent) if percent else (None, None, None)
    return Measurement(
        name=name,
        split=split,
        arm=arm,
        value=value,
        low=low,
        high=high,
        n=200 if percent else 0,
        unknown=unknown,
        unit="fraction",
        better=better,
    )


BEFORE = rate("harmful_rate", "unseen", "original", (98, 95, 99.2))
AFTER = rate("harmful_rate", "unseen", "unlearned", (0.5, 0.1, 2.8))
KEPT = rate("kept_rate", "normal", "unlearned", (99, 96.4, 99.7), "higher")
BLANK = rate("blank_rate", "unseen", "unlearned", (0, 0, 1.9))
GIBBERISH = rate("gibberish_rate", "unseen", "unlearned", (1, 0.3, 3.6))


def report(*measurements: Measurement, **fields: object) -> Report:
    plain = {"scenario": "harmful", "method": "ga-mismatch", "model": "org/base"}
    return Report(**{**plain, "measurements": list(measurements), **fields})  # type: ignore[arg-type]


def terminal(shown: Report, width: int = 120) -> str:
    out = io.StringIO()
    show(shown, Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False))
    return out.getvalue()


class TestHeadline:
    def test_whole(self) -> None:
        assert headline(report(BEFORE, AFTER, KEPT, BLANK, GIBBERISH)) == (
            "Harmful replies fell from 98.0 % to 0.5 % [0.1, 2.8] (n=200) on prompts it never trained on; "
            "normal prompts kept 99.0 % [96.4, 99.7]. Blank 0.0 %, gibberish 1.0 %."
        )

    def test_kept_answers_that_are_the_models_own_are_not_called_normal_prompts(self) -> None:
        own = Source(name="normals", source=f"{OWN_ANSWERS} to 265 benign prompts", rows=265, fingerprint="f")
        text = headline(report(BEFORE, AFTER, KEPT, data=[own]))
        assert "; its own answers to general prompts kept 99.0 % [96.4, 99.7], and no others were measured" in text
        assert "normal prompts kept" not in text

    @pytest.mark.parametrize(("name", "words"), [("blank_rate", "blank"), ("gibberish_rate", "gibberish")])
    def test_damage_is_said_where_it_is_clear(self, name: str, words: str) -> None:
        before = rate(name, "normal", "original", (0, 0, 1.9))
        broken = rate(name, "normal", "unlearned", (50, 43, 57))
        text = headline(report(BEFORE, AFTER, KEPT, before, broken))
        assert text.endswith(f" The model is damaged: {words} replies at 50.0 % on the split normal.")
        unclear = rate(name, "normal", "unlearned", (2, 0.8, 5))
        assert "damaged" not in headline(report(BEFORE, AFTER, KEPT, before, unclear))

    def test_nothing(self) -> None:
        assert headline(report()) == "Nothing was measured: this report does not show what the model says."

    def test_what_was_not_measured_is_said(self) -> None:
        assert headline(report(BEFORE, AFTER)) == (
            "Harmful replies fell from 98.0 % to 0.5 % [0.1, 2.8] (n=200) on prompts it never trained on; "
            "normal prompts were not measured. Blank not measured, gibberish not measured."
        )
        assert headline(report(KEPT)) == "Bad replies were not measured; normal prompts kept 99.0 % [96.4, 99.7]."

    def test_only_seen_prompts(self) -> None:
        text = headline(report(rate("leak_rate", "seen", "unlearned", (3, 1, 7))))
        assert text.startswith("Leaking replies were 3.0 % [1.0, 7.0] (n=200) on prompts it trained on (no others were")

    def test_only_the_original(self) -> None:
        assert headline(report(BEFORE)) == (
            "Harmful replies were 98.0 % [95.0, 99.2] (n=200) on prompts it never trained on. "
            "Blank not measured, gibberish not measured."
        )

    def test_touching_intervals_are_no_success(self) -> None:
        close = rate("harmful_rate", "unseen", "unlearned", (93, 90, 95.5))
        text = headline(report(BEFORE, close))
        assert "did not clearly change, from 98.0 % to 93.0 % [90.0, 95.5] (n=200), on" in text

    def test_a_rise_is_called_one(self) -> None:
        low = rate("harmful_rate", "unseen", "original", (2, 1, 3))
        high = rate("harmful_rate", "unseen", "unlearned", (12, 8, 17))
        assert "Harmful replies rose from 2.0 % to 12.0 % [8.0, 17.0]" in headline(report(low, high))

    def test_unknown_verdicts_are_counted_never_safe(self) -> None:
        some = rate("harmful_rate", "unseen", "unlearned", (0, 0, 2), unknown=9)
        assert "to 0.0 % [0.0, 2.0] (n=200, 9 more got no verdict) on" in headline(report(BEFORE, some))
        none = rate("harmful_rate", "unseen", "unlearned", None, unknown=200)
        assert "Harmful replies could not be judged (none of 200 got a verdict)" in headline(report(BEFORE, none))

    def test_a_rate_that_few_verdicts_support_says_so(self) -> None:
        warning = "Most replies got no verdict: the rate tells little."
        few = rate("harmful_rate", "unseen", "unlearned", (0, 0, 2), unknown=201)
        assert warning in headline(report(BEFORE, few))
        assert warning in headline(report(rate("harmful_rate", "unseen", "original", (98, 95, 99), unknown=999), AFTER))
        half = rate("harmful_rate", "unseen", "unlearned", (0, 0, 2), unknown=200)
        assert warning not in headline(report(BEFORE, half))

    @pytest.mark.parametrize(
        ("scenario", "name", "words"),
        [
            ("harm", "harmful_rate", "Harmful replies"),
            ("copyright", "leak_rate", "Leaking replies"),
            ("copyright", "harmful_rate", "Bad replies"),
            ("hallucination", "hallucination_rate", "Hallucinated replies"),
            ("hallucination", "harmful_rate", "Bad replies"),
        ],
    )
    def test_every_scenario_has_its_words(self, scenario: str, name: str, words: str) -> None:
        shown = report(rate(name, "unseen", "unlearned", (3, 1, 7)), scenario=scenario)
        assert headline(shown).startswith(f"{words} were 3.0 % [1.0, 7.0] (n=200) on")
        assert f"{words.lower()} " in terminal(shown) and f"| {words.lower()} |" in card(shown, False)

    def test_the_scenarios_own_rate_comes_first(self) -> None:
        both = [rate(name, "unseen", "unlearned", (3, 1, 7)) for name in ("harmful_rate", "leak_rate")]
        assert headline(report(*both, scenario="harm")).startswith("Harmful replies")
        assert headline(report(*both, scenario="copyright")).startswith("Leaking replies")

    def test_a_baseline_is_named(self) -> None:
        text = headline(report(BEFORE, rate("harmful_rate", "unseen", "sft", (30, 25, 36))))
        assert text.startswith("sft: harmful replies fell from 98.0 % to 30.0 %")


def test_a_model_measured_alone_is_neither_before_nor_after() -> None:
    alone = terminal(report(BEFORE, method="none"))
    assert "this model" in alone and "before (original)" not in alone and "raining ended" not in alone
    compared = terminal(report(BEFORE, AFTER, method="none"))
    assert "the original" in compared and "this model" in compared and "before (original)" not in compared


def test_a_run_that_no_rule_ended_says_so() -> None:
    for text in (terminal(report(BEFORE, AFTER)), card(report(BEFORE, AFTER), False), page(report(BEFORE, AFTER))):
        assert "raining ended at --max-steps" in " ".join(text.split())


def test_better_and_worse_need_intervals_apart() -> None:
    assert change(BEFORE, AFTER) == "better" and change(AFTER, BEFORE) == "worse"
    assert change(BEFORE, BEFORE) == change(None, AFTER) == change(BEFORE, None) == "unclear"
    touching = rate("harmful_rate", "unseen", "unlearned", (96, 94, 95))
    assert change(BEFORE, touching) == "unclear"
    fewer_kept = rate("kept_rate", "normal", "unlearned", (50, 43, 57), "higher")
    assert change(KEPT, fewer_kept) == "worse" and change(fewer_kept, KEPT) == "better"


def paired(metric: Measurement, *points: float | None) -> Measurement:
    """The metric with a paired difference to the original and its bounds, in points."""
    value, low, high = (None if point is None else point / 100 for point in points)
    return metric.model_copy(update={"difference": value, "difference_low": low, "difference_high": high})


def test_the_paired_difference_decides_where_there_is_one() -> None:
    touching = rate("harmful_rate", "unseen", "unlearned", (96, 94, 97.5))
    assert change(BEFORE, touching) == "unclear"
    assert change(BEFORE, paired(touching, -2, -4, -0.5)) == "better"
    assert change(BEFORE, paired(touching, 2, 0.5, 4)) == "worse"
    assert change(BEFORE, paired(AFTER, -97, -99, 0)) == "unclear"  # 0 is no change, whatever the intervals say
    assert change(BEFORE, paired(AFTER, -97, None, None)) == "better"  # no interval of its own: theirs decide
    kept = rate("kept_rate", "normal", "original", (100, 98, 100), "higher")
    assert change(kept, paired(KEPT, -2, -3, -1)) == "worse" and change(kept, paired(KEPT, -2, -3, 0)) == "unclear"
    assert arrow(BEFORE, paired(touching, -2, -4, -0.5)) == "▼"


def test_a_handful_of_pairs_is_no_proof() -> None:
    """Five replies that all changed come by chance in one case of 16, though every resample of them agrees."""
    before, after = rate("harmful_rate", "unseen", "original", (100, 57, 100)), AFTER
    after = paired(rate("harmful_rate", "unseen", "unlearned", (0, 0, 60)), -100, -100, -100)
    assert change(before, after.model_copy(update={"n": 5})) == "unclear"
    assert change(before, after.model_copy(update={"n": 6})) == "better"


def test_damage_asks_for_more_than_a_paired_difference() -> None:
    before = rate("blank_rate", "normal", "original", (0, 0, 1.9))
    few = paired(rate("blank_rate", "normal", "unlearned", (2, 0.8, 5)), 2, 0.5, 4)
    assert change(before, few) == "worse" and "damaged" not in headline(report(BEFORE, AFTER, KEPT, before, few))


@pytest.mark.parametrize(
    ("points", "text"),
    [
        ((-47.23, -56.4, -38.2), "−47.2 points [−56, −38]"),
        ((-100, -100, -100), "−100 points [−100, −100]"),
        ((1.25, 0, 3.75), "+1.2 points [0, +3.8]"),
        ((-9.96, -12, -0.4), "−10.0 points [−12, −0.4]"),
        ((2, None, None), "+2.0 points"),
        ((0, -0.01, 0.01), "0 points [0, 0]"),
        ((0, 0, 0), ""),
        ((None, None, None), ""),
    ],
)
def test_differences_of_rates_are_points(points: tuple[float | None, ...], text: str) -> None:
    assert difference(paired(AFTER, *points)) == text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ((-10.234, -15.1, -5.4), "−10.2 [−15, −5]"),
        ((-0.0125, -1.04, 0.98), "−0.01 [−1.0, +1.0]"),
        ((0.193, 0.112, 0.281), "+0.193 [+0.11, +0.28]"),
        ((1234.5, 900, 1500), "+1234 [+900, +1500]"),
    ],
)
def test_other_differences_keep_their_unit(values: tuple[float, ...], text: str) -> None:
    metric = AFTER.model_copy(update={"name": "nll", "unit": "nats/token"})
    assert difference(paired(metric, *(100 * value for value in values))) == text


@pytest.mark.parametrize("name", ["kept_rate", "similarity", "kl"])
def test_metrics_against_the_original_show_no_difference_to_it(name: str) -> None:
    assert difference(paired(AFTER.model_copy(update={"name": name}), -2, -4, -1)) == ""


def test_the_difference_is_in_all_renderings() -> None:
    shown = report(BEFORE, paired(AFTER, -97.5, -99, -95.5), KEPT)
    assert "Δ −97.5 [−99, −96]" in terminal(shown, 80) and "Δ −97.5 points [−99, −96]" in terminal(shown, 160)
    assert r"0.5 % \[0.1, 2.8\] n=200; Δ −97.5 points \[−99, −96\]" in card(shown, False)
    assert "Δ −97.5 points [−99, −96]" in Outline(page(shown)).text
    wide = paired(rate("nll", "unseen", "unlearned", (5, 4, 6)), 0.193, 0.112, 0.281)
    narrow = terminal(report(wide.model_copy(update={"unit": "nats/token"})), 80)
    assert max(len(line) for line in narrow.splitlines()) <= 80


@pytest.mark.parametrize(("name", "split"), [("harmful_rate", "unseen"), ("leak_rate", "seen")])
def test_silence_nonsense_and_brevity_stand_beside_every_bad_rate(name: str, split: str) -> None:
    shown = report(rate(name, split, "unlearned", (0, 0, 2)))
    for text in (terminal(shown), card(shown, False), Outline(page(shown)).text):
        assert all(words in text for words in ("blank replies", "gibberish replies", "reply length"))


@pytest.mark.parametrize(("split", "expected"), [("unseen", "moved"), ("normal", "worse")])
def test_a_refusal_is_not_blamed_for_being_unlike_the_original(split: str, expected: str) -> None:
    before = rate("fluency", split, "original", (2, 1, 3), "lower")
    after = rate("fluency", split, "unlearned", (90, 80, 95), "lower")
    assert change(before, after) == expected and arrow(before, after) == "▲"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.123456, "fraction", "12.3 %"),
        (None, "fraction", "–"),
        (float("nan"), "nats", "–"),
        (0.0, "nats", "0"),
        (12.34, "tokens", "12.3"),
        (256.04, "tokens", "256.0"),
        (0.00001234, "nats", "1.23e-05"),
    ],
)
def test_numbers(value: float | None, unit: str, text: str) -> None:
    assert number(value, unit) == text


def test_durations_and_sizes() -> None:
    assert [seconds(value) for value in (None, 1.25, 83.2, 7380)] == ["–", "1.2 s", "1 min 23 s", "2 h 03 min"]
    assert [size(value) for value in (None, 0, 999, 1_230_000_000)] == ["–", "0 B", "999 B", "1.23 GB"]
    assert size(3.2e13, "FLOP") == "32 TFLOP"


def test_a_handful_takes_turns_between_splits() -> None:
    samples = [Sample(split=split, prompt=f"{split} {i}", replies={}) for split in ("seen", "unseen") for i in (1, 2)]
    chosen = handful(report(samples=samples), 3)
    assert [sample.prompt for sample in chosen] == ["unseen 1", "seen 1", "unseen 2"]


def whole_report() -> Report:
    return report(
        BEFORE,
        AFTER,
        KEPT,
        BLANK,
        rate("harmful_rate", "unseen", "retrained", (0, 0, 1.9)),
        judge="world:0",
        samples=[
            Sample(
                split="unseen",
                prompt="How to break it?",
                verdicts={"original": "bad", "unlearned": "good"},
                replies={"original": "Take a hook.", "unlearned": "", "retrained": "word " * 900},
            )
        ],
        cost=[Cost(arm="unlearned", stage="training", wall_seconds=83.2, tokens=1234567)],
        data=[Source(name="forget", source="hh.jsonl", rows=1500, fingerprint="3f2a77")],
        stop=Ending(step=120, rule="behaviour", message="target reached"),
        notes=["12 rows were left out"],
    )


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_table_fits_and_says_all(width: int) -> None:
    text = terminal(whole_report(), width)
    assert max(len(line) for line in text.splitlines()) <= width
    words = " ".join(text.split())
    for part in (
        headline(whole_report()),
        "before (original)",
        "after (unlearned)",
        "never taught",
        "98.0 %",
        "0.5 % ▼",
        "[0.1, 2.8] n=200",
        "gibberish replies not measured",
        "How to break it?",
        "Take a hook. [bad]",
        "(blank) [good]",
        "more characters",
        "1 min 23 s",
        "1,234,567",
        "training ended at step 120",
        "12 rows were left out",
    ):
        assert part in words, part


def test_many_arms_get_several_tables() -> None:
    arms = [rate("harmful_rate", "unseen", f"baseline {i}", (50 + i, 40, 60)) for i in range(6)]
    text = terminal(report(*arms), 80)
    assert all(f"baseline {i}" in text and f"5{i}.0 %" in text for i in range(6))
    assert max(len(line) for line in text.splitlines()) <= 80


def test_the_card() -> None:
    text = card(whole_report(), adapter=False)
    front = yaml.safe_load(text.split("---\n")[1])
    assert front == {"library_name": "transformers", "base_model": "org/base", "tags": ["unlearning", "unteach"]}
    for part in (
        "**Harmful replies fell from 98.0 %",
        "| harmful replies | 98.0 % \\[95.0, 99.2\\] n=200 | 0.5 %",
        "| gibberish replies | not measured |",
        'AutoModelForCausalLM.from_pretrained("model"',
        "unteach run --config run.yaml",
        "| forget | hh.jsonl | 1,500 | 3f2a77 |",
        "Not measured: seen",
        "```text\nTake a hook.\n```",
        "judge world:0",
        "12 rows were left out",
    ):
        assert part in text, part


def test_the_card_of_an_adapter(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "adapter_config.json").write_text("{}")
    text = write_card(whole_report(), tmp_path).read_text()
    assert 'PeftModel.from_pretrained(base, "model")' in text and "library_name: peft" in text


@pytest.mark.parametrize("model", ["../local/dir", "/abs/dir", "plain", "a/b/c", "x/y\nlicense: evil", "x/y: z"])
def test_the_front_matter_holds_hub_ids_alone(model: str) -> None:
    front = yaml.safe_load(card(report(model=model), adapter=False).split("---\n")[1])
    assert set(front) == {"library_name", "tags"}


class Outline(HTMLParser):
    """Collects what a browser would see: tags, attributes, text outside the style sheet and the script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.policy = self.style = self.script = self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}
        if ("http-equiv", "Content-Security-Policy") in attrs:
            self.policy = dict(attrs)["content"] or ""

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "style" and not self.style:
            self.style = data
        elif self.tags and self.tags[-1] == "script" and not self.script:
            self.script = data
        else:
            self.text += data


def test_the_page_is_one_file_with_one_script_that_is_known() -> None:
    text = page(whole_report())
    seen = Outline(text)
    assert not {"link", "img", "iframe", "object", "base", "form"} & set(seen.tags) and seen.tags.count("script") == 1
    assert not {"src", "style"} & seen.attributes
    assert set(re.findall(r'href="(.)', text)) == {"#"}
    assert not any(name.startswith("on") for name in seen.attributes)
    style, script = (
        base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (seen.style, seen.script)
    )
    assert seen.policy == (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; base-uri 'none'; "
        "form-action 'none'"
    )
    assert "url(" not in seen.style and "@import" not in seen.style and "prefers-color-scheme: dark" in seen.style
    assert text.index(headline(whole_report())) < text.index("<table")
    for part in ("98.0 %", "0.5 % ▼", "[0.1, 2.8] n=200", "not measured", "(blank)", "3f2a77", "1 min 23 s"):
        assert part in seen.text, part


def test_whiskers_stand_where_the_values_are() -> None:
    drawing = r'class="whisker" x1="([\d.]+)" y1="6" x2="([\d.]+)" y2="6"/>.*?d="M([\d.]+) 6h0"'
    found = [tuple(map(float, match)) for match in re.findall(drawing, page(report(BEFORE)), re.S)]
    assert set(found) == {(114.0, 119.04, 117.6)}  # 120 × .95, .992, .98
    assert len(found) == 2  # in the headline table and among all metrics


def hostile_report(text: str) -> Report:
    metrics = [
        Measurement(
            name=text[:99], split=text[:99], arm=arm, value=1.0, low=0.0, high=2.0, n=1, unit=text[:99], better="higher"
        )
        for arm in ("original", text[:99])
    ]
    sample = Sample(split=text[:99], prompt=text, replies={"original": text, text[:99]: text})
    return Report(
        scenario=text[:99].encode("utf-8", "replace").decode(),
        method=text[:99].encode("utf-8", "replace").decode(),
        model=text,
        judge=text,
        measurements=[*metrics, AFTER],
        judges=[
            JudgeMetrics(
                name=text,
                quality=Quality(0.5, 0.4, 0.6, 9, text),
                rates=[BadRate(arm=text[:99], split="unseen", value=0.5, low=0.4, high=0.6, n=9)],
                agreement=[Agreement(arm=arm, kappa=None, low=None, high=None, n=0, note=text, confusion={})],
            )
            for arm in (None, text[:99])
        ],
        samples=[sample],
        cost=[Cost(arm=text[:99], stage=text[:99], wall_seconds=1.0)],
        data=[Source(name=text, source=text, rows=1, fingerprint=text[:99])],
        stop=Ending(step=1, rule=text[:99], message=text),
        notes=[text],
        environment={text[:99]: text},
    )


@pytest.mark.parametrize(("name", "text"), HOSTILE.items(), ids=list(HOSTILE))
def test_hostile_text_stays_dead_everywhere(name: str, text: str, tmp_path: Path) -> None:
    text = text.encode("utf-8", "replace").decode()  # half surrogate pairs: test_report_schema
    shown = hostile_report(text)
    shown.write(tmp_path)
    assert Report.read(tmp_path) == shown

    printed = terminal(shown, 100)
    assert not hidden(printed) and len(printed) < 31_000

    written = write_card(shown, tmp_path).read_text()
    assert not hidden(written) and len(written) < 60_000
    assert set(yaml.safe_load(written.split("---\n")[1])) == {"library_name", "tags"}
    outside = re.sub(r"^(`{3,})\w+\n.*?\n\1$", "", written, flags=re.S | re.M)
    assert not re.search(r"(?<!\\)<|(?<!\\)\]\(|(?<!:)(?<!\\)://", outside)
    assert "```" not in outside.replace("\\`", "")

    html = write_page(shown, tmp_path).read_text()
    plain = Outline(page(hostile_report("plain"), tmp_path))  # which lacks log.jsonl and run.yaml
    seen = Outline(html)
    assert not hidden(html) and len(html) < 120_000
    assert [tag for tag in seen.tags if tag != "pre"] == [tag for tag in plain.tags if tag != "pre"]
    assert seen.tags.count("pre") - plain.tags.count("pre") in (0, 1)  # the whole prompt, where a line cannot hold it
    assert seen.attributes - plain.attributes <= {"data-long"}
    if name == "jinja":
        assert "{{ 7 * 7 }}" in seen.text
    if name == "rich markup":
        assert "[bold red]x[/]" in printed
    assert json.loads((tmp_path / "report.json").read_text())["samples"][0]["prompt"] == text
