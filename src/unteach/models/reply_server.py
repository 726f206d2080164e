"""A server that generates replies for a model that is loaded here too: token ids go out, and token ids come back.

Prompts are rendered here and sent as token ids to OpenAI's `/completions`, so no chat template of the server's gets in
between. `return_token_ids` asks for the tokens of the reply. Source: vLLM's OpenAI-compatible server, 0.10.2 and later;
adapters as in its "Dynamically serving LoRA adapters".
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import httpx2

from unteach.errors import ConfigError
from unteach.models.endpoint import MOST_BYTES, Answer, Endpoint, Question, message_of
from unteach.models.generate import begin_prompts, drawn_seed
from unteach.models.reply import Reply, ReplyEnd
from unteach.models.vocabulary import embedding_rows
from unteach.progress import OnProgress
from unteach.text.escape import inert_line

FLAG = "--generate-with"
NEEDS = (
    "a server must take token ids at /completions and return those of its replies (return_token_ids), as vLLM 0.10.2 "
    "does; give another, or leave the flag out"
)


@dataclass(frozen=True)
class ReplyServer:
    """A server at `endpoint`, whose address is that of the completions and whose model is the name there."""

    endpoint: Endpoint

    def replies(
        self,
        model: Any,
        tokenizer: Any,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        end: ReplyEnd,
        temperature: float = 0.0,
        seed: int = 0,
        progress: OnProgress | None = None,
    ) -> list[Reply]:
        """Return the server's reply to every prompt, as `generate` returns those of `model`, which is not run.

        The server draws each reply from a seed of its own, which is made of `seed` and the prompt's number. Raises
        ConfigError where a prompt gets no reply, or one that cannot be a reply of this model.
        """
        begun, room = begin_prompts(model, tokenizer, prompts, max_new_tokens, end)
        questions = [
            _question(ids, most, end, temperature, drawn_seed(seed, number))
            for number, (ids, most) in enumerate(zip(begun, room, strict=True))
        ]
        done = [0]

        def arrived(place: int, answer: Answer) -> None:
            done[0] += 1
            if progress is not None:
                progress(done[0], len(questions))

        answers = self.endpoint.post(questions, _read, arrived)
        found = [(answer, end.read(tokenizer, answer.ids)) for answer in answers]
        known = embedding_rows(model)
        failures = Counter(filter(None, (_fault(answer, reply, known) for answer, reply in found)))
        if failures:
            why = "; ".join(f"{count} × {inert_line(reason, 200)}" for reason, count in failures.most_common(3))
            lacking = f"{failures.total()} of {len(questions)} prompts got no reply ({why})"
            raise ConfigError(f"{FLAG} {self.endpoint.base}: {lacking}; {NEEDS}")
        return [reply for _, reply in found]

    def name_of(self, wanted: str) -> str:
        """Return the name by which the server knows the model: `wanted`, or else the only one that it lists.

        Raises ConfigError where there is no server, and where several models are served under other names.
        """
        where = f"{FLAG} {self.endpoint.base}"
        status, said = self._call("models")
        if status != 200:
            raise ConfigError(
                f"{where}: it lists no models ({self._shown(status, said)}); check the address and the key"
            )
        try:
            # adapters are listed beside their base, which they name as their parent
            names = [str(one["id"]) for one in json.loads(said)["data"] if not one.get("parent")]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            raise ConfigError(f"{where}: its list of models cannot be read; give the address of vLLM's /v1") from None
        if wanted not in names and len(names) != 1:
            listed = ", ".join(inert_line(name, 60) for name in names[:5]) or "none"
            raise ConfigError(
                f"{where}: serves no model called {inert_line(wanted, 80)} (there are: {listed}); name it so"
            )
        return wanted if wanted in names else names[0]

    def under(self, name: str, **changed: Any) -> "ReplyServer":
        """Return the same server, asked for the model `name` and with other settings of its endpoint."""
        return replace(self, endpoint=replace(self.endpoint, model=name, **changed))

    def load_adapter(self, name: str, path: str) -> str:
        """Have the server load the adapter that lies at `path` as the model `name`; return why not, empty if it did."""
        try:
            status, said = self._call("load_lora_adapter", {"lora_name": name, "lora_path": path})
        except ConfigError as error:
            return str(error)
        return "" if status == 200 else self._shown(status, said)

    def unload_adapter(self, name: str) -> None:
        """Have the server drop an adapter; one that is gone already, or a server that is, are no error."""
        try:
            self._call("unload_lora_adapter", {"lora_name": name})
        except ConfigError:
            pass

    def _shown(self, status: int, said: str) -> str:
        return f"HTTP {status}: {self.endpoint.redacted(message_of(said))}"

    def _call(self, path: str, body: dict[str, str] | None = None) -> tuple[int, str]:
        """Return status and text of one request beside the completions. Raises ConfigError where nobody answers."""
        method, url = "POST" if body else "GET", f"{self.endpoint.base}/{path}"
        settings: Any = {"headers": self.endpoint.headers, "timeout": self.endpoint.timeout, "follow_redirects": False}
        content = bytearray()
        try:
            with httpx2.Client(**settings) as client, client.stream(method, url, json=body) as response:
                for part in response.iter_raw():
                    content += part
                    if len(content) > MOST_BYTES:
                        break
        except (httpx2.HTTPError, OSError) as problem:
            raise ConfigError(
                f"{FLAG} {self.endpoint.base}: no connection ({type(problem).__name__}); check that the server is up, "
                "and the address, which mostly ends in /v1"
            ) from None
        return response.status_code, content.decode("utf-8", "replace")


def _question(ids: list[int], most: int, end: ReplyEnd, temperature: float, seed: int) -> Question:
    """Return a request that replies like `generate`: with these ends and no others, from the whole distribution.

    Whatever the model's generation config says of sampling, a server takes as its default; so all of it is set.
    """
    asked: dict[str, Any] = {"prompt": ids, "max_tokens": most, "temperature": temperature, "return_token_ids": True}
    asked |= {"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    asked |= {"ignore_eos": True, "stop_token_ids": sorted(end.tokens)}
    return asked | ({"seed": seed} if temperature else {}) | ({"stop": [end.text]} if end.text else {})


def _read(question: Question, content: bytes) -> Answer:
    """Take the tokens of a reply out of a completion."""
    try:
        whole = json.loads(content)
        [choice] = whole["choices"]
        text, ids, finish = choice.get("text"), choice.get("token_ids"), choice.get("finish_reason")
        asked = choice.get("prompt_token_ids")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return Answer(failure="the answer is no completion of one prompt")
    if not isinstance(ids, list) or not all(type(token) is int and token >= 0 for token in ids):
        return Answer(failure="the answer has no token ids")
    if asked is not None and asked != question["prompt"]:
        return Answer(failure="it read another prompt than it was sent")
    if finish not in ("stop", "length"):
        return Answer(failure=f"the reply was broken off ({inert_line(str(finish), 40)})")
    cut = finish == "length"
    if len(ids) > question["max_tokens"] or (cut and len(ids) < question["max_tokens"]):
        return Answer(failure=f"the reply was to end after {question['max_tokens']} tokens, not {len(ids)}")
    return Answer(text if isinstance(text, str) else "", cut=cut, ids=tuple(ids))


def _fault(answer: Answer, reply: Reply, known: int | None) -> str:
    """Say why an answer is no reply of the model, which knows so many tokens; empty where it is one."""
    if answer.text is None:
        return answer.failure
    if known is not None and any(token >= known for token in answer.ids):
        return f"its tokens are not those of the model, which knows {known}"
    return "it stopped where no reply of the model ends" if reply.cut and not answer.cut else ""
