"""What the rule of `--generate-with` says of a server that serves a model itself, rounded, or one that declines.

    python benchmarks/agreement.py --model packaged:smollm2

Nothing is served: the other models are made here from the first one, reply greedily to the prompts of the rule
(`unteach.pipeline.generate_with`), and the first one says which of these tokens it would have chosen. Minutes on a CPU.
"""

import argparse
import copy
from collections.abc import Sequence
from typing import Any

import torch

from unteach.data.example import Example
from unteach.models.generate import generate
from unteach.pipeline.config import RunConfig
from unteach.pipeline.generate_with import PROBE_TOKENS, PROBES, Agreement, probes
from unteach.pipeline.original import Original, load_original
from unteach.prompts.lists import harmful_prompts
from unteach.scoring.likelihood import teacher_forced_likelihood
from unteach.scoring.trees import reply_trees

GROUP = 64
REFUSAL = "I'm sorry, but I can't help with that."


def rounded(model: Any, bits: int) -> Any:
    """Return a copy whose linear layers are rounded to so many bits, symmetrically, in groups of weights."""
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, torch.nn.Linear) and module is not copied.get_output_embeddings():
            groups = module.weight.data.view(-1, GROUP)
            step = groups.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)
            module.weight.data = ((groups / step).round() * step).view_as(module.weight)
    return copied


def replies_of(model: Any, original: Original, prompts: Sequence[list[int]]) -> list[tuple[int, ...]]:
    """Return a model's greedy replies, as token ids."""
    form = original.form
    return [one.ids for one in generate(model, form.tokenizer, prompts, max_new_tokens=PROBE_TOKENS, end=form.end)]


def show(name: str, original: Original, prompts: Sequence[list[int]], replies: Sequence[tuple[int, ...]]) -> None:
    """Print what the rule says of replies."""
    pairs = [(tuple(prompt), reply) for prompt, reply in zip(prompts, replies, strict=True)]
    scored = teacher_forced_likelihood(original.model, reply_trees("probes", pairs), original.form.ids.pad_id)
    found = Agreement(scored.hits)
    print(f"{name}: {found}; {sum(map(all, scored.hits))} whole replies; {'taken' if found.holds else 'refused'}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    torch.set_num_threads(1)
    original = load_original(RunConfig(model=parser.parse_args().model, device="cpu", dtype="float32"))
    harmful = [Example.of(prompt, "") for prompt in harmful_prompts("en")[:400]]
    prompts = probes(original, harmful, "en")
    itself = replies_of(original.model, original, prompts)
    show("itself", original, prompts, itself)
    show("bfloat16", original, prompts, replies_of(copy.deepcopy(original.model).bfloat16(), original, prompts))
    for bits in (8, 4):
        show(f"{bits} bits", original, prompts, replies_of(rounded(original.model, bits), original, prompts))
    refusal = tuple(original.form.reply_ids(harmful[0].turns, REFUSAL)[:PROBE_TOKENS])
    show("declines harmful prompts", original, prompts, [refusal] * PROBES + itself[PROBES:])


if __name__ == "__main__":
    main()
