"""Close codes and reasons: which there are, which may be sent, and what a reason may hold."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from trioktor.protocol.close import MAX_MESSAGE_BYTES, CloseCode, CloseReason, may_be_sent

NAMES = {
    1000: "NORMAL",
    1001: "GOING_AWAY",
    1002: "PROTOCOL_ERROR",
    1003: "CANNOT_ACCEPT",
    1005: "NO_STATUS",
    1006: "CLOSED_ABNORMALLY",
    1007: "NOT_CONSISTENT",
    1008: "VIOLATED_POLICY",
    1009: "TOO_BIG",
    1010: "NO_EXTENSION",
    1011: "INTERNAL_ERROR",
    1012: "SERVICE_RESTART",
    1013: "TRY_AGAIN_LATER",
    1014: "BAD_GATEWAY",
    1015: "TLS_HANDSHAKE",
}


def test_the_registered_codes_have_their_numbers() -> None:
    """RFC 6455 §7.4.1 and the registry; the names are Ktor's."""
    assert {code.value: code.name for code in CloseCode} == NAMES
    assert CloseReason.Codes is CloseCode


def test_close_codes_are_accepted_as_the_rfc_registers_them() -> None:
    """R09: of all numbers 1000 to 1003, 1007 to 1014 and 3000 to 4999."""
    legal = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
    assert legal == {code for code in range(65536) if may_be_sent(code)}


def test_a_code_is_any_number_of_two_bytes() -> None:
    """It may be named, if not sent."""
    assert (0, 0xFFFF) == (CloseReason(0).code, CloseReason(0xFFFF).code)
    for code in (-1, 0x10000):
        with pytest.raises(ValueError, match="two bytes"):
            CloseReason(code)


def test_reasons_name_their_codes() -> None:
    """Known codes by name, others by number; codes compare with plain numbers."""
    assert "CloseReason(NORMAL, 'bye')" == repr(CloseReason(CloseReason.Codes.NORMAL, "bye"))
    assert "CloseReason(4001, '')" == repr(CloseReason(4001))
    assert CloseCode.TOO_BIG is CloseReason(1009).known_code
    assert CloseReason(4001).known_code is None
    assert CloseReason(1000) == CloseReason(CloseCode.NORMAL)


@pytest.mark.parametrize("message", ["", "x" * 123, "я" * 61 + "x", "🌍" * 30 + "xyz"])
def test_a_message_of_123_bytes_fits(message: str) -> None:
    """Bytes of UTF-8 are counted, not characters; without a message it is empty."""
    assert MAX_MESSAGE_BYTES == 123
    assert CloseReason(1000, message).message == message
    assert CloseReason(1000).message == ""


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: CloseReason(1000, "x" * 124), ValueError, "123 bytes"),
        (lambda: CloseReason(1000, "я" * 62), ValueError, "takes 124"),
        (lambda: CloseReason(1000, "\ud800"), ValueError, "surrogates"),
        (lambda: CloseReason(65536), ValueError, "65536 does not"),
        (lambda: CloseReason("1000"), TypeError, "not str"),  # type: ignore[arg-type]
        (lambda: CloseReason(True), TypeError, "not bool"),
        (lambda: CloseReason(1000.0), TypeError, "not float"),  # type: ignore[arg-type]
        (lambda: CloseReason(1000, b"x"), TypeError, "not bytes"),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_reason_is_refused_in_the_constructor(
    make: Callable[[], CloseReason], error: type[Exception], text: str
) -> None:
    """T611 to T613, T619: refused where it is made, by a text that says why."""
    with pytest.raises(error, match=text):
        make()


def test_a_reason_is_a_value() -> None:
    """Two that say the same are the same, also as keys; nothing of one can be changed."""
    reason = CloseReason(4000, "x")
    assert reason == CloseReason(4000, "x")
    assert len({reason, CloseReason(4000, "x"), CloseReason(4000, "y"), CloseReason(4001, "x")}) == 3
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        reason.code = 1000  # type: ignore[misc]
