"""A scenario: the settings that fit one kind of thing that a model must stop."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Scenario:
    """One application of unlearning.

    `bad_rate` is the measurement of how often the bad thing still happens. `defaults` are settings of `RunConfig` that
    the user did not give; the first of the judges decides, the others give second opinions. `adapter_defaults` win over
    them where an adapter is trained: whoever adapts a model has a large one, which learns fast. `template_method` is
    the method for a user who gives an answer to teach (--template) and names no method, where the usual one teaches
    none. `templates` are the default answer in other languages, for negatives in these.
    """

    bad_rate: str
    defaults: dict[str, Any]
    template_method: str = "npo-template"
    templates: dict[str, str] = field(default_factory=dict)
    adapter_defaults: dict[str, Any] = field(default_factory=dict)

    def usual(self, adapter: bool) -> dict[str, Any]:
        """Return the settings of a user who gave none, for all weights or for an adapter."""
        return self.defaults | (self.adapter_defaults if adapter else {})
