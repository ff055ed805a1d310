"""Forks of the policy's own answers (conscience/forks.py): written, scored, the closest taken."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from emergent_alignment.conscience.forks import Fork, closest, joined_fork, kept_lengths
from emergent_alignment.conscience.hearing import Reviewer, Score
from emergent_alignment.conscience.policy_links import WrittenAnswers, score_samples
from emergent_alignment.generation.text import Answer
from emergent_alignment.randomness import Draws, Purpose
from emergent_alignment.runs.from_config import candidate_sampler
from emergent_alignment.runs.step_policy import StepPolicy, sampled

_NO_SCORE = Score(float("nan"))
_WRITING = 0  # parts of Purpose.FORKS
_CUTTING = 1


@dataclass(frozen=True)
class Forking:
    """The policy of a step as a writer of forks of its candidates, which a reviewer scores."""

    policy: StepPolicy
    reviewer: Reviewer
    candidates: list[Answer]

    def forks(
        self, rows: list[int], live: list[bool], candidate_scores: list[float]
    ) -> WrittenAnswers:
        """The closest fork of each `live` row's candidate; what comes back for others means
        nothing."""
        settings = self.policy.conscience
        kept = [self._kept(row) for row in rows]
        answers = self._answers(rows, live, kept)
        flagged = [i for i, alive in enumerate(live) if alive]
        scores = dict(zip(flagged, self._scores(rows, flagged, answers)))
        chosen = [
            closest(
                [Fork(*fork) for fork in zip(answers[i], kept[i], scores[i])],
                self.candidates[row].text,
                candidate_scores[i],
                settings,
            )
            if i in scores
            else Fork(answers[i][0], 0, _NO_SCORE)
            for i, row in enumerate(rows)
        ]
        # Where chance is to say what passes, it has only said which fork is taken.
        known = None if settings.chance else [fork.score for fork in chosen]
        return WrittenAnswers([fork.answer for fork in chosen], known)

    @property
    def _draws(self) -> Draws:
        return Draws(self.policy.run.config.seed, Purpose.FORKS, self.policy.step)

    def _kept(self, row: int) -> list[int]:
        number = self.policy.conscience.samples
        seed = self._draws.number(_CUTTING, int(self.policy.asked.places[row]))
        uniform = np.random.default_rng(seed).random(number)
        return kept_lengths(len(self.candidates[row].tokens), uniform)

    def _answers(
        self, rows: list[int], live: list[bool], kept: list[list[int]]
    ) -> list[list[Answer]]:
        run, asked, number = self.policy.run, self.policy.asked, self.policy.conscience.samples
        begun = [
            [*asked.prompts[row], *self.candidates[row].tokens[:length]] if alive else []
            for row, alive, lengths in zip(rows, live, kept)
            for length in lengths
        ]
        sampler = candidate_sampler(run.config, run.setup.chat)
        key = self._draws.part_key(_WRITING)
        with run.clock.part("sampling"):
            written = sampled(run, self.policy.params, begun, self._places(rows), key, sampler)
        longest = int(sampler.max_new_tokens)
        return [
            [
                joined_fork(run.setup.chat, self.candidates[row], length, written[at], longest)
                for length, at in zip(kept[i], range(i * number, (i + 1) * number))
            ]
            for i, row in enumerate(rows)
        ]

    def _scores(
        self, rows: list[int], flagged: list[int], answers: list[list[Answer]]
    ) -> list[list[Score]]:
        asked, chosen = self.policy.asked, [rows[i] for i in flagged]
        return score_samples(
            self.reviewer,
            self.policy.conscience,
            [asked.messages[row] for row in chosen],
            [answers[i] for i in flagged],
            self._draws,
            asked.places[chosen],
        )

    def _places(self, rows: list[int]) -> Int[np.ndarray, "forks"]:
        number = self.policy.conscience.samples
        return (self.policy.asked.places[rows][:, None] * number + np.arange(number)).reshape(-1)
