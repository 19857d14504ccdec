"""Somebody else's server, in memory: the door that lets a client in, and the messages that it says and hears."""

from __future__ import annotations

import trio

from tests.support.calls import UPGRADE, head_of
from trioktor import Call, Frame, Response
from trioktor.config import Supports
from trioktor.engine.messages import Messages
from trioktor.http.requests import RequestHead
from trioktor.protocol.frames import CloseFrame
from trioktor.server.foreign import ForeignPeer

LITTLE = Supports(name="somebody", frames=False, pings=False, extensions=False)


PEER = ForeignPeer(client=("192.0.2.1", 5), is_secure=True)


class Wire:
    """The messages of one client: what it says, and what it heard."""

    close_timeout = 0.0

    def __init__(self, *says: Frame | None) -> None:
        self._send, self._receive = trio.open_memory_channel[Frame | None](100)
        self.heard: list[Frame] = []
        self.is_dropped = False
        self.answers_close = True
        self.say(*says)

    def say(self, *frames: Frame | None) -> None:
        """Say more; None is a client that is gone."""
        for frame in frames:
            self._send.send_nowait(frame)

    async def receive(self) -> Frame | None:
        """The next message."""
        return await self._receive.receive()

    async def send(self, message: Frame) -> None:
        """Hear a message; a Close is answered."""
        await trio.lowlevel.checkpoint()
        self.heard.append(message)
        if isinstance(message, CloseFrame) and self.answers_close:
            self.say(message)

    async def aclose(self) -> None:
        """Be dropped."""
        self.is_dropped = True
        await trio.lowlevel.checkpoint()


class Door:
    """Lets clients in, or not, and notes what it was told."""

    def __init__(self, wire: Wire | None = None) -> None:
        self.wire = wire or Wire()
        self.accepted: list[tuple[Call, float]] = []
        self.refused: list[Response] = []
        self.is_gone = False
        self.delay = 0.0

    async def accept(self, call: Call, close_timeout: float) -> Messages:
        """Let it in."""
        await trio.sleep(self.delay)
        if self.is_gone:
            raise trio.BrokenResourceError
        self.accepted.append((call, close_timeout))
        return self.wire

    async def refuse(self, response: Response) -> None:
        """Answer otherwise."""
        await trio.sleep(self.delay)
        self.refused.append(response)


def asking(target: str = "/", *headers: tuple[bytes, bytes]) -> RequestHead:
    """A request for a WebSocket."""
    return head_of(target, [*UPGRADE, *headers])
