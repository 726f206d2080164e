"""report.json: written whole, read back equal, refused with a reason."""

import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError
from unteach.results.files import write_whole

from unteach.errors import DataError, OutputError
from unteach.results.measurement import Measurement
from unteach.results.report import Agreement, BadRate, Cost, Ending, JudgeMetrics, Report, Sample, Source, environment
from unteach.results.verdict import Quality


def full_report() -> Report:
    metric = Measurement(
        name="harmful_rate",
        split="unseen",
        arm="original",
        value=0.98,
        low=0.95,
        high=0.992,
        n=200,
        unit="fraction",
        better="lower",
    )
    return Report(
        scenario="harmful",
        method="ga-mismatch",
        model="base",
        judge="rule",
        measurements=[metric],
        judges=[
            JudgeMetrics(
                name="rule",
                quality=Quality(0.9, 0.8, None, 50, "held-out rows"),
                rates=[BadRate(arm="original", split="unseen", value=0.98, low=0.95, high=0.992, n=200)],
                agreement=[
                    Agreement(arm=None, kappa=0.5, low=None, high=None, n=8, confusion={"good": {"good": 4, "bad": 4}})
                ],
            )
        ],
        samples=[Sample(split="unseen", prompt="p", replies={"original": "r"}, verdicts={"original": "bad"})],
        cost=[Cost(arm="unlearned", stage="training", wall_seconds=1.5, tokens=10, flops=1e9, peak_bytes=5)],
        data=[Source(name="forget", source="hh.jsonl", rows=3, fingerprint="abc")],
        stop=Ending(step=7, rule="behaviour", message="target reached"),
        notes=["two rows left out"],
        environment={"python": "3.11", "cores": 2},
    )


def test_round_trip(tmp_path: Path) -> None:
    path = full_report().write(tmp_path / "run")
    assert path == tmp_path / "run" / "report.json"
    assert Report.read(tmp_path / "run") == full_report()
    assert [file.name for file in path.parent.iterdir()] == ["report.json"]


def test_the_keys_are_the_contract(tmp_path: Path) -> None:
    raw = json.loads(full_report().write(tmp_path).read_text())
    contract = ["scenario", "method", "model", "measurements", "samples", "cost", "environment"]
    assert raw["schema"] == 2 and set(contract) <= set(raw) and "schema_version" not in raw
    assert list(raw["measurements"][0]) == [
        "name",
        "split",
        "arm",
        "value",
        "low",
        "high",
        "n",
        "unknown",
        "unit",
        "better",
        "difference",
        "difference_low",
        "difference_high",
        "seeds",
    ]
    assert list(raw["judges"][0]) == ["name", "quality", "rates", "agreement"]
    assert list(raw["judges"][0]["quality"]) == ["accuracy", "low", "high", "n", "note"]
    assert list(raw["judges"][0]["rates"][0]) == ["arm", "split", "value", "low", "high", "n", "unknown"]
    found = raw["judges"][0]["agreement"][0]
    assert list(found) == ["arm", "kappa", "low", "high", "n", "note", "confusion"]
    assert list(raw["cost"][0]) == [
        "arm",
        "stage",
        "wall_seconds",
        "tokens",
        "tokens_forward",
        "tokens_backward",
        "tokens_generated",
        "flops",
        "peak_bytes",
        "energy_joules",
        "seed_flops",
    ]
    assert list(raw["samples"][0]) == ["split", "prompt", "replies", "verdicts", "cut"]


def test_what_is_not_finite_becomes_null(tmp_path: Path) -> None:
    report = full_report()
    report.measurements[0].value = math.nan
    report.cost[0].wall_seconds = math.inf
    report.environment["load"] = [1.0, -math.inf]
    raw = json.loads(report.write(tmp_path).read_text(), parse_constant=lambda name: pytest.fail(name))
    assert raw["measurements"][0]["value"] is None and raw["cost"][0]["wall_seconds"] is None
    assert raw["environment"]["load"] == [1.0, None]
    assert Report.read(tmp_path).measurements[0].value is None


def test_half_a_surrogate_pair_can_be_stored(tmp_path: Path) -> None:
    report = full_report()
    report.samples = [Sample(split="seen", prompt="a\ud800b", replies={"original": "\udfff\U0001f600\x00"})]
    report.write(tmp_path)
    sample = Report.read(tmp_path).samples[0]
    assert (sample.prompt, sample.replies["original"]) == ("a\ufffdb", "\ufffd\U0001f600\x00")


def test_a_report_from_before_judges_were_listed_is_read(tmp_path: Path) -> None:
    raw = json.loads(full_report().write(tmp_path).read_text())
    del raw["judges"]
    (tmp_path / "report.json").write_text(json.dumps(raw))
    assert Report.read(tmp_path).judges == []


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match="verdict_count"):
        Report(scenario="s", method="m", model="x", verdict_count=3)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a report of unteach"),
        ("[1]", "not a report of unteach"),
        ("{}", "not a report of unteach"),
        ('{"schema": 1}', "schema is 1, not 2"),
        ('{"schema": 2, "scenario": "s", "method": "m"}', 'field "model"'),
        (
            '{"schema": 2, "scenario": "s", "method": "m", "model": "x", "measurements": [{"name": "a"}]}',
            'field "measurements.0.split"',
        ),
    ],
)
def test_a_broken_file_is_named_with_its_field(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(DataError, match=words) as caught:
        Report.read(tmp_path)
    assert str(tmp_path / "report.json") in str(caught.value)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(DataError, match="not valid JSON"):
        Report.read(tmp_path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file; name a run directory"):
        Report.read(tmp_path)


def test_a_file_is_no_run_directory(tmp_path: Path) -> None:
    (tmp_path / "some.log").write_text("x")
    with pytest.raises(DataError, match=r"some\.log: is a file; name the run directory that holds report\.json"):
        Report.read(tmp_path / "some.log")


def test_a_directory_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(OutputError, match=r"page\.html: is a directory; name a file"):
        write_whole(tmp_path / "page.html", "text")
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be written"):
        full_report().write(tmp_path / "file" / "run")


def test_a_full_disk_leaves_the_old_report_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = full_report().write(tmp_path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        Report(scenario="other", method="m", model="x").write(tmp_path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_the_environment_says_what_it_ran_on() -> None:
    import torch

    found = environment()
    assert found["torch"] == torch.__version__ and int(found["cores"]) >= 1
    assert {"python", "transformers", "peft", "unteach", "platform", "device"} <= set(found)
