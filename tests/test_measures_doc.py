"""docs/measures.md and the labels of the report hold every metric that any probe gives, and tell it rightly."""

import re
from pathlib import Path

import pytest

from test_probes import SCENARIOS, full, measured
from unteach.probes.base import ALL_SPLITS, NORMAL_SPLITS
from unteach.report.wording import BAD_RATES, METRICS
from unteach.results.measurement import HARM_SPLITS

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "measures.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
MEASURED = [
    (scenario, measurement)
    for scenario in SCENARIOS
    for split in sorted(ALL_SPLITS)
    for measurement in measured(full(split, scenario=scenario)).values()
]
NAMES = sorted({m.name for _, m in MEASURED})
SPLITS = {
    "all splits": ALL_SPLITS,
    "harmful splits": frozenset(HARM_SPLITS),
    "normal splits": NORMAL_SPLITS,
    "seen": frozenset({"seen"}),
}


def test_every_figure_has_a_section_and_a_label_and_no_section_is_about_nothing():
    assert sorted(SECTIONS) == NAMES
    assert set(NAMES) <= set(METRICS)
    assert len(set(METRICS.values())) == len(METRICS), "two metrics with one label"
    assert set(BAD_RATES) <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_section(name):
    unit, better, where, *rest = SECTIONS[name].strip().splitlines()[0].split(" · ")
    own = [(scenario, m) for scenario, m in MEASURED if m.name == name]
    assert {m.unit for _, m in own} == {unit}
    directions = {split: {m.better for _, m in own if m.split == split} for split in SPLITS[where]}
    for split, found in directions.items():
        kind = "harmful" if split in HARM_SPLITS else "normal"
        told = re.fullmatch(r"(\w+) is better(?: on (\w+) splits, (\w+) on (\w+) splits)?", better)
        assert told, better
        wanted = told[1] if told[2] in (None, kind) else told[3]
        assert found == {wanted}, f"{name} on {split}"
    assert {m.split for _, m in own} == set(SPLITS[where])
    if rest:
        assert {f"scenario {scenario}" for scenario, _ in own} == set(rest)
    elif name != "right_rate":  # whose section says that it is measured otherwise in one scenario
        assert {scenario for scenario, _ in own} == set(SCENARIOS)
    for part in ("Source: ", "Untouched model: ", "Cannot tell: "):
        assert part in SECTIONS[name]
