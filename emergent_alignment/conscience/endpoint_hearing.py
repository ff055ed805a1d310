"""An endpoint as reviewer and reviser: a hearing whose every row is a request or two.

What fails for a row (after the endpoint's own retries) is said in that row's `failure`; the
others go on.
"""

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int
from tokenizers.normalizers import NFKC

from emergent_alignment.conscience.drafting import answer_of
from emergent_alignment.conscience.endpoint_verdict import (
    APPROVES,
    DISAPPROVES,
    read_log_probs,
    score_from_text,
)
from emergent_alignment.conscience.evidence import named_evidence, with_findings
from emergent_alignment.conscience.hearing import Corrections, Score, untied
from emergent_alignment.conscience.question import (
    critique_request,
    defused,
    quoted,
    rewrite_request,
)
from emergent_alignment.conscience.review import Form
from emergent_alignment.conscience.revise import Link
from emergent_alignment.conscience.settings import ConscienceSettings
from emergent_alignment.data.messages import Message
from emergent_alignment.data.turn_marks import without_turn_marks
from emergent_alignment.generation.endpoint import Completion, Endpoint, EndpointError
from emergent_alignment.generation.text import Answer
from emergent_alignment.generation.wanted import at_once
from emergent_alignment.randomness import CRITIQUES, Draws

_NORMALIZER = NFKC()  # some tokenizers have it


@dataclass(frozen=True, eq=False)
class EndpointReviewer:
    """An endpoint that reviews.

    batch_size      rows that are asked about at once
    top_logprobs    likeliest tokens asked for at each place of a verdict
    verdict_tokens  how long a verdict may be; a model that reasons first needs hundreds
    """

    endpoint: Endpoint
    batch_size: int = 16
    top_logprobs: int = 20
    verdict_tokens: int = 16
    _gives_log_probs: threading.Event = field(
        default_factory=threading.Event, init=False, repr=False
    )
    _gives_none: threading.Event = field(default_factory=threading.Event, init=False, repr=False)

    @property
    def is_same_everywhere(self) -> bool:
        """It is asked once about a row, and may answer otherwise the next time."""
        return False

    def hear(
        self,
        settings: ConscienceSettings,
        messages: list[list[Message]],
        candidates: list[Answer],
        draws: Draws,
        ids: Int[np.ndarray, "rows"],
    ) -> "EndpointHearing":
        """The candidates before the endpoint."""
        return EndpointHearing(self, settings, messages, candidates, draws, ids)

    def ask(self, messages: list[Message], form: Form) -> Score:
        """The score of one reply: from its log-probs, or from its text where the endpoint gives
        none; one that has never given any is not asked for them again. Raises EndpointError, also
        where the reply holds no answer word."""
        if not self._gives_none.is_set():
            try:
                reply = self._reply(messages, self.top_logprobs)
            except EndpointError as error:
                if error.kind != "no_log_probs":
                    raise
                if not self._gives_log_probs.is_set():
                    self._gives_none.set()
            else:
                self._gives_log_probs.set()
                shown = read_log_probs(reply, form)
                if shown is not None:
                    return Score(shown.nats, "logprobs", at_most=shown.at_most)
                return self._read(reply, form)
        return self._read(self._reply(messages, 0), form)

    def _reply(self, messages: list[Message], top_logprobs: int) -> Completion:
        return self.endpoint.chat(
            messages, max_tokens=self.verdict_tokens, temperature=0.0, top_logprobs=top_logprobs
        )

    def _read(self, reply: Completion, form: Form) -> Score:
        nats = score_from_text(reply.text, form)
        if nats is None:
            words = "/".join((*form.approving, *form.disapproving))
            raise EndpointError(
                f"{self.endpoint.base_url}: asked for {words}, and got {reply.text[:80]!r}; choose "
                "another model or question, or raise verdict_tokens if it reasons first",
                "rubbish",
            )
        return Score(nats, "text")


@dataclass(frozen=True, eq=False)
class EndpointHearing:
    """Candidates before an endpoint."""

    reviewer: EndpointReviewer
    settings: ConscienceSettings
    messages: list[list[Message]]
    candidates: list[Answer]
    draws: Draws
    ids: Int[np.ndarray, "rows"]

    def scores(self) -> list[Score]:
        return self._scores(self.candidates, [bool(a.text.strip()) for a in self.candidates])

    def critiques(self, live: list[bool], principles: list[str]) -> list[str]:
        """A critique that fails is none: the rewrite does without."""

        def critique(row: int) -> str:
            asked = critique_request(principles[row])
            request = self._about(row, self.candidates[row], asked)
            try:
                return self._write(row, request, CRITIQUES).text
            except EndpointError:
                return ""

        return ["" if text is None else text for text in self._each(critique, live)]

    def write(self, link: Link, place: int, critiques: list[str], live: list[bool]) -> Corrections:
        def correct(row: int) -> Answer | str:
            request = self.messages[row]
            if link == "rewrite":
                asked = rewrite_request(critiques[row])
                request = self._about(row, self.candidates[row], asked)
            try:
                return answer_of(self._write(row, request, place))
            except EndpointError as error:
                return str(error)

        written = self._each(correct, live)
        nothing = Answer([], np.zeros(0, np.float32), "", True)
        answers = [answer if isinstance(answer, Answer) else nothing for answer in written]
        failures = [answer if isinstance(answer, str) else "" for answer in written]
        return Corrections(answers, None, failures)

    def weigh(self, answers: list[Answer], place: int) -> Corrections:
        return Corrections(answers, None, [""] * len(answers))

    def scores_of(self, corrections: Corrections, needed: list[bool]) -> list[Score]:
        return self._scores(corrections.answers, needed)

    def log_probs_of_candidates(self, needed: list[bool]) -> np.ndarray:
        """An endpoint cannot be DPO's reference."""
        raise TypeError("an endpoint gives no log-probs of given answers")

    def log_probs_of(self, answers: Sequence[Answer | None], needed: list[bool]) -> np.ndarray:
        """An endpoint cannot be DPO's reference."""
        raise TypeError("an endpoint gives no log-probs of given answers")

    def _scores(self, answers: list[Answer], needed: list[bool]) -> list[Score]:
        def score(row: int) -> Score:
            try:
                return self._score(row, answers[row])
            except EndpointError as error:
                return Score(float("nan"), "", str(error))

        nothing = Score(float("nan"), "")
        return [one or nothing for one in self._each(score, needed)]

    def _score(self, row: int, answer: Answer) -> Score:
        """Of several forms the mean; read from text, the least: who contradicts themselves has
        approved nothing. Nor has who has only said how bad it is at least."""
        forms = self.settings.review.forms
        scores = [self.reviewer.ask(self._about(row, answer, f.request), f) for f in forms]
        if all(score.scored_by == "logprobs" for score in scores):
            nats = sum(score.nats for score in scores) / len(scores)
            if any(score.at_most for score in scores):
                nats = min(nats, _just_below(self.settings.threshold))
            return Score(untied(nats), "logprobs")
        settings, said = self.settings, min(float(np.sign(score.nats)) for score in scores)
        if said <= 0:  # what speaks against an answer flags it whatever the threshold
            return Score(min(said, _just_below(settings.threshold)), "text")
        if settings.threshold <= DISAPPROVES or settings.threshold + settings.margin > APPROVES:
            raise EndpointError(
                f"{self.reviewer.endpoint.base_url}: gives no log-probs, so that verdicts are +1 "
                f"or −1, which a threshold of {settings.threshold:g} and a margin of "
                f"{settings.margin:g} nats do not tell apart; set both to 0",
                "no_log_probs",
            )
        return Score(said, "text")

    def _about(self, row: int, answer: Answer, request: str) -> list[Message]:
        evidence = named_evidence(self.settings.review.evidence)
        if evidence is not None:
            findings = defused(evidence([answer.text])[0], without_control)
            request = with_findings(request, findings)
        if self.settings.review.layout == "quote":
            return quoted(self.messages[row], answer.text, request, without_control)
        turns = [*self.messages[row], {"role": "assistant", "content": answer.text}]
        shown = [turn | {"content": without_control(turn["content"])} for turn in turns]
        return [*shown, {"role": "user", "content": request}]

    def _write(self, row: int, messages: list[Message], part: int) -> Completion:
        return self.reviewer.endpoint.chat(
            messages,
            max_tokens=self.settings.max_new_tokens,
            temperature=self.settings.temperature,
            top_p=self.settings.top_p,
            stop=self.settings.stop,
            seed=self.draws.number(part, int(self.ids[row])),
        )

    def _each(self, work: Callable[[int], Any], wanted: list[bool]) -> list[Any]:
        """work(row) for the rows that are wanted, at once; None for the others."""
        rows = [row for row, want in enumerate(wanted) if want]
        results_by_row: list[Any] = [None] * len(wanted)
        if len(rows) > 1:
            results = list(at_once(work, rows, len(rows)))
        else:
            results = [work(row) for row in rows]
        for row, result in zip(rows, results):
            results_by_row[row] = result
        return results_by_row


def _just_below(threshold: float) -> float:
    return math.nextafter(threshold, -math.inf)


def without_control(text: str) -> str:
    """The text with what may spell the opening or the end of a turn broken up: the endpoint's
    tokenizer and template are not at hand, and many servers read such spellings in a message as
    the tokens themselves."""
    return without_turn_marks(text, normalizer=_NORMALIZER)
