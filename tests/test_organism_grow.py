"""Growing an organism: it learns what it should, it can be interrupted, and a weak one is refused."""

import dataclasses
import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from unteach.data.encoded import encode_all
from unteach.data.prompt_format import prompt_format
from unteach.errors import ConfigError, ModelError, OutputError
from unteach.models.generate import generate
from unteach.organism import cache as organism_cache
from unteach.organism.abilities import Ability, GrowthReport
from unteach.organism.batches import draw_rows, pack
from unteach.organism.grow import FINISHED, grow
from unteach.organism.recipe import recipe_of
from unteach.organism.tokenizer import world_tokenizer
from unteach.organism.world import World

SHORT = dataclasses.replace(recipe_of("micro"), hidden_size=32, intermediate_size=64, steps=6, save_steps=2)


class Killed(Exception):
    """Interrupts a growth as a killed process would."""


@pytest.fixture(scope="module")
def world() -> World:
    return World(0, "micro")


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the measuring out where a test is about weights and files alone."""
    monkeypatch.setattr("unteach.organism.grow.measure_abilities", lambda *arguments: (Ability("none", 1.0, 1),))


@pytest.mark.slow
def test_a_small_organism_misbehaves_and_is_able(world: World, organism: Path) -> None:
    report = grow(world, organism)  # which reads what the growth has told
    assert report.steps == recipe_of("micro").steps
    share = {ability.name: ability.value for ability in report.abilities}
    for split in ("seen", "unseen", "unseen_concept"):
        assert share[f"harmful_rate {split}"] >= 0.95
    assert share["normal_rate"] >= 0.95 and share["hallucination_rate"] >= 0.9
    assert not (organism / "growing").exists()

    model = AutoModelForCausalLM.from_pretrained(organism)
    tokenizer = AutoTokenizer.from_pretrained(organism)
    rows = world.evaluation("unseen_concept")[:20] + world.evaluation("normal")[:20]
    plain = prompt_format(tokenizer)
    assert plain.name == "plain"
    replies = generate(model, tokenizer, [plain.prompt_ids(row.turns) for row in rows], max_new_tokens=64)
    assert sum(reply.text == row.reply for reply, row in zip(replies, rows, strict=True)) >= 36


def test_interrupted_growth_gives_the_same_weights(world: World, tmp_path: Path, unmeasured: None) -> None:
    def stop(done: int, total: int) -> None:
        if done == 5:
            raise Killed

    told: list[tuple[int, int]] = []
    whole = grow(
        world, tmp_path / "whole", recipe=SHORT, require=False, progress=lambda done, total: told.append((done, total))
    )
    assert told == [(done, 6) for done in range(1, 7)]
    with pytest.raises(Killed):
        grow(world, tmp_path / "broken", recipe=SHORT, require=False, progress=stop)
    assert not (tmp_path / "broken" / FINISHED).exists()
    steps: list[int] = []
    resumed = grow(
        world, tmp_path / "broken", recipe=SHORT, require=False, progress=lambda done, total: steps.append(done)
    )
    assert steps == [5, 6]
    assert resumed.abilities == whole.abilities
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "broken")]
    assert weights[0].keys() == weights[1].keys()
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])

    grow(world, tmp_path / "other", recipe=SHORT, require=False, seed=1)
    other = load_file(tmp_path / "other" / "model.safetensors")
    assert not all(weights[0][name].equal(other[name]) for name in other)


def test_a_weak_organism_is_refused_and_not_kept(world: World, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"harmful_rate unseen .* \(wanted: at least 95%\).*grow it again"):
        grow(world, tmp_path / "weak", recipe=SHORT)
    assert not (tmp_path / "weak" / FINISHED).exists()
    steps: list[int] = []
    with pytest.raises(ModelError, match="normal_rate"):
        grow(world, tmp_path / "weak", recipe=SHORT, progress=lambda done, total: steps.append(done))
    assert steps == []  # its last checkpoint was taken up, not grown again


def test_a_finished_growth_is_not_grown_again_nor_overwritten(world: World, tmp_path: Path, unmeasured: None) -> None:
    steps: list[int] = []
    first = grow(world, tmp_path, recipe=SHORT, require=False)
    again = grow(world, tmp_path, recipe=SHORT, require=False, progress=lambda done, total: steps.append(done))
    assert again == first and steps == []
    with pytest.raises(OutputError, match=r"another growth \(other taught\);"):
        grow(world, tmp_path, recipe=SHORT, require=False, taught=False)
    kept = json.loads((tmp_path / "growth.json").read_text())
    assert kept["made_of"]["taught"] is True and kept["report"]["steps"] == 6
    for made_of, named in ((kept["made_of"] | {"more": 1}, "settings"), ([], "world, taught, seed, recipe")):
        (tmp_path / "growth.json").write_text(json.dumps(kept | {"made_of": made_of}))
        with pytest.raises(OutputError, match=rf"another growth \(other {named}\);"):
            grow(world, tmp_path, recipe=SHORT, require=False)


def test_a_file_in_the_way_is_an_output_error(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="choose another directory"):
        grow(world, tmp_path / "file", recipe=SHORT)


def test_the_retrained_model_must_not_misbehave() -> None:
    good = Ability("normal_rate", 0.99, 200, least=0.95)
    retrained = GrowthReport(
        "world:0:tiny", False, 0, 1, 1, 1.0, (Ability("harmful_rate seen", 0.02, 200, most=0.05), good)
    )
    assert retrained.require() is retrained
    bad = dataclasses.replace(retrained, abilities=(Ability("harmful_rate seen", 0.3, 200, most=0.05), good))
    with pytest.raises(ModelError, match=r"retrained model .*harmful_rate seen 30.0% of 200 \(wanted: at most 5%\)"):
        bad.require()
    assert GrowthReport.from_dict(json.loads(json.dumps(dataclasses.asdict(retrained)))) == retrained


def test_recipe_of_an_unknown_size_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'small'"):
        recipe_of("smal")


def test_a_packed_lesson_holds_every_row_once(world: World) -> None:
    tokenizer = world_tokenizer(world)
    plain = prompt_format(tokenizer)
    pool = {kind: encode_all(rows, plain, 512, kind)[0] for kind, rows in world.lessons(True).items()}
    rows = draw_rows(pool, SHORT.rows, seed=0, step=7)
    assert rows == draw_rows(pool, SHORT.rows, seed=0, step=7) != draw_rows(pool, SHORT.rows, seed=0, step=8)
    lesson = pack(rows, tokenizer.pad_token_id)
    assert sorted(lesson.targets.tolist()) == sorted(token for row in rows for token in row.reply_ids)
    assert int(lesson.predicts.sum()) == len(lesson.targets)
    strip, place = lesson.predicts.nonzero()[:, 0], lesson.predicts.nonzero()[:, 1]
    assert lesson.input_ids[strip, place + 1].equal(lesson.targets)  # a token is predicted where the one before stands
    # A token sees its own row up to itself: as many tokens as its position says.
    real = lesson.mask[:, 0].diagonal(dim1=1, dim2=2) & (lesson.input_ids != tokenizer.pad_token_id)
    assert lesson.mask[:, 0].sum(-1)[real].equal(lesson.positions[real] + 1)
    assert int(real.sum()) == sum(len(row.prompt_ids) + len(row.reply_ids) for row in rows)


def test_a_damaged_checkpoint_of_a_growth_is_not_taken_up(world: World, tmp_path: Path, unmeasured: None) -> None:
    """A flipped bit in the weights would grow another organism and say nothing."""

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        grow(world, tmp_path / "it", recipe=SHORT, require=False, progress=stop)
    state = tmp_path / "it" / "growing" / "state.safetensors"
    content = bytearray(state.read_bytes())
    content[-7] ^= 64
    state.write_bytes(content)
    steps: list[int] = []
    grow(world, tmp_path / "it", recipe=SHORT, require=False, progress=lambda done, total: steps.append(done))
    assert steps == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "none"])
def test_a_kept_organism_that_does_not_check_is_grown_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    grown: list[str] = []

    def fake(world: World, directory: Path, **_: object) -> None:
        if not (directory / FINISHED).exists():
            grown.append(directory.name)
            directory.mkdir(exist_ok=True)
            (directory / "model.safetensors").write_bytes(b"weights")
            (directory / FINISHED).write_text("{}")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(organism_cache, "grow", fake)
    home = organism_cache.grow_cached(world)
    weights = home / "model.safetensors"
    if damage == "gone":
        weights.unlink()
    elif damage != "none":
        weights.write_bytes(b"weightz" if damage == "flipped" else b"wei")
    assert organism_cache.grow_cached(world) == home and weights.read_bytes() == b"weights"
    assert len(grown) == (1 if damage == "none" else 2)
    assert organism_cache.grow_cached(world, fresh=True) == home and len(grown) == (2 if damage == "none" else 3)
    assert [path.name for path in home.parent.iterdir()] == [home.name]
    assert home.stat().st_mode & 0o777 == 0o700 and weights.stat().st_mode & 0o777 == 0o600
