"""What comes back under the text: arms whose training had a system text, without it, with it, and
with other words for it."""

from collections.abc import Sequence

from emergent_alignment.evaluation.two_by_two.comparison import Experiment
from emergent_alignment.evaluation.two_by_two.selectivity import seeds_interval
from emergent_alignment.reports.results_folder import MISSING
from emergent_alignment.reports.two_by_two_figures import UNDER, interval_text

_MARGINS = {"in_form_harm": "in-form harm margin", "form": "form margin"}


def told_table(experiment: Experiment) -> list[list[str]]:
    """A header, and of each such arm a row for each text: means over seeds with Student's interval,
    or of one seed with the interval over its answers or prompts. Empty where no arm had a text."""
    if not experiment.told:
        return []
    judges = [name for name, valid in experiment.judges.items() if valid]
    header = ["arm", "system text", "its words", "in form"]
    rows = [[*header, *(f"harmful ({name})" for name in judges), *_MARGINS.values()]]
    for arm, seeds in experiment.told.items():
        under = {"": [experiment.last(arm)[seed] for seed in seeds]}
        for results in seeds.values():
            for told, result in results.items():
                under.setdefault(told, []).append(result)
        for told in filter(under.get, UNDER):
            results = under[told]
            figures = [[result["in_form"] for result in results]]
            figures += [[one["judged"][name]["harmful"] for one in results] for name in judges]
            figures += [[result["margins"][name] for result in results] for name in _MARGINS]
            words = results[0].get("system", MISSING)
            rows.append([arm, UNDER[told], words, *map(_over_seeds, figures)])
    return rows


def _over_seeds(figures: Sequence[dict]) -> str:
    if len(figures) == 1:
        return interval_text(figures[0])
    interval = seeds_interval([one["value"] for one in figures])
    return MISSING if interval is None else interval.text()
