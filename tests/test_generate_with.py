"""unteach run --generate-with: a server of the same model replies for the original, and no other model in its name."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import toy
from chat_server import Reply
from command import Place, call, place
from ranked import on_ranks
from token_server import TokenServer
from unteach.errors import ConfigError
from unteach.models import endpoint as endpoint_module
from unteach.models import generate
from unteach.models.endpoint import Endpoint
from unteach.models.kept_replies import KeptReplies, generate_cached
from unteach.models.reply import ReplyEnd
from unteach.models.reply_server import ReplyServer
from unteach.pipeline import generate_with
from unteach.pipeline.config import RunConfig
from unteach.pipeline.generate_with import ALL, PROBE_TOKENS, PROBES, Agreement, server_of
from unteach.results.report import Report

Capture = pytest.CaptureFixture[str]
PROMPTS = [[1, 20, 21], [1, 22], [1, 23, 24, 25]]
END = ReplyEnd(frozenset({2}))


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(generate_with, "PROBES", 4)
    monkeypatch.setattr(generate_with, "PROBE_TOKENS", 6)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return place(tmp_path_factory.mktemp("toy"))


def at(server: TokenServer, name: str = "served") -> ReplyServer:
    return ReplyServer(Endpoint(f"{server.url}/completions", name, timeout=5.0, attempts=2))


def ask(server: TokenServer, prompts: Any = PROMPTS, **settings: Any) -> list[Any]:
    asked = {"max_new_tokens": 6, "end": END} | settings
    return at(server).replies(toy.learned_model(), toy.tokenizer(), prompts, **asked)


# --- replies --------------------------------------------------------------------------------------------------------


def test_replies_are_those_of_the_model_token_by_token() -> None:
    prompts = [*PROMPTS, []]
    with TokenServer(toy.learned_model()) as server:
        replies = ask(server, prompts)
    assert replies == generate.generate(toy.learned_model(), toy.tokenizer(), prompts, max_new_tokens=6, end=END)
    asked = server.asked("completions")
    assert sorted(body["prompt"] for body in asked) == sorted([*PROMPTS, [1]])
    fixed = {"temperature": 0.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}
    fixed |= {"model": "served", "ignore_eos": True, "stop_token_ids": [2], "max_tokens": 6, "return_token_ids": True}
    assert all(fixed.items() <= body.items() and "seed" not in body for body in asked)


def test_drawn_replies_have_a_seed_for_each_prompt() -> None:
    seeds = []
    for seed in (1, 1, 2):
        with TokenServer(toy.model()) as server:
            replies = ask(server, PROMPTS * 2, temperature=1.0, seed=seed)
        seeds.append(({body["seed"] for body in server.asked("completions")}, replies))
    assert [len(found) for found, _ in seeds] == [6, 6, 6]
    assert seeds[0] == seeds[1] and seeds[0][0].isdisjoint(seeds[2][0])


def test_a_prompt_that_fills_the_context_gets_the_room_that_is_left() -> None:
    with TokenServer(toy.learned_model()) as server:
        ask(server, [[1] + [20] * 60])
    assert server.asked("completions")[0]["max_tokens"] == 3


def changed(**values: Any) -> Any:
    return lambda choice, request: choice | values


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (changed(token_ids=None), "the answer has no token ids"),
        (changed(token_ids=["a"]), "the answer has no token ids"),
        (changed(token_ids=[True]), "the answer has no token ids"),
        (changed(token_ids=[9, -1]), "the answer has no token ids"),
        (changed(token_ids=[9, 10**6, 2]), "its tokens are not those of the model, which knows 66"),
        (changed(token_ids=[9, 2], prompt_token_ids=[1, 1]), "it read another prompt than it was sent"),
        (changed(token_ids=[9, 9], finish_reason="stop"), "it stopped where no reply of the model ends"),
        (changed(token_ids=[9, 9], finish_reason="length"), "the reply was to end after 6 tokens, not 2"),
        (changed(token_ids=[9] * 7, finish_reason="length"), "the reply was to end after 6 tokens, not 7"),
        (changed(token_ids=[9, 2], finish_reason="abort"), "the reply was broken off (abort)"),
        (lambda choice, request: Reply(body=b"<html>"), "the answer is no completion of one prompt"),
        (
            lambda choice, request: Reply(body=json.dumps({"choices": [choice] * 2}).encode()),
            "no completion of one prompt",
        ),
        (lambda choice, request: Reply(422, b'{"detail": "prompt: not a string"}'), "HTTP 422: prompt: not a string"),
        (lambda choice, request: Reply(404, b'{"detail": "Not Found"}'), "HTTP 404: Not Found"),
        (lambda choice, request: Reply(401), "set UNTEACH_ENDPOINT_API_KEY"),
    ],
)
def test_what_is_no_reply_of_this_model_is_one_error(change: Any, says: str) -> None:
    with TokenServer(None, change=change) as server, pytest.raises(ConfigError) as caught:
        server.generated = lambda model, body: [9, 2]  # type: ignore[method-assign]
        brief = at(server)
        key_name = {"key_name": "UNTEACH_ENDPOINT_API_KEY"}
        ReplyServer(Endpoint(**(vars(brief.endpoint) | key_name))).replies(
            toy.model(), toy.tokenizer(), PROMPTS, max_new_tokens=6, end=END
        )
    assert says in str(caught.value) and "3 of 3 prompts got no reply" in str(caught.value)
    assert "as vLLM 0.10.2 does" in str(caught.value)


def test_a_servers_replies_are_kept_and_never_mixed_with_those_made_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model, words = toy.learned_model(), toy.tokenizer()
    asked: dict[str, Any] = {"key": "weights", "max_new_tokens": 6, "end": END}
    local = generate_cached(model, words, PROMPTS, **asked)
    with TokenServer(toy.model()) as server, TokenServer(toy.model(seed=5)) as other:
        served = generate_cached(model, words, PROMPTS, server=at(server), **asked)
        assert not isinstance(served, KeptReplies) and served != local
        again = generate_cached(model, words, PROMPTS, server=at(server), **asked)
        assert isinstance(again, KeptReplies) and list(again) == served and len(server.requests) == 3
        elsewhere = generate_cached(model, words, PROMPTS, server=at(other), **asked)
        assert not isinstance(elsewhere, KeptReplies) and elsewhere != served
        assert generate_cached(model, words, [], server=at(server), **asked) == []
        generate_cached(model, words, PROMPTS, server=at(server), **(asked | {"key": None}))
        assert len(server.requests) == 6
    assert list(generate_cached(model, words, PROMPTS, **asked)) == list(local)


def test_the_first_rank_asks_for_all(tmp_path: Path) -> None:
    with TokenServer(toy.learned_model()) as server:

        def work() -> list[Any]:
            torch.set_num_threads(1)
            model, words = toy.learned_model(), toy.tokenizer()
            return generate_cached(model, words, PROMPTS, key=None, max_new_tokens=6, end=END, server=at(server))

        first, second = on_ranks(2, work, tmp_path)
    assert first == second and len(first) == 3 and len(server.requests) == 3


# --- which model a server serves ------------------------------------------------------------------------------------


def test_the_name_of_the_model_is_the_given_one_or_the_only_one() -> None:
    with TokenServer(toy.model(), name="base") as server:
        server.models["an-adapter"] = server.models["base"]
        assert at(server).name_of("base") == "base"
        assert at(server).name_of("/somewhere/else") == "base"
        server.listed = lambda request: Reply(body=b'{"data": [{"id": "a"}, {"id": "b\\n"}]}')  # type: ignore[method-assign]
        assert at(server).name_of("a") == "a"
        with pytest.raises(ConfigError, match=r"no model called c \(there are: a, b ⏎\); name it so"):
            at(server).name_of("c")


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(404, b'{"detail": "Not Found"}'), "it lists no models (HTTP 404: Not Found)"),
        (Reply(401), "it lists no models (HTTP 401"),
        (Reply(307, headers={"Location": "http://127.0.0.1:9/"}), "it lists no models (HTTP 307"),
        (Reply(body=b"hello"), "its list of models cannot be read"),
        (Reply(body=b'{"data": 3}'), "its list of models cannot be read"),
        (Reply(body=b'{"data": []}'), "serves no model called m (there are: none)"),
    ],
)
def test_a_server_without_models_is_one_error(reply: Reply, says: str) -> None:
    with TokenServer(toy.model()) as server:
        server.listed = lambda request: reply  # type: ignore[method-assign]
        with pytest.raises(ConfigError) as caught:
            at(server).name_of("m")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://127.0.0.1:9/v1", "no connection (ConnectError)"),
        ("127.0.0.1:9", "not an http or https address"),
        ("http://me:secret@host/v1", "the key in UNTEACH_ENDPOINT_API_KEY"),
    ],
)
def test_an_address_without_a_server_is_one_error(url: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        server_of(RunConfig(model="m", generate_with=url))
    assert says in str(caught.value) and str(caught.value).startswith("--generate-with") and "secret" not in str(caught)


def test_a_model_that_declines_is_told_from_the_original_by_its_first_tokens() -> None:
    """After the first word of a refusal the original goes on likewise: by all tokens alone, the two look the same."""
    same, declines = [True] * PROBE_TOKENS, [False] + [True] * (PROBE_TOKENS - 1)
    tokens = sum(map(sum, [same, declines])) / (2 * PROBE_TOKENS)
    assert tokens > ALL and not Agreement([same] * PROBES + [declines] * PROBES).holds
    assert Agreement([same] * (2 * PROBES - 6) + [declines] * 6).holds
    assert not Agreement([[True] + [False] * 9] * 9).holds and not Agreement([]).holds


def served_run(here: Place, output: Path, server: TokenServer | None, **changed: Any) -> list[str]:
    """Words of a run that changes the model enough for its replies to be others."""
    flags = {"lora": True, "max_steps": 6, "learning_rate": 0.03, "no_stopping": True, "method": "ga-mismatch"}
    flags |= {"evaluation_prompts": 3}
    return here.quick(output, generate_with=server and server.url, **(flags | changed))


def report_of(capsys: Capture, words: list[str]) -> Report:
    outcome = call(capsys, *words)
    assert outcome.code == 0, outcome.err
    return Report.read(words[words.index("--output") + 1])


def test_another_model_is_refused_before_anything_is_written(here: Place, tmp_path: Path, capsys: Capture) -> None:
    with TokenServer(toy.model(seed=3)) as server:
        outcome = call(capsys, *served_run(here, tmp_path / "out", server))
    assert outcome.code == 2 and outcome.err.count("\n") == 1, outcome.err
    assert f"--generate-with {server.url}: served is another model than --model {here.model}" in outcome.err
    assert "first ones are the first choice of that, where 93% and 80% must be" in outcome.err
    assert not (tmp_path / "out").exists()


# --- a run ----------------------------------------------------------------------------------------------------------


def test_a_run_with_a_server_reports_what_one_without_does(here: Place, tmp_path: Path, capsys: Capture) -> None:
    local = report_of(capsys, served_run(here, tmp_path / "local", None))
    with TokenServer(toy.learned_model()) as server:
        report = report_of(capsys, served_run(here, tmp_path / "out", server))
    assert report.samples == local.samples
    assert any(sample.replies["original"] != sample.replies["unlearned"] for sample in report.samples)
    for ours, theirs in zip(report.measurements, local.measurements, strict=True):
        assert (ours.name, ours.split, ours.arm) == (theirs.name, theirs.split, theirs.arm)
        assert ours.value == pytest.approx(theirs.value, abs=1e-5)
    (loaded,), (dropped,) = server.asked("load_lora_adapter"), server.asked("unload_lora_adapter")
    assert loaded == {"lora_name": dropped["lora_name"], "lora_path": str(tmp_path / "out" / "model")}
    names = [body["model"] for body in server.asked("completions")]
    prompts = len(report.samples) + generate_with.PROBES  # in the evaluation, and ours to try the server with
    assert names.count(loaded["lora_name"]) > prompts and names.count("served") > prompts
    assert any("replies of the original (its own answers" in note and server.url in note for note in report.notes)
    assert any("generated by the server with its adapter" in note for note in report.notes)


def test_an_adapter_that_the_server_ignores_is_noticed(here: Place, tmp_path: Path, capsys: Capture) -> None:
    with TokenServer(toy.learned_model(), adapters="ignored") as server:
        report = report_of(capsys, served_run(here, tmp_path / "out", server))
    says = (
        "replies of the trained model were generated here: the server took the adapter, but only of its greedy replies"
    )
    assert any(says in note for note in report.notes), report.notes
    assert not any("by the server with its adapter" in note for note in report.notes)
    others = [body["model"] for body in server.asked("completions") if body["model"] != "served"]
    assert len(others) <= 2 * generate_with.PROBES and len(server.models) == 1
    assert any(sample.replies["original"] != sample.replies["unlearned"] for sample in report.samples)


def test_normal_rows_are_the_servers_own_answers_and_it_may_refuse_adapters(
    here: Place, tmp_path: Path, capsys: Capture
) -> None:
    with TokenServer(toy.learned_model(), adapters="refused") as server:
        flags = {"retain": None, "own_answers": 12, "method": "graddiff"}
        report = report_of(capsys, served_run(here, tmp_path / "out", server, **flags))
    drawn = [body for body in server.asked("completions") if body["temperature"] == 1.0]
    assert len(drawn) == 12 == len({body["seed"] for body in drawn})
    assert any("were generated here: HTTP 404: Loading lora unteach-" in note for note in report.notes)
    assert {body["model"] for body in server.asked("completions")} == {"served"}


def test_whole_weights_are_not_pushed() -> None:
    original: Any = SimpleNamespace(server=ReplyServer(Endpoint("http://127.0.0.1:9/v1/completions", "m")))
    evaluation: Any = SimpleNamespace(servers={})
    with generate_with.adapter_served(evaluation, original, RunConfig(), None) as told:
        assert "all weights were trained, and a server takes only adapters" in told[0] and not evaluation.servers


def test_a_budget_is_not_planned_for_a_server(here: Place, tmp_path: Path, capsys: Capture) -> None:
    words = here.quick(tmp_path / "out", generate_with="http://127.0.0.1:9/v1", budget="10m")
    outcome = call(capsys, *words)
    assert outcome.code == 2 and "--generate-with: what a server takes cannot be planned" in outcome.err
