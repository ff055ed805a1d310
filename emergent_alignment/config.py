"""All settings, assembled: each section stands beside the code that reads it.

`emergent-alignment config` prints them, docs/settings.md lists them, and `configs/*.py` start from
`default_config()` and change what they need.
"""

from dataclasses import dataclass

from emergent_alignment.applications.by_name import APPLICATIONS
from emergent_alignment.applications.zero_shot.serving.settings import ServeConfig
from emergent_alignment.evaluation.settings import EvaluationSection
from emergent_alignment.experiments.settings import ExperimentConfig
from emergent_alignment.self_align.settings import SelfAlignConfig
from emergent_alignment.settings import setting


@dataclass(frozen=True)
class Config(SelfAlignConfig, ExperimentConfig, ServeConfig):
    """Everything that a command reads."""

    application: str = setting("finetuning", "What `train` trains.", choices=tuple(APPLICATIONS))
    evaluation: EvaluationSection = EvaluationSection()


def __getattr__(name: str):
    """`default_config`, for config files: a mutable ConfigDict, which the package itself does not
    know."""
    if name not in ("default_config", "get_config"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return import_module("emergent_alignment.cli.config_files").default_config
