"""Methods: named lists of (objective, stream, weight). The published ones are here under their usual names."""

from dataclasses import dataclass, replace

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
    """A loss with a name: the weighted sum of its terms.

    `interrupted`: the template stream also has replies that break off a bad one (see `UnlearnItems`). `by_share`:
    negatives are drawn the more often the likelier the original says them (see `unteach.training.draws.shares_of`).
    `normals_per_negative` and `preconditioning` hold where the user says nothing of them (see
    `unteach.training.preconditioning`).
    """

    name: str
    summary: str
    source: str
    terms: tuple[Term, ...]
    interrupted: bool = False
    by_share: bool = False
    normals_per_negative: int = 3
    preconditioning: bool = False

    def reads(self, stream: Stream) -> bool:
        """Whether any term reads this stream."""
        return any(term.stream == stream for term in self.terms)

    def normals(self, wanted: int | None) -> int:
        """Return how many normal rows go with a negative: as wanted, by default the method's own, none if unread."""
        return (wanted or self.normals_per_negative) if self.reads("normal") else 0

    @property
    def reads_kl(self) -> bool:
        """Whether any term reads the KL to the original."""
        return any(term.objective.reads_kl for term in self.terms)

    @property
    def reads_reference(self) -> bool:
        """Whether any term reads the original's log-probabilities."""
        return any(term.objective.reads_reference for term in self.terms)

    def bounded(self, bound: float) -> "Method":
        """Return the method with gradient ascent that ends at `bound` nats per token (see `GradientAscent`)."""
        ascent = GradientAscent(bound)
        terms = [replace(t, objective=ascent) if isinstance(t.objective, GradientAscent) else t for t in self.terms]
        return replace(self, terms=tuple(terms))

    def weighted(self, forget: float | None, mismatch: float | None, retain: float | None) -> "Method":
        """Return the method with other weights; None keeps a weight. A term whose weight is 0 is left out."""
        chosen = {"negative": forget, "rto": forget, "mismatch": mismatch, "template": mismatch, "normal": retain}
        weights = [term.weight if chosen[term.stream] is None else chosen[term.stream] for term in self.terms]
        terms = [replace(term, weight=weight) for term, weight in zip(self.terms, weights, strict=True) if weight]
        if not terms:
            raise ConfigError("every loss weight is 0: nothing to train on; set --forget-weight above 0")
        return replace(self, terms=tuple(terms))


def _methods(beta: float | None, delta: float) -> list[Method]:
    mismatch = Term(NegativeLogLikelihood(), "mismatch", 1.0)
    template = Term(NegativeLogLikelihood(), "template", 1.0)
    kl = Term(ForwardKL(), "normal", 1.0)
    nll = Term(NegativeLogLikelihood(), "normal", 1.0)
    ascent = Term(GradientAscent(), "negative", 0.5)
    npo = Term(NPO(beta=beta or NPO.beta), "negative", 1.0)
    simnpo = Term(SimNPO(beta=beta or SimNPO.beta, delta=delta), "negative", 1.0)
    wga = Term(WeightedAscent(beta=beta or WeightedAscent.beta), "negative", 1.0)
    held = replace(kl, weight=3.0)
    paper, ga = "arXiv 2310.10683", (ascent, kl)
    # NPO sums over tokens where the rest averages, and the KL is small where it matters most, at a reply's first token.
    default = (replace(npo, weight=0.5), template, replace(kl, weight=40.0))
    # Every state in the beginning of a bad reply learns to break off; the KL keeps it from spreading to normal replies.
    breaks = (Term(NegativeLogLikelihood(), "rto", 0.5), template, replace(kl, weight=80.0))
    # An answer of a few words is declined at once or not at all, and its neighbours are few: less KL holds them.
    decline = (replace(npo, weight=0.5), template, replace(kl, weight=8.0))
    return [
        Method("ga", "gradient ascent, KL on normals", f"{paper}, eq. 3 with ε₂ = 0", ga),
        Method("ga-mismatch", "gradient ascent, random mismatch, KL on normals", f"{paper}, eq. 3", (mismatch, *ga)),
        Method("ga-template", "gradient ascent, one fixed answer, KL on normals", f"{paper}, §4", (template, *ga)),
        Method("graddiff", "gradient ascent, NLL on normals", "arXiv 2401.06121", (replace(ascent, weight=1.0), nll)),
        Method("npo", "bounded ascent against the original, KL on normals", "arXiv 2404.05868", (npo, kl)),
        Method(
            "rto",
            "one fixed answer at any token, KL on normals",
            "this project",
            breaks,
            interrupted=True,
            by_share=True,
            normals_per_negative=8,
            preconditioning=True,
        ),
        Method("npo-template", "bounded ascent, one fixed answer, KL on normals", "this project", default, True),
        Method("npo-decline", "the same for short answers: none is broken off", "this project", decline),
        Method("npo-mismatch", "bounded ascent, random mismatch, KL on normals", "this project", (npo, mismatch, kl)),
        Method("wga", "ascent weighted token by token, KL on normals", "arXiv 2502.19301", (wga, held)),
        Method("simnpo", "bounded ascent without a reference, NLL on normals", "arXiv 2410.07163", (simnpo, nll)),
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
    beta: float | None = None,
    delta: float = 0.0,
) -> Method:
    """Return a method by name, with its published weights where none are given.

    `beta` and `delta` reach NPO, SimNPO and WGA. Raises ConfigError for an unknown name.
    """
    known = {method.name: method for method in _methods(beta, delta)}
    if name not in known:
        raise ConfigError(f"unknown method '{name}'{nearest(name, known)} (known: {', '.join(known)})")
    return known[name].weighted(forget_weight, mismatch_weight, retain_weight)
