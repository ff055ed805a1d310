"""A host that falls silent makes the others leave, in time and with the documented code."""

import jax
import pytest

from emergent_alignment.parallel import watch


class Service:
    """Keeps the hosts' beats, and what time it is: a host speaks up to the second `silent_from`,
    the service itself answers up to `gone_from`."""

    def __init__(self, others, silent_from=float("inf"), gone_from=float("inf")):
        self.others, self.silent_from, self.gone_from = others, silent_from, gone_from
        self.now, self.beats = 0.0, {}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def key_value_set(self, key, value, allow_overwrite):
        assert allow_overwrite
        if self.now >= self.gone_from:
            raise jax.errors.JaxRuntimeError("UNAVAILABLE")
        self.beats[key] = value

    def key_value_dir_get(self, prefix):
        for host in self.others:
            if host == 0 or self.now < self.silent_from:
                self.beats[f"{prefix}{host}"] = str(self.now)
        return list(self.beats.items())


@pytest.fixture
def left(monkeypatch):
    """left(service, me) → (how the watch ended, when)."""

    class Left(Exception):
        pass

    def leave(code):
        raise Left(code)

    def run(service: Service, me: int):
        monkeypatch.setattr(watch, "_client", lambda: service)
        monkeypatch.setattr(watch, "time", service)
        monkeypatch.setattr(watch.os, "_exit", leave)
        monkeypatch.setattr(jax, "process_index", lambda: me)
        monkeypatch.setattr(jax, "process_count", lambda: 3)
        with pytest.raises(Left) as caught:
            watch._watch(60.0, 5.0)
        return caught.value.args[0], service.now

    return run


def test_a_silent_host_is_named_and_left_after_the_time_that_was_set(left, capsys):
    code, seconds = left(Service(others=(0, 2), silent_from=100), me=1)
    assert code == watch.LOST_HOST_EXIT_CODE == 76
    assert 160 <= seconds <= 170
    (said,) = capsys.readouterr().err.splitlines()
    assert "host 2 has not answered for 60 s" in said and "start all hosts again" in said


def test_a_coordinator_that_is_gone_is_host_0(left, capsys):
    code, seconds = left(Service(others=(0, 2), gone_from=30), me=1)
    assert code == watch.LOST_HOST_EXIT_CODE and 90 <= seconds <= 100
    assert "host 0 has not answered for 60 s" in capsys.readouterr().err
