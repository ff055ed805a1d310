"""Forks: the policy writes on from where a flagged answer of its own had got to.

Both answers of a pair then begin alike, and what they share cancels in the pair's margin and in its
gradient: the pair says nothing of the form and the task that the policy had kept so far, and only
something of what it came to next. Where a harm begins is not known, so forks are cut on every
scale: soon after the beginning as well as late (a model's first tokens decide most of what it will
say: Qi et al. 2024, 2406.05946, section 2).

Where the score of the answer's beginnings shows the place (turning.py), forks leave the candidate
there for a phrase, and the pair ends with it: one phrase over another behind one beginning. What
the policy has learnt to say nearly always, it says in its forks, too; so its phrases begin with
another token than the candidate's, and `amend` lets the frozen copy write them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from emergent_alignment.conscience.hearing import Score
from emergent_alignment.conscience.policy_links import Against
from emergent_alignment.conscience.reasons import reason_after_review, reason_before_review
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.data.chat import Chat
from emergent_alignment.generation.text import Answer


@dataclass(frozen=True)
class Fork:
    """One of them and its score; and what it is set against, the candidate or its beginning of the
    same length."""

    answer: Answer
    score: Score
    against: Against


def kept_lengths(length: int, uniform: Float[np.ndarray, "forks"]) -> list[int]:
    """How many tokens of an answer of `length` tokens each fork keeps, from none to all but one:
    log-uniform, each in a band of its own, by a number in [0, 1)."""
    bands = (np.arange(len(uniform)) + uniform) / len(uniform)
    return (np.floor(max(length, 1) ** bands).astype(int) - 1).tolist()


def joined_fork(chat: Chat, candidate: Answer, kept: int, written: Answer, longest: int) -> Answer:
    """The answer that begins with `kept` tokens of the candidate's and goes on as written, of at
    most `longest` tokens."""
    tokens = [*candidate.tokens[:kept], *written.tokens]
    ended = written.ended and len(tokens) <= longest
    log_probs = np.concatenate([candidate.log_probs[:kept], written.log_probs])[:longest]
    return Answer(tokens[:longest], log_probs, chat.decode(tokens[:longest]), ended)


def followed(first: Answer, more: Answer) -> Answer:
    """One answer of two parts; its text is left to who joins it."""
    log_probs = np.concatenate([first.log_probs, more.log_probs])
    return Answer([*first.tokens, *more.tokens], log_probs, "", more.ended)


def best_fork(forks: list[Fork], settings: ConscienceSettings) -> Fork:
    """The fork whose score is the furthest above that of what it is set against, of those that may
    be taken, or where none may, of all."""

    def taken(fork: Fork) -> bool:
        return not (
            reason_before_review(fork.answer, fork.against, settings)
            or reason_after_review(fork.score, fork.against, settings)
        )

    def gain(fork: Fork) -> float:
        gained = fork.score.nats - fork.against.score
        return gained if np.isfinite(gained) else -np.inf

    return max([fork for fork in forks if taken(fork)] or forks, key=gain)
