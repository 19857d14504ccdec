"""The client that the Autobahn referee examines: echoes every message of every case.

`AUTOBAHN_URL` and `AUTOBAHN_AGENT` say where and as whom; the referee starts `python -m tests.interop.autobahn_client`.
"""

from __future__ import annotations

import os

import trio

from trioktor import ConnectionBroken, ConnectionClosed, PerMessageDeflate, WebSockets, connect

SETTINGS = WebSockets(max_frame_size=64 << 20, extensions=[PerMessageDeflate()])


async def echo(url: str) -> None:
    """Send back what comes, until the end, whatever end it is."""
    try:
        async with connect(url, websockets=SETTINGS) as session:
            async for frame in session:
                await session.send(frame)
    except (ConnectionBroken, ConnectionClosed):
        pass


async def main() -> None:
    """Run every case."""
    url, agent = os.environ["AUTOBAHN_URL"], os.environ["AUTOBAHN_AGENT"]
    async with connect(f"{url}/getCaseCount") as session:
        count = int(await session.receive_text())
    for case in range(1, count + 1):
        await echo(f"{url}/runCase?case={case}&agent={agent}")
    async with connect(f"{url}/updateReports?agent={agent}"):
        pass


if __name__ == "__main__":
    trio.run(main)
