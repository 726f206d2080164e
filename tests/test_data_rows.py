"""Every kind of data source, and every way in which one cannot be used."""

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from unteach.data.raw_row import RawRow
from unteach.data.sources import read_rows
from unteach.errors import DataError

ROWS = [{"prompt": "p1", "completion": 'a, "b"\nc'}, {"prompt": "p2", "completion": "ü\u2028!"}]


def written(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


def values(rows: list[RawRow]) -> list[Any]:
    return [row.values for row in rows]


def labels(rows: list[RawRow]) -> list[str]:
    return [row.label for row in rows]


def refusal(source: str, **options: str) -> str:
    with pytest.raises(DataError) as caught:
        read_rows(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_jsonl_labels_count_lines_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    text = "\ufeff" + json.dumps(ROWS[0]) + "\n\n" + json.dumps(ROWS[1], ensure_ascii=False) + "\n"
    rows = read_rows(written(tmp_path / "a.jsonl", text))
    assert values(rows) == ROWS
    assert labels(rows) == ["a.jsonl line 1", "a.jsonl line 3"]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        (json.dumps(ROWS), "a.json row 2"),
        (json.dumps({"data": ROWS, "version": 1}, indent=1), "a.json row 2"),
        ("\n".join(json.dumps(row) for row in ROWS), "a.json line 2"),
    ],
)
def test_json_as_list_as_data_and_as_lines(tmp_path: Path, text: str, label: str) -> None:
    rows = read_rows(written(tmp_path / "a.json", text))
    assert values(rows) == ROWS
    assert labels(rows)[1] == label


def test_a_text_file_is_one_row_about_its_name(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path / "emma.txt", "\ufeffEmma Woodhouse,\nhandsome.\n"))
    assert values(rows) == [{"text": "Emma Woodhouse,\nhandsome.\n", "concept": "emma"}]
    assert labels(rows) == ["emma.txt"]


def test_a_folder_of_text_files_is_a_row_each_and_notes_beside_rows_are_none(tmp_path: Path) -> None:
    for name in ("two", "one"):
        written(tmp_path / f"{name}.txt", f"text of {name}")
    assert [row["concept"] for row in values(read_rows(str(tmp_path)))] == ["one", "two"]
    written(tmp_path / "rows.jsonl", json.dumps(ROWS[0]))
    assert values(read_rows(str(tmp_path))) == ROWS[:1]


def test_json_of_lists_by_type_says_the_type(tmp_path: Path) -> None:
    text = json.dumps({"Insult": [{"prompt": "p1"}, {"prompt": "p2", "type": "own"}], "Other": [{"prompt": "p3"}]})
    rows = read_rows(written(tmp_path / "a.json", text))
    assert [(row["prompt"], row["type"]) for row in values(rows)] == [("p1", "Insult"), ("p2", "own"), ("p3", "Other")]
    assert labels(rows) == ["a.json Insult row 1", "a.json Insult row 2", "a.json Other row 1"]
    dialogue = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
    assert values(read_rows(written(tmp_path / "b.json", json.dumps(dialogue)))) == [dialogue]


def test_json_of_one_object_is_one_row(tmp_path: Path) -> None:
    assert values(read_rows(written(tmp_path / "a.json", json.dumps(ROWS[0], indent=2)))) == ROWS[:1]


@pytest.mark.parametrize(("name", "mark"), [("rows.csv", ","), ("rows.tsv", "\t")])
def test_tables_with_quotes_newlines_and_long_fields(tmp_path: Path, name: str, mark: str) -> None:
    long = "x" * 200_000  # over the csv module's own bound
    text = f'prompt{mark}completion\r\np1{mark}"a, ""b""\nc"\r\n\r\np2{mark}{long}\r\n'
    rows = read_rows(written(tmp_path / name, text))
    assert values(rows) == [ROWS[0], {"prompt": "p2", "completion": long}]
    assert labels(rows) == [f"{name} row 1", f"{name} row 2"]


def test_parquet(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    rows = read_rows(str(tmp_path / "a.parquet"))
    assert values(rows) == ROWS
    assert labels(rows) == ["a.parquet row 1", "a.parquet row 2"]


def test_saved_dataset(tmp_path: Path) -> None:
    messages = [{"m": [{"role": "user", "content": "hi"}]}]
    datasets.Dataset.from_list(messages).save_to_disk(tmp_path / "set")
    rows = read_rows(str(tmp_path / "set"))
    assert values(rows) == messages
    assert labels(rows) == ["set row 1"]
    assert "not 'test'" in refusal(str(tmp_path / "set"), split="test")


def test_saved_dataset_with_splits(tmp_path: Path) -> None:
    splits = {"train": datasets.Dataset.from_list(ROWS[:1]), "test": datasets.Dataset.from_list(ROWS[1:])}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "set")
    assert values(read_rows(str(tmp_path / "set"))) == ROWS[:1]
    chosen = read_rows(str(tmp_path / "set"), split="test")
    assert (values(chosen), labels(chosen)) == (ROWS[1:], ["set test row 1"])
    assert "choose one of train, test with --data-split" in refusal(str(tmp_path / "set"), split="dev")


def test_saved_splits_without_train_must_be_named(tmp_path: Path) -> None:
    splits = {name: datasets.Dataset.from_list(ROWS) for name in ("a", "b")}
    datasets.DatasetDict(splits).save_to_disk(tmp_path / "set")
    assert "no split 'train'; choose one of a, b" in refusal(str(tmp_path / "set"))


def test_damaged_dataset_directory(tmp_path: Path) -> None:
    written(tmp_path / "state.json", "{}")
    assert "not a readable datasets directory" in refusal(str(tmp_path))


def test_folder_of_files_in_name_order_and_by_split(tmp_path: Path) -> None:
    written(tmp_path / "train-00001.jsonl", json.dumps(ROWS[1]))
    written(tmp_path / "train-00000.csv", "prompt\nfirst\n")
    (tmp_path / "test").mkdir()
    written(tmp_path / "test" / "x.json", json.dumps([{"prompt": "held out"}]))
    written(tmp_path / "README.md", "not data")
    notes: list[str] = []
    assert labels(read_rows(str(tmp_path), notes=notes)) == ["train-00000.csv row 1", "train-00001.jsonl line 1"]
    assert "read the split train, not test; --data-split names another" in notes[0]
    assert [row["prompt"] for row in values(read_rows(str(tmp_path), split="train"))] == ["first", "p2"]
    assert [row["prompt"] for row in values(read_rows(str(tmp_path), split="test"))] == ["held out"]
    assert "no split 'dev'; found test, train" in refusal(str(tmp_path), split="dev")


@pytest.mark.parametrize("name", ["nothing.jsonl", "./nothing", "../nothing", "a/b/c", "gone.csv"])
def test_missing_paths_are_not_looked_up_on_a_hub(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("looked up"))
    assert "no such file or directory" in refusal(name)


def test_missing_file_names_the_nearest(tmp_path: Path) -> None:
    written(tmp_path / "negatives.jsonl", "{}")
    assert "did you mean 'negatives.jsonl'?" in refusal(str(tmp_path / "negative.jsonl"))


def test_hub_ids_pass_split_and_revision_and_nothing_that_runs_code(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def load(path: str, **options: object) -> datasets.DatasetDict | datasets.Dataset:
        calls.append((path, options))
        train = datasets.Dataset.from_list(ROWS)
        return train if options["split"] else datasets.DatasetDict({"train": train})

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = read_rows("owner/name-v1.0", split="train[:2]", revision="abc")
    assert calls == [("owner/name-v1.0", {"split": "train[:2]", "revision": "abc"})]
    assert (values(rows), labels(rows)[0]) == (ROWS, "owner/name-v1.0 row 1")
    assert read_rows("owner/name-v1.0")[0].label == "owner/name-v1.0 train row 1"


def test_hub_failure_says_how_to_give_a_local_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object, **__: object) -> None:
        raise ConnectionError("offline\nmore")

    monkeypatch.setattr(datasets, "load_dataset", load)
    message = refusal("owner/name")
    assert "owner/name" in message and "offline" in message and "local copy" in message


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.jsonl", "", "a.jsonl: the file is empty"),
        ("a.jsonl", "\n \n", "no rows"),
        ("a.json", "[]", "no rows"),
        ("a.csv", "prompt,reply\n", "no rows"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "a.jsonl line 2: not valid JSON at column 7"),
        ("a.jsonl", '{"a": 1}\n[1]\n', "a.jsonl line 2: expected an object of named fields, found a list"),
        ("a.jsonl", '"text"', "a.jsonl line 1: expected an object of named fields, found text"),
        ("a.jsonl", "[" * 100_000, "a.jsonl line 1: not usable JSON"),
        ("a.jsonl", '{"a": ' + "1" * 5000 + "}", "a.jsonl line 1: not usable JSON"),
        ("a.jsonl", b'{"a": "\xff"}', "byte 7 (0xff) is not UTF-8"),
        ("a.csv", b"a,b\n\xe9,1\n", "byte 4 (0xe9) is not UTF-8"),
        ("a.json", '[{"a": 1},\n3]', "a.json row 2: expected an object of named fields, found a number"),
        ("a.json", "[1,\n2", "not valid JSON at line 2"),
        ("a.json", "null", "expected a list of objects or"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "a.csv row 2: 3 fields, but the header names 2"),
        ("a.csv", "a,b\n1\n", "a.csv row 1: 1 fields, but the header names 2"),
        ("a.csv", "a,a\n1,2\n", "two columns have the same name"),
        ("a.csv", 'a,b\n1,"2\n', "a.csv row 1: malformed table"),
        ("a.parquet", "no parquet", "not a readable Parquet file"),
        ("a.doc", "words", "files ending in '.doc' cannot be read; use one of .jsonl"),
        ("a.txt", " \n", "no rows"),
        ("a.txt", b"\xff\xfeb", "byte 2 (0x62) is not UTF-16 (line 1), though the file begins like it"),
    ],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, text: str | bytes, expected: str) -> None:
    assert expected in refusal(written(tmp_path / name, text))


def test_sources_without_name_or_data(tmp_path: Path) -> None:
    assert "no name" in refusal(" ")
    assert "no such file" in refusal("a\0b.jsonl")
    assert "cannot be opened" in refusal("a" * 5000 + ".jsonl")
    assert "no data files in this directory" in refusal(str(tmp_path))


def test_unreadable_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    source = written(tmp_path / "a.jsonl", "{}")
    monkeypatch.setattr(Path, "read_bytes", denied)
    assert "a.jsonl: cannot be read: Permission denied" in refusal(source)
