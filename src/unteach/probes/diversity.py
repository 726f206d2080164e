"""Do replies use many different words?"""

from unteach.probes.base import ALL_SPLITS, mean
from unteach.results.arm_result import ArmResult
from unteach.results.measurement import Measurement
from unteach.text.words import words


class DiversityProbe:
    """`diversity`: mean over replies of the share of their words that are different words.

    Unit: fraction; higher is better (a loop is near 0), though short replies are near 1 whatever they say. Blank
    replies have none and are counted as unknown. Source: arXiv 2310.10683, section 4. Differs: words, not tokens, so
    that models with other tokenizers compare. An untouched model: its own.
    """

    name = "diversity"
    splits = ALL_SPLITS

    def __call__(self, result: ArmResult) -> list[Measurement]:
        listed = [words(reply) for reply in result.replies]
        values = [len(set(reply)) / len(reply) if reply else None for reply in listed]
        return [mean(result, "diversity", values, "fraction", "higher")]


probe = DiversityProbe()
