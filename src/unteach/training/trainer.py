"""UnlearnTrainer: transformers.Trainer with prompt trees, a reference, and rules that say when to stop."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback, Trainer, TrainerState
from transformers.trainer_utils import TrainOutput, rotate_checkpoints

from unteach.data.prompt_format import prompt_format
from unteach.errors import ConfigError, OutputError, TrainingError
from unteach.judges import load_judge
from unteach.judges.base import Judge
from unteach.models.fingerprint import model_fingerprint
from unteach.models.loading import load_model, load_tokenizer
from unteach.models.unwrap import unwrapped
from unteach.objectives.loss import method_loss
from unteach.results.cost import Meter, flops_of
from unteach.scoring.reference import Reference, one_branch
from unteach.scoring.score import tree_limit, trees_agree, without_dropout
from unteach.scoring.trees import Tree, TreeBatch
from unteach.training.checkpoints import (
    SaveFirst,
    begin,
    complete_step,
    last_complete,
    read_state,
    unwritten,
    write_state,
)
from unteach.training.config import UnlearnConfig, checked_method, fitted
from unteach.training.curve import Curve
from unteach.training.dataset import UnlearnCollator
from unteach.training.items import needed, negative_shares, run_items
from unteach.training.original import choose_reference
from unteach.training.preconditioning import Directions, PreconditionedAdam, directions_of, hindrance, leave_embeddings
from unteach.training.sets import training_sets
from unteach.training.step_bar import StepBar
from unteach.training.stopping import Behaviour, Stop, StoppingRule, Watch, chosen_rules, restore, state_of
from unteach.training.validation import behaviour_of, kl_on


class UnlearnTrainer(Trainer):
    """Make a model unlearn the replies of `forget_dataset` while it stays itself on `retain_dataset`.

    Both take a list of `Example`, a list of rows or a `datasets.Dataset` in any of TRL's formats. `mismatch_replies`
    are the random replies (default: those of the retain rows). `forget_validation` and `retain_validation` are held
    out for the stopping rules; by default a tenth of each set, by prompt. `judge` decides in the behaviour target what
    is bad (default: a reply that repeats the known bad one).

    `train()` ends with the weights that the stopping rules chose; `stop` says why. Raises DataError and ConfigError
    for what cannot be trained on, TrainingError when the loss breaks down (the last good weights are restored first).
    """

    loss_is_scaled_for_ga = False  # the Trainer divides by the accumulation steps itself only if this is said

    def __init__(
        self,
        model: Any,
        args: UnlearnConfig | None = None,
        forget_dataset: Any = None,
        retain_dataset: Any = None,
        mismatch_replies: Sequence[str] | None = None,
        processing_class: Any = None,
        peft_config: Any = None,
        forget_validation: Any = None,
        retain_validation: Any = None,
        judge: Judge | None = None,
        callbacks: Sequence[Any] = (),
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        args = args or UnlearnConfig()
        self.method = checked_method(args, adapter=peft_config is not None or hasattr(model, "peft_config"))
        tokenizer = processing_class or load_tokenizer(model if isinstance(model, str) else model.config.name_or_path)
        model = load_model(model) if isinstance(model, str) else model
        self.original_key = model_fingerprint(model)
        if peft_config is not None:
            from peft import get_peft_model

            model = get_peft_model(model, peft_config)
        without_dropout(model)
        longest = fitted(args, model)
        self._bound = args.forget_bound or math.log(model.config.get_text_config().vocab_size)
        self.method = self.method.bounded(self._bound)
        generation = getattr(model, "generation_config", None)
        self.format = prompt_format(tokenizer, args.prompt_format, None, getattr(generation, "eos_token_id", None))
        self.sets = training_sets(
            forget_dataset,
            needed(self.method, retain_dataset, mismatch_replies),
            forget_validation,
            retain_validation,
            prompt_format=self.format,
            max_length=longest,
            hold_out=args.validation_prompts if args.stopping else 0,
            seed=args.seed,
        )
        self.notes = self.sets.notes
        self.judge = judge or load_judge("repeats")
        self.watch, self.rules = Watch(), list[StoppingRule]()
        self._plain_rows: bool | None = None
        self._tree_limit = tree_limit(model)
        self._start_counting()
        items = run_items(self.method, self.sets, args, self.format, mismatch_replies)
        self.watch.plan(args.max_steps, args.cooldown)
        super().__init__(
            model=model,
            args=args,
            data_collator=UnlearnCollator(self.format.ids.pad_id),
            train_dataset=items,
            processing_class=tokenizer,
            optimizers=optimizers,
        )
        self._ask_the_original()
        self._add_rules()
        self.remove_callback(PrinterCallback)
        self._bars = [StepBar(self.watch)] if args.progress else []
        for callback in [SaveFirst(self._save_checkpoint), *callbacks, *self._bars]:
            self.add_callback(callback)

    def _start_counting(self) -> None:
        """Start the metrics of the log and the cost at nothing."""
        self._sums: dict[str, float] = {}
        self._step_sums: dict[str, float] = {}
        self._counted, self._tokens, self._seconds = 0, 0, 0.0
        self.meter, self.curve = Meter(waiting=True), Curve()
        self._broken: str | None = None

    # ---- the original ------------------------------------------------------------------------------------------------

    def _ask_the_original(self) -> None:
        """Read from the original all that training needs of it, in the cost."""
        with self.meter.running():
            self._directions = self._preconditioner()  # first: what it refuses is refused before the original is asked
            self._share_out()
            self.reference = self._reference()
        self._reference_read = 0
        self._count_reference()

    def _reference(self) -> Reference | None:
        """Choose the cheapest reference that serves the method and the stopping rules."""
        budget = self.args.stopping and bool(self.sets.validation_normals)
        needs = (self.method, self.sets, self.train_dataset, self._validation_trees(), budget)
        return choose_reference(self.model, self.args, *needs, self.original_key)

    def _share_out(self) -> None:
        """Draw negatives the more often the likelier the original says them, if the method wants that."""
        if not self.method.by_share:
            return
        shares, read = negative_shares(self.model, self.train_dataset, self.format.ids.pad_id, self.args.progress)
        self.meter.add(forward=read)
        if self.args.world_size > 1:  # every rank must draw alike, to the last bit
            ranks = self.accelerator.reduce(torch.from_numpy(shares).to(self.args.device), "mean")
            shares = ranks.cpu().numpy()
        self.train_dataset.share_out(shares)

    def _validation_trees(self) -> list[Tree]:
        """The held-out normal rows as trees, keyed after the training rows."""
        trees = one_branch([(row.prompt_ids, row.reply_ids) for row in self.sets.validation_normals], "normal")
        return [Tree(tree.prompt_ids, tree.branches, tree.key + len(self.sets.normals)) for tree in trees]

    def _preconditioner(self) -> dict[Tensor, Directions] | None:
        """Find the directions in which steps spare the normal rows; None where they do not."""
        wanted = self.args.preconditioning
        if not (self.method.preconditioning if wanted is None else wanted):
            return None
        reason = hindrance(self.model, self.args, len(self.sets.normals), self.optimizer is not None)
        if reason and wanted:
            raise ConfigError(f"--preconditioning: {reason}; leave it out")
        if reason:
            return None
        leave_embeddings(self.model)
        rows = one_branch([(row.prompt_ids, row.reply_ids) for row in self.sets.normals], "normal")
        found, read = directions_of(self.model, rows, self.format.ids.pad_id)
        self.meter.add(forward=read)
        return found

    def create_optimizer(self, model: Any = None) -> Any:
        """Make the optimizer: the Trainer's own, or one whose steps spare the normal rows."""
        fresh, made, args = getattr(self, "optimizer", None) is None, super().create_optimizer(model), self.args
        if self._directions is None or not fresh:
            return made
        groups = [{name: group[name] for name in ("params", "weight_decay")} for group in made.param_groups]
        betas, rate = (args.adam_beta1, args.adam_beta2), float(args.learning_rate or 0.0)
        self.optimizer: Any = PreconditionedAdam(groups, self._directions, rate, betas, args.adam_epsilon)
        return self.optimizer

    # ---- stopping ----------------------------------------------------------------------------------------------------

    def _add_rules(self) -> None:
        """Put the rules on that there is something to measure for."""
        if not self.args.stopping:
            return
        kl = self._validation_kl if self.sets.validation_normals and self.reference else None
        behaviour = self._behaviour if self.sets.validation_negatives else None
        self.rules = chosen_rules(self.watch, self.args, self._bound, kl, behaviour)
        for rule in self.rules:
            self.add_callback(rule)

    def _validation_kl(self) -> float:
        assert self.reference is not None
        trees = self._validation_trees()
        kl = self._agreed(kl_on(self.model, trees, self.reference, self.format.ids.pad_id))
        self.meter.add(forward=sum(tree.tokens for tree in trees))
        self._count_reference()
        return kl

    def _count_reference(self) -> None:
        """Put what the reference has read since the last count in the cost."""
        if self.reference is not None:
            read = self.reference.tokens_read
            self.meter.add(forward=(read - self._reference_read) * self.args.world_size)
            self._reference_read = read

    def _behaviour(self) -> Behaviour:
        seen = behaviour_of(
            self.model,
            self.processing_class,
            self.sets.validation_negatives,
            self.judge,
            self.args.validation_new_tokens,
        )
        self.meter.add(forward=seen.read, generated=seen.said)
        seen = seen._replace(bad=self._agreed(seen.bad), broken=self._agreed(seen.broken))
        self.curve.saw(self.state.global_step, seen, self.meter)
        return seen

    def _agreed(self, value: float) -> float:
        """Average a metric over ranks, so that every rank decides alike."""
        if self.args.world_size == 1:
            return value
        mean = self.accelerator.reduce(torch.tensor(value, device=self.args.device, dtype=torch.float64), "mean")
        return float(mean)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Make the learning rate schedule; the default one asks the rules when the run will end, and cools down."""
        if self.lr_scheduler is not None or self.args.lr_scheduler_type != "constant_with_warmup":
            return super().create_scheduler(num_training_steps, optimizer)
        warmup = self.args.get_warmup_steps(num_training_steps)
        self.lr_scheduler: Any = LambdaLR(optimizer or self.optimizer, lambda step: self.watch.rate(step, warmup))
        return self.lr_scheduler

    @property
    def tokens_seen(self) -> int:
        """How many tokens went forward and backward so far."""
        return self.meter.tokens["backward"]

    @property
    def stop(self) -> Stop | None:
        """Why the run ended early, if it did."""
        return self.watch.stop

    # ---- one step ----------------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: dict[str, TreeBatch], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the method's loss on one batch of items and note its metrics."""
        forget, normal = inputs["forget"], inputs.get("normal")
        forget = self._as_it_scores(model, forget)
        normal = normal and self._as_it_scores(model, normal)
        loss = method_loss(model, self.method, forget, normal, self.reference)
        self._count_reference()
        self._note(loss.metrics, sum(batch.token_count for batch in (forget, normal) if batch))
        value = float(loss.value.detach())
        limit = 2 * math.log(self.model.config.get_text_config().vocab_size)
        if not math.isfinite(value):
            self._broken = f"the loss became {value}"
        elif float(loss.metrics.get("kl", 0.0)) > limit:
            self._broken = f"the KL on normal rows reached {float(loss.metrics['kl']):.1f} nats per token"
        return (loss.value, None) if return_outputs else loss.value

    def _as_it_scores(self, model: nn.Module, batch: TreeBatch) -> TreeBatch:
        """Return the batch, as plain rows where this model must be given those.

        The first batch that is not plain settles it; a window, batch by batch.
        """
        if batch.is_plain:
            return batch
        if self._plain_rows is None:
            agree, difference = trees_agree(model, batch)
            self._plain_rows = not agree
            if not agree:
                name = type(unwrapped(self.model)).__name__
                self.notes.append(
                    f"{name} does not score prompt trees as it scores plain rows (difference {difference:.2g} nats): "
                    "every reply is computed as a row of its own, which is slower and exact"
                )
        too_long = self._tree_limit is not None and batch.input_ids.shape[1] > self._tree_limit
        return batch.plain() if self._plain_rows or too_long else batch

    def _note(self, metrics: dict[str, Tensor], tokens: int) -> None:
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
            self._step_sums[name] = self._step_sums.get(name, 0.0) + float(value)
        self._counted += 1
        self._tokens += tokens
        self.meter.add(backward=tokens * self.args.world_size)
        batches = self.args.gradient_accumulation_steps
        if self._counted % batches == 0:
            self.watch.metrics = {name: self._agreed(total / batches) for name, total in self._step_sums.items()}
            self._step_sums = {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add our metrics, averaged since the last line: cross-entropies and KL in nats per token, tokens a second."""
        if self._counted:
            logs |= {name: self._agreed(total / self._counted) for name, total in self._sums.items()}
            logs["tokens_per_second"] = self._tokens * self.args.world_size / max(1e-9, self._seconds)
            logs |= self.watch.checked
            self.watch.checked = {}
            self._sums, self._counted, self._tokens, self._seconds = {}, 0, 0, 0.0
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, TreeBatch]) -> int:
        """Estimate a step's model FLOPs, forward and backward."""
        return int(flops_of(self.model, backward=sum(batch.token_count for batch in inputs.values())))

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Do one step; a loss that broke down ends the run before it reaches the weights."""
        began = time.monotonic()
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._seconds += time.monotonic() - began
        if self._agreed(float(self._broken is not None)) > 0:
            raise TrainingError(self._broken or "the loss broke down on another rank")
        return loss

    # ---- the run -----------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; `resume_from_checkpoint=True` goes on from the last complete checkpoint, or from the start.

        Afterwards the model holds the weights that the stopping rules chose.
        """
        checkpoint = self._resumed(resume_from_checkpoint)
        try:
            with self.meter.running():
                if checkpoint and self.stop:
                    result = self._ended_at(checkpoint)
                else:
                    result = super().train(resume_from_checkpoint=str(checkpoint) if checkpoint else None, **kwargs)
        except TrainingError as error:
            raise self._broken_down(error) from None
        finally:
            for bar in self._bars:
                bar.close()
        if self.stop is not None and self.stop.went_back_to is not None:
            self._go_back(self.stop.went_back_to)
        return result

    def _broken_down(self, error: TrainingError) -> TrainingError:
        """Put the last good weights back, where the rules kept any, and say so."""
        kept = "no weights were kept, since the stopping rules were off"
        if self.args.stopping:
            self._go_back(self.watch.last_good_step)
            kept = f"the weights of step {self.watch.last_good_step} were kept"
        fix = "lower --learning-rate or --forget-weight"
        return TrainingError(f"{error} at step {self.state.global_step + 1}; {kept}; {fix}")

    def _resumed(self, wanted: str | bool | None) -> Path | None:
        """Find the checkpoint to go on from and put the stopping rules' memory back."""
        if not wanted:
            return None
        directory = Path(self.args.output_dir)
        checkpoint = last_complete(directory, self.args.world_size) if wanted is True else Path(str(wanted))
        if checkpoint is None:
            return None
        if complete_step(checkpoint, self.args.world_size) is None:
            raise OutputError(f"{checkpoint}: not a complete checkpoint of such a run; name another or start again")
        state = read_state(checkpoint)
        restore(state["stopping"], self.watch, self.rules)
        self._plain_rows = state["plain_rows"]
        self.meter.restore(state["meter"])
        self.curve.restore(state["curve"])
        return checkpoint

    def _ended_at(self, checkpoint: Path) -> TrainOutput:
        """Take up a run that a rule had ended when it was cut off: nothing is left to train."""
        self._load_from_checkpoint(str(checkpoint))
        self.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        return TrainOutput(self.state.global_step, math.nan, {})

    def _go_back(self, step: int) -> None:
        """Load the weights of an earlier step; step 0 is the original."""
        self.state.best_model_checkpoint = str(Path(self.args.output_dir) / f"checkpoint-{step}")
        self._load_best_model()

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save; our own state goes in last, and only then do older checkpoints go.

        A full disk leaves no half checkpoint and says which one is valid.
        """
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if self.args.stopping:
            self.state.best_model_checkpoint = str(folder.with_name(f"checkpoint-{self.watch.last_good_step}"))
        limit, self.args.save_total_limit = self.args.save_total_limit, None  # the Trainer would delete too early
        try:
            if self.args.should_save:
                begin(folder)
            super()._save_checkpoint(model, trial)
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                rules = state_of(self.watch, self.rules)
                spent = {"meter": self.meter.state(), "curve": self.curve.state()}
                write_state(folder, {"stopping": rules, "plain_rows": self._plain_rows, **spent})
                rotate_checkpoints(str(folder.parent), limit, self.state.best_model_checkpoint)
        except (OSError, RuntimeError, SafetensorError) as error:
            raise unwritten(error, folder, self.args.world_size) from error
        finally:
            self.args.save_total_limit = limit
