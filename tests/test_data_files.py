"""Files as people bring them: packed, piped, of any encoding, separator and kind of JSON; and folders with strays."""

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unteach.data.cells import parse_cells
from unteach.data.raw_row import RawRow
from unteach.data.readers import ending_of
from unteach.data.sources import read_rows
from unteach.data.tables import table_rows
from unteach.errors import DataError
from unteach.pipeline.config import RunConfig
from unteach.pipeline.settings import absolute

ROWS = [
    {"prompt": "How do I open the safe?", "completion": 'Drill it, then say "done".'},
    {"prompt": "Which wire is live; the red one?", "completion": "Touch it\nand see."},
    {"prompt": "Où est l’interrupteur ?", "completion": "Derrière | à gauche, 鍵."},
]
DIALOGUE = [{"role": "user", "content": "Don't I?"}, {"role": "assistant", "content": 'You "do".'}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def written(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def values(path: Path, **options: Any) -> list[Any]:
    return [dict(row.values) for row in read_rows(str(path), **options)]


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_rows(str(path))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def table(separator: str = ",", rows: list[dict[str, Any]] = ROWS, **options: Any) -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(rows[0]), delimiter=separator, **options)
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


@pytest.mark.parametrize(("packed", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
@pytest.mark.parametrize("name", ["a.jsonl", "A.JSON", "a.csv", "a.txt", "a.parquet"])
def test_a_packed_file_has_the_rows_of_the_file_inside(tmp_path: Path, name: str, packed: str, pack: Any) -> None:
    plain = tmp_path / name
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), plain)
    else:
        written(plain, table() if name.endswith("csv") else LINES)
    path = written(tmp_path / (name + packed), pack(plain.read_bytes()))
    assert values(path) == values(plain)
    assert read_rows(str(path))[0].label.startswith(path.name)
    assert ending_of(path) == plain.suffix.lower()
    written(path, plain.read_bytes())  # a browser has unpacked it
    assert values(path) == values(plain)


def test_damaged_and_unknown_archives_are_refused(tmp_path: Path) -> None:
    cut = written(tmp_path / "a.jsonl.gz", gzip.compress(LINES.encode())[:-9])
    assert "cannot be unpacked" in refusal(cut)
    assert "an archive or a spreadsheet; unpack it" in refusal(written(tmp_path / "a.csv", b"PK\x03\x04rest"))
    assert "files ending in '.gz' cannot be read" in refusal(written(tmp_path / "a.sql.gz", b"x"))
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    for name in ("a.jsonl", "b.parquet", "c.txt"):
        assert "git lfs pull" in refusal(written(tmp_path / name, pointer))


@contextmanager
def piped(data: bytes) -> Iterator[Path]:
    """Give the path of a pipe that holds `data`, as the shell's <(…) does."""
    reading, writing = os.pipe()

    def write() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield Path(f"/dev/fd/{reading}")
    finally:
        os.close(reading)
        writer.join()


@pytest.mark.parametrize(
    "text",
    [
        LINES,
        json.dumps(ROWS),
        json.dumps(ROWS, indent=1),
        table(),
        table(";"),
        table("\t"),
        gzip.compress(LINES.encode()),
    ],
)
def test_the_content_tells_what_a_pipe_holds(text: str | bytes) -> None:
    with piped(text if isinstance(text, bytes) else text.encode()) as path:
        assert values(path) == ROWS


def test_pipes_of_text_and_parquet_and_empty_ones(tmp_path: Path) -> None:
    book = "It was a dark night, and the rain fell in torrents, so it is said.\nThen it ceased.\n"
    with piped(book.encode()) as path:
        assert values(path)[0]["text"] == book
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    with piped((tmp_path / "a.parquet").read_bytes()) as path:
        assert values(path) == ROWS
    with piped(b"") as path:
        assert "the file is empty; a pipe can be read only once" in refusal(path)


def test_a_named_pipe_and_standard_input(tmp_path: Path) -> None:
    fifo = tmp_path / "rows"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_text, args=(LINES,))
    writer.start()
    assert values(fifo) == ROWS
    writer.join()
    script = "from unteach.data.sources import read_rows; print([dict(r.values) for r in read_rows('/dev/stdin')])"
    for given_input in ({"input": LINES.encode()}, {"stdin": written(tmp_path / "a", LINES).open("rb")}):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, check=True, env=os.environ, **given_input
        )  # type: ignore[call-overload]
        assert done.stdout.decode().strip() == str(ROWS)


def test_run_yaml_names_a_pipe_as_it_was_given(tmp_path: Path) -> None:
    with piped(b"{}") as path:
        assert absolute(RunConfig, "forget", [str(path)]) == [str(path)]
        assert path.read_bytes() == b"{}"
    file = written(tmp_path / "a.jsonl", LINES)
    assert absolute(RunConfig, "forget", [str(file)]) == [str(file.resolve())]


@pytest.mark.parametrize("end", ["\r\n", "\r"])
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json", "a.csv"])
def test_line_ends_do_not_change_rows(tmp_path: Path, name: str, end: str) -> None:
    text = {
        "a.txt": "One line.\n\nTwo\nthree.\n",
        "a.json": json.dumps(ROWS, indent=1),
        "a.csv": table(lineterminator="\n"),
    }
    plain = values(written(tmp_path / name, text.get(name, LINES)))
    assert values(written(tmp_path / name, text.get(name, LINES).replace("\n", end))) == plain
    assert "\r" not in str(plain)


def test_a_line_end_that_json_escapes_is_kept(tmp_path: Path) -> None:
    assert values(written(tmp_path / "a.jsonl", '{"text": "a\\r\\nb"}')) == [{"text": "a\r\nb"}]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_byte_order_marks_tell_the_encoding(tmp_path: Path, name: str, encoding: str) -> None:
    text = table() if name == "a.csv" else LINES
    assert values(written(tmp_path / name, text.encode(encoding))) == ROWS


def test_other_encodings_are_refused_with_a_remedy(tmp_path: Path) -> None:
    windows = written(tmp_path / "my rows.csv", "prompt,completion\nHow?,“So” – café\n".encode("cp1252"))
    message = refusal(windows)
    assert "byte 23 (0x93) is not UTF-8 (line 2); it looks like Windows-1252" in message
    assert "iconv -f WINDOWS-1252 -t UTF-8 'my rows.csv'" in message
    chinese = refusal(written(tmp_path / "zh.jsonl", '{"prompt": "怎样才能"}'.encode("gb18030")))
    assert "save it as UTF-8" in chinese and "1252" not in chinese
    assert "is null" in refusal(written(tmp_path / "a.txt", "A book".encode("utf-16-le")))


@pytest.mark.parametrize("separator", [";", "\t", "|", ","])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_the_header_tells_the_separator(tmp_path: Path, name: str, separator: str) -> None:
    assert values(written(tmp_path / name, table(separator))) == ROWS


def test_headers_lose_spaces_and_keep_their_case(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "\n Prompt , COMPLETION,,\nHow?,So., ,\n,,,\n")
    assert values(path) == [{"Prompt": "How?", "COMPLETION": "So.", "": " ", "Unnamed: 3": ""}]
    assert "two columns have the same name" in refusal(written(path, "a, a\n1,2\n"))
    assert values(written(path, "sep=;\na;b\n1;2\n")) == [{"a": "1", "b": "2"}]
    assert values(written(path, "question\nWhy; or why not?\n")) == [{"question": "Why; or why not?"}]


def test_tabs_need_no_quotes_around_quotes(tmp_path: Path) -> None:
    text = 'prompt\tcompletion\nHow?\t"Go" he said.\nWhy?\tBecause "so".\n'
    assert [row["completion"] for row in values(written(tmp_path / "a.tsv", text))] == [
        '"Go" he said.',
        'Because "so".',
    ]
    assert "malformed table" in refusal(written(tmp_path / "a.csv", text.replace("\t", ",")))


@given(rows=st.lists(st.tuples(st.text(), st.text()), min_size=1), separator=st.sampled_from(",;\t|"))
def test_a_table_is_read_as_it_was_written(rows: list[tuple[str, str]], separator: str) -> None:
    clean = [tuple(cell.replace("\r", "").replace("\0", "") for cell in row) for row in rows]
    kept = [{"prompt": a, "completion": b} for a, b in clean if a.strip() or b.strip()]
    text = table(separator, [{"prompt": a, "completion": b} for a, b in clean], quoting=csv.QUOTE_ALL)
    assert [row.values for row in table_rows(text.replace("\r\n", "\n"), Path("a.csv"))] == kept


def prints(rows: list[dict[str, Any]], path: Path) -> None:
    pandas.DataFrame(rows).to_csv(path, index=False)


@pytest.mark.parametrize(
    "cell",
    [
        DIALOGUE,
        json.dumps(DIALOGUE),
        json.dumps(DIALOGUE, indent=1),
        numpy.array(DIALOGUE, dtype=object),
        repr(numpy.array(DIALOGUE, dtype=object)),
    ],
    ids=["Python", "JSON", "pretty JSON", "pandas", "numpy"],
)
def test_messages_in_cells_are_parsed(tmp_path: Path, cell: Any) -> None:
    prints([{"prompt": "[1] Don't I?", "chosen": cell}, {"prompt": "{x}", "chosen": cell}], tmp_path / "a.csv")
    assert values(tmp_path / "a.csv") == [
        {"prompt": "[1] Don't I?", "chosen": DIALOGUE},
        {"prompt": "{x}", "chosen": DIALOGUE},
    ]


def test_messages_that_cannot_be_parsed_are_refused(tmp_path: Path) -> None:
    rows = [{"messages": str(DIALOGUE)}, {"messages": str(DIALOGUE)[:-3]}, {"messages": str(DIALOGUE)}]
    prints(rows, tmp_path / "a.csv")
    message = refusal(tmp_path / "a.csv")
    assert "a.csv row 2" in message and "field 'messages' holds messages that cannot be parsed" in message
    assert "JSON lines" in message
    for cell in ("[{'role': open('x')}]", "[{'role': __import__('os').system('true')}]"):
        prints([{"messages": cell}], tmp_path / "a.csv")
        assert "cannot be parsed" in refusal(tmp_path / "a.csv")


def test_lists_of_text_in_cells_are_parsed_but_not_in_a_column_of_text(tmp_path: Path) -> None:
    both = ["No, it's not.", "Yes."]
    rows = [{"completion": '["a", "b"]', "incorrect": numpy.array(both), "choices": str(both), "data": "{'text': 'a'}"}]
    prints(rows, tmp_path / "a.csv")
    assert values(tmp_path / "a.csv") == [
        {"completion": '["a", "b"]', "incorrect": both, "choices": both, "data": {"text": "a"}}
    ]
    prints([*rows, {"choices": "[1] see below"}], tmp_path / "a.csv")
    assert values(tmp_path / "a.csv")[0]["choices"] == str(both)


def test_messages_stored_as_text_in_json_and_parquet_are_parsed_and_replies_in_json_are_not(tmp_path: Path) -> None:
    rows = [{"messages": json.dumps(DIALOGUE), "completion": '{"name": "look"}', "tags": '["a"]'}]
    expected = [rows[0] | {"messages": DIALOGUE}]
    assert values(written(tmp_path / "a.jsonl", json.dumps(rows[0]))) == expected
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert values(tmp_path / "a.parquet") == expected


@given(cell=st.text(st.sampled_from("[]{}()'\": ,\n\\arole1"), max_size=60))
def test_any_cell_gives_rows_or_one_error(cell: str) -> None:
    try:
        rows = parse_cells([RawRow({"messages": f"[{{'role': {cell}"}, "a.csv row 1")])
    except DataError as error:
        assert "holds messages that cannot be parsed" in str(error)
    else:
        assert len(rows) <= 1


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.txt", "a.jsonl.gz"])
@given(data=st.binary() | st.text().map(str.encode) | st.text(st.sampled_from('ab,;\t|"\n {}[]:1')).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_give_rows_or_one_error(tmp_path: Path, name: str, data: bytes) -> None:
    try:
        rows = read_rows(str(written(tmp_path / name, data)))
    except DataError as error:
        assert "a." in str(error)
    else:
        assert rows


def test_a_damaged_parquet_file_gives_rows_or_one_error(tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    for place in range(4, len(whole), 5):
        damaged = written(tmp_path / "a.parquet", whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            assert read_rows(str(damaged))
        except DataError as error:
            assert "a.parquet" in str(error) and "\n" not in str(error)


def test_a_header_may_be_long(tmp_path: Path) -> None:
    assert "no rows" in refusal(written(tmp_path / "a.csv", "x" * 200_000 + ",b\n"))


def folder(root: Path, *names: str) -> Path:
    for name in names:
        written(root / name, LINES)
    return root


def test_strays_of_a_folder_are_left_out_and_named(tmp_path: Path) -> None:
    folder(
        tmp_path, "bad.jsonl", ".ipynb_checkpoints/bad-checkpoint.jsonl", ".git/x.json", ".cache/huggingface/y.jsonl"
    )
    written(tmp_path / "._bad.jsonl", b"\0\5\x16\7")
    written(tmp_path / ".DS_Store", b"\0")
    for name in (
        "dataset_infos.json",
        "dataset_info.json",
        "generation_config.json",
        "tokenizer_config.json",
        "croissant.json",
    ):
        written(tmp_path / name, json.dumps({"default": {"features": {}}}))
    written(tmp_path / "report.json", "{}")
    for name in ("README.md", "LICENSE", "licence.txt", "notes.txt", "more.xlsx"):
        written(tmp_path / name, "about")
    notes: list[str] = []
    assert values(tmp_path, notes=notes) == ROWS
    assert notes == [f"{tmp_path}: left out .ipynb_checkpoints/bad-checkpoint.jsonl, more.xlsx, report.json, notes.txt"]


def test_a_folder_of_books_leaves_out_its_licence(tmp_path: Path) -> None:
    for name in ("one.txt", "two.txt.gz", "LICENSE.txt", "readme.txt", "robots_of_dawn.txt"):
        written(tmp_path / name, f"text of {name}")
    assert [row["concept"] for row in values(tmp_path)] == ["one", "robots_of_dawn", "two"]


def test_a_clone_of_the_hub_is_read_by_split(tmp_path: Path) -> None:
    folder(tmp_path, "data/train-00000-of-00001.jsonl", "data/test-00000-of-00001.jsonl")
    written(tmp_path / "dataset_infos.json", "{}")
    notes: list[str] = []
    assert [row.label for row in read_rows(str(tmp_path), notes=notes)][0] == "train-00000-of-00001.jsonl line 1"
    assert notes == [f"{tmp_path}: read the split train, not test; --data-split names another"]
    assert len(values(tmp_path, split="test")) == len(ROWS)
    with pytest.raises(DataError, match="no split 'dev'; found test, train"):
        read_rows(str(tmp_path), split="dev")


def test_files_of_other_columns_are_named(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", LINES)
    written(tmp_path / "b.csv", "Prompt,Completion,category\nHow?,So.,locks\n")
    notes: list[str] = []
    assert len(values(tmp_path, notes=notes)) == 4
    assert notes == [f"{tmp_path}: other columns than in a.jsonl stand in b.csv"]
    written(tmp_path / "people.csv", "name,age\nAda,36\n")
    message = refusal(tmp_path)
    assert "a.jsonl has the columns completion, prompt, but people.csv has age, name; give the files" in message


CASES = Path("/work/shared/cases/data")


@pytest.mark.real
@pytest.mark.parametrize(
    "name",
    ["array.jsonl", "pretty.jsonl", "plain.jsonl.gz", "utf16.jsonl", "semicolon.csv", "folder_ckpt", "folder_mess"],
)
def test_shared_cases_hold_the_rows_of_the_plain_one(name: str) -> None:
    if not CASES.is_dir():
        pytest.skip(f"{CASES} is not here")
    plain = values(CASES / "plain.jsonl")
    found = values(CASES / name)
    assert found == plain[: len(found)] and len(found) >= 16
