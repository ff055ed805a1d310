"""The applications by name, as config.application names them."""

from collections.abc import Callable
from importlib import import_module

from ml_collections import ConfigDict

from emergent_alignment.errors import UserError

# The module in applications/, and its function that trains.
APPLICATIONS = {
    "finetuning": ("finetuning", "finetune"),
    "adversarial": ("adversarial.training", "train_against_attacks"),
    "pretraining": ("pretraining.training", "pretrain"),
}


def application(config: ConfigDict) -> Callable:
    """The function that trains as config.application says. Raises UserError where there is none
    of that name."""
    name = config.application
    if name not in APPLICATIONS:
        known = ", ".join(APPLICATIONS)
        raise UserError(f"config.application: {name!r} is unknown; known: {known}")
    module, function = APPLICATIONS[name]
    return getattr(import_module(f"emergent_alignment.applications.{module}"), function)
