"""What an application is, and the applications by name, as config.application names them."""

from importlib import import_module
from pathlib import Path
from typing import Protocol

from emergent_alignment.errors import UserError
from emergent_alignment.runs.config import RunConfig
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.training.state import TrainState

# By name, the module in applications/ and its function that trains.
APPLICATIONS = {
    "finetuning": ("finetuning", "finetune"),
    "adversarial": ("adversarial.training", "train_against_attacks"),
    "pretraining": ("pretraining.training", "pretrain"),
}


class Application(Protocol):
    """A way to train."""

    def __call__(
        self,
        config: RunConfig,
        workdir: Path,
        *,
        setup: Setup | None = None,
        name: str = "training",
        profiled: range = range(0),
    ) -> TrainState:
        """Train as the config says, and give the last state. An application may ask for a config
        with more sections than a run's. `setup` is the config's model where
        it has been read already, `name` what progress calls the run, `profiled` the steps whose
        profile goes to workdir/profile.

        Raises UserError before anything is trained where the input is not right, and Stopped where
        a process was asked to stop (the state is saved).
        """


def application(config: RunConfig) -> Application:
    """The function that trains as config.application says. Raises UserError where there is none
    of that name."""
    name = config.application
    if name not in APPLICATIONS:
        known = ", ".join(APPLICATIONS)
        raise UserError(f"config.application: {name!r} is unknown; known: {known}")
    module, function = APPLICATIONS[name]
    return getattr(import_module(f"emergent_alignment.applications.{module}"), function)
