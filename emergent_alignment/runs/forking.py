"""Forks of the policy's own answers (conscience/forks.py): written, scored, the best taken."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from emergent_alignment.conscience.forks import (
    Fork,
    beginning,
    best_fork,
    followed,
    joined_fork,
    kept_lengths,
)
from emergent_alignment.conscience.hearing import Reviewer, Score
from emergent_alignment.conscience.policy_links import (
    WrittenAnswers,
    score_answers,
    score_samples,
)
from emergent_alignment.conscience.revise import Link
from emergent_alignment.conscience.turns import FALL_TOKENS, turns
from emergent_alignment.generation.text import Answer
from emergent_alignment.parallel.hosts import largest
from emergent_alignment.randomness import Draws, Purpose
from emergent_alignment.runs.step_policy import StepPolicy, sampled

_NO_FORK = Fork(Answer([], np.zeros(0, np.float32), "", True), Score(float("nan")))
_PURPOSE = {"fork": Purpose.FORKS, "amend": Purpose.AMENDS}
_WRITING = 0  # their parts
_CUTTING = 1
_PHRASE = 2


@dataclass(frozen=True)
class Forking:
    """Forks of the candidates of a step's policy, which a reviewer scores."""

    policy: StepPolicy
    reviewer: Reviewer
    candidates: list[Answer]

    def forks(
        self, link: Link, rows: list[int], live: list[bool], candidate_scores: list[float]
    ) -> WrittenAnswers:
        """The best fork of each `live` row's candidate; what comes back for others means
        nothing."""
        settings, scores = self.policy.conscience, dict(zip(rows, candidate_scores))
        flagged = [row for row, alive in zip(rows, live) if alive]
        best = {
            row: best_fork(forks, self.candidates[row].text, scores[row], settings)
            for row, forks in zip(flagged, self._scored(link, flagged, len(rows)))
        }
        taken = [best.get(row, _NO_FORK) for row in rows]
        # Where chance is to say what passes, it has only said which fork is taken.
        known = None if settings.chance else [fork.score for fork in taken]
        return WrittenAnswers([fork.answer for fork in taken], known)

    def _draws(self, link: Link) -> Draws:
        return Draws(self.policy.run.config.seed, _PURPOSE[link], self.policy.step)

    def _kept(self, link: Link, rows: list[int]) -> list[list[int]]:
        """How many of each candidate's tokens its forks keep."""
        settings = self.policy.conscience
        if settings.cuts == "turn" and not settings.chance:
            return [[turn] * settings.samples for turn in self._turns(link, rows)]
        return [self._on_every_scale(link, row) for row in rows]

    def _on_every_scale(self, link: Link, row: int) -> list[int]:
        seed = self._draws(link).number(_CUTTING, int(self.policy.asked.places[row]))
        uniform = np.random.default_rng(seed).random(self.policy.conscience.samples)
        return kept_lengths(len(self.candidates[row].tokens), uniform)

    def _turns(self, link: Link, rows: list[int]) -> list[int]:
        chat, asked = self.policy.run.setup.chat, self.policy.asked
        candidates = [self.candidates[row] for row in rows]

        def scores_of(beginnings: list[tuple[int, int]]) -> list[Score]:
            return score_answers(
                self.reviewer,
                self.policy.conscience,
                [asked.messages[rows[i]] for i, _ in beginnings],
                [beginning(chat, candidates[i], kept) for i, kept in beginnings],
                self._draws(link),
                np.array([asked.places[rows[i]] for i, _ in beginnings], int),
            )

        return turns([len(candidate.tokens) for candidate in candidates], scores_of)

    def _scored(self, link: Link, rows: list[int], most: int) -> list[list[Fork]]:
        """All forks of the candidates of these rows, of which there can be `most`."""
        kept = self._kept(link, rows)
        answers = self._answers(link, rows, kept, most)
        scores = score_samples(
            self.reviewer,
            self.policy.conscience,
            [self.policy.asked.messages[row] for row in rows],
            answers,
            self._draws(link),
            self.policy.asked.places[rows],
        )
        return [[Fork(*fork) for fork in zip(*of_row)] for of_row in zip(answers, scores)]

    def _answers(
        self, link: Link, rows: list[int], kept: list[list[int]], most: int
    ) -> list[list[Answer]]:
        run, number = self.policy.run, self.policy.conscience.samples
        begun = [
            [*self.policy.asked.prompts[row], *self.candidates[row].tokens[:length]]
            for row, lengths in zip(rows, kept)
            for length in lengths
        ]
        # Room for a quarter of the rows, or for all: two programs. All hosts take the same.
        quarter = -(-most // 4)
        room = number * (quarter if largest(len(rows)) <= quarter else most)
        with run.clock.part("sampling"):
            write = self._amended if link == "amend" else self._continued
            written = write(link, begun, self._places(rows), room)
        chat, longest = run.setup.chat, int(self.policy.correction_sampler.max_new_tokens)
        return [
            [
                joined_fork(chat, self.candidates[row], length, written[at], longest)
                for length, at in zip(lengths, range(i * number, (i + 1) * number))
            ]
            for i, (row, lengths) in enumerate(zip(rows, kept))
        ]

    def _amended(
        self, link: Link, begun: list[list[int]], places: Int[np.ndarray, "forks"], room: int
    ) -> list[Answer]:
        """A phrase of the frozen copy's, and what the policy writes behind it."""
        frozen, sampler = self.policy.run.setup.model.params, self.policy.correction_sampler
        few = np.int32(min(FALL_TOKENS, int(sampler.max_new_tokens)))
        sampler = replace(sampler, max_new_tokens=few)
        phrases = self._drawn(link, _PHRASE, frozen, begun, places, room, sampler)
        open_ones = [
            [] if phrase.ended else [*before, *phrase.tokens]
            for before, phrase in zip(begun, phrases)
        ]
        rest = self._continued(link, open_ones, places, room)
        return [one if one.ended else followed(one, more) for one, more in zip(phrases, rest)]

    def _continued(
        self, link: Link, begun: list[list[int]], places: Int[np.ndarray, "forks"], room: int
    ) -> list[Answer]:
        """What the policy writes next."""
        sampler = self.policy.correction_sampler
        return self._drawn(link, _WRITING, self.policy.params, begun, places, room, sampler)

    def _drawn(self, link, part, params, begun, places, room, sampler) -> list[Answer]:
        padding = room - len(begun)
        prompts, ids = begun + [[]] * padding, np.append(places, np.zeros(padding, int))
        key = self._draws(link).part_key(part)
        return sampled(self.policy.run, params, prompts, ids, key, sampler)[: len(begun)]

    def _places(self, rows: list[int]) -> Int[np.ndarray, "forks"]:
        number = self.policy.conscience.samples
        return (self.policy.asked.places[rows][:, None] * number + np.arange(number)).reshape(-1)
