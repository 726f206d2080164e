"""unteach strength: a finished run's update at another scale, evaluated anew, without training again."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from unteach.errors import ConfigError, ModelError
from unteach.models.adapter import add_adapter
from unteach.models.ranks import by_first_rank, on_first_rank
from unteach.models.saving import save_model
from unteach.pipeline.config import RunConfig
from unteach.pipeline.directory import check_inputs, output_directory
from unteach.pipeline.finished import finished_run
from unteach.pipeline.measure import write_report
from unteach.pipeline.original import adapter_settings, load_weights
from unteach.pipeline.prepare import Prepared, prepare
from unteach.pipeline.run import train_and_measure
from unteach.pipeline.settings import inputs_of, make_config, write_config
from unteach.pipeline.train import Trained
from unteach.results.report import Report
from unteach.training.update import Update


def rescale(run: str | Path, scale: float, output: str, *, overwrite: bool = False) -> Report:
    """Write a model with the update of the run in `run` at `scale` times what training made, and a report on it.

    The original, the rows and the judges are those of the run, whose directory stays as it is. Raises UnteachError,
    such as for a directory that holds no run, and for a run that kept the original.
    """
    there = on_first_rank(finished_run, run, "scaled")
    directory, before = there.directory, there.report
    assert before is not None
    config = make_config(dict(there.values), RunConfig)
    now = before.strength.scale if before.strength else float(config.strength or 1)
    if now == 0:
        raise ConfigError(f"{directory}: this run kept the original, so there is no update to scale; train another")
    config = make_config(
        config.model_dump() | {"strength": f"{scale:g}", "output": output, "generate_with": ""}, RunConfig
    )
    with output_directory(output, overwrite=overwrite) as place:
        check_inputs(place, [*inputs_of(config), str(directory)], overwrite=overwrite)
        prepared = prepare(config, place)
        write_config(prepared.config, place, overwrite=overwrite)

        def scaled(_: Any) -> Trained:
            model = _with_update(prepared, directory / "model", scale / now)
            write = by_first_rank(model.save_pretrained)
            saved = save_model(write, model, prepared.original.tokenizer, place / "model")
            cost = [cost for cost in before.cost if not cost.is_evaluation]
            note = f"the update of {directory.resolve()} at {scale:g} times what training made; that run has {now:g}"
            assert before.stop is not None
            return Trained(model, before.stop, cost, before.curve, [note, *saved])

        report = train_and_measure(prepared, scaled)
        report.strength = before.strength and before.strength.model_copy(
            update={"scale": scale, "reached": False, "message": f"{scale:g} times the update, as asked for"}
        )
        write_report(report, place)
    return report


def _with_update(prepared: Prepared, trained: Path, scale: float) -> Any:
    """Return the run's model with the update of its trained weights at a scale, 1 for the weights as they are."""
    model: Any = prepared.original.model
    if not prepared.config.lora:
        after = load_weights(prepared.config, str(trained), trained=True)
        Update.of(dict(model.named_parameters()), dict(after.named_parameters())).apply(model, scale)
        return model
    from peft import set_peft_model_state_dict

    model = add_adapter(model, adapter_settings(prepared.config, model))
    file = trained / "adapter_model.safetensors"
    if not file.is_file():
        raise ModelError(f"{trained}: no adapter_model.safetensors; the run was started with --lora")
    set_peft_model_state_dict(model, load_file(file))
    Update.of_adapter(model).apply(model, scale)
    return model
