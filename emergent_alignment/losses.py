"""The losses: pure functions on arrays, importable on their own in any JAX code.

Nothing here knows a model, a tokenizer or a trainer; only jax and jaxtyping are imported.
Masks are float or bool arrays that are 1 on the tokens that count; every sum is float32.
"""

from collections.abc import Callable
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

PreferenceKind = Literal[
    "sigmoid", "ipo", "hinge", "robust", "exo_pair", "nca_pair", "apo_zero", "apo_down"
]


def token_log_probs(
    hidden: Float[Array, "batch tokens width"],
    unembedding: Float[Array, "width vocabulary"],
    targets: Int[Array, "batch tokens"],
    *,
    chunk_size: int | None = None,
) -> Float[Array, "batch tokens"]:
    """log softmax(hidden · unembedding)[target] for every token, in float32 nats.

    With `chunk_size`, tokens go through the vocabulary in chunks of that many (over the
    whole batch), and the backward pass computes each chunk's logits again: the largest
    array is chunk_size × vocabulary instead of batch × tokens × vocabulary.

    Raises ValueError where chunk_size is not a positive number.
    """

    def one_chunk(hidden, targets):
        return _log_probs_of_targets(hidden, unembedding, targets)

    return _over_tokens(one_chunk, (hidden, targets), chunk_size)


def token_log_probs_and_entropy(
    hidden: Float[Array, "batch tokens width"],
    unembedding: Float[Array, "width vocabulary"],
    targets: Int[Array, "batch tokens"],
    *,
    chunk_size: int | None = None,
) -> Float[Array, "batch tokens 2"]:
    """`token_log_probs`, and beside each the entropy −Σ_v π(v) log π(v) of what it was drawn from,
    from the same logits, in float32 nats."""

    def one_chunk(hidden, targets):
        logits = jnp.matmul(hidden, unembedding, preferred_element_type=jnp.float32)
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
) -> Float[Array, "batch tokens"]:
    """KL(π_θ ‖ π_θ₀) = Σ_v π_θ(v) (log π_θ(v) − log π_θ₀(v)) at every token, exact over the
    vocabulary, in float32 nats.

    The frozen side enters as a constant. `chunk_size` as in `token_log_probs`.
    """
    constant = jax.lax.stop_gradient((frozen_hidden, frozen_unembedding))

    def one_chunk(hidden, frozen_hidden):
        log_probs, frozen = (
            jax.nn.log_softmax(jnp.matmul(x, matrix, preferred_element_type=jnp.float32))
            for x, matrix in ((hidden, unembedding), (frozen_hidden, constant[1]))
        )
        return (jnp.exp(log_probs) * (log_probs - frozen)).sum(-1)

    return _over_tokens(one_chunk, (hidden, constant[0]), chunk_size)


def _over_tokens(
    of_tokens: Callable[..., Float[Array, "..."]],
    arrays: tuple[Array, ...],
    chunk_size: int | None,
) -> Float[Array, "batch tokens ..."]:
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
    found = jax.lax.map(one_chunk, tuple(map(chunks, arrays)))
    flat = found.reshape(-1, *found.shape[2:])[: batch * tokens]
    return flat.reshape(batch, tokens, *found.shape[2:])


def _log_probs_of_targets(
    hidden: Float[Array, "*tokens width"],
    unembedding: Float[Array, "width vocabulary"],
    targets: Int[Array, "*tokens"],
) -> Float[Array, "*tokens"]:
    logits = jnp.matmul(hidden, unembedding, preferred_element_type=jnp.float32)
    chosen = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


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
    return -sequence_log_probs(token_log_probs, mask).sum() / jnp.maximum(num_tokens, 1.0)


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
    """One loss a pair from four sequence log-probs; h is the margin, Δ as in docs/design.md §3.

    - sigmoid:  −(1−ε) log σ(βh) − ε log σ(−βh)      Rafailov et al. 2023, eq. 7; ε: Mitchell 2023
    - robust:   (−(1−ε) log σ(βh) + ε log σ(−βh)) / (1−2ε)     Chowdhury et al. 2024, eq. 9
    - ipo:      (h − 1/(2β))²                        Azar et al. 2023, eq. 17
    - hinge:    max(0, 1 − βh)                       Zhao et al. 2023 (SLiC-HF), eq. 2
    - exo_pair: KL(σ(βh) ‖ 1−ε), reverse; ε=0 is read as 1e-3      Ji et al. 2024, eq. 16
    - nca_pair: −log σ(βΔc) − ½ log σ(−βΔc) − ½ log σ(−βΔr)        Chen et al. 2024, eq. 9
    - apo_zero: 1 − σ(βΔc) + σ(βΔr)                  D'Oosterlinck et al. 2024, eq. 7
    - apo_down: σ(βΔc) + 1 − σ(β(Δc − Δr))           D'Oosterlinck et al. 2024, eq. 8

    `label_smoothing` ε in [0, 0.5) is the share of flipped preferences; sigmoid, robust and
    exo_pair read it. Raises ValueError for an unknown kind, an ε outside its range, or a β that
    is not positive.
    """
    if kind not in get_args(PreferenceKind):
        raise ValueError(f"unknown preference loss {kind!r}; known: {get_args(PreferenceKind)}")
    if not 0.0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must be in [0, 0.5), not {label_smoothing}")
    if not beta > 0:
        raise ValueError(f"beta must be more than 0, not {beta}")
    margin = preference_margin(policy_chosen, policy_rejected, reference_chosen, reference_rejected)
    chosen = policy_chosen - jax.lax.stop_gradient(reference_chosen)
    rejected = policy_rejected - jax.lax.stop_gradient(reference_rejected)
    log_right, log_wrong = jax.nn.log_sigmoid(beta * margin), jax.nn.log_sigmoid(-beta * margin)
    epsilon = label_smoothing
    match kind:
        case "sigmoid":
            return -(1 - epsilon) * log_right - epsilon * log_wrong
        case "robust":
            return (-(1 - epsilon) * log_right + epsilon * log_wrong) / (1 - 2 * epsilon)
        case "ipo":
            return jnp.square(margin - 1 / (2 * beta))
        case "hinge":
            return jax.nn.relu(1 - beta * margin)
        case "exo_pair":
            epsilon = epsilon or 1e-3
            right = jax.nn.sigmoid(beta * margin) * (log_right - jnp.log1p(-epsilon))
            return right + jax.nn.sigmoid(-beta * margin) * (log_wrong - jnp.log(epsilon))
        case "nca_pair":
            return -(
                jax.nn.log_sigmoid(beta * chosen)
                + 0.5 * jax.nn.log_sigmoid(-beta * chosen)
                + 0.5 * jax.nn.log_sigmoid(-beta * rejected)
            )
        case "apo_zero":
            return 1 - jax.nn.sigmoid(beta * chosen) + jax.nn.sigmoid(beta * rejected)
        case "apo_down":
            return jax.nn.sigmoid(beta * chosen) + 1 - jax.nn.sigmoid(beta * margin)


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

    `totals` are the global denominators `target_tokens`, `prompts`, `pairs` and
    `chosen_tokens` (see `loss_totals`) where these rows are one microbatch of many: losses
    and metrics of the parts then add up to those of the whole. λ is `alignment_weight`,
    α is `chosen_nll_weight`.

    Returns the scalar loss and a dict of float32 scalars: task_loss, alignment_loss,
    chosen_nll, rewards_chosen, rewards_rejected, rewards_margin, rewards_accuracy (over
    pairs; 0 where there is none), log_probs_chosen, log_probs_rejected (nats a response).
    """
    if totals is None:
        totals = loss_totals(target_mask, chosen_mask, pair_mask)
    weight = jnp.ones_like(reference_chosen) if pair_weight is None else pair_weight
    masks = chosen_mask & pair_mask[:, None], rejected_mask & pair_mask[:, None]
    policy = [
        sequence_log_probs(log_probs, mask, normalize=normalize)
        for log_probs, mask in zip((chosen_log_probs, rejected_log_probs), masks)
    ]
    lengths = [jnp.maximum(mask.sum(-1), 1) if normalize else 1 for mask in masks]
    reference = [
        jax.lax.stop_gradient(jnp.where(pair_mask, log_probs, 0.0) / length)
        for log_probs, length in zip((reference_chosen, reference_rejected), lengths)
    ]
    each = preference_loss(
        *policy, *reference, kind=kind, beta=beta, label_smoothing=label_smoothing
    )
    task = task_loss(target_log_probs, target_mask, num_tokens=totals["target_tokens"])
    alignment = jnp.where(pair_mask, weight * each, 0.0).sum() / totals["prompts"]
    chosen_nll = task_loss(chosen_log_probs, masks[0], num_tokens=totals["chosen_tokens"])
    loss = task + alignment_weight * alignment + chosen_nll_weight * chosen_nll

    def over_pairs(values: Float[Array, "batch"]) -> Float[Array, ""]:
        return jnp.where(pair_mask, values, 0.0).sum() / jnp.maximum(totals["pairs"], 1.0)

    rewards = [beta * (ours - theirs) for ours, theirs in zip(policy, reference)]
    metrics = {
        "task_loss": task,
        "alignment_loss": alignment,
        "chosen_nll": chosen_nll,
        "rewards_chosen": over_pairs(rewards[0]),
        "rewards_rejected": over_pairs(rewards[1]),
        "rewards_margin": over_pairs(rewards[0] - rewards[1]),
        "rewards_accuracy": over_pairs((rewards[0] > rewards[1]).astype(jnp.float32)),
        "log_probs_chosen": over_pairs(policy[0]),
        "log_probs_rejected": over_pairs(policy[1]),
    }
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
