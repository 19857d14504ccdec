"""All ways to send on one session, mixed: one order, nothing lost, and what is refused is what a model refuses."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import trio
from hypothesis import given, settings, strategies as st

from tests.support.helpers import RawClient, close, connected
from tests.support.listening import talking
from trioktor import Frame, FrameType, ProtocolError, WebSocketSession, broadcast

Kind = type[Frame.Text | Frame.Binary]

WAYS = [
    *("send", "send", "send_nowait", "send_nowait", "str", "undecoded"),
    *("fragment", "fragment", "channel", "broadcast", "pieces", "ping", "flush", "receive"),
]
SIZES = st.one_of(st.integers(0, 40), st.sampled_from([125, 126, 1023, 1024, 65_535, 65_536, 100_000]))
OPS = st.lists(st.tuples(st.sampled_from(WAYS), st.sampled_from([Frame.Text, Frame.Binary]), SIZES), max_size=15)


class Sender:
    """Sends by one way after the other, and keeps what is to arrive."""

    def __init__(self, session: WebSocketSession) -> None:
        self.session = session
        self.accepted: list[Frame] = []
        self.pings: list[Frame] = []
        self.opened: Kind | None = None

    async def run(self, ops: list[tuple[str, Kind, int]]) -> None:
        """All of them, and the end of a message whose fragments are left."""
        for number, (way, kind, size) in enumerate(ops):
            await getattr(self, way, partial(self.frame, way))(kind, (b"%d " % number).ljust(size, b"x"))
        if self.opened is not None:
            await self.frame("send", self.opened, b"end")

    async def frame(self, way: str, kind: Kind, data: bytes) -> None:
        """A frame by `send` or `send_nowait`, in one of the forms that it may have."""
        frame: Any = Frame.Text(data.decode()) if kind is Frame.Text else Frame.Binary(data)
        if way == "str":
            frame = data.decode() if kind is Frame.Text else data
        elif way in ("undecoded", "fragment"):
            frame = kind(data, fin=way != "fragment")
        try:
            if way == "send_nowait":
                self.session.send_nowait(frame)
            else:
                await self.session.send(frame)
        except ProtocolError:
            assert self.opened not in (None, kind)
        except trio.WouldBlock:
            assert way == "send_nowait"
        else:
            assert self.opened in (None, kind)
            self.accepted.append(kind(data, fin=way != "fragment"))
            self.opened = kind if way == "fragment" else None

    async def channel(self, kind: Kind, data: bytes) -> None:
        """A message into the channel; there it is no part of a message whose fragments are sent."""
        if self.opened is None:
            await self.session.outgoing.send(kind(data))
            self.accepted.append(kind(data))

    async def broadcast(self, kind: Kind, data: bytes) -> None:
        """As one of many."""
        if await broadcast([self.session], kind(data)):
            assert self.opened is None
            self.accepted.append(kind(data))

    async def pieces(self, kind: Kind, data: bytes) -> None:
        """A message in pieces."""
        if self.opened is None:
            async with self.session.message(kind.type) as message:
                for piece in (data[:7], data[7:]):
                    if piece:
                        await message.send(piece)
                        self.accepted.append(kind(piece, fin=False))
            self.accepted.append(kind(b""))

    async def ping(self, _kind: Kind, data: bytes) -> None:
        """Ahead of what waits."""
        self.pings.append(Frame.Ping(data[:100]))
        await self.session.send(self.pings[-1])

    async def flush(self, _kind: Kind, _data: bytes) -> None:
        """What was put aside has to go."""
        await self.session.flush()

    async def receive(self, _kind: Kind, _data: bytes) -> None:
        """The first answer to a message goes straight out, unless more of them wait."""
        if self.session.statistics().incoming:
            await self.session.receive()


@pytest.mark.parametrize("way", [connected, talking])
@settings(max_examples=150, deadline=None)
@given(ops=OPS, messages=st.integers(1, 7), queue=st.integers(1, 4))
def test_what_was_accepted_arrives_in_order(
    way: Any, ops: list[tuple[str, Kind, int]], messages: int, queue: int
) -> None:
    """Each frame as it was sent, fragments as fragments, Pings wherever they got; behind all of it our Close."""
    senders: list[Sender] = []

    async def handler(session: WebSocketSession) -> None:
        senders.append(Sender(session))
        await session.receive()
        await senders[0].run(ops)

    async def main() -> None:
        async with way(handler, outgoing=queue) as (client, _):
            client = RawClient(client.stream, raw=True)
            await client.send(*[Frame.Text(str(number)) for number in range(messages)])
            frames = []
            while (frame := await client.receive()) not in (None, close(1000)):
                frames.append(frame)
            assert frame == close(1000)
            await client.send(close(1000))
        assert [frame for frame in frames if frame.type in (FrameType.TEXT, FrameType.BINARY)] == senders[0].accepted
        assert [frame for frame in frames if frame.type is FrameType.PING] == senders[0].pings

    trio.run(main)
