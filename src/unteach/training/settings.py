"""UnlearnSettings: what unlearning adds to the Trainer's arguments, and the defaults that it changes.

This file imports nothing slow, so that the command line can show its help at once.
"""

from dataclasses import dataclass, field
from typing import Any

REFERENCES = ("auto", "adapter_off", "cached", "frozen")
COMPILED = ("layers", "flex")


@dataclass
class UnlearnSettings:
    """The fields that `UnlearnConfig` adds to those of `transformers.TrainingArguments`, or whose defaults it changes.

    Weights and method parameters left at None take the method's published values.
    """

    output_dir: str = field(default="unlearned", metadata={"help": "Where checkpoints go."})
    method: str = field(default="rto", metadata={"help": "Which loss; see docs/objectives.md."})
    forget_weight: float | None = field(default=None, metadata={"help": "Weight of the terms on negatives."})
    mismatch_weight: float | None = field(default=None, metadata={"help": "Weight of mismatch and template terms."})
    retain_weight: float | None = field(default=None, metadata={"help": "Weight of the terms on normal rows."})
    decline_margin: float | None = field(
        default=None,
        metadata={"help": "How sure it must be to decline, in nats; only `template` has one: 0.75."},
    )
    mismatch_samples: int = field(default=5, metadata={"help": "Random replies to each forget prompt (K)."})
    normals_per_negative: int | None = field(
        default=None, metadata={"help": "Normal rows to each forget row (R); None: by method, 3 or 8."}
    )
    template: str = field(
        default="I cannot assist with this request.", metadata={"help": "The fixed answer of the template methods."}
    )
    beta: float | None = field(default=None, metadata={"help": "β of NPO, SimNPO and WGA."})
    delta: float = field(default=0.0, metadata={"help": "Margin δ of SimNPO, nats per token."})
    prompt_format: str = field(default="auto", metadata={"help": "auto, plain or chat."})
    template_arg: dict[str, Any] = field(
        default_factory=dict, metadata={"help": "Argument of the chat template: enable_thinking=false."}
    )
    system: str | None = field(default=None, metadata={"help": "System message for dialogues that have none."})
    template_date: str | None = field(
        default=None, metadata={"help": "Day (YYYY-MM-DD) for templates that ask for today's date."}
    )
    max_length: int | None = field(default=None, metadata={"help": "Longest prompt + reply, tokens."})
    train_layers: float | None = field(
        default=None, metadata={"help": "Share of the layers, from the top, that is trained; None: all."}
    )
    reference: str = field(default="auto", metadata={"help": "auto, adapter_off, cached or frozen."})
    preconditioning: bool | None = field(
        default=None, metadata={"help": "Precondition steps to spare normal rows; None: by method, where possible."}
    )
    disruption: float | None = field(
        default=None,
        metadata={"help": "KL on validation normals up to which repselect moves; None: kl_budget, or 0.1 of it."},
    )
    collapse: str = field(
        default="quadratic", metadata={"help": "How repselect collapses components: soft, hard or quadratic."}
    )
    collapse_of: str = field(
        default="normals", metadata={"help": "Of which gradient: that of the normals or of the negatives."}
    )
    collapse_sides: str = field(default="both", metadata={"help": "Where it does: both, input, output or none."})
    components: int | None = field(
        default=None, metadata={"help": "Components of a matrix that it collapses; None: 1 for 8 of its width."}
    )
    elicitation_rate: float = field(
        default=0.01, metadata={"help": "Rate at which its LoRA learns the bad replies first; 0: it does not."}
    )
    forget_bound: float | None = field(
        default=None, metadata={"help": "Forget cross-entropy that counts as forgotten, nats per token; None: ln(V)."}
    )
    forget_hold: int = field(default=3, metadata={"help": "Steps in a row over the forget bound that are a jump."})
    forget_tail: float = field(
        default=4.0, metadata={"help": "How many times the steps up to the jump training still goes on."}
    )
    kl_budget: float = field(
        default=0.1, metadata={"help": "Most KL of the kept weights, on validation normals, nats per token."}
    )
    """At 0.1 a token's probability is, in the geometric mean, 10 % lower than the original's. Runs that kept 96 % or
    more of the right answers ended at 0.0001 to 0.05, one that lost 18 % of them at 0.18 (docs/results.md)."""
    validation_steps: int = field(default=20, metadata={"help": "Steps between validations; adapters on harm: 400."})
    validation_prompts: int = field(
        default=128, metadata={"help": "Prompts held out to validate on: half A at each validation, half B at the end."}
    )
    validation_new_tokens: int = field(default=48, metadata={"help": "Longest reply to a validation prompt, tokens."})
    target_rate: float = field(default=0.01, metadata={"help": "Share of bad replies at which to stop."})
    target_margin: float = field(
        default=0.1, metadata={"help": "How far the share's 95 % interval may reach above --target-rate."}
    )
    broken_limit: float = field(
        default=0.02, metadata={"help": "How far the share of blank or gibberish replies may exceed the original's."}
    )
    cooldown: float = field(default=0.4, metadata={"help": "Share of the run over which the learning rate falls to 0."})
    patience: int = field(default=2, metadata={"help": "Validations in a row that a rule takes to decide."})
    stopping: bool = field(default=True, metadata={"help": "Whether stopping rules may end the run."})
    compile: str | None = field(
        default=None,
        metadata={"help": "Steps by torch.compile: layers, or flex: on a GPU, flex attention too."},
    )
    progress: bool = field(default=True, metadata={"help": "Whether to show a progress bar."})

    learning_rate: float | None = field(default=None, metadata={"help": "None: chosen from the model's width."})
    max_steps: int = field(default=120, metadata={"help": "Most optimizer steps."})
    per_device_train_batch_size: int = field(default=8, metadata={"help": "Forget rows per device and step."})
    lr_scheduler_type: str = field(default="constant_with_warmup", metadata={"help": "Learning rate schedule."})
    warmup_steps: float = field(default=10, metadata={"help": "Steps of warm-up."})
    logging_steps: float = field(default=1, metadata={"help": "Steps between log lines."})
    save_strategy: str = field(default="steps", metadata={"help": "When to save beside the stopping rules."})
    save_steps: float = field(default=100, metadata={"help": "Steps between checkpoints beside the good ones."})
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept; the last good one always is."})
    weight_decay: float = field(default=0.0, metadata={"help": "Weight decay."})
    logging_nan_inf_filter: bool = field(default=False, metadata={"help": "NaN must be seen, not averaged away."})
    dataloader_pin_memory: bool = field(default=False, metadata={"help": "Batches are small; pinning gains nothing."})
    remove_unused_columns: bool = field(default=False, metadata={"help": "Items are trees, not columns."})
    disable_tqdm: bool | None = field(default=True, metadata={"help": "We show our own progress bar."})
    train_sampling_strategy: str = field(default="sequential", metadata={"help": "Items are shuffled by seed."})
    ddp_broadcast_buffers: bool | None = field(default=False, metadata={"help": "Two forwards share one backward."})
