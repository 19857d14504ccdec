"""A message for many sessions: made bytes once for all that are alike, and told to every connection."""

from __future__ import annotations

from collections.abc import Hashable

import pytest

from trioktor.protocol.errors import ProtocolError
from trioktor.protocol.extension_header import ExtensionHeader
from trioktor.protocol.extensions import Extension, ExtensionFactory
from trioktor.protocol.frames import Frame
from trioktor.protocol.from_wire import frame_from_wire
from trioktor.protocol.prepared import PreparedMessage, shared_key


class Nothing(ExtensionFactory):
    """A factory whose extensions are made by hand."""

    name = None

    def negotiate(self, offer: ExtensionHeader) -> tuple[ExtensionHeader, Extension] | None:
        """Nobody asks."""
        return None


class Lettering(Extension):
    """Appends its letter, and notes what it is asked and told."""

    def __init__(self, letter: bytes, key: Hashable = "same", *, bits: int = 0) -> None:
        super().__init__(Nothing())
        self.letter = letter
        self.key = key
        self.bits = bits
        self.heard: list[str] = []

    @property
    def shared_key(self) -> Hashable:
        """As it was given."""
        return self.key

    def encode(self, message: Frame) -> Frame:
        """Not for a message that many get."""
        raise AssertionError("a message for many does not depend on a connection")

    def encode_alone(self, message: Frame) -> Frame:
        """Append the letter."""
        self.heard.append("alone")
        return frame_from_wire(type(message), message.first_byte | self.bits, message.data + self.letter)

    def encoded_elsewhere(self) -> None:
        """Note it."""
        self.heard.append("elsewhere")


@pytest.mark.parametrize(
    ("keys", "key"),
    [([], ()), (["a"], ("a",)), (["a", 2], ("a", 2)), ([None], None), (["a", None], None), ([None, "a"], None)],
)
def test_a_key_says_who_is_alike(keys: list[Hashable], key: tuple[Hashable, ...] | None) -> None:
    """All without extensions are; none with one that cannot be shared."""
    assert shared_key([Lettering(b"", one) for one in keys]) == key


def test_the_message_is_shown_as_it_was_given() -> None:
    """The frame itself, and its payload."""
    frame = Frame.Text("hi")
    message = PreparedMessage(frame)
    assert message.frame is frame
    assert message.data == b"hi"
    assert not message.is_prepared(())


@pytest.mark.parametrize(
    ("frame", "wire"),
    [
        (Frame.Text("hi"), b"\x81\x02hi"),
        (Frame.Text(""), b"\x81\x00"),
        (Frame.Binary(bytes(300)), b"\x82\x7e\x01\x2c" + bytes(300)),
    ],
)
def test_without_extensions_it_is_the_same_for_all(frame: Frame, wire: bytes) -> None:
    """Never masked; made once."""
    message = PreparedMessage(frame)
    first = message.wire((), [])
    assert first == wire
    assert message.is_prepared(())
    assert message.wire((), []) is first


def test_extensions_work_in_their_order_once_for_those_that_are_alike() -> None:
    """Every one is told that the message went out, also where the bytes were there."""
    message = PreparedMessage(Frame.Binary(b"m"))
    ours = [Lettering(b"1"), Lettering(b"2", bits=0x40)]
    others = [Lettering(b"1"), Lettering(b"2", bits=0x40)]
    first = message.wire(("same", "same"), ours)
    assert first == b"\xc2\x03m12"
    assert message.wire(("same", "same"), others) is first
    assert [one.heard for one in ours] == [["alone", "elsewhere"]] * 2
    assert [one.heard for one in others] == [["elsewhere"]] * 2


def test_each_key_has_its_bytes() -> None:
    """Those of one are not given to another."""
    message = PreparedMessage(Frame.Binary(b"m"))
    assert message.wire(("a",), [Lettering(b"a", "a")]) == b"\x82\x02ma"
    assert not message.is_prepared(("b",))
    assert message.wire(("b",), [Lettering(b"b", "b")]) == b"\x82\x02mb"
    assert message.wire((), []) == b"\x82\x01m"
    assert message.wire(("a",), [Lettering(b"a", "a")]) == b"\x82\x02ma"


def test_it_may_be_prepared_before_it_is_wanted() -> None:
    """By whoever compressed it in steps; any reserved bit is an extension's."""
    message = PreparedMessage(Frame.Text("hi"))
    wire = message.prepare(("same",), frame_from_wire(Frame.Text, 0xF1, b"\xff"))
    assert wire == b"\xf1\x01\xff"
    assert message.is_prepared(("same",))
    one = Lettering(b"!")
    assert message.wire(("same",), [one]) is wire
    assert one.heard == ["elsewhere"]


def test_what_may_not_be_sent_is_refused() -> None:
    """Nothing is kept of it, and nobody is told that it went out."""
    message = PreparedMessage(Frame.Text(b"\xff"))
    one = Lettering(b"!")
    with pytest.raises(ProtocolError, match="not UTF-8"):
        message.wire(("same",), [one])
    assert not message.is_prepared(("same",))
    assert one.heard == ["alone"]
