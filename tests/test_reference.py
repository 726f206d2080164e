import errno
import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM

import toy
from unteach.disk.cache import Cache
from unteach.errors import ModelError, OutputError
from unteach.objectives.loss import method_loss
from unteach.objectives.methods import load_method
from unteach.scoring import reference as module
from unteach.scoring.reference import AdapterOff, CachedStates, FrozenCopy
from unteach.scoring.score import last_hidden_states, score
from unteach.scoring.trees import TreeBatch, lay_out, reply_trees

ROWS = [((1, 5, 6), (7, 8, 2)), ((1, 9), (10, 2)), ((1, 3, 4, 5, 6, 7), (11, 12, 13, 14, 2)), ((1,), (2,))]
NORMALS = reply_trees("normals", ROWS, "normal")


def with_adapter(model, **settings):
    torch.manual_seed(1)
    targets = settings.pop("target_modules", ["q_proj", "v_proj", "down_proj"])
    return get_peft_model(model, LoraConfig(r=4, lora_alpha=16, target_modules=targets, **settings)).eval()


def move(model):
    """Train the model a little, roughly: every weight that may move does."""
    torch.manual_seed(2)
    with torch.no_grad():
        for weight in (w for w in model.parameters() if w.requires_grad):
            weight += 0.1 * torch.randn_like(weight)


def kl(model, reference, batch):
    original = reference(batch)
    with torch.no_grad():
        return score(last_hidden_states(model, batch), batch.targets, original).kl


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_adapter_off_and_frozen_copy_are_exactly_the_model_before_the_first_step(tiny_llama):
    frozen, batch = FrozenCopy(tiny_llama), lay_out(NORMALS)
    assert not kl(tiny_llama, frozen, batch).any()
    live = with_adapter(tiny_llama)
    assert not kl(live, AdapterOff(live), batch).any()
    assert not kl(live, frozen, batch).any()


def test_cached_states_are_the_model_before_the_first_step(tiny_llama, tmp_path):
    cached = CachedStates.build(tiny_llama, NORMALS, Cache(tmp_path, 2**30), "k", batch_tokens=10)
    assert kl(tiny_llama, cached, lay_out(NORMALS)).abs().max() <= 1e-6


@torch.no_grad()
def original_log_probs(reference, batch):
    return score(reference(batch), batch.targets).log_probs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_three_agree_after_the_live_model_has_moved(tiny_llama, tmp_path, dtype):
    model = tiny_llama.to(dtype)
    frozen, cached = FrozenCopy(model), CachedStates.build(model, NORMALS, Cache(tmp_path, 2**30), "k", batch_tokens=10)
    live = with_adapter(model).to(dtype)
    move(live)
    off, tolerance = AdapterOff(live), 1e-5 if dtype == torch.float32 else 0.05
    for chosen in (NORMALS, NORMALS[2:3], [NORMALS[3], NORMALS[0]]):
        batch = lay_out(chosen)
        expected = kl(live, frozen, batch)
        assert expected.min() > 0
        assert torch.equal(kl(live, off, batch), expected)
        torch.testing.assert_close(kl(live, cached, batch), expected, rtol=tolerance, atol=tolerance)
        for reference in (off, cached):
            log_probs = original_log_probs(reference, batch)
            torch.testing.assert_close(log_probs, original_log_probs(frozen, batch), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "settings", [{"target_modules": ["q_proj", "lm_head"]}, {"modules_to_save": ["lm_head"]}], ids=["lora", "saved"]
)
def test_adapter_off_reads_the_original_head_where_the_adapter_trains_the_head(tiny_llama, settings):
    frozen, batch = FrozenCopy(tiny_llama), lay_out(NORMALS)
    live = with_adapter(tiny_llama, **settings)
    move(live)
    expected = kl(live, frozen, batch)
    assert expected.min() > 0
    assert torch.equal(kl(live, AdapterOff(live), batch), expected)


def test_full_tuning_moves_neither_the_copy_nor_the_cache(tiny_llama, tmp_path):
    batch = lay_out(NORMALS)
    references = FrozenCopy(tiny_llama), CachedStates.build(tiny_llama, NORMALS, Cache(tmp_path, 2**30), "k")
    before = [original_log_probs(reference, batch) for reference in references]
    move(tiny_llama)
    assert kl(tiny_llama, references[0], batch).min() > 0
    for reference, log_probs in zip(references, before, strict=True):
        assert torch.equal(original_log_probs(reference, batch), log_probs)


BEGINNING = tuple(range(3, 13))
ALIKE = reply_trees("normals", [((*BEGINNING, *prompt), reply) for prompt, reply in ROWS], "normal")


def test_what_all_prompts_begin_with_is_read_once(tiny_llama, tmp_path):
    apart = FrozenCopy(tiny_llama)(lay_out(ALIKE)).states
    cached = CachedStates.build(tiny_llama, ALIKE, Cache(tmp_path, 2**30), "k")
    torch.testing.assert_close(cached(lay_out(ALIKE)).states, apart, rtol=1e-5, atol=1e-5)
    whole = sum(tree.places for tree in ALIKE)
    assert cached.tokens_read == whole - len(BEGINNING) * (len(ALIKE) - 1)
    again = CachedStates.build(tiny_llama, ALIKE, Cache(tmp_path, 2**30), "k")
    assert again.tokens_read == cached.tokens_read


def test_nothing_is_shared_where_a_model_does_not_score_trees_like_rows(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setattr(TreeBatch, "may_attend", lambda batch: causal(batch))
    cached = CachedStates.build(tiny_llama, ALIKE, Cache(tmp_path, 2**30), "k")
    apart = FrozenCopy(tiny_llama)(lay_out(ALIKE)).states
    torch.testing.assert_close(cached(lay_out(ALIKE)).states, apart, rtol=1e-5, atol=1e-5)
    assert cached.tokens_read == sum(tree.places for tree in ALIKE)


def causal(batch):
    """The mask of a model that knows no trees: a place sees all that stands before it."""
    length = batch.input_ids.shape[1]
    return torch.ones(length, length, dtype=torch.bool).tril().expand(len(batch.input_ids), 1, length, length)


def test_a_cache_is_reused_and_another_key_is_not(tiny_llama, tmp_path, monkeypatch):
    written = []
    write = module.write_states
    monkeypatch.setattr(module, "write_states", lambda *args: (written.append(1), write(*args)))
    first = CachedStates.build(tiny_llama, NORMALS, Cache(tmp_path, 2**30), "k")
    again = CachedStates.build(tiny_llama, NORMALS, Cache(tmp_path, 2**30), "k")
    assert len(written) == 1
    batch = lay_out(NORMALS)
    assert torch.equal(first(batch).states, again(batch).states)
    CachedStates.build(tiny_llama, NORMALS, Cache(tmp_path, 2**30), "another")
    assert len(written) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["another", "k"]


def damaged(name, change):
    """A way to damage one file of a cache."""

    def damage(directory):
        path = directory / name
        path.write_bytes(change(path.read_bytes()))

    return damage


def other_kinds(content):
    return json.dumps(json.loads(content) | {"rows": [["normals", 0, "first", None]]}).encode()


def moved_rows(content):
    """Of the right form, but the rows have changed places."""
    index = json.loads(content)
    starts = [row[2] for row in index["rows"]]
    index["rows"] = [[*row[:2], start, row[3]] for row, start in zip(index["rows"], starts[::-1], strict=True)]
    return json.dumps(index).encode()


DAMAGE = {
    "half the states": damaged("states.bin", lambda content: content[: len(content) // 2]),
    "zeroed states": damaged("states.bin", lambda content: bytes(len(content))),
    "a flipped bit": damaged("states.bin", lambda content: bytes([content[0] ^ 64]) + content[1:]),
    "half an index": damaged("index.json", lambda content: content[: len(content) // 2]),
    "an index of other kinds": damaged("index.json", other_kinds),
    "rows in other places": damaged("index.json", moved_rows),
    "no index": lambda directory: (directory / "index.json").unlink(),
    "no states": lambda directory: (directory / "states.bin").unlink(),
    "no checksums": lambda directory: (directory / "checksums.json").unlink(),
    "another file": lambda directory: (directory / "more").write_text("?"),
    "a file in its place": lambda directory: (shutil.rmtree(directory), directory.write_text("?")),
}
DAMAGE |= {
    f"{name}: {content[:9]!r}": damaged(name, lambda _, content=content: content)
    for name in ("index.json", "checksums.json")
    for content in (b"", b"[]", b"null", b"{}", b'{"files": 1}', b'{"tokens": "many"}', b"[" * 99_999, b"\xff\xfe")
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_cache_is_made_anew(tiny_llama, tmp_path, damage):
    batch = lay_out(NORMALS)
    expected = CachedStates.build(tiny_llama, NORMALS, Cache(tmp_path, 2**30), "k")(batch).states
    DAMAGE[damage](tmp_path / "k")
    assert torch.equal(CachedStates.build(tiny_llama, NORMALS, Cache(tmp_path, 2**30), "k")(batch).states, expected)
    assert json.loads((tmp_path / "k" / "index.json").read_text())["tokens"] == 11
    assert [path.name for path in tmp_path.iterdir()] == ["k"]


def test_states_of_another_model_are_refused_before_training(tiny_llama, tmp_path, monkeypatch):
    """The guard behind the checksums: whatever the cache holds must give the original itself."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    module.cached_states(tiny_llama, NORMALS, "fingerprint")
    module.cached_states(tiny_llama, NORMALS, "fingerprint")
    move(tiny_llama)
    with pytest.raises(ModelError, match=f"{tmp_path}.*fingerprint-float32.*KL to itself is .*remove the directory"):
        module.cached_states(tiny_llama, NORMALS, "fingerprint")


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tiny_llama, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module.json, "dumps", full)
    with pytest.raises(OutputError, match=f"{tmp_path}/k: cannot be written .the disk is full.; free space"):
        CachedStates.build(tiny_llama, NORMALS, Cache(tmp_path, 2**30), "k")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    CachedStates.build(tiny_llama, NORMALS, Cache(tmp_path, 2**30), "k")


def test_progress_counts_up_to_all_rows(tiny_llama, tmp_path):
    seen = []
    CachedStates.build(tiny_llama, NORMALS, Cache(tmp_path, 2**30), "k", 12, lambda done, of: seen.append((done, of)))
    assert seen == sorted(seen) and len(seen) > 1 and seen[-1] == (4, 4)


class Shifted(LlamaForCausalLM):
    """A model whose logits cannot be had from states and head alone."""

    def forward(self, **inputs):
        output = super().forward(**inputs)
        output.logits = output.logits * 3 + 1
        return output


def test_a_model_that_changes_its_logits_unseen_is_not_cached_but_may_be_copied(tiny_llama, tmp_path):
    model, batch = Shifted(tiny_llama.config).eval(), lay_out(NORMALS)
    with pytest.raises(ModelError, match="Shifted changes its logits .* --reference frozen"):
        CachedStates.build(model, NORMALS, Cache(tmp_path, 2**30), "k")
    assert not kl(model, FrozenCopy(model), batch).any()


def test_activation_checkpointing_with_the_adapter_off_gives_the_same_gradients(tiny_llama, trees):
    live = with_adapter(tiny_llama)
    move(live)
    live.train()
    forget, normal = lay_out(trees), lay_out(NORMALS)

    def step():
        return gradients(live, method_loss(live, load_method("ga-mismatch"), forget, normal, AdapterOff(live)).value)

    calls = []
    live.get_decoder().layers[0].self_attn.register_forward_pre_hook(lambda *_: calls.append(1))
    expected, once = step(), len(calls)
    assert all(gradient.any() for gradient in expected.values())
    live.activation_checkpointing_enable({"use_reentrant": False})
    found = step()
    assert len(calls) - once == once + 2, "the two live forwards should have been run again on the way back"
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6)


def test_every_reference_gives_the_same_loss_and_gradients(tiny_llama, tmp_path, trees):
    frozen, cached = FrozenCopy(tiny_llama), CachedStates.build(tiny_llama, NORMALS, Cache(tmp_path, 2**30), "k")
    live = with_adapter(tiny_llama)
    move(live)
    forget, normal = lay_out(trees), lay_out(NORMALS)
    losses = [
        method_loss(live, load_method("ga-mismatch"), forget, normal, reference)
        for reference in (frozen, cached, AdapterOff(live))
    ]
    found = [gradients(live, loss.value) for loss in losses]
    for loss, others in zip(losses[1:], found[1:], strict=True):
        torch.testing.assert_close(loss.value, losses[0].value)
        for name, gradient in found[0].items():
            torch.testing.assert_close(others[name], gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", [{}, {"bf16": True}])
def test_kl_begins_at_zero_in_the_precision_of_training(tmp_path, settings):
    run = toy.trainer(tmp_path, toy.learned_model(), max_steps=1, learning_rate=0.0, **settings)
    run.train()
    assert toy.logged(run, "kl") == [pytest.approx(0.0, abs=1e-8)]
    run = toy.trainer(tmp_path, toy.learned_model(), max_steps=1, stopping=True, learning_rate=0.0, **settings)
    assert run.evaluate()["eval_kl"] == pytest.approx(0.0, abs=1e-8)
    run.train()
    assert run.evaluate()["eval_kl"] == pytest.approx(0.0, abs=1e-8)
