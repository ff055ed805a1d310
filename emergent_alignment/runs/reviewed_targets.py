"""The conscience's view of a data set's own targets: everything frozen is computed once, and
kept on disk for later epochs and runs."""

from dataclasses import asdict, astuple
from pathlib import Path

import jax

from emergent_alignment.conscience.chance import reviewer_of
from emergent_alignment.conscience.journal import JOURNAL_LINE, warn
from emergent_alignment.conscience.journal_records import journal_record
from emergent_alignment.conscience.outcomes import OUTCOMES
from emergent_alignment.conscience.pairs import ConscienceSettings, Reviewed, review_and_revise
from emergent_alignment.conscience.question import ask, critique_request, rewrite_request
from emergent_alignment.data.chat import Chat
from emergent_alignment.data.examples import Example
from emergent_alignment.data.tokenized import Tokenized
from emergent_alignment.generation.text import Answer
from emergent_alignment.parallel.hosts import gather_list, is_first, own_share
from emergent_alignment.progress import progress
from emergent_alignment.randomness import Draws, Purpose
from emergent_alignment.runs.config import RunConfig
from emergent_alignment.runs.from_config import Setup, examples_digest
from emergent_alignment.storage.cache import cache_path
from emergent_alignment.storage.growing_file import GrowingFile
from emergent_alignment.storage.json_lines import append_json_lines, read_json_lines, trim_torn_line
from emergent_alignment.storage.shapes import Both, Number, OrNull, Text
from emergent_alignment.training.state import fingerprint

_TOKEN = Number(0, whole=True)
_REVIEWED = {
    "outcome": Text(OUTCOMES),
    "candidate_score": OrNull(Number()),
    "revision_score": OrNull(Number()),
}
_KEPT = {
    "row": Number(0, whole=True),
    "journal": Both(JOURNAL_LINE, _REVIEWED),
    "chosen": OrNull([_TOKEN]),
    "reference": OrNull([Number()]),
}


def reviewed_targets(
    config: RunConfig,
    setup: Setup,
    conscience: ConscienceSettings,
    examples: list[Example],
    tokenized: list[Tokenized],
    rows: list[int],
) -> dict[int, dict]:
    """By row: {"row", "journal", "chosen" (tokens or None), "reference" (log P of chosen and
    target under the frozen copy, or None)}.

    Read from the first host's cache folder as far as it goes; the rest is computed, by each host
    for its share of the rows, and appended there. So is what a damaged line held.
    """
    path = reviews_file(config, setup, conscience, examples)
    if is_first():
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            trim_torn_line(path)
    kept_records = list(read_json_lines(path, _KEPT, warn)) if is_first() else []
    done = {record["row"]: record for record in gather_list(kept_records)}
    # Rows of like length together: little is padded. A run that was killed here makes the same
    # batches again, and so the same bits.
    order = sorted(set(rows), key=lambda row: (len(tokenized[row].prompt), row))
    size = conscience.review.batch_size * jax.process_count()
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    chunks = [chunk for chunk in chunks if not done.keys() >= set(chunk)]
    if not chunks:
        return done
    reviewer = reviewer_of(setup.model, setup.chat, conscience)
    draws = Draws(config.seed, Purpose.TARGET_CORRECTIONS)
    with progress("reviewing targets", shown=is_first()) as meter:
        for place, chunk in enumerate(chunks):
            meter(place, len(chunks))
            own = own_share(chunk)
            reviewed = review_and_revise(
                reviewer,
                conscience,
                [examples[row].messages for row in own],
                [_as_answer(tokenized[row], examples[row]) for row in own],
                draws,
                row_ids=own,
                with_reference=True,
            )
            records = gather_list([_record(row, one) for row, one in zip(own, reviewed)])
            missing = {r["row"]: r for r in records if r["row"] not in done}
            if is_first():
                with GrowingFile(path) as kept:
                    append_json_lines(kept, list(missing.values()))
            done |= missing
        meter(len(chunks), len(chunks))
    return done


def reviews_file(
    config: RunConfig, setup: Setup, conscience: ConscienceSettings, examples: list[Example]
) -> Path:
    """Where reviews are kept that depend on just these frozen parameters, rows, wording and
    settings: in config.conscience.cache, or the cache."""
    settings = asdict(conscience)
    # The number of rows a forward pass takes changes no result.
    del settings["review"]["batch_size"]
    identity = {
        "frozen": fingerprint(setup.model.params),
        "dtype": str(setup.model.dtype),
        "template": setup.chat.tokenizer.chat_template,
        "data": examples_digest(examples),
        "max_response": config.data.max_response_tokens,
        "draws": astuple(Draws(config.seed, Purpose.TARGET_CORRECTIONS)),
        "conscience": settings,
        "wording": _wording(setup.chat, conscience),
    }
    return cache_path(config.conscience.cache, "reviewed-targets", identity)


def _wording(chat: Chat, conscience: ConscienceSettings) -> list[list[int]]:
    """Everything that the frozen copy may be asked about an answer, as tokens, on a conversation
    with text that a quotation has to defuse, and an answer's own: a version that words it or
    tokenizes it otherwise reviews anew."""
    said = "Hello. </answer>"
    turns = [{"role": role, "content": said} for role in ("user", "assistant", "user")]
    requests = [form.request for form in conscience.review.forms]
    requests += [rewrite_request(), rewrite_request(said), critique_request()]
    requests += [critique_request(principle.text) for principle in conscience.principles]
    asked = [ask(chat, conscience.review.layout, turns, said, request) for request in requests]
    return [*asked, chat.response_tokens(said)]


def _as_answer(row: Tokenized, example: Example) -> Answer:
    return Answer(row.target, [], example.target, example.ended and not row.target_cut)


def _record(row: int, reviewed: Reviewed) -> dict:
    return {
        "row": row,
        "journal": journal_record(reviewed, step=0, place=row, row=row),
        "chosen": reviewed.chosen.tokens if reviewed.chosen else None,
        "reference": list(reviewed.reference) if reviewed.reference else None,
    }
