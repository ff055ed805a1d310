"""Watching the other hosts: one that dies must not leave the rest waiting for ever."""

import os
import sys
import threading
import time

import jax

# EX_PROTOCOL: another host is gone; start all of them again, and the run goes on.
LOST_HOST_EXIT_CODE = 76
_PREFIX = "emergent-alignment/alive/"


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
