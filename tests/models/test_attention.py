"""The truths of attention, of shared prefixes and of adapters, on tiny random models."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_decoder
from hypothesis import given, settings
from hypothesis import strategies as st
from walk_jaxpr import array_shapes

from emergent_alignment.models import attention
from emergent_alignment.models.attention import (
    PrefixLayout,
    attend,
    attend_rows,
    causal_plan,
    prefix_plan,
)
from emergent_alignment.models.decoder import REMAT_POLICIES
from emergent_alignment.models.lora import PROJECTIONS, LoraConfig, attach, init_adapters, merge
from emergent_alignment.models.model import forward, unembedding

MIXED_WINDOWS = {"layer_windows": (None, 3)}
BIASES = {"qkv_bias": True, "output_bias": True, "mlp_bias": True}


def random_tokens(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 96, shape).astype(np.int32)


def assert_close_trees(ours, expected, tolerance: float) -> None:
    """Every leaf equal to `tolerance` of that leaf's largest number, or of 1 if that is more."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(ours), jax.tree.leaves(expected), strict=True)
    for (path, leaf), other in pairs:
        scale = max(1.0, float(jnp.abs(other).max()))
        difference = float(jnp.abs(leaf - other).max())
        assert difference <= tolerance * scale, (
            f"{jax.tree_util.keystr(path)} differs by {difference}, its scale is {scale}"
        )


def separate_row_logits(config, params, row) -> jax.Array:
    """[tokens, vocabulary] of one plain causal row without padding."""
    positions = jnp.arange(len(row))[None]
    hidden, _ = forward(config, params, row[None], positions, causal_plan(positions))
    return hidden[0] @ unembedding(params)


@functools.cache
def row_logits(config):
    return jax.jit(functools.partial(separate_row_logits, config))


# ------------------------------------------------------------------------ attend


def numpy_attend(query, sources) -> np.ndarray:
    """One query, one head at a time over the joined sources; zeros where nothing is visible."""
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
            weights = np.exp(scores - scores.max())
            output[at] = weights @ values / weights.sum()
    return output


@settings(max_examples=10)
@given(
    seed=st.integers(0, 2**31),
    density=st.sampled_from([0.2, 0.7, 1.0]),
    spread=st.sampled_from([1.0, 30.0]),
)
def test_attend_is_one_softmax_over_all_its_sources(seed, density, spread):
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
    expected = numpy_attend(query.astype(np.float64), sources)
    np.testing.assert_allclose(attend(query, sources), expected, rtol=0, atol=1e-5)


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


# ------------------------------------------------------------------------ a prompt and its branches


@functools.cache
def prefix_forward(config, layout: PrefixLayout, implementation: str):
    """jitted (params, tokens, prompt_lengths, weights) → (hidden, gradient of Σ hidden·weights)."""

    def total(params, tokens, prompt_lengths, weights):
        plan = prefix_plan(layout, prompt_lengths, implementation)
        positions = layout.positions(prompt_lengths)
        hidden, _ = forward(config, params, tokens, positions, plan)
        return (hidden * weights).sum(), hidden

    def run(*inputs):
        (_, hidden), gradient = jax.value_and_grad(total, has_aux=True)(*inputs)
        return hidden, gradient

    return jax.jit(run)


def real_tokens(layout: PrefixLayout, prompt_lengths, branch_lengths) -> np.ndarray:
    """bool[batch, tokens]: which places of a row hold a token of the prompt or of a branch."""
    prompt = np.arange(layout.prompt) < np.asarray(prompt_lengths)[:, None]
    branches = np.arange(layout.branch) < np.asarray(branch_lengths)[:, :, None]
    return np.concatenate([prompt, branches.reshape(len(prompt), -1)], axis=1)


def draw_lengths(draw, layout: PrefixLayout, batch: int):
    prompts = draw.integers(1, layout.prompt + 1, batch).astype(np.int32)
    return prompts, draw.integers(0, layout.branch + 1, (batch, layout.branches)).astype(np.int32)


LAYOUTS = [
    ("llama", {}, PrefixLayout(6, 3, 4)),
    ("qwen3", MIXED_WINDOWS, PrefixLayout(7, 2, 6)),
    ("mistral", {"num_kv_heads": 1}, PrefixLayout(9, 0, 0)),
]


@pytest.mark.parametrize(("family", "changes", "layout"), LAYOUTS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**31))
def test_block_attention_equals_dense_attention_and_so_do_the_gradients(
    tiny_config, tiny_params, family, changes, layout, seed
):
    config = tiny_config(family, **changes)
    draw = np.random.default_rng(seed)
    prompt_lengths, branch_lengths = draw_lengths(draw, layout, batch=3)
    size = layout.prompt + layout.branches * layout.branch
    tokens = random_tokens(seed, 3, size)
    real = real_tokens(layout, prompt_lengths, branch_lengths)[..., None]
    weights = real * draw.standard_normal((3, size, config.hidden_size)).astype(np.float32)
    inputs = (tiny_params(config), tokens, prompt_lengths, weights)
    dense, dense_gradient = prefix_forward(config, layout, "dense")(*inputs)
    blocks, blocks_gradient = prefix_forward(config, layout, "blocks")(*inputs)
    assert_close_trees(blocks * real, dense * real, 1e-5)
    assert_close_trees(blocks_gradient, dense_gradient, 1e-5)


def branch_log_probs(config, params, layout, tokens, prompt_lengths):
    """float32[batch, branches, branch]: log-prob of each branch token, given the prompt and the
    branch before it. The first is predicted by the prompt's last true token."""
    plan = prefix_plan(layout, prompt_lengths)
    positions = layout.positions(prompt_lengths)
    hidden, _ = forward(config, params, tokens, positions, plan)
    logits = jax.nn.log_softmax(hidden @ unembedding(params))
    batch = tokens.shape[0]
    shape = (batch, layout.branches, layout.branch)
    last = logits[jnp.arange(batch), prompt_lengths - 1][:, None, None]
    last = jnp.broadcast_to(last, (batch, layout.branches, 1, last.shape[-1]))
    own = logits[:, layout.prompt :].reshape(*shape, -1)
    predictions = jnp.concatenate([last, own[:, :, :-1]], axis=2)
    branches = tokens[:, layout.prompt :].reshape(shape)
    return jnp.take_along_axis(predictions, branches[..., None], -1)[..., 0]


jitted_branch_log_probs = jax.jit(branch_log_probs, static_argnames=("config", "layout"))


@pytest.mark.parametrize(
    ("family", "changes", "layout"),
    [
        ("llama", {}, PrefixLayout(6, 1, 5)),
        ("mistral", {}, PrefixLayout(6, 2, 5)),
        ("qwen3", MIXED_WINDOWS, PrefixLayout(6, 3, 5)),
    ],
)
@settings(max_examples=6)
@given(seed=st.integers(0, 2**31))
def test_shared_prefix_rows_give_the_log_probs_of_separate_rows(
    tiny_config, tiny_params, family, changes, layout, seed
):
    config = tiny_config(family, **changes)
    params = tiny_params(config)
    draw = np.random.default_rng(seed)
    prompt_lengths, branch_lengths = draw_lengths(draw, layout, batch=2)
    tokens = random_tokens(seed, 2, layout.prompt + layout.branches * layout.branch)
    ours = jitted_branch_log_probs(config, params, layout, tokens, prompt_lengths)
    branches = tokens[:, layout.prompt :].reshape(2, layout.branches, layout.branch)
    for row, branch in np.ndindex(2, layout.branches):
        start, length = prompt_lengths[row], branch_lengths[row, branch]
        answer = branches[row, branch, :length]
        alone = np.concatenate([tokens[row, :start], answer])
        log_probs = reference_decoder.log_probs(config, params, alone)
        expected = log_probs[np.arange(start - 1, start - 1 + length), answer]
        np.testing.assert_allclose(
            ours[row, branch, :length],
            expected,
            rtol=1e-5,
            atol=1e-5,
            err_msg=f"row {row}, branch {branch}",
        )


@pytest.mark.parametrize("family", ["llama", "mistral"])
def test_shared_prefix_rows_give_the_gradients_of_separate_rows(tiny_config, tiny_params, family):
    config = tiny_config(family)
    params = tiny_params(config)
    layout = PrefixLayout(7, 3, 5)
    prompt_lengths, branch_lengths = np.array([4, 7]), np.array([[5, 0, 5], [2, 2, 2]])
    tokens = random_tokens(5, 2, 7 + 3 * 5)
    weights = np.random.default_rng(5).standard_normal((2, 3, 5)).astype(np.float32)
    weights *= np.arange(5) < branch_lengths[..., None]

    def shared(params):
        log_probs = branch_log_probs(config, params, layout, tokens, jnp.array(prompt_lengths))
        return (log_probs * weights).sum()

    @jax.jit
    @jax.value_and_grad
    def alone(params, row, answer, weight):
        log_probs = jax.nn.log_softmax(separate_row_logits(config, params, row))
        predictions = log_probs[len(row) - len(answer) - 1 : -1]
        return (jnp.take_along_axis(predictions, answer[:, None], 1)[:, 0] * weight).sum()

    value, gradient = 0.0, jax.tree.map(jnp.zeros_like, params)
    for row, branch in np.ndindex(2, 3):
        start, length = prompt_lengths[row], branch_lengths[row, branch]
        if length == 0:
            continue
        first = layout.prompt + branch * layout.branch
        answer = tokens[row, first : first + length]
        whole = np.concatenate([tokens[row, :start], answer])
        one, its_gradient = alone(params, whole, answer, weights[row, branch, :length])
        value, gradient = value + one, jax.tree.map(jnp.add, gradient, its_gradient)
    ours = jax.jit(jax.value_and_grad(shared))(params)
    assert_close_trees(ours, (value, gradient), 1e-5)


def test_positions_of_each_branch_go_on_from_the_prompts_true_length():
    positions = PrefixLayout(prompt=4, branches=2, branch=3).positions(jnp.array([2, 4]))
    assert positions.tolist() == [
        [0, 1, 2, 3, 2, 3, 4, 2, 3, 4],
        [0, 1, 2, 3, 4, 5, 6, 4, 5, 6],
    ]
    assert positions.dtype == jnp.int32


@pytest.mark.parametrize("implementation", ["blocks", "dense"])
@settings(max_examples=5)
@given(seed=st.integers(0, 2**31))
def test_tokens_in_the_padding_change_no_bit_of_output_or_gradient(
    tiny_config, tiny_params, implementation, seed
):
    config, layout = tiny_config("qwen3", **MIXED_WINDOWS), PrefixLayout(7, 2, 6)
    draw = np.random.default_rng(seed)
    prompt_lengths, branch_lengths = draw_lengths(draw, layout, batch=3)
    real = real_tokens(layout, prompt_lengths, branch_lengths)
    weights = real[..., None] * draw.standard_normal((*real.shape, 32)).astype(np.float32)
    run = prefix_forward(config, layout, implementation)
    results = []
    for padding in (random_tokens(seed, *real.shape), np.zeros_like(real, np.int32)):
        tokens = np.where(real, random_tokens(seed + 1, *real.shape), padding)
        hidden, gradient = run(tiny_params(config), tokens, prompt_lengths, weights)
        results.append((hidden * real[..., None], gradient))
    for one, other in zip(*map(jax.tree.leaves, results)):
        np.testing.assert_array_equal(one, other)


def test_blocks_make_no_square_of_tokens_by_tokens(tiny_config, tiny_params):
    config, layout = tiny_config("llama"), PrefixLayout(12, 3, 7)
    size = 12 + 3 * 7  # 33: no other size of the model
    inputs = (jnp.zeros((2, size), jnp.int32), jnp.array([4, 11]), jnp.ones((2, size, 32)))

    def squares(implementation):
        run = prefix_forward(config, layout, implementation)
        shapes = array_shapes(jax.make_jaxpr(run)(tiny_params(config), *inputs).jaxpr)
        return [shape for shape in shapes if shape[-2:] == (size, size)]

    assert squares("dense"), "the walk must see the dense mask"
    assert not squares("blocks")


def test_the_traced_and_lowered_program_does_not_grow_with_depth(tiny_config):
    from emergent_alignment.models.model import random_params

    layout = PrefixLayout(6, 3, 4)

    def sizes(num_layers):
        config = tiny_config("qwen3", num_layers=num_layers, layer_windows=(None,) * num_layers)
        run = prefix_forward(config, layout, "blocks")
        params = jax.eval_shape(lambda: random_params(config))
        inputs = (params, jnp.zeros((2, 18), jnp.int32), jnp.ones(2, jnp.int32))
        inputs += (jnp.ones((2, 18, 32)),)
        return len(str(jax.make_jaxpr(run)(*inputs))), len(run.lower(*inputs).as_text())

    for shallow, deep in zip(sizes(4), sizes(30)):
        assert abs(deep - shallow) < 0.02 * shallow, f"4 layers: {shallow}, 30 layers: {deep}"


# ------------------------------------------------------------------------ LoRA


def random_adapters(params, lora: LoraConfig, seed: int = 0) -> dict:
    adapters = init_adapters(params, lora, jax.random.key(seed))
    draw = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.array(draw.standard_normal(leaf.shape) * 0.1, jnp.float32), adapters
    )


LORAS = [
    LoraConfig(rank=4, alpha=8.0),
    LoraConfig(rank=4, alpha=8.0, rank_stabilized=True),
    LoraConfig(rank=2, alpha=1.0, targets=("query", "down")),
]


def test_fresh_adapters_leave_the_model_bitwise_what_it_was(tiny_config, tiny_params):
    config = tiny_config("qwen2")
    params, lora = tiny_params(config), LORAS[0]
    adapters = init_adapters(params, lora, jax.random.key(0))
    row = random_tokens(6, 13)
    np.testing.assert_array_equal(
        row_logits(config)(attach(params, adapters, lora), row), row_logits(config)(params, row)
    )
    assert attach(params, None, None) is params


def test_fresh_adapters_have_zero_b_and_a_bounded_by_their_input_width(tiny_config, tiny_params):
    params = tiny_params(tiny_config("llama"))
    adapters = init_adapters(params, LoraConfig(rank=8, alpha=8.0), jax.random.key(3))
    assert set(adapters) == set(PROJECTIONS)
    for name, pair in adapters.items():
        layers, width_in, width_out = params["layers"][name]["kernel"].shape
        assert pair["a"].shape == (layers, width_in, 8) and pair["b"].shape == (
            layers,
            8,
            width_out,
        )
        assert (pair["b"] == 0).all()
        # U(±1/√in) has a standard deviation of 1/√(3 in).
        assert jnp.abs(pair["a"]).max() <= width_in**-0.5
        np.testing.assert_allclose(pair["a"].std(), (3 * width_in) ** -0.5, rtol=0.1)
    assert not (adapters["query"]["a"] == adapters["key"]["a"]).any(), "two draws, not one"


@pytest.mark.parametrize("lora", LORAS)
def test_attached_adapters_equal_merged_ones(tiny_config, tiny_params, lora):
    config = tiny_config("qwen2")
    params = tiny_params(config)
    adapters, row = random_adapters(params, lora), random_tokens(7, 13)
    attached = row_logits(config)(attach(params, adapters, lora), row)
    merged = row_logits(config)(merge(params, adapters, lora), row)
    base = row_logits(config)(params, row)
    assert jnp.abs(attached - base).max() > 0.1, "the adapters must do something"
    assert_close_trees(attached, merged, 1e-5)


def test_the_scale_is_alpha_over_rank_or_over_its_root():
    assert LoraConfig(rank=16, alpha=32.0).scale == 2.0
    assert LoraConfig(rank=16, alpha=32.0, rank_stabilized=True).scale == 8.0


@pytest.mark.parametrize("lora", LORAS[1:])
def test_gradients_of_adapters_follow_from_those_of_the_merged_kernels(
    tiny_config, tiny_params, lora
):
    """W + s·a·b has dL/da = s·dL/dW·bᵀ and dL/db = s·aᵀ·dL/dW, and nothing else is trained."""
    config = tiny_config("llama")
    params = tiny_params(config)
    adapters, row = random_adapters(params, lora), random_tokens(8, 13)
    weights = np.random.default_rng(8).standard_normal((13, 96)).astype(np.float32)

    def total(params):
        return (row_logits(config)(params, row) * weights).sum()

    gradient = jax.jit(jax.grad(lambda adapters: total(attach(params, adapters, lora))))(adapters)
    kernels = jax.jit(jax.grad(total))(merge(params, adapters, lora))["layers"]
    assert set(gradient) == set(lora.targets)
    for name, pair in gradient.items():
        kernel, own = lora.scale * kernels[name]["kernel"], adapters[name]
        expected = {
            "a": jnp.einsum("lio,lro->lir", kernel, own["b"]),
            "b": jnp.einsum("lir,lio->lro", own["a"], kernel),
        }
        assert_close_trees(pair, expected, 1e-5)


def test_at_the_start_only_b_learns(tiny_config, tiny_params):
    config, lora = tiny_config("mistral"), LORAS[0]
    params, row = tiny_params(config), random_tokens(9, 13)
    adapters = init_adapters(params, lora, jax.random.key(1))

    def total(adapters):
        return jnp.square(row_logits(config)(attach(params, adapters, lora), row)).sum()

    for name, pair in jax.jit(jax.grad(total))(adapters).items():
        assert (pair["a"] == 0).all(), f"{name}: b is zero, so a cannot have a gradient"
        assert (jnp.abs(pair["b"]).max(axis=(1, 2)) > 0).all(), f"{name}: b of some layer is stuck"


@pytest.mark.parametrize("queries", [8, 11, 16])
def test_queries_in_chunks_are_the_queries_at_once(monkeypatch, queries):
    """… forward and gradients, with a rest, a shared source and masks that broadcast."""
    draw = np.random.default_rng(0)

    def random(*shape):
        return jnp.array(draw.standard_normal(shape), jnp.float32)

    query = random(2, 3, queries, 4, 8)
    shared, own = (random(2, 7, 2, 8), random(2, 7, 2, 8)), (random(2, 3, 5, 2, 8),) * 2
    masks = jnp.array(draw.random((2, 1, queries, 7)) < 0.7), jnp.ones((2, 3, 1, 5), bool)
    weights = random(*query.shape)

    def loss(query, shared, own):
        found = attention.attend(query, [(*shared, masks[0]), (*own, masks[1])])
        return (found * weights).sum(), found

    differentiated = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)
    expected = differentiated(query, shared, own)
    monkeypatch.setattr(attention, "QUERY_CHUNK", 4)
    for left, right in zip(
        jax.tree.leaves(differentiated(query, shared, own)), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-5)
