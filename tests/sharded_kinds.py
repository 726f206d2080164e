"""More kinds of tests/test_sharding.py, for `make test-distributed`, which names this file; pytest does not find it."""

from pathlib import Path

import pytest

from sharded import KINDS, compare, compare_resumed, require, saved_model


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shard", ["ddp", "fsdp2", "zero2", "zero3"])
def test_two_ranks_train_as_one_does(shard: str, kind: str, tied: bool, tmp_path: Path) -> None:
    """Fresh and, where all weights or an adapter are trained as usual or offloaded, resumed."""
    require(shard, kind)
    model = saved_model(tmp_path / "model", tied)
    compare(kind, shard, model, tmp_path)
    if kind in ("full", "lora", "full, offloaded"):
        compare_resumed(kind, shard, model, tmp_path)
