"""Objectives as sums of terms: the hybrid loss again, weights that move, and terms of one's own."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from random_batches import assert_trees_close, random_batch
from walk_jaxpr import rows_through

from emergent_alignment import losses
from emergent_alignment.data.batches import ROLES
from emergent_alignment.training.branches import branch_log_probs, branch_masks, pair_log_probs
from emergent_alignment.training.objective import Objective, Share, Term
from emergent_alignment.training.state import TrainState, policy_params
from emergent_alignment.training.step import compiled_step, loss_and_gradients
from emergent_alignment.training.task_and_pairs import TaskAndPairs, TaskAndPairsView
from emergent_alignment.training.terms import (
    HYBRID,
    ChosenNLLTerm,
    KLTerm,
    PreferenceTerm,
    TaskTerm,
)

OPTIMIZER = optax.adamw(1e-2)


def no_target_batch():
    return dataclasses.replace(random_batch(branches=2), roles=ROLES["no target"])


def test_the_terms_add_up_to_the_hybrid_loss_of_the_same_log_probs(settings, frozen, adapters):
    knobs = {"kind": "robust", "beta": 0.3, "label_smoothing": 0.1, "normalize": True}
    objective = Objective((TaskTerm(), PreferenceTerm(0.7, **knobs), ChosenNLLTerm(0.2)))
    batch = random_batch()

    @jax.jit
    def both(adapters):
        ours = objective.loss(settings, adapters, frozen, batch, objective.counts(batch))
        params = policy_params(adapters, frozen, settings.lora)
        log_probs, masks = branch_log_probs(settings, params, batch), branch_masks(batch)
        answers = [x for place in range(3) for x in (log_probs[:, place], masks[:, place])]
        theirs = losses.hybrid_loss(
            *answers,
            *pair_log_probs(settings, frozen, batch).T,
            batch.pair_mask,
            **knobs,
            alignment_weight=0.7,
            chosen_nll_weight=0.2,
        )
        return ours, theirs

    (loss, metrics), (expected, parts) = both(adapters)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    assert set(metrics) == {*parts, "kl", "pair_strength"}
    for name, value in parts.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("normalize", [False, True])
def test_the_strength_of_pairs_is_a_chosen_token_s_gradient_over_a_target_token_s(
    settings, frozen, adapters, normalize
):
    """… of the loss with λ = 1, as automatic differentiation has it of the tokens' log-probs."""
    batch = random_batch()
    objective = Objective((TaskTerm(), PreferenceTerm(1.0, beta=0.3, normalize=normalize)))

    @jax.jit
    def both(adapters):
        counts = objective.counts(batch)
        _, metrics = objective.loss(settings, adapters, frozen, batch, counts)
        params = policy_params(adapters, frozen, settings.lora)
        log_probs, masks = branch_log_probs(settings, params, batch), branch_masks(batch)
        reference = pair_log_probs(settings, frozen, batch).T

        def loss(log_probs):
            answers = [x for place in range(3) for x in (log_probs[:, place], masks[:, place])]
            return losses.hybrid_loss(
                *answers, *reference, batch.pair_mask, beta=0.3, normalize=normalize
            )[0]

        return metrics["pair_strength"], jnp.abs(jax.grad(loss)(log_probs)), masks

    strength, gradients, masks = both(adapters)
    of_target = gradients[:, 0][masks[:, 0]]
    first_of_chosen = gradients[:, 1, 0][batch.pair_mask]
    np.testing.assert_allclose(of_target, of_target[0], rtol=1e-6)
    np.testing.assert_allclose(strength, (first_of_chosen / of_target[0]).mean(), rtol=1e-5)


def test_rows_that_were_left_out_since_they_have_no_pair_change_no_loss_and_no_gradient(
    settings, frozen, adapters
):
    """… where another row stands for them."""
    task, heard = random_batch(branches=1), no_target_batch()
    paired = np.flatnonzero(heard.pair_mask)
    assert 0 < len(paired) < len(heard.pair_mask)
    counted = np.ones(len(paired), np.int32)
    counted[-1] += len(heard.pair_mask) - len(paired)
    few = dataclasses.replace(jax.tree.map(lambda rows: rows[paired], heard), counted=counted)
    objective = Objective(HYBRID.terms, TaskAndPairsView)
    run = functools.partial(
        jax.jit(loss_and_gradients, static_argnums=(0, 4)), settings, adapters, frozen
    )
    expected = run(TaskAndPairs(task, heard), objective)
    assert_trees_close(run(TaskAndPairs(task, few), objective), expected, 1e-5)


def test_a_weight_that_is_given_is_as_one_of_the_term_s_own_and_costs_no_compilation(
    settings, frozen, adapters
):
    batch = random_batch()
    step = compiled_step(settings, OPTIMIZER, weighted=True)

    def moved(step, *weights):
        trainable = jax.tree.map(jnp.copy, adapters)
        return step(TrainState(trainable, OPTIMIZER.init(trainable)), frozen, batch, *weights)

    for alignment, chosen in ((0.5, 0.0), (2.0, 0.25)):
        own = Objective((TaskTerm(), PreferenceTerm(alignment), ChosenNLLTerm(chosen), KLTerm(0.0)))
        expected = moved(compiled_step(settings, OPTIMIZER, objective=own))
        given = {"alignment_loss": jnp.float32(alignment), "chosen_nll": jnp.float32(chosen)}
        assert_trees_close(moved(step, given), expected, 1e-6)
    assert step._cache_size() == 1
    assert moved(step, {"alignment_loss": 3.0, "chosen_nll": 0.0})[1]["loss"] > 0


def test_a_weight_of_no_term_is_an_error_that_names_those_there_are(settings, frozen, adapters):
    batch = random_batch()
    with pytest.raises(ValueError, match="called lambda; known: task_loss, alignment_loss"):
        HYBRID.loss(settings, adapters, frozen, batch, HYBRID.counts(batch), {"lambda": 1.0})


def test_two_terms_of_one_name_are_an_error():
    with pytest.raises(ValueError, match="one name: kl_target"):
        Objective((TaskTerm(), KLTerm(0.1), KLTerm(0.2)))


def test_a_kl_of_weight_0_costs_no_pass_unless_its_weight_is_given(settings, frozen, adapters):
    """… and one that is computed shares the frozen copy's pass with the reference."""
    batch, config = random_batch(), settings.config
    brought = dataclasses.replace(batch, reference=jnp.zeros((8, 2)))
    positions = config.num_layers * (batch.prompt.size + batch.branches.size)

    def passes(batch, objective=HYBRID, weights=None):
        def gradients(adapters, frozen, batch):
            return loss_and_gradients(settings, adapters, frozen, batch, objective, weights)

        jaxpr = jax.make_jaxpr(gradients)(adapters, frozen, batch).jaxpr
        rows = rows_through(jaxpr, (config.intermediate_size, config.hidden_size))
        return rows / positions

    penalised = Objective((*HYBRID.terms[:-1], KLTerm(0.1)))
    assert passes(brought) == 1
    assert passes(brought, penalised) == passes(brought, HYBRID, {"kl_target": 0.1}) == 2
    assert passes(batch) == passes(batch, penalised) == 2


def test_without_a_target_the_kl_is_held_on_the_chosen_answer(settings, frozen, adapters):
    """Row by row: a row that learns a target is held on that; without either there is nothing."""
    objective = Objective((TaskTerm(), KLTerm(1.0)))
    batch = no_target_batch()

    @jax.jit
    def kl(batch):
        counts = objective.counts(batch)
        metrics = objective.loss(settings, adapters, frozen, batch, counts)[1]
        return metrics["kl_target"] * counts["held_tokens"], counts["held_tokens"]

    def as_targets(rows, place):
        task = dataclasses.replace(
            rows,
            branches=rows.branches[:, place : place + 1],
            branch_lengths=rows.branch_lengths[:, place : place + 1],
            roles=ROLES["task"],
        )
        return kl(task)

    paired = jax.tree.map(lambda x: x[batch.pair_mask], batch)
    expected = as_targets(paired, batch.roles.chosen)
    assert expected[0] > 0.1
    np.testing.assert_allclose(kl(batch), expected, rtol=1e-5)

    mixed = random_batch(seed=2)
    learns, paired = jnp.arange(8) % 3 > 0, jnp.arange(8) % 2 == 0
    lengths = mixed.branch_lengths.at[:, 0].multiply(learns)
    mixed = dataclasses.replace(mixed, branch_lengths=lengths, pair_mask=paired)
    learning = jax.tree.map(lambda x: x[learns], mixed)
    others = jax.tree.map(lambda x: x[~learns & paired], mixed)
    total = jnp.array(as_targets(learning, 0)) + jnp.array(as_targets(others, 1))
    np.testing.assert_allclose(kl(mixed), total, rtol=1e-5)


@dataclasses.dataclass(frozen=True)
class FirstTokenTerm(Term):
    """A user's own: how likely the policy finds its targets' first tokens, a prompt."""

    weight: float = 0.5
    name: ClassVar[str] = "first_token"

    def share(self, part, counts):
        return Share(-part.target_log_probs[:, 0].sum(), counts["prompts"])

    def watched(self, part, counts):
        return {"targets": Share(part.target_mask.any(-1).sum(), counts["prompts"])}


def test_a_term_of_one_s_own_needs_a_name_and_a_share(settings, frozen, adapters):
    objective = Objective((TaskTerm(), FirstTokenTerm()))
    batch = random_batch()
    compute = jax.jit(loss_and_gradients, static_argnums=(0, 4))
    _, metrics = whole = compute(settings, adapters, frozen, batch, objective)
    expected = metrics["task_loss"] + 0.5 * metrics["first_token"]
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-6)
    assert metrics["targets"] == 1.0
    parts = dataclasses.replace(settings, accumulation=4)
    assert_trees_close(compute(parts, adapters, frozen, batch, objective), whole, 1e-5)
