"""Options as dataclass fields that carry their explanation: one place for flags, YAML and Python."""

from __future__ import annotations

from copy import copy
from dataclasses import field
from typing import Any


def option(default: Any, explanation: str) -> Any:
    """A dataclass field with a default and the sentence that ``--help`` shows for it."""
    metadata = {"help": explanation}
    if isinstance(default, list):
        return field(default_factory=lambda: copy(default), metadata=metadata)
    return field(default=default, metadata=metadata)
