"""The errors of the protocol: what each is, what it carries, and what it says."""

from __future__ import annotations

import pytest

from trioktor.protocol.close import CloseCode
from trioktor.protocol.errors import FrameTooBig, ProtocolError, TrioktorError, UnexpectedFrame

TREE: dict[type[Exception], type[Exception]] = {
    TrioktorError: Exception,
    ProtocolError: TrioktorError,
    FrameTooBig: ProtocolError,
    UnexpectedFrame: TrioktorError,
}


@pytest.mark.parametrize(("error", "base"), TREE.items())
def test_the_errors_are_a_tree(error: type[Exception], base: type[Exception]) -> None:
    """As the module draws it: whoever catches a kind catches what stands below it."""
    assert error.__bases__[0] is base


def test_an_unexpected_frame_is_an_attribute_error_too() -> None:
    """So `hasattr` and `getattr` with a default go on working."""
    assert issubclass(UnexpectedFrame, AttributeError)
    assert not issubclass(ProtocolError, AttributeError)


def test_a_broken_rule_is_answered_with_1002() -> None:
    """Unless the rule has a code of its own."""
    assert ProtocolError("x").close_code == CloseCode.PROTOCOL_ERROR
    assert ProtocolError("x", CloseCode.NOT_CONSISTENT).close_code == 1007
    assert str(ProtocolError("what happened", 1008)) == "what happened"


def test_too_big_names_size_and_limit() -> None:
    """Both as numbers and in the text; it is answered with 1009."""
    error = FrameTooBig(2000, 1000)
    assert (error.size, error.limit, error.close_code) == (2000, 1000, 1009)
    assert str(error) == "2000 bytes are more than max_frame_size allows (1000)"
