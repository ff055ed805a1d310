"""Functions of the user's own that a config names: "python:module.function", or "entry:name" of an
installed package's entry point in the group emergent_alignment.functions."""

import importlib
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from emergent_alignment.errors import UserError

MODULE, ENTRY = "python:", "entry:"
GROUP = "emergent_alignment.functions"


def is_function_name(text: str) -> bool:
    """Whether a text names a function."""
    return text.startswith((MODULE, ENTRY))


def named_function(text: str, field: str, arguments: str) -> Callable[..., Any]:
    """The function that a field names, of these `arguments`. Raises UserError where there is
    none."""
    try:
        named = _entry(text) if text.startswith(ENTRY) else _of_module(text)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{field}: {text} cannot be imported ({error}); name a function of {arguments} in a "
            "module that Python finds, or an installed package's entry point"
        ) from None
    if not callable(named):
        raise UserError(f"{field}: {text} is no function of {arguments}")
    return named


def _of_module(text: str) -> Any:
    module, _, function = text.removeprefix(MODULE).rpartition(".")
    return getattr(importlib.import_module(module), function)


def _entry(text: str) -> Any:
    name, known = text.removeprefix(ENTRY), entry_points(group=GROUP)
    if name not in known.names:
        listed = ", ".join(sorted(known.names)) or "none is installed"
        raise ImportError(f"no such entry point in the group {GROUP}; known: {listed}")
    return known[name].load()
