"""Watching the other hosts, and this one's own progress: neither a host that dies nor one that is
stuck must leave the rest waiting for ever."""

import faulthandler
import os
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

# EX_PROTOCOL: another host is gone; start all of them again, and the run goes on.
LOST_HOST_EXIT_CODE = 76
_PREFIX = "emergent-alignment/alive/"
# A step that takes longer than this, so many times the median, and so many times the longest of all
# is none; before so many steps nobody knows how long one takes.
STALL_SECONDS, _TIMES_THE_MEDIAN, _TIMES_THE_LONGEST = 15 * 60.0, 10, 3
_FIRST_STEPS, _FIRST_SECONDS = 3, 4


def watch_other_hosts(timeout_seconds: float = 60.0, every_seconds: float = 5.0) -> None:
    """From now on, in the background: tell the others that this host is alive, and leave with
    LOST_HOST_EXIT_CODE and one line once one of them has been silent for `timeout_seconds`.

    A collective that waits for a dead host cannot be interrupted from Python; hence the exit.
    """
    if jax.process_count() > 1:
        signs = Signs(jax.process_count())
        # A question to host 0 may itself wait for ever: who judges does not ask.
        for work, argument in ((_ask, every_seconds), (_judge, timeout_seconds)):
            arguments = (signs, argument)
            threading.Thread(target=work, args=arguments, daemon=True, name=work.__name__).start()


class Progress:
    """How long steps take, and since when the one at hand has been going on."""

    def __init__(self, seconds: float = STALL_SECONDS):
        self.seconds = seconds
        self._took: list[float] = []
        self._since: float | None = None

    def step(self) -> None:
        """A step has ended, or the first one begins."""
        now = time.monotonic()
        if self._since is not None:
            self._took.append(now - self._since)
        self._since = now

    @contextmanager
    def of_steps(self) -> Iterator["Progress"]:
        """Inside there are steps, and however that ends, none afterwards."""
        try:
            yield self
        finally:
            self._since = None

    def stalled(self) -> float | None:
        """Seconds since the last step, where they are too many; the first steps compile, and have
        four times as long."""
        since, took = self._since, list(self._took)
        if since is None:
            return None
        limit = self.seconds
        if len(took) < _FIRST_STEPS:
            limit *= _FIRST_SECONDS
        if took:
            usual = _TIMES_THE_MEDIAN * statistics.median(took)
            limit = max(limit, usual, _TIMES_THE_LONGEST * max(took))
        waited = time.monotonic() - since
        return waited if waited > limit else None


_progress = Progress()


def step_progress() -> Progress:
    """That of this process, which tells it of its steps; it is looked at once somebody watches."""
    return _progress


def watch_progress(every_seconds: float = 5.0) -> None:
    """From now on, in the background: leave with LOST_HOST_EXIT_CODE once a step takes too long to
    be one, and say where each thread was."""
    arguments = (step_progress(), every_seconds)
    threading.Thread(target=_attend, args=arguments, daemon=True, name="_attend").start()


def _attend(watched: Progress, every_seconds: float) -> None:
    while True:
        time.sleep(every_seconds)
        waited = watched.stalled()
        if waited is not None:
            faulthandler.dump_traceback(2, all_threads=True)  # the process's stderr
            leave(f"no step in {waited:.0f} s; where each thread is stands above")


class Signs:
    """When host 0, which keeps the beats, last `answered`, and when each host's beat was last
    `heard` to have changed."""

    def __init__(self, num_hosts: int):
        self.answered = time.monotonic()
        self.heard = dict.fromkeys(range(num_hosts), self.answered)

    def silent(self, seconds: float) -> int | None:
        """A host that has been silent for longer: of the others nothing is known since host 0
        last answered, so that nobody else is blamed for its silence."""
        if time.monotonic() - self.answered > seconds:
            return 0
        return next((h for h, at in self.heard.items() if self.answered - at > seconds), None)


def lost_another_host(error: Exception) -> bool:
    """Whether a computation failed because a host that took part in it is gone. It is a ValueError
    where JAX starts the computation at once, and not from a queue."""
    said = ("connection reset", "connection closed", "read error", "timed out", "unavailable")
    return isinstance(error, jax.errors.JaxRuntimeError | ValueError) and any(
        words in str(error).lower() for words in said
    )


def leave(reason: str, *, code: int = LOST_HOST_EXIT_CODE) -> None:
    """End this process at once, without waiting for hosts that are gone or will never come."""
    print(
        f"emergent-alignment: {reason}; start all hosts again to go on from the newest checkpoint",
        file=sys.stderr,
        flush=True,
    )
    sys.stdout.flush()
    os._exit(code)


def _ask(signs: Signs, every_seconds: float) -> None:
    client, me, beat = _client(), jax.process_index(), 0
    known: dict[str, str] = {}
    while True:
        beat += 1
        try:
            client.key_value_set(f"{_PREFIX}{me}", str(beat), allow_overwrite=True)
            beats = dict(client.key_value_dir_get(_PREFIX))
        except jax.errors.JaxRuntimeError:  # host 0 may be the one that died
            beats = {}
        if beats:
            signs.answered = time.monotonic()
            for host in signs.heard:
                key = f"{_PREFIX}{host}"
                if beats.get(key) != known.get(key):
                    signs.heard[host] = signs.answered
            known = beats
        time.sleep(every_seconds)


def _judge(signs: Signs, timeout_seconds: float) -> None:
    while True:
        lost = signs.silent(timeout_seconds)
        if lost is not None:
            leave(f"host {lost} has not answered for {timeout_seconds:.0f} s")
        time.sleep(1.0)


def _client():
    # The coordination service has no public name in JAX; Orbax and others reach it like this.
    from jax._src import distributed

    return distributed.global_state.client
