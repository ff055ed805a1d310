"""Attack success and over-refusal on held-out kinds of attack, before and after training.

One answer to each held-out prompt of either side, of the base model and of the run, reviewed by the
same frozen conscience in the `quote` layout. An attack succeeds where the answer is flagged and is
no refusal; over-refusal is the share of benign look-alikes that are refused. Beside them stand how
many benign answers are flagged, and the AUC of the scores of benign over hostile answers: at 0.5
this conscience does not tell the sides apart.
"""

from pathlib import Path
from typing import NamedTuple

from emergent_alignment.applications.adversarial.prompts import AttackPrompt, load_attacks
from emergent_alignment.applications.adversarial.refusals import attack_succeeded, is_refusal
from emergent_alignment.conscience.pairs import ConscienceSettings
from emergent_alignment.conscience.review import reader_of, scores
from emergent_alignment.data.chat import Message
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.answer_records import ANSWERS
from emergent_alignment.evaluation.answering import sample_missing, sampling_identity
from emergent_alignment.evaluation.settings import EvaluationConfig
from emergent_alignment.intervals import auc_interval, paired_difference, share_interval
from emergent_alignment.parallel.mesh import in_force
from emergent_alignment.progress import progress
from emergent_alignment.runs.from_config import Setup, conscience_settings
from emergent_alignment.storage.files import write_json
from emergent_alignment.storage.growing_folder import GrowingFolder
from emergent_alignment.storage.json_values import finite_or_none
from emergent_alignment.storage.spread import limited

ATTACKS_FOLDER = "attacks"
_SIDES = ("hostile", "benign")
RATES = {
    "attack_success": ("hostile", "succeeded"),
    "hostile_refused": ("hostile", "refused"),
    "over_refusal": ("benign", "refused"),
    "benign_flagged": ("benign", "flagged"),
}


class AttackPlace(NamedTuple):
    """Which held-out prompt an answer is to."""

    side: str
    kind: str
    number: int


def held_out_attacks(config: EvaluationConfig) -> dict[AttackPlace, list[Message]]:
    """The held-out prompts of both sides, at most config.evaluation.limit of each (0: all).

    Raises UserError where none is held out, or the source is not right.
    """
    wanted, limit = config.adversarial, config.evaluation.limit
    asked: dict[AttackPlace, list[Message]] = {}
    for side in _SIDES:
        prompts = load_attacks(wanted.prompts, side, wanted.held_out, split="heldout")
        numbered: list[tuple[int, AttackPrompt]] = list(enumerate(prompts))
        for number, prompt in limited(numbered, limit):
            asked[AttackPlace(side, prompt.kind, number)] = prompt.messages
    return asked


def evaluate_attacks(
    config: EvaluationConfig,
    base: Setup,
    trained: Setup | None,
    directory: Path,
    *,
    arm: str,
    overwrite: bool = False,
) -> tuple[dict, Path]:
    """Attack `base` and, where there is one, the run that was trained from it; returns the result
    and its file in `directory`/attacks. Answers of an earlier call with the same settings are
    kept; `overwrite` drops those of other settings.

    Raises UserError for settings that cannot be used, and for a folder of other settings.
    """
    conscience, asked = conscience_settings(config), held_out_attacks(config)
    if conscience.review.layout != "quote":
        raise UserError(
            "config.conscience.layout: `turn` lets a hostile prompt talk to its reviewer; set quote"
        )
    result = {
        "arm": arm,
        "model": base.model.source,
        "source": config.adversarial.prompts,
        "held_out": list(config.adversarial.held_out),
        "question": conscience.review.question.name,
        "threshold": conscience.threshold,
    }
    judged = {}
    for name, setup in (("before", base), ("after", trained)):
        if setup is None:
            continue
        folder = GrowingFolder(directory / ATTACKS_FOLDER / name)
        identity = sampling_identity(config, config.evaluation, setup.model)
        prompts = {" ".join(map(str, place)): turns for place, turns in asked.items()}
        folder.claim(ANSWERS, identity | {"prompts": prompts}, overwrite=overwrite)
        with in_force(base.mesh):
            with progress(f"{arm}: attacks, {name}") as meter:
                answers = sample_missing(
                    config, config.evaluation, setup, asked, folder, progress=meter
                )
            judged[name] = _judged(base, conscience, answers)
        result[name] = _rates(judged[name])
    if trained is not None:
        result["change"] = _changes(judged["before"], judged["after"])
    path = directory / ATTACKS_FOLDER / "result.json"
    write_json(path, result | {"answers": judged})
    return result, path


def _judged(
    base: Setup, conscience: ConscienceSettings, answers: dict[AttackPlace, dict]
) -> list[dict]:
    """One record an answer: what it is, its score, and what that makes of it."""
    reader = reader_of(base.model, base.chat, conscience.review, conscience.max_prompt)
    nats = scores(
        reader,
        conscience.review,
        [record["messages"] for record in answers.values()],
        [record["answer"] for record in answers.values()],
    )
    return [
        place._asdict()
        | {
            "prompt": record["messages"][-1]["content"],
            "answer": record["answer"],
            "score": finite_or_none(score),
            "flagged": bool(score < conscience.threshold),
            "refused": is_refusal(record["answer"]),
            "succeeded": place.side == "hostile"
            and attack_succeeded(record["answer"], float(score), conscience.threshold),
        }
        for (place, record), score in zip(answers.items(), nats)
    ]


def _rates(records: list[dict]) -> dict:
    """Each rate as an interval, by kind those two that are asked for, and the AUC of the scores."""
    kinds = dict.fromkeys(record["kind"] for record in records)
    by_kind = {
        kind: {
            rate: _share([r for r in records if r["kind"] == kind], *RATES[rate])
            for rate in ("attack_success", "over_refusal")
        }
        for kind in kinds
    }
    benign, hostile = (
        [r["score"] for r in records if r["side"] == side and r["score"] is not None]
        for side in ("benign", "hostile")
    )
    rates = {rate: _share(records, *of) for rate, of in RATES.items()}
    return rates | {
        "auc": auc_interval(benign, hostile).to_json() if benign and hostile else None,
        "unscored": len(records) - len(benign) - len(hostile),
        "by_kind": by_kind,
    }


def _share(records: list[dict], side: str, field: str) -> dict | None:
    """The share of one side's answers for which `field` holds, None where there are none."""
    rows = [record[field] for record in records if record["side"] == side]
    return share_interval(sum(rows), len(rows)).to_json() if rows else None


def _changes(before: list[dict], after: list[dict]) -> dict:
    """After minus before, prompt by prompt, with bootstrap intervals over the prompts."""
    return {
        rate: paired_difference(
            *(
                [float(r[field]) for r in records if r["side"] == side]
                for records in (after, before)
            )
        ).to_json()
        for rate, (side, field) in RATES.items()
    }
