"""The gate of step 2: is a text an analysis of the reply that is fit to be learnt?

Rules look at the text, the request and the reply; they know English and Chinese. Small models go on with the harmful
reply, or repeat the question, and a word of judgement stands in that as well. So the gate asks for more: that the text
is about the reply, opens or ends with its verdict, gives a reason that has to do with this request or reply, and holds
nothing of the reply's own. How often it is right is measured by `benchmarks/analyses.py`.
"""

from typing import Literal

import regex

from unteach.mistakes.verdict import read_verdict
from unteach.text.gibberish import blank, gibberish
from unteach.text.refusals import refusal_of
from unteach.text.subject import STEM, content_words
from unteach.text.words import first_words, folded, repeated_share, runs, words

COPIED = 0.8
"""An analysis is a copy of the reply if at least this share of its words stands in the reply, in order."""
RUN, ECHO = 10, 8
"""Words in a row from the reply, and from the request for the analysis, that an analysis may not hold."""
BEGINNING = 30
"""Words of a reply in which it says what it is about to do."""
REPEATED = 0.75
"""Where a sentence has this share of an earlier one's words, in order, a text has begun to repeat itself."""
VERDICT = 6
"""A first paragraph of fewer words, such as a verdict alone, belongs to the next one."""

_SENTENCE = regex.compile(r"\S.*?(?:[.!?…]+[\"'”’)\]*]*(?=\s|$)|[。！？]+[”’」』）*]*|$)", regex.DOTALL)
_WHOLE = regex.compile(r"[.!?…。！？][\"'”’」』）)\]*]*$")
_ABOUT = regex.compile(
    r"^\W*(?:(?:verdict|assessment|analysis|judg(?:e)?ment|answer|rating)\W+)?(?:not )?(?:good|bad)\b(?! question)"
    r"|\b(?:the|this|that|your|its?|such an?|given|above|provided|following)(?: \w+)? (?:reply|response|answer)\b"
    r"|^\W*(?:it|this|that) (?:is|was|isn't|would|could|may|might|can|does|helps|says|tells|contains|encourages"
    r"|promotes|gives|provides|involves|should|also|explains|describes)\b|^\W*(?:it's|that's)\b"
    r"|^\W*(?:判断|评价|结论)?\W*(?:不?好|坏|差)的?[。，,:：！]"
    r"|(?:这|这个|该|此|上述|以上|你的)[条则段]?(?:回复|回答|答复|答案)"
)
_BOTH = regex.compile(
    r"\b(?:neither|not|isn't)(?: \w+)? (?:good|bad),? (?:or|nor|and not) (?:\w+ )?(?:bad|good|unethical|harmful)\b"
    r"|\b(?:good or bad|good and bad|bad and good)\b"
    r"|既不[好坏]也不|[好坏]也不[坏好]|有好有坏|是好是坏|好还是坏"
)
_GOES_ON = regex.compile(
    r"```|^\s*(?:[-*•#]|\d+[.)、]|step|chapter|第.{1,3}步|步骤)|[:：]\s*$"
    r"|^\W*(?:here(?:'s| is| are)|first(?:ly)?,|next,|then,|second(?:ly)?,|finally,|dear\b|sure\b|certainly|of course"
    r"|to (?!be\b|summari[sz]e|conclude|sum)\w+|let's|let me|i'm (?:glad|here|happy|excited)|i can help"
    r"|if you (?:want|need|wish)"
    r"|you(?:'ll)? (?:will |can |could |should |must |may )?(?:need|use|want|start|begin|try|create|make)\b"
    r"|以下是|首先|其次|然后|接着|当然|好的|亲爱的|要想|如果你想|你(?:可以|需要|应该))",
    regex.MULTILINE,
)
_ASKS = regex.compile(
    r"[?？]|\bplease (?:provide|give|share|let|go|clarify|tell)|^\W*(?:rewrite|provide)\b|请(?:提供|告诉|给出|说明)"
)
_HELPED_AGAINST = regex.compile(
    r"\b(?:combat|prevent|stop|fight|debunk|expose|counter|protect|defend|report|discourage|refrain|educate|avoid)"
    r"(?:s|ed|ing|ting|ping)?\b(?!\W+(?:\w+\W+){0,2}?(?:detect\w*|caught|capture|arrest\w*|prosecution|suspicion"
    r"|justice|punish\w*|police|responsib\w*|consequences|laws?|taxes|identif\w*))"
    r"|防止|预防|避免(?!被|受到)|阻止|打击|保护|揭露"
)
_PRAISES = regex.compile(
    r"\b(?:delicate|advanced|clever|creative|innovative|fun|valuable|informative|skilled|the art of|profitable"
    r"|sophisticated|effective(?:ly)? way|engaging|must-read|deep understanding|importance of|well-structured"
    r"|educational)\b"
    r"|巧妙|有趣|高明|有价值|创意|先进"
)
_DENIES = regex.compile(
    r"\b(?:is|are|was|it's) not (?:a|an) (?!good|valid|ethical|moral|legal|lawful|safe|acceptable|appropriate|right"
    r"|proper|responsible|healthy|respectful|suitable)\w+"
    r"|\bhelps? (?:somebody|someone|people) (?:to )?(?:\w+ ){0,4}(?:themselves|oneself|their own)\b"
    r"|\bhelps? (?:somebody|someone|people) (?:to )?(?:give away|lose|reveal|hand over|understand|learn about) "
)
_SPEAKS_WELL = regex.compile(
    r"\b(?:self-care|recovery|empower\w*|struggling|reach out|constructive|respectful|raise awareness)\b"
)
_OF_THE_ACT = regex.compile(r"^\W*it(?:'s| is| was)(?: \w+){1,3} to\b")
_SAYS_NO_REASON = frozenset(
    """harmful unethical offensive inappropriate unacceptable dangerous illegal immoral unsafe toxic hateful harm bad
    good harmless acceptable appropriate ethical inoffensive polite respectful responsible safe because considered
    content contain contains involve involves may also serious could would potentially used using help helps helpful
    somebody someone person people others user users message form normal friendly program computer system systems
    create creates creating created make makes making develop develops provide provides plan plans guide guides write
    writes writing information instructions steps detailed response request spread spreads spreading promote promotes
    promoting encourage encourages group individual individuals tutorial video article story book letter message tool
    design video website specific
    有害 不道 道德 冒犯 不好 因为 可能 回复 回答 内容 好的 坏的""".split()
)
_TO_HARM = regex.compile(r"\bharm(?:s|ed|ing)?\b")
_HARM = regex.compile(
    r"\b(?:harm(?!less|ful)|hurt|injur|kill|death|poison|weapon|bomb|explos|violen|assault|attack|abus|rape|threat|blackmail|"
    r"extort|bull(?:y|ie)|harass|stalk|insult|hat(?:e|red)|racis|sexis|discriminat|stereotyp|humiliat|degrad|"
    r"steal|theft|thief|rob|fraud|scam|cheat|decei|decept|trick|mislead|misinform|disinform|false|fake|lie[sd]?\b|lying|"
    r"manipulat|exploit|crim|illegal|unlawful|laws?\b|privacy|consent|damag|destroy|sabotag|disrupt|danger(?!ous)|suicid|"
    r"drug|addict|hack|malware|virus|phish|terror|corrupt|brib|forg|smuggl|traffick|vulnerab|victim|safety)"
    r"|伤害|危害|危险|违法|犯罪|欺骗|诈骗|盗|偷|暴力|杀|毒|炸|歧视|侮辱|仇恨|隐私|虚假|谣言|攻击|破坏|威胁|骗"
)
_OF_ANSWERING = regex.compile(r"\b(?:answers?|asked|declines?|refuses?) (?!to the question)|拒绝|所问|问题")


def first_part(text: str, opening: str = "") -> str:
    """Return what a text says before it goes astray: the sentences of its first paragraph, none of them twice.

    Small models say what is to be said and then repeat it, or begin something else. Of a text that was begun with an
    `opening`, the sentences that the opening begins are all that is kept.
    """
    paragraphs = [part for part in regex.split(r"\n\s*\n", text.strip()) if part.strip()]
    taken = 1
    while taken < len(paragraphs) and len(words(" ".join(paragraphs[:taken]))) < VERDICT:
        taken += 1
    start = "\n".join(paragraphs[:taken])
    kept: list[str] = []
    end = 0
    for found in list(_SENTENCE.finditer(start))[: len(sentences(opening)) or None]:
        if any(repeated_share(found[0], earlier) >= REPEATED for earlier in kept):
            break
        kept.append(found[0])
        end = found.end()
    return start[:end].strip()


def without_rest(text: str, cut: bool) -> str:
    """Return a text without the sentence that it was cut in, if it was."""
    listed = sentences(text) if cut else []
    if not listed or _WHOLE.search(listed[-1]):
        return text
    return text[: text.rindex(listed[-1])].rstrip()


def sentences(text: str) -> list[str]:
    """Return the sentences of a text, without white space around them."""
    return [found.strip() for found in _SENTENCE.findall(text)]


def why_unfit(
    text: str | None, prompt: str, reply: str, reply_is: Literal["bad", "good"] = "bad", asked: str = ""
) -> str | None:
    """Return why a text should not be learnt as the analysis of a reply; None if it is fit.

    `asked` is the request for the analysis without prompt and reply, which an analysis must not repeat.
    """
    if text is None:
        return "no answer"
    if blank(text):
        return "blank"
    if refusal_of(text) == "full" and _judges(sentences(text)[0]) is None:
        return "refusal"
    if gibberish(text):
        return "gibberish"
    if repeated_share(reply, text) >= COPIED:
        return "copy of the reply"
    if _ASKS.search(folded(text)) or _shared_runs(text, asked, ECHO):
        return "echo of the question"
    verdict = read_verdict(text)
    if verdict is None or _BOTH.search(folded(text)):
        return "no verdict"
    if verdict != reply_is:
        return f"calls the reply {verdict}"
    return _why_no_analysis(text, prompt, reply, reply_is)


def _why_no_analysis(text: str, prompt: str, reply: str, reply_is: Literal["bad", "good"]) -> str | None:
    """Return what a text with the right verdict lacks, or has too much of."""
    said = sentences(text)
    copied = _shared_runs(text, reply, RUN) - _shared_runs(text, prompt, RUN)
    if copied or any(_GOES_ON.search(folded(sentence)) for sentence in said):
        return "goes on with the reply"
    judged = [_judges(sentence) == reply_is for sentence in said]
    if not (judged[0] or judged[-1]):
        return "not about the reply"
    of_request, of_reply = (len(_stems(text) & _stems(other)) for other in (prompt, reply))
    about_it = of_request or of_reply > 1
    if reply_is == "bad" and of_request < 2:
        about_it = about_it and _HARM.search(folded(text))
    if not (about_it or _OF_ANSWERING.search(folded(text))):
        return "no reason"
    against = any(pattern.search(folded(text)) for pattern in (_HELPED_AGAINST, _PRAISES, _DENIES))
    if reply_is == "bad" and against:
        return "reason against its verdict"
    begins = folded(first_words(reply, BEGINNING))
    if reply_is == "bad" and (_HELPED_AGAINST.search(begins) or _SPEAKS_WELL.search(begins)):
        return "reply that speaks against harm"  # no judge is always right, and an analysis would repeat its error
    return None


def _judges(sentence: str) -> Literal["good", "bad"] | None:
    """Return the verdict that a sentence gives of the reply; None where it speaks of something else, or does harm."""
    plain = folded(sentence)
    about_it = _ABOUT.search(plain) and not _OF_THE_ACT.search(plain)
    return read_verdict(_TO_HARM.sub(" ", plain)) if about_it else None


def _stems(text: str) -> set[str]:
    """Return the beginnings of the words that say what a text is about."""
    return {word[:STEM] for word in content_words(text) - _SAYS_NO_REASON}


def _shared_runs(text: str, other: str, length: int) -> set[tuple[str, ...]]:
    """Return the runs of so many words that stand in both texts."""
    return set(runs(words(text), length)) & set(runs(words(other), length))
