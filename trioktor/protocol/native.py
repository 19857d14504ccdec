"""Which parts of the protocol core run natively: all that could be built, unless `TRIOKTOR_PURE` is set.

The pure Python beside each is complete, and a test holds the two to the same results. PyPy could build the native part,
but its frames have no slots in the memory that C sees, and its own compiler makes the pure part fast.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .mask import mask as pure_mask, mask_frame as pure_mask_frame

if TYPE_CHECKING:
    from ._native import Filling as NativeFilling

Kinds = tuple[type[Any], type[Any]]
"""The classes of Text and Binary frames."""
Scan = Callable[[bytes, int, int, int, int, int, int, Kinds], tuple[list[Any], int]]
"""As `_native.scan`."""

mask: Callable[[bytes | memoryview, bytes], bytes] = pure_mask
"""Mask or unmask bytes with a key of four bytes (RFC 6455 §5.3); the operation is its own inverse."""
mask_frame: Callable[[bytes, bytes | memoryview, bytes], bytes] = pure_mask_frame
"""A masked frame, of what its head begins with, its payload and a key."""
Filling: Callable[[int, bytes | None], NativeFilling] | None = None
"""Takes the payload of a long frame, of a length and with a key, while it arrives; None where `BytesIO` does."""
join: Callable[[list[Any]], bytes] | None = None
"""The bytes of frames that are not masked, and of what is bytes already; None where `Serializer` joins."""
message: Callable[[int, bytes, Kinds], Any] | None = None
"""As `_native.message`; None where `message_from_wire` makes it."""
single: Callable[[bytes, int, int, Kinds], Any] | None = None
"""The frame that the bytes are, if they are one plain message, or None; see `FrameParser.single`."""
scan: Scan | None = None
"""The plain messages at the front of what was read, see `FrameParser`; None where the parser finds them itself."""

if sys.implementation.name == "cpython" and not os.environ.get("TRIOKTOR_PURE"):
    try:
        from ._native import Filling, join, mask, mask_frame, message, scan, single  # noqa: F401  # for who imports it from here
    except ImportError:  # it could not be built
        pass

is_native: bool = scan is not None
