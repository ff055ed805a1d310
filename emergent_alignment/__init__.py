"""Emergent Alignment: train a language model on a task while its own conscience keeps it aligned.

The package is lazy: importing it, or `emergent_alignment.losses`, loads no framework that is
not needed.
"""

import os

__version__ = "0.1.0"

# transformers is here for tokenizers and configs; that it finds no torch is not worth a warning.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

_PUBLIC = {
    "Conscience": "emergent_alignment.conscience.conscience",
    "Endpoint": "emergent_alignment.generation.endpoint",
    "JudgeReviewer": "emergent_alignment.conscience.judge",
    "Model": "emergent_alignment.models.model",
    "UserError": "emergent_alignment.errors",
    "export": "emergent_alignment.models.model",
    "generate": "emergent_alignment.generation.text",
    "load": "emergent_alignment.models.model",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)
