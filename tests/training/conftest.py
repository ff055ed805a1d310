"""A tiny random model, and adapters beside it that have moved away from the base."""

import jax
import numpy as np
import pytest

from emergent_alignment.models.lora import LoraConfig, init_adapters
from emergent_alignment.training.step_settings import StepSettings


@pytest.fixture(scope="module")
def settings(tiny_config):
    return StepSettings(tiny_config("llama"), LoraConfig(4, 8.0), chunk_size=16)


@pytest.fixture(scope="module")
def frozen(settings, tiny_params):
    return tiny_params(settings.config)


@pytest.fixture(scope="module")
def adapters(settings, frozen):
    """Adapters that have moved away from the base."""
    noise = np.random.default_rng(5)
    fresh = init_adapters(frozen, settings.lora, jax.random.key(1))
    return jax.tree.map(lambda x: x + 0.05 * noise.standard_normal(x.shape, np.float32), fresh)
