"""The wire by itself: what it takes, and what is torn."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import MockClock

from trioktor.engine.transport import CHUNK, HangUp, Transport
from trioktor.engine.wire import Wire


class Taking(Transport):
    """A stream that takes as many bytes at once as it is told, and all when waited for."""

    takes_nowait = True

    def __init__(self, *sizes: int) -> None:
        super().__init__()
        self.sizes = list(sizes)
        self.taken = b""
        self.client: Any = None
        self.is_local: bool = False
        self.is_secure: bool = False

    def send_nowait(self, data: bytes | memoryview) -> int:
        size = min(self.sizes.pop(0), len(data))
        self.taken += data[:size]
        return size

    async def send(self, data: bytes | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        self.taken += data

    async def receive(self) -> bytes:
        raise NotImplementedError

    async def send_eof(self) -> None:
        raise NotImplementedError

    def hang_up(self) -> HangUp:
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


class Parts(Taking):
    """The same, which sees parts."""

    parts: list[bytes]

    def send_parts_nowait(self, parts: list[bytes]) -> int:
        self.parts = parts
        return self.send_nowait(b"".join(parts))


async def test_a_wire_takes_one_piece_after_the_other(autojump_clock: MockClock) -> None:
    """What the system does not take is pending, and while it is nobody else can write."""
    transport = Taking(3, 0, 100)
    wire = Wire(transport)
    assert wire.is_clear is True
    assert wire.write([b"abcde"]) is False
    assert (wire.is_clear, wire.bytes_written, transport.taken) == (False, 3, b"abc")
    with pytest.raises(RuntimeError, match="two writers"):
        wire.write([b"x"])
    await wire.drain()
    assert (wire.is_clear, wire.bytes_written, transport.taken) == (True, 5, b"abcde")
    assert wire.write([b"fgh"]) is False
    assert (wire.is_clear, wire.bytes_written, transport.taken) == (False, 5, b"abcde")
    await wire.drain()
    assert wire.write([b"i"]) is True
    assert (wire.is_clear, wire.bytes_written, transport.taken) == (True, 9, b"abcdefghi")
    await wire.drain()
    assert transport.taken == b"abcdefghi"


@pytest.mark.parametrize("taken", [0, 3, 7, 8])
async def test_the_response_is_pending_from_the_beginning(taken: int) -> None:
    """And no part of the conversation: its bytes do not count."""
    transport = Taking(taken, 100)
    wire = Wire(transport, is_begun=False)
    with pytest.raises(RuntimeError):
        wire.write([b"x"])
    assert wire.answer(b"response") is (taken == 8)
    if taken < 8:
        with pytest.raises(RuntimeError):
            wire.write([b"x"])
    assert wire.bytes_written == 0
    await wire.drain()
    assert wire.is_clear
    assert wire.bytes_written == 0
    assert wire.write([b"xy"]) is True
    assert (transport.taken, wire.bytes_written) == (b"responsexy", 2)


async def test_a_drain_that_is_cut_short_leaves_the_wire_torn(autojump_clock: MockClock) -> None:
    """Nothing can be written behind it."""
    wire = Wire(Taking(1, 100))
    wire.write([b"abc"])
    with trio.CancelScope() as scope:
        scope.cancel()
        await wire.drain()
    assert scope.cancelled_caught
    assert not wire.is_clear
    with pytest.raises(RuntimeError):
        wire.write([b"x"])


async def test_a_long_part_alone_is_handed_over_as_it_is(autojump_clock: MockClock) -> None:
    """To join it to nothing would copy it."""
    for transport in (Parts(CHUNK), Parts(0), Parts(1)):
        wire = Wire(transport)
        long = bytes(CHUNK)
        wire.write([long])
        assert [part is long for part in transport.parts] == [True]
        await wire.drain()
        assert transport.taken == long


@pytest.mark.parametrize("taken", [0, 1, 5, 9, 10, 11, 100, CHUNK + 9, CHUNK + 10])
async def test_a_long_part_is_not_copied_to_be_written_with_others(taken: int) -> None:
    """Those before it are joined; what is not taken is pending in order."""
    transport = Parts(taken)
    wire = Wire(transport)
    assert wire.takes_parts
    long = bytes([7]) * CHUNK
    assert wire.write([b"01", b"", b"234", b"56789", long]) is (taken == CHUNK + 10)
    assert transport.parts == [b"0123456789", long]
    assert transport.parts[1] is long
    await wire.drain()
    assert wire.bytes_written == CHUNK + 10
    assert transport.taken == b"0123456789" + long
