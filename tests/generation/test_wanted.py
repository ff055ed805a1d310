"""Calls that nobody waits for are not made, whichever thread would make them."""

import threading

import fake_endpoint as fake
import pytest
from fake_endpoint import FakeEndpoint

from emergent_alignment.generation.endpoint import Endpoint
from emergent_alignment.generation.wanted import (
    NobodyWaits,
    at_once,
    check_wanted,
    while_wanted,
)


def test_results_come_in_order_and_threads_know_who_waits():
    wanted = threading.Event()
    assert list(at_once(lambda number: -number, range(5), 2)) == [0, -1, -2, -3, -4]
    with while_wanted(wanted.is_set), pytest.raises(NobodyWaits):
        list(at_once(lambda _: check_wanted(), range(3), 2))
    check_wanted()


def test_its_threads_do_not_hold_the_process_that_ends():
    assert all(at_once(lambda _: threading.current_thread().daemon, range(3), 2))


def test_what_failed_is_not_tried_again_for_nobody():
    waiting = threading.Event()
    waiting.set()

    def script(body):
        waiting.clear()
        return fake.failure(500)

    with FakeEndpoint(script) as backend:
        endpoint = Endpoint(backend.url, "m", retries=3)
        with while_wanted(waiting.is_set), pytest.raises(NobodyWaits):
            endpoint.chat([{"role": "user", "content": "Hi"}], max_tokens=1, temperature=0)
    assert len(backend.bodies) == 1
