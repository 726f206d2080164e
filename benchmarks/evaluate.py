"""Time the evaluation of two arms: tokens per second against one prompt at a time, and the whole of it.

    python benchmarks/evaluate.py                       a 13M Llama, 3 splits of 200 prompts, 64 new tokens each
    python benchmarks/evaluate.py --vocabulary 32000 --prompts 50

The model has the shape of the organism `small` with random weights, and never ends a reply: the worst case, in which
every reply is as long as it may be. Three ways generate the same replies, in turns, so that a noisy machine slows all
alike:

    ours      `unteach.models.generate`: batches by length, a cache that is filled in place
    batched   transformers' `generate` on the same batches, with its own cache
    single    transformers' `generate`, one prompt after the other

`evaluation` is `evaluate_arm` on both arms: replies, verdicts, log-probabilities of known replies and the KL to the
first arm. Nothing comes from the reply cache.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import GenerationConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from unteach.data.encoded import Encoded, encode_all
from unteach.data.example import Example
from unteach.data.prompt_format import PromptFormat, prompt_format
from unteach.disk.cache import Cache
from unteach.evaluation.evaluation import Evaluation, evaluate_arm
from unteach.judges import load_judges
from unteach.models import decoding
from unteach.models.generate import generate
from unteach.organism.recipe import recipe_of
from unteach.scoring.reference import MOST_BYTES, CachedStates

SPLITS = ("seen", "unseen", "normal")
WAYS = ("ours", "batched", "single")
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
PAD, BOS, EOS = 0, 1, 2


def model_of(shape: str, vocabulary: int, seed: int = 0) -> LlamaForCausalLM:
    """Build a random model that never says EOS: its logit is 0, and another one is always higher."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(recipe_of(shape).config(vocabulary, PAD, BOS, EOS)).eval()
    with torch.no_grad():
        model.get_input_embeddings().weight[EOS] = 0
    return model


def tokenizer_of(vocabulary: int) -> PreTrainedTokenizerFast:
    """Make a tokenizer of words w4, w5, … behind four special tokens."""
    names = [*SPECIAL, *(f"w{number}" for number in range(len(SPECIAL), vocabulary))]
    words = Tokenizer(WordLevel({name: number for number, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def rows_of(form: PromptFormat, vocabulary: int, splits: int, prompts: int, reply: int) -> list[list[Encoded]]:
    """Make rows of random words: prompts of 4 to 120 tokens, about 28 on average, replies of `reply`."""
    rng = random.Random(0)

    def words(count: int) -> str:
        return " ".join(f"w{rng.randrange(4, vocabulary)}" for _ in range(count))

    made = []
    for _ in range(splits):
        lengths = [max(4, min(120, int(rng.lognormvariate(3.2, 0.5)))) for _ in range(prompts)]
        examples = [Example.of(words(length), words(reply), where=f"row {n}") for n, length in enumerate(lengths, 1)]
        made.append(encode_all(examples, form, 400, "rows")[0])
    return made


def transformers_alone(model: Any, prompts: Sequence[Sequence[int]], new: int) -> list[list[int]]:
    """Reply to one prompt after the other."""
    settings = GenerationConfig(max_new_tokens=new, pad_token_id=PAD, eos_token_id=EOS)
    replies = []
    for prompt in prompts:
        ids = torch.tensor([list(prompt)])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        replies.append(output[0, len(prompt) :].tolist())
    return replies


def timed(model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], arguments: Any) -> dict[str, list[float]]:
    """Return the tokens per second of each way, one metric a round; the first round warms up and is not counted.

    One prompt at a time is measured on a part of the prompts. Raises ValueError where the ways do not agree: greedy
    replies may differ where two tokens tie, which random weights in float32 do not.
    """
    alone = list(prompts[: max(1, len(prompts) // 10)])
    own_cache = decoding.roomy_cache

    def ours() -> list[str]:
        replies = generate(model, tokenizer, prompts, max_new_tokens=arguments.new_tokens)
        return [reply.text for reply in replies]

    def batched() -> list[str]:
        decoding.roomy_cache = lambda *_: None
        try:
            return ours()
        finally:
            decoding.roomy_cache = own_cache

    def single() -> list[str]:
        found = transformers_alone(model, alone, arguments.new_tokens)
        return [tokenizer.decode(ids, skip_special_tokens=True).strip() for ids in found]

    ways: dict[str, Callable[[], list[str]]] = {
        "ours": ours,
        "batched": batched,
        "single": single,
    }
    speed: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(arguments.rounds + 1):
        said = {}
        for name in WAYS:
            began = time.perf_counter()
            said[name] = ways[name]()
            speed[name].append(len(said[name]) * arguments.new_tokens / (time.perf_counter() - began))
        if said["ours"] != said["batched"] or said["ours"][: len(alone)] != said["single"]:
            raise ValueError(f"round {number}: the ways do not give the same replies")
    return {name: values[1:] for name, values in speed.items()}


def evaluation_seconds(models: Sequence[Any], form: PromptFormat, splits: dict[str, list[Encoded]], new: int) -> float:
    """Return the seconds that it takes to evaluate both arms on all splits, with KL to the first."""
    began = time.perf_counter()
    evaluation = Evaluation(splits, form, load_judges(["repeats"]), new)
    with tempfile.TemporaryDirectory() as cache:
        reference = CachedStates.build(models[0], evaluation.trees(), Cache(Path(cache), MOST_BYTES), "states")
        for arm, model in zip(("original", "unlearned"), models, strict=True):
            evaluate_arm(evaluation, arm, model, reference)
    for results in evaluation.results.values():
        for split, result in results.items():
            assert len(result.cases) == len(splits[split])
    return time.perf_counter() - began


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="small", help="size of organism whose shape the model has")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--prompts", type=int, default=200, help="prompts per split")
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, help="threads of torch; unset: its own choice")
    parser.add_argument("--json", action="store_true", help="print the metrics as one last line")
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    tokenizer = tokenizer_of(arguments.vocabulary)
    models = [model_of(arguments.shape, arguments.vocabulary, seed) for seed in (0, 1)]
    form = prompt_format(tokenizer)
    rows = rows_of(form, arguments.vocabulary, len(SPLITS), arguments.prompts, arguments.new_tokens)
    splits = dict(zip(SPLITS, rows, strict=True))
    parameters = sum(weight.numel() for weight in models[0].parameters())
    size = f"{parameters / 1e6:.1f}M parameters, vocabulary {arguments.vocabulary}"
    print(f"{arguments.shape}: {size}, float32, {torch.get_num_threads()} threads")
    speed = timed(models[0], tokenizer, [row.prompt_ids for row in rows[0]], arguments)
    faster = {
        name: statistics.median(ours / other for ours, other in zip(speed["ours"], speed[name], strict=True))
        for name in WAYS[1:]
    }
    for name in WAYS:
        print(f"  {name:8s}{statistics.median(speed[name]):8.0f} tokens/s")
    print(f"  ours: {faster['single']:.1f} times as fast as single, {faster['batched']:.2f} times as batched (medians)")
    seconds = evaluation_seconds(models, form, splits, arguments.new_tokens)
    what = f"2 arms × {len(SPLITS)} × {arguments.prompts} prompts × {arguments.new_tokens} tokens"
    print(f"  evaluating {what}: {seconds:.1f} s")
    if arguments.json:
        settings = {key: value for key, value in vars(arguments).items() if key != "json"}
        settings |= {"parameters": parameters, "threads": torch.get_num_threads()}
        medians = {name: statistics.median(values) for name, values in speed.items()}
        metrics = {"tokens_per_second": medians, "faster_than": faster, "evaluation_seconds": seconds}
        print(json.dumps({"settings": settings, "results": metrics}))


if __name__ == "__main__":
    main()
