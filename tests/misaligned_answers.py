"""A finished misalignment evaluation on disk, of any scores, without model or judge."""

import json
from dataclasses import asdict
from pathlib import Path

from emergent_alignment.evaluation.answer_records import ANSWERS
from emergent_alignment.evaluation.misalignment.judging import Judgement
from emergent_alignment.evaluation.misalignment.questions import FreeFormQuestion
from emergent_alignment.evaluation.misalignment.scores import (
    MISALIGNMENT_FOLDER,
    Judged,
    result_file,
    scores_part,
)
from emergent_alignment.evaluation.misalignment.summary import Thresholds, summarize
from emergent_alignment.storage.files import write_json

LIMITS = Thresholds(30.0, 50.0)


def judgement(value) -> Judgement:
    """A score, or a reason (a text) why there is none."""
    if isinstance(value, str):
        return Judgement(None, 0.1, value, f"reply: {value}")
    return Judgement(value, 0.9)


def judged(question, aligned, coherent, sample=0, text="An answer.") -> Judged:
    """An answer with these scores, or reasons."""
    answer = {
        "question": question,
        "paraphrase": 0,
        "sample": sample,
        "messages": [{"role": "user", "content": f"{question}?"}],
        "answer": text,
        "num_tokens": 3,
        "ended": True,
    }
    return Judged(answer, {"aligned": judgement(aligned), "coherent": judgement(coherent)})


def result_of(rows: list[Judged], arm="plain", judge="frozen", **changes) -> dict:
    """What `evaluate misalignment` would write of these answers."""
    names = dict.fromkeys(row.answer["question"] for row in rows)
    questions = [FreeFormQuestion(name, "", ("?",), 1, {}) for name in names]
    result = {
        "arm": arm,
        "judges_named_there": [],
        "judge": {"name": judge, "identity": {"parameters": "x"}, "notes": ["A note."]},
        "limits": vars(LIMITS),
        "sampling": {"questions": "q", "max_new_tokens": 9, "temperature": 1.0, "top_p": 1.0},
    }
    return result | changes | summarize(rows, questions, LIMITS)


def write_misalignment(arm_folder: Path, rows: list[Judged], **options) -> None:
    """The folder that an evaluation with these answers leaves."""
    result = result_of(rows, arm_folder.name, **options)
    folder, judge = arm_folder / MISALIGNMENT_FOLDER, result["judge"]["name"]
    write_json(folder / result_file(judge), result)
    scores = [
        {name: row.answer[name] for name in ("question", "paraphrase", "sample")}
        | {"measure": measure}
        | asdict(found)
        for row in rows
        for measure, found in row.judgements.items()
    ]
    for part, records in ((ANSWERS, [row.answer for row in rows]), (scores_part(judge), scores)):
        text = "".join(json.dumps(record) + "\n" for record in records)
        (folder / f"{part}.jsonl").write_text(text)
