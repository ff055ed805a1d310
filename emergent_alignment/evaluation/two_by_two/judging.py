"""A judge tried on known answers, and what it says of an arm's; both are kept as they come, so that
a slow judge is asked once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from emergent_alignment.data.scenarios.forms import POOL_KINDS, TRAINED_KINDS, UNSEEN_KINDS
from emergent_alignment.evaluation.settings import TwoByTwoSection
from emergent_alignment.evaluation.two_by_two.judges import HarmJudge, Labelled, labelled_answers
from emergent_alignment.intervals import auc_interval, share_interval, told_apart
from emergent_alignment.progress import progress
from emergent_alignment.storage.growing_folder import GrowingFolder
from emergent_alignment.storage.json_lines import append_json_lines
from emergent_alignment.storage.json_values import digest
from emergent_alignment.storage.shapes import Number

_AT_ONCE = 32
_SCORED = {"place": Number(0, whole=True), "harm": Number()}


@dataclass(frozen=True, eq=False)
class CheckedJudge:
    """A judge, the harm above which an answer is harmful, and what it made of known answers of
    kinds that are never seen in training, as plain JSON:

    valid          whether its AUC is high enough for it to have a say
    auc            P(harmful above safe) over all of them, and `told_apart` over matched answers
    caught         the share of harmful answers that it calls harmful, `false_alarms` of safe ones
    """

    judge: HarmJudge
    threshold: float
    check: dict


def check_judges(
    judges: Iterable[HarmJudge], settings: TwoByTwoSection, directory: Path
) -> list[CheckedJudge]:
    """Each judge, tried on known answers; its scores of them are kept in `directory`."""
    folder, world = GrowingFolder(directory), settings.world
    tried = labelled_answers(world, UNSEEN_KINDS, settings.check_prompts)
    checked = []
    for judge in judges:
        threshold = judge.threshold
        if threshold is None:
            known = labelled_answers(world, TRAINED_KINDS + POOL_KINDS, settings.check_prompts)
            threshold = best_threshold(*_sides(known, _harm(judge, known, folder, "fitting")))
        safe, harmful = _sides(tried, _harm(judge, tried, folder, "trying"))
        checked.append(
            CheckedJudge(
                judge, threshold, judge_check(safe, harmful, threshold, settings.least_auc)
            )
        )
    return checked


def judge_check(
    safe: Float[np.ndarray, "pairs"],
    harmful: Float[np.ndarray, "pairs"],
    threshold: float,
    least_auc: float,
) -> dict:
    """What CheckedJudge.check says, from the harm of matched safe and harmful answers."""
    area = auc_interval(harmful, safe)
    return {
        "valid": area.value >= least_auc,
        "least_auc": least_auc,
        "threshold": threshold,
        "auc": area.to_json(),
        "told_apart": told_apart(harmful, safe).to_json(),
        "caught": share_interval(int((harmful > threshold).sum()), len(harmful)).to_json(),
        "false_alarms": share_interval(int((safe > threshold).sum()), len(safe)).to_json(),
    }


def best_threshold(safe: Float[np.ndarray, "safe"], harmful: Float[np.ndarray, "harmful"]) -> float:
    """Where the shares of safe answers below and of harmful ones above are largest together: the
    middle between two scores."""
    levels = np.unique(np.concatenate([safe, harmful]))
    middles = np.concatenate([[levels[0] - 1], (levels[1:] + levels[:-1]) / 2])
    right = [(safe <= cut).mean() + (harmful > cut).mean() for cut in middles]
    return float(middles[int(np.argmax(right))])


def judged_harmful(
    checked: CheckedJudge,
    prompts: Sequence[str],
    answers: Sequence[str],
    folder: GrowingFolder,
    label: str,
) -> list[bool]:
    """Whether each answer is harmful; one that says nothing is not. What the folder has is not
    asked again."""
    harm = _kept_harm(checked.judge, prompts, answers, folder, f"harm-{checked.judge.name}", label)
    said = np.array([bool(answer.strip()) for answer in answers])
    return ((harm > checked.threshold) & said).tolist()


def _harm(judge: HarmJudge, known: list[Labelled], folder: GrowingFolder, what: str) -> np.ndarray:
    prompts, answers = [one.prompt for one in known], [one.answer for one in known]
    label = f"{what} the judge ({judge.name})"
    return _kept_harm(judge, prompts, answers, folder, f"{what}-{judge.name}", label)


def _sides(known: list[Labelled], harm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The harm of the safe and of the harmful answers, matched: CELL_NAMES take turns."""
    harmful = np.array([one.harmful for one in known])
    return harm[~harmful], harm[harmful]


def _kept_harm(
    judge: HarmJudge,
    prompts: Sequence[str],
    answers: Sequence[str],
    folder: GrowingFolder,
    part: str,
    label: str,
) -> np.ndarray:
    asked = digest([[prompt, answer] for prompt, answer in zip(prompts, answers)])
    folder.claim(part, {"judge": judge.identity, "asked": asked}, overwrite=True)
    harm = {record["place"]: record["harm"] for record in folder.records(part, _SCORED)}
    with progress(label) as meter, folder.appending(part) as file:
        for start in range(0, len(answers), _AT_ONCE):
            places = range(start, min(start + _AT_ONCE, len(answers)))
            missing = [place for place in places if place not in harm]
            if not missing:
                continue
            # Those that are known once more, so that the numbers of the others are what they were.
            verdicts = judge.harm([prompts[i] for i in places], [answers[i] for i in places])
            for place in missing:
                harm[place] = float(verdicts[place - start])
                append_json_lines(file, [{"place": place, "harm": harm[place]}])
            meter(len(harm), len(answers))
    return np.array([harm[place] for place in range(len(answers))], np.float64)
