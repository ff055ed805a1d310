"""Why nothing came from the hub: the true cause and the remedy, in one line, of whatever the
libraries on the way (huggingface_hub, datasets, their HTTP clients) raise."""

import errno
import os
import socket
from collections.abc import Iterator

from emergent_alignment.errors import Unreachable, UserError

_UNWRITABLE = (
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT),
    *(errno.ENOTDIR, errno.EEXIST, errno.EISDIR),  # a file stands where a folder is to be
)
# What the HTTP clients of the hub's libraries raise where nobody answers, or not to the end.
_UNANSWERED = (
    *("ConnectError", "ConnectTimeout", "ReadError", "ReadTimeout", "RemoteProtocolError"),
    *("ConnectionError", "Timeout", "ChunkedEncodingError", "ClientConnectorError"),
    "LocalEntryNotFoundError",  # nobody answered, and it is not in the cache
)
_BY_STATUS = {
    401: "the hub wants to know who asks (401): run `hf auth login`",
    403: "this account may not read it (403): ask for access on its page, then run `hf auth login`",
    404: "there is no such file on the hub (404): correct the name",
    429: "the hub has had too many requests (429): wait a while, or run `hf auth login`",
}


def hub_failure(before: str, error: BaseException, otherwise: str) -> UserError:
    """`before` with the cause of an error and what to do (`otherwise` where nothing is known):
    Unreachable where trying again may help, else a UserError."""
    kind = Unreachable if _is_transient(list(_causes(error))) else UserError
    return kind(f"{before}{trouble_with_hub(error, otherwise)}")


def _is_transient(chain: list[BaseException]) -> bool:
    """Whether the hub answered that it cannot now, or nobody answered."""
    if _of_proxy(chain) or _of_disk(chain) or _of_offline(chain):
        return False
    statuses = [status for error in chain if isinstance(status := _status(error), int)]
    if statuses:
        return any(status == 429 or status >= 500 for status in statuses)
    return any(
        isinstance(error, ConnectionError | TimeoutError | socket.gaierror)
        or type(error).__name__ in _UNANSWERED
        for error in chain
    )


def trouble_with_hub(error: BaseException, otherwise: str) -> str:
    """The cause of an error and what to do; `otherwise` is what to do where nothing is known."""
    chain = list(_causes(error))
    known = (_of_proxy(chain), _of_disk(chain), _of_status(chain), _of_offline(chain))
    return next((text for text in known if text), None) or _said(error, otherwise)


def trouble_with_file(error: BaseException, otherwise: str) -> str:
    """The same of a file at hand, which the hub's libraries read without the hub."""
    return _of_disk(list(_causes(error))) or _said(error, otherwise)


def _said(error: BaseException, otherwise: str) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return f"{said[:160]}: {otherwise}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _of_proxy(chain: list[BaseException]) -> str | None:
    for error in chain:
        text = str(error).lower()
        if "socks" in text and (isinstance(error, ImportError) or "missing dependencies" in text):
            return (
                "the proxy that ALL_PROXY or HTTPS_PROXY names is a SOCKS one, which needs more:"
                " run `pip install socksio pysocks`, or unset it"
            )
        if "proxy" in text and isinstance(error, ValueError):
            return "the proxy that ALL_PROXY or HTTPS_PROXY names cannot be one: correct it"
        if type(error).__name__ == "ProxyError":
            return "the proxy that ALL_PROXY or HTTPS_PROXY names does not answer: correct it"
    return None


def _of_disk(chain: list[BaseException]) -> str | None:
    for error in chain:
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            place = f"{error.filename}: " if error.filename else ""
            return (
                f"{place}{os.strerror(error.errno)}: set HF_HOME to a folder that can be written,"
                " with room in it"
            )
    return None


def _of_status(chain: list[BaseException]) -> str | None:
    for error in chain:
        status = _status(error)
        if status in _BY_STATUS:
            return _BY_STATUS[status]
        if isinstance(status, int) and status >= 500:
            return f"the hub fails ({status}): try again later"
    return None


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _of_offline(chain: list[BaseException]) -> str | None:
    offline = any(type(error).__name__ == "OfflineModeIsEnabled" for error in chain)
    for variable in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
        offline = offline or os.environ.get(variable, "").lower() in ("1", "true", "yes", "on")
    if not offline:
        return None
    return (
        "HF_HUB_OFFLINE is set, and the hub's cache on this machine lacks it: unset it, or fetch it"
        " once where there is a network"
    )
