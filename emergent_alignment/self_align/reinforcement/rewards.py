"""What an answer is worth: the reward model's score, the principles' preference or a function's
word, and what is added against answers that are cut, repeat themselves, or are long for their own
sake."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from emergent_alignment.data.messages import Message
from emergent_alignment.data.principles import Principle
from emergent_alignment.errors import UserError
from emergent_alignment.generation.text import Answer
from emergent_alignment.own_functions import is_function_name, named_function
from emergent_alignment.parallel.hosts import gather
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.self_align.answers.filters import repeated_share
from emergent_alignment.self_align.reinforcement.comparing import (
    AnswerPair,
    Guideline,
    Orders,
    compare,
    draw_guidelines,
    strongest,
)
from emergent_alignment.self_align.reinforcement.reward_model import RewardModel
from emergent_alignment.self_align.settings import SelfAlignConfig

NAMED_REWARDS = ("model", "principles")
REWARD_FIELD = "config.self_align.reinforcement.reward"
# (prompts, answers of each, the rollout's seed) → a score for each answer.
ScoreAnswers = Callable[
    [list[list[Message]], list[list[Answer]], tuple[int, ...]], Float[np.ndarray, "prompts samples"]
]


@dataclass(frozen=True)
class Judging:
    """By what answers are judged while the policy learns: so many principles drawn for each
    prompt, and all `guards`, which speak against ways to hack the reward (SALMON's interventions
    at reinforcement time, section 3.4). Neither of them is negated."""

    principles: Sequence[Principle]
    guards: Sequence[Principle]
    count: int

    def guidelines(self, place: int, seed: tuple[int, ...]) -> tuple[Guideline, ...]:
        """Those of one prompt of a rollout."""
        drawn = draw_guidelines(self.principles, self.count, 0.0, (*seed, place))
        return (*drawn, *(Guideline(guard) for guard in self.guards))


def model_score(model: RewardModel, judging: Judging | None) -> ScoreAnswers:
    """The reward model's; it is told the guidelines where it was trained with some."""

    def score(prompts, answers, seed):
        rows = [(place, prompt, a) for place, prompt in enumerate(prompts) for a in answers[place]]
        told = [judging.guidelines(place, seed) if judging else () for place, _, _ in rows]
        rewards = model.scores(
            [prompt for _, prompt, _ in rows],
            [answer for _, _, answer in rows],
            [tuple(guideline.text for guideline in guidelines) for guidelines in told],
        )
        return rewards.reshape(len(prompts), -1)

    return score


def function_score(reward: Callable[[list[Message], str], float]) -> ScoreAnswers:
    """A function's of (conversation, answer): the same one may judge as config.conscience.verdicts.
    Raises UserError for a score that is no finite number."""

    def score(prompts, answers, seed):
        rewards = [
            [_finite(reward(prompt, answer.text)) for answer in group]
            for prompt, group in zip(prompts, answers)
        ]
        return np.array(rewards, np.float32)

    return score


def _finite(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{REWARD_FIELD}: the function gave {value!r:.60}; it must give a number")
    return number


def reward_function(named: str) -> Callable[[list[Message], str], float] | None:
    """The function that a config names as its reward; None for one of NAMED_REWARDS. Raises
    UserError for anything else."""
    if named in NAMED_REWARDS:
        return None
    if not is_function_name(named):
        raise UserError(
            f"{REWARD_FIELD}: {named!r} is unknown; known: {', '.join(NAMED_REWARDS)}, "
            "python:module.function, entry:name"
        )
    return named_function(named, REWARD_FIELD, "(conversation, answer)")


def principle_score(
    setup: Setup, judging: Judging, batch_size: int, orders: Orders
) -> ScoreAnswers:
    """The frozen model's own preference, used directly: the mean over the other answers to the
    same prompt of how much it prefers this one, in nats; of each comparison the guideline with
    the strongest preference counts."""

    def score(prompts, answers, seed):
        samples = len(answers[0])
        pairs = [
            (place, i, j)
            for place in range(len(prompts))
            for i, j in itertools.combinations(range(samples), 2)
        ]
        comparisons = [
            AnswerPair(
                prompts[place],
                answers[place][i].text,
                answers[place][j].text,
                judging.guidelines(place, seed),
            )
            for place, i, j in pairs
        ]
        rewards = np.zeros((len(prompts), samples), np.float32)
        for (place, i, j), margins in zip(
            pairs, compare(setup, comparisons, batch_size=batch_size, orders=orders)
        ):
            margin = margins[strongest(margins)]
            rewards[place, i] += margin / (samples - 1)
            rewards[place, j] -= margin / (samples - 1)
        return rewards

    return score


@dataclass(frozen=True)
class Shaping:
    """What is added to a score: see config.self_align.reinforcement.shaping."""

    score_clip: float
    truncation_penalty: float
    repetition_penalty: float
    length_bonus: float
    longest: int

    def parts(
        self, scores: Float[np.ndarray, "prompts samples"], answers: list[list[Answer]]
    ) -> dict[str, Float[np.ndarray, "prompts samples"]]:
        """The parts of each answer's reward, which is their sum: the score, no further from the
        rollout's mean than score_clip of the rollout's deviations (one far off is more often the
        reward model's mistake than the policy's merit); less truncation_penalty where the answer
        did not end (SALMON likewise); less repetition_penalty · its share of repeated four-word
        sequences; plus length_bonus · its share of the most tokens (SALMON, section 3.4)."""
        everywhere = gather(np.asarray(scores, np.float32))
        mean, reach = everywhere.mean(), self.score_clip * everywhere.std()

        def each(of_answer) -> np.ndarray:
            return np.array([[of_answer(a) for a in group] for group in answers], np.float32)

        return {
            "score": np.clip(scores, mean - reach, mean + reach),
            "truncation": -self.truncation_penalty * each(lambda a: not a.ended),
            "repetition": -self.repetition_penalty * each(lambda a: repeated_share(a.text)),
            "length": self.length_bonus * each(lambda a: len(a.tokens) / self.longest),
        }


def shaping_of(config: SelfAlignConfig) -> Shaping:
    """The shaping that a config asks for."""
    wanted = config.self_align.reinforcement.shaping
    return Shaping(
        wanted.score_clip,
        wanted.truncation_penalty,
        wanted.repetition_penalty,
        wanted.length_bonus,
        config.self_align.reinforcement.policy.max_new_tokens,
    )
