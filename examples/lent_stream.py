"""A conversation on a connection that an HTTP client has made: httpx2 asks a proxy for a tunnel, and lends it."""

import httpx2
import trio

from trioktor import connect


class Lent(trio.abc.Stream):
    """A `network_stream` of httpx2 as a Trio stream."""

    def __init__(self, network_stream):
        self._stream = network_stream

    async def send_all(self, data):
        await self._stream.write(bytes(data))

    async def wait_send_all_might_not_block(self):
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes=None):
        try:
            return await self._stream.read(max_bytes or 65536)
        except httpx2.NetworkError as error:
            raise trio.BrokenResourceError from error

    async def aclose(self):
        await self._stream.aclose()


async def ask(proxy, host, port, question):
    async with httpx2.AsyncClient() as client:
        tunnel = {"target": f"{host}:{port}".encode()}
        async with client.stream("CONNECT", proxy, extensions=tunnel) as response:
            response.raise_for_status()
            stream = Lent(response.extensions["network_stream"])
            async with connect(f"ws://{host}:{port}/", stream=stream) as session:
                await session.send(question)
                return await session.receive_text()
