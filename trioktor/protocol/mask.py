"""Masking (RFC 6455 §5.3): every payload byte XOR the key's byte at that position, modulo four.

In pure Python; `native` has the quicker one, where it could be built. There are two ways, because neither is
fast at every size. One XOR of two big integers is quickest while the conversion to and from an integer is cheap;
from a few hundred bytes on it is quicker to translate the four strides of the payload, each by the table of its
key byte: all of it runs in C, without a division. The masks of a client are not secret from the server, so
neither way needs to take constant time.
"""

from __future__ import annotations

from functools import cache

_STRIDES_FROM = 384


@cache
def _xor_table(key_byte: int) -> bytes:
    return bytes(byte ^ key_byte for byte in range(256))


def mask(data: bytes | memoryview, key: bytes) -> bytes:
    """Mask or unmask bytes with a key of four bytes; the operation is its own inverse."""
    size = len(data)
    if size < _STRIDES_FROM:
        pad = int.from_bytes((key * ((size + 3) >> 2))[:size], "little")
        return (int.from_bytes(data, "little") ^ pad).to_bytes(size, "little")
    data = bytes(data)  # of a part, too
    masked = bytearray(size)
    for stride in range(4):
        masked[stride::4] = data[stride::4].translate(_xor_table(key[stride]))
    return bytes(masked)


def mask_frame(head: bytes, data: bytes | memoryview, key: bytes) -> bytes:
    """A masked frame: what its head begins with, the key, and the payload, masked."""
    return head + key + mask(data, key)


def rotate(key: bytes, offset: int) -> bytes:
    """The key as it applies from byte `offset` of a payload on."""
    offset &= 3
    return key[offset:] + key[:offset]
