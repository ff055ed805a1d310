"""The KL penalty of a step: nothing at the start, the exact KL later, and no way round it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_batches import random_batch

from emergent_alignment.models.forward import unembedding
from emergent_alignment.models.lora import LoraConfig, init_adapters
from emergent_alignment.training.branches import predicting_hidden, target_mask
from emergent_alignment.training.objective import Objective
from emergent_alignment.training.state import policy_params
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.terms import HYBRID, KLTerm


@pytest.mark.parametrize("branches", [1, 3])
def test_the_penalty_is_the_mean_kl_of_the_targets_tokens(tiny_config, tiny_params, branches):
    config = tiny_config("llama")
    settings = StepSettings(config, LoraConfig(4, 8.0), chunk_size=16)
    penalised_objective = Objective((*HYBRID.terms[:-1], KLTerm(0.5)))
    frozen = tiny_params(config)
    adapters = init_adapters(frozen, settings.lora, jax.random.key(1))
    batch = random_batch(branches=branches)

    def losses(adapters):
        return [
            objective.loss(settings, adapters, frozen, batch, objective.counts(batch))
            for objective in (penalised_objective, HYBRID)
        ]

    losses = jax.jit(losses)
    (start, metrics), (plain, _) = losses(adapters)
    np.testing.assert_allclose([start - plain, metrics["kl_target"]], 0.0, atol=1e-5)
    moved = jax.tree.map(lambda x: x + 0.05, adapters)
    (penalised, metrics), (plain, _) = losses(moved)

    params = policy_params(moved, frozen, settings.lora)

    @jax.jit
    def targets_log_probs(params):
        hidden = predicting_hidden(settings, params, batch)[:, 0]
        return jax.nn.log_softmax(hidden @ unembedding(params))

    log_p, log_q = map(targets_log_probs, (params, frozen))
    mask = target_mask(batch)
    kl = jnp.where(mask, (jnp.exp(log_p) * (log_p - log_q)).sum(-1), 0).sum() / mask.sum()
    assert kl > 0.01
    np.testing.assert_allclose(metrics["kl_target"], kl, rtol=1e-5)
    np.testing.assert_allclose(penalised - plain, 0.5 * kl, rtol=1e-4)
