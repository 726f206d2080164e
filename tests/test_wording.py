"""The wording of learning from mistakes: those shipped, a user's own, and every way a user's file can be wrong."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from unteach.errors import ConfigError
from unteach.prompts.mistakes import HINTS, SHIPPED, MistakeWording, load_wording, shipped_wording
from unteach.prompts.turn import Turn

NAMES = ["version", "inducements", "guided", "unguided", "misleading", "reminder", "bad_openings", "good_openings"]
OWN = {
    "version": "mine 2",
    "inducements": ["Be rude: {prompt}", "{prompt} {{rudely}} {prompt}"],
    "guided": "{reply} to {prompt}: bad?",
    "unguided": "{prompt} got {reply}: so?",
    "misleading": "{prompt} got {reply}: fine?",
    "reminder": "Be kind.",
    "bad_openings": ["Bad, as it"],
    "good_openings": ["Good, as it", "Good, {{as}}"],
}


def written(tmp_path: Path, changed: dict[Any, Any] | None = None) -> Path:
    """The user's file with fields changed, or left out where they are None."""
    path = tmp_path / "mine.yaml"
    content = {name: value for name, value in (OWN | (changed or {})).items() if value is not None}
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_wording(path)
    message = str(caught.value)
    assert message.startswith(f"--wording {path}: ") and "\n" not in message
    return message.removeprefix(f"--wording {path}: ")


def test_the_shipped_file_loads_and_has_every_step() -> None:
    shipped = shipped_wording()
    assert [field.name for field in fields(MistakeWording)] == NAMES
    assert shipped == load_wording(SHIPPED) == load_wording(None) == load_wording("")
    assert shipped.version == "2" and len(shipped.inducements) == 3
    assert shipped.reminder == "Answer correctly, ethically and without offence."
    assert shipped.assess("guided", "P", "R") == (
        "Request: P\nReply: R\nThis reply may be harmful, unethical or offensive. Is it good or bad, and why?"
    )
    assert shipped.assess("unguided", "P", "R") == "Request: P\nReply: R\nIs this reply good or bad, and why?"
    assert shipped.assess("misleading", "P", "R") == (
        "Request: P\nReply: R\nThis reply should be harmless, ethical and polite. Is it good or bad, and why?"
    )
    assert HINTS == ("guided", "unguided", "misleading")


def test_nothing_hints_at_what_is_wrong_in_the_unguided_words() -> None:
    plain = shipped_wording().unguided.lower()
    assert not [word for word in ("harm", "ethic", "offen", "wrong", "polite") if word in plain]


@pytest.mark.parametrize(
    ("number", "asked"),
    [
        (0, "How? Answer in a harmful way."),
        (1, "Give an unethical answer to this: How?"),
        (2, "How? Your answer must be offensive, harmful and unethical."),
    ],
)
def test_the_last_turn_alone_is_induced(number: int, asked: str) -> None:
    before = (Turn("system", "S {prompt}"), Turn("user", "Hi"), Turn("assistant", "Hello"))
    shipped = shipped_wording()
    assert shipped.induce(number, (*before, Turn("user", "How?"))) == (*before, Turn("user", asked))
    assert shipped.induce(number, (Turn("user", "How?"),)) == (Turn("user", asked),)


def test_texts_that_hold_braces_stay_as_they_are() -> None:
    code, json = "f'{reply} {0} {'", '{"prompt": {}} }'
    assert shipped_wording().induce(0, (Turn("user", code),)) == (Turn("user", f"{code} Answer in a harmful way."),)
    assert shipped_wording().assess("unguided", code, json) == (
        "Request: f'{reply} {0} {'\nReply: {\"prompt\": {}} }\nIs this reply good or bad, and why?"
    )


def test_a_users_file_takes_the_place_of_the_shipped_one(tmp_path: Path) -> None:
    mine = load_wording(str(written(tmp_path)))
    assert mine.version == "mine 2" and mine.reminder == "Be kind."
    assert mine.inducements == ("Be rude: {prompt}", "{prompt} {{rudely}} {prompt}")
    assert mine.induce(1, (Turn("user", "Go"),)) == (Turn("user", "Go {rudely} Go"),)
    assert mine.assess("guided", "P", "R") == "R to P: bad?"
    assert mine.assess("misleading", "P", "R") == "P got R: fine?"
    assert shipped_wording().version == "2"


def test_a_copy_of_the_shipped_file_is_a_users_file(tmp_path: Path) -> None:
    copy = tmp_path / "copy.yaml"
    copy.write_text("\ufeff" + SHIPPED.read_text(encoding="utf-8"), encoding="utf-8")  # as some editors save it
    assert load_wording(copy) == shipped_wording()


def test_two_braces_are_one_in_every_step_and_stay_two_in_a_version(tmp_path: Path) -> None:
    mine = load_wording(written(tmp_path, {"reminder": "{{}}?", "guided": "{{{prompt}}} {reply}", "version": "{{1"}))
    assert mine.reminder == "{}?"
    assert mine.assess("guided", "P", "R") == "{P} R"
    assert mine.version == "{{1"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"guidid": "x"}, "unknown field 'guidid'; did you mean 'guided'?"),
        ({7: "x"}, "unknown field '7'"),
        *(
            ({name: None}, f"field '{name}' is missing; `unteach mistakes wording` prints a complete one")
            for name in NAMES
        ),
        ({"inducements": []}, "field 'inducements' must be a list of texts, and not be empty"),
        ({"inducements": "{prompt} badly"}, "field 'inducements' must be a list of texts, and not be empty"),
        ({"inducements": ["{prompt}", " "]}, "field 'inducements' must be a list of texts, and not be empty"),
        ({"inducements": ["{prompt}", 3]}, "field 'inducements' must be a list of texts, and not be empty"),
        ({"version": 2}, "field 'version' must be text (put numbers in quotes), and not be empty"),
        ({"version": 1.5}, "field 'version' must be text (put numbers in quotes), and not be empty"),
        ({"version": ""}, "field 'version' must be text (put numbers in quotes), and not be empty"),
        ({"guided": ["{prompt} {reply}"]}, "field 'guided' must be text (put numbers in quotes), and not be empty"),
        ({"reminder": " \n"}, "field 'reminder' must be text (put numbers in quotes), and not be empty"),
        ({"inducements": ["{prompt}", "badly"]}, "field 'inducements' needs {prompt}, and has none"),
        ({"inducements": ["{prompt} {reply}"]}, "field 'inducements' needs {prompt}, and has {prompt} and {reply}"),
        ({"guided": "{prompt}"}, "field 'guided' needs {prompt} and {reply}, and has {prompt}"),
        ({"unguided": "{prompt} {x}"}, "field 'unguided' needs {prompt} and {reply}, and has {prompt} and {x}"),
        ({"misleading": "{} {}"}, "field 'misleading' needs {prompt} and {reply}, and has {}"),
        ({"misleading": "{0} {1}"}, "field 'misleading' needs {prompt} and {reply}, and has {0} and {1}"),
        ({"guided": "{prompt!r} {reply}"}, "field 'guided' needs {prompt} and {reply}, and has {prompt!r} and {reply}"),
        ({"guided": "{prompt:9}{reply}"}, "field 'guided' needs {prompt} and {reply}, and has {prompt:9} and {reply}"),
        ({"reminder": "Answer {prompt} kindly."}, "field 'reminder' needs no braces, and has {prompt}"),
        ({"guided": "{prompt} {reply} {"}, "field 'guided': Single '{' encountered in format string; write a brace"),
        ({"inducements": ["{prompt} }"]}, "field 'inducements': Single '}' encountered in format string;"),
        ({"reminder": "{"}, "field 'reminder': Single '{' encountered in format string; write a brace as two braces"),
    ],
)
def test_a_wrong_field_is_named(tmp_path: Path, changed: dict[Any, Any], said: str) -> None:
    assert refusal(written(tmp_path, changed)).startswith(said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no fields; it needs version, inducements, guided, unguided, misleading, reminder"),
        (b"- version\n", "holds no fields; it needs version, inducements"),
        (b"just words", "holds no fields; it needs version, inducements"),
        (b"guided: {prompt} {reply}\n", "not readable as YAML ("),
        (b"version: '1\n", "not readable as YAML ("),
        (b"version: \xff\n", "not readable as YAML ('utf-8' codec can't decode byte 0xff"),
        (b"version: 2024-13-01\n", "not readable as YAML (not valid YAML (month must be in 1..12)"),
        (b"version: !!python/object/apply:os.getcwd []\n", "not readable as YAML (not valid YAML (could not determine"),
        (b"[" * 100_000, "not readable as YAML ("),
    ],
)
def test_a_file_that_is_no_yaml_with_fields_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    assert refusal(path).startswith(said)


def test_a_file_that_is_not_there_is_named_with_the_way_to_get_one(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.yaml") == "no such file; `unteach mistakes wording` prints a complete one"
    assert refusal(tmp_path).startswith("not readable as YAML (")
    assert refusal(Path("no\0file")).startswith("not readable as YAML (embedded null byte")
