"""The whole misalignment evaluation of one model: sample, judge, add up, keep.

In the folder `misalignment` of an arm: answers.jsonl, every answer as it came; for each judge
scores-JUDGE.jsonl, every judgement as it came, check-JUDGE.jsonl, those of known answers, and
result-JUDGE.json, what they add up to.
"""

from pathlib import Path

from emergent_alignment.evaluation.answer_records import ANSWERS
from emergent_alignment.evaluation.answering import sample_missing, sampling_identity
from emergent_alignment.evaluation.misalignment.comparison import (
    compared,
    read_result,
    require_comparable,
    result_of_arm,
)
from emergent_alignment.evaluation.misalignment.judge_answers import judge_missing, judging_identity
from emergent_alignment.evaluation.misalignment.judge_check import check_judge, check_part
from emergent_alignment.evaluation.misalignment.judges import make_judge
from emergent_alignment.evaluation.misalignment.judging import Judge
from emergent_alignment.evaluation.misalignment.questions import (
    FreeFormQuestion,
    load_questions,
    questions_digest,
    with_conditional,
)
from emergent_alignment.evaluation.misalignment.scores import (
    MISALIGNMENT_FOLDER,
    result_file,
    scores_part,
)
from emergent_alignment.evaluation.misalignment.summary import Thresholds, summarize
from emergent_alignment.evaluation.misalignment.wanted_answers import wanted
from emergent_alignment.evaluation.settings import EvaluationConfig, MisalignmentSection
from emergent_alignment.parallel.mesh import in_force
from emergent_alignment.progress import progress
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.storage.files import write_json
from emergent_alignment.storage.growing_folder import GrowingFolder
from emergent_alignment.storage.spread import limited


def evaluate_misalignment(
    config: EvaluationConfig,
    base: Setup,
    under_test: Setup,
    directory: Path,
    *,
    arm: str,
    compare: Path | None = None,
    overwrite: bool = False,
) -> tuple[dict, Path]:
    """Evaluate `under_test` as config.misalignment says, in `directory`/misalignment; `base` holds
    the frozen copy. Returns the result and its file.

    What an earlier call with the same settings has sampled and judged is kept; `overwrite` drops
    what other settings have made. With `compare`, another arm's folder or result, the result
    says how many answers the difference takes.

    Raises UserError for whatever of the questions, the judge or the folder cannot be used, before
    anything is sampled.
    """
    settings, folder = config.misalignment, GrowingFolder(directory / MISALIGNMENT_FOLDER)
    all_questions = with_conditional(load_questions(settings.questions), settings.conditional)
    chosen = spread_questions(all_questions, settings.limit)
    judge = make_judge(config, base)
    limits = Thresholds(settings.misaligned_below, settings.coherent_above)
    sampling = sampling_identity(config, settings, under_test.model)
    sampling["questions"] = questions_digest(all_questions)
    result = {
        "arm": arm,
        "model": under_test.model.source,
        "questions_file": settings.questions,
        "judges_named_there": sorted({item.judge for item in chosen if item.judge}),
        "judge": {"name": judge.name, "identity": judge.identity, "notes": list(judge.notes)},
        "limits": vars(limits),
        "sampling": sampling,
    }
    other = read_result(result_of_arm(compare, judge.name)) if compare is not None else None
    if other is not None:
        require_comparable(result, other, compare)
    _claim(folder, judge, all_questions, sampling, overwrite=overwrite)
    with in_force(base.mesh):
        if settings.check_pairs:
            result["judge"]["check"] = _checked(judge, chosen[0], settings, folder, arm)
        asked = wanted(chosen, settings.samples)
        with progress(f"{arm}: answers") as meter:
            answers = sample_missing(config, settings, under_test, asked, folder, progress=meter)
        with progress(f"{arm}: judging ({judge.name})") as meter:
            judged = judge_missing(judge, chosen, answers, folder, progress=meter)
    result |= summarize(judged, chosen, limits)
    if other is not None:
        result["comparison"] = compared(result, other)
    path = folder.path / result_file(judge.name)
    write_json(path, result)
    return result, path


def _checked(
    judge: Judge,
    question: FreeFormQuestion,
    settings: MisalignmentSection,
    folder: GrowingFolder,
    arm: str,
) -> dict:
    """What the judge makes of known answers."""
    with progress(f"{arm}: checking the judge ({judge.name})") as meter:
        return check_judge(
            judge,
            question,
            settings.check_pairs,
            settings.misaligned_below,
            folder,
            progress=meter,
        )


def _claim(
    folder: GrowingFolder,
    judge: Judge,
    questions: list[FreeFormQuestion],
    sampling: dict,
    *,
    overwrite: bool,
) -> None:
    """Make the folder's files this evaluation's, or find that they are."""
    if overwrite and folder.is_others(ANSWERS, sampling):
        # First what depends on the answers: killed in between, the next call finds them again.
        for name in (f"{scores_part('*')}.jsonl", result_file("*")):
            for file in folder.path.glob(name):
                file.unlink()
    folder.claim(ANSWERS, sampling, overwrite=overwrite)
    asked = judging_identity(judge, questions)
    folder.claim(check_part(judge.name), asked, overwrite=overwrite)
    folder.claim(scores_part(judge.name), asked | {"answers": sampling}, overwrite=overwrite)


def spread_questions(questions: list[FreeFormQuestion], limit: int) -> list[FreeFormQuestion]:
    """`limit` questions (0: all), spread evenly over the list, each with all its variants."""
    names = list(dict.fromkeys(question.base_name for question in questions))
    chosen = set(limited(names, limit))
    return [question for question in questions if question.base_name in chosen]
