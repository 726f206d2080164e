import math

import pytest
import torch
from datasets import Dataset
from transformers import MistralConfig, MistralForCausalLM

import toy
import unteach.training.trainer as module
from unteach.data.example import Example
from unteach.errors import ConfigError, DataError, OutputError, TrainingError
from unteach.models.adapter import lora_config
from unteach.objectives.methods import load_method, method_names
from unteach.prompts.turn import Turn
from unteach.scoring.reference import AdapterOff, CachedStates, FrozenCopy
from unteach.training.config import default_learning_rate
from unteach.training.shortcuts import Shortcuts
from unteach.training.trainer import UnlearnConfig, UnlearnTrainer


def lora(pupil, rank=4):
    return {"peft_config": lora_config(rank, 2.0 * rank, model=pupil)}


def trained(directory, pupil=None, adapter=False, **settings):
    pupil = pupil or toy.learned_model()
    torch.manual_seed(0)  # adapters start at random
    run = toy.trainer(directory, pupil, extra=lora(pupil) if adapter else None, **settings)
    run.train()
    return run


def moved(run, before):
    return {name for name, value in run.model.named_parameters() if not value.equal(before[name])}


# ---- the public example ----------------------------------------------------------------------------------------------


def test_the_example_of_the_readme(tmp_path):
    model, tokenizer = toy.learned_model(), toy.tokenizer()
    trainer = UnlearnTrainer(
        model,
        args=UnlearnConfig(output_dir=str(tmp_path), method="ga-mismatch", max_steps=2, use_cpu=True),
        forget_dataset=toy.FORGET,
        retain_dataset=toy.RETAIN,
        processing_class=tokenizer,
    )
    trainer.train()
    assert trainer.state.global_step == 2
    assert trainer.args.learning_rate == default_learning_rate(model, lora=False)


def as_examples(rows):
    return [Example((Turn("user", row["prompt"]),), row["completion"]) for row in rows]


PREFERENCE = [{"prompt": row["prompt"], "chosen": "no", "rejected": row["completion"]} for row in toy.FORGET]
ROWS = {
    "rows": (toy.FORGET, toy.RETAIN),
    "datasets": (Dataset.from_list(toy.FORGET), Dataset.from_list(toy.RETAIN)),
    "examples": (as_examples(toy.FORGET), as_examples(toy.RETAIN)),
    "preference": (PREFERENCE, toy.RETAIN),
}


@pytest.mark.parametrize("kind", ROWS)
def test_rows_of_every_kind_train_alike(tmp_path, kind):
    run = trained(tmp_path, forget=ROWS[kind][0], retain=ROWS[kind][1], max_steps=2)
    expected = trained(tmp_path, max_steps=2)
    assert toy.logged(run, "loss") == toy.logged(expected, "loss")


@pytest.mark.parametrize("method", [name for name in method_names() if not load_method(name).direction])
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_every_method_trains_in_full_and_with_an_adapter(tmp_path, method, adapter):
    pupil = toy.learned_model()
    extra, strong = (lora(pupil), {"learning_rate": 2e-2, "max_steps": 8}) if adapter else (None, {})
    run = toy.trainer(tmp_path, pupil, extra=extra, method=method, template="sorry no", **strong)
    before = toy.weights(run.model)
    run.train()
    changed = moved(run, before)
    if adapter:
        assert changed and all("lora_" in name for name in changed)
    else:
        spared = {"model.embed_tokens.weight", "lm_head.weight"} if run.method.preconditioning else set()
        assert changed == set(before) - spared
    assert toy.logged(run, "forget_ce")[-1] > toy.logged(run, "forget_ce")[0]


# ---- the reference ---------------------------------------------------------------------------------------------------

REFERENCES = [("adapter_off", AdapterOff, 0.0), ("frozen", FrozenCopy, 0.0), ("cached", CachedStates, 1e-6)]


@pytest.mark.parametrize(("name", "kind", "most"), REFERENCES)
def test_kl_is_zero_before_the_first_step(tmp_path, name, kind, most):
    pupil = toy.learned_model()
    run = toy.trainer(tmp_path, pupil, extra=lora(pupil), reference=name, max_steps=2)
    assert isinstance(run.reference, kind)
    run.train()
    assert 0 <= toy.logged(run, "kl")[0] <= most
    assert toy.logged(run, "kl")[1] > 1e-6


def test_the_three_references_train_alike(tmp_path):
    runs = [trained(tmp_path, adapter=True, reference=name, max_steps=4) for name, _, _ in REFERENCES]
    for run in runs[1:]:
        assert toy.logged(run, "loss") == pytest.approx(toy.logged(runs[0], "loss"), rel=1e-4)
        assert toy.logged(run, "kl") == pytest.approx(toy.logged(runs[0], "kl"), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("method", ["ga-mismatch", "npo"])
def test_references_of_full_tuning_stay_the_original(tmp_path, method):
    frozen, cached = (trained(tmp_path, reference=name, method=method) for name in ("frozen", "cached"))
    assert toy.logged(frozen, "kl")[0] == 0 < min(toy.logged(frozen, "kl")[1:])
    assert toy.logged(cached, "loss") == pytest.approx(toy.logged(frozen, "loss"), rel=1e-4)
    assert toy.logged(cached, "kl") == pytest.approx(toy.logged(frozen, "kl"), rel=1e-4, abs=1e-6)


def test_auto_takes_the_cheapest(tmp_path):
    pupil = toy.model()
    assert isinstance(toy.trainer(tmp_path, toy.model()).reference, CachedStates)
    assert isinstance(toy.trainer(tmp_path, pupil, extra=lora(pupil)).reference, AdapterOff)


# ---- settings of the Trainer -----------------------------------------------------------------------------------------


def assert_same_weights(left, right, **tolerance):
    for (name, value), (_, other) in zip(left.model.named_parameters(), right.model.named_parameters(), strict=True):
        torch.testing.assert_close(value, other, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_activation_checkpointing_changes_nothing_but_memory(tmp_path, adapter):
    plain = trained(tmp_path, adapter=adapter)
    saving = trained(tmp_path, adapter=adapter, activation_checkpointing=True)
    assert any(getattr(part, "gradient_checkpointing", False) for part in saving.model.modules())
    assert toy.logged(saving, "loss") == pytest.approx(toy.logged(plain, "loss"), rel=1e-5)
    assert toy.logged(saving, "grad_norm") == pytest.approx(toy.logged(plain, "grad_norm"), rel=1e-4)
    assert_same_weights(saving, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_four_batches_of_one_are_one_batch_of_four(tmp_path, adapter):
    sgd = {"optim": "sgd", "learning_rate": 1e-2, "adapter": adapter}
    small = trained(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=4, **sgd)
    large = trained(tmp_path, per_device_train_batch_size=4, **sgd)
    assert small.state.global_step == large.state.global_step == 3
    for name in ("loss", "forget_ce", "mismatch_ce", "kl", "grad_norm"):
        assert toy.logged(small, name) == pytest.approx(toy.logged(large, name), rel=1e-4, abs=1e-6), name
    assert small.watch.metrics == pytest.approx(large.watch.metrics, rel=1e-4, abs=1e-6), "what the stopping rules see"
    assert_same_weights(small, large, rtol=1e-5, atol=1e-5)


def test_adam_does_not_care_how_a_batch_is_cut(tmp_path):
    small = trained(tmp_path, per_device_train_batch_size=1, gradient_accumulation_steps=4)
    large = trained(tmp_path, per_device_train_batch_size=4)
    assert_same_weights(small, large, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_bfloat16_trains(tmp_path, adapter):
    run = trained(tmp_path, adapter=adapter, bf16=True)
    assert all(math.isfinite(value) for value in toy.logged(run, "loss"))
    assert toy.logged(run, "kl")[0] == pytest.approx(0, abs=1e-3)
    assert {value.dtype for value in run.model.parameters()} == {torch.float32}, "mixed precision keeps the weights"
    half = trained(tmp_path, toy.learned_model().to(torch.bfloat16), adapter=adapter, max_steps=2)
    assert all(math.isfinite(value) for value in toy.logged(half, "loss"))


def test_the_log_has_every_figure(tmp_path):
    run = trained(tmp_path, max_steps=4, logging_steps=2)
    lines = [line for line in run.state.log_history if "loss" in line]
    assert [line["step"] for line in lines] == [2, 4]
    names = ("loss", "forget_ce", "mismatch_ce", "normal_ce", "kl", "learning_rate", "grad_norm", "tokens_per_second")
    for line in lines:
        assert all(math.isfinite(line[name]) for name in names)
        assert line["forget_ce"] > 0 and line["mismatch_ce"] > 0 and line["kl"] > 0 and line["tokens_per_second"] > 0
        weighted = line["mismatch_ce"] - 0.5 * line["forget_ce"] + line["kl"]
        assert line["loss"] == pytest.approx(weighted, rel=1e-4), "the method's published weights, averaged alike"
    each = trained(tmp_path, max_steps=4, logging_steps=1)
    assert lines[0]["forget_ce"] == pytest.approx(sum(toy.logged(each, "forget_ce")[:2]) / 2, rel=1e-5)


def test_the_learning_rate_falls_with_width_and_is_larger_for_adapters(tmp_path):
    narrow, wide = toy.model(hidden_size=32), toy.model(hidden_size=64)
    assert default_learning_rate(narrow, lora=False) == pytest.approx(2 * default_learning_rate(wide, lora=False))
    assert default_learning_rate(narrow, lora=True) > default_learning_rate(narrow, lora=False)
    chosen = toy.trainer(tmp_path, narrow, learning_rate=None)
    assert chosen.args.learning_rate == default_learning_rate(narrow, lora=False)
    adapter = toy.trainer(tmp_path, wide, extra=lora(wide), learning_rate=None)
    assert adapter.args.learning_rate == default_learning_rate(wide, lora=True)
    template = toy.trainer(tmp_path, narrow, learning_rate=None, method="template")
    assert template.args.learning_rate == 3.5 * default_learning_rate(narrow, lora=False), "the method's multiple"
    assert toy.trainer(tmp_path, toy.model(), learning_rate=3e-4).args.learning_rate == 3e-4


def test_epochs_are_over_the_negatives(tmp_path):
    run = trained(tmp_path, max_steps=-1, num_train_epochs=0.5, per_device_train_batch_size=4)
    assert run.state.global_step == len(toy.FORGET) / 2 / 4 == 3


# ---- what cannot be trained ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"method": "ga-mismach"}, ConfigError, "unknown method 'ga-mismach'; did you mean 'ga-mismatch'"),
        ({"reference": "frosen"}, ConfigError, "unknown reference 'frosen'; did you mean 'frozen'"),
        ({"reference": "adapter_off"}, ConfigError, "adapter_off needs an adapter; add --lora"),
        ({"mismatch_samples": 24}, ConfigError, "--mismatch-samples 24 needs at least 25 .* there are 24"),
        ({"cooldown": 1.0}, ConfigError, "--cooldown 1: must be at least 0 and below 1"),
        ({"max_length": 65}, ConfigError, "--max-length 65: the model's context is 64 tokens"),
        ({"max_length": 6}, DataError, "negatives: no row is left.*--max-length"),
        ({"method": "ga-template", "template": " "}, ConfigError, "--template is empty"),
        ({"retain": None}, ConfigError, "ga-mismatch reads normal rows and retain_dataset is missing"),
        ({"retain": None, "retain_weight": 0.0}, ConfigError, "retain_dataset is missing"),
        ({"forget": None}, ConfigError, "forget_dataset is missing"),
        ({"forget": []}, DataError, "forget_dataset"),
        ({"forget": [{"prompt": "how", "completion": " "}]}, DataError, "forget_dataset row 1: .*empty"),
        ({"extra": {"mismatch_replies": ["go", " "]}}, DataError, "mismatch_replies row 2: the reply is empty"),
    ],
)
def test_one_clear_error_for_what_cannot_be_trained(tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        toy.trainer(tmp_path, toy.model(), **settings)
    assert list(tmp_path.iterdir()) == []


def test_a_method_that_reads_no_normals_needs_none(tmp_path):
    run = trained(tmp_path, retain=None, retain_weight=0.0, method="ga")
    assert run.reference is None and not toy.logged(run, "kl")


def test_a_template_too_long_for_the_context_is_cut(tmp_path):
    run = toy.trainer(tmp_path, toy.model(), method="ga-template", template="sorry " * 80)
    for index in range(len(run.train_dataset)):
        tree = run.train_dataset[index].forget
        assert all(len(tree.prompt_ids) + len(branch.reply_ids) <= 64 for branch in tree.branches)
    run.train()


def test_a_directory_that_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(OutputError, match="checkpoint-9: not a complete checkpoint"):
        toy.trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))


# ---- runs that break down --------------------------------------------------------------------------------------------


def broken_at(monkeypatch, step, value):
    """Make the loss of one step something else; its gradient stays."""
    calls, sound = [], module.method_loss

    def loss(*arguments):
        calls.append(1)
        found = sound(*arguments)
        return type(found)(found.value + value if len(calls) == step else found.value, found.metrics)

    monkeypatch.setattr(module, "method_loss", loss)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_a_loss_that_is_no_number_brings_the_last_good_weights_back(tmp_path, monkeypatch, value, adapter):
    pupil = toy.learned_model()
    sound = trained(tmp_path / "sound", adapter=adapter, max_steps=4)
    broken_at(monkeypatch, 6, value)
    rules = {"stopping": True, "validation_steps": 4, "patience": 9, "save_strategy": "steps", "kl_budget": 9.0}
    extra = {"forget_validation": toy.FORGET[:2], "retain_validation": toy.RETAIN[:2]}
    extra |= lora(pupil) if adapter else {}
    torch.manual_seed(0)
    run = toy.trainer(tmp_path, pupil, extra=extra, max_steps=20, **rules)
    with pytest.raises(TrainingError, match=r"loss became (nan|inf) at step 6; the weights of step 4 were kept; lower"):
        run.train()
    assert run.state.global_step == 5, "the broken gradient never reached the weights"
    assert_same_weights(run, sound, rtol=0, atol=0)


def test_an_exploding_run_ends_with_the_original(tmp_path):
    pupil = toy.learned_model()
    before = toy.weights(pupil)
    rules = {"stopping": True, "validation_steps": 50, "max_steps": 50, "save_strategy": "steps"}
    run = toy.trainer(tmp_path, pupil, learning_rate=5.0, max_grad_norm=0.0, optim="sgd", **rules)
    with pytest.raises(TrainingError, match=r"at step \d+; the weights of step 0 were kept"):
        run.train()
    assert not moved(run, before)


def test_without_stopping_rules_a_broken_run_says_that_nothing_was_kept(tmp_path, monkeypatch):
    broken_at(monkeypatch, 2, float("nan"))
    with pytest.raises(TrainingError, match="at step 2; no weights were kept, since the stopping rules were off"):
        toy.trainer(tmp_path).train()


# ---- trees and plain rows --------------------------------------------------------------------------------------------


def windowed(window):
    torch.manual_seed(0)
    shape = {"vocab_size": len(toy.VOCABULARY), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    return MistralForCausalLM(MistralConfig(sliding_window=window, initializer_range=0.2, **shape))


@pytest.mark.parametrize("known", [True, False], ids=["window in the config", "found by the check alone"])
def test_a_short_window_falls_back_to_plain_rows_and_says_so(tmp_path, monkeypatch, known):
    if not known:
        monkeypatch.setattr("unteach.training.shortcuts.tree_limit", lambda model: None)
    run = trained(tmp_path, windowed(8))
    assert [note for note in run.notes if "MistralForCausalLM does not score prompt trees" in note] == run.notes[-1:]
    wide = trained(tmp_path, windowed(None))
    assert not wide.notes
    monkeypatch.setattr(Shortcuts, "laid_out", lambda self, model, batch: batch.plain())
    rows = trained(tmp_path, windowed(8))
    assert toy.logged(rows, "loss") == toy.logged(run, "loss")
    always = trained(tmp_path, windowed(None))
    assert toy.logged(always, "loss") == pytest.approx(toy.logged(wide, "loss"), rel=1e-5)


def test_trees_cost_fewer_tokens_than_plain_rows(tmp_path, monkeypatch):
    trees = toy.trainer(tmp_path)
    trees.train()
    monkeypatch.setattr(Shortcuts, "laid_out", lambda self, model, batch: batch.plain())
    rows = toy.trainer(tmp_path)
    rows.train()
    assert toy.logged(rows, "loss") == pytest.approx(toy.logged(trees, "loss"), rel=1e-5)
    assert trees.meter.tokens["backward"] < rows.meter.tokens["backward"]
