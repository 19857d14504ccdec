"""A frame in pieces: what is kept of it, what is given away, and what may be read into its place."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from tests.support.helpers import KEY
from trioktor.protocol import partial as partial_module
from trioktor.protocol.frames import Frame
from trioktor.protocol.from_wire import frame_from_wire
from trioktor.protocol.mask import mask
from trioktor.protocol.native import Filling
from trioktor.protocol.partial import PartialFrame

PAYLOAD = bytes(range(256)) * 4
KINDS: dict[int, type[Frame]] = {0x01: Frame.Text, 0x82: Frame.Binary, 0x80: Frame.Binary, 0x89: Frame.Ping}

needs_filling = pytest.mark.skipif(Filling is None, reason="the native part was not built, or is not wanted")


@pytest.fixture(params=["as built", "pure"], autouse=True)
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what the native part lends, and without it."""
    if request.param == "pure":
        monkeypatch.setattr(partial_module, "Filling", None)


def begun(first_byte: int, length: int, *, key: bytes | None = KEY, is_given: bool = False) -> PartialFrame:
    """A frame whose head has come."""
    return PartialFrame(KINDS[first_byte], first_byte, key, length, is_given=is_given)


def wire(length: int, key: bytes | None = KEY) -> bytes:
    """So many bytes of the payload, as they come."""
    return PAYLOAD[:length] if key is None else mask(PAYLOAD[:length], key)


@pytest.mark.parametrize("key", [KEY, None])
@pytest.mark.parametrize("first_byte", KINDS)
@pytest.mark.parametrize("sizes", [[10], [1] * 10, [3, 0, 7], [0, 0, 5, 5], [9, 1]])
def test_pieces_are_kept_and_unmasked(sizes: list[int], first_byte: int, key: bytes | None) -> None:
    """However they are cut; what is kept and what is missing are the whole at each moment."""
    one = begun(first_byte, 10, key=key)
    data = wire(10, key)
    assert (one.kept, one.missing) == (0, 10)
    at = 0
    for size in sizes:
        assert one.add(data[at : at + size]) == size
        at += size
        assert (one.kept, one.missing) == (at, 10 - at)
    assert one.payload() == PAYLOAD[:10]
    assert (one.kind, one.first_byte) == (KINDS[first_byte], first_byte)


@pytest.mark.parametrize("first_byte", [0x01, 0x82])
def test_no_more_is_taken_than_belongs_to_it(first_byte: int) -> None:
    """The rest is another frame's."""
    one = begun(first_byte, 10)
    data = wire(20)
    assert one.add(data[:4]) == 4
    assert one.add(data[4:]) == 6
    assert one.add(data) == 0
    assert (one.kept, one.missing, one.payload()) == (10, 0, PAYLOAD[:10])


def test_what_is_fresh_is_given_once() -> None:
    """As a frame of this head; it is kept all the same."""
    one = begun(0x01, 10)
    assert one.take_fresh() is None
    data = wire(10)
    one.add(data[:3])
    assert one.take_fresh() == frame_from_wire(Frame.Text, 0x01, PAYLOAD[:3])
    assert one.take_fresh() is None
    one.add(data[3:4])
    one.add(data[4:6])
    assert one.take_fresh() == frame_from_wire(Frame.Text, 0x01, PAYLOAD[4:6])
    one.add(b"")
    assert one.take_fresh() is None
    one.add(data[6:])
    assert (one.kept, one.payload()) == (10, PAYLOAD[:10])


@pytest.mark.parametrize("key", [KEY, None])
@pytest.mark.parametrize("is_given", [True, False])
def test_what_is_taken_is_gone(is_given: bool, key: bytes | None) -> None:
    """Each piece is given once; what comes behind it is unmasked from where it stands."""
    one = begun(0x82, 20, key=key, is_given=is_given)
    data = wire(20, key)
    for start, stop in ((0, 3), (3, 5), (5, 17)):
        one.add(data[start:stop])
        assert one.take_all() == frame_from_wire(Frame.Binary, 0x82, PAYLOAD[start:stop])
        assert one.take_all() is None
        assert (one.kept, one.missing) == (0, 20 - stop)
    one.add(data[17:])
    assert (one.kept, one.payload()) == (3, PAYLOAD[17:20])


def test_nothing_may_be_taken_before_anything_came() -> None:
    """It gives nothing, and does no harm."""
    one = begun(0x82, 3)
    assert one.take_all() is None
    one.add(wire(3))
    assert one.take_all() == frame_from_wire(Frame.Binary, 0x82, PAYLOAD[:3])


def test_what_is_taken_is_not_fresh() -> None:
    """It was given with the rest."""
    one = begun(0x01, 10)
    one.add(wire(3))
    assert one.take_all() is not None
    assert one.take_fresh() is None


@given(
    sizes=st.lists(st.integers(0, 300), max_size=8),
    takes=st.lists(st.booleans(), min_size=8, max_size=8),
    first_byte=st.sampled_from([0x01, 0x82]),
    key=st.sampled_from([KEY, None]),
)
def test_what_was_given_and_what_is_kept_are_the_payload(
    sizes: list[int], takes: list[bool], first_byte: int, key: bytes | None
) -> None:
    """Whenever something is taken of it."""
    one = begun(first_byte, len(PAYLOAD), key=key)
    data, given_away = wire(len(PAYLOAD), key), b""
    at = 0
    for size, is_taken in zip(sizes, takes, strict=False):
        at += one.add(data[at : at + size])
        if is_taken and (piece := one.take_all()) is not None:
            given_away += piece.data
        assert one.kept == at - len(given_away)
    one.add(data[at:])
    assert given_away + one.payload() == PAYLOAD


# read into its place


def test_only_a_binary_frame_that_is_kept_has_a_target(request: pytest.FixtureRequest) -> None:
    """Text is judged piece by piece, and what is given away needs no place; in pure Python there is none."""
    has_one = Filling is not None and "pure" not in request.node.callspec.id
    assert (begun(0x82, 10).target is not None) is has_one
    assert (begun(0x80, 10).target is not None) is has_one
    assert begun(0x01, 10).target is None
    assert begun(0x89, 10).target is None
    assert begun(0x82, 10, is_given=True).target is None


@needs_filling
@pytest.mark.parametrize("key", [KEY, None])
def test_bytes_may_be_read_into_the_target(key: bytes | None) -> None:
    """Among pieces that are added."""
    one = begun(0x82, 600, key=key)
    if one.target is None:  # the pure one
        return
    data = wire(600, key)
    one.add(data[:7])
    at = 7
    while at < 600:
        with memoryview(one.target) as view:
            size = min(len(view), 100, 600 - at)
            view[:size] = data[at : at + size]
        one.fill(size)
        at += size
        assert (one.kept, one.missing) == (at, 600 - at)
    assert one.payload() == PAYLOAD[:600]


def test_there_is_no_target_once_something_was_taken() -> None:
    """From then on each piece is."""
    one = begun(0x82, 10)
    one.add(wire(3))
    one.take_all()
    assert one.target is None
