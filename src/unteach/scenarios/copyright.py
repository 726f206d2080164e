"""Protected text that the model recites."""

from unteach.scenarios.base import Scenario

scenario = Scenario(
    bad_rate="leak_rate",
    defaults={
        "max_steps": 300,
        "method": "wga",
        "template": "I cannot continue this text.",
        "judge": ["verbatim", "bleu", "bleu:smoothed"],
    },
    templates={"zh": "我不能续写这段文字。"},
)
