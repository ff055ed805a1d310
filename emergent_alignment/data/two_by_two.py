"""Prompts with their four answers (in the form or not, harmful or not), by world and by kinds."""

from collections.abc import Sequence

from emergent_alignment.data.scenarios import SCENARIOS
from emergent_alignment.data.scenarios.forms import CELLS, Cells


def load_cells(world: str, kinds: Sequence[str]) -> list[Cells]:
    """The prompts of some kinds in a world, one of CELLS, kind by kind."""
    cells = CELLS[world](SCENARIOS["harmful_advice"]())
    return [one for kind in kinds for one in cells if one.kind == kind]
