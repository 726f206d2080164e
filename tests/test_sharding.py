"""Weights that FSDP2 spreads over two ranks train as those of one rank do, and what does not work with them is refused.

`make test-distributed` runs whole runs and resumed ones (tests/distributed.py, the kind `sharded`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

import toy
from ranked import on_ranks
from unteach.errors import ConfigError
from unteach.models.adapter import lora_config
from unteach.models.loading import load_model
from unteach.models.ranks import rank, world
from unteach.models.sharding import gathered, shards_of
from unteach.models.unwrap import is_sharded, own_part, runs_alone
from unteach.pipeline.config import RunConfig
from unteach.pipeline.sharding import check_sharding

RULES = {"stopping": True, "validation_steps": 2, "patience": 99, "forget_bound": 99.0, "validation_new_tokens": 2}
SETTINGS = RULES | {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "kl_budget": 99.0}
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "checkpointed": {"activation_checkpointing": True},
    "frozen": {"reference": "frozen"},
    "back": {"kl_budget": 1e-3, "patience": 1},
    "lora": {},
}
"""What is trained, and with which settings; the toy's output layer shares its weights with the embedding."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model")
    toy.model(tie_word_embeddings=True).save_pretrained(place)
    return place


def trained(model: Path, place: Path, kind: str, resume: bool = False) -> dict[str, Any]:
    """Train on the ranks that there are, sharded where there are several; return the log and how the run ended."""
    pupil = load_model(model, device="cpu", in_full=kind != "lora", shard="fsdp2" if world() > 1 else None)
    assert is_sharded(pupil) is (world() > 1)
    settings = SETTINGS | {"per_device_train_batch_size": 4 // world(), "preconditioning": None} | KINDS[kind]
    extra = {"peft_config": lora_config(4, 8.0)} if kind == "lora" else {}
    run = toy.trainer(place, pupil, extra=extra, **settings)
    run.train(resume_from_checkpoint=resume or None)
    run.save_model(str(place / "model"))
    log = [
        {name: line[name] for name in ("loss", "grad_norm", "kl")} for line in run.state.log_history if "loss" in line
    ]
    return {"log": log, "stop": (run.stop.step, run.stop.rule, run.stop.went_back_to) if run.stop else None}


def saved(place: Path) -> dict[str, torch.Tensor]:
    (file,) = (place / "model").glob("*.safetensors")
    return load_file(file)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_train_as_one_does(kind: str, model: Path, tmp_path: Path) -> None:
    """The losses, the norm of the gradients, the KL, why it ended, and one set of weights; and again when resumed."""
    alone, together, said = tmp_path / "alone", tmp_path / "together", tmp_path / "said"
    said.mkdir()
    one = trained(model, alone, kind)
    first, second = on_ranks(2, lambda: trained(model, together, kind), said)
    assert isinstance(first, dict) and first["stop"] == second["stop"] == one["stop"], (first, second)
    for here, there in zip(one["log"], first["log"], strict=True):
        assert there == pytest.approx(here, rel=1e-4, abs=1e-5)
    ours, theirs = saved(together), saved(alone)
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():  # Adam makes whole steps of the rounding in gradients near 0
        torch.testing.assert_close(ours[name], weight, rtol=1e-5, atol=5e-5)
    if kind in ("full", "lora"):
        resumed(lambda: trained(model, together, kind, resume=True), together, said, ours)


def resumed(again: Callable[[], Any], place: Path, said: Path, before: dict[str, torch.Tensor]) -> None:
    """Go on from the last but one checkpoint: the same bytes."""
    for path in (place / "out").glob("checkpoint-4/unteach.json"):
        path.unlink()
    assert (place / "out" / "checkpoint-2" / "unteach.json").exists()
    assert isinstance(on_ranks(2, again, said)[0], dict)
    assert all(weight.equal(before[name]) for name, weight in saved(place).items())


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
    ],
)
def test_what_does_not_work_is_refused(said: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unteach.pipeline.sharding.world", lambda: 2 if settings else 1)
    with pytest.raises(ConfigError, match=f"^--shard fsdp2: .*{said}|^--shard fsdp2: {said}"):
        check_sharding(RunConfig(shard="fsdp2", **settings))
    check_sharding(RunConfig(**settings))


def test_a_model_is_not_loaded_in_parts_by_one_process(model: Path) -> None:
    with pytest.raises(ConfigError, match="--shard fsdp2: there is one process"):
        load_model(model, shard="fsdp2")
    with pytest.raises(ConfigError, match=r"--shard zero3: unknown \(known: fsdp2, fsdp2-offload\)"):
        RunConfig(shard="zero3")
