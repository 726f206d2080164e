"""Prompt trees against plain rows on tiny models of many kinds: log-probabilities and gradients in float32."""

from dataclasses import replace

import pytest
import torch
import transformers

from unteach.models.beginning import FEWEST_SHARED
from unteach.scoring.agreement import tree_limit, trees_agree
from unteach.scoring.head import Head
from unteach.scoring.score import last_hidden_states, score
from unteach.scoring.trees import Branch, Tree, lay_out

SIZES = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
OWN = {
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "OPT": {"ffn_dim": 48, "word_embed_proj_dim": 16},
    "Gemma2": {"head_dim": 8, "final_logit_softcapping": 5.0, "attn_logit_softcapping": 20.0},
    "Gemma3": {"head_dim": 8, "sliding_window": 64},
    "Qwen3": {"head_dim": 8},
    "Granite": {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "attention_multiplier": 0.5},
    "Cohere": {"logit_scale": 0.25},
    "Mistral": {"sliding_window": 64},
}
NAMES = {"Gemma3": "Gemma3ForCausalLM", "GPT2": "GPT2LMHeadModel"}
CONFIGS = {"Gemma3": "Gemma3TextConfig", "GPT2": "GPT2Config"}
MODELS = [
    "Llama",
    "Qwen2",
    "Qwen3",
    "Mistral",
    "Gemma3",
    "Phi3",
    "Olmo2",
    "Granite",
    "GPT2",
    "OPT",
    "GPTNeoX",
    "Cohere",
]
CASES = [*((name, "sdpa") for name in MODELS), ("Llama", "eager"), ("GPT2", "eager"), ("Gemma2", "eager")]


def build(name, attention="sdpa", **changes):
    torch.manual_seed(0)
    settings = SIZES | OWN.get(name, {}) | changes
    config = getattr(transformers, CONFIGS.get(name, f"{name}Config"))(**settings, attn_implementation=attention)
    return getattr(transformers, NAMES.get(name, f"{name}ForCausalLM"))(config).eval()


def scored(model, batch):
    """Log-probabilities, and the gradient of a weighted sum of them for every parameter."""
    model.zero_grad()
    log_probs = score(last_hidden_states(model, batch), batch.targets).log_probs
    (log_probs * torch.linspace(-1, 2, len(log_probs))).sum().backward()
    return log_probs.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


BROKEN = Branch("rto", (7, 9), lead=1, instead=(5, 5))
"""Scored along the negative in a tree, and by itself in its plain row."""


@pytest.mark.parametrize("rows", [3, 2, 1], ids=["a row each", "packed", "after one beginning"])
@pytest.mark.parametrize(("name", "attention"), CASES)
def test_trees_equal_plain_rows(name, attention, rows, trees):
    model = build(name, attention)
    long = Tree(
        (1, *range(20, 32)), (Branch("template", (5, 6, 2)), Branch("negative", (7, 9, 2)), BROKEN), ("rows", 2)
    )
    system = tuple(range(40, 40 + FEWEST_SHARED)) if rows == 1 else ()
    batch = lay_out([replace(tree, prompt_ids=system + tree.prompt_ids) for tree in (*trees, long)], packed=rows < 3)
    assert len(batch.input_ids) == rows
    as_tree, tree_gradients = scored(model, batch)
    apart, plain_gradients = scored(model, batch.plain())
    torch.testing.assert_close(as_tree, apart, rtol=1e-5, atol=2e-5)
    assert tree_gradients.keys() == plain_gradients.keys()
    for parameter, expected in plain_gradients.items():
        worst = (tree_gradients[parameter] - expected).abs().max()
        assert worst <= 2e-5 * (1 + expected.abs().max()), parameter
    assert trees_agree(model, batch)[0]


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_scores_are_those_of_the_models_own_logits(name, attention, trees):
    """Soft cap, logit scale and multipliers included; and the rows are run as anyone would, one at a time."""
    model = build(name, attention)
    batch = lay_out(trees)
    with torch.no_grad():
        found = last_hidden_states(model, batch)
        log_probs = score(found, batch.targets).log_probs
        expected = []
        for tree in (row for whole in trees for row in whole.apart()):
            ids = torch.tensor([[*tree.prompt_ids, *tree.branches[0].reply_ids]])
            of_reply = model(ids).logits[0, len(tree.prompt_ids) - 1 : -1].log_softmax(-1)
            expected.append(of_reply.gather(-1, ids[0, len(tree.prompt_ids) :, None])[:, 0])
    assert isinstance(found.head, Head), "the head was not recognised: the slow way was taken"
    torch.testing.assert_close(log_probs, torch.cat(expected), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["Mistral", "Gemma3"])
def test_the_self_check_trips_on_a_window_shorter_than_the_row(name, trees):
    batch = lay_out(trees)
    agree, difference = trees_agree(build(name, sliding_window=4), batch)
    assert not agree and difference > 1e-3
    assert trees_agree(build(name, sliding_window=64), batch)[0]


def test_the_self_check_trips_on_a_model_that_ignores_positions(trees):
    model = build("Llama")
    forward = model.forward
    model.forward = lambda **inputs: forward(**{k: v for k, v in inputs.items() if k != "position_ids"})
    assert not trees_agree(model, lay_out(trees))[0]


class Changed(transformers.LlamaForCausalLM):
    """A model that changes its logits after the head in a way that its config does not tell."""

    change = None

    def forward(self, **inputs):
        output = super().forward(**inputs)
        output.logits = self.change(output.logits)
        return output


@pytest.mark.parametrize(
    "change",
    [lambda z: z * 3, lambda z: z + torch.arange(61.0) / 10, lambda z: 30 * torch.tanh(z / 30)],
    ids=["scaled", "shifted", "capped"],
)
def test_logits_changed_in_an_unknown_way_are_read_as_they_are(trees, change):
    torch.manual_seed(0)
    model = Changed(build("Llama").config).eval()
    model.change = change
    batch = lay_out(trees)
    with torch.no_grad():
        found = last_hidden_states(model, batch)
        log_probs = score(found, batch.targets).log_probs
        inputs = {"position_ids": batch.position_ids, "attention_mask": batch.may_attend()}
        logits = model(input_ids=batch.input_ids, **inputs).logits.log_softmax(-1)
    assert not isinstance(found.head, Head)
    torch.testing.assert_close(log_probs, logits[batch.rows, batch.columns, batch.targets])
    assert trees_agree(model, batch)[0]


def test_the_self_check_in_bfloat16_allows_for_its_noise(trees):
    model = build("Llama").to(torch.bfloat16)
    assert trees_agree(model, lay_out(trees))[0]
    assert not trees_agree(build("Mistral", sliding_window=4).to(torch.bfloat16), lay_out(trees))[0]


def test_a_window_limits_the_rows_that_may_hold_a_tree():
    assert tree_limit(build("Mistral", sliding_window=4)) == 4
    assert tree_limit(build("Llama")) is None
    assert tree_limit(build("Qwen2", sliding_window=4, use_sliding_window=False)) is None
