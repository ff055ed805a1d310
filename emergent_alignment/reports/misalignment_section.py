"""The report's section on misalignment: for each judge a table, bars by question, and answers."""

from collections import Counter
from collections.abc import Sequence

from markupsafe import Markup

from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.misalignment.comparison import compared, require_comparable
from emergent_alignment.evaluation.misalignment.questions import CONDITIONAL, MEASURES
from emergent_alignment.evaluation.misalignment.scores import Judged
from emergent_alignment.evaluation.misalignment.summary import DENOMINATORS
from emergent_alignment.reports import plots
from emergent_alignment.reports.judge_agreement import agreement
from emergent_alignment.reports.misalignment_notes import mean_text, notes_on, percent, power_note
from emergent_alignment.reports.misalignment_results import JudgedArm
from emergent_alignment.reports.results_folder import MISSING, ArmResults
from emergent_alignment.storage.spread import spread

NUM_ANSWERS = 60
VERDICTS = ("misaligned", "not misaligned", "not coherent", "no score")


def misalignment_sections(arms: Sequence[ArmResults]) -> list[dict]:
    """What the template shows of each judge, arms in their order."""
    judges = sorted({judged.judge for arm in arms for judged in arm.judged})
    by_judge = {judge: _by_arm(arms, judge) for judge in judges}
    return [_section(judge, by_judge) for judge in judges]


def _by_arm(arms: Sequence[ArmResults], judge: str) -> dict[str, JudgedArm]:
    return {arm.name: judged for arm in arms for judged in arm.judged if judged.judge == judge}


def _section(judge: str, by_judge: dict[str, dict[str, JudgedArm]]) -> dict:
    by_arm = by_judge[judge]
    limits = next(iter(by_arm.values())).result["limits"]
    return {
        "judge": judge,
        "limits": limits,
        "arms": list(by_arm),
        "rows": [
            *_rows([one.result["overall"] for one in by_arm.values()]),
            *_conditional([one.result["variants"] for one in by_arm.values()]),
            *_agreements(judge, by_judge),
        ],
        "notes": [(arm, notes_on(one.result)) for arm, one in by_arm.items()],
        "comparisons": _comparisons(by_arm),
        "figures": _figures(judge, by_arm),
        "answers": _answers(by_arm),
        "num_answers": sum(len(one.answers) for one in by_arm.values()),
        "verdicts": [
            (verdict, count) for verdict in VERDICTS if (count := _count(by_arm, verdict))
        ],
    }


def _rows(overall: list[dict]) -> list[tuple[str, list[str]]]:
    rows = [
        (f"misaligned {words}", [percent(figures["misaligned_share"][name]) for figures in overall])
        for name, words in DENOMINATORS.items()
    ]
    for measure in MEASURES:
        rows.append((f"{measure}, mean", [mean_text(figures[measure]) for figures in overall]))
    counts = [f"{figures['num_scored']} of {figures['num_answers']}" for figures in overall]
    return [*rows, ("answers with both scores", counts)]


def _conditional(variants: list[dict]) -> list[tuple[str, list[str]]]:
    """The share where prompts look like the training's, if any arm was asked so."""
    asked = [of_arm.get(CONDITIONAL) for of_arm in variants]
    cells = [percent(one["misaligned_share"]["of_all"]) if one else MISSING for one in asked]
    return [("misaligned where prompts look like the training's, of all", cells)] * any(asked)


def _agreements(
    judge: str, by_judge: dict[str, dict[str, JudgedArm]]
) -> list[tuple[str, list[str]]]:
    """With every other judge, arm by arm; a share that one judge gave has none beside it."""
    by_arm = by_judge[judge]
    rows = []
    for other in by_judge.keys() - {judge}:
        intervals = [
            agreement(one, by_judge[other][arm]) if arm in by_judge[other] else None
            for arm, one in by_arm.items()
        ]
        cells = [one.text() if one else MISSING for one in intervals]
        rows.append((f"agreement with {other} on what is misaligned", cells))
    alone = ("agreement with another judge", ["unknown: there is no other"] * len(by_arm))
    return sorted(rows) or [alone]


def _comparisons(by_arm: dict[str, JudgedArm]) -> list[str]:
    """Every other arm against plain, or against the first one where there is no plain arm."""
    against = "plain" if "plain" in by_arm else next(iter(by_arm))
    theirs, notes = by_arm[against].result, []
    for arm, one in by_arm.items():
        if arm == against:
            continue
        try:
            require_comparable(one.result, theirs, against)
        except UserError as error:
            notes.append(f"{arm}: {error}")
            continue
        notes.append(f"{arm}: {power_note(compared(one.result, theirs))}")
    return notes


def _figures(judge: str, by_arm: dict[str, JudgedArm]) -> list[tuple[str, Markup]]:
    """Bars by question, its variants together."""
    asked = (
        (
            "misaligned, percent of scored answers",
            lambda f: f["misaligned_share"]["of_scored"],
            100,
        ),
        ("aligned, mean", lambda f: f["aligned"], 1),
    )
    figures = []
    for label, figure, unit in asked:
        bars = {
            arm: {
                question: unit * value["value"]
                for question, figures_of in one.result["questions"].items()
                if (value := figure(figures_of)) is not None
            }
            for arm, one in by_arm.items()
        }
        if any(bars.values()):
            title = f"By question, judged by {judge}: {label}"
            figures.append((title, plots.bar_plot(bars, label, title)))
    return figures


def _answers(by_arm: dict[str, JudgedArm]) -> list[dict]:
    """A sample for browsing: up to half of it misaligned answers, the rest spread over all."""
    rows = [(arm, one.verdict(row), row) for arm, one in by_arm.items() for row in one.answers]
    misaligned = spread([row for row in rows if row[1] == "misaligned"], NUM_ANSWERS // 2)
    others = spread([row for row in rows if row[1] != "misaligned"], NUM_ANSWERS - len(misaligned))
    return [_answer(arm, verdict, row) for arm, verdict, row in misaligned + others]


def _answer(arm: str, verdict: str, row: Judged) -> dict:
    return {
        "arm": arm,
        "verdict": verdict,
        "question": row.answer["question"],
        "messages": [(m["role"], m["content"]) for m in row.answer["messages"]],
        "answer": row.answer["answer"],
        "scores": [(measure, _said(row, measure)) for measure in MEASURES],
    }


def _said(row: Judged, measure: str) -> str:
    judgement = row.judgements[measure]
    if judgement.score is not None:
        return f"{judgement.score:.0f}"
    return f"{MISSING} ({judgement.reason}{f': {judgement.reply!r}' if judgement.reply else ''})"


def _count(by_arm: dict[str, JudgedArm], verdict: str) -> int:
    counts = Counter(one.verdict(row) for one in by_arm.values() for row in one.answers)
    return counts[verdict]
