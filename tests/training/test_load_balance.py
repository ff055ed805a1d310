"""The load of a mixture's experts in the training step: which tokens count, what is logged, and
that the term evens it out."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from random_batches import random_batch

from emergent_alignment.errors import UserError
from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.config import ModelConfig
from emergent_alignment.models.forward import watched_forward
from emergent_alignment.models.model import random_params
from emergent_alignment.runs.config import LossSection, RunConfig
from emergent_alignment.runs.training_run import hybrid_terms, step_settings
from emergent_alignment.training.branches import branch_hidden
from emergent_alignment.training.objective import Objective
from emergent_alignment.training.state import TrainState
from emergent_alignment.training.step import compiled_step
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.task_and_pairs import TaskAndPairs, TaskAndPairsView
from emergent_alignment.training.terms import LoadBalanceTerm, TaskTerm

CONFIG = ModelConfig(
    "qwen3_moe", 96, 16, 24, 2, 2, 1, 8, num_experts=4, experts_per_token=2, expert_size=12
)
SETTINGS = StepSettings(CONFIG, None, chunk_size=16)
PARAMS = jax.tree.map(lambda x: 20.0 * x if x.ndim > 1 else x, random_params(CONFIG))


def test_the_true_tokens_are_counted_each_once():
    """A prompt once, whatever answers follow it, and no padding."""
    batch = random_batch()
    _, _, loads = jax.jit(branch_hidden, static_argnums=0)(SETTINGS, PARAMS, batch)
    tokens = int(batch.prompt_lengths.sum() + batch.branch_lengths.sum())
    np.testing.assert_allclose(loads.sum(-1), [[2 * tokens, tokens]] * 2, rtol=1e-5)
    alone = random_batch(branches=1)
    _, _, loads = jax.jit(branch_hidden, static_argnums=0)(SETTINGS, PARAMS, alone)
    wanted = np.zeros_like(loads)
    for row in range(len(alone.prompt)):
        prompt, answer = alone.prompt_lengths[row], alone.branch_lengths[row, 0]
        one = jnp.concatenate([alone.prompt[row, :prompt], alone.branches[row, 0, :answer]])[None]
        positions = jnp.arange(one.shape[1])[None]
        given = one, positions, causal_plan(positions), jnp.ones_like(one, bool)
        wanted += watched_forward(CONFIG, PARAMS, *given)[1]
    np.testing.assert_allclose(loads, wanted, rtol=1e-4)


def test_rows_of_pairs_beside_the_task_s_count_too():
    task, heard = random_batch(branches=1), random_batch(branches=2, seed=3)
    heard = dataclasses.replace(heard, roles=dataclasses.replace(heard.roles, target=None))
    view = TaskAndPairsView(SETTINGS, PARAMS, PARAMS, TaskAndPairs(task, heard))
    apart = [branch_hidden(SETTINGS, PARAMS, batch)[2] for batch in (task, heard)]
    np.testing.assert_allclose(view.loads, apart[0] + apart[1], rtol=1e-5)


def test_the_term_evens_out_what_the_task_alone_leaves_uneven():
    """Full fine-tuning of crowded routers; what is logged with weight 0 is the same measure."""
    crowded = PARAMS | {"layers": dict(PARAMS["layers"])}
    router = crowded["layers"]["router"]["kernel"]
    crowded["layers"]["router"] = {"kernel": router.at[:, :, 0].add(3.0)}
    batch, optimizer = random_batch(branches=1), optax.adam(3e-3)
    ends = {}
    for weight in (0.0, 1.0):
        objective = Objective((TaskTerm(), LoadBalanceTerm(weight)))
        step = compiled_step(SETTINGS, optimizer, None, objective)
        state = TrainState(jax.tree.map(jnp.copy, crowded), optimizer.init(crowded))
        logged = []
        for _ in range(20):
            state, metrics = step(state, PARAMS, batch)
            logged.append(jax.device_get(metrics))
        assert logged[0]["loss"] == pytest.approx(
            logged[0]["task_loss"] + weight * logged[0]["load_balance"], rel=1e-5
        )
        ends[weight] = logged[-1]
    assert 2.0 <= ends[1.0]["load_balance"] < ends[0.0]["load_balance"] - 0.1
    assert ends[1.0]["router_max_load"] < ends[0.0]["router_max_load"]
    assert 0.0 <= ends[1.0]["router_unused"] <= ends[0.0]["router_unused"] < 1.0


def test_microbatches_have_the_mean_of_their_balances():
    batch = random_batch(branches=1)
    halves = [jax.tree.map(lambda x: x[part::2], batch) for part in range(2)]  # noqa: B023
    objective = Objective((LoadBalanceTerm(1.0),))
    logged = {
        parts: compiled_step(
            dataclasses.replace(SETTINGS, accumulation=parts), optax.sgd(0.0), None, objective
        )(TrainState(jax.tree.map(jnp.copy, PARAMS), optax.sgd(0.0).init(PARAMS)), PARAMS, rows)[1]
        for parts, rows in ((2, batch), (1, halves[0]))
    }
    other = compiled_step(SETTINGS, optax.sgd(0.0), None, objective)(
        TrainState(jax.tree.map(jnp.copy, PARAMS), optax.sgd(0.0).init(PARAMS)), PARAMS, halves[1]
    )[1]
    for name in ("load_balance", "router_max_load", "router_unused"):
        mean = (logged[1][name] + other[name]) / 2
        np.testing.assert_allclose(logged[2][name], mean, rtol=1e-5, err_msg=name)


def test_a_model_without_experts_has_nothing_to_balance(tiny_config):
    config = dataclasses.replace(RunConfig(), loss=LossSection(load_balance_weight=0.01))
    assert LoadBalanceTerm(0.01) in hybrid_terms(config.loss)
    dense = SimpleNamespace(model=SimpleNamespace(config=tiny_config("llama"), source="tiny"))
    with pytest.raises(UserError, match="load_balance_weight: tiny has no experts"):
        step_settings(config, dense)
