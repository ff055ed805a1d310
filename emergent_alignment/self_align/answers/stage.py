"""Stage 2, principle-driven self-alignment, from instructions to answers worth learning."""

from collections import Counter
from dataclasses import dataclass

from emergent_alignment.conscience.outcomes import OUTCOMES
from emergent_alignment.errors import UserError
from emergent_alignment.self_align.answers.filters import (
    ANSWER_RULES,
    AnswerFilter,
    answer_filter,
)
from emergent_alignment.self_align.answers.guidance import Guidance, read_guidance
from emergent_alignment.self_align.answers.prompt import (
    THOUGHTS,
    Written,
    prompt_rows,
    read_written,
)
from emergent_alignment.self_align.answers.review import Candidate, check_review, reviewed_answers
from emergent_alignment.self_align.answers.sampling import sampled_answers
from emergent_alignment.self_align.settings import SelfAlignConfig
from emergent_alignment.self_align.stages import StageResult, StageRun
from emergent_alignment.storage.spread import limited

FILES = ("principles", "examples")
_INSTRUCTIONS = 1  # the stage whose rows are answered
_SHOWN = 4  # examples of each outcome that the report may show
FLAGGED, SPOILT = "conscience", "correction"


@dataclass(frozen=True)
class FilteredAnswer:
    """One answer and what became of it: "" kept, or the rule that dropped it."""

    row: dict
    written: Written
    response: str
    ended: bool
    rule: str


def check(config: SelfAlignConfig) -> None:
    """Raise UserError for principles, examples or settings that cannot be used."""
    read_guidance(config.self_align.answers)
    check_review(config)


def run(stage: StageRun) -> StageResult:
    """Answer every instruction under the principles, and keep what passes the filters."""
    guidance = read_guidance(stage.config.self_align.answers)
    rows = stage.inputs[_INSTRUCTIONS].rows()
    rows = limited(rows, stage.config.self_align.answers.limit)
    prompts = prompt_rows(stage.setup.chat, guidance, (row["instruction"] for row in rows))
    records = sampled_answers(stage, prompts)
    rules = answer_filter(stage.config.self_align.answers, guidance)
    judged = [_judged(rules, row, record) for row, record in zip(rows, records)]
    counts = {"made": len(rows), "answer_tokens": sum(record["tokens"] for record in records)}
    if stage.config.self_align.answers.review:
        judged, counts["review"] = _after_review(stage, rules, judged)
    return _finished(stage, guidance, judged, counts)


def _judged(rules: AnswerFilter, row: dict, record: dict) -> FilteredAnswer:
    written = read_written(record["text"])
    rule = rules.broken_rule(row["instruction"], written, record["ended"])
    return FilteredAnswer(row, written, written.answer, record["ended"], rule)


def _after_review(
    stage: StageRun, rules: AnswerFilter, judged: list[FilteredAnswer]
) -> tuple[list[FilteredAnswer], dict[str, int]]:
    """Flagged answers are replaced or dropped; corrections go through the filters, too."""
    candidates = [
        Candidate(place, one.row["instruction"], one.response, one.ended)
        for place, one in enumerate(judged)
        if not one.rule
    ]
    reviews = reviewed_answers(stage, candidates)
    outcomes = Counter(record["outcome"] for record in reviews.values())
    after = []
    for place, one in enumerate(judged):
        if place in reviews:
            one = _replaced(rules, one, reviews[place])
        after.append(one)
    return after, {outcome: outcomes[outcome] for outcome in OUTCOMES}


def _replaced(rules: AnswerFilter, one: FilteredAnswer, review: dict) -> FilteredAnswer:
    response, ended = review["response"], review["ended"]
    if response is None:
        return FilteredAnswer(one.row, one.written, one.response, one.ended, FLAGGED)
    broken = rules.broken_by_text(one.row["instruction"], response, ended)
    rule = SPOILT if broken and response != one.response else ""
    return FilteredAnswer(one.row, one.written, response, ended, rule)


def _finished(
    stage: StageRun, guidance: Guidance, judged: list[FilteredAnswer], counts: dict
) -> StageResult:
    kept = [one for one in judged if not one.rule]
    dropped = Counter(one.rule for one in judged if one.rule)
    names = (*ANSWER_RULES, *((FLAGGED, SPOILT) if "review" in counts else ()))
    counts |= {"kept": len(kept), "dropped": {rule: dropped[rule] for rule in names}}
    if not kept:
        raise UserError(_nothing_left(stage, dropped))
    stage.folder.write_rows(_as_row(guidance, one) for one in kept)
    named = Counter(name for one in kept for name in guidance.named_in(one.written.thoughts))
    counts["ended"] = sum(one.ended for one in kept)
    counts["principles"] = {p.name: named[p.name] for p in guidance.principles}
    return StageResult(counts, _examples(guidance, judged))


def _as_row(guidance: Guidance, one: FilteredAnswer) -> dict:
    return {
        "prompt": one.row["instruction"],
        "response": one.response,
        "ended": one.ended,
        "kind": one.row.get("kind", ""),
        "thoughts": one.written.thoughts,
        "principles": guidance.named_in(one.written.thoughts),
    }


def _examples(guidance: Guidance, judged: list[FilteredAnswer]) -> list[dict]:
    """A few of each outcome, as they were written."""
    shown: Counter = Counter()
    examples = []
    for one in judged:
        shown[one.rule] += 1
        if shown[one.rule] <= _SHOWN:
            examples.append(_as_row(guidance, one) | {"dropped_by": one.rule})
    return examples


def _nothing_left(stage: StageRun, dropped: Counter) -> str:
    advice = ANSWER_RULES | {
        FLAGGED: "the conscience flagged them; see config.conscience.threshold and chain",
        SPOILT: "corrections broke the rules; see config.sampling.max_new_tokens",
    }
    said = "; ".join(f"{rule} {count} ({advice[rule]})" for rule, count in dropped.most_common())
    return (
        f"{stage.folder.path}: no answer is left, of {sum(dropped.values())}: {said}. The fields "
        f"are those of config.self_align.answers; {stage.folder.kept.part_file('answers')} holds "
        f"what was written after {THOUGHTS!r}"
    )
