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
        arguments = (timeout_seconds, every_seconds)
        threading.Thread(target=_watch, args=arguments, daemon=True, name="hosts").start()


def lost_another_host(error: Exception) -> bool:
    """Whether a computation failed because a host that took part in it is gone."""
    said = ("connection reset", "connection closed", "read error", "timed out", "unavailable")
    return isinstance(error, jax.errors.JaxRuntimeError) and any(
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


def _watch(timeout_seconds: float, every_seconds: float) -> None:
    client = _client()
    me, beat = jax.process_index(), 0
    heard = {host: (None, time.monotonic()) for host in range(jax.process_count()) if host != me}
    reached = time.monotonic()
    while True:
        beat += 1
        try:
            client.key_value_set(f"{_PREFIX}{me}", str(beat), allow_overwrite=True)
            beats = dict(client.key_value_dir_get(_PREFIX))
            reached = time.monotonic()
        except jax.errors.JaxRuntimeError:  # host 0 keeps the beats, and may be the one that died
            beats = {}
        now = time.monotonic()
        if now - reached > timeout_seconds:
            leave(f"host 0 has not answered for {timeout_seconds:.0f} s")
        for host, (last, since) in heard.items():
            found = beats.get(f"{_PREFIX}{host}", last)
            heard[host] = (found, now if found != last else since)
            if beats and now - heard[host][1] > timeout_seconds:
                leave(f"host {host} has not answered for {timeout_seconds:.0f} s")
        time.sleep(every_seconds)


def _client():
    # The coordination service has no public name in JAX; Orbax and others reach it like this.
    from jax._src import distributed

    return distributed.global_state.client
