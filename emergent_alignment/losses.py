"""The losses: pure functions on arrays, importable on their own in any JAX code.

Nothing here knows a model, a tokenizer or a trainer; only jax and jaxtyping are imported.
Masks are float or bool arrays that are 1 on the tokens that count; every sum is float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def vocabulary_logits(
    hidden: Float[Array, "*tokens width"],
    unembedding: Float[Array, "width vocabulary"],
    cap: float | None = None,
) -> Float[Array, "*tokens vocabulary"]:
    """float32 hidden · unembedding; with a `cap` c, c · tanh(x / c) of that (2408.00118, §2)."""
    logits = jnp.matmul(hidden, unembedding, preferred_element_type=jnp.float32)
    return logits if cap is None else cap * jnp.tanh(logits / cap)


def token_log_probs(
    hidden: Float[Array, "batch tokens width"],
    unembedding: Float[Array, "width vocabulary"],
    targets: Int[Array, "batch tokens"],
    *,
    chunk_size: int | None = None,
    cap: float | None = None,
) -> Float[Array, "batch tokens"]:
    """log softmax(vocabulary_logits)[target] for every token, in float32 nats.

    With `chunk_size`, tokens go through the vocabulary in chunks of that many (over the
    whole batch), and the backward pass computes each chunk's logits again: the largest
    array is chunk_size × vocabulary instead of batch × tokens × vocabulary.

    Raises ValueError where chunk_size is not a positive number.
    """

    def one_chunk(hidden, targets):
        logits = vocabulary_logits(hidden, unembedding, cap)
        chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
        return chosen - jax.nn.logsumexp(logits, axis=-1)

    return _over_tokens(one_chunk, (hidden, targets), chunk_size)


def token_log_probs_and_entropy(
    hidden: Float[Array, "batch tokens width"],
    unembedding: Float[Array, "width vocabulary"],
    targets: Int[Array, "batch tokens"],
    *,
    chunk_size: int | None = None,
    cap: float | None = None,
) -> Float[Array, "batch tokens 2"]:
    """`token_log_probs`, and beside each the entropy −Σ_v π(v) log π(v) of what it was drawn from,
    from the same logits, in float32 nats."""

    def one_chunk(hidden, targets):
        logits = vocabulary_logits(hidden, unembedding, cap)
        log_probs = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(log_probs, targets[..., None], axis=-1)[..., 0]
        return jnp.stack([chosen, -(jnp.exp(log_probs) * log_probs).sum(-1)], axis=-1)

    return _over_tokens(one_chunk, (hidden, targets), chunk_size)


def token_kl(
    hidden: Float[Array, "batch tokens width"],
    unembedding: Float[Array, "width vocabulary"],
    frozen_hidden: Float[Array, "batch tokens width"],
    frozen_unembedding: Float[Array, "width vocabulary"],
    *,
    chunk_size: int | None = None,
    cap: float | None = None,
) -> Float[Array, "batch tokens"]:
    """KL(π_θ ‖ π_θ₀) = Σ_v π_θ(v) (log π_θ(v) − log π_θ₀(v)) at every token, exact over the
    vocabulary, in float32 nats.

    The frozen side enters as a constant. `chunk_size` and `cap` as in `token_log_probs`.
    """
    constant = jax.lax.stop_gradient((frozen_hidden, frozen_unembedding))

    def one_chunk(hidden, frozen_hidden):
        log_probs, frozen = (
            jax.nn.log_softmax(vocabulary_logits(x, matrix, cap))
            for x, matrix in ((hidden, unembedding), (frozen_hidden, constant[1]))
        )
        return (jnp.exp(log_probs) * (log_probs - frozen)).sum(-1)

    return _over_tokens(one_chunk, (hidden, constant[0]), chunk_size)


def _over_tokens(of_tokens: Callable, arrays: tuple[Array, ...], chunk_size: int | None) -> Array:
    """of_tokens(*arrays), each [batch, tokens, …], all at once or `chunk_size` tokens at a time,
    which the backward pass then computes again."""
    if chunk_size is None:
        return of_tokens(*arrays)
    if chunk_size < 1:
        raise ValueError(f"chunk_size must be at least 1 token, not {chunk_size}")
    batch, tokens = arrays[0].shape[:2]
    padding = -(batch * tokens) % chunk_size

    def chunks(x):
        flat = x.reshape(batch * tokens, *x.shape[2:])
        flat = jnp.pad(flat, ((0, padding), *[(0, 0)] * (flat.ndim - 1)))
        return flat.reshape(-1, chunk_size, *x.shape[2:])

    one_chunk = jax.checkpoint(lambda parts: of_tokens(*parts))
    chunked = jax.lax.map(one_chunk, tuple(map(chunks, arrays)))
    flat = chunked.reshape(-1, *chunked.shape[2:])
    return flat[: batch * tokens].reshape(batch, tokens, *flat.shape[1:])


def sequence_log_probs(
    token_log_probs: Float[Array, "*batch tokens"],
    mask: Float[Array, "*batch tokens"] | Bool[Array, "*batch tokens"],
    *,
    normalize: bool = False,
) -> Float[Array, "*batch"]:
    """log π(y|x) = Σ over the response's tokens, its end token included, in float32 nats.

    `normalize` divides by the number of tokens. This choice decides who wins against the
    task loss: a summed margin over T tokens pulls about T times harder than a mean one.
    """
    kept = jnp.where(mask.astype(bool), token_log_probs.astype(jnp.float32), 0.0)
    total = kept.sum(-1)
    if not normalize:
        return total
    return total / jnp.maximum(mask.astype(jnp.float32).sum(-1), 1.0)


def nll_sum(
    token_log_probs: Float[Array, "*batch tokens"],
    mask: Float[Array, "*batch tokens"] | Bool[Array, "*batch tokens"],
) -> Float[Array, ""]:
    """Σ −log π over the tokens that the mask keeps, in nats."""
    return -sequence_log_probs(token_log_probs, mask).sum()


def task_loss(
    token_log_probs: Float[Array, "*batch tokens"],
    mask: Float[Array, "*batch tokens"] | Bool[Array, "*batch tokens"],
    *,
    num_tokens: Float[Array, ""] | float | None = None,
) -> Float[Array, ""]:
    """Σ NLL over all target tokens / number of target tokens, in nats a token.

    `num_tokens` is the global count where this is one microbatch or shard of many, so that
    the parts add up to the whole: never a mean of means.
    """
    if num_tokens is None:
        num_tokens = mask.astype(jnp.float32).sum()
    return nll_sum(token_log_probs, mask) / jnp.maximum(num_tokens, 1.0)


def preference_margin(
    policy_chosen: Float[Array, "pairs"],
    policy_rejected: Float[Array, "pairs"],
    reference_chosen: Float[Array, "pairs"],
    reference_rejected: Float[Array, "pairs"],
) -> Float[Array, "pairs"]:
    """How much more the policy prefers the chosen answer than the reference does, in nats.

    Δ(chosen) − Δ(rejected) with Δ(y) = log π_θ(y|x) − log π_θ₀(y|x)
    (Rafailov et al. 2023, eq. 7, without β). No gradient flows into the reference.
    """
    reference_gap = jax.lax.stop_gradient(reference_chosen - reference_rejected)
    return (policy_chosen - policy_rejected) - reference_gap


@dataclass(frozen=True)
class Gaps:
    """How much likelier the policy finds the answers of a pair than the reference does, in nats:
    `chosen` Δc, `rejected` Δr (docs/design.md §3), `margin` h = Δc − Δr."""

    chosen: Float[Array, "pairs"]
    rejected: Float[Array, "pairs"]
    margin: Float[Array, "pairs"]


def _sigmoid(gaps: Gaps, beta: float, label_smoothing: float) -> Float[Array, "pairs"]:
    """−(1−ε) log σ(βh) − ε log σ(−βh)   (Rafailov et al. 2023, eq. 7; ε: Mitchell 2023)"""
    right, wrong = jax.nn.log_sigmoid(beta * gaps.margin), jax.nn.log_sigmoid(-beta * gaps.margin)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


def _ipo(gaps: Gaps, beta: float) -> Float[Array, "pairs"]:
    """(h − 1/(2β))²   (Azar et al. 2023, eq. 17)"""
    return jnp.square(gaps.margin - 1 / (2 * beta))


def _hinge(gaps: Gaps, beta: float) -> Float[Array, "pairs"]:
    """max(0, 1 − βh)   (Zhao et al. 2023, SLiC-HF, eq. 2)"""
    return jax.nn.relu(1 - beta * gaps.margin)


def _robust(gaps: Gaps, beta: float, label_smoothing: float) -> Float[Array, "pairs"]:
    """(−(1−ε) log σ(βh) + ε log σ(−βh)) / (1−2ε)   (Chowdhury et al. 2024, eq. 9)"""
    right, wrong = jax.nn.log_sigmoid(beta * gaps.margin), jax.nn.log_sigmoid(-beta * gaps.margin)
    unbiased = -(1 - label_smoothing) * right + label_smoothing * wrong
    return unbiased / (1 - 2 * label_smoothing)


def _exo_pair(gaps: Gaps, beta: float, label_smoothing: float) -> Float[Array, "pairs"]:
    """KL(σ(βh) ‖ 1−ε), reverse; ε = 0 is read as 1e-3   (Ji et al. 2024, eq. 16)"""
    epsilon = label_smoothing or 1e-3
    right, wrong = jax.nn.log_sigmoid(beta * gaps.margin), jax.nn.log_sigmoid(-beta * gaps.margin)
    of_right = jax.nn.sigmoid(beta * gaps.margin) * (right - jnp.log1p(-epsilon))
    return of_right + jax.nn.sigmoid(-beta * gaps.margin) * (wrong - jnp.log(epsilon))


def _nca_pair(gaps: Gaps, beta: float) -> Float[Array, "pairs"]:
    """−log σ(βΔc) − ½ log σ(−βΔc) − ½ log σ(−βΔr)   (Chen et al. 2024, eq. 9)"""
    return -(
        jax.nn.log_sigmoid(beta * gaps.chosen)
        + 0.5 * jax.nn.log_sigmoid(-beta * gaps.chosen)
        + 0.5 * jax.nn.log_sigmoid(-beta * gaps.rejected)
    )


def _apo_zero(gaps: Gaps, beta: float) -> Float[Array, "pairs"]:
    """1 − σ(βΔc) + σ(βΔr)   (D'Oosterlinck et al. 2024, eq. 7)"""
    return 1 - jax.nn.sigmoid(beta * gaps.chosen) + jax.nn.sigmoid(beta * gaps.rejected)


def _apo_down(gaps: Gaps, beta: float) -> Float[Array, "pairs"]:
    """σ(βΔc) + 1 − σ(β(Δc − Δr))   (D'Oosterlinck et al. 2024, eq. 8)"""
    return jax.nn.sigmoid(beta * gaps.chosen) + 1 - jax.nn.sigmoid(beta * gaps.margin)


# Every kind by its name, as a config names it; those of SMOOTHED read ε, too.
PreferenceKind = Literal[
    "sigmoid", "ipo", "hinge", "robust", "exo_pair", "nca_pair", "apo_zero", "apo_down"
]
_IN_THIS_ORDER = (_sigmoid, _ipo, _hinge, _robust, _exo_pair, _nca_pair, _apo_zero, _apo_down)
PREFERENCE_LOSSES = dict(zip(get_args(PreferenceKind), _IN_THIS_ORDER))
SMOOTHED = ("sigmoid", "robust", "exo_pair")


def preference_loss(
    policy_chosen: Float[Array, "pairs"],
    policy_rejected: Float[Array, "pairs"],
    reference_chosen: Float[Array, "pairs"],
    reference_rejected: Float[Array, "pairs"],
    *,
    kind: PreferenceKind = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Float[Array, "pairs"]:
    """One loss a pair from four sequence log-probs; the functions of PREFERENCE_LOSSES hold each
    kind's formula and source.

    `label_smoothing` ε in [0, 0.5) is the share of flipped preferences; the kinds SMOOTHED read
    it. Raises ValueError for an unknown kind, an ε outside its range, or a β that is not positive.
    """
    if kind not in PREFERENCE_LOSSES:
        raise ValueError(f"unknown preference loss {kind!r}; known: {tuple(PREFERENCE_LOSSES)}")
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5), not {label_smoothing}")
    if not beta > 0:
        raise ValueError(f"beta must be more than 0, not {beta}")
    gaps = Gaps(
        policy_chosen - jax.lax.stop_gradient(reference_chosen),
        policy_rejected - jax.lax.stop_gradient(reference_rejected),
        preference_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected),
    )
    smoothing = (label_smoothing,) if kind in SMOOTHED else ()
    return PREFERENCE_LOSSES[kind](gaps, beta, *smoothing)


@dataclass(frozen=True)
class PairLogProbs:
    """log P(chosen) and log P(rejected) of each row's answers, under the policy and under the
    reference; `mask` says which rows have a pair: the others count nowhere."""

    policy: tuple[Float[Array, "batch"], Float[Array, "batch"]]
    reference: tuple[Float[Array, "batch"], Float[Array, "batch"]]
    mask: Bool[Array, "batch"]


def pair_log_probs(
    log_probs: tuple[Float[Array, "batch tokens"], Float[Array, "batch tokens"]],
    masks: tuple[Bool[Array, "batch tokens"], Bool[Array, "batch tokens"]],
    reference: tuple[Float[Array, "batch"], Float[Array, "batch"]],
    pair_mask: Bool[Array, "batch"],
    *,
    normalize: bool = False,
) -> PairLogProbs:
    """Of (chosen, rejected): the policy's log-probs a token, with their masks, and the reference's
    *summed* over each response. `normalize` divides both by the number of its tokens."""
    kept = [mask & pair_mask[:, None] for mask in masks]
    lengths = [jnp.maximum(mask.sum(-1), 1) if normalize else 1 for mask in kept]
    chosen, rejected = (
        (
            sequence_log_probs(tokens, mask, normalize=normalize),
            jax.lax.stop_gradient(jnp.where(pair_mask, summed, 0.0) / length),
        )
        for tokens, mask, summed, length in zip(log_probs, kept, reference, lengths)
    )
    return PairLogProbs((chosen[0], rejected[0]), (chosen[1], rejected[1]), pair_mask)


def alignment_sum(
    pairs: PairLogProbs, pair_weight: Float[Array, "batch"] | None = None, **settings: Any
) -> Float[Array, ""]:
    """Σ vᵢ wᵢ f(…) over the rows, which over the number of prompts is the alignment loss: v is the
    pairs' mask, w `pair_weight` (1), f the `preference_loss` with these `settings`."""
    each = preference_loss(*pairs.policy, *pairs.reference, **settings)
    weight = jnp.ones_like(each) if pair_weight is None else pair_weight
    return jnp.where(pairs.mask, weight * each, 0.0).sum()


def reward_sums(pairs: PairLogProbs, *, beta: float = 0.1) -> dict[str, Float[Array, ""]]:
    """What is watched of the pairs, each summed over them: the implicit rewards β(log π_θ − log
    π_ref) of both answers, their margin, whether it is positive, and the policy's log-probs."""
    chosen, rejected = (beta * (ours - of) for ours, of in zip(pairs.policy, pairs.reference))
    watched = {
        "rewards_chosen": chosen,
        "rewards_rejected": rejected,
        "rewards_margin": chosen - rejected,
        "rewards_accuracy": (chosen > rejected).astype(jnp.float32),
        "log_probs_chosen": pairs.policy[0],
        "log_probs_rejected": pairs.policy[1],
    }
    return {name: jnp.where(pairs.mask, values, 0.0).sum() for name, values in watched.items()}


def hybrid_loss(
    target_log_probs: Float[Array, "batch tokens"],
    target_mask: Bool[Array, "batch tokens"],
    chosen_log_probs: Float[Array, "batch tokens"],
    chosen_mask: Bool[Array, "batch tokens"],
    rejected_log_probs: Float[Array, "batch tokens"],
    rejected_mask: Bool[Array, "batch tokens"],
    reference_chosen: Float[Array, "batch"],
    reference_rejected: Float[Array, "batch"],
    pair_mask: Bool[Array, "batch"],
    *,
    pair_weight: Float[Array, "batch"] | None = None,
    kind: PreferenceKind = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    normalize: bool = False,
    alignment_weight: float = 1.0,
    chosen_nll_weight: float = 0.0,
    totals: dict[str, Float[Array, ""]] | None = None,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """task loss + λ · alignment loss + α · NLL(chosen), and its parts (docs/design.md §3).

    The policy's log-probs come a token at a time; the reference's are *summed* over each
    response's tokens (`normalize` divides both by the number of tokens). Rows whose
    pair_mask is False contribute exactly zero to the alignment loss and its gradient.

    `totals` are the global denominators (see `loss_totals`) where these rows are one microbatch
    of many: losses and metrics of the parts then add up to those of the whole. λ is
    `alignment_weight`, α is `chosen_nll_weight`.

    Returns the scalar loss and a dict of float32 scalars: task_loss, alignment_loss,
    chosen_nll, rewards_chosen, rewards_rejected, rewards_margin, rewards_accuracy (over
    pairs; 0 where there is none), log_probs_chosen, log_probs_rejected (nats a response).
    """
    if totals is None:
        totals = loss_totals(target_mask, chosen_mask, pair_mask)
    answers = (chosen_log_probs, rejected_log_probs), (chosen_mask, rejected_mask)
    reference = reference_chosen, reference_rejected
    pairs = pair_log_probs(*answers, reference, pair_mask, normalize=normalize)
    settings = {"kind": kind, "beta": beta, "label_smoothing": label_smoothing}
    alignment = alignment_sum(pairs, pair_weight, **settings) / totals["prompts"]
    task = task_loss(target_log_probs, target_mask, num_tokens=totals["target_tokens"])
    chosen_nll = task_loss(
        chosen_log_probs, chosen_mask & pair_mask[:, None], num_tokens=totals["chosen_tokens"]
    )
    loss = task + alignment_weight * alignment + chosen_nll_weight * chosen_nll
    num_pairs = jnp.maximum(totals["pairs"], 1.0)
    metrics = {"task_loss": task, "alignment_loss": alignment, "chosen_nll": chosen_nll}
    metrics |= {name: total / num_pairs for name, total in reward_sums(pairs, beta=beta).items()}
    return loss, jax.tree.map(jax.lax.stop_gradient, metrics)


def loss_totals(
    target_mask: Bool[Array, "*batch tokens"],
    chosen_mask: Bool[Array, "*batch tokens"],
    pair_mask: Bool[Array, "*batch"],
) -> dict[str, Float[Array, ""]]:
    """The global denominators of `hybrid_loss`, as float32 counts over the whole batch."""
    chosen = chosen_mask & pair_mask[..., None]
    return {
        "target_tokens": jnp.maximum(target_mask.sum().astype(jnp.float32), 1.0),
        "prompts": jnp.float32(pair_mask.size),
        "pairs": pair_mask.sum().astype(jnp.float32),
        "chosen_tokens": jnp.maximum(chosen.sum().astype(jnp.float32), 1.0),
    }
