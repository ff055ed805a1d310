"""Emergent Alignment: train a language model on a task while its own conscience keeps it aligned.

The package is lazy: importing it, or `emergent_alignment.losses`, loads no framework that is
not needed.
"""

import os

__version__ = "0.1.0"

# transformers is here for tokenizers and configs; that it finds no torch is not worth a warning.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

# What is public, by the module that it comes from.
_MODULES = {
    "conscience.conscience": "Conscience",
    "conscience.judge": "JudgeReviewer",
    "conscience.pairs": "review_and_revise",
    "data.batches": "Pair make_batch rows_of_step",
    "data.chat": "read_chat",
    "data.sources": "load_examples",
    "data.tokenized": "tokenize",
    "errors": "UserError",
    "generation.endpoint": "Endpoint",
    "generation.sampler": "sampler_settings",
    "generation.text": "Batching generate sample_answers",
    "models.lora": "LoraConfig",
    "models.model": "Model export load",
    "randomness": "Draws Purpose key_for",
    "training.objective": "Objective Share Term",
    "training.state": "initial_state",
    "training.step": "compiled_step",
    "training.step_settings": "StepSettings",
    "training.terms": "ChosenNLLTerm KLTerm LoadBalanceTerm PreferenceTerm TaskTerm",
}
_PUBLIC = {name: module for module, names in _MODULES.items() for name in names.split()}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_PUBLIC[name]}"), name)
