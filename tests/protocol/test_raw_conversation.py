"""A raw conversation: every frame is shown as it came, nothing is answered, and a bad one ends it."""

from __future__ import annotations

import pytest

from tests.support.extensions import Marking
from tests.support.helpers import client_bytes, masked
from trioktor.protocol.close import CloseReason
from trioktor.protocol.errors import ProtocolError
from trioktor.protocol.first_byte import RSV1
from trioktor.protocol.frames import Frame
from trioktor.protocol.negotiation import negotiate
from trioktor.protocol.raw_conversation import RawConversation

HELLO = Frame.Text("hello")


def received(conversation: RawConversation, data: bytes) -> list[Frame | None]:
    """What bytes give."""
    return list(conversation.receive(data))


@pytest.mark.parametrize("cut", [1, 3, 1 << 20])
def test_frames_are_shown_as_they_come(cut: int) -> None:
    """Fragments and control frames among them, each in its place; nothing is owed for them."""
    data = masked(0x01, b"hel") + client_bytes(Frame.Ping(b"?")) + masked(0x00, b"l") + masked(0x80, b"o")
    data += client_bytes(Frame.Pong(b"!"), Frame.Binary(b"x"))
    conversation = RawConversation()
    frames = [
        frame for start in range(0, len(data), cut) for frame in received(conversation, data[start : start + cut])
    ]
    assert frames == [
        Frame.Text("hel", fin=False),
        Frame.Ping(b"?"),
        Frame.Text("l", fin=False),
        Frame.Text("o"),
        Frame.Pong(b"!"),
        Frame.Binary(b"x"),
    ]
    assert (conversation.frames_received, conversation.has_control) == (6, False)
    assert (conversation.has_news, conversation.closing.word) == (False, "OPEN")


def test_text_is_not_judged() -> None:
    """That is the application's; a fragment may end in the middle of a character."""
    frames = received(RawConversation(), masked(0x81, b"\xff") + masked(0x01, b"\xe2"))
    assert [frame.data for frame in frames if frame is not None] == [b"\xff", b"\xe2"]


def test_the_limit_is_for_each_frame_alone() -> None:
    """Not for a message; and fragments are not counted."""
    conversation = RawConversation(max_frame_size=3, max_fragments=0)
    assert len(received(conversation, masked(0x02, b"abc") + masked(0x00, b"abc") * 50)) == 51
    assert received(conversation, masked(0x00, b"abcd")) == []
    assert conversation.closing.reason == CloseReason(1009)


def test_a_close_is_shown_and_ends_the_reading() -> None:
    """It is known as the peer's; what stands behind it is not looked at."""
    conversation = RawConversation()
    close = Frame.Close(CloseReason(4000, "bye"))
    assert received(conversation, client_bytes(HELLO, close, HELLO) + b"\xff") == [HELLO, close]
    closing = conversation.closing
    assert (closing.received, closing.word, closing.goodbye) == (CloseReason(4000, "bye"), "ANSWERING", None)
    assert (conversation.frames_received, conversation.has_news) == (2, True)


def test_a_close_is_shown_before_it_counts() -> None:
    """Whoever has no room for it is not told of the end yet."""
    conversation = RawConversation()
    frames = conversation.receive(client_bytes(Frame.Close()))
    assert next(frames) == Frame.Close()
    assert not conversation.closing.is_over
    assert list(frames) == []
    assert conversation.closing.received == CloseReason(1005)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\xff\xff", 1002),
        (masked(0x80, b""), 1002),
        (masked(0x88, b"\x03"), 1002),
        (masked(0x88, b"\x03\xed"), 1002),
        (masked(0x88, b"\x03\xe8\xff"), 1007),
        (masked(0xC1, b"x"), 1002),
    ],
)
def test_a_broken_rule_ends_it(data: bytes, code: int) -> None:
    """What came before is given; the bad frame is not, nor counted, and nothing is raised."""
    conversation = RawConversation()
    assert received(conversation, client_bytes(HELLO) + data) == [HELLO]
    closing = conversation.closing
    assert (closing.reason, closing.word) == (CloseReason(code), "FAILING")
    assert isinstance(closing.cause, ProtocolError)
    assert (conversation.frames_received, conversation.has_news) == (1, True)


def test_extensions_own_their_bits_and_read_nothing() -> None:
    """The application sees what is on the wire."""
    _, extensions = negotiate([Marking("marking", RSV1)], ["marking"])
    conversation = RawConversation(extensions=extensions)
    frame = Frame.Text("hellox", rsv1=True)
    assert received(conversation, masked(0xC1, b"hellox")) == [frame]
    pieces: list[bytes] = []
    assert conversation.outgoing.add(frame, pieces) is None
    assert b"".join(pieces) == b"\xc1\x06hellox"


def test_nothing_is_parsed_before_it_is_asked_for() -> None:
    """A suspended iterator holds the rest back."""
    conversation = RawConversation()
    frames = conversation.receive(client_bytes(HELLO, Frame.Ping()) + b"\xff\xff")
    assert [next(frames), next(frames)] == [HELLO, Frame.Ping()]
    assert conversation.closing.is_open
    assert list(frames) == []
    assert not conversation.closing.is_open
