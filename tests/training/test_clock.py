"""The parts of a run's wall time are disjoint, whatever stands inside what."""

import time

import jax
import pytest

from emergent_alignment.training.clock import Clock


def test_a_part_inside_another_is_taken_off_it():
    with Clock() as clock:
        with clock.part("data"):
            time.sleep(0.02)
            with clock.part("sampling"):
                time.sleep(0.05)
    assert clock.seconds["sampling"] >= 0.05
    assert 0.02 <= clock.seconds["data"] < clock.seconds["sampling"]
    assert sum(clock.shares().values()) == pytest.approx(1)


def test_compilation_is_not_counted_as_a_step():
    began = time.perf_counter()
    with Clock() as clock, clock.part("step"):
        jax.jit(lambda x: jax.lax.sort(x) @ x)(jax.numpy.ones(257))
    whole = time.perf_counter() - began
    assert clock.seconds["compile"] > 0
    assert clock.seconds["compile"] + clock.seconds["step"] <= whole
    assert clock.seconds["sampling"] == 0


def test_nothing_is_listened_to_after_the_end():
    with Clock() as clock:
        pass
    jax.jit(lambda x: x * 3 + clock.seconds["step"])(jax.numpy.ones(3))
    assert clock.seconds["compile"] == 0
