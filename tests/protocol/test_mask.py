"""Masking in pure Python: XOR with the repeated key, at every size and from any offset on."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from tests.support.helpers import KEY
from trioktor.protocol.mask import mask, mask_frame, rotate

KEYS = st.binary(min_size=4, max_size=4)


def xored(data: bytes, key: bytes) -> bytes:
    """The model: RFC 6455 §5.3, byte by byte."""
    return bytes(byte ^ key[i % 4] for i, byte in enumerate(data))


@pytest.mark.parametrize("size", [*range(20), 383, 384, 385, 386, 387, 1000, 1001, 1002, 1003])
def test_masking_is_xor_with_the_repeated_key(size: int) -> None:
    """At every size, whichever way is taken, from any offset on, of bytes as of a view."""
    data = bytes(i * 7 & 0xFF for i in range(size))
    expected = xored(data, KEY)
    assert expected == mask(data, KEY)
    for offset in range(5):
        assert expected[offset:] == mask(data[offset:], rotate(KEY, offset))
        assert expected[offset:] == mask(memoryview(data)[offset:], rotate(KEY, offset))


@given(data=st.binary(max_size=1000), key=KEYS)
def test_masking_twice_changes_nothing(data: bytes, key: bytes) -> None:
    """It is its own inverse."""
    assert mask(data, key) == xored(data, key)
    assert mask(mask(data, key), key) == data


def test_the_hello_of_the_rfc() -> None:
    """RFC 6455 §5.7: a masked Hello."""
    assert mask_frame(b"\x81\x85", b"Hello", KEY) == bytes.fromhex("818537fa213d7f9f4d5158")


@pytest.mark.parametrize("size", [0, 1, 400])
def test_a_masked_frame_is_head_key_and_payload(size: int) -> None:
    """In this order."""
    data = bytes(range(200)) * 2
    assert mask_frame(b"head", data[:size], KEY) == b"head" + KEY + xored(data[:size], KEY)


@pytest.mark.parametrize(
    ("offset", "rotated"),
    [(0, b"abcd"), (1, b"bcda"), (2, b"cdab"), (3, b"dabc"), (4, b"abcd"), (1 << 40 | 5, b"bcda")],
)
def test_a_key_is_rotated_by_its_offset(offset: int, rotated: bytes) -> None:
    """Modulo four."""
    assert rotate(b"abcd", offset) == rotated
