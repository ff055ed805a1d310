"""Forks of the policy's own answers (conscience/forks.py): written, scored, the best taken."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from emergent_alignment.conscience.forks import (
    Fork,
    best_fork,
    followed,
    joined_fork,
    kept_lengths,
)
from emergent_alignment.conscience.form import keeps_form
from emergent_alignment.conscience.frozen_hearing import FrozenHearing
from emergent_alignment.conscience.hearing import Reviewer, Score
from emergent_alignment.conscience.policy_links import (
    Against,
    WrittenAnswers,
    score_answers,
    score_samples,
)
from emergent_alignment.conscience.revise import Link
from emergent_alignment.conscience.turning import (
    FALL_TOKENS,
    ScoresOf,
    TurningPoint,
    nearest,
    places_in_form,
    places_to_turn,
    turning_points,
)
from emergent_alignment.generation.leaving import leaving_tokens
from emergent_alignment.generation.text import Answer, Batching, beginning_of
from emergent_alignment.parallel.hosts import largest
from emergent_alignment.randomness import Draws, Purpose
from emergent_alignment.runs.step_policy import StepPolicy, sampled

_NOTHING = Against("", float("nan"))
_NO_FORK = Fork(Answer([], np.zeros(0, np.float32), "", True), Score(float("nan")), _NOTHING)
_PURPOSE = {"fork": Purpose.FORKS, "amend": Purpose.AMENDS}
_WRITING = 0  # their parts
_CUTTING = 1
_LEAVING = 2


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
        settings = self.policy.conscience
        flagged = [row for row, alive in zip(rows, live) if alive]
        scores = [score for score, alive in zip(candidate_scores, live) if alive]
        forks = self._scored(link, flagged, scores, len(rows))
        best = {row: best_fork(of_row, settings) for row, of_row in zip(flagged, forks)}
        taken = [best.get(row, _NO_FORK) for row in rows]
        # Where chance is to say what passes, it has only said which fork is taken.
        known = None if settings.chance else [fork.score for fork in taken]
        against = [fork.against for fork in taken]
        return WrittenAnswers([fork.answer for fork in taken], known, against)

    def _draws(self, link: Link) -> Draws:
        return Draws(self.policy.run.config.seed, _PURPOSE[link], self.policy.step)

    def _on_every_scale(self, link: Link, row: int) -> list[int]:
        """How many of a candidate's tokens its forks keep."""
        seed = self._draws(link).number(_CUTTING, int(self.policy.asked.places[row]))
        uniform = np.random.default_rng(seed).random(self.policy.conscience.samples)
        return kept_lengths(len(self.candidates[row].tokens), uniform)

    def _turns(self, link: Link, rows: list[int], scores: list[float]) -> list[list[TurningPoint]]:
        """Where the reviewer reads the answers itself, it reads them once. Where chance judges,
        they turn anywhere."""
        places = [self._places_to_turn(row) for row in rows]
        if self.policy.conscience.chance:
            return [
                [
                    TurningPoint(kept, kept + FALL_TOKENS, score)
                    for kept in nearest(self._on_every_scale(link, row), of_row)
                ]
                for row, score, of_row in zip(rows, scores, places)
            ]
        turns: list[list[TurningPoint]] = []
        number = self.policy.conscience.samples
        for start in range(0, len(rows), self.reviewer.batch_size):
            chunk = slice(start, start + self.reviewer.batch_size)
            lengths = [len(self.candidates[row].tokens) for row in rows[chunk]]
            scores_of = self._scores_of_beginnings(link, rows[chunk])
            turns += turning_points(lengths, number, scores_of, places[chunk])
        return turns

    def _places_to_turn(self, row: int) -> Sequence[int]:
        """Where an answer may turn: where a form is to be kept, where it stands already."""
        candidate, check = self.candidates[row], self.policy.conscience.form.keeps
        if not check:
            return places_to_turn(len(candidate.tokens))
        chat = self.policy.run.setup.chat
        texts = [
            beginning_of(candidate, kept, chat).text for kept in range(len(candidate.tokens) + 1)
        ]
        return places_in_form(texts, keeps_form(check))

    def _scores_of_beginnings(self, link: Link, rows: list[int]) -> ScoresOf:
        asked, draws, chat = self.policy.asked, self._draws(link), self.policy.run.setup.chat
        settings = replace(self.policy.conscience, chain=(), critique=False)
        messages = [asked.messages[row] for row in rows]
        candidates = [self.candidates[row] for row in rows]
        ids = asked.places[rows]
        hearing = self.reviewer.hear(settings, messages, candidates, draws, ids)
        if isinstance(hearing, FrozenHearing):
            return hearing.scores_of_beginnings
        return lambda picks: score_answers(
            self.reviewer,
            settings,
            [messages[i] for i, _ in picks],
            [beginning_of(candidates[i], kept, chat) for i, kept in picks],
            draws,
            ids[[i for i, _ in picks]],
        )

    def _scored(
        self, link: Link, rows: list[int], candidate_scores: list[float], most: int
    ) -> list[list[Fork]]:
        """All forks of the candidates of these rows, of which there can be `most`."""
        if self.policy.conscience.cuts == "turn":
            turns = self._turns(link, rows, candidate_scores)
            kept = [[turn.kept for turn in of_row] for of_row in turns]
            against = [
                [self._beginning(row, turn) for turn in of_row] for row, of_row in zip(rows, turns)
            ]
        else:
            kept = [self._on_every_scale(link, row) for row in rows]
            against = [
                [Against(self.candidates[row].text, score)] * self.policy.conscience.samples
                for row, score in zip(rows, candidate_scores)
            ]
        answers = self._answers(link, rows, kept, most)
        scores = score_samples(
            self.reviewer,
            self.policy.conscience,
            [self.policy.asked.messages[row] for row in rows],
            answers,
            self._draws(link),
            self.policy.asked.places[rows],
        )
        return [[Fork(*fork) for fork in zip(*of_row)] for of_row in zip(answers, scores, against)]

    def _beginning(self, row: int, turn: TurningPoint) -> Against:
        """What a phrase at the turn is set against."""
        chat = self.policy.run.setup.chat
        return Against(beginning_of(self.candidates[row], turn.end, chat).text, turn.score, True)

    def _answers(
        self, link: Link, rows: list[int], kept: list[list[int]], most: int
    ) -> list[list[Answer]]:
        run, number = self.policy.run, self.policy.conscience.samples
        cuts = [(row, length) for row, lengths in zip(rows, kept) for length in lengths]
        candidates, prompts = self.candidates, self.policy.asked.prompts
        begun = [[*prompts[row], *candidates[row].tokens[:length]] for row, length in cuts]
        left = [candidates[row].tokens[length] for row, length in cuts]
        # Room for a quarter of the rows, or for all: two programs. All hosts take the same.
        quarter = -(-most // 4)
        room = number * (quarter if largest(len(rows)) <= quarter else most)
        with run.clock.part("sampling"):
            written = self._written(link, begun, left, self._places(rows), room)
        chat, longest = run.setup.chat, int(self.policy.correction_sampler.max_new_tokens)
        return [
            [
                joined_fork(chat, self.candidates[row], length, written[at], longest)
                for length, at in zip(lengths, range(i * number, (i + 1) * number))
            ]
            for i, (row, lengths) in enumerate(zip(rows, kept))
        ]

    def _written(
        self,
        link: Link,
        begun: list[list[int]],
        left: list[int],
        places: Int[np.ndarray, "forks"],
        room: int,
    ) -> list[Answer]:
        """What the policy (`fork`) or the frozen copy (`amend`) writes behind what is begun: to its
        end, or at the turn a phrase, of which the policy's begins with any token but the
        candidate's."""
        sampler, at_turn = self.policy.correction_sampler, self.policy.conscience.cuts == "turn"
        if at_turn:
            few = min(FALL_TOKENS, int(sampler.max_new_tokens)) - (link == "fork")
            sampler = replace(sampler, max_new_tokens=np.int32(few))
        if link == "amend":
            frozen = self.policy.run.setup.model.params
            return self._drawn(link, frozen, begun, places, room, sampler)
        if not at_turn:
            return self._drawn(link, self.policy.params, begun, places, room, sampler)
        first = self._leaving(link, begun, left, places, room)
        going_on = [[*before, *one.tokens] for before, one in zip(begun, first)]
        rest = self._drawn(link, self.policy.params, going_on, places, room, sampler)
        return [followed(one, more) for one, more in zip(first, rest)]

    def _leaving(self, link, begun, left, places, room) -> list[Answer]:
        run = self.policy.run
        return leaving_tokens(
            run.setup.model,
            self.policy.params,
            run.setup.chat,
            begun,
            left,
            self._draws(link).part_key(_LEAVING),
            self.policy.correction_sampler,
            Batching(room, run.config.data.bucket_tokens, ids=places),
        )

    def _drawn(self, link, params, begun, places, room, sampler) -> list[Answer]:
        padding = room - len(begun)
        prompts, ids = begun + [[]] * padding, np.append(places, np.zeros(padding, int))
        key = self._draws(link).part_key(_WRITING)
        return sampled(self.policy.run, params, prompts, ids, key, sampler)[: len(begun)]

    def _places(self, rows: list[int]) -> Int[np.ndarray, "forks"]:
        number = self.policy.conscience.samples
        return (self.policy.asked.places[rows][:, None] * number + np.arange(number)).reshape(-1)
