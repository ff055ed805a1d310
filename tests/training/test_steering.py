"""A policy that is steered in training is a model whose layer puts out something more, and nothing
else is steered."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_decoder
from random_batches import assert_trees_close, random_batch

from emergent_alignment.models.attention import causal_plan
from emergent_alignment.models.forward import residual_after
from emergent_alignment.models.names import parameter_shapes
from emergent_alignment.training.branches import pair_log_probs
from emergent_alignment.training.state import steered
from emergent_alignment.training.step import loss_and_gradients as traced_loss_and_gradients

loss_and_gradients = jax.jit(traced_loss_and_gradients, static_argnums=0)
LAYER = 1


@pytest.fixture(scope="module")
def shift(settings):
    config = settings.config
    values = np.zeros((config.num_layers, config.hidden_size), np.float32)
    values[LAYER] = np.random.default_rng(2).standard_normal(config.hidden_size)
    return jnp.asarray(values)


def with_biases(settings, params, shift):
    """The same model with biases in its feed-forward layers: zero, but `shift` where they put
    out."""
    config = dataclasses.replace(settings.config, mlp_bias=True)
    shapes = parameter_shapes(config)
    layers = dict(params["layers"])
    for name in ("gate", "up", "down"):
        zero = jnp.zeros(shapes[("layers", name, "bias")])
        layers[name] = layers[name] | {"bias": shift if name == "down" else zero}
    return dataclasses.replace(settings, config=config), params | {"layers": layers}


@pytest.mark.parametrize("full", [False, True])
def test_loss_and_gradients_are_those_of_a_model_whose_layer_puts_out_the_shift(
    settings, frozen, adapters, shift, full
):
    batch = random_batch()
    batch = dataclasses.replace(batch, reference=pair_log_probs(settings, frozen, batch))
    if full:
        settings = dataclasses.replace(settings, lora=None)
    trainable = jax.tree.map(lambda x: x * 1.01, frozen) if full else adapters
    gradients, metrics = loss_and_gradients(settings, trainable, steered(frozen, shift), batch)
    plain, _ = loss_and_gradients(settings, trainable, frozen, batch)
    biased, base = with_biases(settings, frozen, shift)
    if full:
        trainable = with_biases(settings, trainable, shift)[1]
    expected, expected_metrics = loss_and_gradients(biased, trainable, base, batch)
    if full:
        for name in ("gate", "up", "down"):
            del expected["layers"][name]["bias"]
    assert_trees_close(gradients, expected, 1e-5)
    assert_trees_close(metrics, expected_metrics, 1e-4)
    moved = [
        np.abs(a - b).max() for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(plain))
    ]
    assert max(moved) > 1e-3, "the shift does something"


def test_the_frozen_copy_is_not_steered(settings, frozen, shift):
    batch = random_batch()
    np.testing.assert_array_equal(
        pair_log_probs(settings, steered(frozen, shift), batch),
        pair_log_probs(settings, frozen, batch),
    )
    assert steered(frozen, None) is frozen, "without steering nothing else is compiled"


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen3"])
@pytest.mark.parametrize("layer", [1, 2])
def test_the_stream_after_a_layer_is_the_long_way_s(tiny_config, tiny_params, family, layer):
    config = tiny_config(family)
    params = tiny_params(config)
    tokens = np.random.default_rng(3).integers(0, config.vocab_size, 9)
    positions = jnp.arange(9)[None]
    found = residual_after(
        layer, config, params, jnp.asarray(tokens)[None], positions, causal_plan(positions)
    )
    expected = reference_decoder.residual(config, params, tokens.tolist(), layer)
    np.testing.assert_allclose(found[0], expected, rtol=2e-4, atol=2e-5)
