"""A server on loopback in a thread of the test: what the fake endpoint and the recording relay
share."""

import asyncio
import threading


class LoopbackServer:
    """Runs `serve(reader, writer)` for each connection to a free port, as a context; at its end
    all connections that were noted are closed."""

    port = 0

    def __enter__(self):
        self.connections: list[asyncio.StreamWriter] = []
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run(ready)), daemon=True)
        self._thread.start()
        assert ready.wait(10)
        return self

    def __exit__(self, *error) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def serve(self, reader, writer) -> None:
        raise NotImplementedError

    async def _run(self, ready: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._noted, "127.0.0.1", 0, backlog=256)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for connection in self.connections:
            connection.close()
        await asyncio.sleep(0.05)  # those who wait for their bytes see the end

    async def _noted(self, reader, writer) -> None:
        self.connections.append(writer)
        await self.serve(reader, writer)
