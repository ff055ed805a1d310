"""A host that falls silent makes the others leave, and one that is stuck leaves itself, in time and
with the documented code."""

import jax
import pytest

from emergent_alignment.parallel import watch


class Stopped(Exception):
    """The test's end of a thread that never ends."""


class Service:
    """Keeps the hosts' beats, and what time it is: host 2 speaks up to the second `silent_from`,
    the service itself answers up to `gone_from`."""

    def __init__(self, silent_from=float("inf"), gone_from=float("inf")):
        self.silent_from, self.gone_from = silent_from, gone_from
        self.now, self.beats = 0.0, {}

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.now > 300:
            raise Stopped

    def key_value_set(self, key, value, allow_overwrite):
        assert allow_overwrite
        if self.now >= self.gone_from:
            raise jax.errors.JaxRuntimeError("UNAVAILABLE")
        self.beats[key] = value

    def key_value_dir_get(self, prefix):
        for host in (0, 2):
            if host == 0 or self.now < self.silent_from:
                self.beats[f"{prefix}{host}"] = str(self.now)
        return list(self.beats.items())


@pytest.fixture
def watched(monkeypatch):
    """watched(service) → what host 1 has heard of three hosts after 300 seconds."""
    monkeypatch.setattr(jax, "process_index", lambda: 1)

    def run(service: Service) -> watch.Signs:
        monkeypatch.setattr(watch, "_client", lambda: service)
        monkeypatch.setattr(watch, "time", service)
        signs = watch.Signs(3)
        with pytest.raises(Stopped):
            watch._ask(signs, 5.0)
        return signs

    return run


def test_hosts_that_speak_are_left_alone(watched):
    assert watched(Service()).silent(60.0) is None


@pytest.mark.parametrize("since", [250, 100])
def test_a_silent_host_is_named_once_the_time_that_was_set_is_over(watched, since):
    assert watched(Service(silent_from=since)).silent(60.0) == (2 if since == 100 else None)


def test_a_coordinator_that_is_gone_is_host_0_and_nobody_else_is_blamed(watched):
    signs = watched(Service(silent_from=225, gone_from=230))
    assert signs.silent(60.0) == 0
    assert signs.answered < 230


def test_who_judges_leaves_with_the_documented_code_and_one_line(monkeypatch, capsys):
    class Left(Exception):
        pass

    def leave(code):
        raise Left(code)

    service = Service()
    monkeypatch.setattr(watch, "time", service)
    monkeypatch.setattr(watch.os, "_exit", leave)
    with pytest.raises(Left) as caught:  # nobody ever asks: host 0 does not answer
        watch._judge(watch.Signs(2), 60.0)
    assert caught.value.args == (watch.LOST_HOST_EXIT_CODE,) == (76,)
    assert 60 < service.now < 65
    (said,) = capsys.readouterr().err.splitlines()
    assert "host 0 has not answered for 60 s" in said and "start all hosts again" in said


class Clock:
    """A monotonic clock that the test turns."""

    def __init__(self):
        self.now, self.slept = 0.0, 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += self.slept


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    return clock


def after_steps(clock, seconds, limit=900.0) -> watch.Progress:
    progress = watch.Progress(limit)
    progress.step()
    for took in seconds:
        clock.now += took
        progress.step()
    return progress


@pytest.mark.parametrize(
    ("seconds", "limit"),
    [
        ([], 3600),  # compiling
        ([50.0, 1.0, 1.0], 900),
        ([200.0] * 5, 2000),  # ten times the median
        ([1.0, 1.0, 500.0, 1.0], 1500),  # a round of listening now and then
    ],
)
def test_a_step_is_no_step_after_so_many_times_as_long_as_the_others(clock, seconds, limit):
    progress = after_steps(clock, seconds)
    clock.now += limit
    assert progress.stalled() is None
    clock.now += 1
    assert progress.stalled() == limit + 1
    with pytest.raises(Stopped), progress.of_steps():
        raise Stopped
    assert progress.stalled() is None, "nobody waits for a step after the last, however it ended"


def test_who_is_stuck_says_where_and_leaves(clock, monkeypatch, capfd):
    class Left(Exception):
        pass

    def leave(code):
        raise Left(code)

    progress = after_steps(clock, [1.0] * 3)
    monkeypatch.setattr(
        clock, "sleep", lambda seconds: setattr(clock, "now", clock.now + 600.0), False
    )
    monkeypatch.setattr(watch.os, "_exit", leave)
    with pytest.raises(Left) as caught:
        watch._attend(progress, 5.0)
    assert caught.value.args == (76,)
    said = capfd.readouterr().err
    assert "test_who_is_stuck_says_where_and_leaves" in said and "no step in 1200 s" in said
