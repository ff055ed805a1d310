"""Several hosts that run one program: joining them, and what they agree on.

All hosts call the same compiled functions in the same order with the same shapes. Where a host
decides by its own rows (how wide, whether at all), it asks the others first. With a single
process every function here answers at once, from what it was given.
"""

import contextlib
import contextvars
import json
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from emergent_alignment.errors import Unreachable, UserError

CLUSTERS = ("tpu", "slurm")
# How long a host that ends waits for the others to end, too.
SHUTDOWN_SECONDS = 60


def connect(
    cluster: str = "",
    coordinator: str = "",
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout_seconds: int = 1800,
) -> None:
    """Join the hosts of a run, before anything else is computed.

    `cluster` reads who is who from a TPU's metadata or from Slurm's variables; otherwise the
    address HOST:PORT of process 0, the number of processes and this one's number say it. With
    none of these the process stays alone.

    Raises UserError where the words do not fit together, Unreachable where the hosts do not come
    together within `timeout_seconds`.
    """
    explicit = (coordinator, num_processes, process_id)
    if not cluster and all(value in ("", None) for value in explicit):
        return
    if cluster:
        if any(value not in ("", None) for value in explicit):
            raise UserError("--cluster says who is who itself; leave out --coordinator and numbers")
        _initialize({"cluster_detection_method": {"slurm": "slurm"}.get(cluster)}, timeout_seconds)
        return
    if any(value in ("", None) for value in explicit):
        raise UserError("--coordinator, --num-processes and --process-id go together")
    if not 0 <= process_id < num_processes:
        raise UserError(f"--process-id must be in 0 … {num_processes - 1}, not {process_id}")
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit():
        raise UserError(f"--coordinator must be HOST:PORT, not {coordinator!r}")
    if process_id == 0:
        _check_port(int(port))
    else:
        _wait_for_coordinator(host, int(port), timeout_seconds)
    words = {
        "coordinator_address": coordinator,
        "num_processes": num_processes,
        "process_id": process_id,
        "cluster_detection_method": "deactivate",
    }
    _initialize(words, timeout_seconds)


def _initialize(words: Mapping[str, Any], timeout_seconds: int) -> None:
    if jax.config.jax_platforms == "cpu" or not jax.config.jax_platforms:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(
            **words,
            initialization_timeout=timeout_seconds,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except (RuntimeError, ValueError, OSError, KeyError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise Unreachable(
            f"the hosts did not come together within {timeout_seconds} s ({reason}); was every "
            "host started, with the same --coordinator and --num-processes?"
        ) from error


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise UserError(
                f"--coordinator: port {port} of this host cannot be used ({error.strerror}); "
                "choose another"
            ) from error


def _wait_for_coordinator(host: str, port: int, timeout_seconds: int) -> None:
    deadline, tries = time.monotonic() + timeout_seconds, 0
    while True:
        try:
            tries += 1
            socket.create_connection((host, port), timeout=5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise Unreachable(
                    f"--coordinator: {host}:{port} cannot be reached: {tries} tries in "
                    f"{timeout_seconds} s, the last one: {error}. Is process 0 running, and may "
                    "this host reach that port?"
                ) from error
            time.sleep(min(1.0, timeout_seconds / 10))


def is_first() -> bool:
    """Whether this host writes what only one may write."""
    return jax.process_index() == 0


_has_all_rows = contextvars.ContextVar("has_all_rows", default=False)
num_gathers = 0  # of this process, over several hosts


@contextlib.contextmanager
def rows_of_all_hosts() -> Iterator[None]:
    """Inside, this host holds the rows of all hosts, as every other one does: what it finds of them
    they find too, and nobody asks. The devices still hold each host's own (parallel/rows.py)."""
    token = _has_all_rows.set(True)
    try:
        yield
    finally:
        _has_all_rows.reset(token)


def has_all_rows() -> bool:
    """Whether this host holds the rows of all hosts now."""
    return _has_all_rows.get()


def gather(values: np.ndarray) -> np.ndarray:
    """[hosts, …]: an array of every host; all must have the same shape and dtype (no float64).
    Where this host holds all rows, its own alone."""
    values = np.asarray(values)
    return values[None] if has_all_rows() else gather_anyway(values)


def gather_anyway(values: np.ndarray) -> np.ndarray:
    """`gather` of what only this host knows, whatever rows it holds."""
    global num_gathers
    if jax.process_count() == 1:
        return np.asarray(values)[None]
    num_gathers += 1
    return np.asarray(multihost_utils.process_allgather(values))


def whole(array: Any) -> np.ndarray:
    """All of an array, which may be cut over the hosts' devices; then all hosts ask for it."""
    global num_gathers
    if not isinstance(array, jax.Array) or array.is_fully_addressable:
        return np.asarray(array)
    if array.is_fully_replicated:
        return np.asarray(array.addressable_data(0))
    num_gathers += 1
    return multihost_utils.process_allgather(array, tiled=True)


def largest(value: int) -> int:
    """The largest of the hosts' values."""
    return int(gather(np.int32(value)).max())


def anywhere(condition: bool) -> bool:
    """Whether it is so on any host."""
    return bool(largest(int(condition)))


def gather_texts(text: str) -> list[str]:
    """A text of every host, in their order."""
    content = text.encode()
    width = largest(len(content))
    padded = np.zeros(max(width, 1), np.uint8)
    padded[: len(content)] = np.frombuffer(content, np.uint8)
    lengths = gather(np.int32(len(content)))
    return [bytes(row[:length]).decode() for row, length in zip(gather(padded), lengths)]


def gather_list(items: list) -> list:
    """The hosts' lists of JSON values, one after the other."""
    if jax.process_count() == 1 or has_all_rows():
        return items
    return [item for text in gather_texts(json.dumps(items)) for item in json.loads(text)]


def own_share(items: list) -> list:
    """This host's part of a list, as long on every host: the last item may come more than once."""
    size = -(-len(items) // jax.process_count())
    places = range(jax.process_index() * size, (jax.process_index() + 1) * size)
    return [items[min(place, len(items) - 1)] for place in places]


@contextlib.contextmanager
def together() -> Iterator[None]:
    """What stands inside succeeds on every host, or is a UserError on every host: Unreachable where
    no host has found a mistake. It must not compute on all hosts' devices: the others would wait
    for one that failed."""
    failure = None
    try:
        yield
    except UserError as error:
        failure = error
    outcome = [failure and (isinstance(failure, Unreachable), str(failure))]
    told = list(enumerate(gather_list(outcome)))
    mistakes = [(host, one[1]) for host, one in told if one and not one[0]]
    if mistakes and (failure is None or isinstance(failure, Unreachable)):
        raise UserError("host {}: {}".format(*mistakes[0])) from failure
    if failure:
        raise failure
    for host, one in told:
        if one:
            raise Unreachable(f"host {host}: {one[1]}")


def check_same(fields: Mapping[str, Any]) -> None:
    """Raise UserError on every host where a field's value is not the same on all."""
    if jax.process_count() == 1:
        return
    by_host = [json.loads(text) for text in gather_texts(json.dumps(fields, default=str))]
    first = by_host[0]
    for host, theirs in enumerate(by_host):
        names = sorted(first.keys() | theirs.keys())
        differing = [name for name in names if first.get(name) != theirs.get(name)]
        if differing:
            said = ", ".join(
                f"{name} ({first.get(name)!r}, there {theirs.get(name)!r})"
                for name in differing[:5]
            )
            raise UserError(f"host {host} was started differently from host 0: {said}")
