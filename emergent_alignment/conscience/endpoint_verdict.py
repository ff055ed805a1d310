"""An endpoint's reply as a score: from the log-probs that it returns, else from its text.

score = log P(approving words) − log P(disapproving words), in nats, as with our own models; but
an endpoint shows only the likeliest tokens. A side none of whose words is among them counts as
likely as the least likely one shown, which is more than any one of its spellings has. Text gives
+1 or −1.
"""

import math
import re

from emergent_alignment.conscience.review import Form
from emergent_alignment.data.reasoning import split_reasoning
from emergent_alignment.generation.completion import Completion, TokenLogProbs

APPROVES, DISAPPROVES = 1.0, -1.0
_FIRST_WORD = re.compile(r"\W*(?:answer\b\W*)?(\w+)", re.IGNORECASE)


def score_from_log_probs(completion: Completion, form: Form) -> float | None:
    """The score in nats at the first token that answers (after a <think> block), or at the
    first token of all where none does; None where no answer word is among the likeliest there.
    """
    tokens = _after_reasoning(completion.tokens)
    words = _spelled(form.approving), _spelled(form.disapproving)
    answering = (token for token in tokens if _bare(token.token) in words[0] | words[1])
    at = next(answering, tokens[0] if tokens else None)
    if at is None or not at.top:
        return None
    listed = at.top if at.token in at.top else at.top | {at.token: at.log_prob}
    masses = [_log_mass(listed, side) for side in words]
    if masses == [None, None]:
        return None
    least = min(listed.values())
    approving, disapproving = (least if mass is None else mass for mass in masses)
    return approving - disapproving


def score_from_text(text: str, form: Form) -> float | None:
    """+1 or −1 where the reply's first word (after a <think> block) is an answer word, else
    None: a word further on may stand in any sentence."""
    first = _FIRST_WORD.match(split_reasoning(text)[1])
    word = first[1].lower() if first else ""
    if word in _spelled(form.approving):
        return APPROVES
    return DISAPPROVES if word in _spelled(form.disapproving) else None


def _spelled(words: tuple[str, ...]) -> set[str]:
    return {word.lower() for word in words}


def _log_mass(listed: dict[str, float], words: set[str]) -> float | None:
    """log of the summed probabilities of all spellings: case and blanks do not matter."""
    log_probs = [value for token, value in listed.items() if _bare(token) in words]
    largest = max(log_probs, default=-math.inf)
    if largest == -math.inf:
        return None
    return largest + math.log(sum(math.exp(value - largest) for value in log_probs))


def _bare(token: str) -> str:
    """A token without case and blanks, which some servers give as their tokenizer spells them."""
    return token.strip(" \t\n\u0120\u2581").lower()


def _after_reasoning(tokens: tuple[TokenLogProbs, ...]) -> tuple[TokenLogProbs, ...]:
    text, starts = "", []
    for token in tokens:
        starts.append(len(text))
        text += token.token
    end = text.rfind("</think>")
    if end < 0:
        return tokens
    return tuple(token for token, start in zip(tokens, starts) if start >= end + len("</think>"))
