"""`Conscience`: the conscience on its own, over one of our models or any endpoint, for notebooks
and for answering without training."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from emergent_alignment.conscience.drafted_links import DraftedLinks
from emergent_alignment.conscience.drafting import (
    Draft,
    Drafter,
    DraftSettings,
    EndpointDrafter,
    ModelDrafter,
)
from emergent_alignment.conscience.endpoint_hearing import EndpointReviewer
from emergent_alignment.conscience.frozen_hearing import FrozenReviewer
from emergent_alignment.conscience.hearing import Reviewer
from emergent_alignment.conscience.judge import JudgeReviewer
from emergent_alignment.conscience.pairs import ConscienceSettings, Reviewed, review_and_revise
from emergent_alignment.conscience.question import Layout, Polarity, Question, named_question
from emergent_alignment.conscience.review import ReviewSettings, reader_of
from emergent_alignment.conscience.revise import FORK_LINKS
from emergent_alignment.conscience.settings import own_verdict
from emergent_alignment.data.chat import read_chat
from emergent_alignment.data.messages import Message
from emergent_alignment.data.reasoning import split_reasoning
from emergent_alignment.errors import UserError
from emergent_alignment.generation.endpoint import Endpoint
from emergent_alignment.generation.text import Answer
from emergent_alignment.models.model import Model
from emergent_alignment.randomness import Draws, Purpose

REFUSAL = "I would rather not answer that."


@dataclass(frozen=True)
class Review:
    """The reviewer's verdict on one answer: its score in nats, whether it is approved, what the
    score was read from (`logits`, `logprobs`, or `text`: then it is +1 or −1), and why there is
    none (NaN) where the reviewer failed."""

    score: float
    approved: bool
    scored_by: str = "logits"
    failure: str = ""


@dataclass(frozen=True)
class Response:
    """A reviewed answer: the draft, what became of it, and what is said in the end (the
    correction or the draft, whichever is approved, else a refusal; reasoning is left out), with
    whether it is a refusal and whether it ended by itself. Token counts are the draft's. `tokens`
    are the texts of what is said with their log-probs in nats, under the parameters that sampled
    them; () where they are not known: of a refusal, of an endpoint's answer, and where reasoning or
    a stop text was cut away."""

    draft: str
    reviewed: Reviewed
    final: str
    refused: bool
    ended: bool
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True)
class Conscience:
    """A model that reviews and corrects answers by asking itself one question.

    model      writes the drafts: a Model, or an Endpoint
    question   a Question or a bundled name ("advice")
    layout, polarity    how it is asked ("quote", "positive")
    threshold  scores at or above it are approved (0.0)
    settings   all of these four and more, in their place
    frozen     who reviews and corrects: a Model, an Endpoint, or any Reviewer (hearing.py); by
               default the model's own base (adapters off), or the endpoint itself
    fail       what is said where the reviewer fails to judge a draft: `closed` a refusal, `open`
               the draft; a draft that was judged and flagged is never said
    """

    model: Model | Endpoint
    question: Question | str | None = None
    layout: Layout | None = None
    polarity: Polarity | None = None
    threshold: float | None = None
    settings: ConscienceSettings | None = None
    frozen: Model | Endpoint | Reviewer | None = None
    fail: Literal["closed", "open"] = "closed"
    drafter: Drafter = field(init=False, repr=False)
    reviewer: Reviewer = field(init=False, repr=False)

    def __post_init__(self):
        settings = self._settings()
        if set(FORK_LINKS) & set(settings.chain) or settings.gate == "own":
            raise ValueError("Conscience: forks and the gate own are of a run that trains")
        object.__setattr__(self, "settings", settings)
        object.__setattr__(self, "drafter", _drafter(self.model, settings))
        object.__setattr__(self, "reviewer", _reviewer(self.frozen or self.model, settings))

    def _settings(self) -> ConscienceSettings:
        names = ("question", "layout", "polarity", "threshold")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.settings is None:
            threshold, question = given.pop("threshold", 0.0), given.pop("question", "advice")
            if isinstance(question, str):
                question = named_question(question)
            return ConscienceSettings(ReviewSettings(question, **given), threshold=threshold)
        if given:
            raise ValueError(
                f"Conscience: settings= says {', '.join(given)} too; give them there or here"
            )
        return self.settings

    @property
    def _complete(self) -> ConscienceSettings:
        assert self.settings is not None  # __post_init__ has filled it in
        return self.settings

    def review(self, conversations: list[list[Message]]) -> list[Review]:
        """The verdict on the last answer of each conversation."""
        prompts, answers = _prompts_and_answers(conversations)
        scored = []
        order = sorted(range(len(answers)), key=lambda i: len(answers[i]) + len(str(prompts[i])))
        for start in range(0, len(order), self.reviewer.batch_size):
            rows = order[start : start + self.reviewer.batch_size]
            hearing = self.reviewer.hear(
                replace(self._complete, chain=(), critique=False),
                [prompts[i] for i in rows],
                [_given(answers[i]) for i in rows],
                Draws(None, Purpose.GIVEN_CORRECTIONS),
                np.array(rows),
            )
            scored += zip(rows, hearing.scores())
        return [
            Review(
                score.nats, score.nats >= self._complete.threshold, score.scored_by, score.failure
            )
            for _, score in sorted(scored, key=lambda item: item[0])
        ]

    def revise(self, conversations: list[list[Message]], *, seed: int = 0) -> list[Reviewed]:
        """Review the last answer of each conversation and correct what the gate lets through
        to correction."""
        prompts, answers = _prompts_and_answers(conversations)
        given = [_given(answer) for answer in answers]
        draws, ids = Draws(seed, Purpose.GIVEN_CORRECTIONS), list(range(len(prompts)))
        links = self._links(self._complete, prompts, draws, ids)
        return review_and_revise(self.reviewer, self._complete, prompts, given, draws, policy=links)

    def respond(
        self,
        conversation: list[Message],
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.7,
        top_p: float = 0.95,
        stop: tuple[str, ...] = (),
        seed: int | None = 0,
        on_text: Callable[[str], None] | None = None,
    ) -> Response:
        """Draft → review → revise → review → answer or refusal, for one conversation. `on_text`
        is told the draft, before any review, piece by piece as it is written."""
        settings = DraftSettings(max_new_tokens, temperature, top_p, stop)
        if on_text is None:
            drafts = self.drafter.drafts([conversation], settings, seed, [0], _no_progress)
        else:
            drafts = [self.drafter.streamed(conversation, settings, seed, on_text)]
        return self.answered([conversation], drafts, seed, [0])[0]

    def respond_all(
        self,
        conversations: list[list[Message]],
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.7,
        top_p: float = 0.95,
        stop: tuple[str, ...] = (),
        seed: int | None = 0,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Response]:
        """`respond` for many conversations, drafts and corrections in batches."""
        settings = DraftSettings(max_new_tokens, temperature, top_p, stop)
        ids = list(range(len(conversations)))
        drafts = self.drafter.drafts(conversations, settings, seed, ids, progress)
        return self.answered(conversations, drafts, seed, ids)

    def answered(
        self,
        conversations: list[list[Message]],
        drafts: list[Draft],
        seed: int | None,
        ids: list[int],
        *,
        settings: ConscienceSettings | None = None,
    ) -> list[Response]:
        """What is said to each conversation for its draft, by the conscience's settings or by
        others; corrections draw from the seed and a conversation's id."""
        settings = settings or self._complete
        answers = [draft.answer for draft in drafts]
        draws = Draws(seed, Purpose.DRAFT_CORRECTIONS)
        links = self._links(settings, conversations, draws, ids)
        reviewed = review_and_revise(
            self.reviewer, settings, conversations, answers, draws, row_ids=ids, policy=links
        )
        return [self._response(draft, row, settings) for draft, row in zip(drafts, reviewed)]

    def _links(self, settings, conversations, draws: Draws, ids: list[int]) -> DraftedLinks:
        chat = getattr(self.drafter, "chat", None)
        return DraftedLinks(self.drafter, self.reviewer, settings, conversations, draws, ids, chat)

    def _response(self, draft: Draft, reviewed: Reviewed, settings) -> Response:
        said = self._said(draft.answer, reviewed, settings.threshold)
        final = REFUSAL if said is None else split_reasoning(said.text)[1]
        return Response(
            reviewed.candidate,
            reviewed,
            final,
            said is None,
            said is None or said.ended,
            draft.prompt_tokens,
            draft.completion_tokens,
            () if said is None or said.text != final else self._tokens(said),
        )

    def _tokens(self, said: Answer) -> tuple[tuple[str, float], ...]:
        chat = getattr(self.drafter, "chat", None)
        if chat is None or len(said.log_probs) != len(said.tokens):
            return ()
        return tuple(
            (chat.tokenizer.decode([token]), log_prob)
            for token, log_prob in zip(said.tokens, said.log_probs.tolist())
            if token not in chat.end_tokens
        )

    def _said(self, draft: Answer, reviewed: Reviewed, threshold: float) -> Answer | None:
        """The correction where one was taken, else the draft, whichever the review approves;
        None where it approves neither."""
        if reviewed.chosen is not None and reviewed.chosen_score >= threshold:
            return reviewed.chosen
        if not draft.text.strip():
            return None
        if reviewed.failure:
            return draft if self.fail == "open" else None
        return draft if reviewed.score >= threshold else None


def _drafter(model: Model | Endpoint, settings: ConscienceSettings) -> Drafter:
    if isinstance(model, Endpoint):
        return EndpointDrafter(model, settings.review.batch_size)
    chat, review = read_chat(model.tokenizer, model.source), settings.review
    return ModelDrafter(model, chat, review.batch_size, review.width_step)


def _reviewer(frozen: Model | Endpoint | Reviewer, settings: ConscienceSettings) -> Reviewer:
    writer: Reviewer
    if isinstance(frozen, Endpoint):
        writer = EndpointReviewer(frozen, settings.review.batch_size)
    elif isinstance(frozen, Model):
        chat = read_chat(frozen.tokenizer, frozen.source)
        writer = FrozenReviewer(reader_of(frozen, chat, settings.review, settings.max_prompt))
    else:
        writer = frozen
    verdict = own_verdict(settings.verdict) if settings.verdict else None
    return writer if verdict is None else JudgeReviewer(verdict, writer)


def _given(text: str) -> Answer:
    """An answer whose tokens nobody has said."""
    return Answer([], np.zeros(0, np.float32), text, True)


def _no_progress(done: int, total: int) -> None:
    pass


def _prompts_and_answers(conversations) -> tuple[list[list[Message]], list[str]]:
    for i, conversation in enumerate(conversations):
        if not conversation or conversation[-1].get("role") != "assistant":
            raise UserError(f"conversation {i} must end in an assistant turn: the answer to review")
    return [list(c[:-1]) for c in conversations], [c[-1]["content"] for c in conversations]
