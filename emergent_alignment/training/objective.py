"""An objective is a sum of terms: Σ weight · total / count (docs/design.md §3).

A term is a small frozen dataclass with its own settings, a constant of the compiled program. Its
total is over (part of) a batch, its count over the whole batch (all devices, hosts and
microbatches), so that the parts add up to the whole: never a mean of means.
"""

import functools
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.views import Counts, PromptView

Weights = Mapping[str, Any]


@dataclass(frozen=True)
class Share:
    """A sum over (part of) a batch, and the count of the whole batch that it is divided by."""

    total: Float[Array, ""]
    count: Float[Array, ""]

    @property
    def mean(self) -> Float[Array, ""]:
        """total / count."""
        return self.total / self.count


@dataclass(frozen=True)
class Term:
    """One part of what a step minimises.

    weight      what its mean is multiplied with (None: with nothing), unless the step is given
                another one under the term's name, which may be traced
    name        in the log, and among the step's weights
    is_bonus    subtracted, not added
    aligns      it is of the alignment, not of the task: where both are told apart
    own_pass    it costs a forward pass of its own, so with weight 0 it is not computed
    """

    weight: float | None = None
    name: ClassVar[str]
    is_bonus: ClassVar[bool] = False
    aligns: ClassVar[bool] = False
    own_pass: ClassVar[bool] = False

    def part_of(self, view: Any) -> Any:
        """What it reads of a view; None where there is nothing of the kind in this batch."""
        return view

    def share(self, part: Any, counts: Counts) -> Share:
        """Its total over the part that it reads, and its count among the `counts` of the whole
        batch."""
        raise NotImplementedError

    def watched(self, part: Any, counts: Counts) -> dict[str, Share]:
        """What else is logged of it, by name."""
        return {}


class ViewMaker(Protocol):
    """A class of views, or what else makes them of parameters and part of a batch."""

    def __call__(
        self, settings: StepSettings, trainable: Any, frozen: dict, batch: Any, /
    ) -> Any: ...

    def counts(self, batch: Any, /) -> Counts:
        """Those of a whole batch."""
        ...


@dataclass(frozen=True)
class Objective:
    """What a step minimises.

    terms  in the order in which they are added up; those that read one part of the view first
    view   makes of (settings, trainable, frozen, part of a batch) what they read
    """

    terms: tuple[Term, ...]
    view: ViewMaker = PromptView

    def __post_init__(self):
        names = [term.name for term in self.terms]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two terms of an objective have one name: {', '.join(twice)}")

    def counts(self, batch: Any) -> Counts:
        """The denominators, over a whole batch."""
        return self.view.counts(batch)

    def loss(
        self,
        settings: StepSettings,
        trainable: Any,
        frozen: dict,
        batch: Any,
        counts: Counts,
        weights: Weights | None = None,
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """(scalar, what is logged) of part of a batch under the whole batch's `counts`; both add
        up over the parts. `weights` replace those of the terms that they name.

        Raises ValueError where they name a term that is not there.
        """
        weighted, metrics = self._weighted(settings, trainable, frozen, batch, counts, weights)
        sums: dict[int, Array] = {}
        for term, part, value in weighted:
            sums[id(part)] = _added(sums.get(id(part)), value, term.is_bonus)
        return functools.reduce(operator.add, sums.values()), metrics

    def losses_apart(
        self,
        settings: StepSettings,
        trainable: Any,
        frozen: dict,
        batch: Any,
        counts: Counts,
        weights: Weights | None = None,
    ) -> tuple[Float[Array, "2"], dict[str, Float[Array, ""]]]:
        """`loss` as its two summands: that of the task, and that of the alignment."""
        weighted, metrics = self._weighted(settings, trainable, frozen, batch, counts, weights)
        apart = [jnp.float32(0.0), jnp.float32(0.0)]
        for term, _, value in weighted:
            apart[term.aligns] = _added(apart[term.aligns], value, term.is_bonus)
        return jnp.stack(apart), metrics

    def _weighted(self, settings, trainable, frozen, batch, counts, weights):
        """([(term, the part that it reads, its weighted mean)], what is logged)."""
        weights = weights or {}
        view = self.view(settings, trainable, frozen, batch)
        parts = {term: term.part_of(view) for term in self._computed(weights)}
        parts = {term: part for term, part in parts.items() if part is not None}
        weighted, metrics = [], {}
        for term, part in parts.items():
            metrics[term.name] = mean = term.share(part, counts).mean
            weight = weights.get(term.name, term.weight)
            weighted.append((term, part, mean if weight is None else weight * mean))
        for term, part in parts.items():
            watched = term.watched(part, counts)
            metrics |= {name: share.mean for name, share in watched.items()}
        return weighted, jax.tree.map(jax.lax.stop_gradient, metrics)

    def _computed(self, weights: Weights) -> list[Term]:
        known = [term.name for term in self.terms]
        if unknown := set(weights) - set(known):
            raise ValueError(
                f"no term of this objective is called {', '.join(unknown)}; known: "
                f"{', '.join(known)}"
            )
        return [
            term
            for term in self.terms
            if term.weight != 0 or not term.own_pass or term.name in weights
        ]


def _added(total: Array | None, value: Array, is_bonus: bool) -> Array:
    if total is None:
        return -value if is_bonus else value
    return total - value if is_bonus else total + value
