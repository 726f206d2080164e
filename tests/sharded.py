"""Training that is spread over two ranks, compared with one rank; for test_sharding.py and sharded_kinds.py."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import toy
from ranked import on_ranks
from unteach.models import sharding, zero
from unteach.models.adapter import lora_config
from unteach.models.loading import load_model
from unteach.models.ranks import world
from unteach.models.sharding import STRATEGIES
from unteach.models.unwrap import is_sharded, size_of

RULES = {"stopping": True, "validation_steps": 2, "patience": 99, "forget_bound": 99.0, "validation_new_tokens": 2}
SETTINGS = RULES | {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "kl_budget": 99.0}
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {},
    "full, checkpointed": {"activation_checkpointing": True},
    "lora, checkpointed": {"activation_checkpointing": True},
    "full, frozen copy": {"reference": "frozen"},
    "lora, frozen copy": {"reference": "frozen"},
    "full, accumulated": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2},
    "full, back to the original": {"kl_budget": 1e-3, "patience": 1},
    "lora, bfloat16": {"dtype": "bfloat16"},
    "full, layer by layer": {"room": False},
    "lora, layer by layer": {"room": False},
    "full, offloaded": {"offload": True},
    "lora, offloaded": {"offload": True},
}
"""What is trained, and with which settings.

`dtype` is that of frozen weights, and `offload` is DeepSpeed's; without `room` weights are never all gathered.
"""
USUAL = ("full", "lora")
RESUMED = (*USUAL, "lora, bfloat16", "full, offloaded")


def cases() -> list[tuple[str, str, bool]]:
    """Return what is to be tried: strategy, kind, and whether the output layer shares the embedding's weights.

    Kinds without a strategy of their own are tried with each, and both ways of tying with what is usual.
    """
    found = []
    for kind, settings in KINDS.items():
        shards = ("ddp", "fsdp2", "zero2", "zero3") if kind in (*USUAL, "full, accumulated") else STRATEGIES
        shards = tuple(sharding.PARTED) if "room" in settings else shards
        shards = ("zero2", "zero3") if "offload" in settings else shards
        found += [(shard, kind, tied) for shard in shards for tied in ((False, True) if kind in USUAL else (True,))]
    return found


def require(shard: str) -> None:
    """Skip a test of a strategy that cannot be tried here."""
    if shard.startswith("zero") and not zero.installed():
        pytest.skip("DeepSpeed is not installed")


def saved_model(place: Path, tied: bool) -> Path:
    """Save the toy, whose output layer may share its weights with the embedding."""
    toy.model(tie_word_embeddings=tied).save_pretrained(place)
    return place


def trained(model: Path, place: Path, kind: str, shard: str, resume: bool = False) -> dict[str, Any]:
    """Train on the ranks that there are, sharded where there are several; return the log and how the run ended."""
    lora, several = kind.startswith("lora"), world() > 1
    settings = SETTINGS | {"per_device_train_batch_size": 4, "preconditioning": None} | KINDS[kind]
    settings["per_device_train_batch_size"] //= world()
    offload, room, dtype = (settings.pop(*own) for own in (("offload", False), ("room", True), ("dtype", "auto")))
    sharding._fit = lambda models: room  # type: ignore[assignment]
    parted = shard if several and shard != "ddp" else None
    zero.PERSISTENT, zero.BUCKET = 100, 3000  # norms stay whole and all else is parted, as in a large model
    pupil = load_model(model, device="cpu", dtype=dtype, in_full=not lora, shard=parted)
    assert is_sharded(pupil) is (parted in sharding.PARTED)
    if parted and parted.startswith("zero"):
        settings["deepspeed"] = zero.engine_settings(parted, offload)
    run = toy.trainer(place, pupil, extra={"peft_config": lora_config(4, 8.0)} if lora else {}, **settings)
    run.train(resume_from_checkpoint=resume or None)
    if "deepspeed" in settings:
        require_parts(run, shard)
    run.save_model(str(place / "model"))
    names = ("loss", "grad_norm", "kl")
    log = [{name: line[name] for name in names} for line in run.state.log_history if "loss" in line]
    return {"log": log, "stop": (run.stop.step, run.stop.rule, run.stop.went_back_to) if run.stop else None}


def require_parts(run: Any, shard: str) -> None:
    """Raise unless DeepSpeed has trained at this stage, and a rank moved half of what is trained."""
    assert run.model_wrapped.zero_optimization_stage() == int(shard[-1])
    sizes = [size_of(weight) for weight in run.model.parameters() if weight.requires_grad]
    moved = sum(weights.numel() for weights in zero.moved_weights(run.model_wrapped))
    assert sum(sizes) / 2 <= moved < sum(sizes) / 2 + 8 * len(sizes), "each is filled up to a multiple of the ranks"
    if shard == "zero3":
        freed = [weight for weight in run.model.parameters() if weight.ds_status.name == "NOT_AVAILABLE"]
        assert freed and all(weight.numel() == 0 for weight in freed)


def saved(place: Path) -> dict[str, torch.Tensor]:
    (file,) = (place / "model").glob("*.safetensors")
    return load_file(file)


@functools.cache
def alone(kind: str, model: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return what one rank logs, and its weights."""
    with tempfile.TemporaryDirectory() as place:
        return trained(model, Path(place), kind, "ddp"), saved(Path(place))


def compare(kind: str, shard: str, model: Path, place: Path) -> None:
    """Raise unless two ranks have one rank's losses, gradient norms, KL, reason to end, and one set of its weights."""
    one, theirs = alone(kind, model)
    first, second = on_ranks(2, lambda: trained(model, place / "together", kind, shard), place)
    assert isinstance(first, dict) and first["stop"] == second["stop"] == one["stop"], (first, second, one)
    narrow = "dtype" in KINDS[kind]  # where half a batch is rounded otherwise than in the whole
    for here, there in zip(one["log"], first["log"], strict=True):
        assert there == pytest.approx(here, rel=0.05 if narrow else 1e-4, abs=0.005 if narrow else 1e-5)
    ours = saved(place / "together")
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():  # Adam makes whole steps of the rounding in gradients near 0
        torch.testing.assert_close(ours[name], weight, rtol=1e-5, atol=8e-3 if narrow else 5e-5)


def compare_resumed(kind: str, shard: str, model: Path, place: Path) -> None:
    """Raise unless the two ranks of `compare` go on from their last but one checkpoint to the same bytes."""
    before = saved(place / "together")
    (place / "together" / "out" / "checkpoint-4" / "unteach.json").unlink()
    assert (place / "together" / "out" / "checkpoint-2" / "unteach.json").exists()
    first, _ = on_ranks(2, lambda: trained(model, place / "together", kind, shard, resume=True), place)
    assert isinstance(first, dict), first
    assert all(weight.equal(before[name]) for name, weight in saved(place / "together").items())
