"""A Trainer under DeepSpeed's ZeRO whose checkpoints are those of any other run; without it, the Trainer as it is."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer
from transformers.trainer import SCHEDULER_NAME

from unteach.errors import ConfigError
from unteach.models import zero


class ZeroTrainer(Trainer):
    """Saves one set of safetensors where DeepSpeed parts a run's state, and each rank's part of the optimizer's."""

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        """Make the engine; then load, as a DeepSpeed checkpoint is none of ours."""
        if not self.is_deepspeed_enabled:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        if self.accelerator.state.deepspeed_plugin.zero_stage < 2:
            raise ConfigError("DeepSpeed: stages below 2 are not run here; give stage 2 or 3, or leave DeepSpeed out")
        zero.drop_hooks(self.model)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)
        zero.note_hooks(self.model, self.model_wrapped)
        if resume_from_checkpoint is not None:
            self._load_from_checkpoint(resume_from_checkpoint)
            self._load_optimizer_and_scheduler(resume_from_checkpoint)
        return prepared

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the weights."""
        if not self.is_deepspeed_enabled:
            return super().save_model(output_dir, _internal_call)
        self._save(output_dir)
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if not self.is_deepspeed_enabled:
            return super()._save_optimizer_and_scheduler(output_dir)
        self._save_parts(output_dir, zero.optimizer_parts(self.model_wrapped))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not (checkpoint and self.is_deepspeed_enabled):
            return super()._load_optimizer_and_scheduler(checkpoint)
        zero.load_optimizer_parts(self.model_wrapped, self._saved_parts(checkpoint))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_deepspeed_enabled and zero.is_parted(self.model):
            if hasattr(self.model, "peft_config"):
                with zero.changing([weight for weight in self.model.parameters() if weight.requires_grad]):
                    super()._load_from_checkpoint(resume_from_checkpoint, model)
            else:
                zero.load_weights(self.model, Path(resume_from_checkpoint))
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.is_deepspeed_enabled and self.deepspeed is not None:
            self.model_wrapped.optimizer.refresh_fp32_params()

    def _load_best_model(self) -> None:
        if not self.is_deepspeed_enabled:
            return super()._load_best_model()
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def _save_parts(self, output_dir: str, parts: Any) -> None:
        """Save this rank's part of the optimizer's state, and the schedule."""
        Path(output_dir).mkdir(parents=True, exist_ok=True)  # the first rank may not have been here yet
        torch.save(parts, Path(output_dir) / f"optimizer_{self.args.process_index}.pt")
        if self.args.should_save:
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir) / SCHEDULER_NAME)

    def _saved_parts(self, checkpoint: str) -> Any:
        """Return what `_save_parts` has saved on this rank, and put the schedule back."""
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))
        file = Path(checkpoint) / f"optimizer_{self.args.process_index}.pt"
        return torch.load(file, map_location="cpu", weights_only=True)
