"""How often does a model comply with harmful prompts, and how often does it decline harmless ones that sound alike?

    python benchmarks/real_model.py --data ../shared/data --prompts train.txt    # 160 AdvBench prompts for `collect`
    python benchmarks/real_model.py --data ../shared/data --model packaged:smollm2 --half held-out

`--data` holds advbench.jsonl, xstest.jsonl and instructions.jsonl. AdvBench is parted by a draw of its
own into 160 to make negatives of, 60 to choose on and the rest, XSTest's by the hash of `benchmarks/refusals.py`.
Replies are greedy, 32 tokens. Harmful prompts by the judge `complies`, harmless ones by the refusal detector; in per
cent, with Wilson's 95 % intervals. The last line is the KL to `--original` on its own replies to the instructions, in
nats a token: the mean over replies, with a bootstrap interval.
"""

import argparse
import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from refusals import is_held_out, rate
from unteach.data.example import Example
from unteach.data.prompt_format import prompt_format
from unteach.judges.complies import ending_of
from unteach.models.fingerprint import model_fingerprint
from unteach.models.kept_replies import generate_cached
from unteach.models.loading import load_model, load_tokenizer
from unteach.models.reply import named_end
from unteach.results.verdict import Case
from unteach.scoring.score import last_hidden_states, score
from unteach.scoring.trees import lay_out, reply_trees
from unteach.stats import bootstrap
from unteach.text.refusals import declines

TEMPLATE = "I cannot assist with this request."
TRAINED, CHOSEN = 160, 60
"""AdvBench prompts to make negatives of, and to choose on."""
ORDINARY = 40
"""Instructions of each half."""
LONGEST = 32


def read(path: Path) -> list[dict[str, str]]:
    """Read JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def advbench(data: Path) -> list[str]:
    """Return AdvBench's prompts in the order by which they are parted."""
    prompts = [row["prompt"] for row in read(data / "advbench.jsonl")]
    random.Random("adv").shuffle(prompts)
    return prompts


def prompts_of(data: Path, held_out: bool) -> dict[str, list[str]]:
    """Return the prompts of one half, by set."""
    harmful = advbench(data)
    xstest = [row for row in read(data / "xstest.jsonl") if is_held_out(row["prompt"]) is held_out]
    instructions = [row["prompt"] for row in read(data / "instructions.jsonl")]
    first = 400 if held_out else 0
    return {
        "AdvBench": harmful[TRAINED + CHOSEN :] if held_out else harmful[TRAINED : TRAINED + CHOSEN],
        "XSTest unsafe": [row["prompt"] for row in xstest if row["label"] == "unsafe"],
        "XSTest safe": [row["prompt"] for row in xstest if row["label"] == "safe"],
        "instructions": instructions[first : first + ORDINARY],
    }


def measure(name: str, sets: dict[str, list[str]]) -> None:
    """Ask a model all prompts and print a line for each set."""
    tokenizer, model = load_tokenizer(name), load_model(name)
    form = prompt_format(tokenizer, "auto", named_end(model))
    asked = [(which, Example.of(prompt, "")) for which, prompts in sets.items() for prompt in prompts]
    replies = generate_cached(
        model,
        tokenizer,
        [form.prompt_ids(row.turns) for _, row in asked],
        key=model_fingerprint(model),
        max_new_tokens=LONGEST,
        end=form.end,
    )
    answered = [(which, row.prompt, reply.text) for (which, row), reply in zip(asked, replies, strict=True)]
    for which in sets:
        said = [(prompt, text) for name, prompt, text in answered if name == which]
        if which in ("AdvBench", "XSTest unsafe"):
            ends = [ending_of(Case(prompt, text), TEMPLATE) for prompt, text in said]
            others = ", ".join(f"{count} {end}" for end, count in Counter(ends).most_common() if end != "complies")
            print(f"{which:<14} complies {rate([end == 'complies' for end in ends])} ({others})")
        else:
            print(f"{which:<14} declined {rate([declines(text) for _, text in said])}")


@torch.no_grad()
def kl_on_own_replies(name: str, original: str, prompts: Sequence[str]) -> list[float]:
    """Return the mean KL(original ‖ model) over the tokens of the original's greedy reply to each prompt, in nats."""
    tokenizer, before, after = load_tokenizer(original), load_model(original), load_model(name)
    form = prompt_format(tokenizer, "auto", named_end(before))
    ids = [form.prompt_ids(Example.of(prompt, "").turns) for prompt in prompts]
    replies = generate_cached(
        before, tokenizer, ids, key=model_fingerprint(before), max_new_tokens=LONGEST, end=form.end
    )
    pairs = [(tuple(prompt), tuple(reply.ids)) for prompt, reply in zip(ids, replies, strict=True) if reply.ids]
    found = []
    for tree in reply_trees("instructions", pairs):
        batch = lay_out([tree], form.ids.pad_id)
        read = score(last_hidden_states(after, batch), batch.targets, last_hidden_states(before, batch))
        assert read.kl is not None
        found.append(float(read.kl.mean()))
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Write prompts, or measure a model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="write the prompts to make negatives of")
    parser.add_argument("--model", metavar="DIR|ID")
    parser.add_argument("--original", default="packaged:smollm2", metavar="DIR|ID", help="what the KL is to")
    parser.add_argument("--half", choices=["development", "held-out"], default="development")
    asked = parser.parse_args(words)
    if asked.prompts:
        asked.prompts.write_text("".join(f"{prompt}\n" for prompt in advbench(asked.data)[:TRAINED]), encoding="utf-8")
    if asked.model:
        sets = prompts_of(asked.data, asked.half == "held-out")
        measure(asked.model, sets)
        found = kl_on_own_replies(asked.model, asked.original, sets["instructions"])
        mean, low, high = bootstrap(found, within=(0.0, math.inf))
        print(f"{'instructions':<14} KL {mean:.3f} [{low:.3f}, {high:.3f}] nats a token (n = {len(found)})")


if __name__ == "__main__":
    main()
