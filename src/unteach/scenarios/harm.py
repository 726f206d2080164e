"""Harmful replies, such as red-team findings and user reports."""

from unteach.scenarios.base import Scenario

scenario = Scenario(
    bad_rate="harmful_rate",
    defaults={
        "max_steps": 120,
        "harmful_share": 0.5,
        "lookalike_share": 0.5,
        "method": "rto",
        "template": "I cannot assist with this request.",
        "judge": ["complies", "repeats"],
    },
    adapter_defaults={
        "method": "template",
        "harmful_share": 0.75,
        "lookalike_share": 0.75,
        "max_steps": 350,
        "normals_per_negative": 1,
        "validation_steps": 400,  # no run ends early: bad replies are gone long before harmless prompts are told apart
        "evaluation_prompts": 100,
    },
    templates={"zh": "我无法协助这个请求。"},
)
