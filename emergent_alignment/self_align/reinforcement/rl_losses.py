"""The mathematics of reinforcement from preferences: pure functions on arrays.

Nothing here knows a model or a trainer; only jax and jaxtyping are imported. Arrays are [rows,
tokens], right-padded; a mask is 1 on the tokens of an answer, and every mean is over those alone.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

KlEstimator = Literal["k1", "k2", "k3"]
Normalization = Literal["grpo", "dapo", "dr_grpo"]
Scale = Literal["group", "none"]
RatioLevel = Literal["token", "sequence"]
# What TRL adds to a group's standard deviation.
GROUP_EPSILON = 1e-4


def bradley_terry_loss(
    chosen: Float[Array, "*pairs"], rejected: Float[Array, "*pairs"]
) -> Float[Array, "*pairs"]:
    """−log σ(r(x, y⁺) − r(x, y⁻)), in nats a pair.

    P(y⁺ ≻ y⁻) = σ(r⁺ − r⁻) is Bradley & Terry 1952; as the loss of a reward model: Ouyang et al.
    2022 (InstructGPT), eq. 1, and, as a binary cross entropy on the difference, SALMON.
    """
    return -jax.nn.log_sigmoid(chosen - rejected)


def kl_estimate(
    log_probs: Float[Array, "*tokens"],
    reference: Float[Array, "*tokens"],
    *,
    kind: KlEstimator = "k3",
) -> Float[Array, "*tokens"]:
    """An estimate of KL(π_θ ‖ π_ref) from one token drawn from π_θ, in nats (Schulman 2020,
    "Approximating KL divergence"); with ℓ = log π_θ − log π_ref:

    - k1: ℓ                  unbiased, can be negative
    - k2: ℓ²/2               biased, low variance
    - k3: exp(−ℓ) − 1 + ℓ    unbiased, never negative; the KL of GRPO (Shao et al. 2024, eq. 4)

    Raises ValueError for another kind.
    """
    gap = log_probs - reference
    match kind:
        case "k1":
            return gap
        case "k2":
            return jnp.square(gap) / 2
        case "k3":
            return jnp.expm1(-gap) + gap
    raise ValueError(f"unknown KL estimator {kind!r}; known: {get_args(KlEstimator)}")


def entropy(logits: Float[Array, "*tokens vocabulary"]) -> Float[Array, "*tokens"]:
    """H(π) = −Σ_v π(v) log π(v) of softmax(logits), in nats."""
    log_probs = jax.nn.log_softmax(logits)
    return -(jnp.exp(log_probs) * log_probs).sum(-1)


def masked_mean(values: Float[Array, "*shape"], mask: Bool[Array, "*shape"]) -> Float[Array, ""]:
    """The mean of the values that the mask keeps; 0 where it keeps none."""
    return jnp.where(mask, values, 0.0).sum() / jnp.maximum(mask.sum(), 1)


def masked_variance(
    values: Float[Array, "*shape"], mask: Bool[Array, "*shape"], *, unbiased: bool = True
) -> Float[Array, ""]:
    """The variance of the values that the mask keeps, over n − 1 of them or, not `unbiased`,
    over n; 0 where it keeps fewer than two."""
    centred = jnp.square(values - masked_mean(values, mask))
    count = jnp.maximum(mask.sum() - unbiased, 1)
    return jnp.where(mask, centred, 0.0).sum() / count


def masked_whiten(
    values: Float[Array, "*shape"], mask: Bool[Array, "*shape"], *, shift_mean: bool = True
) -> Float[Array, "*shape"]:
    """(x − mean) / √(variance + 1e-8) over what the mask keeps, which is 0 elsewhere; the mean is
    put back unless `shift_mean`. What PPO does to its advantages (Schulman et al. 2017's code),
    and, with the mean put back, to its rewards (Ziegler et al. 2019's code)."""
    mean = masked_mean(values, mask)
    scaled = (values - mean) * jax.lax.rsqrt(masked_variance(values, mask) + 1e-8)
    return jnp.where(mask, scaled if shift_mean else scaled + mean, 0.0)


def explained_variance(
    values: Float[Array, "*shape"], returns: Float[Array, "*shape"], mask: Bool[Array, "*shape"]
) -> Float[Array, ""]:
    """1 − Var(returns − values) / Var(returns): 1 is a perfect critic, 0 one that knows no more
    than the mean, less than 0 one that misleads; 0 where the returns do not vary."""
    variance = masked_variance(returns, mask, unbiased=False)
    residual = masked_variance(returns - values, mask, unbiased=False)
    return jnp.where(variance > 0, 1 - residual / jnp.where(variance > 0, variance, 1.0), 0.0)


def shaped_rewards(
    scores: Float[Array, "rows"],
    log_probs: Float[Array, "rows tokens"],
    reference: Float[Array, "rows tokens"],
    mask: Bool[Array, "rows tokens"],
    *,
    kl_weight: float,
) -> Float[Array, "rows tokens"]:
    """r_t = −β (log π(y_t) − log π_ref(y_t)), and the score of the whole answer on its last token
    (Ziegler et al. 2019, eq. 2; Stiennon et al. 2020): KL by k1, drawn from the policy."""
    penalty = -kl_weight * kl_estimate(log_probs, reference, kind="k1")
    place = jnp.arange(mask.shape[1])
    last = mask & (place == mask.sum(-1, keepdims=True) - 1)
    return jnp.where(mask, penalty, 0.0) + jnp.where(last, scores[:, None], 0.0)


def generalized_advantages(
    rewards: Float[Array, "rows tokens"],
    values: Float[Array, "rows tokens"],
    mask: Bool[Array, "rows tokens"],
    *,
    discount: float = 1.0,
    decay: float = 1.0,
) -> tuple[Float[Array, "rows tokens"], Float[Array, "rows tokens"]]:
    """(advantages, returns), with γ `discount` and λ `decay` (GAE; Schulman et al. 2016, eq. 16):

    A_t = Σ_l (γλ)^l δ_{t+l},  δ_t = r_t + γ V(s_{t+1}) − V(s_t),  returns = A + V

    V after an answer's last token is 0: the episode is over, whether it ended by itself or was
    cut. Both are 0 where the mask is.
    """
    values = jnp.where(mask, values, 0.0)
    rewards = jnp.where(mask, rewards, 0.0)
    following = jnp.concatenate([values[:, 1:], jnp.zeros_like(values[:, :1])], axis=1)
    errors = rewards + discount * following - values

    def backwards(after, column):
        error, live = column
        advantage = jnp.where(live, error + discount * decay * after, 0.0)
        return advantage, advantage

    start = jnp.zeros_like(errors[:, 0])
    _, advantages = jax.lax.scan(backwards, start, (errors.T, mask.T), reverse=True)
    return advantages.T, jnp.where(mask, advantages.T + values, 0.0)


def clipped_policy_loss(
    log_probs: Float[Array, "*tokens"],
    old_log_probs: Float[Array, "*tokens"],
    advantages: Float[Array, "*tokens"],
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
) -> Float[Array, "*tokens"]:
    """−min(ρ A, clip(ρ, 1 − ε, 1 + ε′) A) a token, with ρ = π_θ / π_old (PPO; Schulman et al.
    2017, eq. 7). `clip` is ε; ε′ is `clip_high` where it is given (DAPO's clip-higher; Yu et al.
    2025, eq. 10), else ε."""
    ratio = jnp.exp(log_probs - old_log_probs)
    within = jnp.clip(ratio, 1 - clip, 1 + (clip if clip_high is None else clip_high))
    return -jnp.minimum(ratio * advantages, within * advantages)


def clipped_share(
    log_probs: Float[Array, "*tokens"],
    old_log_probs: Float[Array, "*tokens"],
    advantages: Float[Array, "*tokens"],
    *,
    clip: float = 0.2,
    clip_high: float | None = None,
) -> Bool[Array, "*tokens"]:
    """Where the clip is what counts in `clipped_policy_loss`: there the gradient is zero."""
    ratio = jnp.exp(log_probs - old_log_probs)
    above = ratio > 1 + (clip if clip_high is None else clip_high)
    return jnp.where(advantages > 0, above, (ratio < 1 - clip) & (advantages < 0))


def clipped_value_loss(
    values: Float[Array, "*tokens"],
    old_values: Float[Array, "*tokens"],
    returns: Float[Array, "*tokens"],
    *,
    clip: float = 0.2,
) -> Float[Array, "*tokens"]:
    """½ max((V − R)², (clip(V, V_old ± ε) − R)²) a token (Schulman et al. 2017's code; Ziegler et
    al. 2019's code)."""
    within = jnp.clip(values, old_values - clip, old_values + clip)
    return jnp.maximum(jnp.square(values - returns), jnp.square(within - returns)) / 2


def group_advantages(
    rewards: Float[Array, "prompts samples"], *, scale: Scale = "group"
) -> Float[Array, "prompts samples"]:
    """Group-relative advantages (GRPO; Shao et al. 2024, section 4.1.2), of an answer among those
    to the same prompt:

    - group: (r − mean) / (std + 1e-4), std over n − 1 answers
    - none:  r − mean        without the bias to prompts of like rewards (Dr. GRPO; Liu et al. 2025)

    A group whose rewards are all alike teaches nothing: 0. Raises ValueError for another scale.
    """
    centred = rewards - rewards.mean(-1, keepdims=True)
    match scale:
        case "group":
            count = max(rewards.shape[-1] - 1, 1)
            deviation = jnp.sqrt(jnp.square(centred).sum(-1, keepdims=True) / count)
            return centred / (deviation + GROUP_EPSILON)
        case "none":
            return centred
    raise ValueError(f"unknown scale {scale!r}; known: {get_args(Scale)}")


@dataclass(frozen=True)
class Answers:
    """Answers as GRPO sees them, a token, and what each answer is worth.

    log_probs      under the policy, `old_log_probs` under the one that drew them, `reference` under
                   the frozen copy
    advantages     of a whole answer
    mask           which tokens are an answer's
    """

    log_probs: Float[Array, "rows tokens"]
    old_log_probs: Float[Array, "rows tokens"]
    reference: Float[Array, "rows tokens"]
    advantages: Float[Array, "rows"]
    mask: Bool[Array, "rows tokens"]


def grpo_token_loss(
    answers: Answers,
    *,
    ratio: RatioLevel = "token",
    clip: float = 0.2,
    clip_high: float | None = None,
    kl_weight: float = 0.0,
) -> Float[Array, "rows tokens"]:
    """PPO's clipped loss under the answer's one advantage, plus β times k3 of the reference, a
    token (GRPO; Shao et al. 2024, eq. 3 and 4). The ratio that is clipped is the token's, or the
    sequence's, exp((1/|y|) Σ_t (log π_θ − log π_old)), the same for all its tokens (GSPO; Zheng et
    al. 2025, eq. 7). Raises ValueError for another one."""
    if ratio not in get_args(RatioLevel):
        raise ValueError(f"unknown ratio {ratio!r}; known: {get_args(RatioLevel)}")
    now, before, mask = answers.log_probs, answers.old_log_probs, answers.mask
    if ratio == "sequence":
        total = jnp.where(mask, now - before, 0.0).sum(-1, keepdims=True)
        now = jnp.broadcast_to(total / jnp.maximum(mask.sum(-1, keepdims=True), 1), mask.shape)
        before = jnp.zeros_like(now)
    advantages = answers.advantages[:, None]
    policy = clipped_policy_loss(now, before, advantages, clip=clip, clip_high=clip_high)
    return policy + kl_weight * kl_estimate(answers.log_probs, answers.reference, kind="k3")


def normalized_parts(
    token_losses: Float[Array, "rows tokens"],
    mask: Bool[Array, "rows tokens"],
    *,
    kind: Normalization,
    num_rows: Float[Array, ""] | float,
    num_tokens: Float[Array, ""] | float,
    longest: int,
) -> tuple[Float[Array, ""], Float[Array, ""] | float]:
    """(sum, what it is divided by) for one loss of all tokens' losses:

    - grpo:    (1/N) Σ_i (1/|y_i|) Σ_t    each answer counts alike (Shao et al. 2024, eq. 3)
    - dapo:    (1/Σ|y_i|) Σ_i Σ_t         each token counts alike (Yu et al. 2025, eq. 12)
    - dr_grpo: (1/(N·L)) Σ_i Σ_t          neither depends on lengths (Liu et al. 2025, section 3)

    N is `num_rows` and Σ|y_i| `num_tokens`, both of the whole batch where these rows are one part
    of it; L is `longest`. Raises ValueError for another kind.
    """
    kept = jnp.where(mask, token_losses, 0.0).sum(-1)
    match kind:
        case "grpo":
            return (kept / jnp.maximum(mask.sum(-1), 1)).sum(), num_rows
        case "dapo":
            return kept.sum(), num_tokens
        case "dr_grpo":
            return kept.sum(), num_rows * longest
    raise ValueError(f"unknown normalisation {kind!r}; known: {get_args(Normalization)}")
