"""UnlearnTrainer: transformers.Trainer with prompt trees, a reference, and rules that say when to stop."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import PrinterCallback

from unteach.data.encoded import Encoded
from unteach.data.prompt_format import TemplateSettings, prompt_format
from unteach.errors import TrainingError
from unteach.judges import load_judge
from unteach.judges.base import Judge
from unteach.models.adapter import add_adapter
from unteach.models.fingerprint import model_fingerprint
from unteach.models.layers import freeze_below, upper_layers
from unteach.models.loading import load_model, load_tokenizer
from unteach.models.ranks import totals
from unteach.models.reply import named_end
from unteach.models.vocabulary import embedding_rows
from unteach.objectives.loss import method_loss
from unteach.progress import track
from unteach.results.cost import Meter, flops_of
from unteach.scoring.compiled import Compiled
from unteach.scoring.lower import LowerStates
from unteach.scoring.reference import Reference, choose_reference
from unteach.scoring.trees import Tree, TreeBatch, reply_trees
from unteach.training.behaviour import Behaviour
from unteach.training.checkpoints import SaveFirst
from unteach.training.config import UnlearnConfig, choose_method, default_learning_rate
from unteach.training.curve import Curve
from unteach.training.data import TrainingData, encoded_rows, halves, longest_row, training_data
from unteach.training.dataset import UnlearnCollator, items_per_step, require_retain, run_items
from unteach.training.original import compared_rows, negative_shares, validation_rows
from unteach.training.preconditioning import (
    Directions,
    PreconditionedAdam,
    directions_of,
    freeze_embeddings,
    is_preconditioned,
)
from unteach.training.restored import in_float32, only_weights_change, precision_notes, trains_half_precision
from unteach.training.resumable import ResumableTrainer
from unteach.training.shortcuts import Shortcuts
from unteach.training.step_bar import StepBar
from unteach.training.step_metrics import StepMetrics
from unteach.training.stopping import rate
from unteach.training.validation import behaviour_of, kl_on, loss_on
from unteach.training.watch import Watch, limits_of


class UnlearnTrainer(ResumableTrainer):
    """Make a model unlearn the replies of `forget_dataset` while it stays itself on `retain_dataset`.

    Each dataset is a list of `Example`, a list of rows or a `datasets.Dataset` in any of TRL's formats; or
    `forget_dataset` alone is a `TrainingData`, which holds all rows as token ids. `mismatch_replies` are the random
    replies of the mismatch methods (default: those of the retain rows). `forget_validation` and `retain_validation` are
    for the stopping rules (default: held out from each set). `judge` says which replies to validation prompts
    are bad (default: those that repeat the known bad one). `eval_dataset` is a dataset, or a dictionary of datasets, of
    which `evaluate()` measures the loss (default: it measures the validation rows).

    The constructor runs no model and leaves `args` as they are: `self.args` is a copy with unset values filled in.
    `train()` ends with the weights that the stopping rules chose, and changes nothing else about the model; `stop` says
    why a rule ended it. Raises DataError and ConfigError for what cannot be trained on, and TrainingError when the loss
    breaks down (the last good weights are put back first).
    """

    control: Any
    loss_is_scaled_for_ga = False  # makes the Trainer divide by the accumulation steps

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
        eval_dataset: Any = None,
        data_collator: Any = None,
        judge: Judge | None = None,
        callbacks: Sequence[Any] = (),
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        args = copy.copy(args) if args else UnlearnConfig()
        method = choose_method(args, adapter=peft_config is not None or hasattr(model, "peft_config"))
        tokenizer = processing_class or load_tokenizer(model if isinstance(model, str) else model.config.name_or_path)
        model = load_model(model) if isinstance(model, str) else model
        given = forget_dataset if isinstance(forget_dataset, TrainingData) else None
        self.original_key = given.key if given and given.key else model_fingerprint(model)
        model = model if peft_config is None else add_adapter(model, peft_config, args.seed)
        args.max_length = longest_row(args.max_length, model)
        if args.train_layers is not None:
            upper_layers(model, args.train_layers)  # raises
        if args.learning_rate is None:
            args.learning_rate = default_learning_rate(model, hasattr(model, "peft_config"), method.rate)
        self._bound = args.forget_bound or math.log(model.config.get_text_config().vocab_size)
        self.method = method.bounded(self._bound)
        if given is None:
            require_retain(self.method, retain_dataset, mismatch_replies)
            form = prompt_format(tokenizer, args.prompt_format, named_end(model), TemplateSettings.of(args))
            form.ids.rows = embedding_rows(model)
            rows = (forget_dataset, retain_dataset, forget_validation, retain_validation)
            given = training_data(*rows, form, args, self.original_key)
        self.data, self.notes = given, [*given.notes, *precision_notes(model)]
        self.judge = judge or load_judge("repeats")
        self._start_state(model)
        self._evaluated = self._encode_evaluated(eval_dataset, args.max_length)
        items = run_items(self.method, self.data, args, mismatch_replies)
        args.max_steps = len(items) // items_per_step(args)
        measures = self._measures(args.seed) if args.stopping else None
        self.watch = Watch(limits_of(args, self._bound, self.data), measures)
        with only_weights_change(model):  # the Trainer sets `use_cache`
            super().__init__(
                model=model,
                args=args,
                data_collator=data_collator or UnlearnCollator(self.data.form.ids.pad_id),
                train_dataset=items,
                eval_dataset=eval_dataset or self.data.validation_normals or None,
                processing_class=tokenizer,
                optimizers=optimizers,
            )
        self._preconditioned = is_preconditioned(
            model, args, self.method.preconditioning, len(self.data.normals), self.optimizer is not None
        )
        self._metrics = StepMetrics(self._agreed, args.gradient_accumulation_steps, args.world_size)
        self._add_callbacks(callbacks)

    def _add_callbacks(self, callbacks: Sequence[Any]) -> None:
        """Add the user's callbacks, the rules (which see an end that these set), the first saving and the bar."""
        self.remove_callback(PrinterCallback)
        self._bars = [StepBar(self.watch)] if self.args.progress else []
        for callback in [*callbacks, self.watch, SaveFirst(self._save_checkpoint), *self._bars]:
            self.add_callback(callback)

    def _start_state(self, model: Any) -> None:
        """Start what changes while the run goes on."""
        self.meter, self.curve = Meter(waiting=True), Curve()
        self._validation_rows = validation_rows(self.data)
        self.shortcuts = Shortcuts(model, self.notes)
        self._broken: str | None = None
        self._reference: Reference | None = None
        self._reference_read = 0
        self._original_was_read = False
        self._directions: dict[Tensor, Directions] | None = None

    # ---- the original ------------------------------------------------------------------------------------------------

    def read_original(self) -> None:
        """Read all that training needs from the original, before its weights move; `train()` begins with this.

        This settles how often each negative is drawn, the directions of the preconditioner, and the reference.
        """
        if self._original_was_read:
            return
        self._original_was_read, pad = True, self.data.form.ids.pad_id
        if self._preconditioned:
            normals = reply_trees("normals", [row.ids for row in self.data.normals], "normal")
            self._directions, read = directions_of(self.model, normals, pad)
            self.meter.add(forward=read)
        if self.method.draws_by_likelihood:
            shares = self.data.shares
            if shares is None:
                shares, read = negative_shares(self.model, self.train_dataset, pad, self.args.progress)
                self.meter.add(forward=read)
            self.train_dataset.share_out(shares)
        self._count_reference(self.reference)

    @property
    def reference(self) -> Reference | None:
        """The original that the method and the stopping rules compare with; None where nothing does.

        It is made at the first use, which must be before the weights move; `train()` takes care of that.
        """
        validated = self._validation_rows if self.args.stopping else []
        if not (self.method.reads_kl or self.method.reads_reference or validated):
            return None
        if self._reference is None:

            def rows() -> list[Tree]:
                evaluated = [row for rows in self._evaluated.values() for row in rows]
                return [*validated, *compared_rows(self.method, self.data, self.train_dataset), *evaluated]

            with (
                self.accelerator.autocast(),  # in the precision of training, or KL would not begin at 0
                track("reference", self.args.progress) as progress,
            ):
                self._reference = choose_reference(
                    self.model, self.args.reference, rows, self.original_key, progress, self.shortcuts.lower
                )
        return self._reference

    def create_optimizer(self, model: Any = None) -> Any:
        """Make the optimizer: the Trainer's own, or one whose steps are preconditioned."""
        fresh, made, args = getattr(self, "optimizer", None) is None, super().create_optimizer(model), self.args
        if self._directions is None or not fresh:
            return made
        groups = [{name: group[name] for name in ("params", "weight_decay")} for group in made.param_groups]
        betas, rate = (args.adam_beta1, args.adam_beta2), float(args.learning_rate or 0.0)
        self.optimizer: Any = PreconditionedAdam(groups, self._directions, rate, betas, args.adam_epsilon)
        return self.optimizer

    def _count_reference(self, reference: Reference | None) -> None:
        """Add the tokens that the reference has read since the last count to the cost."""
        if reference is not None:
            read = reference.tokens_read - self._reference_read
            self.meter.add(forward=totals(read)[0] if reference.on_every_rank else read)
            self._reference_read += read

    # ---- stopping ----------------------------------------------------------------------------------------------------

    def _measures(self, seed: int) -> dict[str, Callable[[], Any]]:
        """Return what the stopping rules measure: the KL, and the replies to each half of the validation prompts."""
        a, b = halves(self.data.validation_negatives, seed)
        return {"kl": self._validation_kl, "a": partial(self._validate, a, curve=True), "b": partial(self._validate, b)}

    def _validation_kl(self) -> float:
        reference, rows = self.reference, self._validation_rows
        assert reference is not None
        kl = kl_on(self.model, rows, reference, self.data.form.ids.pad_id)
        self.meter.add(forward=sum(row.tokens for row in rows))
        self._count_reference(reference)
        return kl

    def _validate(self, negatives: Sequence[Encoded], curve: bool = False) -> Behaviour:
        """Judge the model's replies to validation negatives, at its cost, and add them to the `curve`."""
        seen = self._replies(negatives)
        self.meter.add(forward=seen.read, generated=seen.said)
        if curve and self.state.global_step:
            self.curve.saw(self.state.global_step, seen, self.meter)
        return seen

    def _replies(self, negatives: Sequence[Encoded]) -> Behaviour:
        """Judge the model's replies to negatives, as it is now."""
        return behaviour_of(self.model, self.data.form, negatives, self.judge, self.args.validation_new_tokens)

    def _agreed(self, value: float) -> float:
        """Average a metric over ranks, so that every rank decides alike."""
        if self.args.world_size == 1:
            return value
        told = torch.tensor(value, device=self.args.device, dtype=torch.float64)
        return float(self.accelerator.reduce(told, "mean"))

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Make the learning rate schedule; the default one cools down before the end that the rules have set."""
        if self.lr_scheduler is not None or self.args.lr_scheduler_type != "constant_with_warmup":
            return super().create_scheduler(num_training_steps, optimizer)
        warmup, moved = self.args.get_warmup_steps(num_training_steps), optimizer or self.optimizer
        self.lr_scheduler: Any = LambdaLR(moved, lambda step: rate(self.watch.state, step, warmup))
        return self.lr_scheduler

    def _precise(self) -> AbstractContextManager[None]:
        """Hold weights that are trained in full in float32, where they came in half precision."""
        return in_float32(self.model) if self.whole and trains_half_precision(self.model) else nullcontext()

    # ---- one step ----------------------------------------------------------------------------------------------------

    def compute_loss(
        self, model: Any, inputs: dict[str, TreeBatch], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the method's loss on one batch of items and note its metrics.

        Raises TrainingError for a loss that broke down, which ends the run before the weights change.
        """
        forget, normal = inputs["forget"], inputs.get("normal")
        forget = self.shortcuts.laid_out(model, forget)
        normal = normal and self.shortcuts.laid_out(model, normal)
        reference = self.reference
        self.shortcuts.try_lower(model, forget, reference)
        self.shortcuts.start_compiled(model, forget)
        loss = method_loss(model, self.method, forget, normal, reference, self.shortcuts.lower)
        self._count_reference(reference)
        tokens = sum(batch.token_count for batch in (forget, normal) if batch)
        read, kept = totals(tokens, self.shortcuts.skipped())
        self.meter.add(backward=read, kept=kept)
        self.watch.metrics = self._metrics.add(loss.metrics, tokens) or self.watch.metrics
        value = float(loss.value.detach())
        limit = 2 * math.log(self.model.config.get_text_config().vocab_size)
        if not math.isfinite(value):
            self._broken = f"the loss became {value}"
        elif float(loss.metrics.get("kl", 0.0)) > limit:
            self._broken = f"the KL on normal rows reached {float(loss.metrics['kl']):.1f} nats per token"
        if self._agreed(float(self._broken is not None)) > 0:  # now, since DeepSpeed steps in the backward pass
            raise TrainingError(self._broken or "the loss broke down on another rank")
        return (loss.value, None) if return_outputs else loss.value

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add our metrics, averaged since the last line: cross-entropies and KL (nats per token), tokens per second."""
        if line := self._metrics.line():
            logs |= line | self.watch.validated
            self.watch.validated = {}
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, TreeBatch]) -> int:
        """Estimate a step's model FLOPs, forward and backward."""
        return int(flops_of(self.model, backward=sum(batch.token_count for batch in inputs.values())))

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Do one step, and time it."""
        with self._metrics.timed(), self.shortcuts.step():
            return super().training_step(model, inputs, num_items_in_batch)

    # ---- evaluation --------------------------------------------------------------------------------------------------

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Measure the model as it is now, log the metrics and return them, each name after `metric_key_prefix`.

        On the validation rows these are `bad_rate` and `broken_rate`, the shares of replies to validation negatives
        that are bad, and that are blank or gibberish, and `kl`, to the original, in nats per token. With an
        `eval_dataset`, given here or to the constructor, they are `loss`, the mean over its replies of nats per token,
        and `kl` where the reference has the rows. A dictionary of datasets gives both for each, under its name.
        """
        given = eval_dataset is not None
        sets = self._encode_evaluated(eval_dataset, self.args.max_length) if given else self._evaluated
        values: dict[str, float] = {}
        with only_weights_change(self.model), self._precise(), self.accelerator.autocast():
            reference = self.reference
            for prefix, rows in sets.items():
                on_rows = loss_on(self.model, rows, reference, self.data.form.ids.pad_id)
                values |= {prefix + name: value for name, value in on_rows.items()}
            if not sets and self.data.validation_negatives:
                seen = self._replies(self.data.validation_negatives)
                values |= {"bad_rate": seen.bad_share, "broken_rate": seen.broken_share}
            if not sets and self.data.validation_normals and reference:
                values["kl"] = kl_on(self.model, self._validation_rows, reference, self.data.form.ids.pad_id)
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in values.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _encode_evaluated(self, dataset: Any, longest: int) -> dict[str, list[Tree]]:
        """Encode the datasets that `evaluate()` measures, each under the prefix of its metrics."""
        named = dataset if isinstance(dataset, Mapping) else {"": dataset} if dataset is not None else {}
        return {
            f"{name}_" if name else "": reply_trees(f"eval {name}", encoded_rows(rows, self.data.form, longest))
            for name, rows in named.items()
        }

    # ---- the run -----------------------------------------------------------------------------------------------------

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any) -> Any:
        """Train; `resume_from_checkpoint=True` goes on from the last complete checkpoint, or from the start.

        Afterwards the model holds the weights that the stopping rules chose.
        """
        with only_weights_change(self.model), self._precise():
            try:
                with self.meter.running():
                    if self.args.train_layers:
                        freeze_below(self.model, upper_layers(self.model, self.args.train_layers).start)
                    if self.whole:
                        self.shortcuts.lower = LowerStates.of(self.model)
                    if self.args.compile:
                        self.shortcuts.compiled = Compiled(self.model, flex=self.args.compile == "flex")
                    self.read_original()
                    if self._preconditioned:
                        freeze_embeddings(self.model)
                    checkpoint = self._resume(resume_from_checkpoint)
                    if checkpoint and self.stop:
                        result = self._load_ended(checkpoint)
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
        """Put the last good weights back, where the rules kept any, and return the error that says so."""
        kept = "no weights were kept, since the stopping rules were off"
        if self.args.stopping:
            self._go_back(self.watch.state.good_step)
            kept = f"the weights of step {self.watch.state.good_step} were kept"
        fix = "lower --learning-rate or --forget-weight"
        return TrainingError(f"{error} at step {self.state.global_step + 1}; {kept}; {fix}")
