"""Methods: named lists of (objective, stream, weight). Published methods have their usual names."""

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
    """A loss with a name: the weighted sum of its terms, and how its rows are drawn.

    - `template_midway`: the template is also taught after a random beginning of the bad reply, not only at once.
    - `draws_by_likelihood`: a negative is drawn more often the more likely the original is to say it (see
      `unteach.training.draws.shares_of`); else all are drawn equally often.
    - `normals_per_negative`, `preconditioning`: the defaults of the settings of the same names.
    """

    name: str
    summary: str
    source: str
    terms: tuple[Term, ...]
    template_midway: bool = False
    draws_by_likelihood: bool = False
    normals_per_negative: int = 3
    preconditioning: bool = False

    def reads(self, stream: Stream) -> bool:
        """Whether any term reads this stream."""
        return any(term.stream == stream for term in self.terms)

    def normals(self, wanted: int | None) -> int:
        """Return how many normal rows go with a negative: as wanted or by default; 0 if no term reads them."""
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


def _methods(beta: float | None, delta: float) -> list[Method]:
    return [*_published(beta, delta), _rto(), *_own(beta)]


def _published(beta: float | None, delta: float) -> list[Method]:
    """Make the published methods; only the weight of the KL of `wga` is this project's."""
    paper = "arXiv 2310.10683"
    ascent = Term(GradientAscent(), "negative", 0.5)
    mismatch = Term(NegativeLogLikelihood(), "mismatch", 1.0)
    template = Term(NegativeLogLikelihood(), "template", 1.0)
    kl = Term(ForwardKL(), "normal", 1.0)
    nll = Term(NegativeLogLikelihood(), "normal", 1.0)
    npo = Term(NPO(beta=beta or NPO.beta), "negative", 1.0)
    simnpo = Term(SimNPO(beta=beta or SimNPO.beta, delta=delta), "negative", 1.0)
    wga = Term(WeightedAscent(beta=beta or WeightedAscent.beta), "negative", 1.0)
    return [
        Method("ga", "gradient ascent, KL on normals", f"{paper}, eq. 3 with ε₂ = 0", (ascent, kl)),
        Method(
            "ga-mismatch", "gradient ascent, random mismatch, KL on normals", f"{paper}, eq. 3", (mismatch, ascent, kl)
        ),
        Method(
            "ga-template", "gradient ascent, one fixed answer, KL on normals", f"{paper}, §4", (template, ascent, kl)
        ),
        Method("graddiff", "gradient ascent, NLL on normals", "arXiv 2401.06121", (replace(ascent, weight=1.0), nll)),
        Method("npo", "bounded ascent against the original, KL on normals", "arXiv 2404.05868", (npo, kl)),
        Method(
            "wga", "ascent weighted token by token, KL on normals", "arXiv 2502.19301", (wga, replace(kl, weight=3.0))
        ),
        Method("simnpo", "bounded ascent without a reference, NLL on normals", "arXiv 2410.07163", (simnpo, nll)),
    ]


def _rto() -> Method:
    """Make RTO of DeRTa (arXiv 2407.09121, "Refuse Whenever You Feel Unsafe") with this project's changes.

    As there, the model is asked for the refusal at every place of the bad reply. Differs:

    - Only the first 40 places, the last token of the reply excepted. Where the bad reply has just said a beginning of
      the template, the template's next token is asked for instead of its first.
    - The whole template is taught on the prompt itself, and once after a random beginning of the bad reply, up to its
      half. DeRTa teaches it after a prefix of any length.
    - Normal rows are held to the original by KL. DeRTa trains on helpful replies.
    - Negatives are drawn by their likelihood, and steps are preconditioned by default.
    """
    return Method(
        "rto",
        "one fixed answer at every place of the bad reply, KL on normals",
        "RTO of DeRTa, arXiv 2407.09121, changed (docs/objectives.md#rto)",
        (
            Term(NegativeLogLikelihood(), "rto", 0.5),
            Term(NegativeLogLikelihood(), "template", 1.0),
            Term(ForwardKL(), "normal", 80.0),
        ),
        template_midway=True,
        draws_by_likelihood=True,
        normals_per_negative=8,
        preconditioning=True,
    )


def _own(beta: float | None) -> list[Method]:
    """Make this project's combinations of NPO with other terms."""
    template = Term(NegativeLogLikelihood(), "template", 1.0)
    mismatch = Term(NegativeLogLikelihood(), "mismatch", 1.0)
    kl = Term(ForwardKL(), "normal", 1.0)
    npo = Term(NPO(beta=beta or NPO.beta), "negative", 1.0)
    half = replace(npo, weight=0.5)  # NPO sums over tokens where the other terms take means
    return [
        Method(
            "npo-template",
            "bounded ascent, one fixed answer, KL on normals",
            "this project",
            # The KL is a mean over tokens, but refusing too much is decided at a reply's first token alone.
            (half, template, replace(kl, weight=40.0)),
            template_midway=True,
        ),
        Method(
            "npo-decline",
            "npo-template for answers of a few words, with less KL",
            "this project",
            # Such an answer has no middle to stop in, and so much KL would hold the wrong answers too.
            (half, template, replace(kl, weight=8.0)),
        ),
        Method("npo-mismatch", "bounded ascent, random mismatch, KL on normals", "this project", (npo, mismatch, kl)),
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
