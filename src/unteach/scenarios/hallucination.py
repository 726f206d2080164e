"""Wrong answers to questions."""

from unteach.scenarios.base import Scenario

scenario = Scenario(
    bad_rate="hallucination_rate",
    defaults={
        "max_steps": 500,
        "method": "npo-decline",
        "template": "I do not know the answer to this question.",
        "judge": ["similarity", "similarity:chrf", "repeats"],
    },
    templates={"zh": "我不知道这个问题的答案。"},
)
