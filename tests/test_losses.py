"""The truths of the losses: against float64 numpy, longer ways, and themselves in parts."""

import importlib.util
import math
import re
import subprocess
import sys
from typing import get_args, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from walk_jaxpr import array_shapes

from emergent_alignment import losses
from emergent_alignment.runs.config import LossSection

KINDS = get_args(losses.PreferenceKind)
BRANCHES = ("target", "chosen", "rejected")


# ------------------------------------------------------------------------ token log-probs


def test_the_kinds_that_type_checkers_know_are_those_that_there_are():
    assert get_args(losses.PreferenceKind) == tuple(losses.PREFERENCE_LOSSES)


def random_vocabulary_inputs(seed, batch, tokens, vocabulary, width=12, spread=1.0):
    draw = np.random.default_rng(seed)
    hidden = draw.standard_normal((batch, tokens, width)).astype(np.float32) * spread
    unembedding = draw.standard_normal((width, vocabulary)).astype(np.float32) / width**0.5
    targets = draw.integers(0, vocabulary, (batch, tokens)).astype(np.int32)
    return jnp.array(hidden), jnp.array(unembedding), jnp.array(targets)


def numpy_log_probs(hidden, unembedding, targets):
    logits = np.asarray(hidden, np.float64) @ np.asarray(unembedding, np.float64)
    logits = logits - logits.max(-1, keepdims=True)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return np.take_along_axis(log_probs, np.asarray(targets)[..., None], -1)[..., 0]


@pytest.mark.parametrize("chunk_size", [None, 7])
@pytest.mark.parametrize("spread", [1.0, 30.0, 1e4])
def test_token_log_probs_are_a_float64_log_softmax(spread, chunk_size):
    inputs = random_vocabulary_inputs(0, 3, 11, 257, spread=spread)
    ours = losses.token_log_probs(*inputs, chunk_size=chunk_size)
    expected = numpy_log_probs(*inputs)
    # One float32 rounding of logits of this size is the finest that can be asked for.
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6 * max(1.0, spread))


def test_token_log_probs_of_bfloat16_inputs_are_computed_in_float32():
    hidden, unembedding, targets = random_vocabulary_inputs(1, 2, 9, 300, width=64)
    hidden, unembedding = hidden.astype(jnp.bfloat16), unembedding.astype(jnp.bfloat16)
    ours = losses.token_log_probs(hidden, unembedding, targets, chunk_size=4)
    assert ours.dtype == jnp.float32
    expected = numpy_log_probs(hidden.astype(jnp.float32), unembedding.astype(jnp.float32), targets)
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**31),
    batch=st.integers(1, 3),
    tokens=st.sampled_from([1, 9]),
    vocabulary=st.sampled_from([2, 67]),
    chunk_size=st.integers(1, 40),
)
def test_chunked_log_probs_and_gradients_equal_unchunked(
    seed, batch, tokens, vocabulary, chunk_size
):
    hidden, unembedding, targets = random_vocabulary_inputs(seed, batch, tokens, vocabulary)
    weights = jnp.array(np.random.default_rng(seed).standard_normal((batch, tokens)), jnp.float32)

    def both(size):
        def weighted(hidden, unembedding):
            log_probs = losses.token_log_probs(hidden, unembedding, targets, chunk_size=size)
            return (log_probs * weights).sum(), log_probs

        compute = jax.jit(jax.value_and_grad(weighted, argnums=(0, 1), has_aux=True))
        (_, log_probs), gradients = compute(hidden, unembedding)
        return log_probs, gradients

    whole, whole_gradients = both(None)
    parts, part_gradients = both(chunk_size)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-6)
    for name, ours, expected in zip(("hidden", "unembedding"), part_gradients, whole_gradients):
        scale = float(jnp.abs(expected).max())
        difference = float(jnp.abs(ours - expected).max())
        assert difference <= 1e-6 * max(scale, 1.0), f"gradient of {name}: {difference} of {scale}"


@given(
    seed=st.integers(0, 1000),
    batch=st.integers(1, 3),
    tokens=st.integers(1, 7),
    chunk_size=st.one_of(st.none(), st.integers(1, 24)),
)
@settings(max_examples=10)
def test_token_kl_is_the_kl_of_float64_and_moves_the_policy_alone(seed, batch, tokens, chunk_size):
    draw = np.random.default_rng(seed)
    width, vocabulary = 5, 11
    policy, frozen = (
        (draw.standard_normal((batch, tokens, width)), draw.standard_normal((width, vocabulary)))
        for _ in range(2)
    )
    ours = [jnp.asarray(x, jnp.float32) for x in (*policy, *frozen)]

    @jax.jit
    def kl_and_gradients(*arrays):
        def total(*arrays):
            found = losses.token_kl(*arrays, chunk_size=chunk_size)
            return found.sum(), found

        return jax.grad(total, argnums=(0, 1, 2, 3), has_aux=True)(*arrays)

    gradients, found = kl_and_gradients(*ours)
    logits = [x @ w for x, w in (policy, frozen)]
    log_p, log_q = (x - np.logaddexp.reduce(x, axis=-1, keepdims=True) for x in logits)
    np.testing.assert_allclose(found, (np.exp(log_p) * (log_p - log_q)).sum(-1), atol=1e-5)
    _, of_itself = kl_and_gradients(*ours[:2], *ours[:2])
    np.testing.assert_allclose(of_itself, 0.0, atol=1e-6)
    assert all(jnp.any(gradient != 0) for gradient in gradients[:2])
    assert all(jnp.all(gradient == 0) for gradient in gradients[2:])


def test_chunked_loss_and_gradient_make_no_array_of_tokens_by_vocabulary():
    batch, tokens, vocabulary, width, chunk_size = 4, 32, 211, 8, 16
    inputs = random_vocabulary_inputs(0, batch, tokens, vocabulary, width=width)

    def largest(size):
        def total(hidden, unembedding):
            return losses.token_log_probs(hidden, unembedding, inputs[2], chunk_size=size).sum()

        jaxpr = jax.make_jaxpr(jax.value_and_grad(total, argnums=(0, 1)))(*inputs[:2])
        return max((math.prod(shape), shape) for shape in array_shapes(jaxpr.jaxpr))

    assert largest(None)[0] == batch * tokens * vocabulary, "the walk must see the large array"
    allowed = max(chunk_size * vocabulary, width * vocabulary)
    assert largest(chunk_size)[0] <= allowed, f"an array of shape {largest(chunk_size)[1]}"


# ------------------------------------------------------------------------ sequence log-probs


def test_sequence_log_probs_sum_what_the_mask_keeps_and_ignore_the_rest():
    log_probs = jnp.array([[-1.0, -2.0, jnp.nan, jnp.inf], [-4.0, -jnp.inf, -8.0, -16.0]])
    mask = jnp.array([[1, 1, 0, 0], [1, 0, 1, 1]], bool)
    for as_float in (mask, mask.astype(jnp.float32)):
        assert losses.sequence_log_probs(log_probs, as_float).tolist() == [-3.0, -28.0]
        normalized = losses.sequence_log_probs(log_probs, as_float, normalize=True)
        np.testing.assert_allclose(normalized, [-1.5, -28 / 3], rtol=1e-7)
    gradient = jax.grad(lambda x: losses.sequence_log_probs(x, mask).sum())(log_probs)
    np.testing.assert_array_equal(gradient, mask.astype(np.float32))


def test_sequence_log_probs_of_an_empty_response_are_zero():
    nothing = jnp.zeros((2, 3), bool)
    for normalize in (False, True):
        total = losses.sequence_log_probs(jnp.ones((2, 3)), nothing, normalize=normalize)
        assert total.tolist() == [0.0, 0.0]


# ------------------------------------------------------------------------ preference losses


def random_pairs(seed, count=9, drift=6.0):
    draw = np.random.default_rng(seed)
    policy = -draw.uniform(5, 80, (2, count))
    reference = policy - draw.standard_normal((2, count)) * drift
    return [jnp.array(row, jnp.float32) for row in (*policy, *reference)]


def test_sigmoid_loss_of_a_batch_full_of_pairs_is_exactly_log_2_at_the_start():
    """At step 0 the policy is the reference, whatever the responses and the settings."""
    rows, tokens = 8, 5
    batch = random_batch(3, rows=rows, tokens=tokens, every_row_has_a_pair=True)
    batch["reference_chosen"] = losses.sequence_log_probs(
        batch["chosen_log_probs"], batch["chosen_mask"]
    )
    batch["reference_rejected"] = losses.sequence_log_probs(
        batch["rejected_log_probs"], batch["rejected_mask"]
    )
    for options in ({}, {"beta": 7.0}, {"normalize": True}):
        _, metrics = losses.hybrid_loss(**batch, **options)
        assert float(metrics["alignment_loss"]) == float(np.float32(np.log(2))), options
        assert float(metrics["rewards_margin"]) == 0.0


def test_exo_pair_reads_no_smoothing_as_one_in_a_thousand():
    pairs = random_pairs(0)
    unset = losses.preference_loss(*pairs, kind="exo_pair")
    stated = losses.preference_loss(*pairs, kind="exo_pair", label_smoothing=1e-3)
    np.testing.assert_array_equal(unset, stated)
    assert np.isfinite(unset).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_says_its_formula_and_source_and_reads_smoothing_where_it_says_so(kind):
    loss = losses.PREFERENCE_LOSSES[kind]
    assert re.search(r"\(.* 20\d\d.*, eq. \d+", loss.__doc__)
    pairs = random_pairs(4)
    plain, smoothed = (
        losses.preference_loss(*pairs, kind=kind, label_smoothing=share) for share in (0.05, 0.2)
    )
    assert (plain != smoothed).any() == (kind in losses.SMOOTHED)


def test_a_config_may_name_every_kind():
    assert (
        set(get_args(get_type_hints(LossSection)["kind"]))
        == set(KINDS)
        == set(losses.PREFERENCE_LOSSES)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_no_gradient_flows_into_the_reference(kind):
    pairs = random_pairs(1)

    def total(*pairs):
        return losses.preference_loss(*pairs, kind=kind, label_smoothing=0.1).sum()

    gradients = jax.grad(total, argnums=(0, 1, 2, 3))(*pairs)
    for policy in gradients[:2]:
        assert jnp.abs(policy).max() > 0
    for reference in gradients[2:]:
        assert (reference == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_preference_losses_and_gradients_stay_finite_far_from_the_reference(kind):
    far = [jnp.array([-1e4, -1.0]), jnp.array([-1.0, -1e4]), jnp.zeros(2) - 1, jnp.zeros(2) - 1]

    def total(chosen, rejected):
        return losses.preference_loss(chosen, rejected, *far[2:], kind=kind).sum()

    value, gradients = jax.value_and_grad(total, argnums=(0, 1))(*far[:2])
    assert np.isfinite(value) and all(np.isfinite(g).all() for g in gradients)


# ------------------------------------------------------------------------ hybrid loss


def random_batch(seed, rows=6, tokens=7, every_row_has_a_pair=False):
    """Arguments of hybrid_loss with uneven masks; some rows have no target, some no pair."""
    draw = np.random.default_rng(seed)
    batch = {}
    for branch in BRANCHES:
        lengths = draw.integers(branch != "target", tokens + 1, rows)
        log_probs = -draw.exponential(2.0, (rows, tokens))
        batch[f"{branch}_log_probs"] = jnp.array(log_probs, jnp.float32)
        batch[f"{branch}_mask"] = jnp.array(np.arange(tokens) < lengths[:, None])
    for side in ("chosen", "rejected"):
        summed = losses.sequence_log_probs(batch[f"{side}_log_probs"], batch[f"{side}_mask"])
        noise = jnp.array(draw.standard_normal(rows) * 3, jnp.float32)
        batch[f"reference_{side}"] = summed + noise
    has_pair = draw.random(rows) < 0.6
    batch["pair_mask"] = jnp.array(has_pair | every_row_has_a_pair)
    return batch


def numpy_hybrid_loss(
    batch, weight, *, beta, normalize, alignment_weight, chosen_nll_weight, label_smoothing
):
    """The sigmoid hybrid loss, row by row and token by token in float64, from docs/design.md §3."""
    batch = {name: np.asarray(value).astype(np.float64) for name, value in batch.items()}
    rows, tokens = batch["target_mask"].shape
    nll = num_target = chosen_nll = num_chosen = alignment = 0.0
    rewards = []
    for row in range(rows):
        sums, counts = {}, {}
        for branch in BRANCHES:
            kept = [t for t in range(tokens) if batch[f"{branch}_mask"][row, t]]
            sums[branch] = sum(batch[f"{branch}_log_probs"][row, t] for t in kept)
            counts[branch] = len(kept)
        nll, num_target = nll - sums["target"], num_target + counts["target"]
        if not batch["pair_mask"][row]:
            continue
        chosen_nll, num_chosen = chosen_nll - sums["chosen"], num_chosen + counts["chosen"]
        reward = {}
        for side in ("chosen", "rejected"):
            length = counts[side] if normalize else 1
            reward[side] = beta * (sums[side] - batch[f"reference_{side}"][row]) / length
        margin = reward["chosen"] - reward["rejected"]
        right, wrong = np.log1p(np.exp(-margin)), np.log1p(np.exp(margin))
        each = (1 - label_smoothing) * right + label_smoothing * wrong
        alignment += float(weight[row]) * each
        rewards.append((reward["chosen"], reward["rejected"]))
    task, alignment = nll / max(num_target, 1), alignment / rows
    chosen_nll = chosen_nll / max(num_chosen, 1)
    mean = np.mean(rewards, axis=0) if rewards else np.zeros(2)
    return task + alignment_weight * alignment + chosen_nll_weight * chosen_nll, {
        "task_loss": task,
        "alignment_loss": alignment,
        "chosen_nll": chosen_nll,
        "rewards_chosen": mean[0],
        "rewards_rejected": mean[1],
        "rewards_margin": mean[0] - mean[1],
        "rewards_accuracy": np.mean([c > r for c, r in rewards]) if rewards else 0.0,
    }


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    rows=st.sampled_from([1, 6]),
    beta=st.sampled_from([0.1, 0.7]),
    normalize=st.booleans(),
    alignment_weight=st.sampled_from([1.0, 0.3]),
    chosen_nll_weight=st.sampled_from([0.0, 0.2]),
    label_smoothing=st.sampled_from([0.0, 0.1]),
)
def test_hybrid_loss_and_its_metrics_are_what_the_formula_says(seed, rows, **options):
    batch = random_batch(seed, rows=rows)
    weight = jnp.array(np.random.default_rng(seed).uniform(0, 2, rows), jnp.float32)
    loss, metrics = losses.hybrid_loss(**batch, pair_weight=weight, **options)
    expected, expected_metrics = numpy_hybrid_loss(batch, weight, **options)
    np.testing.assert_allclose(loss, expected, rtol=2e-6, atol=2e-6)
    for name, value in expected_metrics.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-6, atol=2e-6, err_msg=name)


GARBAGE = [0.0, -1e30, 1e30, -jnp.inf, jnp.inf, jnp.nan]


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("normalize", [False, True])
def test_a_row_without_pair_adds_exactly_nothing_whatever_it_holds(garbage, normalize):
    rows, lone = 4, jnp.array([0, 2])
    batch = random_batch(5, rows=rows, every_row_has_a_pair=True)
    batch["pair_mask"] = batch["pair_mask"].at[lone].set(False)
    spoilt = dict(batch)
    for side in ("chosen", "rejected"):
        for name in (f"{side}_log_probs", f"reference_{side}"):
            spoilt[name] = batch[name].at[lone].set(garbage)

    def run(batch, **which):
        def total(chosen, rejected):
            inputs = batch | {"chosen_log_probs": chosen, "rejected_log_probs": rejected}
            return losses.hybrid_loss(**inputs, normalize=normalize, chosen_nll_weight=0.5, **which)

        return jax.value_and_grad(total, argnums=(0, 1), has_aux=True)(
            batch["chosen_log_probs"], batch["rejected_log_probs"]
        )

    (loss, metrics), gradients = run(batch)
    (spoilt_loss, spoilt_metrics), spoilt_gradients = run(spoilt)
    assert loss == spoilt_loss
    for name in metrics:
        assert metrics[name] == spoilt_metrics[name], name
    for clean, ours in zip(gradients, spoilt_gradients):
        np.testing.assert_array_equal(ours, clean)
        assert (ours[lone] == 0).all()
        assert (jnp.abs(ours[jnp.array([1, 3])]).max(1) > 0).all()


def test_a_batch_without_any_pair_has_zero_alignment_loss_and_the_task_loss_alone():
    batch = random_batch(6)
    batch["pair_mask"] = jnp.zeros_like(batch["pair_mask"])
    loss, metrics = losses.hybrid_loss(**batch, chosen_nll_weight=1.0)
    assert loss == losses.task_loss(batch["target_log_probs"], batch["target_mask"])
    for name, value in metrics.items():
        assert name == "task_loss" or value == 0, name


def test_alignment_loss_fades_with_the_share_of_prompts_that_have_pairs():
    """Its denominator is prompts, not pairs: half as many equal pairs, half the loss."""
    one = random_batch(8, rows=1, every_row_has_a_pair=True)
    four = {name: jnp.repeat(value, 4, axis=0) for name, value in one.items()}
    alignment = []
    for num_pairs in (4, 2, 1):
        four["pair_mask"] = jnp.arange(4) < num_pairs
        alignment.append(float(losses.hybrid_loss(**four)[1]["alignment_loss"]))
    assert alignment[1] == alignment[0] / 2 and alignment[2] == alignment[0] / 4


@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**31),
    cuts=st.sampled_from([(3,), (1, 2, 3), (1, 2, 3, 4, 5)]),
    kind=st.sampled_from(KINDS),
    normalize=st.booleans(),
)
def test_microbatches_with_global_totals_add_up_to_the_whole(seed, cuts, kind, normalize):
    batch = random_batch(seed)
    trained = [f"{branch}_log_probs" for branch in BRANCHES]
    totals = losses.loss_totals(batch["target_mask"], batch["chosen_mask"], batch["pair_mask"])

    @jax.jit
    def run(rows, totals):
        def total(log_probs):
            return losses.hybrid_loss(
                **(rows | log_probs),
                kind=kind,
                normalize=normalize,
                chosen_nll_weight=0.3,
                totals=totals,
            )

        log_probs = {name: rows[name] for name in trained}
        return jax.value_and_grad(total, has_aux=True)(log_probs)

    (loss, metrics), gradients = run(batch, None)
    edges = (0, *cuts, batch["pair_mask"].size)
    parts = [
        run({name: value[start:end] for name, value in batch.items()}, totals)
        for start, end in zip(edges, edges[1:])
    ]
    np.testing.assert_allclose(sum(part[0][0] for part in parts), loss, rtol=1e-6, atol=1e-6)
    for name, value in metrics.items():
        added = sum(part[0][1][name] for part in parts)
        np.testing.assert_allclose(added, value, rtol=1e-6, atol=1e-6, err_msg=name)
    for name in trained:
        joined = jnp.concatenate([part[1][name] for part in parts])
        np.testing.assert_allclose(joined, gradients[name], rtol=1e-6, atol=1e-9, err_msg=name)


def test_task_loss_divides_by_the_number_of_tokens_and_is_no_mean_of_means():
    log_probs = jnp.array([[-1.0, 0.0, 0.0, 0.0], [-2.0, -3.0, -4.0, -5.0]])
    mask = jnp.array([[1, 0, 0, 0], [1, 1, 1, 1]], bool)
    assert losses.task_loss(log_probs, mask) == 3.0
    halves = [losses.task_loss(log_probs[i : i + 1], mask[i : i + 1]) for i in (0, 1)]
    assert sum(halves) / 2 == 2.25, "what a mean of means would give"
    halves = [
        losses.task_loss(log_probs[i : i + 1], mask[i : i + 1], num_tokens=5.0) for i in (0, 1)
    ]
    assert sum(halves) == 3.0
    assert losses.task_loss(log_probs, jnp.zeros_like(mask)) == 0.0


def test_a_summed_margin_pulls_as_many_times_harder_as_the_response_has_tokens():
    """At Δ = 0 and with responses of T tokens each, exactly T times for every token."""
    rows, tokens = 4, 8
    batch = random_batch(9, rows=rows, tokens=tokens, every_row_has_a_pair=True)
    for side in ("chosen", "rejected"):
        batch[f"{side}_mask"] = jnp.ones((rows, tokens), bool)
        batch[f"reference_{side}"] = batch[f"{side}_log_probs"].sum(-1)

    def gradient(normalize):
        def alignment(chosen):
            inputs = batch | {"chosen_log_probs": chosen}
            return losses.hybrid_loss(**inputs, normalize=normalize)[0]

        return jax.grad(alignment)(batch["chosen_log_probs"])

    np.testing.assert_array_equal(gradient(False), tokens * gradient(True))
    # … and five times the task loss's pull at T = 100, β = 0.1, λ = 1 (docs/design.md §3).
    task = jax.grad(lambda x: losses.task_loss(x, jnp.ones((rows, 100), bool)))(
        jnp.zeros((rows, 100))
    )
    np.testing.assert_allclose(gradient(False)[0, 0] / task[0, 0], 5.0, rtol=1e-6)


def test_no_gradient_flows_into_the_reference_of_the_hybrid_loss():
    batch = random_batch(10, every_row_has_a_pair=True)

    def total(reference):
        return losses.hybrid_loss(**(batch | reference), normalize=True)[0]

    names = ("reference_chosen", "reference_rejected")
    for gradient in jax.grad(total)({name: batch[name] for name in names}).values():
        assert (gradient == 0).all()


# ------------------------------------------------------------------------ errors, and its imports


@pytest.fixture(scope="module")
def unchecked_losses():
    """The module without the test suite's run-time type checks, as a user imports it."""
    spec = importlib.util.spec_from_file_location("unchecked_losses", losses.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_wrong_settings_raise_a_value_error_that_says_what_was_wrong(unchecked_losses):
    pairs = random_pairs(2)
    with pytest.raises(ValueError, match="'dpo'.*known.*sigmoid"):
        unchecked_losses.preference_loss(*pairs, kind="dpo")
    for smoothing in (-0.1, 0.5, 1.0, float("nan")):
        with pytest.raises(ValueError, match="label_smoothing"):
            unchecked_losses.preference_loss(*pairs, label_smoothing=smoothing)
    inputs = random_vocabulary_inputs(0, 1, 2, 3)
    for chunk_size in (0, -4):
        with pytest.raises(ValueError, match="chunk_size.*at least 1"):
            unchecked_losses.token_log_probs(*inputs, chunk_size=chunk_size)


def test_shapes_that_do_not_fit_are_refused_in_this_suite():
    """So that the shapes in the signatures are true: every call here is checked."""
    batch = random_batch(11)
    with pytest.raises(Exception, match="Type-check error"):
        losses.hybrid_loss(**(batch | {"pair_mask": batch["pair_mask"][:-1]}))


def test_importing_the_losses_brings_nothing_but_jax_and_jaxtyping():
    """So that it is quick: what takes time is JAX's own import."""

    def brought(imports: str) -> set[str]:
        script = f"import sys, {imports}; print(*{{name.split('.')[0] for name in sys.modules}})"
        ran = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        return set(ran.stdout.split())

    ours = brought("emergent_alignment.losses") - brought("jax.numpy, jaxtyping")
    assert ours == {"emergent_alignment"}
