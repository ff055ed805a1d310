"""Reviewed continuations: on a share of the windows the policy goes on with a prefix, and a frozen
copy that has learnt to tell harm apart reviews what it writes.

The copy is a former policy of the same run, taken when calibration first passes the AUC that the
config sets; before that there is no reviewer and no alignment term.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from emergent_alignment.applications.pretraining.frozen_copies import FrozenCopies
from emergent_alignment.applications.pretraining.settings import PretrainingConfig
from emergent_alignment.applications.pretraining.windows import Windows
from emergent_alignment.conscience.chance import reviewer_of
from emergent_alignment.conscience.hearing import Reviewer
from emergent_alignment.conscience.pairs import ConscienceSettings
from emergent_alignment.data.batches import Batch, make_batch
from emergent_alignment.data.examples import Example
from emergent_alignment.data.messages import Message
from emergent_alignment.models.model import Model
from emergent_alignment.parallel.hosts import anywhere, is_first
from emergent_alignment.parallel.rows import own_rows
from emergent_alignment.runs.calibrating import calibrate_model
from emergent_alignment.runs.from_config import conscience_settings
from emergent_alignment.runs.listening import NOTHING_HEARD
from emergent_alignment.runs.listening_inputs import Ears, Listening, PromptsOfStep, listens_apart
from emergent_alignment.runs.training_run import Run
from emergent_alignment.training.state import policy_params


@dataclass(frozen=True)
class ReviewedText:
    """The rows of one step's continuations, the journal's records and scalars about them."""

    batch: Batch | None
    records: list[dict]
    scalars: dict[str, float]
    weights: dict[str, float] | None = None


@dataclass(frozen=True)
class TakenCopy:
    """A frozen copy: the step it was taken at, the model, who reviews with it, how it decides, and
    its calibration, which chose wording, layout, polarity and threshold."""

    step: int
    frozen: Model
    reviewer: Reviewer
    conscience: ConscienceSettings
    calibration: dict


class TakenCopies:
    """The frozen copy in force at each step: none, or the newest that was taken.

    A copy is due every `calibrate_every` steps until there is one, and `refresh_every` steps
    after the newest (0: never again; Gorbatovski et al. 2024, 2404.09656, TR-DPO, the hard
    update). It is taken where calibration, asked of the policy of that very step, reaches `auc`.
    """

    def __init__(self, run: Run[PretrainingConfig], workdir: Path, matched: list[Example]):
        self._run, self._matched = run, matched
        self._copies = FrozenCopies(workdir / "frozen")
        self._loaded: TakenCopy | None = None

    def at(self, step: int, trainable: Any) -> tuple[TakenCopy | None, dict[str, float]]:
        """The reviewer of a step, or None; and scalars about calibration."""
        newest, scalars = self._copies.newest(step), {}
        if self._due(step, newest):
            calibration = self._calibrated(trainable)
            scalars["calibration/auc"] = _auc(calibration)
            if anywhere(_auc(calibration) >= self._run.config.pretraining.auc):
                self._copies.save(step, trainable, calibration)
                newest = step
        if newest is None:
            return None, scalars
        if self._loaded is None or self._loaded.step != newest:
            self._loaded = self._load(newest, trainable)
        if newest == step:  # also where a resumed run finds it taken
            scalars["calibration/auc"] = _auc(self._loaded.calibration)
        return self._loaded, scalars | {"frozen_step": float(newest)}

    def _due(self, step: int, newest: int | None) -> bool:
        settings = self._run.config.pretraining
        if newest is None:
            return step % settings.calibrate_every == 0
        age = step - newest
        return bool(settings.refresh_every and age and age % settings.refresh_every == 0)

    def _policy(self, trainable: Any) -> Model:
        model = self._run.setup.model
        return replace(model, params=policy_params(trainable, model.params, self._run.lora))

    def _calibrated(self, trainable: Any) -> dict:
        run = self._run
        with run.clock.part("review"):
            setup = replace(run.setup, model=self._policy(trainable))
            calibration = calibrate_model(run.config, setup, self._matched)
        return calibration | {"source": run.config.pretraining.matched}

    def _load(self, step: int, like: Any) -> TakenCopy:
        trainable, calibration = self._copies.restore(step, like)
        conscience = conscience_settings(self._run.config, calibration)
        frozen = self._policy(trainable)
        reviewer = reviewer_of(frozen, self._run.setup.chat, conscience)
        if is_first():
            print(
                f"the frozen copy is the policy of step {step}. {calibration['verdict']}",
                file=sys.stderr,
            )
        return TakenCopy(step, frozen, reviewer, conscience, calibration)


def _auc(calibration: dict) -> float:
    return calibration["chosen"]["auc"][0]


def review_windows(
    run: Run,
    copies: TakenCopies,
    listening: Listening,
    windows: Windows,
    first: int,
    step: int,
    trainable: Any,
) -> ReviewedText:
    """Let the policy continue prefixes of `windows` (all hosts', of which window 0 is number
    `first` of the run), and let the copy in force review what it writes. A batch of pairs is
    there, with or without any pair in it, as soon as there is a copy."""
    copy, scalars = copies.at(step, trainable)
    if copy is None:
        return ReviewedText(None, [], scalars, listening.weights())
    config, heard = run.config, NOTHING_HEARD
    if listening.due(step):
        ears = Ears(copy.reviewer, copy.conscience, copy.frozen)
        asked = _prefixes(run, windows, first)
        heard = listening.hear(ears, asked, step, trainable)
    if listens_apart(config):
        batch = listening.batch(step)
    else:
        own = [windows_prompt(run, windows, row)[1] for row in own_rows(len(windows))]
        batch = make_batch(
            own,
            [[]] * len(own),
            heard.pairs,
            prompt_width=config.data.max_prompt_tokens,
            branch_width=config.sampling.max_new_tokens,
            roles="no target",
            with_reference=True,
        )
    return ReviewedText(batch, heard.records, scalars | heard.scalars, listening.weights())


def windows_prompt(run: Run, windows: Windows, row: int) -> tuple[list[Message], list[int]]:
    """The beginning of a window that the policy is to continue, as a conversation and as tokens."""
    chat, most = run.setup.chat, run.config.data.max_prompt_tokens
    messages = chat.prefix(windows, row, most)
    return messages, chat.prompt_tokens(messages)[-most:]


def _prefixes(run: Run, windows: Windows, first: int) -> PromptsOfStep:
    shown = [windows_prompt(run, windows, row) for row in range(len(windows))]
    messages, tokens = ([one[i] for one in shown] for i in (0, 1))
    return PromptsOfStep(messages, tokens, [first + row for row in range(len(windows))])
