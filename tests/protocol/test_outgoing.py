"""The way of messages to bytes: what may be said, extensions in one step or in several, and messages for many."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext

import pytest

from tests.support.extensions import Marking
from tests.support.reading import FrameReader
from trioktor.protocol.deflate import PerMessageDeflate
from trioktor.protocol.errors import ProtocolError
from trioktor.protocol.extensions import Extension, ExtensionFactory, run
from trioktor.protocol.first_byte import RSV1, RSV2, RSV3, FrameType
from trioktor.protocol.frames import Frame
from trioktor.protocol.from_wire import frame_from_wire
from trioktor.protocol.negotiation import negotiate, offers
from trioktor.protocol.outgoing import LONG, Outgoing
from trioktor.protocol.prepared import PreparedMessage
from trioktor.protocol.serializer import Serializer, head

MARKING = Marking("marking", RSV2, "!")


def agreed(*factories: ExtensionFactory) -> tuple[Extension, ...]:
    """Their extensions at work."""
    return negotiate(factories, [offers(factories)])[1]


def way(*factories: ExtensionFactory, masking: bool = False, reserved: int = 0) -> Outgoing:
    """A way out with these extensions; without them some reserved bits may be the application's."""
    for factory in factories:
        reserved |= factory.reserved
    return Outgoing(Serializer(masking=masking, reserved=reserved), agreed(*factories))


def written(outgoing: Outgoing, *items: Frame | PreparedMessage) -> bytes:
    """The bytes of items that take one step."""
    pieces: list[bytes] = []
    for item in items:
        assert outgoing.add(item, pieces) is None
    return b"".join(pieces)


# what may be said


@pytest.mark.parametrize(
    ("accepted", "item", "error"),
    [
        ([], Frame.Text("a"), None),
        ([], Frame.Binary(b"\xff", fin=False), None),
        ([], PreparedMessage(Frame.Text("a")), None),
        ([Frame.Text("a", fin=False)], Frame.Text(b"\xff"), "not UTF-8"),
        ([Frame.Text(b"\xc3", fin=False)], Frame.Text(b"\xa9\xc3", fin=False), None),
        ([Frame.Text(b"\xc3", fin=False)], Frame.Text(b"\xa9\xc3"), "not UTF-8"),
        ([Frame.Text(b"\xc3", fin=False), Frame.Text(b"\xa9")], Frame.Text(b"\xa9", fin=False), "not UTF-8"),
        ([Frame.Text(b"\xc3", fin=False), Frame.Ping(b"\xff")], Frame.Text(b"\xa9"), None),
        ([Frame.Text("a", fin=False)], Frame.Ping(), None),
        ([Frame.Text("a", fin=False)], Frame.Close(), None),
        ([Frame.Text("a", fin=False), Frame.Ping()], Frame.Text("b"), None),
        ([Frame.Text("a", fin=False), Frame.Text("b")], Frame.Binary(b"c"), None),
        ([Frame.Text("a", fin=False)], Frame.Binary(b"b"), "finish the fragmented TEXT message first"),
        ([Frame.Binary(b"a", fin=False)], Frame.Text("b", fin=False), "finish the fragmented BINARY message first"),
        ([Frame.Text("a", fin=False)], PreparedMessage(Frame.Text("a")), "finish the fragmented TEXT message first"),
        ([Frame.Text("a", fin=False), Frame.Ping()], Frame.Binary(b"b"), "finish the fragmented TEXT"),
        ([], Frame.Text("a", rsv1=True), "a reserved bit needs an extension"),
        ([Frame.Text("a", fin=False)], Frame.Text("a", rsv3=True), "a reserved bit needs an extension"),
    ],
)
def test_an_item_is_checked_against_what_was_accepted(
    accepted: list[Frame], item: Frame | PreparedMessage, error: str | None
) -> None:
    """A message stands behind another's last fragment, control frames anywhere."""
    outgoing = way()
    for frame in accepted:
        outgoing.check(frame)
        outgoing.note_accepted(frame)
    if error is None:
        outgoing.check(item)
    else:
        with pytest.raises(ProtocolError, match=error):
            outgoing.check(item)


def test_it_is_kept_in_mind_which_message_is_open() -> None:
    """Until its last fragment was accepted."""
    outgoing = way()
    states = []
    for item in (
        Frame.Text("a"), Frame.Text("a", fin=False), Frame.Ping(), Frame.Close(), Frame.Text("b", fin=False),
        Frame.Text("c"), PreparedMessage(Frame.Text("a")), Frame.Binary(b"", fin=False),
    ):  # fmt: skip
        outgoing.note_accepted(item)
        states.append(outgoing.opened)
    text = FrameType.TEXT
    assert states == [None, text, text, text, text, None, None, FrameType.BINARY]


def test_a_text_that_is_none_is_found_at_once() -> None:
    """A whole one, and a fragment; but what an extension has made bytes is no text."""
    outgoing = way()
    with pytest.raises(UnicodeDecodeError):
        outgoing.check(Frame.Text(b"\xff"))
    outgoing.check(Frame.Binary(b"\xff"))
    with pytest.raises(ProtocolError, match="not UTF-8"):
        outgoing.check(Frame.Text(b"\xff", fin=False))
    coded = Outgoing(Serializer(masking=False, reserved=RSV1), ())  # of a raw session
    for frame in (Frame.Text(b"\xff", fin=False, rsv1=True), Frame.Text(b"\xfe", fin=False), Frame.Text(b"\xfd")):
        coded.check(frame)
        coded.note_accepted(frame)
    with pytest.raises(ProtocolError, match="not UTF-8"):
        coded.check(Frame.Text(b"\xff", fin=False))


def test_reserved_bits_are_the_applications_where_no_extension_is_at_work() -> None:
    """A raw session writes what extensions would; its text may be no UTF-8 then."""
    raw = way(reserved=RSV1)
    raw.check(Frame.Text(b"\xff", rsv1=True))
    with pytest.raises(ProtocolError, match="a reserved bit"):
        raw.check(Frame.Binary(b"", rsv2=True))
    with pytest.raises(ProtocolError, match="a reserved bit"):
        way(MARKING).check(Frame.Binary(b"", rsv2=True))


# bytes


def test_without_extensions_frames_are_written_and_counted() -> None:
    """Control frames and fragments, too."""
    outgoing = way()
    frames = [Frame.Text("a", fin=False), Frame.Ping(), Frame.Text("b"), Frame.Binary(b"c")]
    assert written(outgoing, *frames) == b"\x01\x01a\x89\x00\x80\x01b\x82\x01c"
    assert outgoing.frames_sent == 4


def test_messages_pass_the_extensions_in_order() -> None:
    """Fragments, what ends them, and control frames go out as they are."""
    outgoing = way(MARKING, Marking(None, 0, "?"))
    frames = [Frame.Text("a"), Frame.Ping(b"p"), Frame.Text("b", fin=False), Frame.Text("c"), Frame.Binary(b"")]
    assert written(outgoing, *frames) == b"\xa1\x03a!?" + b"\x89\x01p" + b"\x01\x01b" + b"\x80\x01c" + b"\xa2\x02!?"


@pytest.mark.parametrize("size", [LONG, LONG + 1])
def test_a_long_message_takes_several_steps(size: int) -> None:
    """Nothing is written, nor counted, before they are done and told."""
    outgoing, pieces = way(MARKING), list[bytes]()
    message = Frame.Binary(bytes(size))
    assert outgoing.add_now(message, pieces) is (size == LONG)
    if size == LONG:
        assert outgoing.frames_sent == 1
        return
    steps = outgoing.add(message, pieces)
    assert steps is not None
    assert (pieces, outgoing.frames_sent) == ([], 0)
    outgoing.finish(run(steps), pieces)
    assert b"".join(pieces) == head(0xA2, size + 1) + bytes(size) + b"!"
    assert outgoing.frames_sent == 1


def test_without_extensions_a_long_message_takes_one_step() -> None:
    """There is nothing to be done with it."""
    outgoing, pieces = way(), list[bytes]()
    assert outgoing.add_now(Frame.Binary(bytes(2 * LONG)), pieces)
    assert b"".join(pieces) == head(0x82, 2 * LONG) + bytes(2 * LONG)


@pytest.mark.parametrize(
    ("factories", "frames", "error"),
    [
        ([], [Frame.Text(b"\xff")], ProtocolError),
        ([], [Frame.Binary(b"", rsv1=True)], ProtocolError),
        ([], [Frame.Text("a", fin=False), Frame.Binary(b"b")], ProtocolError),
        ([MARKING], [Frame.Binary(b"", rsv2=True)], ProtocolError),
        ([MARKING], [Frame.Text(b"\xff")], UnicodeDecodeError),
        ([MARKING], [Frame.Text(b"x" * LONG + b"\xff")], UnicodeDecodeError),
        ([MARKING], [Frame.Text("a", fin=False), Frame.Binary(b"b")], ProtocolError),
    ],
)
def test_what_may_not_be_sent_is_refused(
    factories: list[ExtensionFactory], frames: list[Frame], error: type[Exception]
) -> None:
    """Nothing is appended, nor counted, then."""
    outgoing, pieces = way(*factories), list[bytes]()
    *before, bad = frames
    for frame in before:
        outgoing.add(frame, pieces)
    kept, count = list(pieces), outgoing.frames_sent
    with pytest.raises(error):
        outgoing.add(bad, pieces)
    assert (pieces, outgoing.frames_sent) == (kept, count)


def test_a_text_made_of_bytes_is_checked_before_an_extension_has_it() -> None:
    """Behind it nobody could tell; what is no UTF-8 is refused, and the window has not moved."""
    outgoing = way(PerMessageDeflate())
    reader = FrameReader(client=True, max_frame_size=100, extensions=agreed(PerMessageDeflate()))
    for text in (b"first", b"\xff", b"second"):
        pieces: list[bytes] = []
        if text == b"\xff":
            with pytest.raises(UnicodeDecodeError):
                outgoing.add(Frame.Text(text), pieces)
            assert pieces == []
        else:
            assert outgoing.add(Frame.Text(text), pieces) is None
            assert [Frame.Text(text)] == list(reader.feed(b"".join(pieces)))


# messages for many


def read(data: Iterable[bytes]) -> list[Frame | None]:
    """What a client with permessage-deflate reads."""
    reader = FrameReader(client=True, extensions=agreed(PerMessageDeflate()))
    return [frame for chunk in data for frame in reader.feed(chunk) if frame is not None]


def test_the_bytes_for_many_are_made_once() -> None:
    """For all whose extensions are alike, also among messages of their own."""
    message = PreparedMessage(Frame.Text("for all of you, for all of you"))
    ways = [way(PerMessageDeflate()) for _ in range(2)]
    own = Frame.Text("for you alone, for you alone")
    sent = [[written(one, item) for item in (own, message, own)] for one in ways]
    assert sent[0][1] == sent[1][1]
    assert message.is_prepared(ways[0].shared_key or ())
    for one, chunks in zip(ways, sent, strict=True):
        assert read(chunks) == [own, message.frame, own]
        assert one.frames_sent == 3


@pytest.mark.parametrize("why", ["a mask", "no key", "inside fragments"])
def test_where_the_bytes_for_many_may_not_stand_the_message_is_one_like_others(why: str) -> None:
    """Each mask is fresh, each such extension its own; and a fragment is no place for a message."""
    message = PreparedMessage(Frame.Binary(b"x"))
    outgoing = way(*[MARKING] * (why == "no key"), masking=why == "a mask")
    assert (outgoing.shared_key is None) is (why == "no key")
    before = Frame.Binary(b"", fin=False) if why == "inside fragments" else Frame.Ping()
    data = written(outgoing, before, message)
    assert not message.is_prepared(())
    if why == "a mask":
        assert data[6:8] == b"\x82\x81"
    else:
        assert data == (b"\x89\x00\xa2\x02x!" if why == "no key" else b"\x02\x00\x80\x01x")
    assert outgoing.frames_sent == 2


def test_a_long_message_for_many_is_prepared_in_steps() -> None:
    """By the first, for those like it; then it takes one step on each of them."""
    message = PreparedMessage(Frame.Binary(bytes(3 * LONG)))
    first, second, other = way(PerMessageDeflate()), way(PerMessageDeflate()), way(PerMessageDeflate(level=9))
    steps = first.preparing(message)
    assert steps is not None
    assert len(list(steps)) >= 3
    for one in (first, second):
        assert one.preparing(message) is None
        pieces: list[bytes] = []
        assert one.add_now(message, pieces)
        assert read(pieces) == [message.frame]
    assert other.preparing(message) is not None


def test_what_is_short_or_not_shared_needs_no_preparing() -> None:
    """It is done when it goes out."""
    assert way(PerMessageDeflate()).preparing(PreparedMessage(Frame.Binary(bytes(LONG)))) is None
    assert way(PerMessageDeflate()).preparing(PreparedMessage(Frame.Binary(bytes(LONG + 1)))) is not None
    assert way(MARKING).preparing(PreparedMessage(Frame.Binary(bytes(LONG + 1)))) is None
    masking = way(PerMessageDeflate(), masking=True)  # its bytes are nobody else's
    assert masking.preparing(PreparedMessage(Frame.Binary(bytes(LONG + 1)))) is None


def test_a_long_message_for_many_takes_several_steps_where_it_is_one_like_others() -> None:
    """Masked, or without a key."""
    message = PreparedMessage(Frame.Binary(bytes(LONG + 1)))
    for outgoing in (way(MARKING), way(PerMessageDeflate(), masking=True)):
        pieces: list[bytes] = []
        assert not outgoing.add_now(message, pieces)
        steps = outgoing.add(message, pieces)
        assert steps is not None
        outgoing.finish(run(steps), pieces)
        assert outgoing.frames_sent == 1


# whole messages in one step


@pytest.mark.parametrize("masking", [False, True])
def test_what_is_encoded_for_later_is_written_as_what_is_written_now(masking: bool) -> None:
    """A message of each kind and size, as `add` would have it."""
    now, later = (way(PerMessageDeflate(compress_if_bigger_than=3), masking=masking) for _ in range(2))
    messages = [Frame.Text("x" * 100), Frame.Binary(b""), Frame.Binary(b"yyy"), Frame.Text("x" * 100), Frame.Text("é")]
    encoded = [later.encode_now(message) for message in messages]
    assert [type(item) for item in encoded] == [type(message) for message in messages]
    reader, other = (FrameReader(client=not masking, reserved=RSV1) for _ in range(2))
    frames = list(other.feed(written(now, *messages)))
    assert (
        list(reader.feed(b"".join(later.serializer.joined([item for item in encoded if item is not None])))) == frames
    )
    assert len(frames) == len(messages)
    assert later.encode_now(Frame.Binary(bytes(LONG + 1))) is None


@pytest.mark.parametrize(
    ("made", "is_refused"),
    [
        (frame_from_wire(Frame.Text, 0x81 | RSV3, b"x"), True),
        (frame_from_wire(Frame.Text, 0x81 | RSV1, b"x"), True),
        (frame_from_wire(Frame.Text, 0x81, b"\xff"), True),
        (frame_from_wire(Frame.Close, 0x88, b"\x03\xed"), True),
        (frame_from_wire(Frame.Text, 0x81 | RSV2, b"\xff"), False),
        (frame_from_wire(Frame.Text, 0x81, b"x"), False),
        (frame_from_wire(Frame.Binary, 0x82, bytearray(b"x")), False),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_what_an_extension_made_is_judged(made: Frame, is_refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it was before, before anything is kept of it."""
    outgoing = way(MARKING)
    monkeypatch.setattr(type(outgoing.extensions[0]), "encode", lambda self, message: made)
    message = Frame.Binary(b"x") if made.first_byte == 0x82 else Frame.Text("x")
    if is_refused:
        with pytest.raises(ProtocolError):
            outgoing.encode_now(message)
        return
    item = outgoing.encode_now(message)
    assert item is not None
    expected = head(made.first_byte, len(made.data)) + made.data
    assert b"".join(outgoing.serializer.joined([item])) == expected
    assert b"".join(outgoing.serializer.pieces_of(item)) == expected


@pytest.mark.parametrize(
    ("made", "is_torn"),
    [
        (Frame.Text("x"), False),
        (frame_from_wire(Frame.Text, 0x81 | RSV2, b"x"), False),
        (frame_from_wire(Frame.Text, 0x81 | RSV3, b"x"), True),
    ],
    ids=repr,
)
@pytest.mark.parametrize("way_out", ["add", "encode_now", "steps"])
def test_the_way_is_torn_by_what_fails_once_an_extension_has_it(
    made: Frame, is_torn: bool, way_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is written, or given back for that; not by what fails before."""
    outgoing = way(MARKING)
    seen = [outgoing.is_torn]

    def encode(_extension: Extension, _message: Frame) -> Frame:
        seen.append(outgoing.is_torn)
        return made

    monkeypatch.setattr(type(outgoing.extensions[0]), "encode", encode)
    with pytest.raises(UnicodeDecodeError):
        outgoing.add(Frame.Text(b"\xff"), [])
    seen.append(outgoing.is_torn)
    with pytest.raises(ProtocolError) if is_torn else nullcontext():
        if way_out == "encode_now":
            outgoing.encode_now(Frame.Text("x"))
        else:
            steps = outgoing.add(Frame.Text("x" * (LONG + 1 if way_out == "steps" else 1)), [])
            if steps is not None:
                outgoing.finish(run(steps), [])
    assert seen == [False, False, True]
    assert outgoing.is_torn == is_torn
