"""Methods: named lists of (objective, stream, weight). Published methods have their usual names."""

from dataclasses import dataclass, replace
from typing import Literal

from unteach.errors import ConfigError, nearest
from unteach.objectives.base import Objective
from unteach.objectives.divergence import ForwardKL
from unteach.objectives.likelihood import GradientAscent, NegativeLogLikelihood, WeightedAscent
from unteach.objectives.preference import NPO, SimNPO
from unteach.scoring.trees import Stream


@dataclass(frozen=True)
class Term:
    """One summand of a method's loss: weight · objective(replies of the stream)."""

    objective: Objective
    stream: Stream
    weight: float


@dataclass(frozen=True)
class Method:
    """A loss with a name: the weighted sum of its terms, and how its rows are drawn.

    - `template_midway`: the template is also taught after a random beginning of the bad reply, not only at once.
    - `draws_by_likelihood`: a negative is drawn more often the more likely the original is to say it (see
      `unteach.training.original.shares_of`); else all are drawn equally often.
    - `normals_per_negative`, `preconditioning`: the defaults of the settings of the same names.
    - `rate`: the learning rate that suits it, as a multiple of the usual one (`default_learning_rate`).
    - `margin`: nats by which declining counts as likelier than it is, on prompts without replies (`opening_tilt`).
    - `direction`: whether weights move along one direction before the first step, or alone: without any step.
    """

    name: str
    summary: str
    source: str
    terms: tuple[Term, ...]
    template_midway: bool = False
    draws_by_likelihood: bool = False
    normals_per_negative: int = 3
    preconditioning: bool = False
    rate: float = 1.0
    margin: float = 0.0
    direction: Literal["", "first", "alone"] = ""

    def reads(self, stream: Stream) -> bool:
        """Whether any term reads this stream."""
        return any(term.stream == stream for term in self.terms)

    def normals(self, wanted: int | None) -> int:
        """Return how many normal rows go with a negative: as wanted or by default; 0 if no term reads them."""
        return (wanted or self.normals_per_negative) if self.reads("normal") else 0

    @property
    def reads_bad_replies(self) -> bool:
        """Whether any term reads bad replies; a method that does not decides at a reply's beginning."""
        return self.reads("negative") or self.reads("rto")

    def branches(self, stream: Stream) -> int | None:
        """Return how many replies of a stream an item has that lacks none; None where none can be lacking.

        A bad reply of one token cannot be broken off, and has fewer.
        """
        return {"rto": 1, "template": 1 + self.template_midway}.get(stream)

    @property
    def reads_kl(self) -> bool:
        """Whether any term reads the KL to the original."""
        return any(term.objective.reads_kl for term in self.terms)

    @property
    def reads_reference(self) -> bool:
        """Whether any term reads the original's log-probabilities."""
        return any(term.objective.reads_reference for term in self.terms)

    def bounded(self, bound: float) -> "Method":
        """Return the method with gradient ascent bounded at `bound` nats per token (see `GradientAscent`)."""
        ascent = GradientAscent(bound)
        terms = [replace(t, objective=ascent) if isinstance(t.objective, GradientAscent) else t for t in self.terms]
        return replace(self, terms=tuple(terms))

    def weighted(self, forget: float | None, mismatch: float | None, retain: float | None) -> "Method":
        """Return the method with other weights; None keeps a weight, 0 leaves its terms out.

        Raises ConfigError if no term is left.
        """
        chosen = {"negative": forget, "rto": forget, "mismatch": mismatch, "template": mismatch, "normal": retain}
        weights = [term.weight if chosen[term.stream] is None else chosen[term.stream] for term in self.terms]
        terms = [replace(term, weight=weight) for term, weight in zip(self.terms, weights, strict=True) if weight]
        if not terms:
            raise ConfigError("every loss weight is 0: nothing to train on; set --forget-weight above 0")
        return replace(self, terms=tuple(terms))


_TEMPLATE = Term(NegativeLogLikelihood(), "template", 1.0)
_MISMATCH = Term(NegativeLogLikelihood(), "mismatch", 1.0)
_ASCENT = Term(GradientAscent(), "negative", 0.5)
_KL = Term(ForwardKL(), "normal", 1.0)
_NLL = Term(NegativeLogLikelihood(), "normal", 1.0)

_RTO = Method(
    "rto",
    "one fixed answer at every place of the bad reply, KL on normals",
    "RTO of DeRTa, arXiv 2407.09121, changed (docs/objectives.md#rto)",
    (Term(NegativeLogLikelihood(), "rto", 0.5), _TEMPLATE, replace(_KL, weight=80.0)),
    template_midway=True,
    draws_by_likelihood=True,
    normals_per_negative=8,
    preconditioning=True,
)
"""RTO of DeRTa (arXiv 2407.09121, "Refuse Whenever You Feel Unsafe") with this project's changes.

As there, the model is asked for the refusal at every place of the bad reply. Differs:

- Only the first 40 places are used, without the last token of the reply. Where the bad reply has just said a beginning
  of the template, the template's next token is asked for instead of its first.
- The whole template is taught on the prompt itself, and once after a random beginning of the bad reply, up to its
  half. DeRTa teaches it after a prefix of any length.
- Normal rows are held to the original by KL. DeRTa trains on helpful replies.
- Negatives are drawn by their likelihood, and steps are preconditioned by default.
"""


_DECLINE = Method(
    "template",
    "one fixed answer, KL on normals",
    "this project",
    (Term(NegativeLogLikelihood(sums=True), "template", 1.0), Term(ForwardKL(sums=True), "normal", 3.0)),
    rate=3.5,  # nothing is pushed down, so steps may be larger
    margin=0.75,
)
"""Tokens are summed: the first, where a reply declines or does not, weighs on both sides what it is worth."""
_ALONG, _REPSELECT = (
    (replace(_ASCENT, weight=1.0),),
    "RepSelect, arXiv 2606.17168, changed (docs/objectives.md#repselect)",
)


def _methods(beta: float | None, delta: float) -> list[Method]:
    """Make all methods."""
    npo = Term(NPO(beta=beta or NPO.beta), "negative", 1.0)
    half = replace(npo, weight=0.5)  # NPO sums over tokens where the other terms take means
    simnpo = Term(SimNPO(beta=beta or SimNPO.beta, delta=delta), "negative", 1.0)
    wga = Term(WeightedAscent(beta=beta or WeightedAscent.beta), "negative", 1.0)
    paper, own = "arXiv 2310.10683", "this project"
    # The KL is a mean over tokens, but refusing too much is decided at a reply's first token alone: a large weight.
    template = (half, _TEMPLATE, replace(_KL, weight=40.0))
    # An answer of a few words has no middle to stop in, and that much KL would hold the wrong answers too.
    decline = (half, _TEMPLATE, replace(_KL, weight=8.0))
    return [
        Method("ga", "gradient ascent, KL on normals", f"{paper}, eq. 3 with ε₂ = 0", (_ASCENT, _KL)),
        Method("ga-mismatch", "ascent, random mismatch, KL on normals", f"{paper}, eq. 3", (_MISMATCH, _ASCENT, _KL)),
        Method(
            "ga-template", "gradient ascent, one fixed answer, KL on normals", f"{paper}, §4", (_TEMPLATE, _ASCENT, _KL)
        ),
        _DECLINE,
        Method("graddiff", "gradient ascent, NLL on normals", "arXiv 2401.06121", (replace(_ASCENT, weight=1.0), _NLL)),
        Method("npo", "bounded ascent against the original, KL on normals", "arXiv 2404.05868", (npo, _KL)),
        _RTO,
        Method("npo-template", "bounded ascent, one fixed answer, KL on normals", own, template, template_midway=True),
        Method("npo-decline", "npo-template for answers of a few words, with less KL", own, decline),
        Method("npo-mismatch", "bounded ascent, random mismatch, KL on normals", own, (npo, _MISMATCH, _KL)),
        Method(
            "wga", "ascent weighted token by token, KL on normals", "arXiv 2502.19301", (wga, replace(_KL, weight=3.0))
        ),
        Method(
            "repselect", "one collapsed gradient, followed while normals allow", _REPSELECT, _ALONG, direction="alone"
        ),
        replace(_DECLINE, name="repselect-template", summary="repselect, then template", source=own, direction="first"),
        Method("simnpo", "bounded ascent without a reference, NLL on normals", "arXiv 2410.07163", (simnpo, _NLL)),
    ]


def method_names() -> list[str]:
    """Return the names of all methods."""
    return [method.name for method in _methods(None, 0.0)]


def load_method(
    name: str,
    *,
    forget_weight: float | None = None,
    mismatch_weight: float | None = None,
    retain_weight: float | None = None,
    margin: float | None = None,
    beta: float | None = None,
    delta: float = 0.0,
) -> Method:
    """Return a method by name, with its published weights where none are given.

    `beta` and `delta` reach NPO, SimNPO and WGA. Raises ConfigError for an unknown name, and for a `margin` of a method
    that has none.
    """
    known = {method.name: method for method in _methods(beta, delta)}
    if name not in known:
        raise ConfigError(f"unknown method '{name}'{nearest(name, known)} (known: {', '.join(known)})")
    method = known[name].weighted(forget_weight, mismatch_weight, retain_weight)
    if margin is not None and not method.margin:
        fit = ", ".join(name for name, one in known.items() if one.margin)
        raise ConfigError(f"--decline-margin is of the methods {fit}, and the method is {name}; leave it out")
    return method if margin is None else replace(method, margin=margin)
