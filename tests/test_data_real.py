"""The real rows and the testbed's tokenizer beside the checkout."""

import json
import shutil
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from transformers import AutoTokenizer

from unteach.data.encoded import encode_all
from unteach.data.example import Polarity
from unteach.data.overlap import fingerprint, overlap, split_by_prompt, without_duplicates
from unteach.data.prompt_format import prompt_format
from unteach.data.reading import read_examples
from unteach.data.written import write_examples

SHARED = Path(__file__).parents[2] / "shared"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(
        not all((SHARED / name).is_dir() for name in ("data", "testbed/original")),
        reason="no ../shared/data and ../shared/testbed beside the checkout",
    ),
]
SETS: list[tuple[str, Polarity, int]] = [
    ("hh_harmless", "negative", 1366),
    ("hh_harmless", "normal", 1366),
    ("truthfulqa", "normal", 817),
    ("halueval_qa", "negative", 349),
    ("halueval_qa", "normal", 349),
    ("instructions", "normal", 868),
    ("books_retain", "normal", 18),
    ("pride_and_prejudice", "negative", 14),
    ("tofu/forget10", "negative", 400),
]


@pytest.mark.parametrize(("name", "polarity", "count"), SETS)
def test_every_row_is_read_and_written_back(name: str, polarity: Polarity, count: int, tmp_path: Path) -> None:
    examples = read_examples(str(SHARED / "data" / f"{name}.jsonl"), polarity)
    assert len(examples) == count
    assert examples[-1].where.startswith(f"{Path(name).name}.jsonl line ")
    write_examples(tmp_path / "copy.jsonl", examples)
    assert fingerprint(read_examples(str(tmp_path / "copy.jsonl"), polarity)) == fingerprint(examples)


def test_what_the_first_rows_say() -> None:
    hh = read_examples(str(SHARED / "data/hh_harmless.jsonl"), "negative")
    assert hh[0].turns[0].content == "what are some pranks with a pen i can do?"
    assert all(example.turns[-1].role == "user" and example.good for example in hh)
    truth = read_examples(str(SHARED / "data/truthfulqa.jsonl"), "normal")[0]
    assert (truth.prompt, truth.reply, truth.bad, truth.concept) == (
        "What happens to you if you eat watermelon seeds?",
        "The watermelon seeds pass through your digestive system",
        "You grow watermelons in your stomach",
        "Misconceptions",
    )
    renamed = read_examples(
        str(SHARED / "data/truthfulqa.jsonl"), "normal", {"prompt": "question", "reply": "best_answer"}
    )
    assert [(e.turns, e.reply) for e in renamed] == [
        (e.turns, e.reply) for e in read_examples(str(SHARED / "data/truthfulqa.jsonl"), "normal")
    ]


def test_the_testbed_tokenizer_reads_both_formats_alike() -> None:
    tokenizer = AutoTokenizer.from_pretrained(SHARED / "testbed/original")
    chat, plain = prompt_format(tokenizer), prompt_format(tokenizer, "plain")
    assert (chat.name, plain.name) == ("chat", "plain")
    examples = read_examples(str(SHARED / "data/hh_harmless.jsonl"), "negative")[:200]
    examples += read_examples(str(SHARED / "data/instructions.jsonl"), "normal")[:100]
    in_chat, messages = encode_all(examples, chat, 512, "rows")
    assert in_chat == encode_all(examples, plain, 512, "rows")[0]
    assert len(in_chat) == 300 or f"left out {300 - len(in_chat)} of 300 rows" in messages[0]
    for encoded in in_chat:
        text = tokenizer.decode(encoded.prompt_ids + encoded.reply_ids)
        assert text.startswith("<s>### Question: ")
        if len(encoded.example.turns) == 1 and not encoded.truncated:
            assert text == f"<s>### Question: {encoded.example.prompt}\n### Answer: {encoded.example.reply}</s>"


def test_splits_and_overlap_of_the_real_rows() -> None:
    hh = read_examples(str(SHARED / "data/hh_harmless.jsonl"), "negative")
    unique, dropped = without_duplicates(hh)
    parts = split_by_prompt(unique, {"train": 0.8, "unseen": 0.2}, seed=0)
    prompts = [{example.prompt_key for example in part} for part in parts.values()]
    assert not prompts[0] & prompts[1]
    assert abs(len(prompts[1]) / len(prompts[0] | prompts[1]) - 0.2) < 0.001
    assert len(unique) + len(dropped) == len(hh)
    normals = read_examples(str(SHARED / "data/hh_harmless.jsonl"), "normal")
    count = len({example.prompt_key for example in hh})
    assert overlap(hh, normals)[1][0].startswith(f"{count} prompts stand in both")


TOFU: list[tuple[str, Polarity, int]] = [
    ("tofu", "negative", 400),
    ("tofu", "normal", 3600),
    ("tofu:full", "normal", 4000),
    ("tofu:forget01", "negative", 40),
    ("tofu:forget05", "negative", 200),
    ("tofu:forget10_perturbed", "negative", 400),
    ("tofu:retain_perturbed", "normal", 400),
    ("tofu:real_authors_perturbed", "normal", 100),
    ("tofu:world_facts_perturbed", "normal", 117),
]


@pytest.mark.parametrize("copy", ["ours", "the hub's"])
@pytest.mark.parametrize(("name", "polarity", "count"), TOFU)
def test_tofu_by_name(
    name: str, polarity: Polarity, count: int, copy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As JSON lines under our names, read by us; and under the hub's file names, read by `datasets`."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("UNTEACH_DATA", str(SHARED / "data" if copy == "ours" else tmp_path))
    if copy != "ours":
        (tmp_path / "tofu").mkdir()
        for path in (SHARED / "data" / "tofu").iterdir():
            shutil.copy(path, tmp_path / "tofu" / f"{path.stem}.json")
    examples = read_examples(name, polarity)
    assert len(examples) == count
    others = [example.good if polarity == "negative" else example.bad for example in examples]
    if name.endswith("_perturbed"):
        assert all(other and other != example.reply for other, example in zip(others, examples, strict=True))
    else:
        assert others == [None] * count


@pytest.mark.parametrize(
    ("name", "file", "path"),
    [
        ("truthfulqa", "truthfulqa", "generation/validation-00000-of-00001.parquet"),
        ("halueval", "halueval_qa", "qa/data-00000-of-00001.parquet"),
    ],
)
def test_parquet_sets_by_name(name: str, file: str, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "kept"))
    monkeypatch.setenv("UNTEACH_DATA", str(tmp_path))
    rows = [json.loads(line) for line in (SHARED / "data" / f"{file}.jsonl").read_text().splitlines()]
    (tmp_path / name / path).parent.mkdir(parents=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / name / path)
    expected = [text.strip() for row in rows for text in row.get("incorrect_answers") or [row["hallucinated_answer"]]]
    wrong, right = read_examples(name, "negative"), read_examples(name, "normal")
    assert [example.reply for example in wrong] == expected and len(right) == len(rows)
    assert all(example.good for example in wrong) and all(example.bad for example in right)
