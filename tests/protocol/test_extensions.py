"""Extensions, pure: the header's grammar, negotiation as one table, and the codec byte by byte."""

from __future__ import annotations

import os
import random
import tracemalloc
import zlib
from typing import Any

import attrs
import pytest
from hypothesis import given, settings, strategies as st

from tests.support.reading import FrameReader
from trioktor import WebSockets
from trioktor.protocol.deflate import Deflate, PerMessageDeflate
from trioktor.protocol.errors import FrameTooBig, ProtocolError
from trioktor.protocol.extension_header import ExtensionHeader, parse_extensions
from trioktor.protocol.extensions import (
    Extension,
    ExtensionFactory,
    encode,
    encode_alone_in_steps,
    encode_in_steps,
    reserved_bits,
    run,
)
from trioktor.protocol.first_byte import RSV1, RSV2, RSV3
from trioktor.protocol.frames import Frame
from trioktor.protocol.from_wire import frame_from_wire
from trioktor.protocol.inflate import SLICE
from trioktor.protocol.negotiation import check_factories, negotiate
from trioktor.protocol.outgoing import Outgoing
from trioktor.protocol.serializer import Serializer, head


def header(name: str, *parameters: str) -> ExtensionHeader:
    """A header from `name=value` strings."""
    pairs = [parameter.partition("=") for parameter in parameters]
    return ExtensionHeader(name, tuple((key, value if equals else None) for key, equals, value in pairs))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["superspeed, colormode; depth=16"], [header("superspeed"), header("colormode", "depth=16")]),
        ([" a ;b = 1 ; c,, ,d"], [header("a", "b=1", "c"), header("d")]),
        (['a; b="1"; c="\\x\\y"'], [header("a", "b=1", "c=xy")]),
        (["a", "b; c", ""], [header("a"), header("b", "c")]),
        (["a; b; b"], [header("a", "b", "b")]),
        (["good", "fine"], [header("good"), header("fine")]),
        ([], []),
    ],
)
def test_the_grammar_of_the_header(lines: list[str], expected: list[ExtensionHeader]) -> None:
    """T623: several lines, quoted values, odd spaces."""
    assert expected == parse_extensions(lines)


@pytest.mark.parametrize(
    "line",
    ["bad;", "a; =1", "a; b=", 'a; b=""', 'a; b="two words"', 'a; b="open', "a b", "a; b=c d", "=;,", "é", '"a"'],
)
def test_a_line_that_breaks_the_grammar_is_an_error(line: str) -> None:
    """RFC 6455 §9.1: not silence. Also beside good lines, and where no extension is installed."""
    for lines in ([line], ["good", line], [line, "good"]):
        with pytest.raises(ValueError):
            parse_extensions(lines)
        for factories in ([], [PerMessageDeflate()]):
            with pytest.raises(ValueError):
                negotiate(factories, lines)


def test_a_header_is_written_as_it_is_read() -> None:
    """Ktor's has a space at its end; ours has none."""
    for text in ("a", "a; b; c=1"):
        assert text == str(parse_extensions([text])[0])


@given(st.text(max_size=200) | st.text('ab;,= "\\\t', max_size=30))
def test_every_header_is_read_or_refused(line: str) -> None:
    """Whatever a client writes is offers, or an error of one kind; what was read is read again as the same."""
    try:
        offers = parse_extensions([line])
    except ValueError:
        return
    assert offers == parse_extensions([str(offer) for offer in offers])
    answers, extensions = negotiate([PerMessageDeflate()], [line])
    assert len(answers) == len(extensions) <= 1


NAME = "permessage-deflate"
TABLE: list[tuple[dict[str, Any], list[str], str | None]] = [
    ({}, [], None),
    ({}, [NAME], NAME),
    ({}, ["x-webkit-deflate-frame, " + NAME], NAME),
    ({}, [NAME + "; server_no_context_takeover"], NAME + "; server_no_context_takeover"),
    ({}, [NAME + "; client_no_context_takeover"], NAME + "; client_no_context_takeover"),
    ({}, [NAME + "; client_max_window_bits"], NAME),
    ({}, [NAME + "; client_max_window_bits=8"], NAME),
    ({}, [NAME + "; client_max_window_bits=15"], NAME),
    ({}, [NAME + '; client_max_window_bits="10"'], NAME),
    ({}, [NAME + "; server_max_window_bits=9"], NAME + "; server_max_window_bits=9"),
    ({}, [NAME + "; server_max_window_bits=15"], NAME + "; server_max_window_bits=15"),
    ({}, [NAME + "; server_max_window_bits=8"], None),
    ({}, [NAME + "; server_max_window_bits=8, " + NAME], NAME),
    ({}, [NAME + "; server_max_window_bits=8", NAME + "; client_max_window_bits"], NAME),
    *[({}, [f"{NAME}; server_max_window_bits{value}"], None) for value in ("", "=7", "=16", "=08", "=x", "=+9")],
    *[({}, [f"{NAME}; client_max_window_bits={value}"], None) for value in ("7", "16", "08", "x", "-9", "99999999999")],
    ({}, [NAME + "; server_no_context_takeover=1"], None),
    ({}, [NAME + "; client_no_context_takeover=true"], None),
    ({}, [NAME + "; unknown"], None),
    ({}, [NAME + "; unknown, " + NAME], NAME),
    ({}, [NAME + "; client_max_window_bits; client_max_window_bits"], None),
    ({}, [NAME + "; server_no_context_takeover; server_no_context_takeover"], None),
    ({}, ["PERMESSAGE-DEFLATE"], None),
    ({}, [NAME + ", " + NAME], NAME),
    ({"server_no_context_takeover": True}, [NAME], NAME),
    ({"client_no_context_takeover": True}, [NAME], NAME + "; client_no_context_takeover"),
    ({"window_bits": 9}, [NAME + "; server_max_window_bits=15"], NAME + "; server_max_window_bits=15"),
    (
        {"client_no_context_takeover": True},
        [NAME + "; client_no_context_takeover; client_max_window_bits; server_max_window_bits=10"],
        NAME + "; client_no_context_takeover; server_max_window_bits=10",
    ),
]


@pytest.mark.parametrize(("config", "offers", "answer"), TABLE)
def test_offers_and_answers(config: dict[str, Any], offers: list[str], answer: str | None) -> None:
    """R15, R19, T626, T627, T628: what is legal and possible is accepted, word for word, and nothing is added."""
    for _ in range(2):  # T628: a factory may be asked as often as one likes
        answers, extensions = negotiate([PerMessageDeflate(**config)], offers)
        assert (answer or "") == ", ".join(map(str, answers))
        assert (answer is not None) == bool(extensions)


def codec(offer: str = NAME, **config: object) -> Deflate:
    """A codec as it comes out of a negotiation."""
    _, extensions = negotiate([PerMessageDeflate(**config)], [offer])  # type: ignore[arg-type]
    assert isinstance(extensions[0], Deflate)
    return extensions[0]


def packed(data: bytes, kind: type[Frame] = Frame.Text) -> Frame:
    """A compressed message as it comes from the wire."""
    return frame_from_wire(kind, 0x80 | RSV1 | kind.type.opcode, data)


def packed_alone(data: bytes) -> bytes:
    """What bytes are compressed to, with a window of their own."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


HELLO = bytes.fromhex("f248cdc9c90700")
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
    deflate = codec()
    decoded = [deflate.decode(packed(bytes.fromhex(payload)), 100) for payload in payloads]
    assert [Frame.Text(text) for text in texts] == decoded


def test_fragments_of_the_rfc_are_one_message() -> None:
    """T629, RFC 7692 §7.2.3.1: the bit is on the first only; a Ping between them stays where it was."""
    deflate = codec()
    frames = FrameReader(client=True, max_frame_size=100, extensions=(deflate,))
    wire = bytes.fromhex("4103f248cd 890169 8004c9c90700")
    whole = [frame for frame in frames.feed(wire) if frame is not None]
    assert [Frame.Ping(b"i"), Frame.Text("Hello")] == whole
    assert "Hello" == whole[1].decoded
    for byte in range(len(wire)):
        list(frames.feed(wire[byte : byte + 1]))


@pytest.mark.parametrize("offer", [NAME, NAME + "; server_no_context_takeover; client_no_context_takeover"])
def test_what_is_encoded_is_decoded(offer: str) -> None:
    """T624, T625, T630: empty, a thousand blobs through one context, the same message twice."""
    generator = random.Random(7)
    ours, theirs = codec(offer), codec(offer)
    messages = [b"", b"", b"x" * 1280, b"x" * 1280]
    for size in range(0, 9991, 10):
        messages.append(generator.randbytes(size // 2) + b"ab" * (size // 4))
    for data in messages:
        encoded = ours.encode(Frame.Binary(data))
        assert (RSV1 if data else 0) == encoded.first_byte & RSV1 or "no_context" in offer
        decoded = theirs.decode(encoded, None) if encoded.rsv1 else encoded
        assert Frame.Binary(data) == decoded


def test_context_takeover_pays() -> None:
    """The second of two equal messages is a few bytes; without takeover both cost the same."""
    data = bytes(range(250)) * 2
    sizes = {}
    for offer in (NAME, NAME + "; server_no_context_takeover"):
        deflate = codec(offer)
        sizes[offer] = [len(deflate.encode(Frame.Binary(data)).data) for _ in range(2)]
    kept, forgotten = sizes.values()
    assert kept[1] < 20 < kept[0]
    assert forgotten[0] == forgotten[1]


@pytest.mark.parametrize("size", [0, 1, 100, SLICE - 1, SLICE, SLICE + 1, 3 * SLICE])
def test_the_limit_is_exact(size: int) -> None:
    """T632: so many bytes pass, one more is 1009 before it is made."""
    encoded = codec(level=6).encode(Frame.Binary(bytes(size) or b""))
    data = encoded.data if encoded.rsv1 else b"\x00"
    assert size == len(codec().decode(packed(data, Frame.Binary), size).data)
    if size:
        with pytest.raises(FrameTooBig) as raised:
            codec().decode(packed(data, Frame.Binary), size - 1)
        assert raised.value.close_code == 1009


def test_a_bomb_is_met_slice_by_slice() -> None:
    """Half a megabyte that says 512 MiB: no more than the limit and a slice ever exists."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    zeros = bytes(1 << 20)
    bomb = b"".join(compressor.compress(zeros) for _ in range(512)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert len(bomb) < 600_000
    tracemalloc.start()
    try:
        with pytest.raises(FrameTooBig):
            codec().decode(packed(bomb[:-4], Frame.Binary), 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data", ["ffffffff", "f248cdc9c907ff", "07", "0500000000", "f348cdc9c907000007", "78bb0f5c02ed"]
)
def test_what_is_no_deflate_data_is_1007(data: str) -> None:
    """T631, R11: an error, and no spinning."""
    with pytest.raises(ProtocolError) as raised:
        codec().decode(packed(bytes.fromhex(data)), None)
        codec().decode(packed(bytes.fromhex(data) * 100), None)
    assert raised.value.close_code == 1007


@given(st.binary(max_size=300), st.integers(0, 100))
@settings(max_examples=300)
def test_any_bytes_are_a_message_or_an_error(data: bytes, limit: int) -> None:
    """Nothing but ProtocolError, and never more than the limit."""
    try:
        size = len(codec().decode(packed(data, Frame.Binary), limit).data)
    except ProtocolError as error:
        size = {1007: 0, 1009: 0}[error.close_code]
    assert size <= limit


REPETITIVE = st.builds(lambda part, times: part * times, st.binary(max_size=50), st.integers(0, 100))


@given(
    st.lists(st.binary(max_size=5000) | REPETITIVE, max_size=8), st.integers(9, 15), st.integers(1, 9), st.booleans()
)
@settings(max_examples=60, deadline=None)
def test_every_setting_round_trips(messages: list[bytes], bits: int, mem_level: int, takeover: bool) -> None:
    """A peer with the window that was agreed on reads everything; long messages in steps as others."""
    offer = f"{NAME}; server_max_window_bits={bits}" + "; server_no_context_takeover" * (not takeover)
    ours = codec(offer, mem_level=mem_level, window_bits=15)
    theirs = zlib.decompressobj(-bits)
    for data in messages:
        steps = ours.encode_in_steps(Frame.Binary(data))
        encoded = run(steps)
        if not encoded.rsv1:
            assert encoded.data == data
            continue
        if not takeover:
            theirs = zlib.decompressobj(-bits)
        assert data == theirs.decompress(encoded.data + b"\x00\x00\xff\xff")


def test_a_small_window_of_the_peers_needs_a_small_one_here() -> None:
    """`client_max_window_bits=9` is enough to read what such a client writes."""
    deflate = codec(NAME + "; client_max_window_bits=9")
    peer = zlib.compressobj(9, zlib.DEFLATED, -9)
    data = bytes(range(256)) * 20
    assert data == deflate.decode(packed(peer.compress(data) + peer.flush(zlib.Z_SYNC_FLUSH), Frame.Binary), None).data


def test_what_is_compressed_may_be_chosen() -> None:
    """By a function, and by size: strictly more; level 0 is legal, too."""
    deflate = codec(compress_if=lambda frame: isinstance(frame, Frame.Text), compress_if_bigger_than=5)
    assert [False, True, False] == [
        deflate.encode(frame).rsv1 for frame in (Frame.Text("12345"), Frame.Text("123456"), Frame.Binary(b"1234567"))
    ]
    assert Frame.Text("hello") == codec().decode(codec(level=0).encode(Frame.Text("hello")), 10)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("level", 10), ("level", -2), ("mem_level", 0), ("window_bits", 8), ("window_bits", 16), ("level", True)],
)
def test_settings_that_make_no_sense_are_refused(argument: str, value: int) -> None:
    """By name."""
    with pytest.raises(ValueError, match=argument):
        PerMessageDeflate(**dict[str, Any]({argument: value}))


# several extensions


@attrs.frozen
class Marking(ExtensionFactory):
    """Appends a letter on the way out, and takes it off on the way in."""

    name: str | None
    reserved: int
    letter: str = "x"

    def negotiate(self, offer: ExtensionHeader) -> tuple[ExtensionHeader, Extension] | None:
        """Accept everything."""
        return ExtensionHeader(offer.name), Marker(self)


class Marker(Extension):
    """One of these at work."""

    def encode(self, message: Frame) -> Frame:
        """Append the letter."""
        assert isinstance(self.factory, Marking)
        data = message.data + self.factory.letter.encode()
        return frame_from_wire(type(message), message.first_byte | self.factory.reserved, data)

    def decode(self, message: Frame, max_size: int | None) -> Frame:
        """Take the letter off, which has to be there."""
        assert isinstance(self.factory, Marking)
        assert message.data.endswith(self.factory.letter.encode())
        return frame_from_wire(type(message), message.first_byte & ~self.factory.reserved, message.data[:-1])


def test_encoding_is_in_the_order_of_installation_and_decoding_in_reverse() -> None:
    """R18, RFC 6455 §9.1: whatever the order of the offers; one without a name is always on."""
    factories = [Marking("first", RSV1, "1"), Marking(None, 0, "a"), Marking("second", RSV2 | RSV3, "2")]
    answers, extensions = negotiate(factories, ["second, first"])
    assert ["first", "second"] == [str(answer) for answer in answers]
    assert RSV1 | RSV2 | RSV3 == reserved_bits(extensions)
    encoded = encode(extensions, Frame.Text("m"))
    assert b"m1a2" == encoded.data
    frames = FrameReader(client=True, max_frame_size=100, extensions=extensions)
    assert [Frame.Text("m")] == list(frames.feed(b"\xf1\x04m1a2"))
    _, alone = negotiate(factories, [])
    assert [None] == [extension.factory.name for extension in alone]


@pytest.mark.parametrize(
    "factories",
    [
        [PerMessageDeflate(), PerMessageDeflate(level=9)],
        [PerMessageDeflate(), Marking("other", RSV1)],
        [Marking("a", RSV2), Marking("a", RSV3)],
        [Marking("a", 0x80)],
        [Marking("two words", RSV2)],
        [PerMessageDeflate],
        ["permessage-deflate"],
    ],
)
def test_factories_that_get_in_each_others_way_are_refused(factories: list[object]) -> None:
    """F101, W-17: the same name or bit twice, no name, no bit, a class, something else."""
    with pytest.raises(ValueError, match="extensions"):
        check_factories(factories)


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


def test_what_is_not_wanted_is_not_compressed_for_many_either() -> None:
    """`compress_if_bigger_than` holds for shared messages."""
    assert Frame.Text("short") == codec(compress_if_bigger_than=10).encode_alone(Frame.Text("short"))


def test_pieces_that_an_extension_reads_keep_the_limit() -> None:
    """While streaming they are joined, but never beyond it."""
    reader = FrameReader(client=True, pieces=True, max_frame_size=10, reserved=RSV1)
    assert [] == list(reader.feed(b"\x41\x06" + bytes(6)))
    with pytest.raises(FrameTooBig):
        list(reader.feed(b"\x80\x06" + bytes(6)))


def test_more_offers_than_anybody_means_are_refused() -> None:
    """However they are divided among lines; and what is reasonable is not."""
    assert len(parse_extensions(["x;a=b, y"] * 100)) == 200
    for lines in (["a," * 501], ["a;" * 501 + "b"], ["a,b,c,d"] * 200):
        with pytest.raises(ValueError):
            parse_extensions(lines)


def decoded(deflate: Deflate, message: Frame, limit: int | None, *, at_once: bool) -> bytes | tuple[type, int]:
    """What a message inflates to, or the error and its code."""
    try:
        begun = deflate.begin_decode(message, limit) if at_once else deflate.decode_in_steps(message, limit)
        return (begun if isinstance(begun, Frame) else run(begun)).data
    except ProtocolError as error:
        return type(error), error.close_code


@given(
    messages=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.builds(lambda byte, size: bytes([byte]) * size, st.integers(0, 255), st.integers(0, 300_000)),
            st.builds(lambda data: packed_alone(data) * 3, st.binary(max_size=60)),
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
    roads = [codec(client_no_context_takeover=forgets) for _ in range(2)]
    ours = zlib.compressobj(6, zlib.DEFLATED, -15)
    for data in messages:
        wire = data
        if is_good:
            if forgets:
                ours = zlib.compressobj(6, zlib.DEFLATED, -15)
            wire = (ours.compress(data) + ours.flush(zlib.Z_SYNC_FLUSH))[:-4]
        wire = wire[: len(wire) - cut] if cut > 15 else wire
        found = [decoded(roads[at_once], packed(wire), limit, at_once=at_once) for at_once in (False, True)]
        assert found[0] == found[1]
        if not isinstance(found[0], bytes):
            return


def test_the_short_road_is_taken_and_gives_way() -> None:
    """Short messages need no steps; long ones, and those that grow beyond a slice, do."""
    deflate = codec()
    short, long = b"hello" * 100, bytes(100_000)
    assert Frame.Text(short.decode()) == deflate.begin_decode(packed(packed_alone(short)), None)
    begun = deflate.begin_decode(packed(packed_alone(long)), None)
    assert not isinstance(begun, Frame)
    assert long == run(begun).data
    noise = os.urandom(5000)
    assert not isinstance(deflate.begin_decode(packed(packed_alone(noise)), None), Frame)


def test_what_takes_steps_goes_on_through_the_others() -> None:
    """Behind a long message that is inflated in steps, those whose bit is set, or that have none, have their turn."""
    for name, own, expected in (("other", RSV2, b"x" * 100_000), (None, 0, b"x" * 99_999)):
        factories = [Marking(name, own, "x"), PerMessageDeflate()]
        _, extensions = negotiate(factories, ["other, permessage-deflate"])
        reader = FrameReader(client=True, extensions=extensions)
        wire = packed_alone(b"x" * 100_000)
        [message] = [frame for frame in reader.feed(head(0xC2, len(wire)) + wire) if frame is not None]
        assert expected == message.data


def test_a_text_made_of_bytes_is_checked_before_an_extension_has_it() -> None:
    """Behind it nobody could tell; what is no UTF-8 is refused, and the window has not moved."""
    _, ours = negotiate([PerMessageDeflate()], ["permessage-deflate"])
    _, theirs = negotiate([PerMessageDeflate()], ["permessage-deflate"])
    outgoing = Outgoing(Serializer(masking=False, reserved=RSV1), ours)
    reader = FrameReader(client=True, max_frame_size=100, extensions=theirs)
    for text in (b"first", b"\xff", b"second"):
        pieces: list[bytes] = []
        if text == b"\xff":
            with pytest.raises(UnicodeDecodeError):
                outgoing.add(Frame.Text(text), pieces)
            assert pieces == []
        else:
            assert outgoing.add(Frame.Text(text), pieces) is None
            assert [Frame.Text(text)] == list(reader.feed(b"".join(pieces)))
