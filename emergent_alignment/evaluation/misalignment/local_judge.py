"""A local model as a judge: the frozen copy, or another one.

A prompt is read once; the tree of numerals is read on top of its keys and values, level by
level, so that the expectation is exact.
"""

import functools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from emergent_alignment.conscience.reader import Reader
from emergent_alignment.data.batches import common_beginning
from emergent_alignment.data.chat import Chat
from emergent_alignment.errors import UserError
from emergent_alignment.evaluation.misalignment.judging import (
    NUM_REPLY_TOKENS,
    Judgement,
    not_scored,
    scored,
)
from emergent_alignment.evaluation.misalignment.numeral_tree import Level, NumeralTree, numeral_tree
from emergent_alignment.generation.prefill import Prompts
from emergent_alignment.generation.sampler import Sampler, sampler_settings
from emergent_alignment.losses import vocabulary_logits
from emergent_alignment.models.cache import chosen_branches, read
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.forward import unembedding
from emergent_alignment.models.model import Model
from emergent_alignment.parallel.rows import to_host
from emergent_alignment.randomness import row_keys
from emergent_alignment.training.state import fingerprint

LOGIT_ROWS = 128  # with fewer, the unembedding is read from memory again and again


@functools.partial(jax.jit, static_argnames=("config", "dtype"))
def numeral_log_probs(
    config: ModelConfig,
    params: dict,
    before: Prompts,
    levels: tuple[Level, ...],
    words: Int[Array, "words"],
    followers: tuple[Int[Array, "..."], ...],
    *,
    dtype: jnp.dtype = jnp.float32,
) -> tuple[Float[Array, "batch nodes words"], Float[Array, "batch nodes followers"]]:
    """float32 log P(word | prompt, node), and log P(any of these | prompt, node) for each of the
    `followers`, after every node of a tree, node 0 being the prompt itself. The logits of
    LOGIT_ROWS rows exist at a time.
    """
    batch = before.last.shape[0]
    hidden, blocks = [before.last[:, None]], ()
    for depth, level in enumerate(levels):
        if depth:
            blocks = tuple(chosen_branches(block, level.parents) for block in blocks)
        shape = (batch, level.tokens.shape[0])
        read_out, block = read(
            config,
            params,
            jnp.broadcast_to(level.tokens[None, :, None], (*shape, 1)),
            jnp.ones(shape, jnp.int32),
            jnp.broadcast_to(before.ends[:, None] + depth, shape),
            (*before.context, *blocks),
            dtype=dtype,
        )
        hidden.append(read_out[:, :, 0])
        blocks = (*blocks, block)
    matrix = unembedding(params, dtype)

    def of_node(last):
        logits = vocabulary_logits(last, matrix, config.logits_cap)
        total = jax.nn.logsumexp(logits, axis=-1)
        followed = [
            jax.nn.logsumexp(logits[..., some], axis=-1)
            if len(some)
            else jnp.full_like(total, -jnp.inf)
            for some in followers
        ]
        return logits[..., words] - total[..., None], jnp.stack(followed, -1) - total[..., None]

    nodes = jnp.moveaxis(jnp.concatenate(hidden, axis=1), 1, 0)
    read_out = jax.lax.map(of_node, nodes, batch_size=max(LOGIT_ROWS // batch, 1))
    return jnp.moveaxis(read_out[0], 0, 1), jnp.moveaxis(read_out[1], 0, 1)


@dataclass(frozen=True, eq=False)
class LocalJudge:
    """A model on this machine that judges.

    least_mass   numbers must together have this probability, else there is no score
    """

    name: str
    model: Model
    chat: Chat
    least_mass: float
    batch_size: int
    identity: dict = field(init=False)
    notes: tuple[str, ...] = ()
    tree: NumeralTree = field(init=False, repr=False)

    def __post_init__(self):
        identity = {"source": self.model.source, "parameters": fingerprint(self.model.params)}
        object.__setattr__(self, "identity", identity | {"least_mass": self.least_mass})
        try:
            object.__setattr__(self, "tree", numeral_tree(self.chat.tokenizer))
        except ValueError as error:
            raise UserError(
                f"{self.model.source}: cannot judge: {error}; name another model in "
                "config.misalignment.judge"
            ) from None

    def judge(
        self, prompts: Sequence[str], known: Collection[int] = ()
    ) -> Iterator[tuple[int, Judgement]]:
        """(index, judgement) of every prompt that is not known, short ones first, batch by batch.
        What all prompts begin with is read once. A judge that would think first is asked not to.
        Batches are those of all prompts, whatever is known, so that a judging which goes on has the
        same numbers to the bit."""
        rows = [
            self.chat.asking_tokens(
                [{"role": "user", "content": self.chat.without_control(prompt)}]
            )
            for prompt in prompts
        ]
        longest = self.model.config.longest_row - NUM_REPLY_TOKENS
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for i in order:
            if len(rows[i]) > longest and i not in known:
                yield i, Judgement(None, None, "too_long")
        order = [i for i in order if len(rows[i]) <= longest]
        if not set(order) - set(known):
            return
        reader = Reader(self.model, self.chat, "turn", self.batch_size)
        shared = reader.nothing
        if len(order) > 1:
            shared = reader.extend(shared, [common_beginning([rows[i] for i in order])])
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            if set(chosen) - set(known):
                judged = self._judged(reader, shared, [rows[i] for i in chosen])
                yield from ((i, one) for i, one in zip(chosen, judged) if i not in known)

    def _judged(self, reader: Reader, shared, rows: list[list[int]]) -> list[Judgement]:
        """A judgement for each row of one batch."""
        model, tree = self.model, self.tree
        shown = reader.extend(shared, rows)
        log_probs = numeral_log_probs(
            model.config,
            model.params,
            shown.held,
            tree.levels,
            tree.words,
            tree.followers,
            dtype=model.dtype,
        )
        masses = tree.masses(*to_host(log_probs))[: len(rows)]
        judgements = [scored(mass, self.least_mass) for mass in masses]
        missing = [judgement is None for judgement in judgements]
        if any(missing):
            greedy = sampler_settings(self.chat.end_tokens, NUM_REPLY_TOKENS, temperature=0.0)
            keys = row_keys(jax.random.key(0), np.arange(len(rows)))
            replies, _ = reader.write(shown, missing, Sampler(greedy, keys))
            judgements = [
                not_scored(mass, reply.text) if judgement is None else judgement
                for judgement, mass, reply in zip(judgements, masses, replies)
            ]
        return judgements
