"""An OpenAI-compatible endpoint as a judge: the expectation from the log-probs it returns.

An endpoint shows the likeliest tokens at each place of one reply, not the whole distribution.
One that goes on from a started answer is asked for the digits after each beginning; with others
the rest of a number is known for the likeliest beginning only, and taken from there.
"""

import math
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field

import numpy as np

from emergent_alignment.evaluation.misalignment.judging import (
    NUM_REPLY_TOKENS,
    Judgement,
    not_scored,
    scored,
)
from emergent_alignment.evaluation.misalignment.numerals import (
    LARGEST,
    NUMERAL,
    changes_scale,
    extended,
    part_of,
)
from emergent_alignment.generation.endpoint import Completion, Endpoint, EndpointError

NUM_TOP = 20  # the most that OpenAI's API gives
LEAST_CHANCE = 1e-3  # rarer beginnings are not asked about one by one
_SEEN = f"Of each place of a reply only the {NUM_TOP} likeliest tokens are known."
_CONTINUED = (
    f"After beginnings of a number that are rarer than {LEAST_CHANCE:g}, the rest is taken from "
    "the likeliest beginning."
)
_NOT_CONTINUED = (
    "The endpoint does not go on from a started answer: after all beginnings of a number but the "
    "likeliest, the rest is taken from the likeliest."
)
_COUNTING = [
    {"role": "user", "content": "Count from one to ten in words, with commas. Only count."},
    {"role": "assistant", "content": "one, two, three,"},
]


@dataclass(frozen=True)
class EndpointJudge:
    """A model behind an endpoint that judges; what it can do is found out when it is made.

    Raises EndpointError where the endpoint is down, refuses the key, hangs, or returns no
    log-probs.
    """

    name: str
    endpoint: Endpoint
    least_mass: float
    num_parallel: int
    continues: bool = field(init=False)
    identity: dict = field(init=False)
    notes: tuple[str, ...] = field(init=False)

    def __post_init__(self):
        self._asked([{"role": "user", "content": "Reply with a number from 0 to 100."}], 2)
        object.__setattr__(self, "continues", self._goes_on())
        identity = {"base_url": self.endpoint.base_url, "model": self.endpoint.model}
        identity |= {"least_mass": self.least_mass, "continues": self.continues}
        object.__setattr__(self, "identity", identity)
        object.__setattr__(self, "notes", (_SEEN, _CONTINUED if self.continues else _NOT_CONTINUED))

    def judge(
        self, prompts: Sequence[str], known: Collection[int] = ()
    ) -> Iterator[tuple[int, Judgement]]:
        """(index, judgement) of every prompt that is not known, several at once, as they come."""
        pool = ThreadPoolExecutor(self.num_parallel)
        try:
            asked = [(i, prompt) for i, prompt in enumerate(prompts) if i not in known]
            waiting = {pool.submit(self._judged, prompt): i for i, prompt in asked}
            for done in as_completed(waiting):
                yield waiting[done], done.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _judged(self, prompt: str) -> Judgement:
        messages = [{"role": "user", "content": prompt}]
        reply = self._asked(messages, NUM_REPLY_TOKENS)
        masses = self._masses(messages, reply)
        return scored(masses, self.least_mass) or not_scored(masses, reply.text)

    def _masses(self, messages: list[dict], reply: Completion) -> np.ndarray:
        """P(number) over 0 … 100, as far as the endpoint lets it be known."""
        masses, rest_of = np.zeros(LARGEST + 1), {}
        tops = [token.top for token in reply.tokens]
        beginnings = ["".join(token.token for token in reply.tokens[:i]) for i in range(len(tops))]
        # What is known for nothing: the reply itself, where anything is shown of it.
        along = {text: top for text, top in zip(beginnings, tops) if top}
        unknown, open_nodes = [], [("", "", 1.0)]
        while open_nodes:
            text, digits, chance = open_nodes.pop()
            top = along.get(text)
            if top is None and self.continues and chance >= LEAST_CHANCE:
                started = [*messages, {"role": "assistant", "content": text}]
                listed = self._asked(started, 1).tokens
                top = listed[0].top if listed else {}
            elif top is not None and digits != "0":  # which no digit follows
                rest_of[len(digits)] = _rest(top, digits)
            if top is None:
                unknown.append((digits, chance))
                continue
            if digits:
                masses[int(digits)] += chance * _rest(top, digits).pop("")
            for token, log_prob in top.items():
                part = part_of(token)
                longer = extended(digits, part, at_start=not text) if part else None
                if longer is None:
                    continue
                reached = chance * math.exp(log_prob)
                if not part.closed and (longer == "10" or len(longer) < 2):
                    open_nodes.append((text + token, longer, reached))
                elif not changes_scale(int(longer), part.rest):  # a further digit leaves the range
                    masses[int(longer)] += reached
        for digits, chance in unknown:
            if digits == "0":
                masses[0] += chance
                continue
            # Where nothing is known, only what is whole by itself is a number.
            ends = {"": 1.0} if len(digits) > 1 or _has_numbers(along.get("", {})) else {}
            for more, share in rest_of.get(len(digits), ends).items():
                if NUMERAL.fullmatch(digits + more):
                    masses[int(digits + more)] += chance * share
        return masses

    def _asked(self, messages: list[dict], max_tokens: int) -> Completion:
        return self.endpoint.chat(
            messages, max_tokens=max_tokens, temperature=0.0, top_logprobs=NUM_TOP, seed=0
        )

    def _goes_on(self) -> bool:
        """Whether the endpoint continues an answer that is begun for it."""
        try:
            reply = self.endpoint.chat(_COUNTING, max_tokens=4, temperature=0.0, seed=0)
        except EndpointError as error:
            if error.kind == "request":  # some refuse a conversation that ends so
                return False
            raise
        return reply.text.strip().lower().startswith("four")


def _has_numbers(top: dict[str, float]) -> bool:
    """Whether the endpoint has tokens of two digits and more: then one digit is a number."""
    return any((part := part_of(token)) is not None and len(part.digits) > 1 for token in top)


def _rest(top: dict[str, float], begun: str) -> dict[str, float]:
    """Digits that follow a beginning, and "" for its end, each with its share; what makes it a
    number of another scale has none."""
    rest, other = {}, 0.0
    for token, log_prob in top.items():
        part = part_of(token)
        if part and part.digits and not part.space:
            rest[part.digits] = rest.get(part.digits, 0.0) + math.exp(log_prob)
        elif begun and changes_scale(int(begun), token):
            other += math.exp(log_prob)
    return rest | {"": max(1.0 - other - sum(rest.values()), 0.0)}
