"""The errors: what each of them is to those who catch it, and what it says and carries."""

from __future__ import annotations

import inspect

import pytest
import trio

import trioktor
from trioktor import (
    CannotConnect,
    ChannelOverflow,
    CloseReason,
    CloseTimeout,
    ConnectionBroken,
    ConnectionClosed,
    ConverterNotFound,
    DeserializationError,
    Frame,
    HandshakeInvalid,
    HandshakeRefused,
    Headers,
    NotSupported,
    PingTimeout,
    TrioktorError,
    WriteTimeout,
    errors,
)
from trioktor.errors import ConnectionClosedHere

TREE: dict[type[TrioktorError], tuple[type[Exception], ...]] = {
    ConnectionClosed: (TrioktorError, trio.BrokenResourceError),
    ConnectionBroken: (ConnectionClosed,),
    ConnectionClosedHere: (ConnectionClosed, trio.ClosedResourceError),
    PingTimeout: (TrioktorError,),
    WriteTimeout: (TrioktorError,),
    CloseTimeout: (TrioktorError,),
    ChannelOverflow: (TrioktorError,),
    ConverterNotFound: (TrioktorError,),
    DeserializationError: (TrioktorError,),
    NotSupported: (TrioktorError,),
    CannotConnect: (TrioktorError, OSError),
    HandshakeRefused: (TrioktorError,),
    HandshakeInvalid: (HandshakeRefused,),
}


def channel() -> trio.abc.Channel[Frame]:
    """In the place of a session."""
    send, receive = trio.open_memory_channel[Frame](0)
    return trio.StapledStream(send, receive)  # type: ignore[type-var, return-value]


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_the_tree(kind: type[TrioktorError]) -> None:
    """What an error is beside: code that knows Trio's errors, or the system's, catches it."""
    assert kind.__bases__ == TREE[kind]


def test_the_tree_is_whole() -> None:
    """All errors of the module are in it; those that are caught by name are shown, and drawn in its docstring."""
    found = {
        kind
        for _, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, Exception) and kind.__module__ == errors.__name__
    }
    assert found == set(TREE)
    for kind in found - {ConnectionClosedHere}:  # it is a ConnectionClosed to everybody
        assert getattr(trioktor, kind.__name__) is kind
        assert f"── {kind.__name__} " in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", [ConnectionClosed, ConnectionBroken, ConnectionClosedHere])
@pytest.mark.parametrize("reason", [None, CloseReason(1000), CloseReason(4001, "enough")], ids=repr)
def test_the_end_of_a_conversation(kind: type[ConnectionClosed], reason: CloseReason | None) -> None:
    """Why, whose, and both for people to read."""
    session = channel()
    error = kind(reason, session)
    assert error.close_reason is reason
    assert error.session is session
    assert str(error) == f"the conversation is over: {reason!r}"


def test_a_broken_end_is_not_our_own_close() -> None:
    """Who catches one of them does not catch the other."""
    assert not issubclass(ConnectionBroken, trio.ClosedResourceError)
    assert not issubclass(ConnectionClosedHere, ConnectionBroken)


def test_a_value_that_is_none_shows_its_message() -> None:
    """And carries it."""
    frame = Frame.Text("{")
    error = DeserializationError("not JSON", frame)
    assert error.frame is frame
    assert str(error) == f"not JSON: {frame!r}"


@pytest.mark.parametrize("addresses", [(), ("127.0.0.1",), ("::1", "127.0.0.1")])
def test_nobody_there(addresses: tuple[str, ...]) -> None:
    """Whom it tried, in order; there is no errno, for there may have been several."""
    error = CannotConnect("nobody is there", addresses)
    assert error.addresses == addresses
    assert str(error) == "nobody is there"
    assert error.errno is None


def test_nobody_was_tried() -> None:
    """Where somebody else was asked to connect."""
    assert CannotConnect("no").addresses == ()


@pytest.mark.parametrize("kind", [HandshakeRefused, HandshakeInvalid])
def test_a_refusal_is_the_whole_answer(kind: type[HandshakeRefused]) -> None:
    """Status, headers and body."""
    headers = Headers([(b"retry-after", b"5")])
    error = kind(503, headers, b"busy\n")
    assert (error.status, error.headers, error.body) == (503, headers, b"busy\n")
    assert str(error) == "the handshake was refused with 503: 'busy'"


@pytest.mark.parametrize("size", [0, 199, 200, 201, 65536])
def test_a_refusal_says_the_beginning_of_its_body(size: int) -> None:
    """200 bytes of it; it carries all."""
    error = HandshakeRefused(404, Headers(), b"x" * size)
    assert str(error).count("x") == min(size, 200)
    assert len(error.body) == size


def test_a_refusal_says_any_bytes_on_one_line() -> None:
    """Whatever a server answers, nothing in it steers a terminal."""
    said = str(HandshakeRefused(500, Headers(), bytes(range(256))[:32] + b"\xff\x1b[31m"))
    assert said.isprintable()


def test_a_refusal_may_have_a_text_of_its_own() -> None:
    """An empty one, too."""
    assert str(HandshakeRefused(302, Headers(), b"moved", "it leads nowhere")) == "it leads nowhere"
    assert str(HandshakeRefused(302, Headers(), b"moved", "")) == ""
