"""unteach compare: hand-made runs, and numbers worked out by hand."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from command import call
from test_escape import HOSTILE, hidden
from unteach.comparison.compare import Comparison, compare
from unteach.comparison.pairs import VerdictDifference, groups_of
from unteach.errors import ConfigError, DataError, OutputError
from unteach.report.comparison_table import grids, paragraph, show, write
from unteach.results.measurement import Measurement
from unteach.results.report import Cost, Report, Sample
from unteach.stats import wilson

Capture = pytest.CaptureFixture[str]
VERDICTS = {"b": "bad", "g": "good", "u": "unknown"}
BAD, GOOD = "b" * 10, "g" * 10


def rate(name: str, split: str, arm: str, verdicts: str, counted: str = "b", **fields: Any) -> Measurement:
    """The share of `counted` among the verdicts that are known."""
    known = verdicts.replace("u", "")
    value, low, high = wilson(known.count(counted), len(known))
    return Measurement(
        name=name,
        split=split,
        arm=arm,
        value=value,
        low=low,
        high=high,
        n=len(known),
        unknown=verdicts.count("u"),
        unit="fraction",
        better="lower" if counted == "b" else "higher",
        **fields,
    )


def report(arms: dict[str, str], cost: tuple[Cost, ...] = (), rate_name: str = "harmful_rate", **fields: Any) -> Report:
    """A run whose arms have these verdicts on ten unseen prompts, one letter each; the original is bad throughout."""
    arms = {"original": BAD, **arms}
    samples = [
        Sample(
            split="unseen",
            prompt=f"prompt {n}",
            replies={arm: f"{arm} {n}" for arm in arms},
            verdicts={arm: VERDICTS[given[n]] for arm, given in arms.items()},
        )
        for n in range(10)
    ]
    metrics = [rate(rate_name, "unseen", arm, given) for arm, given in arms.items()]
    plain: dict[str, Any] = {"scenario": "harm", "method": "npo", "model": "org/base", "judge": "repeats"}
    given = {"measurements": metrics, "samples": samples, "cost": list(cost)}
    return Report(**{**plain, **given, **fields})


def cost(arm: str, stage: str, flops: float | None, seconds: float | None) -> Cost:
    return Cost(arm=arm, stage=stage, wall_seconds=seconds, flops=flops)


def saved(place: Path, **runs: Report) -> list[str]:
    for name, made in runs.items():
        made.write(place / name)
    return [str(place / name) for name in runs]


UNLEARNED = (
    cost("original", "evaluation", 5e12, 50),
    cost("unlearned", "training", 2e12, 10),
    cost("unlearned", "evaluation", 7e12, 70),
    cost("original", "fluency", 1e12, 5),
)
RLHF = (
    cost("rlhf", "reward model", 40e12, 100),
    cost("rlhf", "evaluating the reward model", 3e12, 9),
    cost("rlhf", "SFT", 10e12, 50),
    cost("rlhf", "RLOO", 50e12, 250),
    cost("rlhf", "evaluation", 7e12, 70),
)
TUNED = (cost("original", "inducing mistakes", 0.0, 30), cost("tuned", "tuning", 1e12, 10))


@pytest.fixture
def four(tmp_path: Path) -> list[str]:
    """Runs of which one is bad on none of ten prompts, one on the first, and one on the first eight."""
    return saved(
        tmp_path,
        ours=report({"unlearned": GOOD}, UNLEARNED),
        rlhf=report({"rlhf": "b" + "g" * 9}, RLHF, method="rlhf"),
        finetune=report({"finetune": "b" * 8 + "gg"}, method="finetune"),
    )


def terminal(compared: Comparison, width: int = 80) -> str:
    out = io.StringIO()
    show(compared, Console(file=out, width=width, force_terminal=True, color_system=None, legacy_windows=False))
    return out.getvalue()


def pair(compared: Comparison, *arms: str) -> VerdictDifference:
    return next(found for found in compared.pairs if (found.arm, found.against) == arms)


def test_differences_are_those_of_prompts(four: list[str]) -> None:
    compared = compare(four)
    assert [row.name for row in compared.arms] == ["original", "unlearned", "rlhf", "finetune"]
    assert len(compared.pairs) == 6
    values = {(p.arm, p.against): (p.value, p.differing, p.n, p.unknown, p.clear) for p in compared.pairs}
    assert values == {
        ("original", "unlearned"): (1.0, 10, 10, 0, True),
        ("original", "rlhf"): (pytest.approx(0.9), 9, 10, 0, True),
        ("original", "finetune"): (pytest.approx(0.2), 2, 10, 0, False),
        ("unlearned", "rlhf"): (pytest.approx(-0.1), 1, 10, 0, False),
        ("unlearned", "finetune"): (pytest.approx(-0.8), 8, 10, 0, True),
        ("rlhf", "finetune"): (pytest.approx(-0.7), 7, 10, 0, True),  # both are bad on the first prompt
    }
    assert compared.groups == [["original", "finetune"], ["unlearned", "rlhf"]]


def test_the_paragraph_says_what_it_does_not_prove(four: list[str]) -> None:
    text = paragraph(compare(four))
    assert "on 10 unseen prompts" in text
    assert "cannot be told apart: original and finetune; unlearned and rlhf. That does not show" in text
    assert "up to 51.0 points" in text  # two of ten prompts differ: Wilson's upper bound is 0.5098
    assert "equal" not in text and "of the 6 pairs, one in twenty" in text


def test_unknown_verdicts_are_left_out_of_a_pair_and_counted(tmp_path: Path) -> None:
    runs = saved(tmp_path, a=report({"unlearned": "uu" + "g" * 8}), b=report({"sft": "u" + "g" * 8 + "u"}))
    compared = compare(runs)
    found = pair(compared, "unlearned", "sft")
    assert (found.n, found.unknown, found.value) == (7, 3, 0.0)
    assert pair(compared, "original", "sft").unknown == 2
    assert "Up to 3 prompts of a pair were left out" in paragraph(compared)
    rates = compared.arms[1].rates["bad_unseen"]
    assert rates is not None and (rates.n, rates.unknown, rates.value) == (8, 2, 0.0)


def test_five_prompts_that_differ_are_not_enough(tmp_path: Path) -> None:
    """All five went one way, and every resample shows it or nothing; a coin does so in one case of sixteen."""
    runs = saved(tmp_path, a=report({"five": "g" * 5 + "b" * 5}), b=report({"six": "g" * 6 + "b" * 4}))
    compared = compare(runs)
    five, six = pair(compared, "original", "five"), pair(compared, "original", "six")
    assert five.low is not None and five.low > 0 and not five.clear
    assert six.low is not None and six.low > 0 and six.clear


def test_no_verdicts_no_claim(tmp_path: Path) -> None:
    made = report({"unlearned": GOOD})
    made.samples = [sample.model_copy(update={"verdicts": {}}) for sample in made.samples]
    text = paragraph(compare(saved(tmp_path, a=made, b=made)))
    assert text.startswith("No two arms were judged on the same unseen prompts")


def test_a_prompt_that_comes_twice_is_two_cases(tmp_path: Path) -> None:
    made = report({"unlearned": "bg" + GOOD[2:]})
    for sample in made.samples[:2]:
        sample.prompt = "same"
    other = made.model_copy(deep=True)
    other.samples[0].verdicts["unlearned"], other.samples[1].verdicts["unlearned"] = "good", "bad"
    found = pair(compare(saved(tmp_path, a=made, b=other)), "a", "b")
    assert (found.n, found.differing, found.value) == (10, 2, 0.0)


def test_groups_may_overlap() -> None:
    def made(arm: str, against: str, low: float) -> VerdictDifference:
        return VerdictDifference(arm=arm, against=against, value=0.3, low=low, high=0.5, n=50, unknown=0, differing=20)

    pairs = [made("a", "b", -0.1), made("b", "c", -0.1), made("a", "c", 0.1), made("c", "d", 0.1)]
    assert groups_of(["a", "b", "c", "d"], pairs) == [["a", "b"], ["b", "c"]]
    pairs[2] = made("a", "c", -0.1)
    assert groups_of(["a", "b", "c", "d"], pairs) == [["a", "b", "c"]]
    unmeasured = VerdictDifference(arm="c", against="d", value=None, low=None, high=None, n=0, unknown=9, differing=0)
    assert groups_of(["c", "d"], [unmeasured]) == []
    nothing_differs = VerdictDifference(arm="c", against="d", value=0, low=0, high=0, n=200, unknown=0, differing=0)
    assert groups_of(["c", "d"], [nothing_differs]) == [["c", "d"]]
    assert nothing_differs.reach == pytest.approx(0.0188, abs=1e-4)  # 0 of 200, as Wilson has it


def test_cost_is_preparation_and_training(four: list[str]) -> None:
    rows = {row.name: row for row in compare(four).arms}
    ours, rlhf = rows["unlearned"].cost, rows["rlhf"].cost
    assert ours and rlhf and rows["original"].cost is None and rows["finetune"].cost is None
    assert (ours.flops, ours.wall_seconds, ours.stages) == (2e12, 10, ["training"])
    assert (rlhf.flops, rlhf.wall_seconds, rlhf.stages) == (100e12, 400, ["reward model", "SFT", "RLOO"])
    assert (ours.relative_flops, ours.relative_seconds) == (0.02, 0.025)
    assert (rlhf.relative_flops, rlhf.relative_seconds) == (1, 1)


def test_cost_relative_to_another_arm(four: list[str]) -> None:
    compared = compare(four, relative_to="unlearned")
    rlhf = compared.arms[2].cost
    assert rlhf and (rlhf.relative_flops, rlhf.relative_seconds) == (50, 40)
    text = terminal(compared)
    assert "50 times" in text and "40 times" in text and "÷ unlearned" in text
    alone = compare([four[0], four[2]])
    assert alone.relative_to is None and "÷" not in terminal(alone)


def test_what_was_not_counted_is_not_called_cheap(tmp_path: Path, four: list[str]) -> None:
    """Inducing took time, and no tokens stand on its cost: FLOPs are a least value, and no share of RLHF's."""
    arms = {"tuned": GOOD, "tuned+reminder": GOOD, "original+reminder": BAD}
    (mistakes,) = saved(tmp_path, mistakes=report(arms, TUNED))
    compared = compare([*four, mistakes])
    rows = {row.name: row for row in compared.arms}
    for name in ("tuned", "tuned+reminder"):
        paid = rows[name].cost
        assert paid and (paid.flops, paid.wall_seconds, paid.uncounted) == (1e12, 40, ["inducing mistakes"])
        assert paid.relative_flops is None and paid.relative_seconds == 0.1
    assert rows["original+reminder"].cost is None
    assert any("tuned: no tokens were counted in inducing mistakes" in note for note in compared.notes)
    assert "≥ 1 TFLOP" in terminal(compared, 160)


def test_cost_of_several_seeds_is_that_of_one(tmp_path: Path) -> None:
    pooled = report({"unlearned": GOOD}, UNLEARNED)
    pooled.measurements[1].seeds = [0.0, 0.0]
    compared = compare(saved(tmp_path, pooled=pooled, sft=report({"sft": GOOD})))
    paid = compared.arms[1].cost
    assert paid and (paid.flops, paid.wall_seconds) == (1e12, 5)
    assert any("unlearned: rates and cost are means over 2 seeds" in note for note in compared.notes)


def test_arms_of_one_name_are_named_by_their_directory(tmp_path: Path) -> None:
    made = report({"unlearned": GOOD, "retrained": GOOD})
    runs = saved(tmp_path, npo=made, ga=made)
    assert [row.name for row in compare(runs).arms] == ["original", "npo", "ga", "retrained"]
    two = report({"tuned": GOOD, "tuned+reminder": GOOD})
    names = [row.name for row in compare(saved(tmp_path, one=two, two=two)).arms]
    assert names == ["original", "one: tuned", "one: tuned+reminder", "two: tuned", "two: tuned+reminder"]
    runs = saved(tmp_path / "x", out=made) + saved(tmp_path / "y", out=made)
    names = [row.name for row in compare(runs).arms]
    assert names[1:3] == [f"{tmp_path}/x/out: unlearned", f"{tmp_path}/y/out: unlearned"]


def test_the_rates_are_those_of_the_scenario(tmp_path: Path) -> None:
    made = report({"unlearned": "bbb" + "g" * 7}, scenario="copyright", rate_name="leak_rate")
    made.measurements += [rate("harmful_rate", "unseen", "unlearned", BAD)]
    made.measurements += [rate("kept_rate", "normal", "unlearned", GOOD, "g")]
    compared = compare(saved(tmp_path, a=made, b=made))
    rates = compared.arms[1].rates
    assert rates["bad_unseen"] and (rates["bad_unseen"].name, rates["bad_unseen"].value) == ("leak_rate", 0.3)
    assert rates["kept_normal"] and rates["kept_normal"].name == "kept_rate"  # no arm has a right_rate
    assert rates["bad_seen"] is None
    (table,) = grids(compared, 200)
    assert "leaking,\nunseen" in table.header and "kept,\nnormal" in table.header
    assert table.rows[1][1] == "30.0\n[11, 60]\nn=10"  # Wilson of 3 in 10: 0.108 to 0.603


def test_right_answers_are_shown_where_every_arm_has_them(tmp_path: Path) -> None:
    made = report({"unlearned": GOOD})
    arms = ("original", "unlearned")
    made.measurements += [rate(name, "normal", arm, GOOD, "g") for name in ("right_rate", "kept_rate") for arm in arms]
    compared = compare(saved(tmp_path, a=made, b=made))
    assert {row.rates["kept_normal"].name for row in compared.arms if row.rates["kept_normal"]} == {"right_rate"}
    assert "right,\nnormal" in grids(compared, 200)[0].header


OTHER_PROMPTS = report({"sft": GOOD})
for changed in OTHER_PROMPTS.samples[:3]:
    changed.prompt += "!"
FEWER_PROMPTS = report({"sft": GOOD})
del FEWER_PROMPTS.samples[8:]
NO_SAMPLES = report({"sft": GOOD}, samples=[])
OTHER_WEIGHTS = report({"sft": GOOD})
for changed in OTHER_WEIGHTS.samples[:2]:
    changed.replies["original"] = "something else"
OTHER_MODEL = report({"sft": GOOD}, model="org/other")
OTHER_MODEL.samples[0].replies["original"] = "something else"  # one alone: enough under another name


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (report({"sft": GOOD}, scenario="copyright", rate_name="leak_rate"), "scenario harm and copyright"),
        (report({"sft": GOOD}, judge="rule"), "judge repeats and rule"),
        (OTHER_PROMPTS, "split unseen: 3 of 10 are in the first run only, 3 of 10 in the second"),
        (FEWER_PROMPTS, "split unseen: 2 of 10 are in the first run only, 0 of 8 in the second"),
        (NO_SAMPLES, "no samples of the same split"),
        (NO_SAMPLES.model_copy(update={"model": "org/other"}), "original model org/base and org/other;"),
        (OTHER_MODEL, "original model org/base and org/other; its replies to 1 of 10 prompts differ"),
        (OTHER_WEIGHTS, "original model org/base and org/base; its replies to 2 of 10 prompts differ"),
    ],
)
def test_runs_about_different_things_are_refused(other: Report, words: str, tmp_path: Path, capsys: Capture) -> None:
    ours, theirs = saved(tmp_path, ours=report({"unlearned": GOOD}), theirs=other)
    with pytest.raises(ConfigError) as caught:
        compare([ours, theirs])
    assert words in str(caught.value) and f"{ours} and {theirs} are not about the same thing" in str(caught.value)
    assert "add --anyway" in str(caught.value)
    outcome = call(capsys, "compare", ours, theirs)
    assert outcome.code == 2 and outcome.err.count("\n") == 1 and not outcome.out
    compared = compare([ours, theirs], anyway=True)
    assert any(words in note and "--anyway" in note for note in compared.notes)
    assert words in " ".join(terminal(compared, 500).split())


def test_anyway_pairs_the_prompts_that_both_have(tmp_path: Path) -> None:
    runs = saved(tmp_path, a=report({"unlearned": GOOD}), b=OTHER_PROMPTS)
    assert pair(compare(runs, anyway=True), "unlearned", "sft").n == 7


def test_what_is_the_same_is_not_refused(tmp_path: Path) -> None:
    """Another path to the same original; one reply that another machine gives; a split that one run alone evaluated."""
    other = report({"sft": GOOD}, model="./base", environment={"device": "cpu", "cores": 4})
    other.samples.append(Sample(split="normal", prompt="p", replies={"original": "r"}))
    compared = compare(saved(tmp_path, a=report({"unlearned": GOOD}), b=other))
    assert ["their seconds were measured on different machines" in note for note in compared.notes] == [True]
    one = report({"sft": GOOD})
    one.samples[0].replies["original"] = "changed"
    (note,) = compare(saved(tmp_path, a=report({"unlearned": GOOD}), b=one)).notes
    assert note.endswith("the original's replies to 1 of 10 prompts differ")


def test_the_original_of_an_evaluation_is_in_its_command(tmp_path: Path) -> None:
    command = "unteach evaluate --config run.yaml --original org/base --output another-directory"
    fields: dict[str, Any] = {"method": "none", "model": "out/model", "command": command, "weights": ""}
    made = report({"unlearned": GOOD}, **fields)
    compared = compare(saved(tmp_path, evaluated=made, sft=report({"sft": GOOD})))
    assert compared.model == "org/base" and compared.arms[1].cost is None
    bare = made.model_copy(update={"samples": []})
    with pytest.raises(ConfigError) as caught:
        compare(saved(tmp_path, evaluated=bare, sft=report({"sft": GOOD})))
    assert "original model" not in str(caught.value)


def test_bad_input_is_one_line(four: list[str], tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "report.json").write_text("{")
    study = report({"sft": GOOD}, method="mistakes-study")
    unmeasured = report({"sft": GOOD}, measurements=[])
    studied, skipped = saved(tmp_path, study=study, skipped=unmeasured)
    for words, told in [
        ((), "RUN"),
        (four[:1], "alone: nothing to compare it with"),
        ((four[0], four[0] + "/../ours"), "given twice"),
        ((four[0], tmp_path / "empty"), "no such file"),
        ((four[0], tmp_path / "nowhere"), "no such file"),
        ((four[0], tmp_path / "broken"), "not valid JSON"),
        ((four[0], studied), "a study compares its own arms"),
        ((four[0], skipped), "nothing was measured in it"),
        ((*four, "--relative-to", "rlfh"), "--relative-to rlfh: no such arm; did you mean 'rlhf'?"),
        ((*four, "--relative-to", "zzz"), "no such arm; there are original, unlearned, rlhf, finetune"),
        ((*four, "--relative-to", "original"), "nothing was trained in it"),
        ((*four, "--json", f"{four[0]}/report.json"), "is the report of a run that is compared"),
        ((*four, "--json", tmp_path / "ours"), "another file for --json"),
        ((*four, "--jsno", "x"), "unknown flag --jsno; did you mean '--json'?"),
    ]:
        outcome = call(capsys, "compare", *words)
        assert outcome.code == 2 and told in outcome.err and outcome.err.count("\n") == 1, (words, outcome)
    with pytest.raises(ConfigError, match="no runs"):
        compare([])
    with pytest.raises(DataError):
        compare([four[0], tmp_path / "broken"])


def test_json_says_the_same(four: list[str], tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "deep" / "compared.json"
    outcome = call(capsys, "compare", *four, "--json", path)
    assert outcome.code == 0 and not outcome.err and f"Written: {path}" in outcome.out.replace("\n", "")
    raw = json.loads(path.read_text())
    assert list(raw) == [
        "scenario",
        "model",
        "runs",
        "relative_to",
        "arms",
        "split",
        "pairs",
        "groups",
        "target",
        "length_notes",
        "failed",
        "summary",
        "notes",
    ]
    assert raw["runs"] == four and raw["relative_to"] == "rlhf" and len(raw["pairs"]) == 6
    assert raw["summary"] == paragraph(compare(four))
    ours = raw["arms"][1]
    assert ours["cost"]["relative_flops"] == 0.02
    low, high = wilson(0, 10)[1:]
    assert ours["rates"]["bad_unseen"] == {
        "name": "harmful_rate",
        "split": "unseen",
        "value": 0.0,
        "low": low,
        "high": high,
        "n": 10,
        "unknown": 0,
        "seeds": 1,
    }


def test_json_that_cannot_be_written(four: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="another file for --json"):
        write(compare(four), tmp_path / "file" / "compared.json")


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_table_fits(four: list[str], width: int) -> None:
    text = terminal(compare(four), width)
    assert max(len(line) for line in text.splitlines()) <= width
    for part in ("harmful,", "unlearned", "[0.0, 28]", "n=10", "2 TFLOP", "2.0 %", "2.5 %", "÷ rlhf", "6 min 40 s"):
        assert part in text, part
    assert len(grids(compare(four), width)) == (1 if width == 160 else 2)


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_nothing_in_a_report_commands_the_terminal(text: str, tmp_path: Path) -> None:
    text = text.encode("utf-8", "replace").decode()[:200]
    costs = (cost(text, text, 1e12, 1), cost(text, "uncounted" + text, None, 1))
    fields = {"model": text, "scenario": text, "judge": text}
    other = {"model": text + "2", "scenario": text + "2", "judge": text + "2", "environment": {"device": text}}
    runs = saved(tmp_path, a=report({text: GOOD}, costs, **fields), b=report({"sft": GOOD}, **other))
    compared = compare(runs, anyway=True, relative_to=text)
    printed = terminal(compared, 100)
    assert not hidden(printed)
    write(compared, tmp_path / "compared.json")
    assert json.loads((tmp_path / "compared.json").read_text())["arms"][1]["arm"] == text


def test_the_same_run_under_two_names_is_refused(tmp_path: Path) -> None:
    made = report({"sft": GOOD}, (cost("sft", "tuning", 1e12, 12.345),))
    runs = saved(tmp_path, one=made, two=made.model_copy(update={"weights": "seed-0/model"}))
    with pytest.raises(ConfigError, match="one and .*two hold the same run"):
        compare(runs)
