"""The plan for many cards: its arithmetic against what torch holds on a tiny model, and what it says of a large one."""

import json
import re
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

import toy
from command import Place, call, place
from unteach.errors import ConfigError
from unteach.models.adapter import add_adapter, lora_config
from unteach.models.outline import activation_bytes, model_outline, outline_of
from unteach.pipeline.cards import Cluster, choose, memory_of, step_time, traffic_of
from unteach.pipeline.growth import read_amount
from unteach.pipeline.stages import Stage, in_flops
from unteach.results.cost import flops_of
from unteach.scoring.score import CHUNK_BYTES

Capture = pytest.CaptureFixture[str]
LARGE = {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80, "num_attention_heads": 64}
LARGE |= {"num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 8192}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of 70B parameters, and nothing else."""
    directory = tmp_path_factory.mktemp("large")
    (directory / "config.json").write_text(json.dumps(LlamaConfig(**LARGE).to_dict()))
    return directory


def after_a_step(model):
    """Make a step of Adam; return the bytes of weights, gradients and moments that torch holds."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    ids = torch.arange(12)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    moments = [value for state in optimizer.state.values() for value in state.values() if value.numel() > 1]
    tensors = (list(model.parameters()), [weight.grad for weight in trained], moments)
    return [sum(tensor.numel() * tensor.element_size() for tensor in kind) for kind in tensors]


def test_memory_is_what_torch_holds(here: Place) -> None:
    """Full tuning to the byte; of an adapter, what is trained (a CPU holds the frozen weights in float32)."""
    outline, model = outline_of(model_outline(str(here.model))), toy.model()
    planned = memory_of(outline, "DDP", "full", 1, 0)
    assert [planned.weights, planned.gradients, planned.optimizer] == after_a_step(model)
    assert planned.gathered == 0 and planned.logits == 3 * CHUNK_BYTES

    adapted = add_adapter(toy.model(), lora_config(4, 8))
    planned = memory_of(outline_of(adapted), "DDP", "lora", 1, 0)
    trained = sum(weight.numel() for weight in adapted.parameters() if weight.requires_grad)
    weights, gradients, moments = after_a_step(adapted)
    assert [planned.gradients, planned.optimizer] == [gradients, moments]
    assert planned.weights - 4 * trained == (weights - 4 * trained) / 2


def test_activations_are_those_that_autograd_saves() -> None:
    """Layers add up, and each keeps its inputs, its states between matrices and no more than a few copies of them."""
    of_two, of_three = (activation_bytes(toy.model(num_hidden_layers=layers).to(torch.float32)) for layers in (2, 3))
    outline = outline_of(toy.model())
    assert outline.activations == pytest.approx(of_two / 2)
    a_layer, width, inner = of_three - of_two, 32, 64
    assert 4 * (8 * width + 3 * inner) < a_layer < 4 * (20 * width + 5 * inner)
    assert outline.entering == 2 * 2 * width


def test_an_outline_counts_as_the_model_does(here: Place) -> None:
    bare, model = model_outline(str(here.model)), toy.model()
    assert bare.device.type == "meta" and outline_of(bare).parameters == sum(w.numel() for w in model.parameters())
    assert in_flops(bare).of(Stage("one", backward=7, forward=3)) == flops_of(model, forward=3, backward=7)
    held = activation_bytes(model.bfloat16())  # the CPU's attention keeps less than the plain one on the meta device
    assert held <= activation_bytes(bare) <= 1.2 * held


def test_sharded_weights_are_zeros_sums(large: Path) -> None:
    """ZeRO-2: 4 + 16/n bytes a parameter, ZeRO-3: 20/n, FSDP2: 16/n; an all-reduce sends twice what a gather sends."""
    outline = outline_of(model_outline(str(large)))
    assert outline.parameters == 70_553_706_496  # 80 layers of 855,654,400, two tables of 128256 x 8192, a norm
    count = outline.parameters
    for cards in (8, 64):
        for strategy, bytes_each in (("ZeRO-2", 4 + 16 / cards), ("ZeRO-3", 20 / cards), ("FSDP2", 16 / cards)):
            held = memory_of(outline, strategy, "full", cards, 0)
            assert held.weights + held.gradients + held.optimizer == pytest.approx(bytes_each * count)
        assert traffic_of(outline, "DDP", "full", cards) == pytest.approx(8 * count * (cards - 1) / cards)
        sent = traffic_of(outline, "FSDP2", "full", cards, passes=4)
        assert sent == pytest.approx((4 * 4 + 4) * count * (cards - 1) / cards)
    assert memory_of(outline, "DDP", "full", 1, 0).gathered == 0 and traffic_of(outline, "DDP", "full", 1) == 0


def test_what_is_chosen(large: Path) -> None:
    outline = outline_of(model_outline(str(large)))
    small, wide = Cluster(1, 8, 80e9, 4e14, 4e11), Cluster(8, 8, 80e9, 4e14, 5e10)
    assert choose(outline, "full", small, 500).strategy is None
    assert (choose(outline, "full", wide, 500).strategy, choose(outline, "full", wide, 500).checkpointing) == (
        "FSDP2",
        False,
    )
    assert choose(outline, "full", wide, 2000).checkpointing
    adapted = outline_of(add_adapter(model_outline(str(large)), lora_config(16, 32)))
    assert choose(adapted, "qlora", small, 500).strategy == "DDP"
    assert choose(adapted, "lora", small, 500).strategy == "FSDP2"
    assert choose(outline, "full", Cluster(1, 1, 2e12, 4e14, 4e11), 500).strategy == "DDP"
    times = step_time(8 * 4e14, 4e11, small), step_time(8 * 4e14, 4e11, small, checkpointing=True)
    assert (times[0].computing, times[0].sending, times[0].best, times[0].worst) == (1.0, 1.0, 1.0, 2.0)
    assert times[1].computing == pytest.approx(4 / 3)


def test_a_large_model_is_planned_from_its_config(large: Path, here: Place, capsys: Capture) -> None:
    model = large / "config.json"
    cards = ("--nodes", "2", "--gpus", "8", "--throughput", "400TFLOP", "--batch-size", "16")
    outcome = call(capsys, "run", "--model", model, "--forget", here.forget, "--lora", "--dry-run", *cards)
    assert outcome.code == 0, outcome.err
    said = outcome.out
    assert "70.6 G parameters" in said and "cards: 2 x 8 with 80 GB each" in said and "no tokenizer" in said
    assert re.search(r"^LoRA FSDP2 +.* \*$", said, re.MULTILINE) and re.search(r"^full DDP .*TB  ", said, re.MULTILINE)
    assert "strategy: FSDP2, since" in said
    assert re.search(r"^unteach runs this: torchrun --nnodes 2 .* --lora --shard fsdp2 …$", said, re.MULTILINE)
    assert "--lora --load-in-4bit: torchrun --nnodes 2" in said and "400 TFLOP/s a card (as given)" in said


def test_with_a_tokenizer_tokens_are_counted_as_in_a_dry_run(here: Place, tmp_path: Path, capsys: Capture) -> None:
    words = [*here.quick(tmp_path / "out"), "--dry-run"]
    small = call(capsys, *words)
    outcome = call(capsys, *words, "--gpus", "2", "--gpu-memory", "1GB")
    assert outcome.code == 0 and not (tmp_path / "out").exists(), outcome.err
    counted = re.search(r"^training, 3 steps +(\S+)", small.out, re.MULTILINE)
    assert counted and f"{counted[1]} in 3 steps" in outcome.out.replace(" in 3 steps", " in 3 steps")
    assert "strategy: DDP" in outcome.out and "torchrun --standalone --nproc-per-node 2 -m unteach run" in outcome.out
    assert "measured here" in outcome.out


def test_cards_are_for_dry_runs(here: Place, tmp_path: Path, capsys: Capture) -> None:
    for more, told in (
        (["--gpus", "8"], "add --dry-run"),
        (["--gpus", "0", "--dry-run"], "--gpus 0: must be at least 1"),
        (["--gpu-memory", "much", "--dry-run"], "--gpu-memory much: write a number and a unit, such as 80GB"),
        (["--gpus", "2", "--budget", "10m", "--dry-run"], "--budget plans for this machine"),
    ):
        outcome = call(capsys, *here.quick(tmp_path / "out"), *more)
        assert outcome.code == 2 and told in outcome.err and not (tmp_path / "out").exists()


def test_amounts_are_read() -> None:
    assert [read_amount("--gpu-memory", text) for text in ("80GB", "80 G", "1.5TB")] == [80e9, 80e9, 1.5e12]
    assert read_amount("--throughput", "400TFLOP/s") == 4e14
    with pytest.raises(ConfigError, match="--bandwidth"):
        read_amount("--bandwidth", "0GB")


def test_a_config_that_makes_no_model_is_refused(here: Place, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    for model in (tmp_path, tmp_path / "config.json"):
        outcome = call(capsys, "run", "--model", model, "--forget", here.forget, "--dry-run", "--gpus", "8")
        assert outcome.code == 2 and str(model) in outcome.err and "Traceback" not in outcome.err
