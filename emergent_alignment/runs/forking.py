"""Forks of the policy's own answers (conscience/forks.py): written, scored, the best taken."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from emergent_alignment.conscience.forks import Fork, best_fork, joined_fork, kept_lengths
from emergent_alignment.conscience.hearing import Reviewer, Score
from emergent_alignment.conscience.policy_links import WrittenAnswers, score_samples
from emergent_alignment.generation.text import Answer
from emergent_alignment.parallel.hosts import largest
from emergent_alignment.randomness import Draws, Purpose
from emergent_alignment.runs.step_policy import StepPolicy, sampled

_NO_FORK = Fork(Answer([], np.zeros(0, np.float32), "", True), Score(float("nan")))
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
        """The best fork of each `live` row's candidate; what comes back for others means
        nothing."""
        settings, scores = self.policy.conscience, dict(zip(rows, candidate_scores))
        flagged = [row for row, alive in zip(rows, live) if alive]
        best = {
            row: best_fork(forks, self.candidates[row].text, scores[row], settings)
            for row, forks in zip(flagged, self._scored(flagged, len(rows)))
        }
        taken = [best.get(row, _NO_FORK) for row in rows]
        # Where chance is to say what passes, it has only said which fork is taken.
        known = None if settings.chance else [fork.score for fork in taken]
        return WrittenAnswers([fork.answer for fork in taken], known)

    @property
    def _draws(self) -> Draws:
        return Draws(self.policy.run.config.seed, Purpose.FORKS, self.policy.step)

    def _kept(self, row: int) -> list[int]:
        number = self.policy.conscience.samples
        seed = self._draws.number(_CUTTING, int(self.policy.asked.places[row]))
        uniform = np.random.default_rng(seed).random(number)
        return kept_lengths(len(self.candidates[row].tokens), uniform)

    def _scored(self, rows: list[int], most: int) -> list[list[Fork]]:
        """All forks of the candidates of these rows, of which there can be `most`."""
        kept = [self._kept(row) for row in rows]
        answers = self._answers(rows, kept, most)
        scores = score_samples(
            self.reviewer,
            self.policy.conscience,
            [self.policy.asked.messages[row] for row in rows],
            answers,
            self._draws,
            self.policy.asked.places[rows],
        )
        return [[Fork(*fork) for fork in zip(*of_row)] for of_row in zip(answers, scores)]

    def _answers(self, rows: list[int], kept: list[list[int]], most: int) -> list[list[Answer]]:
        run, number = self.policy.run, self.policy.conscience.samples
        begun = [
            [*self.policy.asked.prompts[row], *self.candidates[row].tokens[:length]]
            for row, lengths in zip(rows, kept)
            for length in lengths
        ]
        # Room for a quarter of the rows, or for all: two programs. All hosts take the same.
        quarter = -(-most // 4)
        padding = number * (quarter if largest(len(rows)) <= quarter else most) - len(begun)
        sampler = self.policy.correction_sampler
        with run.clock.part("sampling"):
            written = sampled(
                run,
                self.policy.params,
                begun + [[]] * padding,
                np.append(self._places(rows), np.zeros(padding, int)),
                self._draws.part_key(_WRITING),
                sampler,
            )
        chat, longest = run.setup.chat, int(sampler.max_new_tokens)
        return [
            [
                joined_fork(chat, self.candidates[row], length, written[at], longest)
                for length, at in zip(lengths, range(i * number, (i + 1) * number))
            ]
            for i, (row, lengths) in enumerate(zip(rows, kept))
        ]

    def _places(self, rows: list[int]) -> Int[np.ndarray, "forks"]:
        number = self.policy.conscience.samples
        return (self.policy.asked.places[rows][:, None] * number + np.arange(number)).reshape(-1)
