"""Ktor's server WebSockets on Trio's structured concurrency.

What stands here is imported when it is first asked for: pytest imports this package for its fixtures in every
environment that has it, and there it must cost nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .application import Application
    from .broadcasting import Room, broadcast
    from .call import Call
    from .config import CLOSE, SKIP, SUSPEND, ChannelConfig, Overflow, WebSockets
    from .converters import CattrsConverter, ContentConverter, JsonConverter, MsgspecConverter
    from .engine.listeners import inherited_listeners
    from .errors import (
        ChannelOverflow,
        CloseTimeout,
        ConnectionBroken,
        ConnectionClosed,
        ConverterNotFound,
        DeserializationError,
        HandshakeRefused,
        PingTimeout,
        WriteTimeout,
    )
    from .program import run
    from .protocol.close import CloseCode, CloseReason
    from .protocol.deflate import PerMessageDeflate
    from .protocol.errors import FrameTooBig, ProtocolError, TrioktorError, UnexpectedFrame
    from .protocol.extensions import Extension, ExtensionFactory, ExtensionHeader
    from .protocol.frames import Frame, FrameType
    from .protocol.handshake import LOOPBACK, SAME_ORIGIN
    from .protocol.headers import Headers
    from .protocol.responses import Response
    from .raw_session import RawWebSocketSession
    from .response_headers import ResponseHeaders
    from .routes import Routes
    from .server import Server, serve
    from .session import WebSocketSession
    from .statistics import SessionStatistics
    from .streaming import IncomingMessage, OutgoingMessage

__version__ = "0.1.0"

__all__ = [
    "CLOSE",
    "LOOPBACK",
    "SAME_ORIGIN",
    "SKIP",
    "SUSPEND",
    "Application",
    "Call",
    "CattrsConverter",
    "ChannelConfig",
    "ChannelOverflow",
    "CloseCode",
    "CloseReason",
    "CloseTimeout",
    "ConnectionBroken",
    "ConnectionClosed",
    "ContentConverter",
    "ConverterNotFound",
    "DeserializationError",
    "Extension",
    "ExtensionFactory",
    "ExtensionHeader",
    "Frame",
    "FrameTooBig",
    "FrameType",
    "HandshakeRefused",
    "Headers",
    "IncomingMessage",
    "JsonConverter",
    "MsgspecConverter",
    "OutgoingMessage",
    "Overflow",
    "PerMessageDeflate",
    "PingTimeout",
    "ProtocolError",
    "RawWebSocketSession",
    "Response",
    "ResponseHeaders",
    "Room",
    "Routes",
    "Server",
    "SessionStatistics",
    "TrioktorError",
    "UnexpectedFrame",
    "WebSocketSession",
    "WebSockets",
    "WriteTimeout",
    "broadcast",
    "inherited_listeners",
    "run",
    "serve",
]

_HOMES: dict[str, tuple[str, ...]] = {
    "application": ("Application",),
    "broadcasting": ("Room", "broadcast"),
    "call": ("Call",),
    "config": ("CLOSE", "ChannelConfig", "Overflow", "SKIP", "SUSPEND", "WebSockets"),
    "converters": ("CattrsConverter", "ContentConverter", "JsonConverter", "MsgspecConverter"),
    "engine.listeners": ("inherited_listeners",),
    "errors": (
        "ChannelOverflow",
        "CloseTimeout",
        "ConnectionBroken",
        "ConnectionClosed",
        "ConverterNotFound",
        "DeserializationError",
        "HandshakeRefused",
        "PingTimeout",
        "WriteTimeout",
    ),
    "program": ("run",),
    "protocol.close": ("CloseCode", "CloseReason"),
    "protocol.deflate": ("PerMessageDeflate",),
    "protocol.errors": ("FrameTooBig", "ProtocolError", "TrioktorError", "UnexpectedFrame"),
    "protocol.extensions": ("Extension", "ExtensionFactory", "ExtensionHeader"),
    "protocol.frames": ("Frame", "FrameType"),
    "protocol.handshake": ("LOOPBACK", "SAME_ORIGIN"),
    "protocol.headers": ("Headers",),
    "protocol.responses": ("Response",),
    "response_headers": ("ResponseHeaders",),
    "raw_session": ("RawWebSocketSession",),
    "routes": ("Routes",),
    "server": ("Server", "serve"),
    "session": ("WebSocketSession",),
    "statistics": ("SessionStatistics",),
    "streaming": ("IncomingMessage", "OutgoingMessage"),
}
"""Which names stand in which module."""

if not TYPE_CHECKING:  # to a type checker there is no name but those above

    def __getattr__(name: str) -> Any:
        for module, names in _HOMES.items():
            if name in names:
                value = getattr(importlib.import_module(f".{module}", __name__), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
