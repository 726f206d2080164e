"""Weights that FSDP2 spreads over two ranks train as those of one rank do, and what does not work with it is refused.

`make test-distributed` has more kinds, DeepSpeed's too (tests/sharded_kinds.py), and whole runs (tests/distributed.py,
`sharded`).
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from ranked import on_ranks
from sharded import compare, compare_resumed, saved_model
from unteach.errors import ConfigError
from unteach.models.fsdp2 import shards_of
from unteach.models.loading import load_model
from unteach.models.ranks import rank
from unteach.models.sharding import STRATEGIES, gathered
from unteach.models.unwrap import own_part, runs_alone
from unteach.pipeline.config import RunConfig
from unteach.pipeline.sharding import check_sharding, engine_of


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model"), tied=True)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_two_ranks_train_as_one_does(kind: str, model: Path, tmp_path: Path) -> None:
    compare(kind, "fsdp2", model, tmp_path)
    if kind == "full":
        compare_resumed(kind, "fsdp2", model, tmp_path)


@pytest.mark.slow
def test_gathered_weights_let_a_rank_run_the_model_alone(model: Path, tmp_path: Path) -> None:
    """Only the first rank runs it, and afterwards each has its part again."""

    def work() -> Any:
        sharded = load_model(model, device="cpu", shard="fsdp2")
        ids, before = torch.tensor([[1, 20, 30]]), sum(own_part(weight).numel() for weight in sharded.parameters())
        with torch.no_grad(), gathered(sharded):
            inside = runs_alone(sharded)
            logits = sharded(input_ids=ids).logits if rank() == 0 else None
        after = sum(own_part(weight).numel() for weight in sharded.parameters())
        return inside, runs_alone(sharded), before == after, len(shards_of(sharded)), before, logits

    (inside, outside, same, groups, parts, logits), other = on_ranks(2, work, tmp_path)
    assert (inside, outside, same) == (True, False, True) and groups > 2
    whole = load_model(model, device="cpu")
    with torch.no_grad():
        assert logits.equal(whole(input_ids=torch.tensor([[1, 20, 30]])).logits)
    assert parts + other[4] == sum(weight.numel() for weight in whole.parameters())


@pytest.mark.slow
def test_a_model_without_a_plan_is_refused(tmp_path: Path) -> None:
    shape = {"vocab_size": 66, "n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}
    GPT2LMHeadModel(GPT2Config(**shape)).save_pretrained(tmp_path / "gpt2")
    for said in on_ranks(2, lambda: load_model(tmp_path / "gpt2", device="cpu", shard="fsdp2"), tmp_path):
        assert "ModelError" in said and "no plan to shard a GPT2LMHeadModel" in said


@pytest.mark.parametrize(
    ("said", "settings"),
    [
        ("there is one process; start several", {}),
        ("4-bit weights cannot be sharded", {"load_in_4bit": True, "lora": True}),
        ("lm-eval runs in one process", {"lm_eval": ["arc_easy"]}),
        ("--strength auto needs whole weights", {"strength": "auto"}),
        ("--lora stood still", {"shard": "zero3", "lora": True}),
        ("DeepSpeed would cast all weights to bf16", {"shard": "zero3", "trainer": {"bf16": True}}),
    ],
)
def test_what_does_not_work_is_refused(said: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unteach.models.sharding.world", lambda: 2 if settings else 1)
    monkeypatch.setattr("unteach.models.zero.installed", lambda: True)
    config = RunConfig(**({"shard": "fsdp2"} | settings))
    with pytest.raises(ConfigError, match=f"^--shard {config.shard}: .*{said}|^--shard {config.shard}: {said}"):
        check_sharding(config)
    check_sharding(config.model_copy(update={"shard": None}))


def test_an_evaluation_has_nothing_that_zero2_spreads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unteach.models.sharding.world", lambda: 2)
    monkeypatch.setattr("unteach.models.zero.installed", lambda: True)
    with pytest.raises(ConfigError, match="--shard zero2: .*nothing is trained; drop it"):
        check_sharding(RunConfig(shard="zero2"), training=False)
    for settings in ({"shard": "zero2"}, {"shard": "zero3"}):
        check_sharding(RunConfig(**settings))
    check_sharding(RunConfig(shard="zero3"), training=False)


def test_only_deepspeed_offloads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unteach.models.sharding.world", lambda: 2)
    monkeypatch.setattr("unteach.models.zero.installed", lambda: True)
    for shard in (None, "fsdp2"):
        with pytest.raises(ConfigError, match="^--offload-optimizer: .*zero2 or zero3"):
            check_sharding(RunConfig(shard=shard, offload_optimizer=True))
    check_sharding(RunConfig(shard="zero2", offload_optimizer=True))


def test_without_deepspeed_one_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unteach.models.sharding.world", lambda: 2)
    monkeypatch.setattr("unteach.models.zero.installed", lambda: False)
    with pytest.raises(
        ConfigError, match="^--shard zero3: DeepSpeed is not installed; install it: .*pip install"
    ) as said:
        check_sharding(RunConfig(shard="zero3"))
    assert "\n" not in str(said.value)


def test_deepspeed_is_asked_for_the_stage_and_the_rest_follows_the_arguments() -> None:
    for shard, stage in (("zero2", 2), ("zero3", 3)):
        with engine_of(RunConfig(shard=shard)) as more:
            settings = more["deepspeed"]
        assert settings["zero_optimization"]["stage"] == stage
        named = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
        assert [settings[name] for name in named] == ["auto"] * 3 and "bf16" not in settings
        assert "offload_optimizer" not in settings["zero_optimization"]
    with engine_of(RunConfig(shard="zero2", offload_optimizer=True)) as more:
        assert more["deepspeed"]["zero_optimization"]["offload_optimizer"] == {"device": "cpu"}
    with engine_of(RunConfig(shard="fsdp2")) as more:
        assert more == {}


def test_a_model_is_not_loaded_in_parts_by_one_process(model: Path) -> None:
    for shard in STRATEGIES:
        with pytest.raises(ConfigError, match=f"--shard {shard}: there is one process"):
            load_model(model, shard=shard)
    with pytest.raises(ConfigError, match=r"--shard zero4: unknown; .*\(known: fsdp2, zero2, zero3\)"):
        RunConfig(shard="zero4")
