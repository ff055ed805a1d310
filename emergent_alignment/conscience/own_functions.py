"""Functions of the user's own that a config names, as "python:module.function"."""

import importlib
from collections.abc import Callable
from typing import Any

from emergent_alignment.errors import UserError

PREFIX = "python:"


def is_function_name(text: str) -> bool:
    """Whether a text names a function."""
    return text.startswith(PREFIX)


def named_function(text: str, field: str, arguments: str) -> Callable[..., Any]:
    """The function that a field names, of these `arguments`. Raises UserError where there is
    none."""
    name = text.removeprefix(PREFIX)
    module, _, function = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"{field}: {text} cannot be imported ({error}); name a function of {arguments} in a "
            "module that Python finds"
        ) from None
    if not callable(found):
        raise UserError(f"{field}: {text} is no function of {arguments}")
    return found
