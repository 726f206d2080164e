"""The verb `unteach export`."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from unteach.cli.flags import Overwrite, option
from unteach.text.escape import inert_line

if TYPE_CHECKING:
    from unteach.results.export import Artefact, Export

Run = Annotated[str, typer.Argument(help="Directory of a finished run.", metavar="RUN", show_default=False)]
To = Annotated[str, option("--to", "Directory for the export.", "Options", "DIR")]
As = Annotated[
    list[str] | None,
    option("--as", "merged, adapter, gguf or ollama; repeatable, or with commas. \\[merged]", "Options", "FORMS"),
]
Dtype = Annotated[
    str, option("--dtype", "Precision of a GGUF file: auto, float32, float16 or bfloat16. \\[auto]", "Options", "NAME")
]
Prompts = Annotated[int, option("--prompts", "Prompts a split to compare on. \\[40]", "Options", "N", min=1)]
Device = Annotated[str | None, option("--device", "cpu, cuda, cuda:0 …; unset: as the run.", "Options", "NAME")]

SERVE = {
    "merged": "vllm serve {place}    or: transformers serve",
    "adapter": "vllm serve BASE --enable-lora --lora-modules unlearned={place}",
    "gguf": "llama-server --jinja -m {place}/model.gguf",
    "ollama": "ollama create unlearned -f {place}/Modelfile && ollama run unlearned",
}


def export_command(
    run: Run,
    to: To,
    forms: As = None,
    dtype: Dtype = "auto",
    prompts: Prompts = 40,
    device: Device = None,
    overwrite: Overwrite = False,
) -> None:
    """Write the model of a run in the form it is served in, and check that this is the trained model.

    [bold]Examples[/bold]
      unteach export ./out --to ./served
      unteach export ./out --to ./served --as merged,gguf
      unteach export ./out --to ./served --as ollama --dtype float16

    Each form is loaded afresh and compared with the run's model and with the
    original on the run's own prompts: greedy replies, likelihoods, bad
    replies. One that is not the trained model is removed, and the command
    fails. DIR/export.json says what was compared; docs/export.md explains it.

    GGUF is written by llama.cpp's converter where convert_hf_to_gguf.py is on
    the PATH or named by UNTEACH_GGUF_CONVERTER, else by the package gguf
    (Llama and Qwen2). Then: unteach evaluate --endpoint URL --model NAME
    """
    from unteach.pipeline.export import export

    made = export(run, to, forms=forms or ("merged",), dtype=dtype, prompts=prompts, device=device, overwrite=overwrite)
    show_export(made, to)


def show_export(made: "Export", to: str) -> None:
    """Print each artefact, how like the trained model it is, and how to serve it."""
    console = Console(highlight=False)
    asked = ", ".join(f"{count} {split}" for split, count in made.prompts.items())
    console.print(f"Compared with the run's model on {asked} prompts", markup=False, soft_wrap=True)
    for artefact in made.artefacts:
        place = inert_line(f"{to.rstrip('/')}/{artefact.place}")
        console.print("\n" + _lines_of(artefact, place), markup=False, soft_wrap=True)
    if made.notes:
        console.print(
            "\n" + "\n".join(f"Note: {inert_line(note)}" for note in made.notes), markup=False, soft_wrap=True
        )


def _lines_of(artefact: "Artefact", place: str) -> str:
    same, moved = artefact.trained, artefact.moved
    lines = [
        f"{artefact.form}: {place} ({artefact.dtype}, {artefact.bytes / 1e6:,.1f} MB)",
        f"  same replies    {same.agreement:.1%} [{same.low:.1%}, {same.high:.1%}] of {same.n}",
        f"  log-probability differs by {same.mean_difference:.2g} nats a token, at most {same.largest_difference:.2g}",
        f"  the original's  by {moved.mean_difference:.2g} and {moved.largest_difference:.2g}",
    ]
    rates = {rate.arm: rate for rate in artefact.bad_rates if rate.value is not None}
    if "exported" in rates and "unlearned" in rates:
        shown = {
            arm: f"{rate.value or 0:.1%} [{rate.low or 0:.1%}, {rate.high or 0:.1%}] of {rate.n}"
            for arm, rate in rates.items()
        }
        lines.append(f"  bad replies     {shown['exported']}; the run's model {shown['unlearned']}")
    return "\n".join([*lines, f"  serve           {SERVE[artefact.form].format(place=place)}"])
