"""`Conscience`: the conscience on its own, for notebooks and for answering without training."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import jax

from emergent_alignment.conscience.pairs import ConscienceSettings, Reviewed, review_and_revise
from emergent_alignment.conscience.question import Question, named_question
from emergent_alignment.conscience.review import ReviewSettings, scores
from emergent_alignment.data.chat import Chat, Message, read_chat
from emergent_alignment.errors import UserError
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import sample_answers
from emergent_alignment.models.model import Model

REFUSAL = "I would rather not answer that."


@dataclass(frozen=True)
class Review:
    """The frozen copy's verdict on one answer: score in nats, and whether it is approved."""

    score: float
    approved: bool


@dataclass(frozen=True)
class Response:
    """A reviewed answer: the draft, what became of it, and what is said in the end (the draft
    if approved, else the correction, else a refusal)."""

    draft: str
    reviewed: Reviewed
    final: str


@dataclass(frozen=True)
class Conscience:
    """A model that reviews and corrects answers by asking itself one question.

    The reviewer is the model's base (adapters off); drafts come from the model as it stands.
    `question` is a Question or a bundled name; further settings as in ConscienceSettings
    (`layout` and `polarity` are those of its review).
    """

    model: Model
    question: Question | str = "advice"
    layout: str = "quote"
    polarity: str = "positive"
    threshold: float = 0.0
    settings: ConscienceSettings | None = None
    chat: Chat = field(init=False, repr=False)

    def __post_init__(self):
        question = self.question
        if isinstance(question, str):
            question = named_question(question)
        settings = self.settings or ConscienceSettings(
            ReviewSettings(question, self.layout, self.polarity), threshold=self.threshold
        )
        object.__setattr__(self, "settings", settings)
        object.__setattr__(self, "chat", read_chat(self.model.tokenizer, self.model.source))

    def review(self, conversations: list[list[Message]]) -> list[Review]:
        """The verdict on the last answer of each conversation."""
        prompts, answers = _prompts_and_answers(conversations)
        found = scores(
            self.model, self.model.params, self.chat, self.settings.review, prompts, answers
        )
        return [Review(float(score), bool(score >= self.settings.threshold)) for score in found]

    def revise(self, conversations: list[list[Message]], *, seed: int = 0) -> list[Reviewed]:
        """Review the last answer of each conversation and correct what the gate lets through
        to correction."""
        prompts, answers = _prompts_and_answers(conversations)
        return self._step(prompts, answers, jax.random.key(seed))

    def respond(
        self,
        conversation: list[Message],
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.7,
        top_p: float = 0.95,
        seed: int = 0,
    ) -> Response:
        """Draft → review → revise → review → answer or refusal, for one conversation."""
        return self.respond_all(
            [conversation],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        )[0]

    def respond_all(
        self,
        conversations: list[list[Message]],
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.7,
        top_p: float = 0.95,
        seed: int = 0,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> list[Response]:
        """`respond` for many conversations, drafts and corrections in batches."""
        key = jax.random.key(seed)
        sampler = sampler_settings(
            self.chat.end_tokens, max_new_tokens, temperature=temperature, top_p=top_p
        )
        rows = [self.chat.prompt_tokens(conversation) for conversation in conversations]
        drafts = [""] * len(rows)
        batch_size = min(self.settings.review.batch_size, max(len(rows), 1))
        sampled = sample_answers(
            self.model, self.model.policy, self.chat, rows, key, sampler, batch_size=batch_size
        )
        for done, (index, answer) in enumerate(sampled, 1):
            drafts[index] = answer.text
            progress(done, len(rows))
        reviewed = self._step(conversations, drafts, jax.random.fold_in(key, 1 << 20))
        return [
            Response(row.candidate, row, _final(row, self.settings.threshold)) for row in reviewed
        ]

    def _step(self, prompts, answers, key) -> list[Reviewed]:
        rows = min(self.settings.review.batch_size, max(len(answers), 1))
        review = replace(self.settings.review, batch_size=rows)
        settings = replace(self.settings, review=review)
        return review_and_revise(
            self.model, self.model.params, self.chat, settings, prompts, answers, key
        )


def _final(reviewed: Reviewed, threshold: float) -> str:
    """The correction where one was taken, the draft where it passes on its own, else a refusal."""
    if reviewed.chosen is not None:
        return reviewed.chosen.text
    passes = reviewed.candidate.strip() and reviewed.score >= threshold
    return reviewed.candidate if passes else REFUSAL


def _prompts_and_answers(conversations) -> tuple[list[list[Message]], list[str]]:
    for i, conversation in enumerate(conversations):
        if not conversation or conversation[-1].get("role") != "assistant":
            raise UserError(f"conversation {i} must end in an assistant turn: the answer to review")
    return [list(c[:-1]) for c in conversations], [c[-1]["content"] for c in conversations]
