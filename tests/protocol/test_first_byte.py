"""The first byte of a frame: each bit in the place that RFC 6455 §5.2 gives it."""

from __future__ import annotations

import pytest

from trioktor.protocol import first_byte
from trioktor.protocol.first_byte import FrameType

BITS = {
    "FIN": 0b1000_0000,
    "RSV1": 0b0100_0000,
    "RSV2": 0b0010_0000,
    "RSV3": 0b0001_0000,
    "RESERVED": 0b0111_0000,
    "OPCODE": 0b0000_1111,
    "CONTROL": 0b0000_1000,
    "CONTINUATION": 0x0,
    "WHOLE_TEXT": 0x81,
    "WHOLE_BINARY": 0x82,
    "MAX_CONTROL_BYTES": 125,
}
OPCODES = {"TEXT": 0x1, "BINARY": 0x2, "CLOSE": 0x8, "PING": 0x9, "PONG": 0xA}


@pytest.mark.parametrize(("name", "value"), BITS.items())
def test_the_bits_are_those_of_the_rfc(name: str, value: int) -> None:
    """RFC 6455 §5.2 and §5.5."""
    assert getattr(first_byte, name) == value


def test_every_constant_is_held_to_the_rfc() -> None:
    """None is left out of the table above."""
    assert {name for name in vars(first_byte) if name.isupper()} == set(BITS)


def test_fin_reserved_bits_and_opcode_are_the_whole_byte() -> None:
    """None of them overlap."""
    assert first_byte.FIN + first_byte.RESERVED + first_byte.OPCODE == 0xFF
    assert first_byte.RSV1 + first_byte.RSV2 + first_byte.RSV3 == first_byte.RESERVED


def test_the_types_have_their_opcodes() -> None:
    """RFC 6455 §11.8; a continuation is no type of its own."""
    assert {kind.name: kind.opcode for kind in FrameType} == OPCODES


def test_three_types_are_control_frames() -> None:
    """Those with the highest bit of the opcode (RFC 6455 §5.5)."""
    assert {kind for kind in FrameType if kind.is_control} == {FrameType.CLOSE, FrameType.PING, FrameType.PONG}
