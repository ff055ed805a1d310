"""A host's addresses, within a time: the system's own look-up knows no limit, so it is done in a
thread that nobody need wait for. Who asks for a host that is being looked up waits for the same
thread: however many ask, there is one a host.
"""

import socket
import threading
from concurrent.futures import Future

_pending: dict[tuple[str, int], Future] = {}
_changing = threading.Lock()


def addresses(host: str, port: int, seconds: float) -> list[str]:
    """The addresses of a host, in the system's order, each once. Raises OSError or UnicodeError
    for a host that has none, and TimeoutError where that takes longer than `seconds`."""
    try:  # an address is its own, and asks nobody
        entries = _looked_up(host, port, socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        entries = _asked(host, port).result(seconds)
    return list(dict.fromkeys(address[4][0] for address in entries))


def _looked_up(host: str, port: int, flags: int = 0) -> list:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)


def _asked(host: str, port: int) -> Future:
    with _changing:
        pending = _pending.get((host, port))
        if pending is None:
            pending = _pending[host, port] = Future()
            threading.Thread(target=_look_up, args=(host, port, pending), daemon=True).start()
    return pending


def _look_up(host: str, port: int, pending: Future) -> None:
    try:
        entries = _looked_up(host, port)
    except Exception as error:  # whatever it is, those who wait raise it
        result, told = pending.set_exception, error
    else:
        result, told = pending.set_result, entries
    with _changing:
        del _pending[host, port]
    result(told)
