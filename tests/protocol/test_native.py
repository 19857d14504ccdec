"""The native part says what the pure one says, and stops where it is told."""

from __future__ import annotations

import gc
import importlib.util
import os
import re
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tests.support.helpers import KEY, masked
from tests.support.reading import FrameReader
from trioktor import Frame, PerMessageDeflate
from trioktor.protocol import native, parser as parser_module, partial as partial_module
from trioktor.protocol.conversation import Conversation
from trioktor.protocol.errors import ProtocolError
from trioktor.protocol.frames import BinaryFrame, TextFrame
from trioktor.protocol.from_wire import MESSAGE_KINDS, frame_from_wire
from trioktor.protocol.mask import mask as pure_mask, mask_frame as pure_mask_frame
from trioktor.protocol.negotiation import negotiate
from trioktor.protocol.serializer import head

has_native = importlib.util.find_spec("trioktor.protocol._native") is not None
needs_native = pytest.mark.skipif(not native.is_native, reason="the native part was not built, or is not wanted")


def test_it_is_at_work_where_it_was_built_and_is_wanted() -> None:
    """And nowhere else."""
    is_cpython = sys.implementation.name == "cpython"
    assert native.is_native == (has_native and is_cpython and not os.environ.get("TRIOKTOR_PURE"))


@pytest.mark.parametrize("way", ["unwanted", "not built", "not CPython"])
def test_without_it_everything_is_pure(way: str) -> None:
    """As where there is no compiler, and on PyPy; the command line says which it is."""
    code = (
        "import sys\n"
        + "sys.modules['trioktor.protocol._native'] = None\n" * (way == "not built")
        + "sys.implementation.name = 'pypy'\n" * (way == "not CPython")
        + "from trioktor.protocol import mask, native\n"
        "assert native.mask is mask.mask and native.scan is None and not native.is_native\n"
        "from trioktor.cli import main\n"
        "main(['--version'])\n"
    )
    environment = {**os.environ, "TRIOKTOR_PURE": "1" if way == "unwanted" else ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stderr == ""
    assert "pure Python" in done.stdout


@given(data=st.binary(max_size=2000), key=st.binary(min_size=4, max_size=4))
def test_masking_is_the_same(data: bytes, key: bytes) -> None:
    """Of bytes, and of a part of them."""
    assert native.mask(data, key) == pure_mask(data, key)
    view = memoryview(data)[3:]
    assert native.mask(view, key) == pure_mask(view, key) == pure_mask(data[3:], key)
    for start in (b"", b"\x81\x85", b"\x82\xff" + bytes(8)):
        assert native.mask_frame(start, data, key) == pure_mask_frame(start, data, key)
        assert native.mask_frame(start, view, key) == pure_mask_frame(start, data[3:], key)


def unmasked(first_byte: int, payload: bytes = b"") -> bytes:
    """A frame as a server writes it, whatever it says."""
    return head(first_byte, len(payload)) + payload


def pieces_of(write: Callable[[int, bytes], bytes]) -> st.SearchStrategy[bytes]:
    """Frames, good and bad, and bytes that are none."""
    return st.one_of(
        st.binary(max_size=12),
        st.builds(write, st.sampled_from([0x81, 0x82]), st.binary(max_size=300)),
        st.builds(lambda text: write(0x81, text.encode()), st.text(max_size=200)),
        st.builds(lambda size: write(0x81, "🌍é".encode() * size), st.integers(0, 2000)),
        st.builds(write, st.sampled_from([0x01, 0x00, 0x80, 0x02, 0x89, 0xC1, 0x88]), st.binary(max_size=130)),
        st.builds(lambda count: write(0x82, b"") * count, st.integers(0, 100)),
    )


PIECES = pieces_of(masked)
EITHER = st.one_of(st.lists(PIECES, max_size=8), st.lists(pieces_of(unmasked), max_size=8))
"""Of a client or of a server."""


def read(
    kind: str, chunks: list[bytes], limit: int | None, *, client: bool = False
) -> tuple[list[tuple[Any, ...]], int | None]:
    """What these chunks are, and the code of the violation that they end with."""
    reader = FrameReader(
        client=client,
        raw=kind == "raw",
        pieces=kind == "pieces",
        max_frame_size=limit,
        max_fragments=10,
        reserved=0x40,
    )
    seen: list[tuple[Any, ...]] = []
    try:
        for chunk in chunks:
            for frame in reader.feed(chunk):
                if frame is not None:
                    seen.append((type(frame), frame.first_byte, frame.data))
    except ProtocolError as error:
        return seen, error.close_code
    return seen, None


@needs_native
@settings(max_examples=300, deadline=None)
@given(
    pieces=EITHER,
    cuts=st.lists(st.integers(0, 4000), max_size=6),
    kind=st.sampled_from(["messages", "raw", "pieces"]),
    limit=st.sampled_from([None, 0, 50, 125, 126, 300, 4096, 1 << 20]),
    client=st.booleans(),
)
def test_whatever_comes_is_read_the_same(
    pieces: list[bytes], cuts: list[int], kind: str, limit: int | None, client: bool
) -> None:
    """Good and bad, however it is cut."""
    data = b"".join(pieces)
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    chunks = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    found = read(kind, chunks, limit, client=client)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parser_module, "scan", None)
        patch.setattr(partial_module, "Filling", None)
        assert found == read(kind, chunks, limit, client=client)


STEPS = st.one_of(
    st.tuples(st.just("append"), st.integers(0, 9000)),
    st.tuples(st.just("read"), st.integers(0, 9000)),
    st.tuples(st.just("take"), st.just(0)),
)


@needs_native
@given(
    length=st.one_of(st.integers(0, 300), st.integers(0, 20000)),
    key=st.one_of(st.none(), st.binary(min_size=4, max_size=4)),
    steps=st.lists(STEPS, max_size=30),
)
def test_a_filling_holds_what_arrived_unmasked(length: int, key: bytes | None, steps: list[tuple[str, int]]) -> None:
    """Appended or read into it, and taken at any time."""
    assert native.Filling is not None
    payload = bytes(number * 7 & 0xFF for number in range(length))
    data = payload if key is None else pure_mask(payload, key)
    filling = native.Filling(length, key)
    taken, at = b"", 0
    for step, size in steps:
        if step == "take":
            taken += filling.take()
            assert taken == payload[:at]
            continue
        with memoryview(filling) as view:
            free = len(view)
            assert (free > 0) == (at < length)
            assert free <= length - at
            if step == "read":
                size = min(size, free)
                view[:size] = data[at : at + size]
        if step == "read":
            filling.advance(size)
        else:
            size = min(size, length - at)
            filling.append(data[at : at + size])
        at += size
    assert taken + filling.take() == payload[:at]


@needs_native
def test_a_header_alone_allocates_nothing() -> None:
    """There is room for little more than thirty-two times what came, and never for more than the frame holds."""
    assert native.Filling is not None
    for length in (1 << 40, 1 << 16, 10):
        filling = native.Filling(length, b"abcd")
        came = 0
        for size in (1, 200, 5000):
            if came + size > length:
                break
            filling.append(bytes(size))
            came += size
            with memoryview(filling) as view:
                assert came + len(view) <= min(length, 32 * (came + 4096))


@needs_native
def test_a_filling_is_not_moved_while_somebody_reads_into_it() -> None:
    """Nor told of more than was there."""
    assert native.Filling is not None
    filling = native.Filling(1 << 30, None)
    with memoryview(filling), pytest.raises(BufferError, match="being read into"):
        filling.take()
    with memoryview(filling) as view, pytest.raises(BufferError, match="being read into"):
        filling.append(bytes(len(view) + 1))
    with memoryview(filling) as view:
        free = len(view)
    for count in (-1, free + 1):
        with pytest.raises(ValueError, match="more than the buffer"):
            filling.advance(count)
    with pytest.raises(ValueError, match="more than the frame"):
        native.Filling(100, None).append(bytes(101))
    assert filling.take() == b""
    wrong: Any = native.Filling
    unfit: list[tuple[Any, ...]] = [(), (1,), ("1", None), (1, "abcd"), (1, None, 2)]
    for arguments in unfit:
        with pytest.raises(TypeError):
            wrong(*arguments)
    with pytest.raises(TypeError):
        wrong(length=1, key=None)
    unfit = [(-1, None), (1, b"abc")]
    for arguments in unfit:
        with pytest.raises(ValueError, match="four bytes"):
            wrong(*arguments)
    unsound: Any = filling
    for argument in ("x", None):
        with pytest.raises(TypeError):
            unsound.append(argument)
        with pytest.raises(TypeError):
            unsound.advance(argument)


@needs_native
@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 400), max_size=120),
    first_byte=st.sampled_from([0x82, 0x02, 0x81]),
    streams_at=st.integers(0, 150),
    client=st.booleans(),
)
def test_a_long_frame_that_is_read_into_its_place_is_the_same(
    sizes: list[int], first_byte: int, streams_at: int, client: bool
) -> None:
    """As the parser is given the bytes, or reads them to where it wants them."""
    payload = bytes(range(128)) * 40
    data = first_byte.to_bytes(1, "big") + b"\x7e" + len(payload).to_bytes(2, "big") + payload
    data = data if client else masked(first_byte, payload)
    ends = [0]
    for size in sizes:
        ends.append(min(ends[-1] + size, len(data)))

    def seen(*, into: bool) -> list[Any]:
        conversation = Conversation(client=client, max_fragments=10)
        found: list[Any] = []
        for number, (start, end) in enumerate(zip(ends, [*ends[1:], len(data)], strict=True)):
            if number == streams_at:
                conversation.stream()
            chunk = data[start:end]
            parser = conversation.parser
            if into and chunk and parser.target is not None and len(chunk) <= parser.missing:
                while chunk:
                    with memoryview(parser.target) as view:
                        size = min(len(view), len(chunk))
                        view[:size] = chunk[:size]
                    parser.fill(size)
                    chunk = chunk[size:]
            found.extend((frame.first_byte, frame.data) for frame in conversation.receive(chunk) if frame is not None)
            found.append(conversation.kept)
        return found

    assert seen(into=False) == seen(into=True)


@needs_native
@settings(max_examples=200, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 400), max_size=120),
    first_byte=st.sampled_from([0x82, 0x02, 0x81]),
    streams_at=st.integers(0, 150),
)
def test_a_long_frame_in_pieces_is_read_the_same(sizes: list[int], first_byte: int, streams_at: int) -> None:
    """Also when pieces are wanted in the middle of it."""
    data = masked(first_byte, bytes(range(128)) * 40)
    ends = [0]
    for size in sizes:
        ends.append(min(ends[-1] + size, len(data)))
    chunks = [data[start:end] for start, end in zip(ends, [*ends[1:], len(data)], strict=True)]

    def seen() -> list[Any]:
        reader = FrameReader()
        found: list[Any] = []
        for number, chunk in enumerate(chunks):
            if number == streams_at:
                reader.stream()
            found.extend((frame.first_byte, frame.data) for frame in reader.feed(chunk) if frame is not None)
            found.append(reader.kept)
        return found

    found = seen()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(partial_module, "Filling", None)
        assert found == seen()


def talk(
    chunks: list[bytes], limit: int | None, *, single: bool, run: tuple[int, int] = (0, 0), **kind: Any
) -> tuple[list[Any], str]:
    """What a conversation gives for each of these chunks, and how it stands then."""
    conversation = Conversation(max_frame_size=limit, max_fragments=10, **kind)
    seen: list[Any] = []
    for chunk in chunks:
        frame = conversation.receive_single(chunk) if single else None
        if frame is None:
            messages, rest = conversation.receive_run(chunk, *run) if single else ([], chunk)
            frames: list[Frame | None] = [*messages, *conversation.receive(rest)]
        else:
            frames = [frame]
        seen.append([None if frame is None else (type(frame), frame.first_byte, frame.data) for frame in frames])
        seen.append((conversation.frames_received, conversation.kept))
        if conversation.closing.is_over:
            break
    return seen, repr(conversation.closing)


@needs_native
@settings(max_examples=500, deadline=None)
@given(
    pieces=EITHER,
    cuts=st.lists(st.integers(0, 4000), max_size=6),
    limit=st.sampled_from([None, 0, 50, 125, 126, 300, 4096, 1 << 20]),
    run=st.tuples(st.integers(0, 20), st.sampled_from([-1, 0, 1, 100, 1 << 16])),
    client=st.booleans(),
)
def test_messages_in_one_step_are_read_the_same(
    pieces: list[bytes], cuts: list[int], limit: int | None, run: tuple[int, int], client: bool
) -> None:
    """Whatever comes, whatever is under way: with the short roads and without them."""
    data = b"".join(pieces)
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    cut = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    for chunks in (pieces, cut):
        short = talk(chunks, limit, single=True, run=run, client=client)
        assert short == talk(chunks, limit, single=False, client=client)


@needs_native
def test_a_run_of_messages_is_taken_in_one_step() -> None:
    """As many as are wanted, at the front, and nothing under way; the rest, and anything else, is the loop's."""
    text, binary, ping = masked(0x81, "é".encode()), masked(0x82, bytes(300)), masked(0x89, b"!")
    frames = [Frame.Text("é"), Frame.Binary(bytes(300))]
    everything = (1000, 1 << 20)
    conversation = Conversation()
    assert conversation.receive_run(text + binary, *everything) == (frames, b"")
    assert conversation.frames_received == 2
    assert conversation.receive_run(text + binary + text[:3], *everything) == (frames, text[:3])
    assert conversation.receive_run(text + ping + text, *everything) == (frames[:1], ping + text)
    assert conversation.receive_run(text * 5, 3, 1 << 20) == ([frames[0]] * 3, text * 2)
    assert conversation.receive_run(binary * 5, 1000, 301) == ([frames[1]] * 2, binary * 3)  # the last may go beyond
    assert conversation.receive_run(binary * 5, 1000, 300) == (frames[1:], binary * 4)
    assert conversation.frames_received == 11
    for most, size in ((0, 100), (100, 0), (100, -5)):
        assert conversation.receive_run(text + text, most, size) == ([], text + text)
    for begun in (text[:1], text[:-1], masked(0x01, b"x")):
        conversation = Conversation()
        assert list(conversation.receive(begun)) == []
        assert conversation.receive_run(text, *everything) == ([], text)
    assert Conversation(max_frame_size=2).receive_run(text + binary, *everything) == (frames[:1], binary)
    _, extensions = negotiate([PerMessageDeflate()], ["permessage-deflate"])
    conversation = Conversation()
    conversation.stream()
    watched = Conversation(on_frame=lambda direction, frame: None)
    coded = Conversation(extensions=tuple(extensions))
    for other in (conversation, watched, coded):
        assert other.receive_run(text, *everything) == ([], text)
    plain = Conversation()
    assert [plain.may_run(data) for data in (text, binary + ping, ping + text, b"")] == [True, True, False, False]
    assert [other.may_run(text) for other in (conversation, coded)] == [False, False]


FRAMES = st.builds(
    frame_from_wire,
    st.just(BinaryFrame),
    st.integers(0, 255),
    st.sampled_from([0, 1, 125, 126, 0xFFFF, 0x10000, 70_000]).map(bytes),
)


@needs_native
@given(items=st.lists(st.one_of(FRAMES, st.binary(max_size=3))))
def test_frames_are_joined_as_they_are_written(items: list[Frame | bytes]) -> None:
    """Each with the fewest length bytes; what is bytes already stands between them."""
    join: Any = native.join
    expected = [
        item if isinstance(item, bytes) else head(item.first_byte, len(item.data)) + item.data for item in items
    ]
    assert join(items) == b"".join(expected)


@needs_native
def test_what_cannot_be_joined_is_refused() -> None:
    """Nothing of it is written, and nothing of it is kept."""
    join: Any = native.join
    good = Frame.Text("x" * 100)
    for first_byte in (-1, 256, 1 << 70):
        with pytest.raises((ValueError, OverflowError)):
            join([good, frame_from_wire(BinaryFrame, first_byte, b"")])
    wrong: Any
    for wrong in (None, "x", bytearray(b"x"), 1, frame_from_wire(BinaryFrame, "1", b"")):  # type: ignore[arg-type]
        with pytest.raises((TypeError, AttributeError)):
            join([good, wrong])
    for wrong in ("x", None, memoryview(b"x")):
        with pytest.raises(TypeError, match="a payload is bytes"):
            join([good, frame_from_wire(BinaryFrame, 0x82, wrong)])
    for wrong in (None, (good,), b"x", iter([good])):
        with pytest.raises(TypeError, match="a list"):
            join(wrong)
    before = sys.getrefcount(good.data)
    with pytest.raises(AttributeError):
        join([good] * 50 + [None])
    assert len(join([good] * 50)) == 50 * 102
    after = sys.getrefcount(good.data)
    assert after == before


@needs_native
@pytest.mark.parametrize("shrinks_at", ["first_byte", "data"])
def test_a_list_that_shrinks_while_it_is_joined_is_no_danger(shrinks_at: str) -> None:
    """An attribute may be anybody's code, and the list may have been all that kept its object alive."""
    join: Any = native.join

    class Odd:
        def __init__(self) -> None:
            self.filling = [1] * 10

        @property
        def first_byte(self) -> int:
            if shrinks_at == "first_byte":
                items.clear()
            return 0x82

        @property
        def data(self) -> bytes:
            if shrinks_at == "data":
                items.clear()
            return b"odd"[: len(self.filling)]

    items: list[Any] = [Frame.Binary(b"x"), Odd(), *(Frame.Binary(bytes([number])) for number in range(50))]
    assert join(items) == b"\x82\x01x\x82\x03odd"


@needs_native
def test_one_message_is_taken_in_one_step() -> None:
    """A short one, alone, and nothing under way; else the loop has it."""
    text, binary = masked(0x81, "é".encode()), masked(0x82, bytes(300))
    conversation = Conversation()
    assert conversation.receive_single(text) == Frame.Text("é")
    assert conversation.receive_single(binary) == Frame.Binary(bytes(300))
    assert conversation.frames_received == 2
    others = [b"", text[:-1], text + b"x", text + binary, masked(0x82, bytes(4097)), masked(0x81, b"\xff")]
    others += [masked(first_byte, b"") for first_byte in (0x01, 0x00, 0x89, 0x8A, 0x88, 0xC1, 0x83)]
    for data in others:
        assert conversation.receive_single(data) is None
        assert (conversation.frames_received, conversation.kept) == (2, 0)
    for begun in (text[:1], text[:-1], masked(0x01, b"x")):
        conversation = Conversation()
        assert list(conversation.receive(begun)) == []
        assert conversation.receive_single(text) is None
    conversation = Conversation(max_frame_size=1)
    assert conversation.receive_single(text) is None
    conversation = Conversation()
    conversation.stream()
    assert conversation.receive_single(text) is None
    assert Conversation(client=True).receive_single(text) is None
    assert Conversation().receive_single(unmasked(0x81, b"x")) is None
    for data in ("é".encode(), b"", b"x" * 300):
        assert Conversation(client=True).receive_single(unmasked(0x81, data)) == Frame.Text(data.decode())
    for data in (unmasked(0x81, b"x" * 300)[:3], unmasked(0x82, b"x") + b"y", unmasked(0x81, b"\xff"), b"\x82"):
        assert Conversation(client=True).receive_single(data) is None
    _, extensions = negotiate([PerMessageDeflate()], ["permessage-deflate"])
    assert Conversation(extensions=tuple(extensions)).receive_single(text) is None
    assert Conversation(on_frame=lambda direction, frame: None).receive_single(text) is None


WRONG_KINDS: list[Any] = [
    *(None, (), (TextFrame,), [TextFrame, BinaryFrame], (TextFrame, None), (None, BinaryFrame)),
    *((TextFrame, kind) for kind in (type, dict, int, Exception, memoryview, type("Kind", (dict,), {}), type(print))),
]


def scanned(*arguments: Any) -> tuple[list[tuple[bytes, object]], int]:
    """What `scan` finds: payloads, and their texts, or the first byte of what an extension owns; and where it stops."""
    scan: Any = native.scan
    frames, position = scan(*arguments, MESSAGE_KINDS)
    found: list[tuple[bytes, object]] = []
    for frame in frames:
        is_owned = frame.first_byte & 0x70
        assert type(frame) is (TextFrame if frame.first_byte & 0x0F == 1 else BinaryFrame)
        assert frame.first_byte in {0x81, 0x82} or (is_owned and frame.decoded is None)
        found.append((frame.data, frame.first_byte if is_owned else frame.decoded))
    return found, position


WORD = masked(0x82, b"word")


class Broken:
    """A kind of frames that takes no attribute."""

    __slots__ = ()


@needs_native
@pytest.mark.parametrize("data", [masked(0x82, b"x"), masked(0x81, b"x"), masked(0x81, b"x") + masked(0x82, b"")])
def test_a_class_that_can_be_no_frame_is_an_error(data: bytes) -> None:
    """And nothing of it is left."""
    assert native.scan is not None
    assert native.single is not None
    kinds = (Broken, Broken)
    with pytest.raises(AttributeError):
        native.scan(data, 0, 99, 9, 99, 0, 4, kinds)
    assert native.message is not None
    with pytest.raises(AttributeError):
        native.message(data[0], data, kinds)
    if len(data) < 10:
        with pytest.raises(AttributeError):
            native.single(data, 99, 4, kinds)


class Slots:
    """What kinds of frames have in common."""

    __slots__ = ("data", "decoded", "first_byte")


def kinds_of(base: type[Any]) -> tuple[type[Any], type[Any]]:
    """Two kinds that share its slots."""
    return type("OtherText", (base,), {}), type("OtherBinary", (base,), {})


@needs_native
def test_kinds_have_the_same_slots() -> None:
    """A slot of another class would be another place in the object."""
    named = type("Named", (), dict.fromkeys(["first_byte", "data", "decoded"]))
    others = kinds_of(Slots)
    call: Any
    first: tuple[Any, ...]
    for call, first in (
        (native.scan, (WORD, 0, 99, 9, 99, 0, 4)),
        (native.single, (WORD, 99, 4)),
        (native.message, (0x82, b"x")),
    ):
        for kinds in ((TextFrame, others[1]), (others[0], BinaryFrame), kinds_of(named)):
            with pytest.raises(TypeError, match="share their slots"):
                call(*first, kinds)


@needs_native
def test_each_call_has_the_kinds_it_was_given() -> None:
    """Whatever those of the last were; and none are kept that are of no use."""
    message: Any = native.message
    single: Any = native.single
    scan: Any = native.scan
    join: Any = native.join
    gc.collect()
    before = sys.getrefcount(MESSAGE_KINDS)
    for _ in range(100):
        others = kinds_of(Slots)
        for kinds in (others, MESSAGE_KINDS, others):
            made = message(0x81, b"x", kinds)
            assert type(made) is kinds[0]
            assert type(single(WORD, 99, 4, kinds)) is kinds[1]
            assert single(WORD, 1, 4, kinds) is None
            assert [type(frame) for frame in scan(WORD, 0, 99, 9, 99, 0, 4, kinds)[0]] == [kinds[1]]
            assert join([made, Frame.Binary(b"y")]) == b"\x81\x01x\x82\x01y"
        with pytest.raises(ValueError, match="one byte"):
            message(256, b"x", others)

    alive = weakref.ref(others[0])
    assert join([message(0x82, b"", MESSAGE_KINDS)]) == b"\x82\x00"
    del others, made, kinds
    gc.collect()
    assert alive() is None
    assert abs(sys.getrefcount(MESSAGE_KINDS) - before) < 10


@needs_native
def test_kinds_that_give_others_as_they_go_change_nothing() -> None:
    """What is let go may be anybody's."""
    message: Any = native.message
    others = kinds_of(Slots)
    gone: list[bool] = []

    class Calls(tuple[type[Any], ...]):
        """Kinds that have others be given."""

        __slots__ = ()

        def __del__(self) -> None:
            gone.append(message(0x82, b"", others) is not None)

    steps: list[tuple[Any, Any]] = [(MESSAGE_KINDS, kinds_of(Slots)), (others, MESSAGE_KINDS)]
    for before, now in steps:
        calls = Calls(before)
        assert type(message(0x82, b"x", calls)) is before[1]
        del calls
        assert type(message(0x82, b"x", now)) is now[1]
    assert gone == [True, True]


@needs_native
@given(
    first_byte=st.one_of(st.sampled_from([0x81, 0x82, 0xC1, 0xC2]), st.integers(0, 255)),
    data=st.one_of(st.binary(max_size=20), st.text(max_size=20).map(str.encode)),
)
def test_a_message_of_parts_is_what_the_pure_way_makes(first_byte: int, data: bytes) -> None:
    """Its text is known, if it is plain and whole, and is UTF-8."""
    assert native.message is not None
    made = native.message(first_byte, data, MESSAGE_KINDS)
    kind = TextFrame if first_byte & 0x0F == 1 else BinaryFrame
    assert (type(made), made.first_byte) == (kind, first_byte)
    assert made.data is data
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = None
    assert made.decoded == (text if first_byte == 0x81 else None)


@needs_native
def test_a_scan_stops_where_it_is_told() -> None:
    """Behind so many messages, or bytes; it is no use to read ahead of what is wanted."""
    one = masked(0x82, b"xyz")
    data = one * 10
    for count in range(12):
        run, position = scanned(data, 0, 4096, count, 1 << 20, 0, 4)
        assert (len(run), position) == (min(count, 10), len(one) * min(count, 10))
    for size in range(40):
        run, position = scanned(data, 0, 4096, 100, size, 0, 4)
        assert len(run) == min(-(-size // 3), 10)
    assert scanned(data, len(one), 4096, 1, 9, 0, 4) == ([(b"xyz", None)], 2 * len(one))
    assert scanned(data, len(data), 4096, 5, 9, 0, 4) == ([], len(data))


@needs_native
def test_a_scan_of_what_a_server_wrote() -> None:
    """No frame of it has a key."""
    data = unmasked(0x82, b"xyz") + unmasked(0x81, b"") + unmasked(0x81, "é".encode() * 100)
    run, position = scanned(data, 0, 4096, 9, 9999, 0, 0)
    assert run == [(b"xyz", None), (b"", ""), ("é".encode() * 100, "é" * 100)]
    assert position == len(data)
    for end in range(len(data)):
        run, position = scanned(data[:end], 0, 4096, 9, 9999, 0, 0)
        assert position == (0 if end < 5 else 5 if end < 7 else 7)
    assert scanned(masked(0x82, b"x"), 0, 4096, 9, 9999, 0, 0) == ([], 0)
    assert scanned(b"\x82\x7e\x00\x05hello", 0, 4096, 9, 9999, 0, 0) == ([], 0)


@needs_native
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x82",
        masked(0x82, b"x")[:-1],
        masked(0x82, bytes(126))[:7],
        b"\x82\x03xyz",
        masked(0x02, b"x"),
        masked(0x00, b"x"),
        masked(0x89, b"x"),
        masked(0xC2, b"x"),
        masked(0x81, b"\xff"),
        b"\x82\xfe\x00\x7d" + KEY + bytes(125),
        b"\x82\xff" + (200).to_bytes(8, "big") + KEY + bytes(200),
        masked(0x82, bytes(4097)),
    ],
)
def test_a_scan_leaves_everything_else_to_the_parser(data: bytes) -> None:
    """Halves, controls, fragments, bad text and bad heads."""
    good = masked(0x81, "é".encode())
    assert scanned(good + data, 0, 4096, 9, 99, 0, 4) == ([("é".encode(), "é")], len(good))


@needs_native
def test_a_scan_takes_what_an_extension_owns() -> None:
    """With its first byte, and unread: a bit that nobody owns, a fragment or a control frame is left."""
    data = masked(0xC1, b"\xff") + masked(0x81, b"t") + masked(0xC2, b"b")
    for rest in (b"", masked(0x91, b"x"), masked(0x41, b"x"), masked(0xC0, b"x"), masked(0xC9, b"x")):
        run, position = scanned(data + rest, 0, 4096, 9, 99, 0x40, 4)
        assert (run, position) == ([(b"\xff", 0xC1), (b"t", "t"), (b"b", 0xC2)], len(data))
    assert scanned(data, 0, 4096, 9, 99, 0, 4) == ([], 0)
    assert scanned(masked(0x89, b""), 0, 4096, 9, 99, 0x78, 4) == ([], 0)


@needs_native
@pytest.mark.parametrize("longest", [0, 3, 125, 126, 4096])
def test_a_scan_takes_nothing_longer_than_it_is_told(longest: int) -> None:
    """To the byte."""
    assert len(scanned(masked(0x82, bytes(longest)), 0, longest, 9, 9999, 0, 4)[0]) == 1
    assert scanned(masked(0x82, bytes(longest + 1)), 0, longest, 9, 9999, 0, 4) == ([], 0)


@needs_native
def test_what_is_no_argument_is_an_error() -> None:
    """And no crash."""
    assert native.scan is not None
    scan: Any = native.scan
    mask: Any = native.mask
    wrong: list[tuple[Any, ...]] = [(b"x",), (b"x", b"abcd", 1), (b"x", "abcd"), (b"x", None), ("x", b"abcd")]
    for arguments in wrong:
        with pytest.raises(TypeError):
            mask(*arguments)
    for key in (b"", b"abc", b"abcde"):
        with pytest.raises(ValueError, match="four bytes"):
            mask(b"x", key)
    wrong = [
        (),
        (b"x", 0, 1, 1, 1, 0, 4),
        ("x", 0, 1, 1, 1, 0, 4, MESSAGE_KINDS),
        (b"x", None, 1, 1, 1, 0, 4, MESSAGE_KINDS),
        (b"x", 0, 1.5, 1, 1, 0, 4, MESSAGE_KINDS),
        *((b"x", 0, 1, 1, 1, 0, 4, kinds) for kinds in WRONG_KINDS),
    ]
    for arguments in wrong:
        with pytest.raises(TypeError):
            scan(*arguments)
    mask_frame: Any = native.mask_frame
    wrong = [(), (b"", b"x"), ("", b"x", b"abcd"), (b"", "x", b"abcd"), (b"", b"x", None), (b"", b"x", b"abcd", 1)]
    for arguments in wrong:
        with pytest.raises(TypeError):
            mask_frame(*arguments)
    with pytest.raises(ValueError, match="four bytes"):
        mask_frame(b"", b"x", b"abc")
    single: Any = native.single
    wrong = [
        (),
        (b"x", 1, 4),
        ("x", 1, 4, MESSAGE_KINDS),
        (b"x", None, 4, MESSAGE_KINDS),
        (b"x", 1, None, MESSAGE_KINDS),
        (b"x", 1, 1, MESSAGE_KINDS, 1),
        *((b"x", 1, 1, kinds) for kinds in WRONG_KINDS),
    ]
    for arguments in wrong:
        with pytest.raises(TypeError):
            single(*arguments)
    with pytest.raises(OverflowError):
        single(b"x", 1 << 70, 4, MESSAGE_KINDS)
    message: Any = native.message
    wrong = [
        (),
        (0x81, b"x"),
        (None, b"x", MESSAGE_KINDS),
        (0x81, "x", MESSAGE_KINDS),
        (0x82, bytearray(b"x"), MESSAGE_KINDS),
        *((0x81, b"x", kinds) for kinds in WRONG_KINDS),
    ]
    for arguments in wrong:
        with pytest.raises(TypeError):
            message(*arguments)
    for first_byte in (-1, 256, 1 << 70):
        with pytest.raises((ValueError, OverflowError)):
            message(first_byte, b"x", MESSAGE_KINDS)
    for position in (-1, 2, 1 << 40):
        with pytest.raises(ValueError, match="position"):
            scan(b"x", position, 1, 1, 1, 0, 4, MESSAGE_KINDS)
    with pytest.raises(OverflowError):
        scan(b"x", 1 << 70, 1, 1, 1, 0, 4, MESSAGE_KINDS)


@needs_native
def test_nothing_that_is_given_is_taken_away() -> None:
    """None is counted before Python 3.12, and one that is not counted is gone one day."""
    assert native.scan is not None
    assert native.single is not None
    assert native.Filling is not None
    filling = native.Filling(10, None)
    counted = [MESSAGE_KINDS, *MESSAGE_KINDS, *([None] if sys.version_info < (3, 12) else ())]
    before = [sys.getrefcount(one) for one in counted]
    for _ in range(1000):
        assert native.single(b"\x81", 4096, 0, MESSAGE_KINDS) is None
        assert native.single(masked(0x81, b"\xff"), 4096, 4, MESSAGE_KINDS) is None
        assert native.single(masked(0x82, b"x"), 4096, 4, MESSAGE_KINDS) == Frame.Binary(b"x")
        assert len(native.scan(masked(0x82, b"x") * 3 + masked(0x81, b"x"), 0, 99, 9, 99, 0, 4, MESSAGE_KINDS)[0]) == 4
        filling.append(b"")
        filling.advance(0)
    assert [sys.getrefcount(one) for one in counted] == pytest.approx(before, abs=100)


def test_the_native_part_counts_none_in_every_version() -> None:
    """What newer headers leave uncounted is counted in Python 3.11, for which one build serves, too."""
    source = (Path(__file__).parents[2] / "trioktor" / "protocol" / "_native.c").read_text()
    assert not re.search(r"Py_RETURN_(NONE|TRUE|FALSE);", source)
