"""The optimizer: AdamW with a warm-up and a schedule, behind gradient clipping."""

import jax
import optax


def learning_rate_schedule(settings, num_steps: int) -> optax.Schedule:
    """Linear warm-up, then `constant`, `linear` to zero or `cosine` to zero over the rest.

    Raises ValueError for another name.
    """
    peak, warmup = settings.learning_rate, settings.warmup_steps
    rest = max(num_steps - warmup, 1)
    after = {
        "constant": lambda: optax.constant_schedule(peak),
        "linear": lambda: optax.linear_schedule(peak, 0.0, rest),
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest),
    }
    if settings.schedule not in after:
        raise ValueError(f"optimizer.schedule: {settings.schedule!r}; known: {', '.join(after)}")
    # The first step already moves: it is step 1 of the warm-up, not step 0.
    ramp = optax.linear_schedule(peak / max(warmup, 1), peak, max(warmup - 1, 1))
    return optax.join_schedules([ramp, after[settings.schedule]()], [warmup])


def make_optimizer(settings, num_steps: int) -> optax.GradientTransformation:
    """clip → AdamW (Loshchilov & Hutter 2019); weight decay on matrices only."""
    adamw = optax.adamw(
        learning_rate_schedule(settings, num_steps),
        b1=settings.b1,
        b2=settings.b2,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        mask=is_matrix,
    )
    if not settings.clip_norm:
        return adamw
    return optax.chain(optax.clip_by_global_norm(settings.clip_norm), adamw)


def is_matrix(params: dict) -> dict:
    """Which leaves are decayed: kernels, embeddings and adapters, not norms and biases. Leaves
    of the layers have the layers' axis in front."""

    def decays(path, leaf):
        stacked = any(getattr(key, "key", None) == "layers" for key in path)
        return leaf.ndim - stacked >= 2

    return jax.tree_util.tree_map_with_path(decays, params)
