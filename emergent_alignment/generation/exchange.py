"""One HTTP exchange: a connection of its own, and one deadline over all of it.

A connection that is kept may hold bytes that nobody asked for, and the next request would take
them for its answer. A deadline for each read lets who sends a byte at a time go on for ever.
"""

import base64
import importlib.util
import ssl
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpcore2
import httpx2

from emergent_alignment.errors import UserError
from emergent_alignment.generation.name_lookup import addresses

CONNECT_SECONDS = 10.0
_WRITE_BYTES = 16 << 10


@dataclass(frozen=True)
class Server:
    """Where requests go: its address, what is sent with each, and the proxy of the environment.

    Raises UserError for a proxy or certificates that cannot be used.
    """

    url: httpx2.URL
    headers: dict[str, str] = field(repr=False)
    _proxy: httpx2.Proxy | None = field(init=False, repr=False)
    _options: dict = field(init=False, repr=False)

    def __post_init__(self):
        proxy, options = _proxy_for(self.url), {}
        if self.url.scheme == "https":
            options["ssl_context"] = _certificates(self.url)
        if proxy is not None:
            options |= {"proxy_url": str(proxy.url), "proxy_auth": proxy.raw_auth}
            if proxy.url.scheme == "https":
                options["proxy_ssl_context"] = _certificates(self.url)
        object.__setattr__(self, "_proxy", proxy)
        object.__setattr__(self, "_options", options)

    @property
    def proxy(self) -> str:
        """The proxy's address, without what it wants to know; "" where there is none."""
        return "" if self._proxy is None else str(self._proxy.url.copy_with(userinfo=b""))

    @contextmanager
    def exchange(
        self, method: str, path: str, body: bytes | None, seconds: float
    ) -> Iterator[httpx2.Response]:
        """The response, to be read within the context and within `seconds`. Raises
        httpcore2's exceptions, and httpx2.DecodingError for a body that is not encoded as it
        says."""
        url = self.url.copy_with(path=self.url.path.rstrip("/") + path, username="", password="")
        host = url.netloc.decode()
        headers = {"Host": host, "Connection": "close", "Accept-Encoding": "identity"}
        if self.url.userinfo:
            named = f"{self.url.username}:{self.url.password}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(named).decode()}"
        headers |= self.headers | ({} if body is None else {"Content-Type": "application/json"})
        if body is not None:
            headers["Content-Length"] = str(len(body))
        timeouts = dict.fromkeys(("read", "write", "pool"), seconds)
        timeouts["connect"] = min(seconds, CONNECT_SECONDS)
        with self._pool(_Network(time.monotonic() + seconds)) as pool:
            asked = {"headers": headers, "content": body, "extensions": {"timeout": timeouts}}
            with pool.stream(method, str(url), **asked) as answer:
                yield httpx2.Response(
                    answer.status, headers=answer.headers, stream=_Body(answer.iter_stream())
                )

    def _pool(self, network: "_Network") -> httpcore2.ConnectionPool:
        options = self._options | {"network_backend": network}
        if self._proxy is None:
            return httpcore2.ConnectionPool(**options)
        is_http = self._proxy.url.scheme in ("http", "https")
        return (httpcore2.HTTPProxy if is_http else httpcore2.SOCKSProxy)(**options)


class _Body(httpx2.SyncByteStream):
    """A body as httpx2 takes it."""

    def __init__(self, chunks: Iterator[bytes]):
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks


class _Network(httpcore2.NetworkBackend):
    """Connections that end with a deadline."""

    def __init__(self, deadline: float):
        self._deadline, self._plain = deadline, httpcore2.SyncBackend()

    def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):
        """A connection to the first of the host's addresses that takes one."""
        failed: Exception = httpcore2.ConnectError(f"{host} has no address")
        for address in _addresses(host, port, min(timeout, _left(self._deadline))):
            try:
                seconds = min(timeout, _left(self._deadline))
                stream = self._plain.connect_tcp(address, port, seconds, local_address)
                return _Stream(stream, self._deadline)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failed = error
        raise failed


class _Stream(httpcore2.NetworkStream):
    """A connection of which each operation has what is left of the time."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: float):
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes, timeout=None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer, timeout=None) -> None:
        for start in range(0, len(buffer), _WRITE_BYTES):
            self._stream.write(buffer[start : start + _WRITE_BYTES], _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(self, ssl_context, server_hostname=None, timeout=None):
        left = _left(self._deadline)
        return _Stream(self._stream.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info):
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore2.ReadTimeout
    return left


def _addresses(host: str, port: int, seconds: float) -> list[str]:
    try:
        return addresses(host, port, seconds)
    except TimeoutError:
        raise httpcore2.ConnectTimeout(f"{host} is looked up for too long") from None
    except (OSError, UnicodeError) as error:
        raise httpcore2.ConnectError(str(error)) from None


def has_port(url: httpx2.URL) -> bool:
    """Whether the port that an address names, if it does, is one."""
    return url.port is None or url.port < 2**16


def _certificates(url: httpx2.URL) -> ssl.SSLContext:
    try:
        return httpx2.create_ssl_context()
    except OSError as error:  # of a file that is none, too
        raise UserError(
            f"{url}: no certificates can be read ({error.strerror or error}); correct or unset "
            "SSL_CERT_FILE and SSL_CERT_DIR"
        ) from None


def _proxy_for(url: httpx2.URL) -> httpx2.Proxy | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say."""
    known = urllib.request.getproxies()
    address = known.get(url.scheme) or known.get("all")
    if not address or urllib.request.proxy_bypass(url.netloc.decode()):
        return None
    try:
        proxy = httpx2.Proxy(address if "://" in address else f"http://{address}")
        if not proxy.url.host or not has_port(proxy.url):
            raise ValueError
    except (ValueError, httpx2.InvalidURL):
        raise UserError(
            f"{url}: the environment's proxy is none that can be used; set {url.scheme}_proxy or "
            "all_proxy to http://, https:// or socks5://HOST:PORT, or name this host in no_proxy"
        ) from None
    if proxy.url.scheme.startswith("socks") and importlib.util.find_spec("socksio") is None:
        raise UserError(
            f"{url}: the environment's proxy speaks SOCKS, which needs: pip install socksio; or "
            "name this host in no_proxy"
        )
    return proxy
