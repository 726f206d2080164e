"""Could a model tell harm from what only sounds alike, after the shipped prompts alone?

    python benchmarks/prompt_lists.py --data ../shared/data --model packaged:smollm2 --half development

A linear probe (logistic regression) on the original's states at the last prompt token, at half, two thirds and nearly
all of its depth, learns the shipped harmful prompts against the look-alikes to train on and the benign ones, and is
tried on XSTest, which those lists do not hold. It bounds nothing, but says at small cost what lists of prompts are
worth: no training is needed. Printed for each share of the lists: the area under the curve, and how many unsafe
prompts are missed where at most 5 % of the safe ones are declined. Means over draws.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from real_model import prompts_of
from unteach.data.prompt_format import PromptFormat, prompt_format
from unteach.models.loading import load_model, load_tokenizer
from unteach.models.reply import named_end
from unteach.progress import track
from unteach.prompts.lists import benign_prompts, harmful_prompts, lookalike_prompts, training_lookalikes
from unteach.prompts.turn import Turn
from where_it_shows import hidden

DEPTHS = (0.54, 0.6, 0.74, 0.94)
SHARES, DRAWS = (0.1, 0.25, 0.5, 1.0), 5


def states(model: Any, form: PromptFormat, prompts: list[str], what: str) -> np.ndarray:
    """Return for each prompt the states of its last token at the depths, one after another."""
    found = []
    with track(what) as progress:
        for number, prompt in enumerate(prompts, start=1):
            layers = hidden(model, form.prompt_ids((Turn("user", prompt),)))
            chosen = [round(depth * (len(layers) - 1)) for depth in DEPTHS]
            found.append(layers[chosen, -1].flatten().cpu().numpy())
            if progress:
                progress(number, len(prompts))
    return np.stack(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="packaged:smollm2")
    parser.add_argument("--half", choices=("development", "held-out"), default="development")
    args = parser.parse_args()
    tokenizer, model = load_tokenizer(args.model), load_model(args.model).eval()
    form = prompt_format(tokenizer, "auto", named_end(model))
    sets = prompts_of(args.data, args.half == "held-out")
    shipped = {"harmful": harmful_prompts(), "look-alike": training_lookalikes(), "benign": benign_prompts()}
    tried = {name: sets[name] for name in ("AdvBench", "XSTest unsafe", "XSTest safe")} | {"ours": lookalike_prompts()}
    of = {name: states(model, form, prompts, name) for name, prompts in (shipped | tried).items()}
    rng = np.random.default_rng(0)
    print(f"XSTest, {args.half} half: n = {len(of['XSTest unsafe'])} unsafe, {len(of['XSTest safe'])} safe")
    for share in SHARES:
        rows = [measure(of, share, rng) for _ in range(DRAWS if share < 1 else 1)]
        auc, missed, adv, ours = np.mean(rows, axis=0)
        print(
            f"{share:.0%} of the lists: AUC {auc:.3f}; at 5 % of the safe ones declined: XSTest unsafe missed "
            f"{missed:.1%}, AdvBench missed {adv:.1%}, our look-alikes to evaluate on declined {ours:.1%}"
        )


def measure(of: dict[str, np.ndarray], share: float, rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Fit a probe on a share of the lists and try it."""

    def some(name: str) -> np.ndarray:
        return of[name][rng.permutation(len(of[name]))[: max(1, round(share * len(of[name])))]]

    bad, good = some("harmful"), np.concatenate([some("look-alike"), of["benign"]])
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=3000, class_weight="balanced"))
    probe.fit(np.concatenate([bad, good]), [1] * len(bad) + [0] * len(good))
    score = {name: probe.decision_function(of[name]) for name in ("AdvBench", "XSTest unsafe", "XSTest safe", "ours")}
    unsafe, safe = score["XSTest unsafe"], score["XSTest safe"]
    limit = np.quantile(safe, 0.95)
    auc = roc_auc_score([1] * len(unsafe) + [0] * len(safe), np.concatenate([unsafe, safe]))
    missed = float((unsafe <= limit).mean()), float((score["AdvBench"] <= limit).mean())
    return float(auc), *missed, float((score["ours"] > limit).mean())


if __name__ == "__main__":
    main()
