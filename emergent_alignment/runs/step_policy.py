"""The policy of one step, as a writer: it answers that step's prompts, once, several times, or with
the question before them; and it is read for the log-probs of answers."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from emergent_alignment.conscience.pairs import ConscienceSettings, Reviewed
from emergent_alignment.conscience.question import system_text, told_before
from emergent_alignment.conscience.reader import Reader
from emergent_alignment.data.batches import Pair
from emergent_alignment.data.chat import Chat
from emergent_alignment.data.messages import Message
from emergent_alignment.generation.sampler import SamplerSettings, sampler_settings
from emergent_alignment.generation.text import Answer, Batching, sample_answers, sample_several
from emergent_alignment.models.model import Model
from emergent_alignment.randomness import Draws, Purpose, key_for
from emergent_alignment.runs.from_config import candidate_sampler
from emergent_alignment.runs.training_run import Run
from emergent_alignment.training.state import policy_params


@dataclass(frozen=True)
class OwnPrompts:
    """The prompts of a step that this host holds, its own or all: the conversations, their tokens,
    their places among those of all hosts (from which they draw), and their numbers in the data."""

    messages: list[list[Message]]
    prompts: list[list[int]]
    places: Int[np.ndarray, "rows"]
    rows: Int[np.ndarray, "rows"]


@dataclass(frozen=True)
class StepPolicy:
    """The policy of one step, as a writer of answers to that step's prompts."""

    run: Run
    conscience: ConscienceSettings
    asked: OwnPrompts
    step: int
    trainable: Any

    def answers(self) -> list[Answer]:
        """A candidate for each prompt."""
        key = key_for(self.run.config.seed, Purpose.CANDIDATES, self.step)
        sampler, asked = candidate_sampler(self.run.config, self.run.setup.chat), self.asked
        with self.run.clock.part("sampling"):
            if self.run.rollouts is not None:
                return self._from_server(asked.prompts, self._seeds(Purpose.CANDIDATES, 0), sampler)
            return sampled(self.run, self.params, asked.prompts, asked.places, key, sampler)

    def several(self) -> list[list[Answer]]:
        """Several answers to each prompt, which is read once."""
        setup, config = self.run.setup, self.run.config
        with self.run.clock.part("sampling"):
            if self.run.rollouts is not None:
                return self._several_from_server(self.conscience.samples)
            return sample_several(
                setup.model,
                self.params,
                setup.chat,
                self.asked.prompts,
                key_for(config.seed, Purpose.SAMPLES, self.step),
                candidate_sampler(config, setup.chat),
                batching_of(self.run, self.asked.prompts, self.asked.places),
                self.conscience.samples,
            )

    def answers_again(self, place: int, rows: list[int], live: list[bool]) -> list[Answer]:
        """The `self` link: answers to `live` rows' prompts with the question before them."""
        draws = Draws(self.run.config.seed, Purpose.CORRECTIONS, self.step)
        prompts = [self._asked_before(row) if alive else [] for row, alive in zip(rows, live)]
        if self.run.rollouts is not None:
            seeds = self._seeds(Purpose.CORRECTIONS, place)
            return self._from_server(prompts, [seeds[row] for row in rows], self.correction_sampler)
        key, places = draws.part_key(place), self.asked.places[rows]
        return sampled(self.run, self.params, prompts, places, key, self.correction_sampler)

    def with_own_reference(
        self, pairs: list[Pair | None], reviewed: list[Reviewed], candidates: list[Answer]
    ) -> list[Pair | None]:
        """The pairs with the log-probs of the policy that wrote them: the sampler's own, and where
        another wrote the chosen answer, or behind another prompt, those of reading it."""
        known = [review.attempts[-1].link in ("best", "fork") if review.chosen else True
                 for review in reviewed]  # fmt: skip
        read = self._log_probs([None if own else r.chosen for own, r in zip(known, reviewed)])
        return [
            pair
            and replace(
                pair,
                reference=(
                    log_prob(review.chosen) if own else float(value),
                    log_prob(candidate),
                ),
            )
            for pair, review, candidate, own, value in zip(pairs, reviewed, candidates, known, read)
        ]

    @property
    def correction_sampler(self) -> SamplerSettings:
        """How corrections are drawn, whoever writes them."""
        settings = self.conscience
        return sampler_settings(
            self.run.setup.chat.end_tokens,
            settings.max_new_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
        )

    @cached_property
    def params(self) -> dict:
        """The policy's parameters."""
        return policy_params(self.trainable, self.run.setup.model.params, self.run.lora)

    def fresh_answers(self, place: int, rows: list[int], live: list[bool]) -> list[Answer]:
        """The `fresh` link, which the base model of a run's server writes: with adapters off it is
        the frozen copy."""
        prompts = [self.asked.prompts[row] if alive else [] for row, alive in zip(rows, live)]
        seeds = self._seeds(Purpose.CORRECTIONS, place)
        seeds = [seeds[row] for row in rows]
        return self.run.rollouts.base_answers(prompts, seeds, self.correction_sampler)

    def _from_server(
        self, prompts: list[list[int]], seeds: list[int], sampler: SamplerSettings
    ) -> list[Answer]:
        return self.run.rollouts.answers(self.step, self.trainable, prompts, seeds, sampler)

    def _several_from_server(self, number: int) -> list[list[Answer]]:
        prompts = [prompt for prompt in self.asked.prompts for _ in range(number)]
        by_sample = [self._seeds(Purpose.SAMPLES, sample) for sample in range(number)]
        seeds = [seed for of_prompt in zip(*by_sample) for seed in of_prompt]
        sampler = candidate_sampler(self.run.config, self.run.setup.chat)
        answers = self._from_server(prompts, seeds, sampler)
        return [answers[start : start + number] for start in range(0, len(answers), number)]

    def _seeds(self, purpose: Purpose, part: int) -> list[int]:
        """What a server draws from for each of the step's prompts."""
        draws = Draws(self.run.config.seed, purpose, self.step)
        return [draws.number(part, int(place)) for place in self.asked.places]

    def _asked_before(self, row: int) -> list[int]:
        """The tokens of a prompt with the question before it. Of a prompt that was cut, what is
        before it is kept, too."""
        chat, prompt = self.run.setup.chat, self.asked.prompts[row]
        messages = self.asked.messages[row]
        whole = chat.prompt_tokens(messages)
        text = system_text(self.conscience.review.question)
        asked = chat.prompt_tokens(told_before(messages, text, chat))
        if len(whole) <= len(prompt):
            return asked
        return asked[: len(asked) - len(whole)] + prompt

    def _log_probs(self, answers: list[Answer | None]) -> Float[np.ndarray, "rows"]:
        """log P(answer | prompt) under the policy; of None it means nothing."""
        model = policy_model(self.run, self.trainable)
        reader = policy_reader(model, self.run.setup.chat, self.conscience)
        nothing = Answer([], np.zeros(0, np.float32), "", True)
        values = []
        for start in range(0, len(answers), reader.batch_size):
            rows = slice(start, start + reader.batch_size)
            shown = reader.read_prompts(self.asked.messages[rows])
            values.append(reader.log_probs(shown, [one or nothing for one in answers[rows]]))
        return np.concatenate(values)


def sampled(
    run: Run,
    params: dict,
    prompts: list[list[int]],
    places: Int[np.ndarray, "rows"],
    key: jax.Array,
    sampler: SamplerSettings,
) -> list[Answer]:
    """An answer to each prompt, which draws from its place; to no prompt an empty one."""
    setup, batching = run.setup, batching_of(run, prompts, places)
    answers = sample_answers(setup.model, params, setup.chat, prompts, key, sampler, batching)
    by_place = dict(answers)
    return [by_place[place] for place in range(len(prompts))]


def batching_of(run: Run, prompts: list[list[int]], places: Int[np.ndarray, "rows"]) -> Batching:
    """All prompts at once."""
    return Batching(len(prompts), run.config.data.bucket_tokens, ids=places)


def policy_model(run: Run, trainable: Any) -> Model:
    """The policy of a step as a model of its own."""
    frozen = run.setup.model
    return replace(frozen, params=policy_params(trainable, frozen.params, run.lora))


def policy_reader(model: Model, chat: Chat, conscience: ConscienceSettings) -> Reader:
    """The policy as a reader of answers, behind prompts as training has them."""
    review = conscience.review
    return Reader(model, chat, "turn", review.batch_size, conscience.max_prompt, review.max_tokens)


def log_prob(answer: Answer) -> float:
    """log P(answer | prompt) under the parameters that sampled it, in nats."""
    return float(answer.log_probs.sum(dtype=np.float64))
