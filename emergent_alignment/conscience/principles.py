"""A constitution: principles of which each critique names one, drawn for its row (stage 1 of
Constitutional AI: Bai et al. 2022, 2212.08073, section 3.1)."""

from collections.abc import Iterable, Sequence
from importlib import resources

from emergent_alignment.data.principles import Principle, principles_of
from emergent_alignment.randomness import PRINCIPLES, Draws, known_seed

_NONE = Principle(0, "", "")


def read_constitution(source: str) -> tuple[Principle, ...]:
    """The principles of a .yaml file, or the bundled ones; none where the source is "". Raises
    UserError, with file and line, for a file that is missing or holds anything else."""
    if not source:
        return ()
    return principles_of(source, resources.files(__package__) / "principles.yaml")


def drawn_principles(
    principles: Sequence[Principle], draws: Draws, ids: Iterable[int]
) -> list[Principle]:
    """One principle for each row, by its id, whatever rows are beside it; without name and text
    where there are none."""
    if not principles:
        return [_NONE for _ in ids]
    known = Draws(known_seed(draws.seed), draws.purpose, draws.step)
    return [principles[known.number(PRINCIPLES, int(row)) % len(principles)] for row in ids]
