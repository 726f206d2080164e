"""unteach: make a language model stop, from negative examples alone.

Everything in `__all__` is public. Most of it is imported on first use: `import unteach` and `unteach --help` need not
wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unteach.errors import (
    ConfigError,
    DataError,
    Interrupted,
    ModelError,
    OutputError,
    TrainingError,
    UnteachError,
)

if TYPE_CHECKING:
    from unteach.data.example import Example
    from unteach.judges import load_judge
    from unteach.judges.base import Judge
    from unteach.mistakes.config import MistakesConfig
    from unteach.mistakes.run import run_mistakes
    from unteach.objectives.methods import Method
    from unteach.pipeline.config import RunConfig
    from unteach.pipeline.evaluate import evaluate
    from unteach.pipeline.run import run
    from unteach.pipeline.stress import stress
    from unteach.prompts.turn import Turn
    from unteach.results.report import Report
    from unteach.training.config import UnlearnConfig
    from unteach.training.trainer import UnlearnTrainer

    __version__: str
__all__ = [
    "ConfigError",
    "DataError",
    "Example",
    "Interrupted",
    "Judge",
    "Method",
    "MistakesConfig",
    "ModelError",
    "OutputError",
    "Report",
    "RunConfig",
    "TrainingError",
    "Turn",
    "UnlearnConfig",
    "UnlearnTrainer",
    "UnteachError",
    "evaluate",
    "load_judge",
    "run",
    "run_mistakes",
    "stress",
]

_HOMES = {
    "Example": "data.example",
    "Judge": "judges.base",
    "Method": "objectives.methods",
    "MistakesConfig": "mistakes.config",
    "Report": "results.report",
    "RunConfig": "pipeline.config",
    "Turn": "prompts.turn",
    "UnlearnConfig": "training.config",
    "UnlearnTrainer": "training.trainer",
    "evaluate": "pipeline.evaluate",
    "load_judge": "judges",
    "run": "pipeline.run",
    "run_mistakes": "mistakes.run",
    "stress": "pipeline.stress",
}
"""The module of each public name that is imported on first use."""


if not TYPE_CHECKING:  # a checker would take every name for one of these

    def __getattr__(name: str) -> Any:
        """Import a public name, or look the version up, on first use."""
        if name == "__version__":
            value = import_module("importlib.metadata").version("unteach")
        elif name in _HOMES:
            value = getattr(import_module(f"unteach.{_HOMES[name]}"), name)
        else:
            raise AttributeError(f"module 'unteach' has no attribute '{name}'")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
