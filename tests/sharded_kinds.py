"""More kinds of tests/test_sharding.py, for `make test-distributed`, which names this file; pytest does not find it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from ranked import on_ranks
from sharded import RESUMED, cases, compare, compare_resumed, require, saved_model
from unteach.models import sharding, zero
from unteach.models.loading import load_model
from unteach.models.ranks import rank
from unteach.models.unwrap import own_part, runs_alone

# Accelerate 1.15 sets what torch 2.13 has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*broadcast_buffers:FutureWarning")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """A model whose output layer shares the embedding's weights, under True, and another one."""
    return {tied: saved_model(tmp_path_factory.mktemp("model"), tied) for tied in (False, True)}


@pytest.mark.parametrize(("shard", "kind", "tied"), cases())
def test_two_ranks_train_as_one_does(
    shard: str, kind: str, tied: bool, models: dict[bool, Path], tmp_path: Path
) -> None:
    """Fresh and, for some kinds, resumed."""
    require(shard)
    compare(kind, shard, models[tied], tmp_path)
    if kind in RESUMED:
        compare_resumed(kind, shard, models[tied], tmp_path)


def test_weights_that_deepspeed_parts_are_gathered_and_parted_again(models: dict[bool, Path], tmp_path: Path) -> None:
    """The first rank runs the model alone, then both do together, layer by layer."""
    require("zero3")
    zero.PERSISTENT = 0
    ids = torch.tensor([[1, 20, 30]])

    def work() -> Any:
        model = load_model(models[False], device="cpu", shard="zero3")
        with torch.no_grad(), sharding.gathered(model):
            alone = runs_alone(model), model(input_ids=ids).logits if rank() == 0 else None
        with torch.no_grad():
            together = runs_alone(model), model(input_ids=ids).logits
        return alone, together, sum(own_part(weight).numel() for weight in model.parameters())

    (alone, together, part), other = on_ranks(2, work, tmp_path)
    model = load_model(models[False], device="cpu")
    assert part + other[2] == model.num_parameters() and 0.9 < part / other[2] < 1.1
    with torch.no_grad():
        logits = model(input_ids=ids).logits
    assert alone[0] and not together[0] and alone[1].equal(logits)
    torch.testing.assert_close(together[1], logits)
