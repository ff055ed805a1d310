"""Eight CPU devices. They must be asked for before JAX looks for devices, so these tests run in a
process of their own (`make meshes` does that)."""

import os

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)

import jax
import pytest


@pytest.fixture(scope="session", autouse=True)
def eight_devices():
    if len(jax.devices()) != 8:
        pytest.fail("run tests/parallel in a process of its own: pytest tests/parallel")
