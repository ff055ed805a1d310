"""A relay on loopback that keeps every byte a server sends to its clients."""

import asyncio
import contextlib
import threading


class RecordingRelay:
    """Listens on a port of its own and passes everything on to `port`, as a context."""

    def __init__(self, port: int):
        self.target, self.port = port, 0
        self.sent: list[bytearray] = []
        self._writers: list[asyncio.StreamWriter] = []

    def __enter__(self) -> "RecordingRelay":
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(ready)), daemon=True)
        self._thread.start()
        ready.wait(10)
        return self

    def __exit__(self, *error) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _run(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._relay, "127.0.0.1", 0, backlog=256)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for writer in self._writers:
            writer.close()
        await asyncio.sleep(0.1)  # those who wait for their bytes see the end

    async def _relay(self, client_reader, client_writer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.target)
        sent = bytearray()
        self.sent.append(sent)
        self._writers += (writer, client_writer)
        await asyncio.gather(
            _pass_on(client_reader, writer, bytearray()), _pass_on(reader, client_writer, sent)
        )


async def _pass_on(reader, writer, kept: bytearray) -> None:
    with contextlib.suppress(ConnectionError):
        while chunk := await reader.read(1 << 16):
            kept += chunk
            writer.write(chunk)
            await writer.drain()
    with contextlib.suppress(ConnectionError):
        writer.close()
