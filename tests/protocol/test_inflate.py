"""Inflating within bounds: what comes out, what is refused, what zlib is given, and where others get their turn."""

from __future__ import annotations

import os
import random
import tracemalloc
import zlib
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings, strategies as st

from tests.support.extensions import deflated, packed
from trioktor.protocol import inflate as inflate_module
from trioktor.protocol.close import CloseCode
from trioktor.protocol.errors import FrameTooBig, ProtocolError
from trioktor.protocol.extensions import run
from trioktor.protocol.frames import Frame
from trioktor.protocol.inflate import SLICE, Inflater

LIMIT = 1 << 20
LAST_EMPTY = b"\x03\x00"
"""A block that ends the data, and holds nothing."""


def fresh(*, forgets: bool = False) -> Inflater:
    """One that has read nothing."""
    return Inflater(15, forgets=forgets)


def read(inflater: Inflater, data: bytes, limit: int | None = LIMIT) -> bytes:
    """What a message inflates to."""
    begun = inflater.begin(packed(data), limit)
    return (begun if isinstance(begun, Frame) else run(begun)).data


def outcome(inflater: Inflater, data: bytes, limit: int | None, *, at_once: bool) -> bytes | tuple[type, int]:
    """What a message inflates to, or the error and its code."""
    message = packed(data)
    try:
        begun = inflater.begin(message, limit) if at_once else inflater.inflate_in_steps(message, limit)
        return (begun if isinstance(begun, Frame) else run(begun)).data
    except ProtocolError as error:
        return type(error), error.close_code


# what comes out


VECTORS = {
    "one block": (["f248cdc9c90700"], ["Hello"]),
    "sharing the window": (["f248cdc9c90700", "f200110000"], ["Hello", "Hello"]),
    "a block without compression": (["000500faff48656c6c6f00"], ["Hello"]),
    "BFINAL": (["f348cdc9c9070000"], ["Hello"]),
    "BFINAL, and a message behind it": (["f348cdc9c9070000", "f248cdc9c90700"], ["Hello", "Hello"]),
    "two blocks": (["f248050000 00ffffcac9c90700"], ["Hello"]),
    "empty": (["00", "f248cdc9c90700", "00"], ["", "Hello", ""]),
    "two final blocks in a message": (["f348cdc9c90700f348cdc9c9070000"], ["HelloHello"]),
}


@pytest.mark.parametrize("name", VECTORS)
def test_the_vectors_of_the_rfc(name: str) -> None:
    """RFC 7692 §7.2.3, R17, W-16: messages behind a final block are whole, empty ones are empty."""
    payloads, texts = VECTORS[name]
    inflater = fresh()
    assert [text.encode() for text in texts] == [read(inflater, bytes.fromhex(payload), 100) for payload in payloads]


def test_a_message_keeps_its_kind_and_its_other_bits() -> None:
    """Only RSV1 is taken off: of a short one, of a long one, and of one that is empty."""
    for data in (b"x" * 100, b"x" * (3 * SLICE), b""):
        message = Frame.Text(deflated(data) if data else b"", rsv1=True, rsv3=True)
        begun = fresh().begin(message, None)
        assert (begun if isinstance(begun, Frame) else run(begun)) == Frame.Text(data, rsv3=True)


@pytest.mark.parametrize("size", [0, 1, 100, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE])
def test_the_limit_is_exact(size: int) -> None:
    """T632: so many bytes pass, one more is 1009 before it is made."""
    data = deflated(bytes(size))
    assert size == len(read(fresh(), data, size))
    if size:
        with pytest.raises(FrameTooBig) as raised:
            read(fresh(), data, size - 1)
        assert (raised.value.close_code, raised.value.size, raised.value.limit) == (1009, size, size - 1)


def test_a_bomb_is_met_slice_by_slice() -> None:
    """Half a megabyte that says 512 MiB: one byte more than the limit is made, and no more."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(1 << 20)
    bomb = b"".join(compressor.compress(zeros) for _ in range(512)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 600_000
    tracemalloc.start()
    try:
        with pytest.raises(FrameTooBig) as raised:
            read(fresh(), bomb[:-4], 1 << 20)
        assert raised.value.size == (1 << 20) + 1
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data", ["ffffffff", "f248cdc9c907ff", "07", "0500000000", "f348cdc9c907000007", "78bb0f5c02ed"]
)
def test_what_is_no_deflate_data_is_1007(data: str) -> None:
    """T631, R11: an error, and no spinning."""
    with pytest.raises(ProtocolError) as raised:
        read(fresh(), bytes.fromhex(data), None)
        read(fresh(), bytes.fromhex(data) * 100, None)
    assert raised.value.close_code == 1007


@given(st.binary(max_size=300), st.integers(0, 100))
@settings(max_examples=300)
def test_any_bytes_are_a_message_or_an_error(data: bytes, limit: int) -> None:
    """Nothing but ProtocolError, and never more than the limit."""
    try:
        size = len(read(fresh(), data, limit))
    except ProtocolError as error:
        size = {1007: 0, 1009: 0}[error.close_code]
    assert size <= limit


@given(
    messages=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(lambda byte, size: bytes([byte]) * size, st.integers(0, 255), st.integers(0, 300_000)),
            st.builds(lambda data: deflated(data) * 3, st.binary(max_size=60)),
        ),
        min_size=1,
        max_size=5,
    ),
    is_good=st.booleans(),
    cut=st.integers(0, 20),
    limit=st.sampled_from([None, 0, 10, 1000, 1 << 15, (1 << 15) - 1, 1 << 20]),
    forgets=st.booleans(),
)
def test_the_short_road_inflates_to_the_same(
    messages: list[bytes], is_good: bool, cut: int, limit: int | None, forgets: bool
) -> None:
    """Good and bad, with last blocks in the middle, up to the limit and beyond; and so does what comes behind it."""
    roads = [fresh(forgets=forgets) for _ in range(2)]
    ours = zlib.compressobj(6, zlib.DEFLATED, -15)
    for data in messages:
        wire = data
        if is_good:
            if forgets:
                ours = zlib.compressobj(6, zlib.DEFLATED, -15)
            wire = (ours.compress(data) + ours.flush(zlib.Z_SYNC_FLUSH))[:-4]
        wire = wire[: len(wire) - cut] if cut > 15 else wire
        found = [outcome(roads[at_once], wire, limit, at_once=at_once) for at_once in (False, True)]
        assert found[0] == found[1]
        if not isinstance(found[0], bytes):
            return


def test_the_short_road_is_taken_and_gives_way() -> None:
    """Short messages need no steps; long ones, and those that grow beyond a slice, do."""
    inflater = fresh()
    short, long = b"hello" * 100, bytes(100_000)
    assert Frame.Binary(short) == inflater.begin(packed(deflated(short)), None)
    begun = inflater.begin(packed(deflated(long)), None)
    assert not isinstance(begun, Frame)
    assert long == run(begun).data
    noise = os.urandom(5000)
    assert not isinstance(inflater.begin(packed(deflated(noise)), None), Frame)


@pytest.mark.parametrize("size", [10, 20_000])
def test_a_window_is_kept_or_forgotten(size: int) -> None:
    """A message may point back into those before it, unless the peer said that its messages do not."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    data = os.urandom(size)
    first, second = ((compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2))
    kept, forgotten = fresh(), fresh(forgets=True)
    assert read(kept, first) == read(kept, second) == read(forgotten, first) == data
    with pytest.raises(ProtocolError) as error:
        read(forgotten, second)
    assert error.value.close_code == CloseCode.NOT_CONSISTENT


# what zlib is given


class Watched:
    """An inflater that keeps what it is given, and what it leaves to be copied."""

    calls: ClassVar[list[tuple[int, int]]] = []

    def __init__(self, bits: int) -> None:
        self._inner = zlib.decompressobj(bits)

    def decompress(self, data: memoryview, room: int) -> bytes:
        """As zlib, noting the bytes that came in and went out."""
        out = self._inner.decompress(data, room)
        self.calls.append((len(data), len(out)))
        return out

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Input and output of every call of zlib."""
    monkeypatch.setattr(Watched, "calls", [])
    monkeypatch.setattr(inflate_module, "zlib", SimpleNamespace(**{**vars(zlib), "decompressobj": Watched}))
    return Watched.calls


def inflate(data: bytes, limit: int | None = LIMIT) -> tuple[bytes, list[int]]:
    """What a message inflates to, and the calls of zlib in each of its steps."""
    steps = fresh().inflate_in_steps(packed(data), limit)
    in_each: list[int] = []
    while True:
        before = len(Watched.calls)
        try:
            next(steps)
        except StopIteration as stop:
            in_each.append(len(Watched.calls) - before)
            return stop.value.data, in_each
        in_each.append(len(Watched.calls) - before)


@pytest.mark.parametrize("exponent", range(10, 18))
def test_blocks_that_end_the_data_cost_what_they_are_long(
    calls: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch, exponent: int
) -> None:
    """Twice as many cost twice as much: what is behind one of them is neither copied nor scanned again."""
    monkeypatch.setattr(inflate_module, "_MAX_BLOCKS", 1 << 60)
    data = LAST_EMPTY * (1 << exponent) + b"\x00"
    assert b"" == inflate(data)[0]
    assert sum(given for given, _ in calls) <= 200 * len(data)
    assert max(in_step for in_step in inflate(data)[1]) <= 130


@pytest.mark.parametrize(
    "data",
    [
        deflated(bytes(1 << 26), level=9)[: 1 << 20],
        deflated(random.Random(1).randbytes(1 << 20)),
        LAST_EMPTY * 60 + b"\x00",
    ],
    ids=["zeros", "noise", "empty"],
)
def test_no_call_takes_or_gives_more_than_a_slice(calls: list[tuple[int, int]], data: bytes) -> None:
    """Input and output are bounded, since either may be long where the other is short; and each step is."""
    result, in_each = inflate(data, None)
    assert max(size for call in calls for size in call) <= inflate_module.SLICE
    assert sum(given for given, _ in calls) <= 2 * len(data) + 2 * len(result) + (1 << 16)
    done = 0
    for count in in_each:
        assert sum(map(sum, calls[done : done + count])) <= 4 * inflate_module.SLICE
        done += count


def test_too_many_blocks_that_end_the_data_are_refused() -> None:
    """Each costs an inflater: as with fragments there is one for every 64 bytes, and some more."""
    with pytest.raises(ProtocolError) as error:
        read(fresh(), LAST_EMPTY * 1000 + b"\x00")
    assert CloseCode.VIOLATED_POLICY == error.value.close_code


@pytest.mark.parametrize("size", range(0, 300, 9))
@pytest.mark.parametrize("blocks", range(64, 74))
def test_the_limit_of_blocks_that_end_the_data_is_exact(size: int, blocks: int) -> None:
    """64, and one for every 64 bytes of the message as it came."""
    stored = b"\x00" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + bytes(size)
    data = stored + LAST_EMPTY * blocks + b"\x00"
    if blocks <= 64 + len(data) // 64:
        assert read(fresh(), data) == bytes(size)
    else:
        with pytest.raises(ProtocolError):
            read(fresh(), data)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.booleans())
def test_a_message_may_consist_of_parts_that_end_the_data(parts: list[bytes], is_closed: bool) -> None:
    """RFC 7692 §7.2.3.4; with or without the empty block behind them, and not in the first message only."""
    inflater = fresh()
    for _ in range(2):
        data = b"".join(zlib.compress(part, wbits=-15) for part in parts) + b"\x00" * is_closed
        assert b"".join(parts) == read(inflater, data)
    assert b"after" == read(inflater, deflated(b"after"))


def test_an_empty_payload_is_an_empty_message() -> None:
    """At any time, and it disturbs nothing."""
    inflater = fresh()
    for message in (b"", b"one", b"", b"", b"two"):
        data = deflated(message) if message else b""
        assert message == read(inflater, data)


def test_what_stands_behind_a_last_block_is_read_in_long_views_again(calls: list[tuple[int, int]]) -> None:
    """The view is short behind it, since there may be many, and grows with what comes."""
    data = LAST_EMPTY + deflated(random.Random(1).randbytes(1 << 20))
    result, _ = inflate(data, 1 << 21)
    assert len(result) == 1 << 20
    assert len(calls) <= 3 * len(data) // inflate_module.SLICE


@pytest.mark.parametrize("more", [0, 1])
def test_the_number_of_last_blocks_is_limited_exactly(more: int) -> None:
    """64, and one for every 64 bytes of the message."""
    count = 66 + more
    data = LAST_EMPTY * count  # 132 bytes: two more
    if more:
        with pytest.raises(ProtocolError):
            read(fresh(), data)
    else:
        assert b"" == read(fresh(), data)
