"""Frames that are shown as they pass: each once, in its direction, and nothing unseen."""

from __future__ import annotations

import pytest

from tests.support.helpers import masked
from trioktor.protocol.errors import ProtocolError
from trioktor.protocol.frames import Frame
from trioktor.protocol.parser import FrameParser
from trioktor.protocol.serializer import Serializer
from trioktor.protocol.watched import WatchedParser, WatchedSerializer

Seen = list[tuple[str, Frame]]


def watched_parser(seen: Seen, **options: bool) -> WatchedParser:
    """A server's, which shows its frames to a list."""
    return WatchedParser(lambda way, frame: seen.append((way, frame)), masked=True, max_frame_size=100, **options)


DATA = masked(0x81, b"hi") * 3 + masked(0x02, b"a") + masked(0x89, b"?") + masked(0x80, b"b")
FRAMES = [
    *[Frame.Text("hi")] * 3,
    Frame.Binary(b"a", fin=False),
    Frame.Ping(b"?"),
    Frame.Binary(b"b"),
]


@pytest.mark.parametrize("cut", [1, 5, 1 << 20])
def test_every_frame_that_comes_is_seen_before_it_is_given(cut: int) -> None:
    """Once, with `<`; the frames are those that another parser gives."""
    seen: Seen = []
    parser = watched_parser(seen)
    given = []
    for start in range(0, len(DATA), cut):
        for frame in parser.feed(DATA[start : start + cut]):
            given.append(frame)
            assert seen[-1] == ("<", frame)
            assert len(seen) == len(given)
    assert given == FRAMES == list(FrameParser(masked=True, max_frame_size=100).feed(DATA))


def test_what_is_not_asked_for_is_not_seen() -> None:
    """Nothing is parsed ahead."""
    seen: Seen = []
    frames = watched_parser(seen).feed(DATA)
    next(frames)
    next(frames)
    assert len(seen) == 2


def test_there_is_no_way_past_it() -> None:
    """What gives messages in one step gives none; all is left to `feed`."""
    seen: Seen = []
    parser = watched_parser(seen)
    text = masked(0x81, b"hi")
    assert parser.single(text) is None
    assert parser.run(text * 2, 10, 1000) == ([], text * 2)
    assert seen == []
    assert list(parser.feed(text)) == [Frame.Text("hi")]


def test_a_part_that_is_only_looked_at_is_not_seen() -> None:
    """Its frame is, when it is complete."""
    seen: Seen = []
    parser = watched_parser(seen)
    data = masked(0x81, b"hello")
    assert list(parser.feed(data[:8])) == []
    assert parser.take_partial() == Frame.Text("he")
    assert parser.take_partial() is None
    assert seen == []
    assert list(parser.feed(data[8:])) == [Frame.Text("hello")]
    assert seen == [("<", Frame.Text("hello"))]


def test_a_part_that_is_given_away_is_seen() -> None:
    """While streaming each byte is seen once; but of a control frame no part is given away."""
    seen: Seen = []
    parser = watched_parser(seen)
    parser.stream()
    data, ping = masked(0x81, b"hello"), masked(0x89, b"!?")
    assert list(parser.feed(data[:8])) == []
    assert parser.take_partial() == Frame.Text("he")
    assert parser.take_partial() is None
    assert list(parser.feed(data[8:] + ping[:7])) == [Frame.Text("llo")]
    assert parser.take_partial() == Frame.Ping(b"!")
    assert list(parser.feed(ping[7:])) == [Frame.Ping(b"!?")]
    assert seen == [("<", Frame.Text("he")), ("<", Frame.Text("llo")), ("<", Frame.Ping(b"!?"))]


def test_a_bad_frame_is_not_seen() -> None:
    """The violation is raised as by another parser; the settings are its own."""
    seen: Seen = []
    with pytest.raises(ProtocolError):
        list(watched_parser(seen).feed(masked(0x81, b"hi") + masked(0x82, bytes(101))))
    assert seen == [("<", Frame.Text("hi"))]
    alone = watched_parser([], whole_messages=False)
    assert len(list(alone.feed(masked(0x02, bytes(100)) + masked(0x80, bytes(100))))) == 2
    coded = WatchedParser(lambda way, frame: None, masked=False, max_frame_size=None, reserved=0x40)
    assert list(coded.feed(b"\xc2\x01x")) == [Frame.Binary(b"x", rsv1=True)]


def test_every_frame_that_goes_is_seen() -> None:
    """Once, with `>`, as it was sent; the bytes are those that another serializer writes."""
    seen: Seen = []
    serializer = WatchedSerializer(lambda way, frame: seen.append((way, frame)), masking=False, reserved=0x40)
    frames = [*FRAMES, Frame.Text("x", rsv1=True)]
    pieces: list[bytes] = []
    expected: list[bytes] = []
    other = Serializer(masking=False, reserved=0x40)
    for frame in frames:
        serializer.add(frame, pieces)
        other.add(frame, expected)
    assert pieces == expected
    assert seen == [(">", frame) for frame in frames]


def test_frames_of_our_own_are_seen() -> None:
    """Those that need no judgement; and whoever would write several together is told to leave that."""
    seen: Seen = []
    serializer = WatchedSerializer(lambda way, frame: seen.append((way, frame)), masking=False)
    pieces: list[bytes] = []
    serializer.add_control(Frame.Ping(b"?"), pieces)
    assert (seen, pieces) == ([(">", Frame.Ping(b"?"))], [b"\x89\x01?"])
    assert (serializer.is_watched, Serializer(masking=False).is_watched) == (True, False)


def test_a_frame_that_may_not_go_is_not_seen() -> None:
    """It is refused as ever; masking is as it is told."""
    seen: Seen = []
    serializer = WatchedSerializer(lambda way, frame: seen.append((way, frame)), masking=True)
    assert serializer.masking
    with pytest.raises(ProtocolError):
        serializer.add(Frame.Text(b"\xff"), [])
    assert seen == []
