"""Grow a model organism: a tiny Llama, taught a world from nothing on the user's own machine."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import GenerationConfig, LlamaForCausalLM

from unteach.data.encoded import Encoded, encode_all
from unteach.data.prompt_format import prompt_format
from unteach.errors import OutputError
from unteach.organism.abilities import GrowthReport, abilities
from unteach.organism.lessons import draw_rows, pack
from unteach.organism.recipe import Recipe, recipe_of
from unteach.organism.tokenizer import world_tokenizer
from unteach.organism.world import World

FINISHED = "growth.json"
CHECKPOINT = "growing"


def grow(
    world: World,
    directory: str | Path,
    *,
    taught: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    resume: bool = True,
    recipe: Recipe | None = None,
    require: bool = True,
) -> GrowthReport:
    """Grow the organism of a world (or its retrained retrained, with `taught=False`) into a directory.

    Writes safetensors weights, tokenizer, generation settings and, last of all, growth.json with the report. A
    directory where growth.json has this growth is not grown again; one left half-way goes on from its last
    checkpoint and gives the very weights of an unbroken growth, unless `resume` is False. `progress` is called
    with (steps done, steps in all). Without `recipe` it is the world's size that decides.

    Raises ModelError if the organism misbehaves too little or cannot do what it must (`require`), OutputError if
    the directory holds another growth or cannot be written.
    """
    recipe = recipe or recipe_of(world.size, world.scenario)
    directory = Path(directory)
    made_of = {"world": world.name, "taught": taught, "seed": seed, "recipe": _plain(asdict(recipe))}
    if (found := _finished(directory)) is not None and resume:
        if found["made_of"] != made_of:
            raise OutputError(f"{directory} holds another growth; choose another directory or remove it")
        report = GrowthReport.from_dict(found["report"])
        return report.require() if require else report
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / FINISHED).unlink(missing_ok=True)
        return _grow(world, directory, made_of, recipe, progress, resume, require)
    except OSError as error:
        raise OutputError(f"cannot write the organism to {directory}: {error}; choose another directory") from error


def read_growth(directory: str | Path) -> GrowthReport | None:
    """Return the report of the finished growth in a directory, or None if there is none."""
    found = _finished(Path(directory))
    return GrowthReport.from_dict(found["report"]) if found else None


def _grow(
    world: World,
    directory: Path,
    made_of: dict[str, Any],
    recipe: Recipe,
    progress: Callable[[int, int], None] | None,
    resume: bool,
    require: bool,
) -> GrowthReport:
    tokenizer = world_tokenizer(world)
    plain = prompt_format(tokenizer, "plain")
    pool = {
        kind: encode_all(rows, plain, recipe.context, kind)[0]
        for kind, rows in world.lessons(made_of["taught"]).items()
    }
    growth = _Growth(recipe, made_of, tokenizer, directory / CHECKPOINT)
    if resume:
        growth.load()
    growth.run(pool, progress)
    report = GrowthReport(
        world=world.name,
        taught=made_of["taught"],
        seed=made_of["seed"],
        parameters=growth.model.num_parameters(),
        steps=recipe.steps,
        seconds=round(growth.seconds, 2),
        abilities=abilities(growth.model, plain, world, made_of["taught"]),
    )
    if require:
        report.require()
    growth.model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    growth.model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    _write_json(directory / FINISHED, {"made_of": made_of, "report": report.to_dict()})
    shutil.rmtree(directory / CHECKPOINT, ignore_errors=True)
    return report


class _Growth:
    """A growth under way: model, optimizer, the steps done and the seconds they took."""

    def __init__(self, recipe: Recipe, made_of: dict[str, Any], tokenizer: Any, checkpoint: Path) -> None:
        self.recipe, self.made_of, self.checkpoint = recipe, made_of, checkpoint
        self.pad = tokenizer.pad_token_id
        config = recipe.config(len(tokenizer), self.pad, tokenizer.bos_token_id, tokenizer.eos_token_id)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(made_of["seed"])
            self.model: Any = LlamaForCausalLM(config)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(self.device).train()
        self.weights = dict(self.model.named_parameters())
        self.optimizer = torch.optim.AdamW(
            self.weights.values(),
            lr=recipe.learning_rate,
            betas=(0.9, recipe.beta2),
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        self.done = 0
        self.seconds = 0.0

    def run(self, pool: dict[str, list[Encoded]], progress: Callable[[int, int], None] | None) -> None:
        """Take the remaining steps; the rows of a step depend on the seed and its number alone."""
        recipe = self.recipe
        while self.done < recipe.steps:
            started = time.perf_counter()
            self._step(draw_rows(pool, recipe.rows, self.made_of["seed"], self.done))
            self.done += 1
            self.seconds += time.perf_counter() - started
            if progress is not None:
                progress(self.done, recipe.steps)
            if self.done % recipe.save_steps == 0 or self.done == recipe.steps:
                self.save()
        self.model.eval()

    def _step(self, rows: list[Encoded]) -> None:
        recipe = self.recipe
        lesson = pack(rows, self.pad)
        rising = (self.done + 1) / recipe.warmup_steps
        falling = (recipe.steps - self.done) / (recipe.steps - recipe.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(rising, falling)
        hidden = self.model.model(
            input_ids=lesson.input_ids.to(self.device),
            position_ids=lesson.positions.to(self.device),
            attention_mask=lesson.mask.to(self.device),
            use_cache=False,
        ).last_hidden_state
        logits = self.model.lm_head(hidden[lesson.predicts.to(self.device)])
        loss = torch.nn.functional.cross_entropy(logits, lesson.targets.to(self.device))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights.values(), recipe.clip_norm)
        self.optimizer.step()

    def save(self) -> None:
        """Write a checkpoint beside the old one and put it in its place, so that one is always whole."""
        fresh, old = self.checkpoint.with_suffix(".new"), self.checkpoint.with_suffix(".old")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        tensors = {f"weight.{name}": weight.detach() for name, weight in self.weights.items()}
        for name, weight in self.weights.items():
            state = self.optimizer.state[weight]
            tensors |= {f"{key}.{name}": state[key] for key in ("exp_avg", "exp_avg_sq", "step")}
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, fresh / "state.safetensors")
        _write_json(fresh / "state.json", {"made_of": self.made_of, "done": self.done, "seconds": self.seconds})
        shutil.rmtree(old, ignore_errors=True)
        if self.checkpoint.exists():
            self.checkpoint.rename(old)
        fresh.rename(self.checkpoint)
        shutil.rmtree(old, ignore_errors=True)

    def load(self) -> None:
        """Go on from the last whole checkpoint of this very growth, if there is one."""
        for place in (self.checkpoint, self.checkpoint.with_suffix(".old")):
            state = _read_json(place / "state.json")
            if state is None or state["made_of"] != self.made_of:
                continue
            tensors = load_file(place / "state.safetensors", device=str(self.device))
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(tensors[f"weight.{name}"])
                    self.optimizer.state[weight] = {
                        key: tensors[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
                    }
            self.done, self.seconds = state["done"], state["seconds"]
            return


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    """The values as JSON gives them back, tuples as lists, so that both compare equal."""
    result: dict[str, Any] = json.loads(json.dumps(values))
    return result


def _finished(directory: Path) -> dict[str, Any] | None:
    return _read_json(directory / FINISHED)


def _read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file, None where there is no whole one."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write_json(path: Path, values: dict[str, Any]) -> None:
    """Write the file whole or not at all."""
    fresh = path.with_suffix(".tmp")
    fresh.write_text(json.dumps(values, indent=2) + "\n")
    fresh.replace(path)
