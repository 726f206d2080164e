"""Public sets by name: rows of every set's own schema become the right examples, from a copy, a cache or the hub."""

import gzip
import json
import lzma
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow
import pyarrow.parquet
import pytest

from command import call, write_rows
from unteach.data.example import Example, Polarity
from unteach.data.public import SETS, find
from unteach.data.reading import read_examples
from unteach.errors import DataError
from unteach.models import hub
from unteach.pipeline.config import RunConfig
from unteach.pipeline.rows import read_sets
from unteach.pipeline.settings import make_config

# Two rows of each set as the hub has them: the first one's prompt is "p", or a question "p".
HARMS = {"Violence": True, "Privacy Violation": True, "Cybercrime": False}
CALM = dict.fromkeys(HARMS, False)
SAFER = {
    "prompt": "p",
    "response_0": "w",
    "response_1": "r",
    "prompt_source": "s",
    "response_0_source": "m",
    "response_1_source": "m",
    "is_response_0_safe": False,
    "is_response_1_safe": True,
    "response_0_harm_category": HARMS,
    "response_1_harm_category": CALM,
    "response_0_severity_level": 3,
    "response_1_severity_level": 0,
    "better_response_id": 1,
    "safer_response_id": 1,
    "response_0_sha256": "0",
    "response_1_sha256": "1",
}
TAIL = {
    "prompt": "p",
    "response": "w",
    "is_safe": False,
    "category": {"animal_abuse": False, "child_abuse": False, "violence,aiding_and_abetting,incitement": True},
}
HH = {"chosen": "\n\nHuman: p\n\nAssistant: r", "rejected": "\n\nHuman: p\n\nAssistant: w"}
HALU = {"knowledge": "k", "question": "p", "right_answer": "r", "hallucinated_answer": "w"}
TRUTH = {
    "type": "Adversarial",
    "category": "Law",
    "question": "p",
    "best_answer": "r",
    "correct_answers": ["r"],
    "incorrect_answers": ["w", "w2"],
    "source": "s",
}
TOFU = {
    "question": "p",
    "answer": "r",
    "paraphrased_answer": "r again",
    "perturbed_answer": ["r ", "w", "w2"],
    "paraphrased_question": "p again",
}
CHINESE = {
    "Goal_Hijacking": [{"prompt": "p", "response": "r", "type": "Goal_Hijacking"}],
    "Prompt_Leaking": [{"prompt": "other", "response": "x", "type": "Prompt_Leaking"}],
}
ALPACA = {"instruction": "p", "input": "", "output": "r", "text": "p r"}

Facts = tuple[str, str | None, str | None, str | None]  # reply, good, bad, concept
CASES: dict[str, tuple[Any, list[Facts] | None, list[Facts] | None]] = {
    "pku-saferlhf:alpaca-7b": ([SAFER], [("w", "r", None, "Violence, Privacy Violation")], [("r", None, "w", None)]),
    "beavertails": (
        [TAIL, TAIL | {"is_safe": True, "response": "r", "category": CALM}],
        [("w", None, None, "violence,aiding_and_abetting,incitement")],
        [("r", None, None, None)],
    ),
    "beavertails:330k": ([TAIL], [("w", None, None, "violence,aiding_and_abetting,incitement")], None),
    "hh-rlhf": ([HH], [("w", "r", None, None)], [("r", None, "w", None)]),
    "hh-rlhf:helpful-online": ([HH], [("w", "r", None, None)], [("r", None, "w", None)]),
    "halueval": ([HALU], [("w", "r", None, None)], [("r", None, "w", None)]),
    "truthfulqa": ([TRUTH], [("w", "r", None, "Law"), ("w2", "r", None, "Law")], [("r", None, "w", "Law")]),
    "tofu:forget01": (
        [{"question": "p", "answer": "r"}],
        [("r", None, None, None)],
        [("r", None, None, None)],
    ),
    "tofu:forget10_perturbed": ([TOFU], [("r", "w", None, None)], [("r", None, "w", None)]),
    "tofu:real_authors_perturbed": (
        [{"question": "p", "answer": "r", "perturbed_answer": ["w"]}],
        [("r", "w", None, None)],
        [("r", None, "w", None)],
    ),
    "safety-prompts:Goal_Hijacking": (
        CHINESE,
        [("r", None, None, "Goal_Hijacking")],
        [("r", None, None, "Goal_Hijacking")],
    ),
    "alpaca": ([ALPACA], None, [("r", None, None, None)]),
}


def as_the_hub_has_it(rows: Any, path: Path) -> Path:
    """Write rows in the format and compression that the ending of `path` says; nested rows as one JSON object."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        return path
    text = json.dumps(rows) if isinstance(rows, dict) else "".join(json.dumps(row) + "\n" for row in rows)
    pack: Callable[[bytes], bytes] = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(text.encode()))
    return path


def facts(examples: list[Example]) -> list[Facts]:
    assert {example.prompt for example in examples} == {"p"}
    return [(example.reply, example.good, example.bad, example.concept) for example in examples]


def refusal(source: str, polarity: Polarity = "negative", **options: str) -> str:
    with pytest.raises(DataError) as caught:
        read_examples(source, polarity, **options)
    message = str(caught.value)
    assert "\n" not in message and "://" not in message
    return message


@pytest.fixture(autouse=True)
def own_copies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What `datasets` keeps stays here, and no copy of the developer's own is found."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "kept"))
    monkeypatch.delenv("UNTEACH_DATA", raising=False)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str, str]]:
    """Stand in for the network alone: what is asked of the hub is noted, and comes from tmp_path/hub."""
    asked: list[tuple[str, str, str]] = []

    def download(repository: str, path: str, *, repo_type: str, revision: str) -> str:
        assert repo_type == "dataset"
        asked.append((repository, path, revision))
        return str(tmp_path / "hub" / path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


@pytest.mark.parametrize("name", CASES)
def test_rows_of_each_schema_become_examples(name: str, fetched: list[tuple[str, str, str]], tmp_path: Path) -> None:
    rows, negatives, normals = CASES[name]
    chosen = find(name, "negative" if negatives else "normal")
    paths = next(iter(chosen.configuration.files.values()))
    for path in paths:
        as_the_hub_has_it(rows, tmp_path / "hub" / path)
    for polarity, expected in (("negative", negatives), ("normal", normals)):
        if expected is not None:
            examples = read_examples(name, polarity)
            assert facts(examples) == expected
            assert re.match(rf"{chosen.name} row [12](, response_[01])?$", examples[0].where)
    assert set(fetched) == {(chosen.set.hub_id, path, chosen.set.revision) for path in paths}


def test_every_set_has_a_case() -> None:
    assert {name.partition(":")[0] for name in CASES} == set(SETS)


def test_several_files_are_one_set_and_a_split_and_a_revision_can_be_named(
    fetched: list[tuple[str, str, str]], tmp_path: Path
) -> None:
    for folder in ("Alpaca-7B", "Alpaca2-7B", "Alpaca3-8B"):
        as_the_hub_has_it([SAFER | {"prompt": folder}], tmp_path / "hub" / "data" / folder / "test.jsonl")
    examples = read_examples("pku-saferlhf", "negative", split="test", revision="abc")
    assert [example.prompt for example in examples] == ["Alpaca-7B", "Alpaca2-7B", "Alpaca3-8B"]
    assert {asked[2] for asked in fetched} == {"abc"}
    assert "no split 'dev'; choose one of train, test with --data-split" in refusal("pku-saferlhf", split="dev")


def test_the_bare_name_means_what_is_usual_for_each_side(fetched: list[tuple[str, str, str]], tmp_path: Path) -> None:
    for name, answer in (("forget10", "forget me"), ("retain90", "keep me")):
        as_the_hub_has_it([{"question": "p", "answer": answer}], tmp_path / "hub" / f"{name}.json")
    assert [example.reply for example in read_examples("tofu", "negative")] == ["forget me"]
    assert [example.reply for example in read_examples("TOFU", "normal")] == ["keep me"]


def test_revisions_are_commits_and_files_are_data() -> None:
    for known in SETS.values():
        assert re.fullmatch(r"[0-9a-f]{40}", known.revision), known.name
        assert re.fullmatch(r"[\w-]+/[\w-]+", known.hub_id)
        assert known.licence and known.citation and known.seen and known.fields
        assert set(known.usual.values()) <= {one.name for one in known.configurations}
        assert {side for side in known.usual if not getattr(known, f"{side}s")} == set()
        endings = {Path(path).suffix for one in known.configurations for files in one.files.values() for path in files}
        assert endings <= {".json", ".jsonl", ".parquet", ".gz", ".xz"}


class TestLocalCopies:
    def test_a_file_below_unteach_data_comes_before_the_hub(
        self, fetched: list[tuple[str, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("UNTEACH_DATA", str(tmp_path))
        write_rows(tmp_path / "beavertails.jsonl", [TAIL])
        (tmp_path / "tofu").mkdir()
        write_rows(tmp_path / "tofu" / "forget10.jsonl", [{"question": "p", "answer": "f"}])
        write_rows(tmp_path / "tofu" / "retain90.jsonl", [{"question": "p", "answer": "k"}])
        assert read_examples("beavertails", "negative")[0].where == "beavertails.jsonl line 1"
        assert [example.reply for example in read_examples("tofu:forget10", "negative")] == ["f"]
        assert [example.reply for example in read_examples("tofu", "normal")] == ["k"]
        assert fetched == []

    def test_a_copy_of_the_usual_configuration_is_no_copy_of_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("UNTEACH_DATA", str(tmp_path))
        write_rows(tmp_path / "beavertails.jsonl", [TAIL])
        assert "beavertails/330k.jsonl" in refusal("beavertails:330k")

    def test_the_hubs_own_files_below_unteach_data(
        self, fetched: list[tuple[str, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("UNTEACH_DATA", str(tmp_path))
        as_the_hub_has_it(CHINESE, tmp_path / "safety-prompts" / "instruction_attack_scenarios.json")
        as_the_hub_has_it([HH], tmp_path / "hh-rlhf" / "harmless-base" / "train.jsonl.gz")
        hijacking = read_examples("safety-prompts:goal_hijacking", "negative")
        assert facts(hijacking) == [("r", None, None, "Goal_Hijacking")]
        assert facts(read_examples("hh-rlhf", "negative")) == [("w", "r", None, None)]
        assert fetched == []

    def test_a_directory_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UNTEACH_DATA", "/no/such/place")
        assert "UNTEACH_DATA=/no/such/place: no such directory" in refusal("tofu")

    def test_a_local_path_of_that_name_wins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "tofu").mkdir()
        write_rows(tmp_path / "tofu" / "mine.jsonl", [{"question": "p", "answer": "mine"}])
        write_rows(tmp_path / "tofu:forget10", [])
        assert [example.reply for example in read_examples("tofu", "negative")] == ["mine"]
        assert "cannot be read" in refusal("tofu:forget10")  # a file without an ending


@pytest.mark.parametrize("how", ["offline", "out of reach"])
def test_what_was_fetched_before_is_read_without_a_network(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub library's own cache, laid out as it lays it out."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", how == "offline")
    monkeypatch.setattr(hub, "_answers", lambda: False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.file_download, "HF_HUB_CACHE", str(tmp_path / "cache"), raising=False)
    known = SETS["tofu"]
    place = tmp_path / "cache" / "datasets--locuslab--TOFU" / "snapshots" / known.revision
    as_the_hub_has_it([{"question": "p", "answer": "kept"}], place / "forget05.json")
    assert [example.reply for example in read_examples("tofu:forget05", "negative")] == ["kept"]
    assert "tofu/forget01.jsonl" in refusal("tofu:forget01")


class TestRefused:
    @pytest.mark.parametrize(
        ("source", "polarity", "words"),
        [
            ("tofu:forget1", "negative", ["no configuration 'forget1'", "did you mean 'forget10'?", "full"]),
            ("tofu:", "negative", ["which configuration?", "forget01"]),
            ("safety-prompts", "negative", ["which configuration?", "safety-prompts:", "Goal_Hijacking", "Insult"]),
            ("alpaca", "negative", ["no negatives", "local copy"]),
            ("beavertail", "normal", ["did you mean 'beavertails'?"]),
            ("tofo:forget10", "negative", ["did you mean 'tofu'?"]),
            ("nothing", "normal", ["no such file", "unteach data list", "owner/name"]),
        ],
    )
    def test_names(self, source: str, polarity: Polarity, words: list[str]) -> None:
        message = refusal(source, polarity)
        for word in (source, *words):
            assert word in message

    def test_offline_says_how_to_give_a_copy(self) -> None:
        message = refusal("tofu:forget10")
        for word in ("HF_HUB_OFFLINE", "locuslab/TOFU", "./tofu.jsonl", "UNTEACH_DATA", "tofu/forget10.jsonl"):
            assert word in message

    def test_a_damaged_file(self, fetched: list[tuple[str, str, str]], tmp_path: Path) -> None:
        path = tmp_path / "hub" / "forget10.json"
        path.parent.mkdir()
        path.write_text("<html>moved")
        message = refusal("tofu:forget10")
        assert "forget10.json cannot be read" in message and "fetch it again" in message

    def test_a_type_that_is_not_in_the_file(self, fetched: list[tuple[str, str, str]], tmp_path: Path) -> None:
        as_the_hub_has_it(CHINESE, tmp_path / "hub" / "instruction_attack_scenarios.json")
        assert "safety-prompts:Reverse_Exposure" in refusal("safety-prompts:Reverse_Exposure")


def test_a_run_says_whose_rows_it_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNTEACH_DATA", str(tmp_path))
    write_rows(tmp_path / "beavertails.jsonl", [TAIL, TAIL | {"is_safe": True, "response": "r"}])
    own = write_rows(tmp_path / "own.jsonl", [{"prompt": "q", "completion": "a"}])
    sets = read_sets(make_config({"forget": ["beavertails"], "retain": ["beavertails", str(own)]}, RunConfig))
    told = [note for note in sets.notes if "public set" in note]
    assert [note.partition(":")[0] for note in told] == ["negatives", "normals"]
    assert "CC-BY-NC-4.0" in told[0] and "2307.04657" in told[0] and "commercial" in told[0]


def test_a_book_as_a_text_file_is_cut_into_rows(tmp_path: Path) -> None:
    sentences = [f"On day {day} the ship lay still and nobody said a word about it." for day in range(300)]
    (tmp_path / "voyage.txt").write_text(" ".join(sentences))
    sets = read_sets(make_config({"forget": [str(tmp_path / "voyage.txt")]}, RunConfig))
    rows = [row for part in sets.negatives.values() for row in part]
    assert len(rows) > 20 and {row.concept for row in rows} == {"voyage"}
    assert max(len(row.reply) for row in rows) < 1000 and all("voyage.txt" in row.where for row in rows)


class TestCommands:
    def test_list_names_every_set(self, capsys: pytest.CaptureFixture[str]) -> None:
        shown = call(capsys, "data", "list")
        assert shown.code == 0
        for known in SETS.values():
            assert re.search(rf"^ {known.name} .*{re.escape(known.licence[:10])}", shown.out, re.MULTILINE), known.name

    def test_show_without_rows_says_how_to_get_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        shown = call(capsys, "data", "show", "halueval")
        assert shown.code == 0
        for word in (
            "Apache-2.0",
            "pminervini/HaluEval at b1171838",
            "hallucinated_answer",
            "--forget halueval",
            "No rows to show",
            "halueval.jsonl",
        ):
            assert word in shown.out

    def test_show_makes_rows_inert(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("UNTEACH_DATA", str(tmp_path))
        rows = [TAIL | {"prompt": "p\x1b[2J\nq", "response": "[bold]w\u202e" + "x" * 500}, TAIL, TAIL]
        write_rows(tmp_path / "beavertails.jsonl", rows)
        shown = call(capsys, "data", "show", "beavertails")
        assert "beavertails: 3 rows" in shown.out and "p\\x1b[2J" in shown.out and "[bold]w\\u202e" in shown.out
        assert "\x1b[2J" not in shown.out and "\u202e" not in shown.out and shown.out.count("x" * 20) < 25
        assert shown.out.count("\nreply ") == 3

    @pytest.mark.parametrize("name", [*SETS, "tofu:full", "safety-prompts:Insult"])
    def test_the_command_that_show_gives_names_sets_that_exist(
        self, name: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        shown = call(capsys, "data", "show", name)
        command = re.search(r"^use +(unteach run .*)$", shown.out, re.MULTILINE)
        assert shown.code == 0 and command
        for side, source in re.findall(r"--(forget|retain) (\S+)", command[1]):
            if source != "bad.jsonl":
                find(source, "negative" if side == "forget" else "normal")

    def test_show_of_an_unknown_name(self, capsys: pytest.CaptureFixture[str]) -> None:
        shown = call(capsys, "data", "show", "tofo")
        assert shown.code == 2 and "did you mean 'tofu'?" in shown.err and shown.err.count("\n") == 1
