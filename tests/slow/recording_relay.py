"""A relay on loopback that keeps every byte a server sends to its clients."""

import asyncio
import contextlib

from loopback import LoopbackServer


class RecordingRelay(LoopbackServer):
    """Passes everything on to `target`, a port, and back; `sent` is what came back, a connection
    each."""

    def __init__(self, target: int):
        self.target = target
        self.sent: list[bytearray] = []

    async def serve(self, client_reader, client_writer) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.target)
        self.connections.append(writer)
        sent = bytearray()
        self.sent.append(sent)
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
