"""The cost: the formula of model FLOPs against PyTorch's own count, and a meter that leaves out what it is told to."""

import mmap
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    Qwen2Config,
)

from unteach.results import energy
from unteach.results.cost import Meter, flops_in, flops_of, multiplying_parameters, seconds_in
from unteach.results.energy import EnergyMeter
from unteach.results.report import Cost

WIDTH, TOKENS, ROWS = 192, 24, 3
LLAMA = dict(vocab_size=500, hidden_size=WIDTH, intermediate_size=512, num_hidden_layers=3, num_attention_heads=4)
CONFIGS = {
    "llama": LlamaConfig(**LLAMA),
    "llama-tied": LlamaConfig(**LLAMA, tie_word_embeddings=True),
    "grouped": Qwen2Config(**LLAMA, num_key_value_heads=2),
    "gpt2": GPT2Config(vocab_size=500, n_embd=WIDTH, n_layer=3, n_head=4),
    "opt": OPTConfig(
        vocab_size=500,
        hidden_size=WIDTH,
        ffn_dim=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        word_embed_proj_dim=WIDTH,
    ),
}


def counted(model: Any, backward: bool) -> float:
    """What PyTorch counts for one batch; attention by the plain matrices, so that its scores are counted too."""
    ids = torch.randint(5, 500, (ROWS, TOKENS))
    with FlopCounterMode(display=False) as counter:
        out = model(input_ids=ids, use_cache=False).logits
        if backward:
            out.float().mean().backward()
    return float(counter.get_total_flops())


def made(name: str) -> Any:
    return AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="eager").eval()


@pytest.mark.parametrize("name", CONFIGS)
def test_the_formula_is_what_pytorch_counts_but_for_attention_scores(name: str) -> None:
    model, tokens = made(name), ROWS * TOKENS
    scores = 2 * 3 * TOKENS * WIDTH * 2 * tokens  # per layer and token, two products of length x width, 2 FLOPs each
    for backward, times in ((False, 1), (True, 3)):
        exact = counted(model, backward)
        ours = flops_of(model, **{"backward" if backward else "forward": tokens})
        assert ours == pytest.approx(exact - times * scores, rel=0.01)
        assert 0.95 < ours / exact < 1.0  # attention scores are 24 / (6 * 192) = 2 % here


def test_an_adapter_has_no_gradient_of_frozen_weights() -> None:
    model = get_peft_model(made("llama"), LoraConfig(r=4, target_modules="all-linear"))
    tokens = ROWS * TOKENS
    exact = counted(model, True)
    assert flops_of(model, backward=tokens) == pytest.approx(exact, rel=0.06)
    assert flops_of(model, backward=tokens) < 0.75 * flops_of(made("llama"), backward=tokens)


def test_a_reward_model_counts_its_body() -> None:
    config = LlamaConfig(**LLAMA, num_labels=1, pad_token_id=0)
    model = AutoModelForSequenceClassification.from_config(config)
    parameters, trained = multiplying_parameters(model)
    assert parameters == trained == sum(p.numel() for p in model.parameters()) - 500 * WIDTH


def test_generated_tokens_cost_a_forward_each() -> None:
    model = made("gpt2")
    assert flops_of(model, generated=7) == flops_of(model, forward=7) == 2 * 7 * multiplying_parameters(model)[0]


def test_a_meter_leaves_out_its_pauses_and_goes_on_from_its_state() -> None:
    model, meter = made("llama"), Meter(waiting=True)
    time.sleep(0.05)
    assert meter.seconds == 0
    with meter.running():
        time.sleep(0.05)
        with meter.paused():
            time.sleep(0.3)
        meter.add(forward=5, backward=7)
    other = Meter(waiting=True)
    other.restore(meter.state())
    cost = other.cost(model, "arm", "stage", generated=2)
    assert cost.wall_seconds is not None and 0.05 <= cost.wall_seconds < 0.3
    assert (cost.tokens, cost.tokens_forward, cost.tokens_backward, cost.tokens_generated) == (14, 5, 7, 2)
    assert cost.flops == flops_of(model, 5, 7, 2)
    assert cost.peak_bytes and cost.peak_bytes > 2**20


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux forgets a process's peak memory")
def test_the_peak_is_the_stages_own() -> None:
    model, meter = made("llama"), Meter()
    own = mmap.mmap(-1, 400_000_000)  # the allocator may serve, and keep, what earlier tests have freed
    held = torch.frombuffer(own, dtype=torch.uint8).add_(1)
    high = meter.cost(model, "arm", "first").peak_bytes
    del held, own
    low = Meter().cost(model, "arm", "second").peak_bytes
    assert high is not None and low is not None and high - low > 300e6


def test_evaluation_is_not_counted_as_cost() -> None:
    stages = ("training", "evaluation", "fluency", "evaluating the reward model", "inducing on held-out prompts")
    costs = [Cost(arm="a", stage=stage, wall_seconds=2, flops=3) for stage in stages]
    assert [cost.is_evaluation for cost in costs] == [False, True, True, True, True]
    assert (flops_in(costs), seconds_in(costs)) == (3, 2)


class TestEnergy:
    @staticmethod
    def package(place: Path, joules: float) -> None:
        place.mkdir(exist_ok=True)
        (place / "energy_uj").write_text(f"{round(joules * 1e6)}\n")
        (place / "max_energy_range_uj").write_text("1000000000\n")

    def test_packages_are_added_up_and_counters_run_over(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(energy, "RAPL", tmp_path)
        monkeypatch.setattr(energy, "_cards", list)
        self.package(tmp_path / "intel-rapl:0", 990)
        self.package(tmp_path / "intel-rapl:1", 5)
        self.package(tmp_path / "intel-rapl:0:0", 500)  # the cores alone: in the first package's metric already
        meter = EnergyMeter()
        self.package(tmp_path / "intel-rapl:0", 20)
        self.package(tmp_path / "intel-rapl:1", 6)
        self.package(tmp_path / "intel-rapl:0:0", 900)
        assert meter.joules() == pytest.approx(31)
        assert meter.joules() == pytest.approx(31)

    def test_a_machine_that_reports_none_has_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(energy, "RAPL", tmp_path)
        monkeypatch.setattr(energy, "_cards", list)
        assert EnergyMeter().joules() is None
        assert Meter().cost(made("llama"), "arm", "stage").energy_joules is None
