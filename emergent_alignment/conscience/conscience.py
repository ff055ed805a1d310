"""`Conscience`: the conscience on its own, for notebooks and for answering without training."""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax

from emergent_alignment.conscience.pairs import ConscienceSettings, Reviewed, review_and_revise
from emergent_alignment.conscience.question import Question, named_question
from emergent_alignment.conscience.reader import Reader
from emergent_alignment.conscience.review import ReviewSettings, reader_of, scores
from emergent_alignment.data.chat import Chat, Message, read_chat
from emergent_alignment.errors import UserError
from emergent_alignment.generation.sampler import sampler_settings
from emergent_alignment.generation.text import Answer, given_answer, sample_answers
from emergent_alignment.models.model import Model

REFUSAL = "I would rather not answer that."


@dataclass(frozen=True)
class Review:
    """The frozen copy's verdict on one answer: score in nats, and whether it is approved."""

    score: float
    approved: bool


@dataclass(frozen=True)
class Response:
    """A reviewed answer: the draft, what became of it, and what is said in the end (the
    correction or the draft, whichever is approved, else a refusal)."""

    draft: str
    reviewed: Reviewed
    final: str


@dataclass(frozen=True)
class Conscience:
    """A model that reviews and corrects answers by asking itself one question.

    The reviewer is `frozen`, by default the model's own base (adapters off); drafts come from the
    model as it stands.
    `question` is a Question or a bundled name; further settings as in ConscienceSettings
    (`layout` and `polarity` are those of its review).
    """

    model: Model
    question: Question | str = "advice"
    layout: str = "quote"
    polarity: str = "positive"
    threshold: float = 0.0
    settings: ConscienceSettings | None = None
    frozen: Model | None = None
    chat: Chat = field(init=False, repr=False)
    reader: Reader = field(init=False, repr=False)

    def __post_init__(self):
        question = self.question
        if isinstance(question, str):
            question = named_question(question)
        settings = self.settings or ConscienceSettings(
            ReviewSettings(question, self.layout, self.polarity), threshold=self.threshold
        )
        object.__setattr__(self, "settings", settings)
        chat = read_chat(self.model.tokenizer, self.model.source)
        object.__setattr__(self, "chat", chat)
        object.__setattr__(
            self,
            "reader",
            reader_of(self.frozen or self.model, chat, settings.review, settings.max_prompt),
        )

    def review(self, conversations: list[list[Message]]) -> list[Review]:
        """The verdict on the last answer of each conversation."""
        prompts, answers = _prompts_and_answers(conversations)
        found = scores(self.reader, self.settings.review, prompts, answers)
        return [Review(float(score), bool(score >= self.settings.threshold)) for score in found]

    def revise(self, conversations: list[list[Message]], *, seed: int = 0) -> list[Reviewed]:
        """Review the last answer of each conversation and correct what the gate lets through
        to correction."""
        prompts, answers = _prompts_and_answers(conversations)
        given = [given_answer(self.chat, answer) for answer in answers]
        return self._step(prompts, given, jax.random.key(seed))

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
        drafts: list[Answer | None] = [None] * len(rows)
        batch_size = min(self.settings.review.batch_size, max(len(rows), 1))
        sampled = sample_answers(
            self.model, self.model.policy, self.chat, rows, key, sampler, batch_size=batch_size
        )
        for done, (index, answer) in enumerate(sampled, 1):
            drafts[index] = answer
            progress(done, len(rows))
        reviewed = self._step(conversations, drafts, jax.random.fold_in(key, 1 << 20))
        return [
            Response(row.candidate, row, _final(row, self.settings.threshold)) for row in reviewed
        ]

    def _step(self, prompts, answers, key) -> list[Reviewed]:
        return review_and_revise(self.reader, self.settings, prompts, answers, key)


def _final(reviewed: Reviewed, threshold: float) -> str:
    """The correction where one was taken, else the draft, whichever the review approves; a
    refusal where it approves neither."""
    if reviewed.chosen is not None and reviewed.chosen_score >= threshold:
        return reviewed.chosen.text
    passes = reviewed.candidate.strip() and reviewed.score >= threshold
    return reviewed.candidate if passes else REFUSAL


def _prompts_and_answers(conversations) -> tuple[list[list[Message]], list[str]]:
    for i, conversation in enumerate(conversations):
        if not conversation or conversation[-1].get("role") != "assistant":
            raise UserError(f"conversation {i} must end in an assistant turn: the answer to review")
    return [list(c[:-1]) for c in conversations], [c[-1]["content"] for c in conversations]
