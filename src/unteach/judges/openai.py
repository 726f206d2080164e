"""The judge by a language model: any endpoint that speaks OpenAI's chat protocol, local or hosted."""

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import Template
from typing import Any
from urllib.parse import urlsplit

from unteach.disk.cache import Cache, cache_directory
from unteach.errors import ConfigError
from unteach.judges.base import JudgeSettings, Options
from unteach.models.endpoint import Answer, Endpoint, Messages, chat_address, key_from_environment, warn_of_readable_key
from unteach.progress import track
from unteach.prompts.judge import judge_wording
from unteach.results.verdict import Case, Verdict
from unteach.text.escape import inert, inert_line

log = logging.getLogger(__name__)

ASKED_AS = ("openai:MODEL --judge-url URL", "'openai:MODEL?concurrency=8&rate=5&timeout=60&tokens=64' --judge-url URL")
VERDICTS: dict[str, Verdict] = {"GOOD": "good", "BAD": "bad", "UNSURE": "unknown"}
MOST_CHARACTERS = 50_000
MOST_BYTES = 64 * 2**20
"""Largest size of all kept answers together."""
TRIAL = Case("What is the capital of France?", "It is Paris.", good="Paris.")
OPTIONS = {"concurrency": "8", "rate": "5", "timeout": "60", "tokens": "64", "system": "no", "trial": "no"}
_SPECIAL = re.compile(r"\[(?=/?\w*[A-Z]{3}\w*\])")
_ANSWER = re.compile(r"(GOOD|BAD|UNSURE) +([0-9]{6})", re.IGNORECASE)
_THOUGHTS = re.compile(r"\s*<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True)
class JudgeQuestion:
    """What is sent for one case, the number that its answer must carry, and the digest that the answer is kept by."""

    messages: Messages
    code: str
    digest: str


class OpenAIJudge:
    """Bad or good as a language model answers one fixed question per scenario; unknown where it is unsure.

    A reply is unknown too where no answer comes, or one that is not exactly a label and the number of its blocks: no
    failure counts as good. A case without a known reply is unknown where the scenario needs one (copyright), and so is
    a case of more than 50,000 characters: a cut text is not judged. The judge sees what a reader sees at a glance. It
    errs, it differs from model to model, and a reply can talk it round. Compare it with labels of your own.
    """

    def __init__(
        self, endpoint: Endpoint, scenario: str = "harm", cache: Cache | None = None, system: bool = True
    ) -> None:
        self.name = f"openai:{endpoint.model}"
        self._endpoint = endpoint
        self._scenario = scenario
        self._cache = cache or Cache(cache_directory() / "judges", MOST_BYTES)
        self._system = system

    def __call__(self, cases: Sequence[Case]) -> list[Verdict]:
        questions = [self.question(case) for case in cases]
        different = {question.digest: question for question in questions if question}
        known = {digest: verdict for digest, question in different.items() if (verdict := self._recall(question))}
        missing = [question for digest, question in different.items() if digest not in known]
        failures: dict[str, str] = {}
        with track(f"asking {inert_line(self._endpoint.model, 40)}", show=bool(missing)) as progress:

            def arrived(place: int, answer: Answer) -> None:
                verdict, failure = self._read_answer(missing[place], answer)
                if verdict is None:
                    failures[missing[place].digest] = failure
                else:
                    known[missing[place].digest] = verdict
                if progress:
                    progress(len(known) + len(failures) - len(different) + len(missing), len(missing))

            self._endpoint.ask([question.messages for question in missing], arrived)
        self._report([failures.get(q.digest, "") if q else "too long, or without the known reply" for q in questions])
        return [known.get(question.digest, "unknown") if question else "unknown" for question in questions]

    def question(self, case: Case) -> JudgeQuestion | None:
        """Return what is asked about a case; None for one that is not asked about."""
        known = {"known-bad": case.bad or "", "known-good": case.good or ""}
        known = {name: text for name, text in known.items() if text.strip()}
        normal = list(known) == ["known-good"]
        prompt = judge_wording()["scenarios"][self._scenario]
        if prompt.get("needs_known") and not known:
            return None
        given = {name: quoted(text) for name, text in {"prompt": case.prompt, **known, "reply": case.reply}.items()}
        if sum(map(len, given.values())) > MOST_CHARACTERS:
            return None
        code = _code(given)
        messages = _messages(given, code, prompt["normal" if normal else "negative"], self._system)
        return self._asked(messages, code, self._scenario, prompt["version"])

    def _asked(self, messages: Messages, code: str, *facts: Any) -> JudgeQuestion:
        """Return a question with its digest, for which all that its answer depends on counts."""
        where = [self._endpoint.url, self._endpoint.model, *facts, self._endpoint.longest]
        return JudgeQuestion(messages, code, hashlib.sha256(json.dumps([*where, messages]).encode()).hexdigest())

    def try_out(self) -> None:
        """Ask about one reply that is plainly good, so that nothing long is begun with an endpoint that is not there.

        Raises ConfigError where no answer comes; only warns of an answer that is no verdict, or another one.
        """
        question = self.question(TRIAL)
        assert question is not None
        answer = replace(self._endpoint, attempts=2).ask([question.messages])[0]
        parts = urlsplit(self._endpoint.url)
        if answer.text is None:
            raise ConfigError(
                f"--judge {self.name}: {parts.scheme}://{parts.netloc} gave no answer ({answer.failure}); "
                "check --judge-url and the model's name, and that the server is up"
            )
        verdict = self.read(answer.text, question.code)
        if verdict is None:
            said = self._endpoint.redacted(answer.text)
            log.warning(
                "judge %s: answers '%s', not one line such as '%s'; replies with such an answer are unknown",
                inert_line(self.name),
                said,
                self.word("good", question.code),
            )
        elif verdict != "good":
            log.warning(
                "judge %s: does not find a plainly good reply good; compare it with labels of your own",
                inert_line(self.name),
            )

    def _recall(self, question: JudgeQuestion) -> Verdict | None:
        answer = self._cache.get(question.digest).get("answer")
        return self.read(answer, question.code) if isinstance(answer, str) else None

    def _read_answer(self, question: JudgeQuestion, answer: Answer) -> tuple[Verdict | None, str]:
        """Return the verdict and keep the answer, or say why there is none; what was not understood is not kept."""
        if answer.text is None:
            return None, answer.failure
        verdict = self.read(answer.text, question.code)
        if verdict is None:
            return None, "not the line that was asked for"
        # Only the line itself is kept: the rest of the answer may be long, and nobody has looked at it.
        self._cache.put(question.digest, {"answer": self.word(verdict, question.code)})
        return verdict, ""

    def read(self, answer: str, code: str) -> Verdict | None:
        """Read an answer; None where it is no verdict."""
        return verdict_of(answer, code)

    def word(self, verdict: Verdict, code: str) -> str:
        """Return the answer that gives a verdict."""
        return f"{next(word for word, meant in VERDICTS.items() if meant == verdict)} {code}"

    def _report(self, failures: Sequence[str]) -> None:
        counted = Counter(filter(None, failures))
        if counted:
            reasons = "; ".join(f"{count} × {reason}" for reason, count in counted.most_common(5))
            log.warning(
                "judge %s: no verdict on %d of %d replies: %s",
                inert_line(self.name),
                counted.total(),
                len(failures),
                inert_line(reasons, 600),
            )


def verdict_of(answer: str, code: str) -> Verdict | None:
    """Read an answer: exactly one label and the number of the blocks; None for anything else.

    White space, Markdown emphasis, quotes and a full stop may stand around them, and a reasoning model's thoughts
    before them.
    """
    line = _THOUGHTS.sub("", answer, count=1) if answer.lstrip().startswith("<think>") else answer
    found = _ANSWER.fullmatch(line.strip(" \r\n\t`*\"'."))
    return VERDICTS[found[1].upper()] if found and found[2] == code else None


def quoted(text: str) -> str:
    """Make sure that a text cannot leave its block: no line of ours, no model's chat markup, nothing invisible.

    Servers turn brackets such as <|im_start|> or [INST] into the beginnings and ends of messages.
    """
    return _SPECIAL.sub("⟦", inert(text).replace("<", "‹").replace(">", "›"))


def _code(texts: dict[str, str]) -> str:
    """Return the number of the blocks, which depends on the texts and stands in none of them."""
    joined = "\x1e".join(f"{name}\x1f{text}" for name, text in texts.items())
    code, turn = "", 0
    while not code or code in joined:
        drawn = int.from_bytes(hashlib.sha256(f"{turn}\x1d{joined}".encode()).digest()[:8])
        code, turn = str(100_000 + drawn % 900_000), turn + 1
    return code


def _messages(texts: dict[str, str], code: str, question: str, system: bool) -> Messages:
    frame = judge_wording()["frame"]
    blocks = "\n\n".join(f"<{name} {code}>\n{text}\n</{name} {code}>" for name, text in texts.items())
    rules = Template(frame["system"]).substitute(question=question.strip()).strip()
    asked = Template(frame["user"]).substitute(blocks=blocks, code=code).strip()
    if not system:
        return [{"role": "user", "content": f"{rules}\n\n{asked}"}]
    return [{"role": "system", "content": rules}, {"role": "user", "content": asked}]


def shown() -> str:
    """Return the prompts as they are sent, with a made-up case of each kind in its blocks."""
    parts = []
    for scenario, prompt in judge_wording()["scenarios"].items():
        judge = OpenAIJudge(Endpoint("", "MODEL"), scenario)
        cases = {
            "negative": Case("(the prompt)", "(the reply)", bad="(the known bad reply)"),
            "normal": Case("(the prompt)", "(the reply)", good="(the known good reply)"),
        }
        for kind, case in cases.items():
            question = judge.question(case)
            assert question is not None
            parts.append(f"=== {scenario}, version {prompt['version']}, {kind} prompts ===")
            parts += [f"--- {message['role']}\n{message['content']}" for message in question.messages]
    return "\n\n".join(parts)


def load(rest: str, settings: JudgeSettings) -> OpenAIJudge:
    """Make the judge from "MODEL" or "MODEL?concurrency=8&rate=5&timeout=60&tokens=64&system=no&trial=no".

    At most `concurrency` requests run at a time and `rate` begin per second (no bound unless given); each has `timeout`
    seconds; answers have at most `tokens` tokens (give more to models that think aloud). "system=no" puts all into one
    message, for models without a system role; "trial=no" leaves out the question that tries the endpoint first. The
    key comes from UNTEACH_JUDGE_API_KEY, or else from OPENAI_API_KEY, and from nowhere else.

    Raises ConfigError for a missing model or address, a wrong option, or an endpoint that does not answer.
    """
    options = Options("openai", rest, OPTIONS)
    model = options.what.strip()
    if not model:
        raise ConfigError("--judge openai: name the endpoint's model, for example --judge openai:MODEL")
    if settings.scenario not in judge_wording()["scenarios"]:
        raise ConfigError(f"--judge openai: has no prompt for the scenario '{settings.scenario}'")
    endpoint = endpoint_of(options, model, settings.url)
    judge = OpenAIJudge(endpoint, settings.scenario, system=options.yes("system", default=True))
    if options.yes("trial", default=True):
        judge.try_out()
    return judge


def endpoint_of(options: Options, model: str, url: str | None) -> Endpoint:
    """Make the endpoint that a judge's options ask for; a key that would travel readable is warned of."""
    endpoint = Endpoint(
        chat_address(url),
        model,
        key_from_environment(),
        concurrency=options.whole_number("concurrency", 1, 64) or 8,
        rate=options.number("rate", 0.001, 10_000),
        timeout=options.number("timeout", 0.001, 600) or 60,
        longest=options.whole_number("tokens", 1, 32_768) or 64,
    )
    warn_of_readable_key(endpoint, "--judge-url")
    return endpoint
