"""RLHF: a reward model from pairs, SFT on good answers, then reinforcement learning against the reward model.

Source: arXiv 2203.02155; the baseline "RLHF" of arXiv 2310.10683. Needs: pairs (and with them positives and prompts).
Differs: the online stage is RLOO (arXiv 2402.14740) by TRL's RLOOTrainer, for TRL has no PPO any more; there is no
value model. The reward model starts from the original, not from the SFT model, and its pairs are of two kinds: the
given ones, and on normal prompts the normal reply over a good answer to some harmful prompt, without which declining
everything would be rewarded. The reference of the KL is the SFT model in memory (TRL would load one from disk).
"""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification, TrainerCallback
from trl import RewardConfig, RewardTrainer, RLOOConfig, RLOOTrainer
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model

from unteach.baselines.base import (
    Bench,
    Pair,
    Plain,
    Trained,
    good_rows,
    needed,
    pairs_of,
    ran,
    settings_of,
    sft_first,
    trl_fields,
    with_normals,
    without_copy,
)
from unteach.baselines.rows import Rows
from unteach.data.example import Example
from unteach.errors import ConfigError
from unteach.models.loading import lora_config
from unteach.results.cost import Meter
from unteach.training.config import default_learning_rate
from unteach.training.rows import TrainingRow

RL_RATE = 1.0
"""Peak learning rate of the online stage, times that of fine-tuning."""
BETA = 0.05
"""Weight of the KL to the SFT model in the reward."""
SCORED_AT_ONCE = 64


@dataclass(frozen=True)
class Material:
    """What the three stages are trained on."""

    pairs: list[Pair]
    validation_pairs: list[Pair]
    sft: list[TrainingRow]
    prompts: list[tuple[int, ...]]


class Rlhf(Plain):
    """Reward model, SFT, RLOO."""

    name = "rlhf"
    summary = "RLHF: SFT, a reward model, then RLOO with a KL penalty (TRL has no PPO any more)"
    source = "arXiv 2203.02155, 2402.14740"
    trl_config = RLOOConfig
    needs = "pairs: a good answer beside each bad one; normal rows beside them"
    pairs = True

    def check(self, rows: Rows, config: Any) -> None:
        """Refuse what cannot be: weights in 4 bits make no reward model."""
        if config.load_in_4bit:
            raise ConfigError("baseline rlhf: a reward model cannot be made of 4 bit weights; leave --load-in-4bit out")
        super().check(rows, config)

    def prepare(self, bench: Bench) -> Material:
        """Encode pairs, good answers and prompts."""
        if bench.form.tokenizer.eos_token_id is None:
            raise ConfigError("baseline rlhf: the tokenizer has no end of sequence, which sampling needs")
        ratio = bench.normals_per_row(1.0)
        given = bench.rows.with_good
        normals = _drawn(bench.rows.normals, round(ratio * len(given)), bench.config.seed)
        validation_normals = bench.rows.sets.normals.get("validation", [])
        pairs = pairs_of([*given, *_helpful(normals, given)], bench.form, bench.max_length, bench.notes)
        validation = [row for row in bench.rows.validation if row.good]
        validation_rows = [*validation, *_helpful(validation_normals, validation)]
        held = pairs_of(validation_rows, bench.form, bench.max_length, []) if validation_rows else []
        good = good_rows(bench)
        sft = with_normals(bench, good, ratio)
        prompts = [*dict.fromkeys(pair.prompt_ids for pair in pairs)]
        counts = {"positives": len(good), "pairs": len(given), "normal_rows": len(sft) - len(good)}
        needed(bench, **counts, prompts=len(prompts))
        return Material(pairs, held, sft, prompts)

    def train(self, bench: Bench, material: Material) -> Trained:
        """Train the reward model, tune the model, then let it learn from the rewards of its own replies."""
        reward = trained_reward(bench, material.pairs)
        meter = Meter()
        right = ranked(reward, material.validation_pairs, bench.form.ids.pad_id)
        read = sum(pair.tokens for pair in material.validation_pairs)
        bench.cost.append(meter.cost(reward, bench.arm, "evaluating the reward model", read))
        if right is not None:
            bench.notes.append(
                f"the reward model ranks {right:.1%} of {len(material.validation_pairs)} held-out pairs rightly (chance: 50%)"
            )
        model, peft = sft_first(bench, material.sft)
        trainer = reinforced(bench, model, peft, reward, material.prompts)
        curve = [line["reward"] for line in trainer.state.log_history if "reward" in line]
        tenth = max(1, len(curve) // 10)
        first, last = sum(curve[:tenth]) / tenth, sum(curve[-tenth:]) / tenth
        message = f"{bench.config.rl_steps} steps of RLOO took the mean reward from {first:.2f} to {last:.2f}"
        return Trained(without_copy(trainer), trainer.state.global_step, message)


def _drawn(rows: Sequence[Example], count: int, seed: int) -> list[Example]:
    return random.Random(f"rlhf:{seed}").sample(list(rows), min(count, len(rows)))


def _helpful(normals: Sequence[Example], answered: Sequence[Example]) -> list[Example]:
    """Make pairs on normal prompts: the normal reply is better than a good answer to a harmful prompt."""
    return [
        Example(row.turns, answered[place % len(answered)].good or "", where=row.where, good=row.reply)
        for place, row in enumerate(normals)
        if answered
    ]


# ---- the reward model ------------------------------------------------------------------------------------------------


def reward_model(model: Any, seed: int) -> Any:
    """Make a reward model of a causal one in memory: its body, a new head. Raises ConfigError where there is none."""
    config = copy.deepcopy(model.config)
    config.num_labels = 1
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            made = AutoModelForSequenceClassification.from_config(config, dtype=model.dtype)
        except ValueError:
            raise ConfigError(
                f"baseline rlhf: Transformers has no reward model of the kind {config.model_type}; choose dpo"
            ) from None
    made.base_model.load_state_dict(model.base_model.state_dict())
    return made.to(model.device)


def trained_reward(bench: Bench, pairs: Sequence[Pair]) -> Any:
    """Train a reward model on pairs; returns it in evaluation mode."""
    config = bench.config
    model = reward_model(bench.model, config.seed)
    settings = settings_of(bench, "reward model", None, last=False)
    fields = trl_fields(
        settings, model, lora=config.lora, num_train_epochs=config.reward_epochs, max_length=None, disable_dropout=True
    )
    data = [
        {"chosen_ids": [*pair.prompt_ids, *pair.chosen_ids], "rejected_ids": [*pair.prompt_ids, *pair.rejected_ids]}
        for pair in pairs
    ]
    peft = None
    if config.lora:
        peft = lora_config(config.lora_rank, config.lora_alpha, 0.0, config.lora_targets, bench.model)
        peft.task_type, peft.modules_to_save = "SEQ_CLS", ["score"]
    tokens = sum(pair.tokens for pair in pairs)
    trainer = ran(
        bench,
        "reward model",
        lambda callbacks: RewardTrainer(
            model=model,
            args=RewardConfig(**fields),
            train_dataset=Dataset.from_list(data),
            processing_class=bench.form.tokenizer,
            peft_config=peft,
            callbacks=callbacks,
        ),
        lambda done: {"backward": round(tokens * done.state.epoch)},
        watch=False,
    )
    trained = trainer.model
    return (trained.merge_and_unload() if config.lora else trained).eval()


@torch.no_grad()
def rewards_of(reward: Any, rows: Sequence[Sequence[int]], pad_id: int) -> list[float]:
    """Return the reward of each row of prompt and reply."""
    scores: list[float] = []
    for start in range(0, len(rows), SCORED_AT_ONCE):
        batch = rows[start : start + SCORED_AT_ONCE]
        width = max(map(len, batch))
        ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in batch], device=reward.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=reward.device)
        scores += reward(input_ids=ids, attention_mask=mask).logits[:, 0].float().tolist()
    return scores


def ranked(reward: Any, pairs: Sequence[Pair], pad_id: int) -> float | None:
    """Return the share of pairs whose better reply gets the higher reward; None without pairs."""
    if not pairs:
        return None
    better = rewards_of(reward, [pair.prompt_ids + pair.chosen_ids for pair in pairs], pad_id)
    worse = rewards_of(reward, [pair.prompt_ids + pair.rejected_ids for pair in pairs], pad_id)
    return sum(first > second for first, second in zip(better, worse, strict=True)) / len(pairs)


# ---- reinforcement learning ------------------------------------------------------------------------------------------


class OnlineTrainer(RLOOTrainer):
    """TRL's RLOOTrainer on prompts of token ids, with the reference in memory, counting tokens as it goes.

    A prompt is named by its number in `prompt_ids`. `reference` None is an adapter's: TRL keeps a copy of it.
    """

    def __init__(self, prompt_ids: Sequence[tuple[int, ...]], reference: Any, beta: float, **settings: Any) -> None:
        self.known_prompts = prompt_ids
        self.read, self.said = 0, 0
        names = Dataset.from_list([{"prompt": str(number)} for number in range(len(prompt_ids))])
        super().__init__(train_dataset=names, **settings)
        if reference is not None:  # TRL takes none: it would load the model's directory again
            disable_dropout_in_model(reference)
            add_fused_lm_head(reference, temperature=self.temperature)
            self.ref_model = self.accelerator.prepare_model(reference, evaluation_mode=True)
        self.beta = beta

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        return [list(self.known_prompts[int(name)]) for name in prompts], None, {}

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        completions = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        self.read += sum(map(len, prompt_ids))
        self.said += sum(map(len, completions))
        return completions


def reinforced(bench: Bench, model: Any, peft: Any, reward: Any, prompts: Sequence[tuple[int, ...]]) -> OnlineTrainer:
    """Learn from the rewards of sampled replies, held to the model as it is now by KL."""
    config = bench.config
    pad = bench.form.ids.pad_id
    settings = settings_of(bench, "rl", RL_RATE * default_learning_rate(bench.model, config.lora))
    fields = trl_fields(
        settings,
        bench.model,
        lora=config.lora,
        max_steps=config.rl_steps,
        per_device_train_batch_size=config.batch_size * config.generations,
        num_generations=config.generations,
        max_completion_length=config.max_new_tokens,
        temperature=1.0,
        beta=(config.beta or BETA) if config.lora else 0.0,
        disable_dropout=True,
    )

    def rewarded(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        rows = [[*known[int(name)], *said] for name, said in zip(prompts, completion_ids, strict=True)]
        return rewards_of(reward, rows, pad)

    def make(callbacks: list[TrainerCallback]) -> OnlineTrainer:
        return OnlineTrainer(
            known,
            None if config.lora else copy.deepcopy(model),
            config.beta or BETA,
            model=model,
            args=RLOOConfig(**fields),
            reward_funcs=rewarded,
            processing_class=bench.form.tokenizer,
            peft_config=peft,
            callbacks=callbacks,
        )

    known = list(prompts)
    trainer: OnlineTrainer = ran(bench, "rl", make, _taken)
    return trainer


def _taken(trainer: OnlineTrainer) -> dict[str, int]:
    """What reinforcement learning takes: prompts are read to generate; replies are then scored by three models."""
    both = trainer.read + trainer.said
    return {"forward": trainer.read + 3 * both, "backward": both, "generated": trainer.said}


baselines = (Rlhf(),)
