"""The keys of everything random: one for each (seed, purpose, step, row), and no key for two uses.

A key is folded from its seed in one order: the step, the purpose, a part where the purpose has
parts, the row. Whoever draws for a row may fold its key further (the sampler by a token's place).
What numpy shuffles (orders of rows, splits, bootstraps) is seeded where it is shuffled.
"""

import secrets
from dataclasses import dataclass
from enum import IntEnum

import jax
import numpy as np
from jaxtyping import Array, Int, Key

# The step of what no training step draws, such as what is there before the first one.
NO_STEP = 2**32 - 1


class Purpose(IntEnum):
    """What is drawn. Runs resume by these numbers: none is ever changed or given anew."""

    # At a step of training, of a round, or of a rollout.
    CANDIDATES = 1
    CORRECTIONS = 2  # in parts
    TRIALS = 4
    VARIANTS = 5
    TOPICS = 11
    INSTRUCTIONS = 12
    ROLLOUTS = 13
    SAMPLES = 14  # several candidates of a prompt
    YARDSTICK = 15  # the frozen copy's answers to the candidates' prompts
    HELD_OUT_SAMPLES = 16  # the policy's answers to held-out prompts, between steps
    FORKS = 17  # in parts
    AMENDS = 18  # in parts
    # Before the first step.
    OWN_ANSWERS = 3
    TARGET_CORRECTIONS = 6  # in parts
    ADAPTERS = 7
    INITIAL_WEIGHTS = 8
    # With no training.
    GENERATED = 20
    DRAFTS = 21
    DRAFT_CORRECTIONS = 22  # in parts
    GIVEN_CORRECTIONS = 23  # in parts
    # SELF-ALIGN's other stages.
    PRINCIPLED_ANSWERS = 30
    PRINCIPLED_CORRECTIONS = 31  # in parts
    COMPARED_ANSWERS = 32
    VERBOSE_ANSWERS = 33
    # Evaluation.
    EVALUATED_ANSWERS = 40
    HELD_OUT_ANSWERS = 41
    HELD_OUT_CODE = 42
    HARNESS_ANSWERS = 43  # at a step for every round of tokens
    # What of a seed is beyond 32 bits.
    WIDE_SEED = 50


# Parts of corrections, beside a link's, which is its place in the chain.
CRITIQUES, FLAGGING, PASSING, DRAFTED, PRINCIPLES = (1 << bit for bit in range(16, 21))


def key_for(
    seed: int, purpose: Purpose, step: int = NO_STEP, row: int | None = None
) -> Key[Array, ""]:
    """The key of one use, or of one of its rows. Raises ValueError for a step that cannot be."""
    if not 0 <= step <= NO_STEP:
        raise ValueError(f"step {step} is not between 0 and {NO_STEP}")
    key = _folded(_root(seed), step, purpose)
    return key if row is None else jax.random.fold_in(key, row)


def row_keys(key: Key[Array, ""], ids: Int[np.ndarray, "rows"]) -> Key[Array, "rows"]:
    """The keys of a use's rows, by their ids."""
    return jax.vmap(lambda row: jax.random.fold_in(key, row))(ids)


@dataclass(frozen=True)
class Draws:
    """What one use of parts draws from, whoever draws: a model needs keys, an endpoint numbers.
    The seed None is one that nobody can foresee."""

    seed: int | None
    purpose: Purpose
    step: int = NO_STEP

    def part_key(self, part: int) -> Key[Array, ""]:
        """The key of a part."""
        return jax.random.fold_in(key_for(known_seed(self.seed), self.purpose, self.step), part)

    def keys(self, part: int, ids: Int[np.ndarray, "rows"]) -> Key[Array, "rows"]:
        """The keys of a part's rows."""
        return row_keys(self.part_key(part), ids)

    def number(self, part: int, row: int) -> int | None:
        """A seed below 2³¹ for a row of a part; None stays None."""
        if self.seed is None:
            return None
        words = [*_words(self.seed), self.step, self.purpose, part, row]
        return int(np.random.SeedSequence(words).generate_state(1)[0] >> 1)


def known_seed(seed: int | None) -> int:
    """The seed, or for None one that nobody can foresee."""
    return secrets.randbits(63) if seed is None else seed


def _root(seed: int) -> Key[Array, ""]:
    """JAX itself reads 32 bits of a seed."""
    low, high = _words(seed)
    root = jax.random.key(low)
    return _folded(root, NO_STEP, Purpose.WIDE_SEED, high) if high else root


def _words(seed: int) -> tuple[int, int]:
    high, low = divmod(seed % 2**63, 2**32)
    return low, high


def _folded(key: Key[Array, ""], *numbers: int) -> Key[Array, ""]:
    for number in numbers:
        key = jax.random.fold_in(key, int(number))
    return key
