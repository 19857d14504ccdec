"""Extensions at work: what each may do, in which order, and what comes of them on the wire."""

from __future__ import annotations

import pytest

from tests.support.extensions import Marker, Marking, deflated
from tests.support.reading import FrameReader
from trioktor import WebSockets
from trioktor.protocol.deflate import PerMessageDeflate
from trioktor.protocol.errors import FrameTooBig
from trioktor.protocol.extension_header import ExtensionHeader
from trioktor.protocol.extensions import (
    Extension,
    ExtensionFactory,
    encode_alone_in_steps,
    encode_in_steps,
    reserved_bits,
    run,
)
from trioktor.protocol.first_byte import RSV1, RSV2, RSV3
from trioktor.protocol.frames import Frame
from trioktor.protocol.negotiation import negotiate
from trioktor.protocol.serializer import head


def test_fragments_of_the_rfc_are_one_message() -> None:
    """T629, RFC 7692 §7.2.3.1: the bit is on the first only; a Ping between them stays where it was."""
    _, extensions = negotiate([PerMessageDeflate()], ["permessage-deflate"])
    frames = FrameReader(client=True, max_frame_size=100, extensions=extensions)
    wire = bytes.fromhex("4103f248cd 890169 8004c9c90700")
    whole = [frame for frame in frames.feed(wire) if frame is not None]
    assert [Frame.Ping(b"i"), Frame.Text("Hello")] == whole
    assert "Hello" == whole[1].decoded
    for byte in range(len(wire)):
        list(frames.feed(wire[byte : byte + 1]))


def test_encoding_is_in_the_order_of_installation_and_decoding_in_reverse() -> None:
    """R18, RFC 6455 §9.1: whatever the order of the offers; one without a name is always on."""
    factories = [Marking("first", RSV1, "1"), Marking(None, 0, "a"), Marking("second", RSV2 | RSV3, "2")]
    answers, extensions = negotiate(factories, ["second, first"])
    assert ["first", "second"] == [str(answer) for answer in answers]
    assert RSV1 | RSV2 | RSV3 == reserved_bits(extensions)
    encoded = run(encode_in_steps(extensions, Frame.Text("m")))
    assert b"m1a2" == encoded.data
    frames = FrameReader(client=True, max_frame_size=100, extensions=extensions)
    assert [Frame.Text("m")] == list(frames.feed(b"\xf1\x04m1a2"))
    _, alone = negotiate(factories, [])
    assert [None] == [extension.factory.name for extension in alone]


@pytest.mark.parametrize("message", ["m", "maa"])
def test_each_extension_reads_a_message_once(message: str) -> None:
    """Also one that is always on, so that no bit says whether it has."""
    _, extensions = negotiate([Marking("first", RSV1, "1"), Marking(None, 0, "a")], ["first"])
    encoded = run(encode_in_steps(extensions, Frame.Text(message)))
    frames = FrameReader(client=True, max_frame_size=100, extensions=extensions)
    assert [Frame.Text(message)] == list(frames.feed(head(encoded.first_byte, len(encoded.data)) + encoded.data))


def test_two_without_a_name_may_be_installed() -> None:
    """Pass-throughs have nothing to conflict about."""
    factories = [Marking(None, 0), Marking(None, 0), PerMessageDeflate()]
    assert factories == list(WebSockets(extensions=factories).extensions)


class Passing(ExtensionFactory):
    """Always on, unless it is told not to be; does nothing."""

    name = None

    def __init__(self, *, is_on: bool = True) -> None:
        self.is_on = is_on

    def negotiate(self, offer: ExtensionHeader) -> tuple[ExtensionHeader, Extension] | None:
        """Agree, or decline."""
        return (offer, Extension(self)) if self.is_on else None


def test_an_extension_lets_everything_pass_by_itself() -> None:
    """In one go or in steps, shared or not; and it shares with nobody."""
    _, (extension,) = negotiate([Passing()], [])
    message = Frame.Text("as it was")
    assert message is extension.encode(message)
    assert message is extension.decode(message, 1)
    assert message is extension.encode_alone(message)
    assert message is run(extension.encode_in_steps(message))
    assert message is run(extension.decode_in_steps(message, 1))
    assert message is run(encode_alone_in_steps([extension], message))
    assert message is run(encode_in_steps([extension], message))
    assert extension.shared_key is None
    extension.encoded_elsewhere()


def test_an_extension_without_a_name_may_stay_off() -> None:
    """It declines like any other."""
    assert ([], ()) == negotiate([Passing(is_on=False)], ["anything"])


def test_pieces_that_an_extension_reads_keep_the_limit() -> None:
    """While streaming they are joined, but never beyond it."""
    reader = FrameReader(client=True, pieces=True, max_frame_size=10, reserved=RSV1)
    assert [] == list(reader.feed(b"\x41\x06" + bytes(6)))
    with pytest.raises(FrameTooBig):
        list(reader.feed(b"\x80\x45" + bytes(69)))


@pytest.mark.parametrize("size", [99, 100, 101, 150])
def test_what_an_extension_gives_keeps_the_limit(size: int) -> None:
    """Whatever it is, and whether it looks at it: only what it made may be longer."""
    factory = Marking("marking", RSV2, "x")
    reader = FrameReader(client=True, extensions=(Marker(factory),), max_frame_size=100, reserved=RSV2)
    wire = b"m" * size + b"x"
    frames = reader.feed(head(0x82 | RSV2, len(wire)) + wire)
    if size <= 100:
        assert [Frame.Binary(b"m" * size)] == list(frames)
    else:
        with pytest.raises(FrameTooBig):
            list(frames)


def test_what_takes_steps_goes_on_through_the_others() -> None:
    """Behind a long message that is inflated in steps, those whose bit is set, or that have none, have their turn."""
    for name, own, expected in (("other", RSV2, b"x" * 100_000), (None, 0, b"x" * 99_999)):
        factories = [Marking(name, own, "x"), PerMessageDeflate()]
        _, extensions = negotiate(factories, ["other, permessage-deflate"])
        reader = FrameReader(client=True, extensions=extensions)
        wire = deflated(b"x" * 100_000)
        [message] = [frame for frame in reader.feed(head(0xC2, len(wire)) + wire) if frame is not None]
        assert expected == message.data
