"""Attention with the kernels of TPU and GPU gives what the dense reference gives.

Where the platform is missing, splash attention's kernels are interpreted, and jax.nn computes
cuDNN's call itself; tests/slow/test_tpu_compile.py compiles the former for a TPU.
"""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emergent_alignment.models import attention_gpu, attention_tpu, prefix_attention
from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.models.attention_gpu import cudnn_prefix_plan
from emergent_alignment.models.attention_tpu import PrefixMask, splash_prefix_plan
from emergent_alignment.models.prefix_attention import prefix_plan

PLATFORM = jax.default_backend()
NARROW = jnp.bfloat16


def splash(layout, prompt_lengths):
    return splash_prefix_plan(layout, prompt_lengths, interpret=PLATFORM != "tpu")


def cudnn(layout, prompt_lengths):
    return cudnn_prefix_plan(layout, prompt_lengths)


def cudnn_call(layout, prompt_lengths):
    return cudnn_prefix_plan(layout, prompt_lengths, implementation="xla")


def dense(layout, prompt_lengths):
    return prefix_plan(layout, prompt_lengths, "dense")


@functools.cache
def attention_and_gradients(make_plan, layout):
    """jitted ((query, key, value, sinks if any), prompt_lengths, weights, window, cap) → the
    weighted output and the gradients of its sum, by name, in float32."""

    def total(arrays, prompt_lengths, weights, window, cap):
        plan = make_plan(layout, prompt_lengths)
        output, carry = plan(0, *arrays[:3], "carry", window, cap, *arrays[3:])
        assert carry == "carry" and output.dtype == arrays[0].dtype
        output = output.astype(jnp.float32) * weights
        return output.sum(), output

    def run(*inputs):
        (_, output), gradients = jax.value_and_grad(total, has_aux=True)(*inputs)
        named = dict(zip(["query", "key", "value", "sinks"], gradients)) | {"output": output}
        return {name: array.astype(jnp.float32) for name, array in named.items()}

    return jax.jit(run, static_argnums=(3, 4))


def assert_equals_dense(
    make_plan, layout, heads, head_dim, dtype, window=None, cap=None, sinks=False
) -> None:
    """Output and gradients where the loss reads real tokens only, on three random batches."""
    tolerance = 1e-5 if dtype == jnp.float32 else 2e-2
    ours = attention_and_gradients(make_plan, layout)
    reference = attention_and_gradients(dense, layout)
    tokens = layout.prompt + layout.branches * layout.branch
    for seed in range(3):
        draw = np.random.default_rng(seed)
        lengths = draw.integers(1, layout.prompt + 1, 3).astype(np.int32)
        lengths[0] = 1 + seed  # whole blocks of padding
        shapes = [(3, tokens, count, head_dim) for count in heads]
        arrays = [jnp.array(2 * draw.standard_normal(shape), dtype) for shape in shapes]
        if sinks:
            arrays.append(jnp.array(2 * draw.standard_normal(heads[0]), jnp.float32))
        real = np.arange(tokens) < lengths[:, None]
        real |= np.arange(tokens) >= layout.prompt
        weights = real[..., None, None] * draw.standard_normal(shapes[0]).astype(np.float32)
        expected = reference(arrays, lengths, weights, window, cap)
        for name, array in ours(arrays, lengths, weights, window, cap).items():
            scale = max(1.0, float(jnp.abs(expected[name]).max()))
            difference = float(jnp.abs(array - expected[name]).max())
            assert difference <= tolerance * scale, (
                f"{name} differs by {difference}, its scale is {scale}; lengths {lengths}"
            )


GROUPED, PLAIN, SHARED = (4, 2, 2), (2, 2, 2), (4, 1, 1)


@pytest.mark.parametrize(
    ("layout", "heads", "head_dim", "dtype"),
    [
        (PrefixLayout(128, 2, 128), GROUPED, 64, jnp.float32),
        (PrefixLayout(150, 3, 70), SHARED, 16, NARROW),
        (PrefixLayout(90, 0, 0), PLAIN, 8, jnp.float32),
    ],
)
def test_splash_attention_equals_the_dense_reference(layout, heads, head_dim, dtype):
    assert_equals_dense(splash, layout, heads, head_dim, dtype)


@pytest.mark.parametrize(
    ("window", "cap", "sinks"), [(17, None, False), (40, 3.0, False), (17, None, True)]
)
def test_splash_attention_has_windows_caps_and_sinks(window, cap, sinks):
    """Of prompts as long as their room and of shorter ones; 40 reaches from a branch's end into its
    prompt, and 17 from its beginning alone."""
    layout = PrefixLayout(90, 2, 30)
    assert_equals_dense(splash, layout, GROUPED, 16, jnp.float32, window, cap, sinks)


def test_sinks_of_narrow_numbers_have_gradients_in_their_own_dtype():
    assert_equals_dense(splash, PrefixLayout(40, 2, 20), PLAIN, 16, NARROW, sinks=True)


@pytest.mark.parametrize(
    ("make_plan", "dtype"),
    [
        (cudnn_call, jnp.float32),
        (cudnn_call, NARROW),
        pytest.param(
            cudnn, NARROW, marks=pytest.mark.skipif(PLATFORM != "gpu", reason="cuDNN needs a GPU")
        ),
    ],
)
@pytest.mark.parametrize("window", [None, 9])
def test_the_call_of_cudnn_equals_the_dense_reference(make_plan, dtype, window):
    assert_equals_dense(make_plan, PrefixLayout(20, 3, 12), GROUPED, 16, dtype, window)


@pytest.mark.parametrize(
    ("make_plan", "cap", "sinks"),
    [(cudnn, None, False), (cudnn_call, 3.0, False), (cudnn_call, None, True)],
)
def test_what_a_kernel_cannot_do_is_computed_by_blocks(make_plan, cap, sinks):
    """cuDNN has neither float32, nor capped logits, nor sinks."""
    assert_equals_dense(make_plan, PrefixLayout(20, 3, 12), GROUPED, 16, jnp.float32, 9, cap, sinks)


@pytest.mark.parametrize(
    ("takes", "dtype", "tokens", "head_dim"),
    [
        (True, jnp.bfloat16, 56, 64),
        (True, jnp.float16, 56, 128),
        (False, jnp.float32, 56, 64),
        (False, jnp.bfloat16, 57, 64),
        (False, jnp.bfloat16, 56, 20),
        (False, jnp.bfloat16, 56, 256),
    ],
)
def test_cudnn_is_asked_only_for_what_it_has(takes, dtype, tokens, head_dim):
    query = jax.ShapeDtypeStruct((2, tokens, 4, head_dim), dtype)
    assert attention_gpu.cudnn_takes(query) == takes


@given(st.integers(1, 200), st.integers(0, 3), st.integers(1, 90))
def test_the_static_mask_is_causal_within_prompt_and_branch(prompt, branches, branch):
    layout = PrefixLayout(prompt, branches, branch)
    tokens = prompt + branches * branch
    mask = PrefixMask(layout)
    whole = mask[:, :]
    size = len(whole)
    assert mask.shape == (size, size) and size % 128 == 0 and 0 <= size - tokens < 128
    expected = np.zeros((tokens, tokens), bool)
    expected[:, :prompt] = True
    for first in range(prompt, tokens, branch):
        expected[first : first + branch, first : first + branch] = True
    np.testing.assert_array_equal(whole[:tokens, :tokens], np.tril(expected))
    assert not whole[:tokens, tokens:].any(), "the tail is seen"
    assert whole.diagonal().all(), "a row that sees nothing"
    np.testing.assert_array_equal(mask[:128, size - 128 : size], whole[:128, size - 128 :])


@pytest.mark.parametrize(("tokens", "block"), [(1536, 512), (768, 256), (640, 128)])
def test_blocks_are_as_large_as_the_row_allows(tokens, block):
    sizes = attention_tpu.block_sizes(tokens)
    assert sizes.has_backward_blocks and sizes.block_q == sizes.block_kv_dkv == block


@pytest.mark.parametrize(
    ("platform", "kernel"), [("tpu", "splash"), ("gpu", "cudnn"), ("cpu", "blocks")]
)
def test_without_a_name_the_platform_decides(monkeypatch, platform, kernel):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    monkeypatch.setattr(attention_tpu, "splash_prefix_plan", lambda *_: "splash")
    monkeypatch.setattr(attention_gpu, "cudnn_prefix_plan", lambda *_: "cudnn")
    monkeypatch.setattr(prefix_attention, "blocks_prefix_plan", lambda *_: "blocks")
    assert prefix_plan(PrefixLayout(4, 2, 2), jnp.ones(1, jnp.int32)) == kernel


def test_kernels_are_imported_only_where_they_are_asked_for():
    script = """
import sys, jax.numpy as jnp
from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.models.prefix_attention import prefix_plan
prefix_plan(PrefixLayout(4, 2, 2), jnp.ones(1, jnp.int32), "blocks")
print([name for name in sys.modules if "models.attention_" in name or "splash" in name])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
