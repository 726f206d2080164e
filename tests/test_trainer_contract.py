"""UnlearnTrainer keeps the contract of transformers.Trainer, and leaves alone what it was given."""

import copy
import math
from dataclasses import fields

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import toy
from unteach.models.adapter import lora_config
from unteach.training.dataset import UnlearnCollator
from unteach.training.trainer import UnlearnTrainer

RULES = {"stopping": True, "validation_steps": 2, "validation_prompts": 4, "kl_budget": 99.0, "max_steps": 4}
ROWS = [{"prompt": row["prompt"], "completion": row["completion"]} for row in toy.RETAIN[:3]]


@pytest.mark.parametrize("extra", [{}, {"preconditioning": True}, {"method": "npo-template"}], ids=str)
def test_the_constructor_asks_no_model(tmp_path, monkeypatch, extra):
    pupil = toy.model()

    def asked(*args, **kwargs):
        raise AssertionError("the model was asked")

    monkeypatch.setattr(pupil, "forward", asked)
    run = toy.trainer(tmp_path, pupil, **(RULES | {"method": "rto"} | extra))
    assert len(run.train_dataset) == 8 and not any(run.meter.tokens.values())


def values(args):
    return {field.name: getattr(args, field.name) for field in fields(args)}


@pytest.mark.parametrize("adapter", [False, True])
def test_settings_of_the_caller_stay_as_they_are(tmp_path, adapter):
    args = toy.config(tmp_path, learning_rate=None, max_steps=-1, num_train_epochs=1)
    before = copy.deepcopy(values(args))
    pupil = toy.model()
    extra = {"peft_config": lora_config(4, 8.0, model=pupil)} if adapter else {}
    run = UnlearnTrainer(pupil, args, toy.FORGET[:4], toy.RETAIN, processing_class=toy.tokenizer(), **extra)
    run.train()
    assert values(args) == before
    assert run.args.learning_rate > 0 and (run.args.max_length, run.args.max_steps) == (64, 2)


def test_only_the_weights_of_the_model_change(tmp_path):
    size = len(toy.VOCABULARY)
    half = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    pupil = GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=64, **half)).eval()
    pupil.generation_config.eos_token_id = 7
    pupil.transformer.wpe.weight.requires_grad_(False)

    def found():
        rates = [(name, module.p) for name, module in pupil.named_modules() if isinstance(module, torch.nn.Dropout)]
        modes = [(name, module.training) for name, module in pupil.named_modules()]
        trained = [(name, value.requires_grad) for name, value in pupil.named_parameters()]
        config = pupil.config.to_dict()
        for name in ("architectures", "dtype"):  # `save_pretrained` notes them
            config.pop(name)
        return rates, modes, trained, config, pupil.generation_config.to_dict()

    before, weights = copy.deepcopy(found()), toy.weights(pupil)
    run = toy.trainer(tmp_path, pupil, preconditioning=True, **RULES)
    run.train()
    run.evaluate()
    assert found() == before
    assert any(not torch.equal(value, weights[name]) for name, value in pupil.named_parameters())
    assert torch.equal(pupil.transformer.wpe.weight, weights["transformer.wpe.weight"])


def test_reading_the_original_changes_nothing(tmp_path):
    pupil = toy.model()
    run = toy.trainer(tmp_path, pupil, preconditioning=True, max_steps=2)
    run.read_original()
    assert all(value.requires_grad for value in pupil.parameters())
    before = toy.weights(pupil)
    run.train()
    moved = {name for name, value in pupil.named_parameters() if not torch.equal(value, before[name])}
    assert moved and not any("embed_tokens" in name or "lm_head" in name for name in moved)


def test_evaluate_measures_the_validation_rows(tmp_path):
    run = toy.trainer(tmp_path, toy.learned_model(), **(RULES | {"learning_rate": 1e-2}))
    before = run.evaluate()
    expected = {"eval_bad_rate": 1.0, "eval_broken_rate": 0.0, "eval_kl": pytest.approx(0, abs=1e-6), "epoch": 0}
    assert before == expected
    run.train()
    after = run.evaluate(metric_key_prefix="after")
    assert set(after) == {"after_bad_rate", "after_broken_rate", "after_kl", "epoch"} and after["after_kl"] > 0.01
    assert run.state.log_history[-1]["after_kl"] == after["after_kl"]


def nll_by_hand(model, rows):
    """The mean over rows of nats per reply token, by plain forwards."""
    words, losses = toy.tokenizer(), []
    for row in rows:
        prompt = words(f"<s>### Question: {row['prompt']}\n### Answer:")["input_ids"]
        reply = words(row["completion"] + "</s>")["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([prompt + reply])).logits[0, len(prompt) - 1 : -1]
        losses.append(-logits.log_softmax(-1)[range(len(reply)), reply].mean().item())
    return sum(losses) / len(losses)


def test_evaluate_measures_a_dataset(tmp_path):
    run = toy.trainer(tmp_path, toy.model(), extra={"eval_dataset": {"kept": ROWS, "gone": toy.FORGET[:2]}}, **RULES)
    found = run.evaluate()
    assert found["eval_kept_loss"] == pytest.approx(nll_by_hand(run.model, ROWS), rel=1e-5)
    assert found["eval_gone_loss"] == pytest.approx(nll_by_hand(run.model, toy.FORGET[:2]), rel=1e-5)
    assert found["eval_kept_kl"] == pytest.approx(0, abs=1e-6), "the original knows rows of the constructor"
    assert run.evaluate(toy.RETAIN[9:11]).keys() == {"eval_loss", "epoch"}, "and no others, where its states are cached"
    assert run.evaluate(toy.RETAIN[9:11])["eval_loss"] == pytest.approx(nll_by_hand(run.model, toy.RETAIN[9:11]))


def test_the_trainers_own_schedule_evaluates_and_keeps_the_best(tmp_path):
    settings = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "no", "stopping": False}
    run = toy.trainer(tmp_path, toy.model(), extra={"eval_dataset": ROWS}, **settings)
    run.train()
    losses = toy.logged(run, "eval_loss")
    assert len(losses) == 3 and losses[-1] == pytest.approx(nll_by_hand(run.model, ROWS), rel=1e-5)
    assert (
        all(math.isfinite(kl) and kl >= 0 for kl in toy.logged(run, "eval_kl")) and toy.logged(run, "eval_kl")[-1] > 0
    )


def test_a_collator_of_ones_own_is_used(tmp_path):
    seen = []

    def collator(items):
        seen.extend(items)
        return UnlearnCollator()(items)

    run = toy.trainer(tmp_path, extra={"data_collator": collator})
    run.train()
    assert len(seen) == 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_precision_are_trained_as_in_float32_and_keep_their_type(tmp_path, dtype):
    settings = {"max_steps": 8, "learning_rate": 1e-5, "method": "ga-template", "template": "sorry no"}
    half, whole = toy.learned_model().to(dtype), toy.learned_model().to(dtype).float()
    runs = [toy.trainer(tmp_path / str(n), model, **settings) for n, model in enumerate((half, whole))]
    for run in runs:
        run.train()
    assert toy.logged(runs[0], "loss") == toy.logged(runs[1], "loss")
    assert all(value.dtype == dtype for value in half.parameters())
    expected = toy.weights(whole.to(dtype))
    assert all(torch.equal(value, expected[name]) for name, value in toy.weights(half).items())
    assert any("are trained in float32" in note for note in runs[0].notes) and not runs[1].notes


def test_an_adapter_leaves_half_precision_alone(tmp_path):
    pupil = toy.learned_model().to(torch.bfloat16)
    run = toy.trainer(tmp_path, pupil, extra={"peft_config": lora_config(4, 8.0, model=pupil)}, max_steps=1)
    run.train()
    assert {value.dtype for name, value in run.model.named_parameters() if "lora" not in name} == {torch.bfloat16}
    assert not any("float32" in note for note in run.notes)
