"""RLHF: a reward model from pairs, SFT on good answers, then reinforcement learning against the reward model.

Source: arXiv 2203.02155; the baseline "RLHF" of arXiv 2310.10683. Needs: pairs (and with them positives and prompts).
Differs: the online stage is RLOO (arXiv 2402.14740) by TRL's RLOOTrainer, since TRL has no PPO any more; there is no
value model. The reward model starts from the original, not from the SFT model, and its pairs are of two kinds: the
given ones, and on normal prompts the normal reply over a good answer to some harmful prompt, without which declining
everything would be rewarded. The reference of the KL is the SFT model in memory (TRL would load one from disk).
"""

import copy
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, TrainerCallback
from trl import RewardConfig, RewardTrainer, RLOOConfig, RLOOTrainer
from trl.trainer.reward_trainer import DataCollatorForPreference
from trl.trainer.utils import add_fused_lm_head, disable_dropout_in_model

from unteach.baselines.base import Baseline
from unteach.baselines.baseline_run import BaselineRun
from unteach.baselines.config import BaselineConfig
from unteach.baselines.material import ReplyPair, add_normals, encode_good_answers, encode_pairs
from unteach.baselines.rows import BaselineRows
from unteach.baselines.stages import make_trainer, train_stage, tune_first
from unteach.data.example import Example
from unteach.errors import ConfigError
from unteach.pipeline.original import adapter_settings
from unteach.pipeline.train import Trained
from unteach.results.cost import Meter
from unteach.training.rows import TrainingRow

BETA = 0.05
"""Weight of the KL to the SFT model in the reward."""
SCORED_AT_ONCE = 64


@dataclass(frozen=True)
class RlhfMaterial:
    """What the three stages are trained on."""

    pairs: list[ReplyPair]
    validation_pairs: list[ReplyPair]
    sft: list[TrainingRow]
    prompts: list[tuple[int, ...]]


class Rlhf(Baseline):
    """Reward model, SFT, RLOO."""

    name = "rlhf"
    summary = "RLHF: SFT, a reward model, then RLOO with a KL penalty (TRL has no PPO any more)"
    source = "arXiv 2203.02155, 2402.14740"
    trl_config = RLOOConfig
    needs = "pairs: a good answer beside each bad one; normal rows beside them"
    pairs = True
    alone = "each rank would draw other replies to learn from, so more ranks would learn something else"

    def check(self, rows: BaselineRows, config: BaselineConfig) -> None:
        """Refuse weights in 4 bits, of which no reward model can be made, and rows without pairs."""
        if config.load_in_4bit:
            raise ConfigError("baseline rlhf: a reward model cannot be made of 4 bit weights; leave --load-in-4bit out")
        super().check(rows, config)

    def prepare(self, run: BaselineRun) -> RlhfMaterial:
        """Encode pairs, good answers and prompts."""
        if run.original.tokenizer.eos_token_id is None:
            raise ConfigError("baseline rlhf: the tokenizer has no end of sequence, which sampling needs")
        given, known = run.rows.with_good, run.rows.normals
        count = min(round(run.normals_per_row * len(given)), len(known))
        normals = random.Random(f"rlhf:{run.config.seed}").sample(known, count)
        pairs = encode_pairs(run, [*given, *_pairs_on_normal_prompts(normals, given)], run.notes)
        validation = [row for row in run.rows.validation if row.good]
        validation += _pairs_on_normal_prompts(run.rows.sets.normals.get("validation", []), validation)
        validation_pairs = encode_pairs(run, validation, []) if validation else []
        good = encode_good_answers(run)
        sft = add_normals(run, good)
        prompts = [*dict.fromkeys(pair.prompt_ids for pair in pairs)]
        counts = {"positives": len(good), "pairs": len(given), "normal_rows": len(sft) - len(good)}
        run.note_data(**counts, prompts=len(prompts))
        return RlhfMaterial(pairs, validation_pairs, sft, prompts)

    def train(self, run: BaselineRun, material: RlhfMaterial) -> Trained:
        """Train the reward model, tune the model, then let it learn from the rewards of its own replies."""
        reward = train_reward_model(run, material.pairs)
        meter = Meter()
        right = measure_ranking(reward, material.validation_pairs)
        read = sum(pair.tokens for pair in material.validation_pairs)
        run.cost.append(meter.cost(reward, run.arm, "evaluating the reward model", read))
        if right is not None:
            count = len(material.validation_pairs)
            run.notes.append(f"the reward model ranks {right:.1%} of {count} held-out pairs rightly (chance: 50%)")
        model, peft = tune_first(run, material.sft)
        trainer = reinforce(run, model, peft, reward, material.prompts)
        curve = [line["reward"] for line in trainer.state.log_history if "reward" in line]
        tenth = max(1, len(curve) // 10)
        first, last = sum(curve[:tenth]) / tenth, sum(curve[-tenth:]) / tenth
        message = f"{run.config.rl_steps} steps of RLOO took the mean reward from {first:.2f} to {last:.2f}"
        return run.trained(trainer, message)


def _pairs_on_normal_prompts(normals: Sequence[Example], answered: Sequence[Example]) -> list[Example]:
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


def train_reward_model(run: BaselineRun, pairs: Sequence[ReplyPair]) -> Any:
    """Train a reward model on pairs, and return it in evaluation mode."""
    config = run.config
    model = reward_model(run.original.model, config.seed)
    data = [
        {"chosen_ids": [*pair.prompt_ids, *pair.chosen_ids], "rejected_ids": [*pair.prompt_ids, *pair.rejected_ids]}
        for pair in pairs
    ]
    peft = adapter_settings(config, run.original.model)
    if peft is not None:
        peft.task_type, peft.modules_to_save = "SEQ_CLS", ["score"]
    tokens = sum(pair.tokens for pair in pairs)
    pad = padding_for([row[kind] for row in data for kind in ("chosen_ids", "rejected_ids")])

    def make() -> Any:
        trainer = make_trainer(
            run,
            "reward model",
            partial(RewardTrainer, data_collator=DataCollatorForPreference(pad)),
            RewardConfig,
            data,
            model=model,
            peft=peft,
            last=False,
            num_train_epochs=config.reward_epochs,
            max_length=None,
        )
        trainer.add_callback(PadWith(pad))
        return trainer

    trainer = train_stage(
        run,
        "reward model",
        make,
        lambda trainer: {"backward": round(tokens * trainer.state.epoch)},
        validated=False,
    )
    trained = trainer.model
    return (trained.merge_and_unload() if config.lora else trained).eval()


class PadWith(TrainerCallback):
    """Tells the model which token its rows are padded with, once the trainers have told it the tokenizer's."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Set it."""
        model.config.get_text_config().pad_token_id = self.pad


def padding_for(rows: Sequence[Sequence[int]]) -> int:
    """Return a token id to pad rows with: the first that ends none of them.

    A reward is read at the last token that is not padding. Padded with EOS, as many tokenizers say, a row's own EOS
    would not be seen, and a reply that ends would get the reward of one that goes on.
    """
    ends = {row[-1] for row in rows}
    return next(token for token in range(len(ends) + 1) if token not in ends)


@torch.no_grad()
def rewards_of(reward: Any, rows: Sequence[Sequence[int]]) -> list[float]:
    """Return the reward of each row of prompt and reply, its end of sequence included where it has one."""
    scores: list[float] = []
    for start in range(0, len(rows), SCORED_AT_ONCE):
        batch = rows[start : start + SCORED_AT_ONCE]
        width, pad_id = max(map(len, batch)), padding_for(batch)
        reward.config.get_text_config().pad_token_id = pad_id
        ids = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in batch], device=reward.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=reward.device)
        scores += reward(input_ids=ids, attention_mask=mask).logits[:, 0].float().tolist()
    return scores


def measure_ranking(reward: Any, pairs: Sequence[ReplyPair]) -> float | None:
    """Return the share of pairs whose better reply gets the higher reward; None without pairs."""
    if not pairs:
        return None
    better = rewards_of(reward, [pair.prompt_ids + pair.chosen_ids for pair in pairs])
    worse = rewards_of(reward, [pair.prompt_ids + pair.rejected_ids for pair in pairs])
    return sum(first > second for first, second in zip(better, worse, strict=True)) / len(pairs)


# ---- reinforcement learning ------------------------------------------------------------------------------------------


class OnlineTrainer(RLOOTrainer):
    """TRL's RLOOTrainer on prompts of token ids, with the reference in memory, counting tokens as it goes.

    A row's `prompt` is its number in `prompt_ids`, as text. `reference` is None for an adapter, of which TRL keeps a
    copy.
    """

    def __init__(self, prompt_ids: Sequence[tuple[int, ...]], reference: Any, beta: float, **settings: Any) -> None:
        self.known_prompts = prompt_ids
        self.read, self.said = 0, 0
        super().__init__(**settings)
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


def reinforce(
    run: BaselineRun, model: Any, peft: Any, reward: Any, prompts: Sequence[tuple[int, ...]]
) -> OnlineTrainer:
    """Learn from the rewards of sampled replies; a KL penalty holds the result near the model as it is now."""
    config = run.config
    known, beta = list(prompts), config.beta or BETA

    def rewarded(prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        rows = [[*known[int(name)], *said] for name, said in zip(prompts, completion_ids, strict=True)]
        return rewards_of(reward, rows)

    def make() -> OnlineTrainer:
        reference = None if config.lora else copy.deepcopy(model)
        trainer: OnlineTrainer = make_trainer(
            run,
            "rl",
            partial(OnlineTrainer, known, reference, beta, reward_funcs=rewarded),
            RLOOConfig,
            [{"prompt": str(number)} for number in range(len(known))],
            model=model,
            peft=peft,
            max_steps=config.rl_steps,
            per_device_train_batch_size=config.batch_size * config.generations,
            num_generations=config.generations,
            max_completion_length=config.max_new_tokens,
            temperature=1.0,
            beta=beta if config.lora else 0.0,
        )
        return trainer

    trainer: OnlineTrainer = train_stage(run, "rl", make, _count_tokens)
    return trainer


def _count_tokens(trainer: OnlineTrainer) -> dict[str, int]:
    """Count the tokens so far: prompts are read to generate; three models then score prompts and replies."""
    both = trainer.read + trainer.said
    return {"forward": trainer.read + 3 * both, "backward": both, "generated": trainer.said}


baselines = (Rlhf(),)
