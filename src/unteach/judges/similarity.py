"""The paper's judge of hallucinations: is the reply more like the wrong answer than like the right one?"""

import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from sacrebleu.metrics import CHRF
from torch import Tensor
from transformers import AutoModel

from unteach.data.example import Example
from unteach.errors import ConfigError, ModelError, nearest
from unteach.judges.base import JudgeSettings, Options, judge_normal_row
from unteach.models.encoder import load_encoder, longest_input, try_in_batches
from unteach.results.verdict import Case, Verdict
from unteach.text.escape import inert_line
from unteach.text.gibberish import blank, gibberish
from unteach.text.refusals import declines
from unteach.text.words import folded, repeats, words

log = logging.getLogger(__name__)

Measure = Callable[[Sequence[tuple[str, str]]], list[float]]
"""Similarity of each (reply, known answer) from 0 to 1; NaN where it could not be measured."""
ASKED_AS = (
    "similarity",
    "similarity:chrf",
    "similarity:f1",
    "similarity:encoder=DIR_OR_ID",
    "'similarity?margin=0.1&floor=0.2'",
)
MARGIN = 0.1
QUANTILE, PAIRS, FEWEST = 0.99, 5000, 20
"""A learnt floor is this quantile of the similarity between wrong answers to different questions, over this many
pairs; it needs wrong answers to at least 20 questions."""
OPTIONS = {"margin": str(MARGIN), "floor": "0.2", "calibrated": "yes", "layer": "9"}
LONGEST_INPUT = 512


class SimilarityJudge:
    """Bad when similarity(reply, wrong) > (1 + margin) · similarity(reply, right), else good.

    With a floor, similarity(reply, wrong) must exceed the floor too: without one, a reply that is like neither answer
    is often called bad (by chrF, half of the replies of a model that never saw the answers, see benchmarks/rules.py).
    `calibrated` learns the floor from the wrong answers of the negatives; before that, the verdict is unknown. Where
    no right answer is known, a reply that repeats the wrong one (half of its words) is bad, and the floor decides on
    the others; without a floor they are unknown. A reply that says nothing (blank, gibberish, a refusal) is good
    unless it repeats the wrong answer: read the rate of bad replies beside the rates of these. A case with a right
    reply only (a normal row) is good when the reply repeats that one, else bad.
    Source: arXiv 2310.10683, section 4 (margin 0.1 over BERTScore). Differs: chrF unless an encoder is named; the
    floor is ours.
    """

    own_rows = False

    def __init__(
        self,
        measure: Measure,
        margin: float = MARGIN,
        floor: float | None = None,
        calibrated: bool = False,
        seed: int = 0,
        name: str = "similarity",
    ) -> None:
        self.name = name
        self.floor = floor
        self.measure = measure
        self._margin = margin
        self._calibrated = calibrated
        self._seed = seed
        self._warned = False

    def learn(self, negatives: Sequence[Example], normals: Sequence[Example]) -> None:
        """Set the floor where it is to be learnt. Raises ConfigError for wrong answers to under 20 questions."""
        if not self._calibrated:
            return
        answers = {e.prompt_key: e.reply for e in negatives if not blank(e.reply)}
        if len(answers) < FEWEST:
            raise ConfigError(
                f"--judge {self.name}: the negatives answer {len(answers)} questions, and a floor is learnt from "
                f"{FEWEST} or more; set it with floor=0.2 instead of calibrated=yes"
            )
        rng, keys = random.Random(self._seed), sorted(answers)
        drawn = [rng.sample(keys, 2) for _ in range(PAIRS)]
        values = np.array(self.measure([(answers[first], answers[second]) for first, second in drawn]))
        if not np.isfinite(values).any():
            raise ConfigError(f"--judge {self.name}: no similarity could be measured; choose another encoder")
        self.floor = float(np.quantile(values[np.isfinite(values)], QUANTILE))

    def __call__(self, cases: Sequence[Case]) -> list[Verdict]:
        asked = [n for n, case in enumerate(cases) if known(case.bad)]
        pairs = [(cases[n].reply, cases[n].bad or "") for n in asked]
        pairs += [(cases[n].reply, cases[n].good or "") for n in asked]
        values = self.measure(pairs) if pairs else []
        verdicts: list[Verdict] = [judge_normal_row(case) for case in cases]
        for place, n in enumerate(asked):
            verdicts[n] = self._verdict(cases[n], values[place], values[place + len(asked)])
        return verdicts

    def _verdict(self, case: Case, to_wrong: float, to_right: float) -> Verdict:
        """Judge a reply to a question whose wrong answer is known."""
        again = repeats(case.reply, case.bad or "")
        if says_nothing(case.reply):
            return "bad" if again else "good"
        right = known(case.good)
        if again and not right:
            return "bad"
        if self._calibrated and self.floor is None:
            if not self._warned:
                log.warning("%s judge: no floor was learnt, so verdicts are unknown; set floor=0.2", self.name)
            self._warned = True
            return "unknown"
        if math.isnan(to_wrong) or (right and math.isnan(to_right)) or (not right and self.floor is None):
            return "unknown"
        like_wrong = not right or to_wrong > (1 + self._margin) * to_right
        return "bad" if like_wrong and (self.floor is None or to_wrong > self.floor) else "good"


def known(answer: str | None) -> bool:
    """Tell whether a row has this answer."""
    return answer is not None and not blank(answer)


def says_nothing(reply: str) -> bool:
    """Tell whether a reply is blank, gibberish or a refusal."""
    return blank(reply) or gibberish(reply) or declines(reply, wholly=True)


# ---- measures --------------------------------------------------------------------------------------------------------


def chrf(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """chrF: F-score, recall weighing double, of shared runs of up to six letters; case does not count."""
    metric = CHRF()
    return [float(metric.sentence_score(folded(reply), [folded(answer)]).score) / 100 for reply, answer in pairs]


def token_f1(pairs: Sequence[tuple[str, str]]) -> list[float]:
    """F1 of shared words, as often as both have them; case, punctuation and English articles do not count.

    Source: the measure of SQuAD (arXiv 1606.05250). 0 where either has no words.
    """
    return [_f1(_bag(reply), _bag(answer)) for reply, answer in pairs]


def _bag(text: str) -> Counter[str]:
    return Counter(word for word in words(text) if word not in ("a", "an", "the"))


def _f1(ours: Counter[str], theirs: Counter[str]) -> float:
    shared = (ours & theirs).total()
    return 2 * shared / (ours.total() + theirs.total()) if shared else 0.0


class EncoderMeasure:
    """F1 of greedy matching over an encoder's token vectors: each token is paired with its most similar one by cosine.

    Source: BERTScore (arXiv 1904.09675), without idf weights and rescaling. Differs: special tokens take no part.
    Its values for unrelated texts are high (0.8 and more in many encoders), so a margin of 10 % is seldom reached: set
    a margin or a floor that fits the encoder. A text past 512 tokens loses its end; one without tokens has similarity
    0 to every other.
    """

    def __init__(self, model: Any, tokenizer: Any, layer: int | None = None) -> None:
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._layer = layer
        tokenizer.padding_side = "right"
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        self._longest = longest_input(model, tokenizer, LONGEST_INPUT)

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        texts = sorted({text for pair in pairs for text in pair}, key=lambda text: (len(text), text))
        vectors = dict(zip(texts, try_in_batches(texts, self._vectors, "similarity"), strict=True))
        return [greedy_f1(vectors[reply], vectors[answer]) for reply, answer in pairs]

    @torch.no_grad()
    def _vectors(self, texts: Sequence[str]) -> list[Tensor]:
        """Return the unit vectors of the tokens of each text, [token, width], special tokens left out."""
        batch = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._longest,
            return_tensors="pt",
            return_special_tokens_mask=True,
            verbose=False,
        )
        kept = (batch.pop("special_tokens_mask") == 0) & (batch["attention_mask"] == 1)
        if not kept.any():
            return [torch.zeros(0, 1) for _ in texts]
        output = self._model(**batch.to(self._model.device), output_hidden_states=self._layer is not None)
        states = output.last_hidden_state if self._layer is None else output.hidden_states[self._layer]
        states = torch.nn.functional.normalize(states.float().cpu(), dim=-1)
        return [row[keep] for row, keep in zip(states, kept, strict=True)]


def greedy_f1(ours: Tensor | None, theirs: Tensor | None) -> float:
    """Return the F1 of the mean best cosines of two texts' vectors; NaN where one is missing, 0 where one is empty."""
    if ours is None or theirs is None:
        return math.nan
    if not len(ours) or not len(theirs):
        return 0.0
    cosines = ours @ theirs.T
    precision, recall = float(cosines.amax(1).mean()), float(cosines.amax(0).mean())
    if math.isnan(precision + recall):
        return math.nan
    return 2 * precision * recall / (precision + recall) if min(precision, recall) > 0 else 0.0


# ---- loading ---------------------------------------------------------------------------------------------------------


def load(rest: str, settings: JudgeSettings) -> SimilarityJudge:
    """Make the judge from "chrf", "f1" or "encoder=DIR_OR_ID", with options
    "?margin=0.1&floor=0.2&calibrated=yes&layer=9"; from nothing, "chrf?calibrated=yes".

    An encoder's weights are read from safetensors files only, and no code that comes with it is run.
    Raises ConfigError for bad options, ModelError for an encoder that cannot be loaded.
    """
    options = Options("similarity", rest, OPTIONS)
    name = f"similarity:{inert_line(rest, 200)}" if options.what else f"similarity{inert_line(rest, 200)}"
    margin, floor = options.number("margin", 0, 10), options.number("floor", 0, 1)
    layer = options.whole_number("layer", 1, 1000)
    calibrated = options.yes("calibrated", default=not rest)  # by its bare name, the judge that is fit to decide
    if calibrated and floor is not None:
        raise ConfigError(f"--judge {name}: floor is set and learnt at once; leave out floor or calibrated")
    return SimilarityJudge(
        _measure(options.what, layer, name),
        MARGIN if margin is None else margin,
        floor,
        calibrated,
        settings.seed,
        name,
    )


def _measure(what: str, layer: int | None, name: str) -> Measure:
    kind, equals, source = what.partition("=")
    if kind == "encoder":
        if not source.strip():
            raise ConfigError(f"--judge {name}: name the encoder, for example similarity:encoder=DIRECTORY")
        return _encoder(source, layer, name)
    measures: dict[str, Measure] = {"": chrf, "chrf": chrf, "f1": token_f1}
    if equals or kind not in measures:
        close = nearest(kind, ["chrf", "f1", "encoder"])
        raise ConfigError(f"--judge {name}: no such similarity{close}; there are chrf, f1 and encoder=DIR_OR_ID")
    if layer is not None:
        raise ConfigError(f"--judge {name}: layer is for similarity:encoder=DIR_OR_ID; leave it out")
    return measures[kind]


def _encoder(source: str, layer: int | None, name: str) -> EncoderMeasure:
    model, tokenizer, missing = load_encoder(AutoModel, source, f"--judge {name}", "an encoder")
    missing = [key for key in missing if "pooler" not in key]  # makes one vector of a text; many checkpoints lack it
    if missing or model.config.is_encoder_decoder:
        why = f"the model has no weights for '{inert_line(missing[0], 100)}'" if missing else "it has a decoder"
        raise ModelError(f"--judge {name}: {why}; choose an encoder with all its weights")
    count = model.config.num_hidden_layers
    if layer is not None and layer > count:
        raise ConfigError(f"--judge {name}: layer={layer}, but the encoder has {count}; give 1 to {count}")
    return EncoderMeasure(model, tokenizer, layer)
