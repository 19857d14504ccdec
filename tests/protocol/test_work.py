"""Work in proportion to what came, in small steps: what zlib is given, and where others get their turn."""

from __future__ import annotations

import os
import random
import zlib
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import given, strategies as st

from trioktor import CloseCode, Frame, PerMessageDeflate, ProtocolError, Response
from trioktor.protocol import inflate as inflate_module
from trioktor.protocol.assembler import check_text_in_steps
from trioktor.protocol.extension_header import ExtensionHeader

LIMIT = 1 << 20
LAST_EMPTY = b"\x03\x00"
"""A block that ends the data, and holds nothing."""


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


def codec(**settings: Any) -> Any:
    """Both directions of a connection."""
    agreed = PerMessageDeflate(**settings).negotiate(ExtensionHeader("permessage-deflate"))
    assert agreed is not None
    return agreed[1]


def inflate(data: bytes, limit: int | None = LIMIT) -> tuple[bytes, list[int]]:
    """What a message inflates to, and the calls of zlib in each of its steps."""
    steps = codec().decode_in_steps(Frame.Binary(data, rsv1=True), limit)
    in_each: list[int] = []
    while True:
        before = len(Watched.calls)
        try:
            next(steps)
        except StopIteration as stop:
            in_each.append(len(Watched.calls) - before)
            return stop.value.data, in_each
        in_each.append(len(Watched.calls) - before)


def packed(data: bytes) -> bytes:
    """A message as a peer compresses it."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


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
    [packed(bytes(1 << 26))[: 1 << 20], packed(random.Random(1).randbytes(1 << 20)), LAST_EMPTY * 60 + b"\x00"],
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
        codec().decode(Frame.Binary(LAST_EMPTY * 1000 + b"\x00", rsv1=True), LIMIT)
    assert CloseCode.VIOLATED_POLICY == error.value.close_code


@pytest.mark.parametrize("size", range(0, 300, 9))
@pytest.mark.parametrize("blocks", range(64, 74))
def test_the_limit_of_blocks_that_end_the_data_is_exact(size: int, blocks: int) -> None:
    """64, and one for every 64 bytes of the message as it came."""
    stored = b"\x00" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + bytes(size)
    data = stored + LAST_EMPTY * blocks + b"\x00"
    if blocks <= 64 + len(data) // 64:
        assert codec().decode(Frame.Binary(data, rsv1=True), LIMIT).data == bytes(size)
    else:
        with pytest.raises(ProtocolError):
            codec().decode(Frame.Binary(data, rsv1=True), LIMIT)


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.booleans())
def test_a_message_may_consist_of_parts_that_end_the_data(parts: list[bytes], is_closed: bool) -> None:
    """RFC 7692 §7.2.3.4; with or without the empty block behind them, and not in the first message only."""
    inflater = codec()
    for _ in range(2):
        data = b"".join(zlib.compress(part, wbits=-15) for part in parts) + b"\x00" * is_closed
        assert b"".join(parts) == inflater.decode(Frame.Binary(data, rsv1=True), LIMIT).data
    assert b"after" == inflater.decode(Frame.Binary(packed(b"after"), rsv1=True), LIMIT).data


def test_an_empty_payload_is_an_empty_message() -> None:
    """At any time, and it disturbs nothing."""
    inflater = codec()
    for message in (b"", b"one", b"", b"", b"two"):
        data = packed(message) if message else b""
        assert message == inflater.decode(Frame.Binary(data, rsv1=True), LIMIT).data


@pytest.mark.parametrize("text", ["x", "é" * 300_000, "🌍" * 300_000])
def test_a_long_text_is_judged_in_steps(text: str) -> None:
    """With a pause for each quarter of a megabyte; then it is known to be one."""
    data = text.encode()
    frame = Frame.Text(data)
    pauses = len(list(check_text_in_steps(frame)))
    assert pauses == (-(-len(data) // (1 << 18)) if len(data) > 1 << 18 else 0)
    assert frame.decoded is not None
    assert text == frame.text


@pytest.mark.parametrize("data", [b"x" * 300_000 + b"\xff", b"x" * 300_000 + b"\xe2\x82", os.urandom(400_000)])
def test_a_long_text_that_is_none_is_refused(data: bytes) -> None:
    """Wherever its bad byte is, at the end included."""
    with pytest.raises(ProtocolError) as error:
        list(check_text_in_steps(Frame.Text(data)))
    assert CloseCode.NOT_CONSISTENT == error.value.close_code


def test_what_stands_behind_a_last_block_is_read_in_long_views_again(calls: list[tuple[int, int]]) -> None:
    """The view is short behind it, since there may be many, and grows with what comes."""
    data = LAST_EMPTY + packed(random.Random(1).randbytes(1 << 20))
    result, _ = inflate(data, 1 << 21)
    assert len(result) == 1 << 20
    assert len(calls) <= 3 * len(data) // inflate_module.SLICE


@pytest.mark.parametrize("more", [0, 1])
def test_the_number_of_last_blocks_is_limited_exactly(more: int) -> None:
    """64, and one for every 64 bytes of the message."""
    count = 66 + more
    data = LAST_EMPTY * count  # 132 bytes: two more
    message = Frame.Binary(data, rsv1=True)
    if more:
        with pytest.raises(ProtocolError):
            codec().decode(message, LIMIT)
    else:
        assert b"" == codec().decode(message, LIMIT).data


def test_a_peer_that_forgets_its_window_is_forgotten() -> None:
    """Nothing is kept between its messages; each stands alone."""
    agreed = PerMessageDeflate(client_no_context_takeover=True).negotiate(ExtensionHeader("permessage-deflate"))
    assert agreed is not None
    inflater: Any = agreed[1]
    for _ in range(3):
        assert b"again and again" == inflater.decode(Frame.Binary(packed(b"again and again"), rsv1=True), LIMIT).data
        assert inflater._inflater._decompressor is None


@pytest.mark.parametrize("kind", [Frame.Ping, Frame.Pong])
def test_a_control_frame_may_hold_125_bytes(kind: Any) -> None:
    """RFC 6455 §5.5: and not one more."""
    assert 125 == len(kind(bytes(125)).data)
    with pytest.raises(ValueError, match="at most 125"):
        kind(bytes(126))


@pytest.mark.parametrize("status", [200, 599])
def test_the_status_of_a_response_has_its_bounds(status: int) -> None:
    """Both belong to it."""
    assert status == Response(status=status).status
    for beyond in (199, 600):
        with pytest.raises(ValueError, match="between 200 and 599"):
            Response(status=beyond)


def test_the_defaults_of_compression_are_those_of_the_documentation() -> None:
    """Quick, and small in memory."""
    settings = PerMessageDeflate()
    assert (1, 5, 12) == (settings.level, settings.mem_level, settings.window_bits)
    assert (0, None) == (settings.compress_if_bigger_than, settings.compress_if)
    assert not settings.server_no_context_takeover
    assert not settings.client_no_context_takeover
    assert "name" not in repr(settings)


def test_a_header_may_hold_all_of_latin_1() -> None:
    """RFC 9110 §5.5 calls it obsolete, and lets it be; beyond it nothing can be written."""
    assert Response(headers={"X": "\xff"}).to_bytes().count(b"X: \xff\r\n") == 1
    assert b"X: a\tb\r\n" in Response(headers={"X": "a\tb"}).to_bytes()
    with pytest.raises(ValueError, match="latin-1"):
        Response(headers={"X": "\u0100"})
