"""A step's speed: its ideal FLOPs over its seconds, and over the peak of chips that are known."""

import dataclasses
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from random_batches import random_batch

from emergent_alignment.models import ideal
from emergent_alignment.models.attention import PrefixLayout
from emergent_alignment.parallel.chips import TPUS, peak_flops
from emergent_alignment.training.step_settings import StepSettings
from emergent_alignment.training.throughput import Throughput


def chips(kind: str, count: int) -> list:
    return [SimpleNamespace(device_kind=kind)] * count


def test_flops_a_second_are_the_ideal_ones_of_all_rows(tiny_config):
    settings = StepSettings(tiny_config("llama"), None)
    batch = random_batch(rows=4)
    layout = PrefixLayout(batch.prompt.shape[1], *batch.branches.shape[1:])
    wanted = ideal.step_flops(settings.config, layout, 8, None, with_reference=False)
    found = Throughput(settings, jax.devices()).scalars(batch, 8, 2.0)
    assert found == {"model_flops_per_second": wanted / 2}, "a CPU has no data sheet here"
    found = Throughput(settings, chips("TPU v6 lite", 4)).scalars(batch, 8, 2.0)
    assert found["mfu"] == pytest.approx(wanted / 2 / (4 * 918e12))


def test_a_frozen_copy_s_own_pass_counts_where_the_step_does_it(tiny_config):
    speed = Throughput(StepSettings(tiny_config("llama"), None), jax.devices())
    batch = random_batch(rows=4)
    given = dataclasses.replace(batch, reference=np.zeros((4, 2), np.float32))
    ours, theirs = (
        speed.scalars(part, 4, 1.0)["model_flops_per_second"] for part in (given, batch)
    )
    assert theirs == pytest.approx(ours * 4 / 3)


def test_the_peak_is_that_of_chips_that_are_known():
    assert peak_flops(chips("TPU v5 lite", 16)) == 16 * TPUS["v5e"].peak_flops
    assert peak_flops(chips("TPU v5", 2)) == 2 * TPUS["v5p"].peak_flops
    assert peak_flops(chips("NVIDIA H100", 1)) is None
    assert peak_flops(chips("TPU v5 lite", 1) + chips("cpu", 1)) is None
