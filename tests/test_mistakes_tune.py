"""The tuning: loss where the masks say and nowhere else, gradients by hand, checkpoints that resume bit-identically."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

import toy
from unteach.data.encoded import Encoded
from unteach.data.example import Example
from unteach.errors import ConfigError, TrainingError
from unteach.models.adapter import lora_config
from unteach.training.checkpoints import complete_step, last_complete
from unteach.training.rows import TrainingRow
from unteach.training.supervised import (
    MaskedCollator,
    RowsTrainer,
    TuneSettings,
    arguments_of,
    checkpoint_to_resume,
    digest_of,
    tuner,
)


def row(ids: list[int], *learnt: int) -> TrainingRow:
    """A row of these tokens, of which those at these places are learnt."""
    encoded = Encoded(Example.of("p", "r"), tuple(ids[:1]), tuple(ids[1:]), False)
    return TrainingRow("analysis", encoded, tuple(place in learnt for place in range(len(ids))))


# Of unlike lengths and unlike numbers of learnt tokens, so that a mean over rows is not the mean over tokens.
ROWS = [
    row([1, 8, 18, 9, 24, 10, 30, 31, 2], 6, 7, 8),
    row([1, 8, 19, 9, 25, 2], 5),
    row([1, 8, 20, 21, 22, 23, 9, 26, 10, 32, 33, 34, 2], 7, 9, 10, 11, 12),
    row([1, 12, 35, 2], 2, 3),
]
EIGHT = ROWS * 2


def made(directory: Path, rows: list[TrainingRow], pupil: Any = None, **changed: Any) -> RowsTrainer:
    rest = {name: changed.pop(name) for name in ("peft_config", "callbacks") if name in changed}
    settings = {"batch_size": 2, "learning_rate": 1e-2, "save_steps": None, "cpu": True, "seed": 0} | changed
    return tuner(pupil or toy.model(), toy.tokenizer(), 0, rows, TuneSettings(directory, **settings), **rest)


def by_hand(pupil: Any, rows: list[TrainingRow]) -> tuple[float, dict[str, torch.Tensor]]:
    """Mean of −log p over all learnt tokens, row by row without padding, and its gradient."""
    total, count = torch.zeros(()), 0
    for one in rows:
        scores = pupil(input_ids=torch.tensor([one.input_ids])).logits[0].float().log_softmax(-1)
        for place, learnt in enumerate(one.learnt):
            if learnt:
                total = total - scores[place - 1, one.input_ids[place]]
                count += 1
    pupil.zero_grad()
    (total / count).backward()
    gradients = {name: value.grad.clone() for name, value in pupil.named_parameters() if value.grad is not None}
    return float(total.detach()) / count, gradients


class Gradients(TrainerCallback):
    """Keeps the gradients of the first step, as the optimizer sees them."""

    def __init__(self) -> None:
        self.kept: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **more: Any) -> None:
        if not self.kept:
            self.kept = {n: v.grad.clone() for n, v in model.named_parameters() if v.grad is not None}


class TestCollator:
    def features(self) -> list[dict[str, Any]]:
        return [
            {"input_ids": list(one.input_ids), "labels": one.labels, "learnt": list(one.learnt)} for one in ROWS[:2]
        ]

    def test_pads_and_labels_what_is_learnt(self) -> None:
        batch = MaskedCollator(0)(self.features())
        assert batch["input_ids"].tolist() == [[1, 8, 18, 9, 24, 10, 30, 31, 2], [1, 8, 19, 9, 25, 2, 0, 0, 0]]
        assert batch["labels"].tolist() == [[-100] * 6 + [30, 31, 2], [-100] * 5 + [2] + [-100] * 3]
        assert batch["attention_mask"].tolist() == [[1] * 9, [1] * 6 + [0] * 3]
        assert "learnt" not in batch

    @pytest.mark.parametrize("place", [0, 4, 7])
    def test_refuses_a_label_more_or_less(self, place: int) -> None:
        features = self.features()
        labels = features[0]["labels"]
        labels[place] = 24 if labels[place] == -100 else -100  # place 4 is the bad reply, 7 an analysis
        with pytest.raises(TrainingError, match="loss where its rows have none"):
            MaskedCollator(0)(features)

    def test_refuses_a_mask_that_was_tampered_with(self) -> None:
        features = self.features()
        features[1]["learnt"][4] = True
        with pytest.raises(TrainingError):
            MaskedCollator(0)(features)

    def test_refuses_loss_on_padding(self, monkeypatch: pytest.MonkeyPatch) -> None:
        collator = MaskedCollator(0)
        pad = collator._pad

        def leaky(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
            batch = pad(features)
            batch["labels"][1, -1] = 0
            return batch

        monkeypatch.setattr(collator, "_pad", leaky)
        with pytest.raises(TrainingError):
            collator(self.features())


class TestGradients:
    @pytest.mark.parametrize(("batch", "accumulation"), [(4, 1), (2, 2), (1, 4)])
    def test_are_those_of_the_mean_over_learnt_tokens(self, batch: int, accumulation: int, tmp_path: Path) -> None:
        seen = Gradients()
        run = made(
            tmp_path,
            ROWS,
            batch_size=batch,
            gradient_accumulation_steps=accumulation,
            callbacks=[seen],
            trainer={"max_grad_norm": "0"},
        )
        run.train()
        assert run.state.global_step == 1
        loss, gradients = by_hand(toy.model(), ROWS)
        assert run.state.log_history[0]["loss"] == pytest.approx(loss, rel=1e-5)
        assert seen.kept.keys() == gradients.keys()
        for name, value in gradients.items():
            torch.testing.assert_close(seen.kept[name], value, rtol=1e-4, atol=1e-6)

    def test_differ_where_the_bad_reply_is_learnt_too(self, tmp_path: Path) -> None:
        """The control really is another training."""
        seen = Gradients()
        more = [row(list(one.input_ids), *[n for n, on in enumerate(one.learnt) if on], 1) for one in ROWS]
        made(tmp_path, more, batch_size=4, callbacks=[seen], trainer={"max_grad_norm": "0"}).train()
        _, masked = by_hand(toy.model(), ROWS)
        _, learnt = by_hand(toy.model(), more)
        name = "model.layers.0.mlp.up_proj.weight"
        torch.testing.assert_close(seen.kept[name], learnt[name], rtol=1e-4, atol=1e-6)
        assert not torch.allclose(seen.kept[name], masked[name], rtol=1e-2, atol=1e-4)

    def test_rows_come_in_their_order_and_once(self, tmp_path: Path) -> None:
        run = made(tmp_path, ROWS)
        met: list[list[int]] = []
        inner = run.data_collator

        def noted(features: list[dict[str, Any]]) -> Any:
            met.extend(feature["input_ids"] for feature in features)
            return inner(features)

        run.data_collator = noted
        run.train()
        assert met == [list(one.input_ids) for one in ROWS]
        assert run.tokens_in_all == 9 + 6 + 13 + 4


class TestSettings:
    def test_on_a_cpu_all_is_in_float32(self, tmp_path: Path) -> None:
        run = made(tmp_path, ROWS)
        assert not (run.args.bf16 or run.args.fp16 or run.args.gradient_checkpointing)
        assert {value.dtype for value in run.model.parameters()} == {torch.float32}
        assert run.args.device.type == "cpu"

    def test_the_learning_rate_rises_over_a_tenth_and_falls_to_nothing(self, tmp_path: Path) -> None:
        run = made(tmp_path, ROWS[:1] * 20, batch_size=1, learning_rate=1.0e-3)
        run.train()
        rates = [line["learning_rate"] for line in run.state.log_history if "learning_rate" in line]
        assert len(rates) == 20
        assert rates[:3] == pytest.approx([0, 5e-4, 1e-3])
        assert rates[3:] == pytest.approx([1e-3 * (18 - n) / 18 for n in range(1, 18)])

    def test_without_a_learning_rate_it_comes_from_the_width(self, tmp_path: Path) -> None:
        settings = TuneSettings(tmp_path, cpu=True)
        assert arguments_of(toy.model(), settings, lora=False).learning_rate == pytest.approx(0.025 / 32)
        assert arguments_of(toy.model(), settings, lora=True).learning_rate == pytest.approx(0.25 / 32)

    def test_other_fields_become_what_they_are(self, tmp_path: Path) -> None:
        given = {"weight_decay": "1e-3", "max_steps": "3", "adam_beta2": "0.9", "save_strategy": "no"}
        found = arguments_of(toy.model(), TuneSettings(tmp_path, cpu=True, trainer=given), lora=False)
        assert (found.weight_decay, found.max_steps, found.adam_beta2) == (1e-3, 3, 0.9)
        assert found.save_strategy == "no"

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"nonsense": "1"}, "trainer.nonsense: SFTConfig has no such field"),
            ({"weight_decai": "1"}, "did you mean 'weight_decay'"),
            ({"weight_decay": "heavy"}, "trainer.weight_decay=heavy: .*number"),
            ({"optim": "adamm"}, "adamm"),
            ({"learning_rate": "1"}, "trainer.learning_rate: it has a flag of its own; use --learning-rate"),
            ({"num_train_epochs": "1"}, "use --epochs"),
            ({"fsdp": "full_shard"}, "must hold the whole model"),
        ],
    )
    def test_fields_that_are_not_there_or_do_not_fit(self, given: dict[str, str], said: str, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=said):
            arguments_of(toy.model(), TuneSettings(tmp_path, cpu=True, trainer=given), lora=False)

    def test_nothing_is_printed_and_nobody_is_asked(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refused(*arguments: Any, **more: Any) -> Any:
            raise AssertionError("the network was asked")

        monkeypatch.setattr("socket.socket.connect", refused)
        monkeypatch.setattr("socket.getaddrinfo", refused)
        made(tmp_path, EIGHT, save_steps=2).train()
        assert capsys.readouterr().out == ""


class Die(TrainerCallback):
    """Breaks a run off between two batches of a step, as a kill would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_substep_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


CUT = {"batch_size": 1, "gradient_accumulation_steps": 2, "save_steps": 1}

SCRIPT = """
import os, signal, sys, torch
from pathlib import Path
from transformers import TrainerCallback
import test_mistakes_tune as here
torch.set_num_threads(1)

class Kill(TrainerCallback):
    def on_substep_end(self, args, state, control, **more):
        if state.global_step == 3:
            os.kill(os.getpid(), signal.SIGKILL)

here.made(Path(sys.argv[1]), here.EIGHT, callbacks=[Kill()], **here.CUT).train()
"""


def gone_on(directory: Path, rows: list[TrainingRow], **settings: Any) -> RowsTrainer:
    run = made(directory, rows, **settings)
    run.train(resume_from_checkpoint=checkpoint_to_resume(directory, run.digest))
    return run


class TestRanks:
    def test_dropout_is_off_so_nothing_is_drawn(self, tmp_path: Path) -> None:
        runs = [made(tmp_path, EIGHT, toy.model(attention_dropout=rate)) for rate in (0.0, 0.9)]
        for run in runs:
            run.train()
        plain, dropping = (toy.weights(run.model) for run in runs)
        assert all(torch.equal(plain[name], dropping[name]) for name in plain)

    def test_batches_that_cannot_be_parted_are_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("unteach.models.ranks.world", lambda: 3)
        with pytest.raises(ConfigError, match="--batch-size 8: cannot be parted evenly between 3 ranks"):
            arguments_of(toy.model(), TuneSettings(tmp_path, cpu=True), lora=False)


class TestResume:
    @pytest.mark.parametrize("adapter", [False, True])
    def test_a_run_broken_off_ends_with_the_same_weights(self, adapter: bool, tmp_path: Path) -> None:
        def settings() -> dict[str, Any]:
            return CUT | ({"peft_config": lora_config(2, 4.0)} if adapter else {})

        torch.manual_seed(3)
        whole = made(tmp_path / "whole", EIGHT, **settings())
        whole.train()
        torch.manual_seed(3)
        with pytest.raises(KeyboardInterrupt):
            made(tmp_path / "cut", EIGHT, **settings(), callbacks=[Die(2)]).train()
        assert [path.name for path in sorted((tmp_path / "cut").glob("checkpoint-*"))] == [
            "checkpoint-1",
            "checkpoint-2",
        ]
        assert all(complete_step(path) for path in (tmp_path / "cut").glob("checkpoint-*"))
        resumed = gone_on(tmp_path / "cut", EIGHT, **settings())
        assert resumed.state.global_step == whole.state.global_step == 4
        ours, theirs = toy.weights(resumed.model), toy.weights(whole.model)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    @pytest.mark.slow
    def test_a_killed_process_leaves_a_complete_checkpoint_to_go_on_from(self, tmp_path: Path) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "cut")]
        killed = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert killed.stdout == ""
        found = last_complete(tmp_path / "cut")
        assert found is not None and found.name == "checkpoint-3"
        resumed, whole = gone_on(tmp_path / "cut", EIGHT, **CUT), made(tmp_path / "whole", EIGHT, **CUT)
        whole.train()
        assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))

    def test_a_half_written_checkpoint_is_passed_over(self, tmp_path: Path) -> None:
        run = made(tmp_path, EIGHT, **CUT)
        run.train()
        (tmp_path / "checkpoint-4" / "unteach.json").unlink()
        assert checkpoint_to_resume(tmp_path, run.digest) == str(tmp_path / "checkpoint-3")
        assert checkpoint_to_resume(tmp_path / "nowhere", run.digest) is None

    def test_checkpoints_of_other_rows_are_not_gone_on_from(self, tmp_path: Path) -> None:
        """Somebody has edited the analyses since: what was learnt of the old ones must not stay."""
        made(tmp_path / "cut", EIGHT, **CUT).train()
        edited = [row([1, 8, 18, 9, 24, 10, 36, 37, 2], 6, 7, 8), *EIGHT[1:]]
        resumed = gone_on(tmp_path / "cut", edited, **CUT)
        whole = made(tmp_path / "whole", edited, **CUT)
        whole.train()
        assert all(torch.equal(a, b) for a, b in zip(resumed.model.parameters(), whole.model.parameters(), strict=True))
        left = {path.name for path in (tmp_path / "cut").glob("checkpoint-*")}
        assert left == {"checkpoint-3", "checkpoint-4"}

    def test_the_digest_tells_tokens_masks_and_order_apart(self) -> None:
        others = [ROWS[::-1], ROWS[:3], [row(list(ROWS[0].input_ids), 6, 7), *ROWS[1:]], ROWS]
        assert len({digest_of(rows) for rows in others}) == 4
        assert digest_of(ROWS) == digest_of(list(ROWS))


class TestLora:
    def test_the_adapter_alone_moves(self, tmp_path: Path) -> None:
        pupil = toy.model()
        before = toy.weights(pupil)
        run = made(tmp_path, EIGHT, pupil, peft_config=lora_config(2, 4.0))
        run.train()
        after = {
            name.removeprefix("base_model.model.").replace(".base_layer", ""): value
            for name, value in run.model.named_parameters()
        }
        assert before.keys() < after.keys()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert any(float(value.detach().abs().sum()) > 0 for name, value in after.items() if "lora_B" in name)
