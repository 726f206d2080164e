"""More kinds of tests/test_sharding.py, for `make test-distributed`, which names this file; pytest does not find it."""

from pathlib import Path

import pytest

from sharded import RESUMED, cases, compare, compare_resumed, require, saved_model


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
