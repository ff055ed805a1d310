"""What an experiment compares: arms, seeds and measures."""

from dataclasses import dataclass
from typing import Literal

from emergent_alignment.evaluation.settings import EvaluationConfig
from emergent_alignment.settings import Section, setting

ArmMeasure = Literal["heldout", "choices", "misalignment", "two_by_two"]


@dataclass(frozen=True)
class ExperimentSection(Section):
    """`experiment`; see its --help."""

    arms: tuple[str, ...] = setting(
        ("base", "plain: conscience.enabled=False", "conscience"),
        "Names of arms, each with the fields that it changes.",
    )
    seeds: tuple[int, ...] = setting(
        (0, 1, 2),
        "Each arm is trained once a seed.",
        at_least=0,
        words="the numbers from {at_least:g} on",
    )
    measures: tuple[ArmMeasure, ...] = setting(("heldout",), "What is measured of each arm.")


@dataclass(frozen=True)
class ExperimentConfig(EvaluationConfig):
    """The settings of runs that are compared."""

    experiment: ExperimentSection = ExperimentSection()
