"""permessage-deflate by itself: what is offered, answered and agreed on, and messages out and in."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from tests.support.extensions import deflated, packed
from trioktor.protocol.deflate import Deflate, PerMessageDeflate
from trioktor.protocol.errors import ProtocolError
from trioktor.protocol.extension_header import parse_extensions
from trioktor.protocol.extensions import Steps, coded_limit, run
from trioktor.protocol.first_byte import RSV1
from trioktor.protocol.frames import Frame
from trioktor.protocol.inflate import SLICE
from trioktor.protocol.negotiation import negotiate

NAME = "permessage-deflate"
TAIL = b"\x00\x00\xff\xff"


def codec(offer: str = NAME, **config: object) -> Deflate:
    """A codec as it comes out of a negotiation."""
    _, extensions = negotiate([PerMessageDeflate(**config)], [offer])  # type: ignore[arg-type]
    assert isinstance(extensions[0], Deflate)
    return extensions[0]


def accepted(answer: str, **config: Any) -> Deflate:
    """A client's codec, as the server answered."""
    [header] = parse_extensions([NAME + answer])
    extension = PerMessageDeflate(**config).accept(header)
    assert isinstance(extension, Deflate)
    return extension


# settings


def test_the_defaults_of_compression_are_those_of_the_documentation() -> None:
    """Quick, and small in memory."""
    settings = PerMessageDeflate()
    assert (1, 5, 12) == (settings.level, settings.mem_level, settings.window_bits)
    assert (0, None) == (settings.compress_if_bigger_than, settings.compress_if)
    assert not settings.server_no_context_takeover
    assert not settings.client_no_context_takeover
    assert "name" not in repr(settings)


RANGES = {"level": (-1, 9), "mem_level": (1, 9), "window_bits": (9, 15), "compress_if_bigger_than": (0, 1 << 62)}


@pytest.mark.parametrize("argument", RANGES)
def test_a_setting_has_its_bounds(argument: str) -> None:
    """Both belong to it; the error names the argument."""
    least, most = RANGES[argument]
    for value in (least, most):
        assert getattr(PerMessageDeflate(**{argument: value}), argument) == value  # type: ignore[arg-type]
    unsound: list[Any] = [least - 1, most + 1, True, float(most), "9", None]
    for wrong in unsound:
        with pytest.raises(ValueError, match=f"{argument} must be a whole number from {least} to {most}"):
            PerMessageDeflate(**{argument: wrong})


def test_it_owns_rsv1() -> None:
    """RFC 7692 §6; and has its registered name."""
    assert (PerMessageDeflate().name, PerMessageDeflate().reserved) == (NAME, RSV1)


# the server's side


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


# the client's side


@pytest.mark.parametrize(
    ("config", "offer"),
    [
        ({}, "; client_max_window_bits=12"),
        ({"window_bits": 9}, "; client_max_window_bits=9"),
        ({"window_bits": 15}, "; client_max_window_bits"),
        ({"server_no_context_takeover": True}, "; client_max_window_bits=12; server_no_context_takeover"),
        ({"client_no_context_takeover": True}, "; client_max_window_bits=12; client_no_context_takeover"),
        (
            {"server_no_context_takeover": True, "client_no_context_takeover": True, "window_bits": 15},
            "; client_max_window_bits; server_no_context_takeover; client_no_context_takeover",
        ),
    ],
)
def test_what_is_configured_is_offered(config: dict[str, Any], offer: str) -> None:
    """Once."""
    assert [str(header) for header in PerMessageDeflate(**config).offer()] == [NAME + offer]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ("; unknown", "unknown"),
        ("; server_max_window_bits=16", "no such value"),
        ("; server_max_window_bits=7", "no such value"),
        ("; server_max_window_bits", "no such value"),
        ("; client_max_window_bits", "no such value"),
        ("; client_max_window_bits=7", "no such value"),
        ("; client_max_window_bits=08", "no such value"),
        ("; server_no_context_takeover=1", "no such value"),
        ("; client_no_context_takeover=1", "no such value"),
        ("; server_no_context_takeover; server_no_context_takeover", "twice"),
        ("; client_max_window_bits=9; client_max_window_bits=9", "twice"),
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error(answer: str, error: str) -> None:
    """RFC 7692 §7.1: a client fails then."""
    with pytest.raises(ValueError, match=error):
        accepted(answer)


def test_a_server_forgets_its_window_if_it_is_asked_to() -> None:
    """RFC 7692 §7.1.1.1: it has to say so."""
    with pytest.raises(ValueError, match="does not forget"):
        accepted("", server_no_context_takeover=True)
    accepted("; server_no_context_takeover", server_no_context_takeover=True)


# what is agreed on


def noise(size: int) -> bytes:
    """Bytes that do not shrink."""
    return random.Random(size).randbytes(size)


def decodes(deflate: Deflate, *messages: bytes) -> bool:
    """Whether it can read these, one after the other."""
    try:
        for message in messages:
            deflate.decode(packed(message), None)
    except ProtocolError:
        return False
    return True


def pair_of_peers(size: int) -> list[bytes]:
    """Twice the same bytes, from a peer with the largest window: the second points back over all of the first."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, 9)
    data = noise(size)
    return [(compressor.compress(data) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4] for _ in range(2)]


def agreed(make: Callable[[], Deflate]) -> tuple[int, bool, int, bool]:
    """As it shows in what is written and read: our window's bits, whether it is forgotten, and the same of the peer's.

    zlib writes what points back over all of its window but for 262 bytes, and reads what does over all of it.
    """
    sizes = range(9, 16)
    reach = {bits: (1 << bits) - 300 for bits in sizes}
    ours = max(b for b in sizes if len(make().encode(Frame.Binary(noise(reach[b]) * 2)).data) < reach[b] * 1.5)
    writer = make()
    first, second = (len(writer.encode(Frame.Binary(noise(150) * 2)).data) for _ in range(2))
    theirs = max([b for b in sizes if decodes(make(), *pair_of_peers(min((1 << b) - 9, reach[15])))], default=0)
    return ours, first == second, theirs, theirs == 0


OFFERS: list[tuple[dict[str, Any], str, tuple[int, bool, int, bool]]] = [
    ({}, "", (12, False, 15, False)),
    ({"window_bits": 15}, "", (15, False, 15, False)),
    ({"window_bits": 9}, "; server_max_window_bits=15", (9, False, 15, False)),
    ({}, "; server_max_window_bits=10", (10, False, 15, False)),
    ({}, "; client_max_window_bits", (12, False, 15, False)),
    ({}, "; client_max_window_bits=10", (12, False, 10, False)),
    ({}, "; client_max_window_bits=8", (12, False, 9, False)),
    ({}, "; server_no_context_takeover", (12, True, 15, False)),
    ({}, "; client_no_context_takeover", (12, False, 0, True)),
    ({}, "; client_no_context_takeover; server_no_context_takeover", (12, True, 0, True)),
    ({"server_no_context_takeover": True}, "", (12, True, 15, False)),
    ({"client_no_context_takeover": True}, "", (12, False, 0, True)),
]
ANSWERS: list[tuple[dict[str, Any], str, tuple[int, bool, int, bool]]] = [
    ({}, "", (12, False, 15, False)),
    ({}, "; client_max_window_bits=9", (9, False, 15, False)),
    ({}, "; client_max_window_bits=15", (12, False, 15, False)),
    ({}, "; server_max_window_bits=10", (12, False, 10, False)),
    ({}, "; server_max_window_bits=8", (12, False, 9, False)),
    ({}, "; client_no_context_takeover", (12, True, 15, False)),
    ({}, "; server_no_context_takeover", (12, False, 0, True)),
    ({"client_no_context_takeover": True}, "", (12, True, 15, False)),
]
THOROUGH: dict[str, Any] = {"level": 9, "mem_level": 9}


@pytest.mark.parametrize(("config", "offer", "windows"), OFFERS)
def test_a_server_keeps_to_what_was_offered(
    config: dict[str, Any], offer: str, windows: tuple[int, bool, int, bool]
) -> None:
    """Our window, whether it is forgotten, and the same of the client's."""
    assert agreed(lambda: codec(NAME + offer, **THOROUGH, **config)) == windows


@pytest.mark.parametrize(("config", "answer", "windows"), ANSWERS)
def test_a_client_keeps_to_what_was_answered(
    config: dict[str, Any], answer: str, windows: tuple[int, bool, int, bool]
) -> None:
    """Our window, whether it is forgotten, and the same of the server's."""
    assert agreed(lambda: accepted(answer, **THOROUGH, **config)) == windows


def test_a_window_of_eight_bits_is_not_used() -> None:
    """zlib can't write for it, so nothing is compressed: that is always allowed."""
    deflate = accepted("; client_max_window_bits=8")
    message = Frame.Text("x" * 1000)
    assert deflate.encode(message) is message
    assert run(deflate.encode_in_steps(message)) is message
    assert deflate.encode_alone(message) is message


# out and in


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
        assert data == theirs.decompress(encoded.data + TAIL)


def test_a_small_window_of_the_peers_needs_a_small_one_here() -> None:
    """`client_max_window_bits=9` is enough to read what such a client writes."""
    deflate = codec(NAME + "; client_max_window_bits=9")
    peer = zlib.compressobj(9, zlib.DEFLATED, -9)
    data = bytes(range(256)) * 20
    assert data == deflate.decode(packed(peer.compress(data) + peer.flush(zlib.Z_SYNC_FLUSH)), None).data


def test_what_is_compressed_may_be_chosen() -> None:
    """By a function, and by size: strictly more; level 0 is legal, too."""
    deflate = codec(compress_if=lambda frame: isinstance(frame, Frame.Text), compress_if_bigger_than=5)
    assert [False, True, False] == [
        deflate.encode(frame).rsv1 for frame in (Frame.Text("12345"), Frame.Text("123456"), Frame.Binary(b"1234567"))
    ]
    larger, text = codec(compress_if_bigger_than=5), codec(compress_if=lambda frame: isinstance(frame, Frame.Text))
    assert [True, False] == [larger.encode(Frame.Text(size * "1")).rsv1 for size in (6, 5)]
    assert [True, False] == [text.encode(frame).rsv1 for frame in (Frame.Text("1"), Frame.Binary(b"1234567"))]
    assert Frame.Text("hello") == codec().decode(codec(level=0).encode(Frame.Text("hello")), 10)


@pytest.mark.parametrize("forgets", [False, True])
def test_what_would_grow_goes_out_as_it_is_where_no_window_depends_on_it(forgets: bool) -> None:
    """Else the peer's window has to move on with ours."""
    deflate = codec(NAME + "; server_no_context_takeover" * forgets)
    data = noise(1000)
    encoded = deflate.encode(Frame.Binary(data, rsv2=True))
    assert encoded.rsv1 is not forgets
    assert encoded.rsv2
    assert (encoded.data == data) is forgets


@pytest.mark.parametrize("size", [SLICE, SLICE + 1])
def test_what_fills_a_window_and_would_grow_goes_out_as_it_is(size: int) -> None:
    """The next message begins with a new window, for the peer has not seen this one in its own."""
    deflate, peer = codec(), codec()
    data = noise(size)
    first, second = (deflate.encode(Frame.Binary(part)) for part in (data, data[-2000:] * 2))
    assert not first.rsv1
    assert first.data == data
    assert second.rsv1
    assert peer.decode(second, None).data == data[-2000:] * 2


@pytest.mark.parametrize("size", [1, 100, 10_000, 1_000_000])
@pytest.mark.parametrize("mem_level", [2, 9])
def test_what_does_not_shrink_does_not_grow_beyond_its_limit(size: int, mem_level: int) -> None:
    """A peer's zlib may make it longer, as it likes; then it is no longer than allowed all the same."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15, mem_level)
    assert len(compressor.compress(noise(size)) + compressor.flush(zlib.Z_SYNC_FLUSH)) <= coded_limit(size)


@pytest.mark.parametrize("size", range(1, 20))
def test_it_goes_out_compressed_only_where_it_is_shorter(size: int) -> None:
    """By a byte at least, where no window depends on it."""
    message = Frame.Binary(b"a" * size)
    always, encoded = codec().encode(message), codec(NAME + "; server_no_context_takeover").encode(message)
    assert always.rsv1
    assert encoded == (always if len(always.data) < size else message)


def test_an_empty_message_is_left_alone() -> None:
    """The form for it is longer; an answer that is empty is read all the same."""
    message = Frame.Text("")
    assert codec().encode(message) is message
    assert codec().decode(packed(b"", Frame.Text), 0) == message


def test_a_compressed_message_keeps_its_kind_and_its_other_bits() -> None:
    """Only RSV1 is added, and taken off."""
    encoded = codec().encode(Frame.Text("x" * 100, rsv3=True))
    assert (encoded.type, encoded.first_byte) == (Frame.Text.type, 0x81 | RSV1 | 0x10)
    assert not encoded.data.endswith(TAIL)
    assert codec().decode(encoded, 100) == Frame.Text("x" * 100, rsv3=True)


def pauses(steps: Steps) -> tuple[int, Frame]:
    """How often others had a turn, and what came of it."""
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as done:
            return count, done.value
        count += 1


@pytest.mark.parametrize(("size", "count"), [(1, 1), (SLICE, 1), (SLICE + 1, 2), (5 * SLICE, 5)])
def test_a_message_is_compressed_slice_by_slice(size: int, count: int) -> None:
    """With a pause behind each; what is not wanted has none."""
    message = Frame.Binary(bytes(size))
    ours = codec()
    for steps in (ours.encode_in_steps(message), ours.encode_alone_in_steps(message)):
        found, encoded = pauses(steps)
        assert found == count
        assert codec().decode(encoded, None) == message
    assert pauses(codec(compress_if=lambda _: False).encode_in_steps(message)) == (0, message)


def test_it_decodes_in_one_go_as_in_steps() -> None:
    """A short message at once, a long one in steps; `decode` does both."""
    short, long = (packed(deflated(bytes(size))) for size in (100, 10 * SLICE))
    assert isinstance(codec().begin_decode(short, None), Frame)
    begun = codec().begin_decode(long, None)
    assert not isinstance(begun, Frame)
    for message, size in ((short, 100), (long, 10 * SLICE)):
        expected = Frame.Binary(bytes(size))
        assert codec().decode(message, None) == expected
        assert run(codec().decode_in_steps(message, None)) == expected
    assert run(begun).data == bytes(10 * SLICE)


# messages for many


def test_those_with_the_same_settings_and_window_share() -> None:
    """Whatever was agreed on for the other direction, or about forgetting."""
    ours = codec()
    assert ours.shared_key == codec(NAME + "; client_no_context_takeover").shared_key
    assert ours.shared_key == codec(NAME + "; server_no_context_takeover").shared_key
    assert ours.shared_key != codec(NAME + "; server_max_window_bits=9").shared_key
    assert ours.shared_key != codec(level=9).shared_key


@given(st.lists(st.tuples(st.binary(max_size=100), st.booleans()), max_size=10))
def test_a_message_for_many_is_read_between_others(messages: list[tuple[bytes, bool]]) -> None:
    """It depends on nothing that was said before, and nothing depends on it."""
    ours, theirs, elsewhere = codec(), codec(), codec()
    for data, is_shared in messages:
        message = Frame.Binary(data * 2)
        encoded = elsewhere.encode_alone(message) if is_shared else ours.encode(message)
        if is_shared:
            ours.encoded_elsewhere()
        assert (theirs.decode(encoded, None) if encoded.rsv1 else encoded) == message


def test_a_message_for_many_is_the_same_each_time() -> None:
    """Also behind other messages."""
    ours, message = codec(), Frame.Text("again and again")
    first = ours.encode_alone(message)
    ours.encode(message)
    assert ours.encode_alone(message) == first == codec().encode_alone(message)


def test_what_is_not_wanted_is_not_compressed_for_many_either() -> None:
    """`compress_if_bigger_than` holds for shared messages."""
    assert Frame.Text("short") == codec(compress_if_bigger_than=10).encode_alone(Frame.Text("short"))
