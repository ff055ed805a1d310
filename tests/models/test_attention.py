"""The truths of attention and of plain causal rows, on tiny random models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_decoder
from causal_rows import MIXED_WINDOWS, assert_close_trees, random_tokens, row_logits
from hypothesis import given, settings
from hypothesis import strategies as st

from emergent_alignment.models import attention
from emergent_alignment.models.attention import attend, attend_rows, causal_plan
from emergent_alignment.models.decoder import REMAT_POLICIES
from emergent_alignment.models.forward import forward, unembedding

BIASES = {"qkv_bias": True, "output_bias": True, "mlp_bias": True}

# ------------------------------------------------------------------------ attend


def numpy_attend(query, sources, sinks=None) -> np.ndarray:
    """One query, one head at a time over the joined sources; zeros where nothing is visible. A sink
    is a key more, whose value is zero."""
    output = np.zeros(query.shape)
    for at in np.ndindex(*query.shape[:4]):
        batch, branch, now, head = at
        keys, values = [], []
        for key, value, mask in sources:
            own = (batch,) if key.ndim == 4 else (batch, branch)
            kv_head = head // (query.shape[3] // key.shape[-2])
            visible = np.broadcast_to(mask, (*query.shape[:3], key.shape[-3]))[batch, branch, now]
            keys.append(key[own][visible, kv_head])
            values.append(value[own][visible, kv_head])
        keys, values = np.concatenate(keys), np.concatenate(values)
        if len(keys):
            scores = keys @ query[at] / np.sqrt(query.shape[-1])
            if sinks is not None:
                scores = np.append(scores, sinks[head])
                values = np.concatenate([values, np.zeros_like(values[:1])])
            weights = np.exp(scores - scores.max())
            output[at] = weights @ values / weights.sum()
    return output


@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**31),
    density=st.sampled_from([0.2, 0.7, 1.0]),
    spread=st.sampled_from([1.0, 30.0]),
    with_sinks=st.booleans(),
)
def test_attend_is_one_softmax_over_all_its_sources(seed, density, spread, with_sinks):
    draw = np.random.default_rng(seed)
    batch, branches, queries, heads, kv_heads, size = 2, 3, 4, 6, 2, 8

    def normal(*shape):
        return draw.standard_normal(shape).astype(np.float32)

    shared = [normal(batch, 5, kv_heads, size) for _ in range(2)]
    private = [normal(batch, branches, 4, kv_heads, size) for _ in range(2)]
    query = spread * normal(batch, branches, queries, heads, size)
    sources = [
        (*shared, draw.random((batch, branches, queries, 5)) < density),
        (*private, draw.random((batch, 1, queries, 4)) < density),
    ]
    sinks = spread * normal(heads) if with_sinks else None
    expected = numpy_attend(query.astype(np.float64), sources, sinks)
    np.testing.assert_allclose(attend(query, sources, sinks=sinks), expected, rtol=0, atol=1e-5)


def test_a_query_that_sees_nothing_gives_zeros_and_finite_gradients():
    draw = np.random.default_rng(0)
    query, key, value = (jnp.array(draw.standard_normal((1, 3, 2, 4)), jnp.float32) for _ in "qkv")
    mask = jnp.array([[[1, 0, 1], [0, 0, 0], [1, 1, 1]]], bool)

    def total(*arrays):
        output = attend_rows(*arrays, mask)
        return output.sum(), output

    (_, output), gradients = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(
        query, key, value
    )
    assert (output[0, 1] == 0).all() and (jnp.abs(output[0, 0]) > 0).all()
    assert all(jnp.isfinite(gradient).all() for gradient in gradients)
    assert (gradients[0][0, 1] == 0).all()


@pytest.mark.parametrize("queries", [8, 11])
def test_queries_in_chunks_are_the_queries_at_once(monkeypatch, queries):
    """… forward and gradients, with a rest, a shared source, sinks and masks that broadcast."""
    draw = np.random.default_rng(0)

    def random(*shape):
        return jnp.array(draw.standard_normal(shape), jnp.float32)

    query = random(2, 3, queries, 4, 8)
    shared, own = (random(2, 7, 2, 8), random(2, 7, 2, 8)), (random(2, 3, 5, 2, 8),) * 2
    masks = jnp.array(draw.random((2, 1, queries, 7)) < 0.7), jnp.ones((2, 3, 1, 5), bool)
    weights, sinks = random(*query.shape), random(4)

    def loss(query, shared, own, sinks):
        found = attention.attend(query, [(*shared, masks[0]), (*own, masks[1])], sinks=sinks)
        return (found * weights).sum(), found

    def differentiated():
        # Wrapped anew each time: jit would find the other's program.
        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))(
            query, shared, own, sinks
        )

    expected = differentiated()
    monkeypatch.setattr(attention, "QUERY_CHUNK", 4)
    for left, right in zip(
        jax.tree.leaves(differentiated()), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)


# ------------------------------------------------------------------------ plain causal rows


@pytest.mark.parametrize(
    ("family", "changes"),
    [
        ("llama", {}),
        ("llama", BIASES),
        ("llama", {"num_kv_heads": 1, "tie_embeddings": False}),
        ("llama", {"num_kv_heads": 4}),
        ("mistral", {}),
        ("qwen2", {}),
        ("qwen3", {}),
        ("qwen3", MIXED_WINDOWS),
    ],
)
def test_the_decoder_equals_one_written_head_by_head(tiny_config, tiny_params, family, changes):
    config = tiny_config(family, **changes)
    params = dict(tiny_params(config))
    row = random_tokens(1, 13)
    ours = row_logits(config)(params, row)
    expected = reference_decoder.logits(config, params, row)
    assert np.abs(expected).max() > 3, "logits too small to tell anything"
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_segments_packed_into_a_row_equal_rows_of_their_own(tiny_config, tiny_params):
    config = tiny_config("mistral")
    params = tiny_params(config)
    rows = [random_tokens(2, 6), random_tokens(3, 13)]
    tokens = np.concatenate(rows)[None]
    positions = jnp.concatenate([jnp.arange(6), jnp.arange(13)])[None]
    segments = jnp.repeat(jnp.arange(2), jnp.array([6, 13]))[None]
    hidden, _ = forward(config, params, tokens, positions, causal_plan(positions, segments))
    packed = hidden[0] @ unembedding(params)
    for own, row in ((packed[:6], rows[0]), (packed[6:], rows[1])):
        expected = row_logits(config)(params, row)
        assert_close_trees(own, expected, 1e-5)


def test_recomputing_activations_changes_neither_values_nor_gradients(tiny_config, tiny_params):
    config = tiny_config("qwen3")
    params, row = tiny_params(config), random_tokens(4, 2, 7)
    positions = jnp.broadcast_to(jnp.arange(7), row.shape)

    def run(remat):
        def total(params):
            plan = causal_plan(positions)
            hidden, _ = forward(config, params, row, positions, plan, remat=remat)
            return jnp.square(hidden[..., ::2]).sum()

        return jax.jit(jax.value_and_grad(total))(params)

    expected = run("none")
    for remat in set(REMAT_POLICIES) - {"none"}:
        assert_close_trees(run(remat), expected, 1e-6)
