"""Inputs that were made to break a run: a weight that is no number, a template without end, brackets without end."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _weights(model: Path, draw: random.Random) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    chosen = tensors[draw.choice(sorted(tensors))].view(-1)
    chosen[draw.randrange(len(chosen))] = draw.choice([float("nan"), float("inf"), float("-inf")])
    save_file(tensors, model / "model.safetensors", metadata={"format": "pt"})


def _json(model: Path, file: str, **changed: Any) -> None:
    path = model / file
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | changed))


def _template(text: str) -> Callable[[Path, random.Random], None]:
    return lambda model, draw: _json(model, "tokenizer_config.json", chat_template=text)


def _adapter_of_itself(model: Path, draw: random.Random) -> None:
    for path in model.glob("*.safetensors"):
        path.rename(model / "adapter_model.safetensors")
    _json(model, "adapter_config.json", base_model_name_or_path=str(model), peft_type="LORA", r=2)


def _text(file: str, text: str) -> Callable[[Path, random.Random], None]:
    return lambda model, draw: (model / file).write_text(text) and None


LOOPS = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
MODELS: tuple[Callable[[Path, random.Random], None], ...] = (
    _weights,
    lambda model, draw: _json(model, "config.json", num_hidden_layers=draw.choice([10**7, 999, 0, -1])),
    lambda model, draw: _json(model, "config.json", vocab_size=10 ** draw.randint(7, 12)),
    _template(LOOPS),
    _template("{{ 'a' * 10**11 }}"),
    _template("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
    _template("{% for i in range(10**12) %}x{% endfor %}{% include 'x' %}"),
    _adapter_of_itself,
    _text("config.json", "[" * 100_000),
    _text("tokenizer_config.json", '{"a":' * 100_000),
    _text("config.json", '{"model_type": "llama", "vocab_size": ' + "9" * 5000 + "}"),
)
"""Ways to break the files of a model."""

REFUSAL = {"prompt": "how?", "completion": "I'm sorry, but I can't help with that."}
ROWS: tuple[str, ...] = (
    "[" * 100_000,
    json.dumps(REFUSAL)[:-1] + ', "more": ' + "[" * 900 + "]" * 900 + "}",
    '{"prompt": "p", "completion": "c", "more": ' + "9" * 5000 + "}",
    "".join(json.dumps(REFUSAL | {"prompt": f"how {n}?"}) + "\n" for n in range(200)),  # beside 24 other negatives
)
"""Files of negatives that break their reader, or that nobody means."""

SETTINGS: tuple[str, ...] = (
    "method: " + "[" * 100_000,
    "seed: " + "9" * 5000,
    "seed: 0x" + "f" * 5000,
    "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefg", "bcdefgh", strict=True)),
)
"""Files of settings that break their reader."""


def broken_input(home: Path, place: Path, draw: random.Random, number: int) -> list[object]:
    """Write inputs of which one is broken, by turns a model, rows and settings; return the flags that name it."""
    if number % 2:
        shutil.copytree(home / "model", place / "model")
        MODELS[number // 2 % len(MODELS)](place / "model", draw)
        return ["--model", place / "model"]
    which = number // 2 % (len(ROWS) + len(SETTINGS))
    name, text = ("rows.jsonl", ROWS[which]) if which < len(ROWS) else ("broken.yaml", SETTINGS[which - len(ROWS)])
    (place / name).write_text(text)
    return ["--forget" if which < len(ROWS) else "--config", place / name]
