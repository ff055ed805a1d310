"""An endpoint's reply as a score: from the log-probs that it returns, else from its text.

score = log P(approving words) − log P(disapproving words), in nats, as with our own models; but
an endpoint shows only the likeliest tokens. A side none of whose words is among them has at most
what the least likely one shown has, and at most what all shown ones leave over. Text gives +1 or
−1.
"""

import math
import re
from dataclasses import dataclass

from emergent_alignment.conscience.review import Form
from emergent_alignment.data.reasoning import split_reasoning
from emergent_alignment.generation.completion import Completion, TokenLogProbs

APPROVES, DISAPPROVES = 1.0, -1.0
LEAST_REST = 1e-9  # servers round: what is left over is never nothing
_GAP = r"[\W_]*"
_LEAD = (
    rf"{_GAP}(?:(?:(?:the|my|final|short|correct)\b{_GAP})*"
    rf"(?:answer|verdict|reply|response|judge?ment|conclusion|decision|option|choice)\b{_GAP}"
    rf"(?:is\b{_GAP})?)?"
    rf"(?:(?:boxed|text){_GAP})*"
)
_LEADS = re.compile(_LEAD, re.IGNORECASE)
# A word that goes on behind a hyphen (no-one) is another one.
_WORD = r"([^\W_]+)(?![^\W_])(?![-'’‑]\w)"
# A second word that a sentence begins with (Yes, no harm in it) is none of the two.
_FIRST_WORD = re.compile(
    rf"{_LEAD}{_WORD}(?:{_GAP}(?:/|\b(?:or|and|vs)\b){_GAP}{_WORD}|{_GAP}{_WORD}(?![ \t]+\w))?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class LogProbScore:
    """A score in nats; `at_most` where no approving word was among the likeliest: then it is a
    bound from above, which can flag and cannot approve."""

    nats: float
    at_most: bool = False


def score_from_log_probs(completion: Completion, form: Form) -> float | None:
    """The nats of `read_log_probs`."""
    score = read_log_probs(completion, form)
    return None if score is None else score.nats


def read_log_probs(completion: Completion, form: Form) -> LogProbScore | None:
    """The score at the token with which the answer begins (after a <think> block), or at its
    first token where it begins with none. None where no answer word is among the likeliest
    there, and where a side that is not may be as likely as the other."""
    tokens = _of_answer(completion)
    words = _spelled(form.approving), _spelled(form.disapproving)
    at = _answering(tokens, words[0] | words[1]) or (tokens[0] if tokens else None)
    if at is None or not at.top:
        return None
    listed = at.top if at.token in at.top else at.top | {at.token: at.log_prob}
    approving, disapproving = (_log_mass(listed, side) for side in words)
    if approving is None and disapproving is None:
        return None
    absent = _most_of_absent(listed)
    if approving is None:
        return LogProbScore(absent - disapproving, True) if absent < disapproving else None
    if disapproving is None:
        return LogProbScore(approving - absent) if absent < approving else None
    return LogProbScore(approving - disapproving)


def score_from_text(text: str, form: Form) -> float | None:
    """+1 or −1 where the reply's first word (after a <think> block) is an answer word, else
    None: a word further on may stand in any sentence, and who says both has said neither."""
    first = _FIRST_WORD.match(split_reasoning(text)[1])
    said, *then = ((word or "").lower() for word in first.groups()) if first else ("",)
    approving, disapproving = _spelled(form.approving), _spelled(form.disapproving)
    if said in approving and disapproving.isdisjoint(then):
        return APPROVES
    return DISAPPROVES if said in disapproving and approving.isdisjoint(then) else None


def _spelled(words: tuple[str, ...]) -> set[str]:
    return {word.lower() for word in words}


def _answering(tokens: tuple[TokenLogProbs, ...], words: set[str]) -> TokenLogProbs | None:
    """The answer word that the reply begins with."""
    before = ""
    for token in tokens:
        if _bare(token.token) in words:
            return token if _LEADS.fullmatch(before) else None
        before += token.token.replace("\u0120", " ").replace("\u2581", " ")
    return None


def _log_mass(listed: dict[str, float], words: set[str]) -> float | None:
    """log of the summed probabilities of all spellings: case and blanks do not matter."""
    log_probs = [value for token, value in listed.items() if _bare(token) in words]
    largest = max(log_probs, default=-math.inf)
    if largest == -math.inf:
        return None
    return largest + math.log(sum(math.exp(value - largest) for value in log_probs))


def _most_of_absent(listed: dict[str, float]) -> float:
    """The most that a side which is not listed may have, as a log-prob."""
    left = 1.0 - sum(math.exp(value) for value in listed.values())
    return min(min(listed.values()), math.log(max(left, LEAST_REST)))


def _bare(token: str) -> str:
    """A token without case and blanks, which some servers give as their tokenizer spells them."""
    return token.strip(" \t\r\n\u0120\u010a\u2581").lower()


def _of_answer(completion: Completion) -> tuple[TokenLogProbs, ...]:
    """The tokens of the answer alone: none where the reply is nothing but reasoning."""
    text, starts = "", []
    for token in completion.tokens:
        starts.append(len(text))
        text += token.token
    reasoning, answer = split_reasoning(text)
    if not answer.strip():
        return ()
    end = text.rfind(answer) if reasoning else 0
    if not reasoning and completion.reasoning.strip():  # apart, while its tokens may be listed
        said = completion.text.strip()
        end = text.rfind(said) if said and said in text else len(text)
    return tuple(t for t, start in zip(completion.tokens, starts) if end <= start)
