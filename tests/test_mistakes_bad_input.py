"""Whatever is wrong with the input of `unteach mistakes`: exit code 2, one line that names it, nothing written."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import toy
from chat_server import ChatServer, Reply
from command import Outcome, call, place, write_rows
from unteach.mistakes.arms import ARMS
from unteach.prompts.mistakes import SHIPPED

Capture = pytest.CaptureFixture[str]
VERBS = ("run", "induce", "analyse", "tune", "study")
JSONL = {"induce", "analyse"}  # whose output is a file


@dataclass(frozen=True)
class Place:
    """A model and good rows of every kind."""

    folder: Path

    def words(self, verb: str, out: Path, **changed: object) -> list[str]:
        """Words that would do; None takes a flag away."""
        bad, good = self.folder / "forget.jsonl", self.folder / "retain.jsonl"
        flags: dict[str, Any] = {"model": self.folder / "model", "output": out, "device": "cpu"}
        flags["max_new_tokens"] = 4
        if verb in ("run", "induce", "study"):
            flags |= {"prompts": bad, "judge": f"rule:{self.folder / 'rules.yaml'}"}
        if verb == "analyse":
            flags["mistakes"] = bad
        if verb == "tune":
            flags |= {"analyses": self.folder / "analyses.jsonl"}
        if verb in ("run", "tune", "study"):
            flags |= {"retain": good, "evaluation_prompts": 2, "epochs": 1}
        words = ["mistakes", verb]
        for name, value in (flags | changed).items():
            if value is not None:
                words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
        return words


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("toy")
    place(folder)
    (folder / "rules.yaml").write_text("keywords: [take]\n")
    write_rows(folder / "analyses.jsonl", [{"prompt": "how to a0", "reply": "take c0", "analysis": "bad"}] * 3)
    return Place(folder)


@pytest.fixture
def refused(here: Place, tmp_path: Path, capsys: Capture) -> Callable[..., None]:
    """Run a verb with something changed; assert what every error must be and say, and that nothing is left."""

    def refuses(verb: str, said: list[str], *more: object, **changed: object) -> None:
        before = sorted(tmp_path.rglob("*"))
        outcome = call(capsys, *here.words(verb, tmp_path / "new" / "out", **changed), *more)
        clear(outcome, *said)
        assert sorted(tmp_path.rglob("*")) == before

    return refuses


def clear(outcome: Outcome, *said: str) -> None:
    assert outcome.code == 2, (outcome.out, outcome.err)
    assert outcome.err.startswith("Error: ") and outcome.err.count("\n") == 1, outcome.err
    assert "Traceback" not in outcome.err + outcome.out
    for word in said:
        assert word in outcome.err, outcome.err


@pytest.mark.parametrize("verb", VERBS)
class TestEveryVerb:
    def test_without_a_model(self, verb: str, refused: Callable[..., None]) -> None:
        refused(verb, ["--model is missing"], model=None)

    def test_a_model_that_is_not_there(self, verb: str, refused: Callable[..., None], tmp_path: Path) -> None:
        refused(verb, ["nowhere: no such model directory", "check the path"], model=tmp_path / "nowhere")

    def test_without_an_output(self, verb: str, here: Place, tmp_path: Path, capsys: Capture) -> None:
        clear(call(capsys, *here.words(verb, tmp_path / "out", output=None)), "--output is missing")

    def test_an_output_that_is_there(self, verb: str, here: Place, tmp_path: Path, capsys: Capture) -> None:
        output = tmp_path / "out"
        if verb in JSONL:
            output.write_text("mine")
            said = [f"--output {output}", "is there already", "another file"]
        else:
            output.mkdir()
            (output / "mine.txt").write_text("mine")
            said = [f"--output {output}", "not empty"]
        before = sorted(tmp_path.rglob("*"))
        clear(call(capsys, *here.words(verb, output)), *said)
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (None, ["no such file", "unteach mistakes wording"]),
            ("version: [", ["not readable as YAML"]),
            ("versoin: x\n", ["unknown field 'versoin'", "did you mean 'version'?"]),
            (SHIPPED.read_text().replace("  Reply: {reply}\n", ""), ["field 'guided'", "{prompt} and {reply}"]),
        ],
    )
    def test_wording(
        self, verb: str, text: str | None, said: list[str], refused: Callable[..., None], tmp_path: Path
    ) -> None:
        path = tmp_path / "mine.yaml"
        if text is not None:
            path.write_text(text)
        refused(verb, [f"--wording {path}", *said], wording=path)

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--modl", "x"], ["--modl", "did you mean '--model'?"]),
            (["--max-new-tokens", "0"], ["--max-new-tokens 0", "1"]),
            (["--max-new-tokens", "few"], ["--max-new-tokens", "integer"]),
            (["--dtype", "float23"], ["float23", "did you mean 'float32'?"]),
            (["--device", "cudda"], ["cudda", "use cpu"]),
            (["--prompt-format", "chatt"], ["--prompt-format chatt", "did you mean 'chat'?"]),
            (["--prompt-format", "chat"], ["--prompt-format chat", "no chat template"]),
            (["--column", "prompt"], ["--column prompt", "KEY=VALUE"]),
        ],
    )
    def test_settings(self, verb: str, words: list[str], said: list[str], refused: Callable[..., None]) -> None:
        if words[0] in ("--max-new-tokens", "--dtype", "--device"):
            refused(verb, said, **{words[0].removeprefix("--").replace("-", "_"): words[1]})
        else:
            refused(verb, said, *words)

    def test_a_config_file_with_a_slip(self, verb: str, refused: Callable[..., None], tmp_path: Path) -> None:
        (tmp_path / "run.yaml").write_text("promts: [a.txt]\n")
        refused(verb, ["'promts'", "did you mean 'prompts'?"], config=tmp_path / "run.yaml")


BAD_ROWS = [
    (None, ["rows.jsonl", "no such file"]),
    ("", ["rows.jsonl", "empty"]),
    ('{"prompt": "p"\n', ["rows.jsonl line 1", "not valid JSON"]),
]


class TestRows:
    @pytest.mark.parametrize(("text", "said"), BAD_ROWS)
    @pytest.mark.parametrize(
        ("verb", "flag"),
        [
            ("run", "prompts"),
            ("run", "mistakes"),
            ("run", "reports"),
            ("run", "retain"),
            ("run", "harmless"),
            ("run", "unseen"),
            ("run", "unseen_concept"),
            ("run", "lookalike"),
            ("run", "normal"),
            ("induce", "prompts"),
            ("analyse", "mistakes"),
            ("analyse", "reports"),
            ("tune", "analyses"),
            ("study", "prompts"),
            ("study", "harmless"),
        ],
    )
    def test_that_cannot_be_read(
        self, verb: str, flag: str, text: str | None, said: list[str], refused: Callable[..., None], tmp_path: Path
    ) -> None:
        if text is not None:
            (tmp_path / "rows.jsonl").write_text(text)
        refused(verb, said, **{flag: tmp_path / "rows.jsonl"})

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ({"prompt": "p", "reply": "r"}, ["rows.jsonl line 2", "'analysis'"]),
            ({"prompt": "p", "reply": "r", "analysis": " "}, ["rows.jsonl line 2", "'analysis' is empty"]),
            ({"prompt": "p", "reply": "", "analysis": "a"}, ["rows.jsonl line 2", "'reply' is empty"]),
            ({"prompt": "", "reply": "r", "analysis": "a"}, ["rows.jsonl line 2", "'prompt' is empty"]),
            ({"prompt": "p", "reply": "r", "analysis": "a", "label": "x"}, ["rows.jsonl line 2", "'label'"]),
            ({"prompt": "p", "reply": "r", "analysis": "a", "source": "x"}, ["rows.jsonl line 2", "'source'"]),
        ],
    )
    def test_analyses(self, row: dict[str, Any], said: list[str], refused: Callable[..., None], tmp_path: Path) -> None:
        good = {"prompt": "p", "reply": "r", "analysis": "a"}
        refused("tune", said, analyses=write_rows(tmp_path / "rows.jsonl", [good, row]))

    def test_analyses_of_good_replies_only(self, refused: Callable[..., None], tmp_path: Path) -> None:
        rows = [{"prompt": "p", "reply": "r", "analysis": "a", "label": True}]
        path = write_rows(tmp_path / "rows.jsonl", rows)
        refused("tune", [f"--analyses {path}", "none is of a bad reply"], analyses=path)

    def test_analyses_that_are_all_checked_on(self, refused: Callable[..., None], tmp_path: Path) -> None:
        path = write_rows(tmp_path / "rows.jsonl", [{"prompt": "p", "reply": "r", "analysis": "a"}])
        unseen = write_rows(tmp_path / "unseen.jsonl", [{"prompt": "P ", "completion": "r"}])
        refused("tune", ["nothing to train on", "their prompts all stand in --unseen"], analyses=path, unseen=unseen)

    def test_prompts_that_are_all_checked_on(self, refused: Callable[..., None], here: Place) -> None:
        refused("run", ["every prompt stands in --unseen"], unseen=here.folder / "forget.jsonl")

    @pytest.mark.parametrize("verb", ["run", "study", "tune"])
    def test_nothing_to_learn_from(self, verb: str, refused: Callable[..., None]) -> None:
        refused(verb, ["nothing to learn from", "--prompts", "--mistakes", "--analyses"], prompts=None, analyses=None)

    def test_of_single_steps(self, refused: Callable[..., None]) -> None:
        refused("induce", ["--prompts is missing"], prompts=None)
        refused("analyse", ["--mistakes is missing"], mistakes=None)


class TestJudges:
    @pytest.mark.parametrize("verb", ["run", "induce", "study"])
    @pytest.mark.parametrize(
        ("judge", "said"),
        [
            (None, ["--judge is missing", "openai:MODEL", "rule:FILE"]),
            ("trained", ["--judge trained", "learns", "another judge"]),
            ("repeets", ["--judge repeets", "did you mean 'repeats'?"]),
            ("rule:gone.yaml", ["gone.yaml"]),
        ],
    )
    def test_of_induced_replies(
        self, verb: str, judge: str | None, said: list[str], refused: Callable[..., None]
    ) -> None:
        refused(verb, said, judge=judge)


class TestAnalysts:
    @pytest.mark.parametrize("verb", ["run", "analyse", "study"])
    @pytest.mark.parametrize(
        ("analyst", "url", "said"),
        [
            ("openai:big", None, ["--analyst-url is missing"]),
            ("openai:big", "somewhere", ["--analyst-url", "not an http or https address"]),
            ("openai:", "http://localhost:1/v1", ["--analyst openai:", "names no model"]),
            ("nowhere/at/all", None, ["nowhere/at/all"]),
        ],
    )
    def test_that_cannot_be_asked(
        self, verb: str, analyst: str, url: str | None, said: list[str], refused: Callable[..., None]
    ) -> None:
        refused(verb, said, analyst=analyst, analyst_url=url)

    def test_an_endpoint_that_refuses_the_key_says_so(self, refused: Callable[..., None]) -> None:
        with ChatServer(lambda request, number: Reply(401)) as server:
            said = ["no analysis by openai:big", "24 no answer", "the key was refused"]
            refused("analyse", said, analyst="openai:big", analyst_url=server.url)

    @pytest.mark.parametrize(("verb", "count"), [("analyse", 24), ("study", 22)])  # two are held out
    def test_a_model_that_says_nothing_of_use(self, verb: str, count: int, refused: Callable[..., None]) -> None:
        refused(verb, ["no analysis by", f"0 of {count} analyses kept", "(dropped: ", "--analyst"])

    def test_a_run_keeps_its_mistakes_and_trains_nothing(self, here: Place, tmp_path: Path, capsys: Capture) -> None:
        clear(call(capsys, *here.words("run", tmp_path / "out")), "no analysis by", "0 of 22 analyses kept")
        left = {path.name for path in (tmp_path / "out").iterdir()}
        assert "mistakes.jsonl" in left and not left & {"analyses.jsonl", "model", "checkpoints", "report.json"}


class TestTraining:
    @pytest.mark.parametrize("verb", ["run", "tune", "study"])
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (["--max-length", "65"], ["--max-length 65", "context is 64"]),
            (["--set", "trainer.nonsense=1"], ["trainer.nonsense", "SFTConfig has no such field"]),
            (["--set", "trainer.weight_decai=1"], ["did you mean 'weight_decay'?"]),
            (["--set", "trainer.weight_decay=heavy"], ["trainer.weight_decay=heavy", "number"]),
            (["--set", "trainer.seed=3"], ["trainer.seed", "use --seed"]),
            (["--set", "trainer.optim=adamm"], ["adamm"]),
            (["--set", "seed=3"], ["--set seed", "trainer.KEY=VALUE"]),
            (["--lora", "--lora-rank", "0"], ["rank 0"]),
            (["--lora", "--lora-targets", "q_projj"], ["--lora-targets q_projj", "did you mean 'q_proj'?"]),
            (["--load-in-4bit"], ["--load-in-4bit", "--lora"]),
            (["--learning-rate", "0"], ["--learning-rate 0", "more than 0"]),
            (["--learning-rate", "inf"], ["--learning-rate inf", "finite"]),
            (["--normals-per-analysis", "-1"], ["--normals-per-analysis -1"]),
            (["--normals-per-analysis", "inf"], ["--normals-per-analysis inf", "finite"]),
        ],
    )
    def test_settings_are_looked_at_first(
        self,
        verb: str,
        words: list[str],
        said: list[str],
        refused: Callable[..., None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def too_late(*arguments: Any, **more: Any) -> Any:
            raise AssertionError("the model was asked before the settings were looked at")

        monkeypatch.setattr("unteach.models.kept_replies.generate.generate", too_late)
        refused(verb, said, *words)

    @pytest.mark.parametrize("epochs", ["0", "inf", "nan"])
    def test_epochs(self, epochs: str, refused: Callable[..., None]) -> None:
        refused("run", [f"--epochs {epochs}"], epochs=epochs)

    def test_nothing_to_resume(self, refused: Callable[..., None]) -> None:
        refused("run", ["--resume", "no run in"], "--resume")


class TestStudy:
    @pytest.mark.parametrize(
        ("arms", "said"),
        [
            ("sft,analysys", ["--arms", "'analysys'", "did you mean 'analysis'?", "analysis-shuffled"]),
            ("original", ["unknown 'original'"]),
        ],
    )
    def test_unknown_arms(self, arms: str, said: list[str], refused: Callable[..., None]) -> None:
        assert "original" not in ARMS
        refused("study", said, arms=arms)

    def test_seeds(self, refused: Callable[..., None]) -> None:
        refused("study", ["--seeds 0", "1"], seeds=0)


class TestChat:
    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ([], ["--model"]),
            (["--model", "/nowhere/at/all"], ["/nowhere/at/all: no such model directory"]),
            (["--model", "MODEL", "--wording", "gone.yaml"], ["--wording gone.yaml", "no such file"]),
            (["--model", "MODEL", "--prompt-format", "chat"], ["--prompt-format chat", "no chat template"]),
            (["--model", "MODEL", "--temperature", "hot"], ["'--temperature'", "valid number"]),
        ],
    )
    def test_settings(self, words: list[str], said: list[str], here: Place, capsys: Capture) -> None:
        words = [str(here.folder / "model") if word == "MODEL" else word for word in words]
        outcome = call(capsys, "mistakes", "chat", *words)
        clear(outcome, *said)

    def test_a_broken_guidance_file_is_named(self, tmp_path: Path, capsys: Capture) -> None:
        toy.model().save_pretrained(tmp_path)
        toy.tokenizer().save_pretrained(tmp_path)
        (tmp_path / "guidance.json").write_text(json.dumps({"reminder": 7, "where": "preamble"}))
        clear(call(capsys, "mistakes", "chat", "--model", tmp_path), "guidance.json", 'field "reminder"')


def test_an_unknown_verb_is_named(capsys: Capture) -> None:
    clear(call(capsys, "mistakes", "analyze"), "analyze", "analyse")
