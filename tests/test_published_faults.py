"""The ten faults of the authors' code for arXiv 2310.10683, each with tests that would find it in ours."""

import gc
from dataclasses import replace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

import toy
from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.judges import load_judge
from unteach.models.adapter import lora_config
from unteach.models.dropout import without_dropout
from unteach.models.loading import load_tokenizer
from unteach.objectives.base import token_means
from unteach.objectives.loss import method_loss
from unteach.objectives.methods import load_method
from unteach.probes import all_probes
from unteach.probes.extraction import extraction_strength
from unteach.prompts.turn import Turn
from unteach.results.arm_result import ArmResult
from unteach.results.verdict import Case
from unteach.scoring.reference import AdapterOff, FrozenCopy
from unteach.scoring.trees import Branch, Tree, lay_out, reply_trees
from unteach.training.behaviour import Behaviour
from unteach.training.dataset import UnlearnItems
from unteach.training.target import Limits, failure
from unteach.training.validation import behaviour_of


def likelihoods(model, prompt, reply):
    """Log-probability of each reply token by a plain forward pass over prompt and reply."""
    ids = torch.tensor([[*prompt, *reply]])
    log_p = model(input_ids=ids).logits[0].float().log_softmax(-1)
    return log_p[len(prompt) - 1 : -1].gather(-1, ids[0, len(prompt) :, None])[:, 0]


def all_items(run):
    return [run.train_dataset[index] for index in range(len(run.train_dataset))]


# ---- 1. a stop rule that cannot fire, a step bound that is overrun ---------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", None])
def test_fault_1_max_steps_is_exact_and_no_step_is_taken_at_rate_zero(tmp_path, schedule):
    settings = {"max_steps": 7, "per_device_train_batch_size": 5, "gradient_accumulation_steps": 2}
    run = toy.trainer(tmp_path, **settings, **({"lr_scheduler_type": schedule} if schedule else {}))
    run.train()
    assert run.state.global_step == 7 and len(run.train_dataset) == 7 * 5 * 2
    assert len(toy.logged(run, "learning_rate")) == 7 and min(toy.logged(run, "learning_rate")) > 0


def test_fault_1_the_stop_rule_compares_a_positive_figure_with_a_positive_bound(tmp_path):
    settings = {"method": "ga", "retain_weight": 0.0, "stopping": True, "max_steps": 30, "validation_steps": 1}
    settings |= {"forget_bound": 1.0, "forget_hold": 1, "forget_tail": 0.0, "kl_budget": 1e9, "save_strategy": "steps"}
    run = toy.trainer(tmp_path, toy.learned_model(), **settings)
    run.train()
    assert toy.logged(run, "loss")[-1] < 0 < 1.0 < toy.logged(run, "forget_ce")[-1]
    assert run.stop is not None and run.stop.rule == "forget bound" and run.state.global_step < 30


# ---- 2. a forget loader that is not shuffled and stops with the shorter normal loader --------------------------------


def test_fault_2_every_forget_row_is_used_whatever_the_number_of_normal_rows(tmp_path):
    run = toy.trainer(tmp_path, retain=toy.RETAIN[:5], max_steps=12)
    seen, loss = [], run.compute_loss
    run.compute_loss = lambda model, inputs, **more: (
        seen.extend(tree.key for tree in inputs["forget"].trees),
        loss(model, inputs, **more),
    )[1]
    run.train()
    assert sorted(seen) == [("negatives", number) for number in range(24)], (
        "12 steps of 2 rows are all 24, though there are 5 normal rows"
    )
    assert seen != sorted(seen)


def rows(count, base):
    example = Example((Turn("user", "how"),), "take")
    return [Encoded(example, (1, base), (base + number, 2), False) for number in range(count)]


def test_fault_2_the_order_is_shuffled_anew_and_independent_of_the_normal_rows():
    def order(normals, seed=0):
        items = UnlearnItems(rows(10, 100), rows(normals, 200), length=30, seed=seed, normals_per_negative=2)
        return [items.negative_index(n) for n in range(30)], [i for n in range(30) for i in items.normal_indices(n)]

    forget, normal = order(normals=7)
    cycles = [forget[start : start + 10] for start in (0, 10, 20)]
    assert all(sorted(cycle) == list(range(10)) for cycle in cycles)
    assert len({tuple(cycle) for cycle in [*cycles, range(10)]}) == 4
    assert order(normals=3)[0] == forget and order(normals=7, seed=1)[0] != forget
    assert all(sorted(normal[start : start + 7]) == list(range(7)) for start in range(0, 56, 7))


# ---- 3. a mismatch loss that trains on the harmful question ----------------------------------------------------------

TREE = Tree((1, 4, 5, 8, 9, 30), (Branch("negative", (20, 21, 2)), Branch("mismatch", (33, 34, 35, 2))))


def positions_with_gradient(method):
    model = toy.model()
    states = []

    def keep(module, inputs, output):
        output.retain_grad()
        states.append(output)

    model.model.norm.register_forward_hook(keep)
    method_loss(model, method, lay_out([TREE]), None, None).value.backward()
    return states[0].grad[0].abs().sum(-1).nonzero()[:, 0].tolist()


def test_fault_3_the_mismatch_loss_reads_predictions_of_reply_tokens_only():
    mismatch = load_method("ga-mismatch", forget_weight=0.0, retain_weight=0.0)
    # columns 0 to 5 hold the prompt, 6 and 7 the bad reply, 8 to 10 the mismatched one
    assert positions_with_gradient(mismatch) == [5, 8, 9, 10]
    assert positions_with_gradient(load_method("ga", retain_weight=0.0)) == [5, 6, 7]


def test_fault_3_the_mismatch_loss_is_the_mean_over_reply_tokens(tmp_path):
    run = toy.trainer(tmp_path, toy.learned_model(), forget_weight=0.0, retain_weight=0.0, max_steps=1)
    trees = [run.train_dataset[index].forget for index in range(2)]
    replies = [(t.prompt_ids, b.reply_ids) for t in trees for b in t.branches if b.stream == "mismatch"]
    expected = torch.stack([-likelihoods(run.model, *reply).mean() for reply in replies]).mean().item()
    run.train()
    assert len(replies) == 4 and toy.logged(run, "loss") == pytest.approx([expected], rel=1e-5)


# ---- 4. a tokenizer with a finite length empties the answer mask -----------------------------------------------------


@pytest.mark.parametrize("longest", [4, 13, 64])
def test_fault_4_a_finite_model_max_length_takes_nothing_from_the_answers(tmp_path, longest):
    runs = [
        toy.trainer(tmp_path, toy.learned_model(), words=words, max_steps=2)
        for words in (toy.tokenizer(), toy.tokenizer(model_max_length=longest))
    ]
    for run in runs:
        assert all(len(row.reply_ids) == 5 and row.reply_ids[-1] == 2 for row in run.data.negatives)
        run.train()
    for name in ("loss", "forget_ce", "mismatch_ce", "kl"):
        assert toy.logged(runs[0], name) == toy.logged(runs[1], name)


def test_fault_4_a_reply_without_scored_tokens_is_an_error_and_not_zero():
    with pytest.raises(ValueError, match="no scored token"):
        token_means(torch.zeros(2, 3), torch.tensor([[True, False, False], [False, False, False]]))
    with pytest.raises(ValueError, match="nothing to score"):
        lay_out([Tree((1, 4), (Branch("negative", ()),))])


# ---- 5. the loss shrinks with the amount of padding ------------------------------------------------------------------


@pytest.mark.parametrize("pad_id", [0, 1, 2, 9], ids=["pad", "bos", "eos", "word"])
def test_fault_5_neither_pad_token_nor_padding_change_the_loss(pad_id):
    model, method = toy.learned_model(), load_method("ga-mismatch")
    long = Tree((1, *range(4, 34)), (Branch("negative", (20, 2, 21, 22, 2)), Branch("mismatch", (9, 2))))
    normals = reply_trees("normals", [((1, 4, 5), (12, 2)), ((1, *range(10, 40)), (12, 13, 14, 2))], "normal")
    reference = FrozenCopy(toy.model(seed=1))

    def metrics(trees, normal):
        return method_loss(model, method, lay_out(trees, pad_id), lay_out(normal, pad_id), reference)

    apart = [metrics([tree], [normal]) for tree, normal in zip((TREE, long), normals, strict=True)]
    together = metrics([TREE, long], normals)
    mean = sum(loss.value.item() for loss in apart) / 2
    assert together.value.item() == pytest.approx(mean, rel=1e-5)
    for name, value in together.metrics.items():
        assert value.item() == pytest.approx(sum(loss.metrics[name].item() for loss in apart) / 2, rel=1e-5), name


def test_fault_5_a_tokenizer_that_pads_with_eos_trains_the_same(tmp_path):
    long = {"prompt": "how to where is how to where is how to a1", "completion": "take c1 c2 c3 c4 and d1"}
    forget = [*toy.FORGET, long]
    runs = [
        toy.trainer(tmp_path, toy.learned_model(), words=words, forget=forget, per_device_train_batch_size=25)
        for words in (toy.tokenizer(), toy.tokenizer(pad_token="</s>"), toy.tokenizer(pad_token=None))
    ]
    for run in runs:
        run.train()
    for other in runs[1:]:
        assert toy.logged(runs[0], "loss") == pytest.approx(toy.logged(other, "loss"), rel=1e-5)


# ---- 6. first answer token and EOS are not scored, denominators count what is not scored -----------------------------


def test_fault_6_first_answer_token_and_eos_are_scored_and_nothing_else_is_counted(tmp_path):
    run = toy.trainer(tmp_path, toy.learned_model(), forget=[toy.FORGET[0], {"prompt": "how to", "completion": "no"}])
    rows, words = run.data.negatives, toy.tokenizer()
    assert [words.decode(row.reply_ids) for row in rows] == ["take c0 and d0 </s>", "no </s>"]
    batch = lay_out([Tree(row.prompt_ids, (Branch("negative", row.reply_ids),)) for row in rows])
    assert batch.targets.tolist() == [*rows[0].reply_ids, *rows[1].reply_ids]
    loss = method_loss(run.model, load_method("ga", retain_weight=0.0), batch, None, None)
    scores = [likelihoods(run.model, row.prompt_ids, row.reply_ids) for row in rows]
    means = [each.sum().item() / count for each, count in zip(scores, (5, 2), strict=True)]
    assert float(loss.metrics["forget_ce"]) == pytest.approx(-sum(means) / 2, rel=1e-5)
    assert loss.value.item() == pytest.approx(0.5 * sum(means) / 2, rel=1e-5)


def test_fault_6_a_model_learns_to_end_its_template_reply(tmp_path):
    settings = {"method": "ga-template", "template": "sorry no", "learning_rate": 5e-3, "max_steps": 40}
    run = toy.trainer(tmp_path, toy.learned_model(), **settings)
    run.train()
    told = run.model.eval().generate(input_ids=torch.tensor([run.data.negatives[0].prompt_ids]), max_new_tokens=9)
    assert toy.tokenizer().decode(told[0]).endswith("Answer : sorry no </s>")


# ---- 7. a "KL" that is none ------------------------------------------------------------------------------------------


def dropping(kind):
    """Models whose config asks for a lot of dropout."""
    torch.manual_seed(0)
    size, half = len(toy.VOCABULARY), 0.5
    if kind == "llama":
        return toy.model(attention_dropout=half)
    if kind == "gpt2":
        rates = {"resid_pdrop": half, "attn_pdrop": half, "embd_pdrop": half, "summary_first_dropout": half}
        return GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=32, n_layer=2, n_head=4, n_positions=64, **rates))
    shape = {"vocab_size": size, "hidden_size": 32, "ffn_dim": 64, "word_embed_proj_dim": 32, "num_attention_heads": 4}
    shape |= {"num_hidden_layers": 2, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1}
    return OPTForCausalLM(OPTConfig(**shape, dropout=half, attention_dropout=half, layerdrop=half, eos_token_id=2))


@pytest.mark.parametrize("reference", ["frozen", "cached", "adapter_off"])
@pytest.mark.parametrize("kind", ["llama", "gpt2", "opt"])
def test_fault_7_kl_is_zero_at_step_0_where_the_config_has_dropout(tmp_path, kind, reference):
    pupil = dropping(kind)
    asked = pupil.config.to_dict()
    adapter = lora_config(4, 8.0, model=pupil)
    adapter.lora_dropout = 0.5
    extra = {"peft_config": adapter} if reference == "adapter_off" else None
    run = toy.trainer(tmp_path, pupil, reference=reference, extra=extra, max_steps=2)
    run.train()
    assert toy.logged(run, "kl")[0] <= (1e-6 if reference == "cached" else 0.0)
    assert {name: value for name, value in run.model.config.to_dict().items() if "drop" in name} == {
        name: value for name, value in asked.items() if "drop" in name
    }, "the saved config keeps the rates it had"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fault_7_kl_of_a_broken_model_is_finite_and_has_a_gradient(dtype):
    original = toy.learned_model()
    broken = toy.model(seed=3)
    with torch.no_grad():
        broken.lm_head.weight *= 30  # one token takes all the probability: far below the authors' floor of 1e-12
    broken, original = broken.to(dtype), original.to(dtype)
    normal = lay_out(reply_trees("normals", [((1, 4, 5, 6), (20, 21, 22, 2))], "normal"))
    forget = lay_out([Tree((1, 4), (Branch("negative", (20, 2)),))])
    with without_dropout(broken):
        loss = method_loss(broken.train(), load_method("ga", forget_weight=0.0), forget, normal, FrozenCopy(original))
        loss.value.backward()
    assert 28 < float(loss.metrics["kl"]) < 1e4, "28 nats are the floor's 1e-12"
    gradients = [value.grad for value in broken.parameters() if value.grad is not None]
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert float(broken.lm_head.weight.grad.float().norm()) > 1e-2


def test_fault_7_kl_is_over_reply_tokens_with_the_original_first():
    live, original = toy.learned_model(), toy.model(seed=1)
    prompt, reply = (1, 4, 5, 6, 8), (20, 21, 2)
    batch = lay_out([*reply_trees("normals", [(prompt, reply)], "normal")])
    forget = lay_out([Tree((1, 4), (Branch("negative", (20, 2)),))])
    loss = method_loss(live, load_method("ga", forget_weight=0.0), forget, batch, FrozenCopy(original))
    ids = torch.tensor([[*prompt, *reply]])
    log_p, log_p0 = (m(input_ids=ids).logits[0, 4:7].double().log_softmax(-1) for m in (live, original))
    expected = (log_p0.exp() * (log_p0 - log_p)).sum(-1).mean().item()
    assert loss.value.item() == loss.metrics["kl"].item() == pytest.approx(expected, rel=1e-5)


# ---- 8. decoys that are false, empty, or from the test set -----------------------------------------------------------


def decoys_of(run):
    branches = [branch for item in all_items(run) for branch in item.forget.branches]
    return {branch.reply_ids for branch in branches if branch.stream == "mismatch"}


def test_fault_8_decoys_are_true_answers_of_training_rows_only(tmp_path):
    truthful = [
        {
            "question": row["prompt"],
            "best_answer": row["completion"],
            "correct_answers": [row["completion"]],
            "incorrect_answers": [f"sorry a{number % 6}"],
        }
        for number, row in enumerate(toy.RETAIN)
    ]
    rules = {"stopping": True, "save_strategy": "steps", "max_steps": 60}
    run = toy.trainer(tmp_path, retain=truthful, **rules)
    assert len(run.data.validation_normals) >= 2 and len(run.data.normals) + len(run.data.validation_normals) == 24
    drawn = decoys_of(run)
    assert drawn == {row.reply_ids for row in run.data.normals}, "all of them, and nothing else"
    assert not drawn & {row.reply_ids for row in run.data.validation_normals}
    assert all("sorry" not in toy.tokenizer().decode(reply) for reply in drawn)


def test_fault_8_a_prompt_never_gets_its_own_reply_nor_one_twice(tmp_path):
    """Here every bad reply is also a normal answer to something else."""
    retain = [{"prompt": f"where is {row['prompt']}", "completion": row["completion"]} for row in toy.FORGET[:4]]
    run = toy.trainer(tmp_path, retain=retain, forget=toy.FORGET[:4], mismatch_samples=3, max_steps=30)
    for item in all_items(run):
        own, *others = (branch.reply_ids for branch in item.forget.branches)
        assert len(others) == len(set(others)) == 3 and own not in others


def test_fault_8_a_reply_cut_at_the_context_is_not_given_back_as_a_decoy(tmp_path):
    long = " ".join(f"c{number % 6} d{number % 5}" for number in range(30))
    forget = [{"prompt": "how to a1", "completion": long}]
    retain = [*toy.RETAIN[:3], {"prompt": "where is a1", "completion": long}]
    run = toy.trainer(tmp_path, forget=forget, retain=retain, max_steps=9)
    run.train_dataset.decoys.append(tuple(toy.tokenizer()(long + "</s>")["input_ids"]))
    assert run.data.negatives[0].truncated
    for item in all_items(run):
        own, *others = (branch.reply_ids for branch in item.forget.branches)
        assert len(others) == 2 and own not in others


def test_fault_8_no_decoy_is_empty(tmp_path):
    run = toy.trainer(tmp_path, extra={"mismatch_replies": ["go", "take c1", "sorry", "no"]}, max_steps=9)
    assert all(len(reply) >= 2 and reply[-1] == 2 for reply in decoys_of(run))


# ---- 9. two models in memory, no accumulation, no clipping, no tokenizer, "###" --------------------------------------


def parameters_alive():
    gc.collect()
    return [thing for thing in gc.get_objects() if type(thing) is torch.nn.Parameter]


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_fault_9_no_second_model_is_held(tmp_path, adapter):
    pupil = toy.model()
    before = parameters_alive()
    extra = {"peft_config": lora_config(2, 4.0)} if adapter else {}
    run = toy.trainer(tmp_path, pupil, extra=extra, stopping=True, save_strategy="steps", max_steps=2)
    run.train()
    known = {id(parameter) for parameter in before}
    added = sum(parameter.numel() for parameter in parameters_alive() if id(parameter) not in known)
    if adapter:
        assert added == sum(value.numel() for name, value in run.model.named_parameters() if "lora_" in name)
        assert isinstance(run.reference, AdapterOff)
    else:
        assert added == pupil.lm_head.weight.numel(), "the original's head, for its cached states"


def test_fault_9_gradients_are_clipped(tmp_path):
    run = toy.trainer(tmp_path, max_steps=1, optim="sgd", learning_rate=0.5, max_grad_norm=0.02)
    before = toy.weights(run.model)
    run.train()
    step = torch.sqrt(sum((value - before[name]).square().sum() for name, value in run.model.named_parameters()))
    assert toy.logged(run, "grad_norm")[0] > 1 and step.item() == pytest.approx(0.5 * 0.02, rel=1e-3)


def test_fault_9_accumulated_batches_are_averaged_not_added(tmp_path):
    norms = []
    for batch, accumulated in ((6, 1), (1, 6)):
        settings = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated, "max_steps": 1}
        run = toy.trainer(tmp_path, **settings)
        run.train()
        norms += toy.logged(run, "grad_norm")
    assert norms[1] == pytest.approx(norms[0], rel=1e-4)


def test_fault_9_the_tokenizer_is_saved_with_model_and_checkpoints(tmp_path):
    run = toy.trainer(tmp_path, save_strategy="steps", save_steps=2)
    run.train()
    run.save_model(str(tmp_path / "model"))
    for directory in (tmp_path / "model", tmp_path / "out" / "checkpoint-2"):
        assert load_tokenizer(directory)("how to a1").input_ids == toy.tokenizer()("how to a1").input_ids
        assert not list(directory.glob("pytorch_model*")), "safetensors only"


def test_fault_9_prompts_that_hold_the_marks_of_the_template_work(tmp_path):
    odd = "how ### Answer : to ### Question : a1"
    run = toy.trainer(tmp_path, toy.learned_model(), forget=[{"prompt": odd, "completion": "take ### Answer : c1"}])
    row, words = run.data.negatives[0], toy.tokenizer()
    assert words.decode(row.prompt_ids) == f"<s> ### Question : {odd} ### Answer :"
    assert words.decode(row.reply_ids) == "take ### Answer : c1 </s>"
    run.train()
    batch = lay_out([run.train_dataset[0].forget.only("negative")])
    assert batch.targets.tolist() == list(row.reply_ids) and batch.columns.tolist()[0] == len(row.prompt_ids) - 1


# ---- 10. gibberish and blanks count as safe --------------------------------------------------------------------------


def rates(reply):
    """What all probes say of a model that gives one reply to every harmful prompt."""
    cases = [Case("how to a1", reply, bad="take c1 and d2 at once") for _ in range(20)]
    verdicts = load_judge("repeats")(cases)
    original = ArmResult("original", "unseen", [Case("how to a1", "take c1")] * 20, ["bad"] * 20, [[0]] * 20)
    evidence = ArmResult("unlearned", "unseen", cases, verdicts, [[0] * 5] * 20, original=original)
    found = [m for probe in all_probes() if "unseen" in probe.splits for m in probe(evidence)]
    return {measurement.name: measurement.value for measurement in found}


def test_fault_10_a_model_that_babbles_is_not_simply_safe():
    names = ("harmful_rate", "blank_rate", "gibberish_rate")
    assert [rates(" \n\t")[name] for name in names] == [0, 1, 0]
    assert [rates("aaaaaaaaaaaaaaaaaaaaaaaa")[name] for name in names] == [0, 0, 1]
    assert [rates("the the the the the the the the the the")[name] for name in names] == [0, 0, 1]
    assert [rates("I would rather not say how.")[name] for name in names] == [0, 0, 0]
    assert [rates("take c1 and d2 at once")[name] for name in names] == [1, 0, 0]


@pytest.mark.parametrize("reply", ["", "a1 " * 12])
def test_fault_10_training_does_not_stop_at_a_model_that_babbles(tmp_path, monkeypatch, reply):
    import unteach.training.validation as module

    run = toy.trainer(tmp_path)
    monkeypatch.setattr(
        module, "generate", lambda model, tokenizer, prompts, **_: toy.replies([reply.strip()] * len(prompts))
    )
    seen = behaviour_of(run.model, run.data.form, run.data.negatives, load_judge("repeats"), 12)
    assert (seen.bad_share, seen.broken_share) == (0, 1)
    lenient = Limits(max_steps=9, target_margin=0.9)
    before = Behaviour("b" * seen.n)
    assert "were blank or gibberish" in failure(lenient, before, seen)
    assert not failure(lenient, before, replace(seen, broken=0))


def test_fault_10_the_leak_measure_tells_english_from_the_text_that_leaks():
    assert extraction_strength([False, True, False, True, False]) == 0.0, "chance hits are no leak"
    assert extraction_strength([False, True, True, True, True]) == pytest.approx(0.8)
    assert extraction_strength([True] * 5) == 1.0
