"""Fixed pairs that a run is watched by: held-out matched answers, which no step trains on.

The margin of a run's own pairs tells nothing of what was learnt: at the moment when a pair is drawn
the policy is likelier to write the rejected answer, which it has just written. Fixed pairs tell.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from emergent_alignment.data.examples import Example
from emergent_alignment.errors import UserError
from emergent_alignment.generation.text import given_answer
from emergent_alignment.models.model import Model
from emergent_alignment.parallel.hosts import gather_list, own_share
from emergent_alignment.runs.config import RunConfig
from emergent_alignment.runs.from_config import conscience_settings, evaluation_examples
from emergent_alignment.runs.step_policy import policy_model, policy_reader
from emergent_alignment.runs.training_run import Run
from emergent_alignment.storage.spread import spread
from emergent_alignment.training.loop import MakeInput, StepInput

NUM_PAIRS = 32


def watched_examples(config: RunConfig) -> list[Example]:
    """The pairs to watch: matched rows of config.data.evaluation, evenly spread; none where it has
    none, or where nothing is to be watched."""
    if not config.training.watch_every:
        return []
    try:
        examples = evaluation_examples(config.data, 0)
    except UserError:  # nothing is held out: nothing is watched
        return []
    return spread([one for one in examples if one.safe and one.harmful], NUM_PAIRS)


def watching(run: Run, make_input: MakeInput, examples: list[Example]) -> MakeInput:
    """`make_input`, which at intervals also says how the policy of the step scores the pairs."""
    if not examples:
        return make_input
    every, own = run.config.training.watch_every, own_share(examples)
    base: list[np.ndarray] = []

    def watched(step: int, trainable: Any) -> StepInput:
        inputs = make_input(step, trainable)
        if step % every:
            return inputs
        if not base:
            base.append(_log_probs(run, run.setup.model, own))
        now = _log_probs(run, policy_model(run, trainable), own)
        inputs.scalars.update(watched_scalars(now, base[0]))
        return inputs

    return watched


def watched_scalars(
    now: Float[np.ndarray, "pairs 2"], base: Float[np.ndarray, "pairs 2"]
) -> dict[str, float]:
    """Of log P(safe), log P(harmful) under the policy and under the frozen copy: the mean margin
    and how far it has moved, in nats; the share told apart; and how far the safe answers themselves
    have moved (where both fall, only the difference is learnt)."""
    margin, before = (values[:, 0] - values[:, 1] for values in (now, base))
    return {
        "watched/margin": float(margin.mean()),
        "watched/margin_moved": float((margin - before).mean()),
        "watched/accuracy": float((margin > 0).mean()),
        "watched/safe_moved": float((now[:, 0] - base[:, 0]).mean()),
    }


def _log_probs(run: Run, model: Model, own: list[Example]) -> Float[np.ndarray, "pairs 2"]:
    chat = run.setup.chat
    reader = policy_reader(model, chat, run.conscience or conscience_settings(run.config))
    values = []
    for start in range(0, len(own), reader.batch_size):
        rows = own[start : start + reader.batch_size]
        shown = reader.read_prompts([one.messages for one in rows])
        sides = [[given_answer(chat, one.safe), given_answer(chat, one.harmful)] for one in rows]
        values += np.stack([reader.log_probs(shown, list(s)) for s in zip(*sides)], -1).tolist()
    return np.array(gather_list(values), np.float32)
