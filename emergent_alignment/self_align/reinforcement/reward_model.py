"""The reward model: a scalar head on the hidden state at the end of an answer, and what it says
of answers. It is trained in reward_training.py."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from emergent_alignment.data.batches import Batch, Pair, bucket, make_batch
from emergent_alignment.data.chat import Message
from emergent_alignment.generation.text import Answer
from emergent_alignment.parallel.rows import row_multiple, to_devices, to_host
from emergent_alignment.runs.from_config import Setup
from emergent_alignment.self_align.reinforcement.preferences import (
    read_to_the_end,
    with_guidelines,
)
from emergent_alignment.training.branches import branch_hidden
from emergent_alignment.training.heads import Headed, body_params, head_values
from emergent_alignment.training.step_settings import StepSettings

# (prompt, branches) as tokens.
RewardRows = list[tuple[list[int], list[list[int]]]]
NO_TARGET = "no target"


def branch_scores(
    settings: StepSettings, trainable: Headed, frozen: dict, batch: Batch
) -> Float[Array, "batch branches"]:
    """The head's value at each branch's last true token, in float32; of empty branches it means
    nothing."""
    params = body_params(trainable, frozen, settings.lora)
    return head_values(trainable, branch_ends(settings, params, batch))


def branch_ends(
    settings: StepSettings, params: dict, batch: Batch
) -> Float[Array, "batch branches width"]:
    """The final hidden state of each branch's last true token."""
    _, own, _ = branch_hidden(settings, params, batch)
    last = jnp.maximum(batch.branch_lengths - 1, 0)[..., None, None]
    return jnp.take_along_axis(own, last, axis=2)[:, :, 0]


@dataclass(frozen=True, eq=False)
class RewardModel:
    """What scores answers: the trained head with its backbone, and the mean and deviation of its
    scores of held-out answers, by which a score is told (Ouyang et al. 2022, section 3.5, shift
    it likewise)."""

    setup: Setup
    settings: StepSettings
    trainable: Headed
    mean: float = 0.0
    deviation: float = 1.0

    def scores(
        self,
        prompts: Sequence[list[Message]],
        answers: Sequence[Answer],
        guidelines: Sequence[tuple[str, ...]],
    ) -> np.ndarray:
        """float32[answers], each told its `guidelines`, in standard deviations above the mean of
        held-out answers."""
        chat, config = self.setup.chat, self.setup.config
        rows = [
            chat.prompt_tokens(with_guidelines(prompt, told))[-config.data.max_prompt_tokens :]
            for prompt, told in zip(prompts, guidelines)
        ]
        longest = config.data.max_response_tokens
        read = [read_to_the_end(answer.tokens, chat, longest) for answer in answers]
        raw = self.raw([(row, [tokens]) for row, tokens in zip(rows, read)])
        return (raw[:, 0] - self.mean) / self.deviation

    def raw(self, rows: RewardRows, size: int = 16) -> np.ndarray:
        """float32[rows, branches]: the head's own scores of (prompt, branches)."""

        def scored(batch: Batch) -> Array:
            return _scores(self.settings, self.trainable, self.setup.model.params, batch)

        return by_length(self.setup, rows, size, scored)


def by_length(
    setup: Setup, rows: RewardRows, size: int, read: Callable[[Batch], Array]
) -> np.ndarray:
    """What `read` says of each row's branches, in batches of `size` rows of like length; fewer
    rows are padded to a power of two. Raises UserError where a row is more than the model can
    read."""
    setup.model.config.check_row(
        max(len(prompt) + max(map(len, branches)) for prompt, branches in rows),
        "the reward model: the longest prompt with its answer",
        "lower config.data.max_prompt_tokens or max_response_tokens",
    )
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]) + len(rows[i][1][0]))
    size = min(size, 1 << (len(rows) - 1).bit_length())
    size = -(-size // row_multiple()) * row_multiple()
    values: list[np.ndarray | None] = [None] * len(rows)
    for start in range(0, len(order), size):
        chosen = order[start : start + size]
        batch = _padded([rows[i] for i in chosen], size, setup.config.data.bucket_tokens)
        for place, value in zip(chosen, to_host(read(batch))):
            values[place] = value
    return np.stack(values)


def ends_of(setup: Setup, settings: StepSettings, rows: RewardRows) -> np.ndarray:
    """float32[rows, branches, width]: the frozen model's hidden states at the branches' ends."""

    def ends(batch: Batch) -> Array:
        return _ends(settings, setup.model.params, batch)

    return by_length(setup, rows, 16, ends).astype(np.float32)


_scores = jax.jit(branch_scores, static_argnums=0)
_ends = jax.jit(branch_ends, static_argnums=0)


def _padded(rows, size: int, step: int) -> Batch:
    rows = rows + [rows[0]] * (size - len(rows))
    batch = make_batch(
        [prompt for prompt, _ in rows],
        [[]] * len(rows),
        [Pair(branches[0], branches[-1]) for _, branches in rows],
        prompt_width=bucket(max(len(prompt) for prompt, _ in rows), step, 1 << 30),
        branch_width=bucket(max(len(b) for _, branches in rows for b in branches), step, 1 << 30),
        roles=NO_TARGET,
    )
    if len(rows[0][1]) == 1:
        parts = batch.branches[:, :1], batch.branch_lengths[:, :1]
        batch = replace(batch, branches=parts[0], branch_lengths=parts[1])
    return to_devices(batch)
