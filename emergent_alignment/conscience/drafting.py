"""Drafts: what answers a conversation before any review, a model of ours or an endpoint."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from emergent_alignment.data.chat import Chat
from emergent_alignment.data.messages import Message
from emergent_alignment.data.reasoning import with_reasoning
from emergent_alignment.generation.completion import Completion
from emergent_alignment.generation.endpoint import Endpoint
from emergent_alignment.generation.sampler import SamplerSettings, sampler_settings
from emergent_alignment.generation.streaming import settled_text, stream_answer
from emergent_alignment.generation.text import Answer, Batching, sample_answers
from emergent_alignment.generation.wanted import at_once
from emergent_alignment.models.model import Model
from emergent_alignment.progress import OnProgress
from emergent_alignment.randomness import Purpose, key_for, known_seed

Tell = Callable[[str], None]


@dataclass(frozen=True)
class DraftSettings:
    """How drafts are written: at most `max_new_tokens`, and no further than a text of `stop`,
    which is not part of the draft."""

    max_new_tokens: int = 256
    temperature: float = 0.7
    top_p: float = 0.95
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Draft:
    """A draft, and how many tokens were read and written for it (0: the endpoint does not say)."""

    answer: Answer
    prompt_tokens: int
    completion_tokens: int


class Drafter(Protocol):
    """Whoever writes drafts. A conversation draws from `seed` (None: from nowhere in
    particular) and its id."""

    def drafts(
        self,
        conversations: list[list[Message]],
        settings: DraftSettings,
        seed: int | None,
        ids: list[int],
        progress: OnProgress,
    ) -> list[Draft]:
        """A draft for each conversation."""

    def streamed(
        self,
        conversation: list[Message],
        settings: DraftSettings,
        seed: int | None,
        tell: Tell,
    ) -> Draft:
        """One draft; each piece of its text is told as it comes. The same draft as `drafts`
        gives for id 0."""


@dataclass(frozen=True)
class ModelDrafter:
    """A model of ours, in batches of fixed shapes, padded to multiples of `width_step` tokens."""

    model: Model
    chat: Chat
    batch_size: int = 16
    width_step: int = 32

    def drafts(self, conversations, settings, seed, ids, progress) -> list[Draft]:
        rows = [self.chat.prompt_tokens(conversation) for conversation in conversations]
        size = min(self.batch_size, 1 << max(len(rows) - 1, 0).bit_length())
        drafts: list[Draft | None] = [None] * len(rows)
        sampled = sample_answers(
            self.model,
            self.model.policy,
            self.chat,
            rows,
            key_for(known_seed(seed), Purpose.DRAFTS),
            self._sampler(settings),
            # Each request has its own limit.
            Batching(
                size, self.width_step, ids=np.array(ids, np.uint32), answer_step=self.width_step
            ),
        )
        for done, (index, answer) in enumerate(sampled, 1):
            cut = cut_at(answer, settings.stop, self.chat)
            drafts[index] = Draft(cut, len(rows[index]), len(answer.tokens))
            progress(done, len(rows))
        return drafts

    def streamed(self, conversation, settings, seed, tell) -> Draft:
        row, told = self.chat.prompt_tokens(conversation), ""
        key = key_for(known_seed(seed), Purpose.DRAFTS, row=0)
        given = self.model, self.model.policy, self.chat, row, key, self._sampler(settings)
        for answer in stream_answer(*given, width_step=self.width_step):
            cut = cut_at(answer, settings.stop, self.chat)
            settled = settled_text(cut)
            if settled.startswith(told) and settled != told:
                tell(settled[len(told) :])
                told = settled
            if cut is not answer:
                break
        if cut.text.startswith(told) and cut.text != told:
            tell(cut.text[len(told) :])
        return Draft(cut, len(row), len(answer.tokens))

    def _sampler(self, settings: DraftSettings) -> SamplerSettings:
        return sampler_settings(
            self.chat.end_tokens,
            settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
        )


@dataclass(frozen=True)
class EndpointDrafter:
    """An endpoint, asked for `batch_size` drafts at once. What it fails to draft is raised."""

    endpoint: Endpoint
    batch_size: int = 16

    def drafts(self, conversations, settings, seed, ids, progress) -> list[Draft]:
        def draft(place: int) -> Draft:
            own = None if seed is None else seed + ids[place]
            return self._draft(conversations[place], settings, own, None)

        drafts = []
        places = range(len(conversations))
        if len(places) == 1:
            return [draft(0)]
        for one in at_once(draft, places, self.batch_size):
            drafts.append(one)
            progress(len(drafts), len(places))
        return drafts

    def streamed(self, conversation, settings, seed, tell) -> Draft:
        return self._draft(conversation, settings, seed, tell)

    def _draft(self, conversation, settings, seed, tell: Tell | None) -> Draft:
        completion = self.endpoint.chat(
            conversation,
            max_tokens=settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            stop=settings.stop,
            seed=seed,
            on_text=tell,
        )
        return Draft(answer_of(completion), completion.prompt_tokens, completion.completion_tokens)


def answer_of(completion: Completion) -> Answer:
    """A completion as an answer to review, its reasoning included. Its tokens are unknown."""
    text = with_reasoning(completion.reasoning, completion.text)
    return Answer([], np.zeros(0, np.float32), text, completion.finish_reason != "length")


def cut_at(answer: Answer, stop: tuple[str, ...], chat: Chat) -> Answer:
    """The answer up to the first text of `stop`, which then is where it ends; itself where it
    holds none."""
    places = [place for text in stop if (place := answer.text.find(text)) >= 0]
    if not places:
        return answer
    text = answer.text[: min(places)].rstrip()
    tokens = chat.response_tokens(text)
    return replace(answer, tokens=tokens, log_probs=np.zeros(0, np.float32), text=text, ended=True)
