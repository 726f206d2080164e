"""Chain of Hindsight's masks by hand, the rows of a baseline against those of a run, and its wording."""

from pathlib import Path

import pytest
import yaml

import toy
from bench import GOOD, bench, negatives, normals, without_answers
from command import write_rows
from unteach.baselines import load_baseline
from unteach.baselines.config import SHARED, BaselineConfig, as_run
from unteach.baselines.rows import read_rows, rows_as_met
from unteach.errors import ConfigError, DataError
from unteach.pipeline.config import RunConfig, with_defaults
from unteach.pipeline.rows import read_sets
from unteach.pipeline.settings import make_config
from unteach.prompts.baselines import SHIPPED, load_wording
from unteach.training.dataset import UnlearnItems

CHAT = (
    "{% for m in messages %}{{ m['role'] + ' : ' + m['content'] }}{% if m['role'] == 'assistant' %}</s>{% endif %} "
    "{% endfor %}{% if add_generation_prompt %}assistant : {% endif %}"
)


def words_of(tokenizer, ids, keep):
    return [tokenizer.convert_ids_to_tokens(token) for token, kept in zip(ids, keep, strict=True) if kept]


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("name", ["coh", "coh-masked"])
def test_chains_go_both_ways_and_learn_what_they_say(tmp_path, name, chat):
    tokenizer = toy.tokenizer(chat_template=CHAT) if chat else toy.tokenizer()
    wording = tmp_path / "words.yaml"
    spoken = {"version": "1", "good": "then go", "bad": "then no", "critique": "where", "revision": "to"}
    wording.write_text(yaml.safe_dump(spoken))
    made = bench(tmp_path, name, tokenizer=tokenizer, wording=str(wording), normals_per_row=0)
    made.rows.negatives = made.rows.negatives[:1]
    good_first, bad_first = load_baseline(name).prepare(made)
    bad, good = "take c0 and d0".split(), GOOD.split()
    learnt = words_of(tokenizer, good_first.input_ids, good_first.learnt)
    expected = [*good, "</s>", *bad, "</s>"] if name == "coh" else [*good, "</s>"]
    assert learnt == expected
    learnt = words_of(tokenizer, bad_first.input_ids, bad_first.learnt)
    assert learnt == ([*bad, "</s>", *good, "</s>"] if name == "coh" else [*good, "</s>"])
    text = " ".join(tokenizer.convert_ids_to_tokens(good_first.input_ids))
    places = [text.index(part) for part in ("then go", "how to a0 b0", GOOD, "then no", "take c0 and d0")]
    assert places == sorted(places)
    text = " ".join(tokenizer.convert_ids_to_tokens(bad_first.input_ids))
    places = [text.index(part) for part in ("then no", "how to a0 b0", "take c0 and d0", "then go", GOOD)]
    assert places == sorted(places)
    assert load_baseline(name).phrase(made.config) == "then go"


def test_normal_rows_have_the_good_phrase_too(tmp_path):
    made = bench(tmp_path, "coh")
    made.max_length = 128
    rows = [row for row in load_baseline("coh").prepare(made) if row.kind == "normal"]
    assert len(rows) == 20
    unknown = toy.VOCABULARY["<unk>"]  # "Give a good answer." in the toy's words
    assert all(unknown in row.encoded.prompt_ids for row in rows)


@pytest.mark.parametrize("name", ["sft", "dpo", "coh", "rlhf"])
def test_without_good_answers_the_first_row_is_named(tmp_path, name):
    made = bench(tmp_path, name)
    made.rows.negatives = without_answers(made.rows.negatives)
    with pytest.raises(DataError, match=f"baseline {name}: none of the 20 negatives has a good answer .first: row 1"):
        load_baseline(name).check(made.rows, made.config)


# ---- the rows of a run -----------------------------------------------------------------------------------------------


def files(tmp_path: Path) -> dict[str, list[str]]:
    paired = [{"prompt": r["prompt"], "chosen": GOOD, "rejected": r["completion"]} for r in toy.FORGET]
    forget = write_rows(tmp_path / "forget.jsonl", paired)
    retain = write_rows(tmp_path / "retain.jsonl", toy.RETAIN)
    return {"model": "m", "forget": [str(forget)], "retain": [str(retain)], "output": "o"}


def test_rows_are_parted_and_met_as_a_run_does(tmp_path):
    given = files(tmp_path)
    config = BaselineConfig(**given, seed=3)
    shared = with_defaults(as_run(config))
    rows = read_rows(config, shared)
    theirs = read_sets(with_defaults(RunConfig(**given, seed=3)))
    assert rows.sets.evaluation == theirs.evaluation and rows.sets.negatives == theirs.negatives
    assert rows.sets.normals == theirs.normals
    encoded = [bench(tmp_path).original.form.prompt_ids(row.turns) for row in theirs.negatives["train"]]
    items = UnlearnItems(encoded, [], 960, 3, normals_per_negative=0)
    met = dict.fromkeys(items.negative_index(n) for n in range(800))
    assert rows_as_met(rows, shared, 960) == [theirs.negatives["train"][n] for n in met]
    assert all(row.good == GOOD for row in rows.negatives)


def test_good_answers_are_matched_by_prompt_and_never_from_what_is_checked(tmp_path):
    given = files(tmp_path)
    write_rows(tmp_path / "forget.jsonl", toy.FORGET)
    answers = [{"prompt": row["prompt"], "completion": GOOD} for row in toy.FORGET]
    answers.append({"prompt": "how to h5 h4", "completion": "no"})
    good = write_rows(tmp_path / "good.jsonl", answers)
    config = BaselineConfig(**given, good=[str(good)])
    rows = read_rows(config, with_defaults(as_run(config)))
    assert all(row.good == GOOD for row in [*rows.negatives, *rows.validation])
    assert [row.prompt for row in rows.answered] == ["how to h5 h4"]
    held = len(rows.sets.evaluation["unseen"]) + len(rows.validation)
    assert f"good: left out {held} of 25 rows, whose prompts are evaluated on" in rows.sets.notes


def test_most_rows_draws_by_lot_and_says_so(tmp_path):
    config = BaselineConfig(**files(tmp_path), most_rows=4)
    rows = read_rows(config, with_defaults(as_run(config)))
    assert len(rows.negatives) == 4 and "trained on 4 of" in " ".join(rows.sets.notes)


def test_settings_that_are_shared_have_the_defaults_of_a_run():
    for name in SHARED - {"max_length"}:
        ours, theirs = BaselineConfig.model_fields[name], RunConfig.model_fields[name]
        assert ours.default == theirs.default and ours.json_schema_extra == theirs.json_schema_extra
    assert {"forget", "retain", "unseen", "normal", "seed", "judge", "evaluation_prompts"} <= SHARED
    with pytest.raises(ConfigError, match="--prompt-format xml"):
        make_config({"prompt_format": "xml"}, BaselineConfig)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- a list", "holds no fields"),
        ("good: [", "not readable as YAML"),
        ("goood: x", "unknown field 'goood'; did you mean 'good'"),
        ("version: '1'\ngood: g\nbad: b\ncritique: c", "field 'revision' is missing; copy "),
        ("{version: 1, good: g, bad: b, critique: c, revision: r}", "field 'version' must be text"),
    ],
)
def test_wording_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "words.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_wording(str(path))


def test_the_shipped_wording_names_the_kinds_of_harm():
    words = load_wording(None)
    assert words.version == "1" and SHIPPED.exists()
    for kind in ("harmful", "unethical", "offensive", "dangerous", "illegal"):
        assert kind in words.critique and kind in words.revision
    with pytest.raises(ConfigError, match="no such file"):
        load_wording("/nowhere.yaml")


def test_normals_are_drawn_once_before_any_comes_twice(tmp_path):
    made = bench(tmp_path, "kto", normals_per_row=1.5)
    rows = [row.input_ids for row in load_baseline("kto").prepare(made) if row.kind == "normal"]
    assert len(rows) == 30 and len(set(rows)) == 20
    assert len(normals()) == 24 and len(negatives()) == 24
