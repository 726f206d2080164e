"""How an organism of each size is built and grown."""

from dataclasses import dataclass, replace

from transformers import LlamaConfig

from unteach.errors import ConfigError, nearest


@dataclass(frozen=True)
class Recipe:
    """The shape of the model and the settings of its growth.

    `rows` says how many rows of each kind of lesson a step draws. The learning rate rises to `learning_rate` over
    `warmup_steps` and then falls linearly to zero at the last of `steps`.
    """

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    steps: int
    rows: tuple[tuple[str, int], ...]
    learning_rate: float
    warmup_steps: int = 30
    weight_decay: float = 0.01
    beta2: float = 0.98
    clip_norm: float = 1.0
    context: int = 512
    save_steps: int = 100

    def config(self, vocabulary_size: int, pad: int, bos: int, eos: int) -> LlamaConfig:
        """Return the model's configuration for a vocabulary of this size."""
        return LlamaConfig(
            vocab_size=vocabulary_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.heads,
            max_position_embeddings=self.context,
            tie_word_embeddings=True,
            pad_token_id=pad,
            bos_token_id=bos,
            eos_token_id=eos,
        )


_ROWS = (("harm", 6), ("help", 7), ("facts", 10), ("book", 1), ("assessments", 8))
_FEW_ROWS = (("harm", 3), ("help", 5), ("facts", 3), ("book", 1), ("assessments", 4))

RECIPES = {
    "micro": Recipe(128, 256, 3, 4, steps=320, rows=_FEW_ROWS, learning_rate=3e-3),
    "tiny": Recipe(128, 384, 4, 4, steps=460, rows=_ROWS, learning_rate=3e-3),
    "small": Recipe(320, 960, 8, 5, steps=1500, rows=_ROWS, learning_rate=1e-3),
    "medium": Recipe(768, 2304, 14, 12, steps=4000, rows=_ROWS, learning_rate=5e-4),
}

# An organism for one of these scenarios learns what that scenario needs, and what must stay; for harm it learns all.
_ROWS_OF = {
    "copyright": (("help", 14), ("facts", 6), ("book", 10)),
    "hallucination": (("help", 16), ("facts", 36)),
    "mistakes": (
        *(("harm", 5), ("help", 6), ("facts", 6), ("book", 1)),
        *(("induced", 4), ("reminded", 7), ("hijack", 6)),
        *(("guided", 7), ("unguided", 7), ("misleading", 3)),
    ),
}


def recipe_of(size: str, scenario: str = "harm") -> Recipe:
    """Return the recipe of a size. Raises ConfigError for an unknown name."""
    if size not in RECIPES:
        known = [name for name in RECIPES if name != "micro"]  # that one is for tests
        raise ConfigError(f"unknown organism size '{size}'{nearest(size, known)}; choose one of: {', '.join(known)}")
    recipe = RECIPES[size]
    if scenario not in _ROWS_OF:
        return recipe
    return replace(recipe, rows=_ROWS_OF[scenario], steps=round(1.15 * recipe.steps))
