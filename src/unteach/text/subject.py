"""What a text speaks of: its words of content."""

from functools import cache

import regex

from unteach.text.refusals import shipped
from unteach.text.words import LETTER, SPACED, folded, runs, words

_ASKING = """answer assist best explain first give help know like make need people please question reply request say
show tell thing things want way write
怎样 怎么 如何 什么 为什 请问 可以 能否 哪些 怎樣 怎麼 什麼 為什 請問
这个 那个 一个 我们 你们 可能 這個 那個 一個 我們 你們
어떻 무엇 있는 있습 하는 합니""".split()
_JOINING = """about above across after afterwards again against all almost alone along already also although always
among amongst amoungst and another any anyhow anyone anything anyway anywhere are around back became because become
becomes becoming been before beforehand behind being below beside besides between beyond both but call can cannot cant
con could couldnt detail done down due during each eight either eleven else elsewhere empty enough etc even ever every
everyone everything everywhere except few fifteen fifty find first five for former formerly forty found four from front
full further get give had has hasnt have hence her here hereafter hereby herein hereupon hers herself him himself his
how however hundred inc indeed into its itself keep last latter latterly least less ltd made many may meanwhile might
mine more moreover most mostly move much must myself name namely neither never nevertheless next nine nobody none noone
nor not nothing now nowhere off often once one only onto other others otherwise our ours ourselves out over own part per
perhaps please put rather same see seem seemed seeming seems serious several she should show side since six sixty some
somehow someone something sometime sometimes somewhere still such take ten than that the their them themselves then
thence there thereafter thereby therefore therein thereupon these they third this those though three through throughout
thru thus together too toward towards twelve twenty two under until upon very via was well were what whatever when
whence whenever where whereafter whereas whereby wherein whereupon wherever whether which while whither who whoever
whole whom whose why will with within without would yet you your yours yourself yourselves""".split()
"""scikit-learn's stop words of three letters or more, but for those that do say something (fire, thin)."""
STEM = 5
"""Letters of a word that are compared where endings do not matter."""


def content_words(text: str) -> set[str]:
    """Return the words of content of a text, case folded.

    They have at least three letters (or are two Han characters in a row, and the like) and do not only ask, refuse or
    join.
    """
    return _pieces(text) - _says_nothing()


def shares_subject(first: str, second: str) -> bool:
    """Tell whether two texts share a word of content, whatever its ending."""
    return bool({word[:STEM] for word in content_words(first)} & {word[:STEM] for word in content_words(second)})


@cache
def _says_nothing() -> set[str]:
    refusing = _pieces(
        "\n".join(text for listed in shipped().values() for text in (*listed.openings, *listed.bare, *listed.tails))
    )
    return refusing | set(_ASKING) | set(_JOINING)


def _pieces(text: str) -> set[str]:
    """Return words of three letters or more, runs of letters as long as two words, and beginnings of Korean words."""
    plain = folded(text)
    found = {
        *regex.findall(rf"{SPACED}{{3,}}", plain, flags=regex.V1),
        *regex.findall(r"(?<!\p{Hangul})\p{Hangul}{2}", plain),
    }
    stretches = regex.findall(rf"(?:{LETTER})+", plain, flags=regex.V1)
    return found | {"".join(run) for stretch in stretches for run in runs(words(stretch), 2)}
