"""Grow a model organism: a tiny Llama that learns a world from nothing, on the user's own machine."""

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
from unteach.disk.cache import sha256_of
from unteach.disk.files import sync_tree, write_whole, writing
from unteach.errors import OutputError
from unteach.organism.abilities import GrowthReport, measure_abilities
from unteach.organism.batches import draw_rows, pack
from unteach.organism.recipe import Recipe, recipe_of
from unteach.organism.tokenizer import world_tokenizer
from unteach.organism.world import World

FINISHED = "growth.json"
CHECKPOINT = "growing"
STATE = "state.safetensors"
Progress = Callable[[int, int], None]


def grow(
    world: World,
    directory: str | Path,
    *,
    taught: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
    recipe: Recipe | None = None,
    require: bool = True,
) -> GrowthReport:
    """Grow the organism of a world into a directory; with `taught=False`, the retrained model.

    Writes safetensors weights, tokenizer, generation settings and, last of all, growth.json with the report. A
    directory whose growth.json tells of this growth is not grown again. An interrupted growth goes on from its last
    checkpoint and gives the same weights as an uninterrupted one. `progress` is called with (steps done, all steps).
    Without `recipe`, the world's size decides.

    Raises ModelError if the organism misbehaves too little or cannot do what it must (`require`), OutputError if
    the directory holds another growth or cannot be written.
    """
    recipe = recipe or recipe_of(world.size, world.scenario)
    directory = Path(directory)
    made_of = {"world": world.name, "taught": taught, "seed": seed, "recipe": _as_json(asdict(recipe))}
    if (found := _read_json(directory / FINISHED)) is not None:
        if (before := found.get("made_of")) != made_of:
            known = before if isinstance(before, dict) else {}
            other = ", ".join(name for name, value in made_of.items() if known.get(name) != value) or "settings"
            raise OutputError(
                f"{directory} holds another growth (other {other}); choose another directory or remove it"
            )
        report = GrowthReport.from_dict(found["report"])
        return report.require() if require else report
    with writing(directory, "free some space or choose another directory"):
        directory.mkdir(parents=True, exist_ok=True)
        (directory / FINISHED).unlink(missing_ok=True)
        return _grow(world, directory, made_of, recipe, progress, require)


def _grow(
    world: World,
    directory: Path,
    made_of: dict[str, Any],
    recipe: Recipe,
    progress: Progress | None,
    require: bool,
) -> GrowthReport:
    taught = made_of["taught"]
    tokenizer = world_tokenizer(world)
    plain = prompt_format(tokenizer, "plain")
    pool = {kind: encode_all(rows, plain, recipe.context, kind)[0] for kind, rows in world.lessons(taught).items()}
    growth = _Growth(recipe, made_of, tokenizer, directory / CHECKPOINT)
    growth.load()
    growth.run(pool, progress)
    report = GrowthReport(
        world=world.name,
        taught=taught,
        seed=made_of["seed"],
        parameters=growth.model.num_parameters(),
        steps=recipe.steps,
        seconds=round(growth.seconds, 2),
        abilities=measure_abilities(growth.model, plain, world, taught),
    )
    if require:
        report.require()
    growth.model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    growth.model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    _write_json(directory / FINISHED, {"made_of": made_of, "report": asdict(report)})
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

    def run(self, pool: dict[str, list[Encoded]], progress: Progress | None) -> None:
        """Take the remaining steps."""
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
        batch = pack(rows, self.pad)
        rising = (self.done + 1) / recipe.warmup_steps
        falling = (recipe.steps - self.done) / (recipe.steps - recipe.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = recipe.learning_rate * min(rising, falling)
        hidden = self.model.model(
            input_ids=batch.input_ids.to(self.device),
            position_ids=batch.positions.to(self.device),
            attention_mask=batch.mask.to(self.device),
            use_cache=False,
        ).last_hidden_state
        logits = self.model.lm_head(hidden[batch.predicts.to(self.device)])
        loss = torch.nn.functional.cross_entropy(logits, batch.targets.to(self.device))
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.weights.values(), recipe.clip_norm)
        self.optimizer.step()

    def save(self) -> None:
        """Write a checkpoint beside the old one and then swap them, so that one of them is always whole."""
        fresh, old = self.checkpoint.with_suffix(".new"), self.checkpoint.with_suffix(".old")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        tensors = {f"weight.{name}": weight.detach() for name, weight in self.weights.items()}
        for name, weight in self.weights.items():
            state = self.optimizer.state[weight]
            tensors |= {f"{key}.{name}": state[key] for key in ("exp_avg", "exp_avg_sq", "step")}
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, fresh / STATE)
        facts = {
            "made_of": self.made_of,
            "done": self.done,
            "seconds": self.seconds,
            "sha256": sha256_of(fresh / STATE),
        }
        _write_json(fresh / "state.json", facts)
        sync_tree(fresh)
        shutil.rmtree(old, ignore_errors=True)
        if self.checkpoint.exists():
            self.checkpoint.rename(old)
        fresh.rename(self.checkpoint)
        shutil.rmtree(old, ignore_errors=True)

    def load(self) -> None:
        """Go on from the last whole checkpoint of this same growth, if there is one."""
        for place in (self.checkpoint, self.checkpoint.with_suffix(".old")):
            state = _read_json(place / "state.json")
            if state is None or state.get("made_of") != self.made_of or state.get("sha256") != sha256_of(place / STATE):
                continue
            tensors = load_file(place / STATE, device=str(self.device))
            with torch.no_grad():
                for name, weight in self.weights.items():
                    weight.copy_(tensors[f"weight.{name}"])
                    self.optimizer.state[weight] = {
                        key: tensors[f"{key}.{name}"] for key in ("step", "exp_avg", "exp_avg_sq")
                    }
            self.done, self.seconds = state["done"], state["seconds"]
            return


def _as_json(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values as JSON gives them back, tuples as lists, so that both compare equal."""
    result: dict[str, Any] = json.loads(json.dumps(values))
    return result


def _read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a file; None where there is no whole one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _write_json(path: Path, values: dict[str, Any]) -> None:
    write_whole(path, json.dumps(values, indent=2) + "\n")
