"""What an experiment compares: the arms that config.experiment names, the seeds, the measures."""

import re
from dataclasses import dataclass

from emergent_alignment.errors import UserError
from emergent_alignment.experiments.settings import ArmMeasure, ExperimentSection


@dataclass(frozen=True)
class ExperimentPlan:
    """The arms, each with its changes of the config as words ("section.field=value"); the seeds;
    what is measured."""

    arms: dict[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    measures: tuple[ArmMeasure, ...]


# A value that holds spaces stands in quotes: data.system='Be brief.'
_WORD = re.compile(r"""(?:[^\s'"]|'[^']*'|"[^"]*")+""")
_QUOTED = re.compile(r"""([^=]+=)(['"])(.*)\2""", re.DOTALL)


def _unquoted(word: str) -> str:
    quoted = _QUOTED.fullmatch(word)
    return f"{quoted[1]}{quoted[3]}" if quoted else word


def planned(wanted: ExperimentSection) -> ExperimentPlan:
    """What a config's section `experiment` asks for. Raises UserError for names that are no
    folder's or stand twice, for changes that are not field=value, and for seeds that are none or
    stand twice."""
    arms = {}
    for place, text in enumerate(wanted.arms):
        name, _, changes = text.partition(":")
        where = f"config.experiment.arms[{place}]"
        if not name or set(name) & set("/\\ ") or name.startswith("."):
            raise UserError(
                f"{where}: {name!r} is no name for an arm; use letters, digits, - and _"
            )
        if name in arms:
            raise UserError(f"{where}: a second arm is named {name}; give it a name of its own")
        words = tuple(map(_unquoted, _WORD.findall(changes)))
        wrong = [word for word in words if "=" not in word]
        if wrong:
            raise UserError(f"{where}: {wrong[0]!r} is not section.field=value")
        arms[name] = words
    if not arms or not wanted.seeds or len(set(wanted.seeds)) < len(wanted.seeds):
        raise UserError("config.experiment: name at least one arm, and seeds that differ")
    return ExperimentPlan(arms, wanted.seeds, wanted.measures)
