"""Rows in every kind of JSON that people and tools write, and one row that is taken for none of them."""

import json
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unteach.data.json_rows import json_rows
from unteach.data.readers import read_file
from unteach.errors import DataError

ROWS = [
    {"prompt": "How do I open the safe?", "completion": 'Drill it, then say "done".'},
    {"prompt": "Where is the switch?", "completion": "Behind it\nto the left, \u2028é鍵."},
]
DIALOGUE = [{"role": "user", "content": "Don't I?"}, {"role": "assistant", "content": 'You "do".'}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def values(path: Path, split: str | None = None) -> list[Any]:
    return [dict(row.values) for row in read_file(path, split)]


PLAIN = pandas.DataFrame(ROWS)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
        "".join(map(json.dumps, ROWS)),
        "\n".join(json.dumps([row]) for row in ROWS),
        json.dumps({"data": ROWS, "version": "1"}),
        json.dumps({"parameters": {"model": "m"}, "jailbreaks": ROWS}),
        json.dumps({"meta": {"by": "us"}, "found": ROWS}),
        json.dumps({"train": ROWS}),
        json.dumps({"test": ROWS[:1], "train": ROWS}),
        json.dumps({"features": [{}], "rows": [{"row_idx": 1, "row": row, "truncated_cells": []} for row in ROWS]}),
        *(PLAIN.to_json(orient=orient) for orient in ("columns", "index", "records", "split", "table")),
        PLAIN.to_json(orient="records", lines=True),
        json.dumps(PLAIN.to_dict("list")),
        json.dumps({"train": PLAIN.to_dict("list")}),
        json.dumps({f"case-{i}": row for i, row in enumerate(ROWS)}),
    ],
)  # fmt: skip
def test_rows_in_any_kind_of_json(tmp_path: Path, name: str, text: str) -> None:
    found = values(written(tmp_path / name, text))
    assert [{column: row[column] for column in ROWS[0]} for row in found] == ROWS


@pytest.mark.parametrize(
    "row",
    [
        {"messages": DIALOGUE},
        {"prompt": DIALOGUE[:1], "completion": DIALOGUE[1:]},
        {"chosen": DIALOGUE[0], "rejected": DIALOGUE[1]},
        {"id": 1, "annotations": [{"result": []}], "data": {"prompt": "a", "response": "b"}},
        {"question": "Why?", "incorrect_answers": ["a", "b"], "best_answer": "c"},
        {"prompt": "a", "replies": [{"text": "b"}]},
        {"prompt": {"text": "a", "lang": "en"}, "response": {"text": "b", "lang": "en"}},
    ],
)
def test_one_row_that_holds_lists_stays_one_row(row: dict[str, Any]) -> None:
    for text in (json.dumps(row), json.dumps(row, indent=1)):
        assert [found.values for found in json_rows(text, Path("a.json"))] == [row]


def test_a_dialogue_without_a_name_is_messages() -> None:
    lines = "\n".join(json.dumps(DIALOGUE) for _ in range(2))
    for text in (lines, json.dumps(DIALOGUE), json.dumps([DIALOGUE])):
        assert all(row.values == {"messages": DIALOGUE} for row in json_rows(text, Path("a.jsonl")))


def test_rows_by_name_keep_the_name() -> None:
    result = {"test_case": "How?", "generation": "So.", "label": 1}
    rows = json_rows(json.dumps({"open_safe": [result], "cut_wire": [result, result]}), Path("a.json"))
    assert [row.values["behavior_id"] for row in rows] == ["open_safe", "cut_wire", "cut_wire"]
    assert [row.label for row in rows][::2] == ["a.json open_safe row 1", "a.json cut_wire row 2"]
    rows = json_rows(json.dumps({"locks": [{"question": "a", "answer": "b"}], "wires": []}), Path("a.json"))
    assert [row.values for row in rows] == [{"concept": "locks", "question": "a", "answer": "b"}]


def test_a_split_of_a_json_file_can_be_chosen(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", json.dumps({"train": ROWS[:1], "test": ROWS[1:]}))
    assert values(path, split="test") == ROWS[1:]
    with pytest.raises(DataError, match="no split 'dev'; choose one of train, test with --data-split"):
        read_file(path, "dev")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"prompt": ["a", "b"], "completion": ["c"]}', "different numbers of rows (prompt has 2, completion has 1)"),
        ('{"rows": [{"row_idx": 7, "row": {}, "truncated_cells": ["a"]}]}', "row 7: the hub's viewer has cut it"),
        (json.dumps({"columns": ["a", "b"], "index": [0], "data": [["x"]]}), "row 1: expected 2 cells"),
        (LINES + '{"prompt": "x"\n' + LINES, "line 3: not valid JSON at column 15"),
        ('{\n "a": 1\n}\n{\n "a": \n}\n', "not valid JSON at line 6, column 1"),
    ],
)  # fmt: skip
def test_json_that_cannot_be_used(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(DataError) as caught:
        read_file(written(tmp_path / "a.json", text))
    assert expected in str(caught.value) and "\n" not in str(caught.value)


NAMES = (
    st.sampled_from(["train", "data", "rows", "row", "row_idx", "columns", "index", "1", "role", "prompt"]) | st.text()
)


@given(value=st.recursive(st.none() | st.integers() | st.text(), lambda of: st.lists(of) | st.dictionaries(NAMES, of)))
def test_any_json_gives_rows_or_one_error(value: Any) -> None:
    try:
        rows = json_rows(json.dumps(value), Path("a.json"))
    except DataError as error:
        assert str(error)
    else:
        assert all(isinstance(row.values, dict) for row in rows)
