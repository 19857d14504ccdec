"""What may be put into `outgoing`: the frame that says it, or why there is none."""

from __future__ import annotations

import pytest

from trioktor import CloseReason, Frame
from trioktor.engine.items import as_frame
from trioktor.engine.streamed import StreamedMessage
from trioktor.protocol.prepared import PreparedMessage


@pytest.mark.parametrize(
    "frame",
    [
        Frame.Text(""),
        Frame.Text("half", fin=False),
        Frame.Binary(b"bits", rsv1=True),
        Frame.Close(CloseReason(1000)),
        Frame.Ping(b"1"),
        Frame.Pong(),
    ],
    ids=repr,
)
def test_a_frame_says_itself(frame: Frame) -> None:
    """The very same one, whatever its kind."""
    assert as_frame(frame) is frame


@pytest.mark.parametrize("text", ["", "hello", "žluťoučký 🐎"])
def test_a_str_is_a_whole_text(text: str) -> None:
    """And may be empty."""
    frame = as_frame(text)
    assert frame == Frame.Text(text)
    assert frame.fin


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\xff", bytearray(b"abc"), memoryview(b"abcd")[1:3]],
    ids=["empty", "bytes", "bytearray", "memoryview"],
)
def test_bytes_of_each_kind_are_a_whole_binary(data: bytes | bytearray | memoryview) -> None:
    """Also where they would be a text."""
    frame = as_frame(data)
    assert frame == Frame.Binary(bytes(data))
    assert frame.fin


def test_bytes_that_are_changed_afterwards_are_said_as_they_were() -> None:
    """The frame has its own."""
    data = bytearray(b"before")
    frame = as_frame(data)
    data[:] = b"after"
    assert frame.data == b"before"


@pytest.mark.parametrize(
    ("message", "name"),
    [
        (None, "NoneType"),
        (1, "int"),
        (["text"], "list"),
        (Frame, "type"),
        (PreparedMessage(Frame.Text("many")), "PreparedMessage"),
    ],
    ids=repr,
)
def test_nothing_else_is_a_message(message: object, name: str) -> None:
    """The error says what it was."""
    with pytest.raises(TypeError, match=f"a message is a Frame, str or bytes, not {name}$"):
        as_frame(message)


async def test_a_message_in_pieces_is_no_message_that_is_said_at_once() -> None:
    """The queue holds it, but no frame says it."""
    with pytest.raises(TypeError, match=r"not StreamedMessage$"):
        as_frame(StreamedMessage())


def test_a_text_that_cannot_be_said_is_refused() -> None:
    """UTF-8 has no half characters."""
    with pytest.raises(ValueError, match="surrogates"):
        as_frame("\ud800")
