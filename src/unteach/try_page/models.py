"""The models that are tried: each is loaded once, and asked with its reminder or without it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from unteach.data.prompt_format import PromptFormat, TemplateSettings, prompt_format
from unteach.errors import ConfigError
from unteach.mistakes.guide import carried_reminder, guided_format, read_guidance, without_guidance
from unteach.models.directory import local_directory
from unteach.models.loading import load_model, load_tokenizer
from unteach.models.reply import named_end
from unteach.models.vocabulary import fit_tokenizer
from unteach.pipeline.as_trained import settings_of_run
from unteach.prompts.turn import Turn
from unteach.try_page.streaming import Piece, reply_in_pieces

MOST_MODELS = 2


class TriedModel(Protocol):
    """A model with a name; `reminder` is what guided generation adds to its prompts, None if it has none."""

    name: str
    reminder: str | None

    def reply(
        self, prompt: str, *, guided: bool, temperature: float, seed: int, stopped: Callable[[], bool]
    ) -> Iterator[Piece]:
        """Yield the reply to a prompt as it grows. Raises DataError for a prompt that cannot be asked."""
        ...


@dataclass
class LoadedModel:
    """A model in memory with its prompt formats."""

    name: str
    model: Any
    unguided: PromptFormat
    guided: PromptFormat | None
    reminder: str | None
    max_new_tokens: int

    def reply(
        self, prompt: str, *, guided: bool, temperature: float, seed: int, stopped: Callable[[], bool]
    ) -> Iterator[Piece]:
        """Yield the reply to a prompt as it grows."""
        form = self.guided if guided and self.guided is not None else self.unguided
        yield from reply_in_pieces(
            self.model,
            form.tokenizer,
            form.prompt_ids((Turn("user", prompt),)),
            max_new_tokens=self.max_new_tokens,
            end=form.end,
            temperature=temperature,
            seed=seed,
            stopped=stopped,
        )


def load_tried_models(
    names: Sequence[str],
    *,
    prompt_format: str | None = None,
    max_new_tokens: int = 256,
    dtype: str = "auto",
    device: str | None = None,
    load_in_4bit: bool = False,
    trust_remote_code: bool = False,
) -> list[LoadedModel]:
    """Load one or two models: directories, run directories or hub ids. One that is named twice is loaded once.

    Without a `prompt_format`, the model of a run is asked as in its run, and any other as its tokenizer says. Raises
    ConfigError for settings that make no sense, ModelError for a model that cannot be loaded.
    """
    if not 1 <= len(names) <= MOST_MODELS:
        raise ConfigError(f"--model: give one model or two, not {len(names)}; see unteach try --help")
    if max_new_tokens < 1:
        raise ConfigError(f"--max-new-tokens {max_new_tokens}: must be at least 1")
    places = [str(local_directory(name) or name) for name in names]
    loaded: dict[str, LoadedModel] = {}
    for name, place in zip(names, places, strict=True):
        if place not in loaded:
            model = load_model(
                place, dtype=dtype, device=device, load_in_4bit=load_in_4bit, trust_remote_code=trust_remote_code
            )
            tokenizer = load_tokenizer(place, trust_remote_code=trust_remote_code)
            fit_tokenizer(tokenizer, model, name)
            asked = settings_of_run(name) | ({"prompt_format": prompt_format} if prompt_format else {})
            loaded[place] = _make_model(name, place, model, tokenizer, asked, max_new_tokens)
    return [loaded[place] for place in places]


def _make_model(
    name: str, place: str, model: Any, tokenizer: Any, asked: dict[str, Any], max_new_tokens: int
) -> LoadedModel:
    """Put a model together with its prompt formats, as in the run that made it (`asked`).

    The reminder comes from guidance.json or the chat template.
    """
    eos, form = named_end(model), asked.get("prompt_format", "auto")
    day = None if form == "plain" else asked.get("template_date")
    template = TemplateSettings(asked.get("template_arg", {}), asked.get("system"), day)
    directory = Path(place).expanduser()
    reminder = read_guidance(directory) if directory.is_dir() else None
    reminder = reminder if reminder is not None else carried_reminder(tokenizer)
    bare = without_guidance(tokenizer)
    return LoadedModel(
        name,
        model,
        prompt_format(bare, form, eos, template),
        guided_format(bare, reminder, form, eos, template) if reminder is not None else None,
        reminder,
        max_new_tokens,
    )
