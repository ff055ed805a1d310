"""Hooks: what is told how a run goes, and may say something of it for the log, or end it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Told:
    """What a hook says after a step.

    scalars  for the log, by name
    figure   how good the state is, the higher the better, where it is the best so far: it is
             saved, and its checkpoint is kept
    stop     why the run is to end here; "": it goes on
    """

    scalars: Mapping[str, float] = field(default_factory=dict)
    figure: float | None = None
    stop: str = ""


class Hook(Protocol):
    """What is told how a run goes. All hosts of a run have it, and it says the same on all."""

    def begin(self, first_step: int) -> str:
        """Before `first_step`; says why the run is to end at once ("": it goes on)."""

    def step_done(self, step: int, trainable: Any, scalars: Mapping[str, float]) -> Told:
        """After a step: its number, from 0 on, what is trained, and the step's scalars."""

    def saved(self, steps_done: int) -> None:
        """After a checkpoint was asked for; it may still be under way."""

    def end(self, steps_done: int) -> None:
        """After the last step; not where an error or a signal has ended the run."""


class NoHook:
    """A hook that says nothing: who needs some of the four methods inherits the others."""

    def begin(self, first_step: int) -> str:
        """Goes on."""
        return ""

    def step_done(self, step: int, trainable: Any, scalars: Mapping[str, float]) -> Told:
        """Nothing."""
        return Told()

    def saved(self, steps_done: int) -> None:
        """Nothing."""

    def end(self, steps_done: int) -> None:
        """Nothing."""


class Hooks:
    """Several hooks as one; the first figure and the first reason to stop count."""

    def __init__(self, hooks: Sequence[Hook] = ()):
        self._hooks = tuple(hooks)

    def begin(self, first_step: int) -> str:
        """See Hook; so are those that follow."""
        return next(filter(None, [hook.begin(first_step) for hook in self._hooks]), "")

    def step_done(self, step: int, trainable: Any, scalars: Mapping[str, float]) -> Told:
        told = [hook.step_done(step, trainable, scalars) for hook in self._hooks]
        said = {name: value for one in told for name, value in one.scalars.items()}
        figure = next((one.figure for one in told if one.figure is not None), None)
        return Told(said, figure, next((one.stop for one in told if one.stop), ""))

    def saved(self, steps_done: int) -> None:
        for hook in self._hooks:
            hook.saved(steps_done)

    def end(self, steps_done: int) -> None:
        for hook in self._hooks:
            hook.end(steps_done)
