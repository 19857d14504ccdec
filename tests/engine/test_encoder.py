"""Items of the outbox become bytes, and what may not be sent is told."""

from __future__ import annotations

from typing import Any, final

import pytest
from hypothesis import given, strategies as st

from tests.support.reading import FrameReader
from trioktor import Extension, ExtensionFactory, ExtensionHeader, Frame
from trioktor.engine.encoder import Encoder
from trioktor.protocol.close import CloseReason
from trioktor.protocol.conversation import Conversation
from trioktor.protocol.errors import ProtocolError
from trioktor.protocol.outgoing import LONG
from trioktor.protocol.prepared import PreparedMessage
from trioktor.protocol.raw_conversation import RawConversation

CLOSE = Frame.Close(CloseReason(4000, "enough"))


@final
class Ends:
    """What may end the conversation, and what was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.refusal: Exception | None = None

    def close_frame_sent(self, frame: Frame) -> None:
        """A Close came out of the channel; it may be one that may not be sent."""
        self.told.append(frame)
        if self.refusal is not None:
            raise self.refusal

    def misused(self, error: ProtocolError, *, is_writing: bool) -> None:
        """The application's fault."""
        self.told.append(error)
        self.is_at_once = is_writing

    def crashed(self, error: Exception, *, is_writing: bool) -> None:
        """An extension's."""
        self.told.append(error)
        self.is_at_once = is_writing

    def overflowed(self) -> None:
        """Not an encoder's business."""
        raise NotImplementedError


@final
class Factory(ExtensionFactory):
    """Makes an extension that works in two steps, and fails at what says so."""

    name = None

    def negotiate(self, offer: ExtensionHeader) -> tuple[ExtensionHeader, Extension]:
        """Always on."""
        return offer, Doubling(self)


@final
class Doubling(Extension):
    """Says everything twice."""

    failure: Exception | None = None

    def encode(self, message: Frame) -> Frame:
        """At once."""
        if self.failure is not None:
            raise self.failure
        return Frame.Binary(message.data * 2)

    def encode_in_steps(self, message: Frame) -> Any:
        """With a pause."""
        yield
        return self.encode(message)


def doubling(failure: Exception | None = None) -> Conversation:
    """A conversation with that extension at work."""
    extension = Doubling(Factory())
    extension.failure = failure
    return Conversation(extensions=(extension,))


def read(pieces: list[bytes]) -> list[Frame | None]:
    """The frames that pieces are."""
    return list(FrameReader(client=True, raw=True).feed(b"".join(pieces)))


@pytest.mark.parametrize(
    ("item", "frame"),
    [
        ("text", Frame.Text("text")),
        (b"bytes", Frame.Binary(b"bytes")),
        (bytearray(b"bytes"), Frame.Binary(b"bytes")),
        (memoryview(b"bytes"), Frame.Binary(b"bytes")),
        ("", Frame.Text("")),
        (Frame.Text("frame"), Frame.Text("frame")),
        (Frame.Text("begins", fin=False), Frame.Text("begins", fin=False)),
        (PreparedMessage(Frame.Text("for many")), Frame.Text("for many")),
    ],
)
def test_whatever_is_a_message_becomes_its_bytes(item: Any, frame: Frame) -> None:
    """Behind what was gathered before, in one step."""
    ends, conversation, pieces = Ends(), Conversation(), [b"\x81\x01x"]
    encoder = Encoder(ends, conversation)
    encoder.add(item, pieces, 0, is_sealed=False)
    assert read(pieces) == [Frame.Text("x"), frame]
    assert (encoder.steps, ends.told, conversation.outgoing.frames_sent) == (None, [], 1)


@pytest.mark.parametrize("item", [None, 42, ["text"], "\ud800"])
def test_what_is_no_message_is_a_misuse(item: Any) -> None:
    """It is named, and nothing goes out for it."""
    ends, pieces = Ends(), [b"before"]
    Encoder(ends, Conversation()).add(item, pieces, 0, is_sealed=False)
    (error,) = ends.told
    assert isinstance(error, ProtocolError)
    assert str(error).startswith(f"{item!r}: ")
    assert pieces == [b"before"]


def test_a_long_item_is_named_by_its_beginning() -> None:
    """The log holds no whole message."""
    ends = Ends()
    Encoder(ends, Conversation()).add(["x" * 5000], [], 0, is_sealed=False)  # type: ignore[arg-type]
    (error,) = ends.told
    assert len(str(error)) < 200


def test_what_the_protocol_forbids_is_told_as_it_is() -> None:
    """A message inside another one's fragments."""
    ends, pieces = Ends(), list[bytes]()
    encoder = Encoder(ends, Conversation())
    for frame in (Frame.Text("begins", fin=False), Frame.Binary(b"inside"), Frame.Text("ends")):
        encoder.add(frame, pieces, 0, is_sealed=False)
    assert [type(error) for error in ends.told] == [ProtocolError]
    assert read(pieces) == [Frame.Text("begins", fin=False), Frame.Text("ends")]


# control frames


Kinds = list[str]


@given(
    kinds=st.lists(st.sampled_from(["data", "ping", "pong"]), max_size=10),
    is_sealed=st.booleans(),
    is_raw=st.booleans(),
)
def test_control_frames_go_ahead_of_what_was_gathered_with_them(kinds: Kinds, is_sealed: bool, is_raw: bool) -> None:
    """In their order; but not in a raw session, whose order is the application's, nor behind the end."""
    make: dict[str, Any] = {"data": Frame.Binary, "ping": Frame.Ping, "pong": Frame.Pong}
    encoder = Encoder(Ends(), RawConversation() if is_raw else Conversation())
    pieces: list[bytes] = []
    expected: list[Frame] = []
    ahead = 0
    for number, kind in enumerate(kinds):
        frame = make[kind](b"%d" % number)
        ahead = encoder.add(frame, pieces, ahead, is_sealed=is_sealed)
        if kind == "data" or is_sealed or is_raw:
            expected.append(frame)
        else:
            expected.insert(sum(isinstance(one, (Frame.Ping, Frame.Pong)) for one in expected), frame)
    assert read(pieces) == expected


def test_a_close_begins_the_end_instead_of_going_out() -> None:
    """It is the same as closing the session; once the outbox is sealed it is the Close that is due."""
    ends, pieces = Ends(), list[bytes]()
    encoder = Encoder(ends, Conversation())
    encoder.add("first", pieces, 0, is_sealed=False)
    encoder.add(CLOSE, pieces, 0, is_sealed=False)
    assert (ends.told, read(pieces)) == ([CLOSE], [Frame.Text("first")])
    encoder.add(CLOSE, pieces, 0, is_sealed=True)
    assert (ends.told, read(pieces)) == ([CLOSE], [Frame.Text("first"), CLOSE])


@pytest.mark.parametrize("refusal", [ProtocolError("no such code"), ValueError("no such code")])
def test_a_close_that_may_not_be_said_is_a_misuse(refusal: Exception) -> None:
    """A protocol error is told as itself, another as one."""
    ends = Ends()
    ends.refusal = refusal
    Encoder(ends, Conversation()).add(CLOSE, [], 0, is_sealed=False)
    _, error = ends.told
    assert isinstance(error, ProtocolError)
    assert (error is refusal) is isinstance(refusal, ProtocolError)
    assert "no such code" in str(error)


# extensions


def test_a_short_message_passes_its_extensions_at_once() -> None:
    """And what is longest of those, too."""
    pieces: list[bytes] = []
    encoder = Encoder(Ends(), doubling())
    encoder.add(bytes(LONG), pieces, 0, is_sealed=False)
    assert encoder.steps is None
    assert read(pieces) == [Frame.Binary(bytes(2 * LONG))]


def test_a_long_message_passes_its_extensions_in_steps() -> None:
    """Nothing goes out before they are done; then it stands behind what was gathered before."""
    conversation, pieces = doubling(), list[bytes]()
    encoder = Encoder(Ends(), conversation)
    encoder.add("short", pieces, 0, is_sealed=False)
    encoder.add(b"0123456789" * LONG, pieces, 0, is_sealed=False)
    counts = []
    while encoder.steps is not None:
        counts.append(len(read(pieces)))
        encoder.step(pieces, is_sealed=False)
    assert counts == [1, 1]
    assert read(pieces) == [Frame.Binary(b"shortshort"), Frame.Binary(b"0123456789" * 2 * LONG)]
    assert conversation.outgoing.frames_sent == 2


@pytest.mark.parametrize("size", [10, LONG + 1])
@pytest.mark.parametrize("is_sealed", [False, True])
@pytest.mark.parametrize("failure", [ProtocolError("mine"), ValueError("mine"), TypeError("mine"), KeyError("mine")])
def test_an_extension_that_fails_ends_the_conversation(failure: Exception, is_sealed: bool, size: int) -> None:
    """As a fault of its own, or as a message that it can't say; at once, or in the middle of the steps."""
    ends, pieces = Ends(), list[bytes]()
    encoder = Encoder(ends, doubling(failure))
    encoder.add(bytes(size), pieces, 0, is_sealed=is_sealed)
    while encoder.steps is not None:
        assert ends.told == []
        encoder.step(pieces, is_sealed=is_sealed)
    (error,) = ends.told
    assert ends.is_at_once is is_sealed  # nothing goes out behind it that could show that it is missing
    assert pieces == []
    if isinstance(failure, (ProtocolError, KeyError)):
        assert error is failure
    else:
        assert isinstance(error, ProtocolError)
        assert str(error).endswith(": mine")
