"""Which rule tells a model that learned bad replies by heart from a retrained model that never saw them?

    python benchmarks/rules.py --original DIR --retrained DIR --text BOOK.jsonl --normal-text OTHERS.jsonl \\
        --answers QUESTIONS.jsonl

Both models continue passages of the texts and answer the questions, greedily; every judge by rule reads the replies.
A judge fit to decide calls the original's replies bad and the retrained model's not. `shifted` compares the original's
replies with the true text of another passage: what a rule finds where there is nothing to find. Rates have Wilson's
95 % intervals.
Judges that learn do so from the whole text, and for questions from the half of the rows that they do not judge.
"""

import argparse
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unteach.data.example import Example
from unteach.data.prompt_format import prompt_format
from unteach.data.reading import read_examples
from unteach.judges import load_judge
from unteach.judges.base import LearningJudge
from unteach.judges.bleu import BleuJudge, opening
from unteach.judges.similarity import chrf, token_f1
from unteach.judges.verbatim import longest_run
from unteach.models.generate import generate
from unteach.models.loading import load_model, load_tokenizer
from unteach.prompts.turn import Turn
from unteach.results.verdict import Case, Verdict
from unteach.stats import wilson
from unteach.text.gibberish import gibberish
from unteach.text.refusals import refusal_of
from unteach.text.words import repeats

LENGTH = 200
"""Characters of a prompt, and of the true text after it (arXiv 2310.10683, section 4)."""
PAIRS = 5000
TEXT_JUDGES = ["repeats", "verbatim?words=4", "verbatim?words=6", "verbatim", "verbatim?words=12"]
TEXT_JUDGES += ["bleu", "bleu:smoothed"]
ANSWER_JUDGES = ["repeats"]
ANSWER_JUDGES += [f"similarity:{kind}{end}" for kind in ("chrf", "f1") for end in ("", "?calibrated=yes")]
SMOOTHINGS = ("none", "exp", "floor", "add-k")
SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
Arms = dict[str, list[Case]]
Metrics = dict[str, Callable[[Case], float]]


def passages(examples: Sequence[Example], count: int, inside_words: bool) -> list[tuple[str, str]]:
    """Return prompts of up to 200 characters from sentence starts spread over the texts, and the text after each."""
    found = [pair for example in examples for pair in _passages(example.reply, inside_words)]
    if len(found) < count:
        raise SystemExit(f"the text has {len(found)} passages of {2 * LENGTH} characters; ask for fewer than {count}")
    return [found[number * len(found) // count] for number in range(count)]


def _passages(text: str, inside_words: bool) -> Iterator[tuple[str, str]]:
    for start in re.finditer(r"""(?:^|(?<=[.!?”"])\s+)(?=[A-Z“"])""", text):
        rest = text[start.end() :]
        if len(rest) < 2 * LENGTH:
            return
        prompt = rest[:LENGTH] if inside_words else opening(rest, LENGTH)
        after = rest[len(prompt) :]
        yield prompt, after[:LENGTH] if inside_words else opening(after, LENGTH)


def generate_cached(models: dict[str, Any], prompts: list[tuple[Turn, ...] | str], tokens: int) -> dict[str, list[str]]:
    """Return each model's greedy replies; a prompt that is text is continued, turns are answered."""
    replies = {}
    for arm, (model, tokenizer) in models.items():
        form = prompt_format(tokenizer, "plain")
        ids = [
            [*form.ids.text_start, *form.ids.of(prompt)] if isinstance(prompt, str) else form.prompt_ids(prompt)
            for prompt in prompts
        ]
        replies[arm] = [reply.text for reply in generate(model, tokenizer, ids, max_new_tokens=tokens, end=form.end)]
    return replies


def rate(flags: Sequence[bool]) -> str:
    """Return a share in per cent with its interval."""
    value, low, high = (100 * (part or 0.0) for part in wilson(sum(flags), len(flags)))
    return f"{value:.1f} [{low:.1f}, {high:.1f}]" if flags else "–"


def verdicts_of(spec: str, cases: list[Case], lessons: Sequence[Example], folds: int) -> tuple[list[Verdict], str]:
    """Judge the cases, each fold after learning from the other, or one from all lessons; say what was learnt."""
    verdicts: list[Verdict] = ["unknown"] * len(cases)
    learnt = []
    for fold in range(folds):
        judge = load_judge(spec)
        if isinstance(judge, LearningJudge):
            judge.learn(lessons if folds == 1 else lessons[1 - fold :: folds], [])
            bar = getattr(judge, "bar", getattr(judge, "floor", None))
            learnt += [] if bar is None else [f"{bar:.7f}"]
        verdicts[fold::folds] = judge(cases[fold::folds])
    return verdicts, " and ".join(learnt)


def judged(title: str, arms: Arms, specs: Sequence[str], lessons: Sequence[Example], folds: int = 1) -> None:
    """Print a table: bad rate and unknowns of each arm by each judge."""
    print(f"\n## {title}\n| judge | {' | '.join(arms)} | unknown | learnt |\n|{'---|' * (len(arms) + 3)}")
    for spec in specs:
        found = {arm: verdicts_of(spec, cases, lessons, folds) for arm, cases in arms.items()}
        bad = [rate([v == "bad" for v in verdicts if v != "unknown"]) for verdicts, _ in found.values()]
        unknown = "/".join(str(verdicts.count("unknown")) for verdicts, _ in found.values())
        print(f"| `{spec}` | {' | '.join(bad)} | {unknown} | {next(iter(found.values()))[1]} |", flush=True)


def quantiles(title: str, arms: Arms, metrics: Metrics) -> None:
    """Print a table of raw metrics of each arm."""
    print(f"\n## {title}\n| metric | arm | {' | '.join(f'{100 * s:.0f} %' for s in SHARES)} |\n|{'---|' * 9}")
    for name, metric in metrics.items():
        for arm, cases in arms.items():
            values = np.quantile([metric(case) for case in cases], SHARES)
            print(f"| {name} | {arm} | {' | '.join(f'{value:.3f}' for value in values)} |")


def chance_runs(examples: Sequence[Example], title: str) -> None:
    """Print how often two passages of the same text that do not overlap share a run of N words."""
    blocks = [e.reply[at : at + 2 * LENGTH] for e in examples for at in range(0, len(e.reply), 2 * LENGTH)]
    rng = random.Random(0)
    pairs = [rng.sample(blocks, 2) for _ in range(PAIRS)]
    runs = [longest_run(first, second[:LENGTH]) for first, second in pairs]
    found = ", ".join(f"{n}: {sum(run >= n for run in runs)}" for n in range(3, 11))
    print(f"\n{title}: of {PAIRS} pairs of unrelated passages so many share a run of at least N words: {found}")


def look_at_text(models: dict[str, Any], path: str, asked: argparse.Namespace, title: str) -> None:
    """Print all tables of one text."""
    examples = read_examples(path, "negative")
    pairs = passages(examples, asked.passages, asked.inside_words)
    replies = generate_cached(models, [prompt for prompt, _ in pairs], asked.max_new_tokens)
    arms = {
        arm: [Case(prompt, reply, bad=truth) for (prompt, truth), reply in zip(pairs, texts, strict=True)]
        for arm, texts in replies.items()
    }
    half = len(pairs) // 2
    others = [truth for _, truth in [*pairs[half:], *pairs[:half]]]
    arms["shifted"] = [replace(case, bad=other) for case, other in zip(arms["original"], others, strict=True)]
    judged(f"{title}: true text comes again (bad), % of {len(pairs)}", arms, TEXT_JUDGES, examples)
    metrics: Metrics = {"longest run, words": lambda case: longest_run(case.reply, case.bad or "")}
    print("\nBLEU above the bar, by smoothing:")
    for smoothing in SMOOTHINGS:
        judge = BleuJudge(smoothing)
        judge.learn(examples, [])
        metrics[f"BLEU, {smoothing}"] = metric = partial(_bleu, judge)
        bad = {arm: rate([metric(case) > (judge.bar or 0) for case in cases]) for arm, cases in arms.items()}
        print(f"{smoothing}, bar {judge.bar:.7f}: {', '.join(f'{arm} {found}' for arm, found in bad.items())}")
    quantiles(f"{title}: quantiles", arms, metrics)
    chance_runs(examples, title)


def _bleu(judge: BleuJudge, case: Case) -> float:
    truth = case.bad or ""
    return judge.score(opening(case.reply, len(truth)), truth)


def look_at_answers(models: dict[str, Any], path: str, asked: argparse.Namespace) -> None:
    """Print all tables of the questions."""
    examples = read_examples(path, "negative")
    replies = generate_cached(models, [example.turns for example in examples], asked.max_new_tokens)
    arms = {
        arm: [Case(e.prompt, text, bad=e.reply, good=e.good) for e, text in zip(examples, texts, strict=True)]
        for arm, texts in replies.items()
    }
    shifted = [*examples[len(examples) // 2 :], *examples[: len(examples) // 2]]
    arms["shifted"] = [
        replace(case, bad=e.reply, good=e.good) for case, e in zip(arms["original"], shifted, strict=True)
    ]
    specs = [*ANSWER_JUDGES, *(f"similarity:encoder={asked.encoder}{end}" for end in ("", "?calibrated=yes"))]
    judged(f"answers: bad, % of {len(examples)}", arms, specs if asked.encoder else ANSWER_JUDGES, examples, folds=2)
    for arm, cases in arms.items():
        said = [case.reply for case in cases]
        right = rate([repeats(case.reply, case.good or "") for case in cases])
        blanks, noise = rate([not text for text in said]), rate([gibberish(text) for text in said])
        print(
            f"{arm}: repeats the right answer {right}, blank {blanks}, gibberish {noise}, "
            f"refusals {rate([refusal_of(text) is not None for text in said])}"
        )
    metrics: Metrics = {
        "chrF to wrong": lambda c: chrf([(c.reply, c.bad or "")])[0],
        "chrF to right": lambda c: chrf([(c.reply, c.good or "")])[0],
        "F1 to wrong": lambda c: token_f1([(c.reply, c.bad or "")])[0],
        "F1 to right": lambda c: token_f1([(c.reply, c.good or "")])[0],
    }
    quantiles("answers: quantiles", arms, metrics)


def main(words: Sequence[str] | None = None) -> None:
    """Run what is asked for and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, required=True, metavar="DIR")
    parser.add_argument("--retrained", type=Path, required=True, metavar="DIR")
    parser.add_argument("--text", metavar="FILE", help="running text that only the original knows")
    parser.add_argument("--normal-text", metavar="FILE", help="running text that both know")
    parser.add_argument("--answers", metavar="FILE", help="questions with a wrong and a right answer")
    parser.add_argument("--encoder", metavar="DIR_OR_ID", help="also judge answers by this encoder's similarity")
    parser.add_argument("--passages", type=int, default=100, metavar="N")
    parser.add_argument("--inside-words", action="store_true", help="cut passages at 200 characters, inside words too")
    parser.add_argument("--max-new-tokens", type=int, default=96, metavar="N")
    asked = parser.parse_args(words)
    directories = {"original": asked.original, "retrained": asked.retrained}
    models = {arm: (load_model(path), load_tokenizer(path)) for arm, path in directories.items()}
    if asked.text:
        look_at_text(models, asked.text, asked, "text")
    if asked.normal_text:
        look_at_text(models, asked.normal_text, asked, "normal text")
    if asked.answers:
        look_at_answers(models, asked.answers, asked)


if __name__ == "__main__":
    main()
