"""The parts of a run's wall time are disjoint, whatever stands inside what."""

import time

import jax
import pytest

from emergent_alignment.training.clock import PARTS, Clock


def test_parts_are_disjoint_and_add_up_to_the_wall_time():
    with Clock() as clock:
        time.sleep(0.03)
        with clock.part("data"):
            time.sleep(0.02)
            with clock.part("sampling"):
                time.sleep(0.05)
        shares = clock.shares()
    assert clock.seconds["sampling"] >= 0.05
    assert 0.02 <= clock.seconds["data"] < clock.seconds["sampling"]
    assert list(shares) == [*PARTS, "other"] and sum(shares.values()) == pytest.approx(1)
    assert shares["other"] / shares["sampling"] >= 0.03 / clock.seconds["sampling"]


def test_compilation_is_not_counted_as_a_step():
    began = time.perf_counter()
    with Clock() as clock, clock.part("step"):
        jax.jit(lambda x: jax.lax.sort(x) @ x)(jax.numpy.ones(257))
    whole = time.perf_counter() - began
    assert clock.seconds["compile"] > 0 and clock.compiled > 0
    assert clock.seconds["compile"] + clock.seconds["step"] <= whole
    assert clock.seconds["sampling"] == 0


def test_nothing_is_listened_to_after_the_end():
    with Clock() as clock:
        pass
    jax.jit(lambda x: x * 3 + clock.seconds["step"])(jax.numpy.ones(3))
    assert clock.seconds["compile"] == 0
