import pytest

from unteach.errors import ConfigError
from unteach.objectives.methods import load_method, method_names


def composition(name, **settings):
    terms = load_method(name, **settings).terms  # a sum: their order means nothing
    return [(type(term.objective).__name__, term.stream, term.weight) for term in terms]


ASCENT, KL = ("GradientAscent", "negative", 0.5), ("ForwardKL", "normal", 1.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ga", [ASCENT, KL]),
        ("ga-mismatch", [ASCENT, ("NegativeLogLikelihood", "mismatch", 1.0), KL]),
        ("ga-template", [ASCENT, ("NegativeLogLikelihood", "template", 1.0), KL]),
        ("graddiff", [("GradientAscent", "negative", 1.0), ("NegativeLogLikelihood", "normal", 1.0)]),
        ("npo", [("NPO", "negative", 1.0), KL]),
        ("simnpo", [("SimNPO", "negative", 1.0), ("NegativeLogLikelihood", "normal", 1.0)]),
    ],
)
def test_published_compositions_and_weights(name, expected):
    assert sorted(composition(name)) == sorted(expected)


def test_only_npo_template_and_rto_teach_the_template_midway():
    nll = ("NegativeLogLikelihood", "template", 1.0)
    assert sorted(composition("npo-template")) == sorted([("NPO", "negative", 0.5), nll, ("ForwardKL", "normal", 40.0)])
    assert [name for name in method_names() if load_method(name).template_midway] == ["rto", "npo-template"]


def test_rto_asks_for_the_answer_at_once_and_at_every_place_and_draws_by_likelihood():
    assert sorted(composition("rto")) == sorted(
        [
            ("NegativeLogLikelihood", "template", 1.0),
            ("NegativeLogLikelihood", "rto", 0.5),
            ("ForwardKL", "normal", 80.0),
        ]
    )
    assert ("NegativeLogLikelihood", "rto", 2.0) in composition("rto", forget_weight=2.0)
    assert [name for name in method_names() if load_method(name).draws_by_likelihood] == ["rto"]


def test_each_name_loads_and_says_where_it_is_from():
    assert len(set(method_names())) == len(method_names()) >= 6
    for name in method_names():
        method = load_method(name)
        assert method.name == name and method.summary and method.source
        assert any(map(method.reads, ("negative", "rto", "template")))


def test_only_what_a_term_reads_is_asked_for():
    assert load_method("npo").reads_reference and load_method("npo").reads_kl
    assert not load_method("simnpo").reads_reference and not load_method("simnpo").reads_kl
    assert not load_method("ga", retain_weight=0).reads_kl
    assert not load_method("ga").reads("mismatch")


def test_weights_replace_the_published_ones_and_zero_drops_the_term():
    assert sorted(composition("ga-mismatch", forget_weight=2.0, mismatch_weight=0.25, retain_weight=0.0)) == [
        ("GradientAscent", "negative", 2.0),
        ("NegativeLogLikelihood", "mismatch", 0.25),
    ]
    assert ("NegativeLogLikelihood", "template", 3.0) in composition("ga-template", mismatch_weight=3.0)


def test_beta_and_delta_reach_the_objectives():
    npo = load_method("npo", beta=0.4).terms[0].objective
    simnpo = load_method("simnpo", beta=3.0, delta=0.5).terms[0].objective
    assert (npo.beta, simnpo.beta, simnpo.delta) == (0.4, 3.0, 0.5)
    assert (load_method("npo").terms[0].objective.beta, load_method("simnpo").terms[0].objective.beta) == (0.1, 2.5)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="unknown method 'ga-mismach'; did you mean 'ga-mismatch'"):
        load_method("ga-mismach")


def test_all_weights_zero_is_refused():
    with pytest.raises(ConfigError, match="every loss weight is 0"):
        load_method("ga", forget_weight=0, retain_weight=0)


def test_template_sums_over_tokens_and_reads_no_bad_reply():
    """One nat at a reply's first token weighs three times as much in what is kept as in what is taught."""
    method = load_method("template")
    assert composition("template") == [("NegativeLogLikelihood", "template", 1.0), ("ForwardKL", "normal", 3.0)]
    assert all(term.objective.sums for term in method.terms) and not method.reads_bad_replies
    assert [name for name in method_names() if not load_method(name).reads_bad_replies] == [
        "template",
        "repselect-template",
    ]


def test_repselect_goes_along_ascent_and_then_teaches_what_template_does():
    alone, first = load_method("repselect"), load_method("repselect-template")
    assert composition("repselect") == [("GradientAscent", "negative", 1.0)] and alone.direction == "alone"
    assert composition("repselect-template") == composition("template") and first.rate == load_method("template").rate
    assert [name for name in method_names() if load_method(name).direction] == ["repselect", "repselect-template"]
