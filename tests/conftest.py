"""What many tests share: an offline, single-threaded process, executed shape annotations, tiny models and batches."""

import gc
import os
import signal

from unteach.cli.command import quiet

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # as for the ranks of a run: DDP warns of what the Trainer asks
quiet()  # as a verb does before it imports anything that is told by it

from beartype import BeartypeConf, beartype  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float, as for the type checker

# Before anything imports these: from here on, their annotated shapes are checked at every call.
OBJECTIVES = [f"unteach.objectives.{file}" for file in ("base", "divergence", "likelihood", "preference")]
install_import_hook([*OBJECTIVES, "unteach.scoring.score", "unteach.scoring.trees"], f"{__name__}.checked")

from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import pytest  # noqa: E402
import torch  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

from browser import browser  # noqa: E402, F401  # one for all modules: two would be started in one process
from unteach.scoring.trees import Branch, Tree  # noqa: E402

# A shell without job control lets background commands ignore Ctrl-C, nohup a closed terminal; so would all tests start.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


SHARED = Path(__file__).resolve().parents[2] / "shared"
LONGEST = """mistakes_run ranks faults run stress_shallow study distributed signals bad_input resume baselines_command
benchmarks budget baselines_training mistakes_tune""".split()
"""The files that take longest, the longest first: one that begins last keeps one worker busy and the others idle."""

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the order is otherwise as collected."""
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def pytest_collection_finish() -> None:
    """Spare later garbage collections what is imported by now: every training begins with one, of half a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def shared() -> Path:
    """The real rows and the testbed beside the checkout."""
    if not SHARED.exists():
        pytest.skip(f"no real rows at {SHARED}")
    return SHARED


@pytest.fixture
def tiny_llama() -> LlamaForCausalLM:
    """A two-layer Llama with 61 tokens, in float32 and evaluation mode; its dropout must never show."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=61,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.3,
        bos_token_id=1,
        eos_token_id=2,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture
def trees() -> list[Tree]:
    """Two forget prompts of different length: a bad reply and mismatched ones, of one token too."""
    return [
        Tree(
            (1, 5, 6, 7),
            (Branch("negative", (8, 9, 2)), Branch("mismatch", (10, 2)), Branch("mismatch", (2,))),
            ("rows", 0),
        ),
        Tree((1, 11), (Branch("negative", (12, 2)), Branch("mismatch", (13, 14, 15, 16, 2))), ("rows", 1)),
    ]


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the tests cache stays with the tests, also in the processes that they start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def organism(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest organism, of `World(0, "micro")`: grown once for all workers; tests read it and do not change it."""
    from unteach.organism.cache import grow_cached
    from unteach.organism.world import World

    mine = tmp_path_factory.getbasetemp()
    of_all = mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(of_all / "organisms"))
        return grow_cached(World(0, "micro"))
