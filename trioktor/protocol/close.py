"""Close codes and reasons: the two bytes and the short text a conversation ends with (RFC 6455 §7.4)."""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, final

import attrs

MAX_MESSAGE_BYTES = 123
"""A control frame holds 125 bytes (RFC 6455 §5.5), two of which are the code."""


@final
class CloseCode(IntEnum):
    """The registered close codes, under Ktor's names (`CloseReason.Codes`)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    CANNOT_ACCEPT = 1003
    NO_STATUS = 1005
    """Never on the wire: the peer's Close had no code."""
    CLOSED_ABNORMALLY = 1006
    """Never on the wire: there was no Close at all."""
    NOT_CONSISTENT = 1007
    VIOLATED_POLICY = 1008
    TOO_BIG = 1009
    NO_EXTENSION = 1010
    INTERNAL_ERROR = 1011
    SERVICE_RESTART = 1012
    TRY_AGAIN_LATER = 1013
    BAD_GATEWAY = 1014
    TLS_HANDSHAKE = 1015
    """Never on the wire: TLS failed."""


_LOCAL_ONLY = frozenset({CloseCode.NO_STATUS, CloseCode.CLOSED_ABNORMALLY, CloseCode.TLS_HANDSHAKE})
_REGISTERED = frozenset(code.value for code in CloseCode) - _LOCAL_ONLY


def may_be_sent(code: int) -> bool:
    """Whether a Close frame may carry this code (RFC 6455 §7.4.1 and §7.4.2)."""
    return code in _REGISTERED or 3000 <= code <= 4999


def _check_message(_reason: CloseReason, _attribute: object, message: str) -> None:
    if type(message) is not str:
        raise TypeError(f"message must be a str, not {type(message).__name__}")
    size = len(message.encode())
    if size > MAX_MESSAGE_BYTES:
        raise ValueError(f"message must fit in {MAX_MESSAGE_BYTES} bytes of UTF-8; this one takes {size}")


def _check_code(_reason: CloseReason, _attribute: object, code: int) -> None:
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f"code must be an int, not {type(code).__name__}")
    if not 0 <= code <= 0xFFFF:
        raise ValueError(f"code must fit in two bytes; {code} does not")


@final
@attrs.frozen(repr=False)
class CloseReason:
    """Why a conversation ended: a code and a short text.

    Any code of two bytes can be named here, because a peer may be told about in terms of 1005 or 1006;
    which may be *sent* is checked by `WebSocketSession.close`. Source: Ktor's `CloseReason`.

    Raises:
      ValueError: the message takes more than 123 bytes of UTF-8 or holds a lone surrogate, or the code
        does not fit in two bytes.
    """

    code: int = attrs.field(validator=_check_code)
    message: str = attrs.field(default="", validator=_check_message)

    Codes: ClassVar[type[CloseCode]] = CloseCode

    @property
    def known_code(self) -> CloseCode | None:
        """The registered code, or None for a private or unknown one (Ktor's `knownReason`)."""
        try:
            return CloseCode(self.code)
        except ValueError:
            return None

    def __repr__(self) -> str:
        known = self.known_code
        return f"CloseReason({self.code if known is None else known.name}, {self.message!r})"
