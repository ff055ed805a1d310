"""Corrections: what is written in place of an answer that is disapproved of.

By the frozen copy: `rewrite` shows it the answer and asks for a better one; `fresh` lets it answer
the prompt anew without seeing the flagged answer. By the policy itself (policy_links.py): `self`
answers again with the question before it; `best` is the best of several samples over the worst;
`fork` writes on from where the flagged answer had got to. `amend` is a fork that the frozen copy
writes.
"""

from dataclasses import replace
from typing import Literal

import numpy as np
from jaxtyping import Float

from emergent_alignment.conscience.question import critique_request, rewrite_request
from emergent_alignment.conscience.reader import Case, Reader, Shown
from emergent_alignment.generation.sampler import Sampler
from emergent_alignment.generation.text import Answer

Link = Literal["rewrite", "fresh", "self", "best", "fork", "amend"]
# What begins with what the policy sampled, and so is the business of its step.
POLICY_LINKS: tuple[Link, ...] = ("self", "best", "fork", "amend")
FORK_LINKS: tuple[Link, ...] = ("fork", "amend")
FROZEN_LINKS: tuple[Link, ...] = ("rewrite", "fresh")


def requests_to_write(chain: tuple[Link, ...], critique: bool) -> list[str]:
    """What the corrections will ask about a candidate, as far as it is known beforehand."""
    wanted = [rewrite_request()] if "rewrite" in chain else []
    return [*wanted, critique_request()] if critique else wanted


def write_corrections(
    reader: Reader,
    link: Link,
    prompts: Shown,
    case: Case,
    before: Shown,
    critiques: list[str],
    live: list[bool],
    sampler: Sampler,
) -> tuple[Case, np.ndarray | None]:
    """One correction for each `live` row of the case, as a case of their own; and log
    P(correction | prompt) under the frozen parameters, where writing it gave it.

    `before` is what was read of the candidates already; `fresh` reads only the prompts.
    """
    if link == "fresh":
        answers, block = reader.write(prompts, live, sampler)
        return reader.written(prompts, case.messages, answers, block), _log_probs(answers)
    requests = [rewrite_request(critique) for critique in critiques]
    asked = reader.extend(before, reader.rows(case, requests, live))
    answers, _ = reader.write(asked, live, sampler)
    return _rewritten(reader, prompts, case, answers, sampler)


def write_side_by_side(
    reader: Reader,
    prompts: Shown | None,
    case: Case,
    critiques: list[str],
    live: list[bool],
    samplers: dict[Link, Sampler],
) -> dict[Link, tuple[Case, np.ndarray | None]]:
    """What `write_corrections` gives by `rewrite` and by `fresh`, written in one batch, whose rows
    are read whole. `prompts` is what was read of them, where the reader's layout needs it."""
    requests = [rewrite_request(critique) for critique in critiques]
    asked = [reader.rows(case, requests, live), reader.prompt_rows(case.messages, live)]
    rewrites, fresh = reader.write_apart(asked, live, [samplers["rewrite"], samplers["fresh"]])
    return {
        "rewrite": _rewritten(reader, prompts, case, rewrites, samplers["rewrite"]),
        "fresh": (reader.case(prompts, case.messages, fresh)[0], _log_probs(fresh)),
    }


def _rewritten(
    reader: Reader, prompts: Shown | None, case: Case, answers: list[Answer], sampler: Sampler
) -> tuple[Case, np.ndarray | None]:
    """What was written in reply to another request: as an answer to the prompt it is read anew."""
    longest = int(sampler.settings.max_new_tokens)
    drafted = [_drafted(reader, answer, longest) for answer in answers]
    return reader.case(prompts, case.messages, drafted)


def _log_probs(answers: list[Answer]) -> Float[np.ndarray, "rows"]:
    return np.array([answer.log_probs.sum(dtype=np.float64) for answer in answers])


def _drafted(reader: Reader, answer: Answer, longest: int) -> Answer:
    """A reply written at once, as an answer of at most `longest` tokens that a prompt leads to."""
    tokens = reader.chat.as_drafted(answer.tokens)
    if tokens == answer.tokens:
        return answer
    ended = answer.ended and len(tokens) <= longest
    none = np.zeros(0, np.float32)
    return replace(answer, tokens=tokens[:longest], log_probs=none, ended=ended)


def write_critiques(
    reader: Reader,
    case: Case,
    before: Shown,
    live: list[bool],
    principles: list[str],
    sampler: Sampler,
) -> list[str]:
    """The frozen copy's short written critique of each `live` row's answer, by the row's principle
    ("": by none)."""
    rows = reader.rows(case, [critique_request(principle) for principle in principles], live)
    answers, _ = reader.write(reader.extend(before, rows), live, sampler)
    return [answer.text for answer in answers]
