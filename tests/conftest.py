"""What tests share: tiny random models of every family, a plain float64 decoder to compare with,
and run-time checks of the shapes that the losses' signatures state."""

import dataclasses
import functools
import gc
import os
from collections.abc import Callable
from pathlib import Path

import compilation
import hypothesis
import jaxtyping
import pytest

compilation.compile_cheaply()

# Before anything imports the losses: every call in the suite then checks its shapes and dtypes.
jaxtyping.install_import_hook("emergent_alignment.losses", "beartype.beartype")

import jax  # noqa: E402 (after the hook)
import numpy as np  # noqa: E402

from emergent_alignment.models.config import ModelConfig  # noqa: E402
from emergent_alignment.models.model import random_params  # noqa: E402

hypothesis.settings.register_profile("local", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


LONGEST = (
    "test_settings.py", "test_self_align_page.py", "test_several_hosts.py",
    "test_real_applications.py", "test_pretraining_runs.py", "test_readme.py",
    "test_self_align_hosts.py", "test_peak_memory.py", "test_real_processes.py",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """The files that hold the longest tests come first, so that two workers end together."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONGEST)))


def pytest_collection_finish():
    """What is imported by now stays to the end: the garbage collector need not walk it, nor look
    for circles as often as while a program is small."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope="session")
def tiny_config() -> Callable[..., ModelConfig]:
    """tiny_config(family, **changes): two layers and a vocabulary of 96."""

    def build(family: str = "llama", **changes) -> ModelConfig:
        config = ModelConfig(
            family=family,
            vocab_size=96,
            hidden_size=32,
            intermediate_size=48,
            num_layers=2,
            num_heads=4,
            num_kv_heads=2,
            head_dim=16 if family == "qwen3" else 8,
            tie_embeddings=family != "mistral",
            qkv_bias=family == "qwen2",
            qk_norm=family == "qwen3",
            layer_windows=(5, 5) if family == "mistral" else None,
            max_positions=512,
        )
        return dataclasses.replace(config, **changes).checked("tiny_config")

    return build


@pytest.fixture(scope="session")
def tiny_params() -> Callable[..., dict]:
    """tiny_params(config, seed=0): random parameters far from those of an untrained model, so
    that attention is not uniform, norms are not 1, biases are not 0, and logits are spread."""

    @functools.cache
    def build(config: ModelConfig, seed: int = 0) -> dict:
        draw = np.random.default_rng(seed)

        def spread(path, leaf):
            name = path[-1].key
            noise = draw.standard_normal(leaf.shape).astype(np.float32)
            if name.endswith("norm"):
                return 1 + 0.3 * noise
            if name in ("embedding", "unembedding"):
                return 0.5 * noise
            return 0.3 * noise

        params = jax.tree_util.tree_map_with_path(spread, random_params(config))
        return jax.tree.map(jax.numpy.asarray, params)

    return build


@pytest.fixture(scope="module")
def model_directory(tmp_path_factory) -> Path:
    """The folder of a tiny chat model."""
    from tiny_chat_model import write_tiny_chat_model

    return write_tiny_chat_model(tmp_path_factory.mktemp("model") / "tiny")
