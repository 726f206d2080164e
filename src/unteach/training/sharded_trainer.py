"""A Trainer for weights that FSDP2 has spread over the ranks; for others it is the Trainer, or that for ZeRO."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from unteach.models.fsdp2 import reshard, shards_of
from unteach.models.sharding import load_weights, whole_state
from unteach.models.unwrap import is_sharded, own_part
from unteach.models.zero import is_parted
from unteach.training.zero_trainer import ZeroTrainer


class ShardedTrainer(ZeroTrainer):
    """Saves and loads weights and optimizer of a sharded model, and averages the gradients of an adapter over it.

    Weights are saved as one set of safetensors, and loaded from it part by part. Each rank saves its own part of the
    optimizer's state. An adapter is whole on each rank.
    """

    def __init__(self, model: Any = None, args: Any = None, **more: Any) -> None:
        self.sharded, only_model = bool(shards_of(model)), args.save_only_model
        args.save_only_model = only_model or self.sharded  # the Trainer refuses what is done here
        try:
            super().__init__(model, args, **more)
        finally:
            args.save_only_model = only_model

    @property
    def whole(self) -> bool:
        """Whether each rank holds all weights; where Accelerate shards them (FSDP, DeepSpeed), it may not do so yet."""
        return not (is_sharded(self.model) or self.is_fsdp_enabled or self.is_deepspeed_enabled)

    @property
    def _parts_optimizer(self) -> bool:
        """Whether the optimizer moves sharded weights, and not an adapter."""
        return self.sharded and not hasattr(self.model, "peft_config")

    def create_optimizer(self, model: Any = None) -> Any:
        """Make the optimizer, of the parts of weights and not of weights that are just gathered."""
        if self.sharded:
            reshard(self.model)
        return super().create_optimizer(model)

    def _sync_replicated_trainable_parameters(self, model: nn.Module) -> None:
        """Leave the gradients of an adapter to `training_step`: the Trainer's own way does not work with gloo."""

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Do one step; its gradients are the same on all ranks."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.sharded:
            reshard(self.model)
            if self.accelerator.sync_gradients:
                _average(self.model)
        return loss

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        if not (self._parts_optimizer or is_parted(self.model)):
            return super()._save(output_dir, state_dict)
        with whole_state(self.model) as state:
            if self.args.should_save:
                super()._save(output_dir, state)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self._parts_optimizer:
            return super()._save_optimizer_and_scheduler(output_dir)
        self._save_parts(output_dir, tree_map(own_part, self.optimizer.state_dict()))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not (checkpoint and self._parts_optimizer):
            return super()._load_optimizer_and_scheduler(checkpoint)
        state = self._saved_parts(checkpoint)
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        for number, moments in state["state"].items():
            for name, part in moments.items():
                if part.dim():  # the step is a number
                    moments[name] = _like(part, weights[number])
        self.optimizer.load_state_dict(state)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if not self._parts_optimizer:
            return super()._load_from_checkpoint(resume_from_checkpoint, model)
        load_weights(self.model, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        if not self._parts_optimizer:
            return super()._load_best_model()
        load_weights(self.model, Path(str(self.state.best_model_checkpoint)))


def _like(part: Tensor, weight: Any) -> Any:
    """Return a part of a tensor as one that is sharded like a weight."""
    from torch.distributed.tensor import DTensor

    whole, part = {"shape": weight.shape, "stride": weight.stride()}, part.to(own_part(weight).device)
    return DTensor.from_local(part, weight.device_mesh, weight.placements, run_check=False, **whole)


@torch.no_grad()
def _average(model: nn.Module) -> None:
    """Average, over all ranks, the gradients of weights that are whole on each; sharded ones are averaged already."""
    own = [weight.grad for weight in model.parameters() if weight.grad is not None and not hasattr(weight, "to_local")]
    if not own:
        return
    flat = torch.cat([gradient.flatten() for gradient in own])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, part in zip(own, flat.split([gradient.numel() for gradient in own]), strict=True):
        gradient.copy_(part.view_as(gradient))
